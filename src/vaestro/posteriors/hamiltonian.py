"""Posteriors that are moved by Hamiltonian dynamics towards the true one: tempered leapfrog steps in a flat or a curved space."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, constraints

from vaestro.core import Shape, centre, draw, scores
from vaestro.errors import UsageError
from vaestro.families.base import Sizes

Force: TypeAlias = Callable[[Tensor], Tensor]  # z [*lead, D] to the gradient of log p(x, z) there, [*lead, D]
LONGEST = 0.5  # step: beyond it leapfrog on latents of scale one is unstable soon
KICK = 1.0  # the most that a force adds to a momentum in half a leap: where a decoder is steep, leaps would fly apart
STRANGER = "a posterior of Hamiltonian dynamics scores only what it draws, for its momentum is part of it; use an objective that does not replay, such as elbo"


@runtime_checkable
class Metric(Protocol):
    """A space of positions z with G(z): momenta are N(0, G(z)), and H(z, r) = -log p(x, z) + r' G(z)^-1 r / 2 + log det G(z) / 2."""

    @property
    def rounds(self) -> int:
        """How often the implicit equations of a leap are iterated: once where they are explicit."""

    def momenta(self, z: Tensor) -> Distribution:
        """N(0, G(z)) over [D], at positions [*lead, D]."""

    def velocity(self, z: Tensor, r: Tensor) -> Tensor:
        """dH/dr = G(z)^-1 r."""

    def bend(self, z: Tensor, r: Tensor) -> Tensor:
        """The part of dH/dz that is the metric's own: the gradient in z of r' G(z)^-1 r / 2 + log det G(z) / 2."""


class Flat:
    """G = I: the dynamics of Caterini et al. 2018, in which leapfrog is explicit."""

    rounds = 1

    def momenta(self, z: Tensor) -> Distribution:
        """N(0, I)."""
        return Independent(Normal(torch.zeros_like(z), torch.ones_like(z), validate_args=False), 1, validate_args=False)

    def velocity(self, z: Tensor, r: Tensor) -> Tensor:
        """The momentum itself."""
        return r

    def bend(self, z: Tensor, r: Tensor) -> Tensor:
        """Nothing."""
        return torch.zeros_like(z)


class Curved:
    """G(z)^-1 = sum_i L_i L_i' exp(-|z - c_i|^2 / width^2) + floor I, around `centres` [N, D] with triangles `factors` [N, D, D].

    Chadebec et al. 2020, Geometry-Aware Hamiltonian Variational Auto-Encoder. Far from every centre it is flat, with `floor` as inverse mass.
    Gradients are closed forms: with w_i the weights above, d(r' G^-1 r)/dz = sum_i w_i r' L_i L_i' r (-2 (z - c_i) / width^2), and likewise
    d log det G / dz with tr(G L_i L_i').
    """

    def __init__(self, centres: Tensor, factors: Tensor, width: float, floor: float, rounds: int) -> None:
        self.centres, self.squares, self.width, self.floor, self.rounds = centres, factors @ factors.mT, width, floor, rounds

    def weights(self, z: Tensor) -> Tensor:
        """exp(-|z - c_i|^2 / width^2) of each centre: [*lead, N]."""
        return (-(z.unsqueeze(-2) - self.centres).square().sum(-1) / self.width**2).exp()

    def inverse(self, z: Tensor) -> Tensor:
        """G(z)^-1, [*lead, D, D]."""
        near = torch.einsum("...n,nij->...ij", self.weights(z), self.squares)
        return near + self.floor * torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)

    def momenta(self, z: Tensor) -> Distribution:
        """N(0, G(z)), by the triangle of its precision G(z)^-1; where that is not finite nothing is raised, so that training can skip the step."""
        flipped, _ = torch.linalg.cholesky_ex(self.inverse(z).flip(-2, -1))
        eye = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device).expand_as(flipped)
        triangle = torch.linalg.solve_triangular(flipped.flip(-2, -1).mT, eye, upper=False)
        return MultivariateNormal(torch.zeros_like(z), scale_tril=triangle, validate_args=False)

    def velocity(self, z: Tensor, r: Tensor) -> Tensor:
        """G(z)^-1 r."""
        return (self.inverse(z) @ r.unsqueeze(-1)).squeeze(-1)

    def bend(self, z: Tensor, r: Tensor) -> Tensor:
        """The closed form of the class's docstring."""
        w = self.weights(z)
        kinetic = torch.einsum("...i,nij,...j->...n", r, self.squares, r)
        volume = torch.einsum("...ij,nji->...n", torch.linalg.inv_ex(self.inverse(z))[0], self.squares)
        pull = w * (kinetic - volume)  # log det G = -log det G^-1
        return -(pull.sum(-1, keepdim=True) * z - pull @ self.centres) / self.width**2


class Leapfrog(nn.Module):
    """`steps` leaps, whose step sizes [D] and tempering are learnt (Caterini et al. 2018, section 3 and algorithm 1).

    A leap of size e: r <- r + e/2 F(z), z <- z + e r, r <- r + e/2 F(z), with F = d log p(x, z)/dz, each kick e/2 F cut to [-1, 1];
    in a curved space the generalised leapfrog, whose implicit equations are iterated `Metric.rounds` times (Girolami & Calderhead 2011;
    Chadebec et al. 2020). After leap k momenta shrink by sqrt(b_(k-1) / b_k), 1 / sqrt(b_k) = 1 / sqrt(b_0) + (1 - 1 / sqrt(b_0)) (k / steps)^2:
    they begin as N(0, G / b_0) and end as N(0, G). Every leap keeps volume, so the whole map has the determinant b_0^(D / 2). e is in (0, 0.5);
    a `heat` b_0 of 1 is no tempering, and then none is learnt.
    Raises UsageError for numbers outside these ranges.
    """

    def __init__(self, latents: int, steps: int, size: float, heat: float) -> None:
        super().__init__()
        if steps < 0 or not 0 < size < LONGEST or not 0 < heat <= 1:
            raise UsageError(
                f"dynamics cannot have {steps} steps of size {size} with tempering {heat}; give 0 or more steps of a size between 0 and {LONGEST}, "
                "and a tempering above 0 and at most 1"
            )
        self.steps = steps
        self.raw_size = nn.Parameter(torch.full((latents,), math.log(size / (LONGEST - size)))) if steps else None
        self.raw_heat = nn.Parameter(torch.tensor(math.log(heat / (1 - heat)))) if steps and heat < 1 else None

    def sizes(self) -> Tensor:
        """The step sizes e, [D]."""
        return torch.zeros(()) if self.raw_size is None else LONGEST * self.raw_size.sigmoid()

    def scales(self) -> list[Tensor]:
        """sqrt(b_k) for k = 0 .. steps; the last is 1."""
        if self.raw_heat is None:
            return [torch.ones(())] * (self.steps + 1)
        start = self.raw_heat.sigmoid().rsqrt()
        return [1 / (start + (1 - start) * (k / self.steps) ** 2) for k in range(self.steps + 1)]

    def forward(self, z: Tensor, r: Tensor, force: Force, metric: Metric) -> tuple[Tensor, Tensor]:
        """Positions and momenta after all leaps, from positions [*lead, D] and momenta [*lead, D] that are drawn from N(0, G(z)), before b_0 scales them."""
        size, scales = self.sizes(), self.scales()
        r = r / scales[0].to(r)
        pull = force(z)
        for before, after in pairwise(scales):
            z, r, pull = leap(z, r, pull, size.to(z), (force, metric))
            r = r * (before / after).to(r)
        return z, r


def leap(z: Tensor, r: Tensor, pull: Tensor, size: Tensor, world: tuple[Force, Metric]) -> tuple[Tensor, Tensor, Tensor]:
    """One generalised leapfrog step of (force, metric), of `size`, from a place where the force is `pull`: the next place, momentum and force."""
    force, metric = world
    half, ahead, kicked = r, z, r + kick(size, pull)
    for _ in range(metric.rounds):
        half = kicked - size / 2 * metric.bend(z, half)
    start = metric.velocity(z, half)
    for _ in range(metric.rounds):
        ahead = z + size / 2 * (start + metric.velocity(ahead, half))
    pull = force(ahead)
    return ahead, half + kick(size, pull) - size / 2 * metric.bend(ahead, half), pull


def kick(size: Tensor, pull: Tensor) -> Tensor:
    """What a force adds to a momentum in half a leap, at most 1 a dimension; any function of z alone keeps volume, so densities stay exact."""
    return (size / 2 * pull).clamp(-KICK, KICK)


class Hamiltonian(Distribution):
    """q(z | x) of a draw from `base`, moved: z_0 ~ base, g ~ N(0, G(z_0)), (z, r) = leapfrog(z_0, g), and the momentum is forgotten.

    The log density that comes with a draw is log q(z_0) + log N(g; 0, G(z_0)) - log N(r; 0, G(z)), in nats: the determinant of the leaps cancels the
    scale of the first momentum. With it log p(x, z) - log q is the Hamiltonian bound of Caterini et al. 2018, algorithm 1, whose exponential has the mean p(x):
    every bound made of weights stays one. It scores only what it draws. `force` is the gradient of log p(x, z) in z.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, base: Distribution, leapfrog: Leapfrog, force: Force, metric: Metric) -> None:
        self.base, self.leapfrog, self.force, self.metric = base, leapfrog, force, metric
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "Hamiltonian":
        """The same distribution, repeated over `batch_shape`."""
        return Hamiltonian(self.base.expand(torch.Size(batch_shape)), self.leapfrog, self.force, self.metric)

    def log_prob(self, value: Tensor) -> Tensor:
        """Raises UsageError: the log density comes with the draw, by `vaestro.core.draw`."""
        raise UsageError(STRANGER)

    def rsample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Samples that differentiate."""
        return self.draw(tuple(sample_shape))[0]

    def draw(self, shape: Shape) -> tuple[Tensor, Tensor]:
        """Samples, and the log densities that come with them."""
        learning = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.set_grad_enabled(learning):  # forces are gradients, where nobody else needs any, too
            z, log_q = (t.clone() for t in draw(self.base, shape))
            rest = self.metric.momenta(z)
            g, log_g = draw(rest, ())
            z, r = self.leapfrog(z, g, self.force, self.metric)
            log_r: Tensor = self.metric.momenta(z).log_prob(r)
            return z, log_q + log_g - log_r

    def middle(self) -> Tensor:
        """Where the centre of `base` moves when it starts at rest."""
        learning = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.set_grad_enabled(learning):
            z = centre(self.base).clone()
            moved: Tensor = self.leapfrog(z, torch.zeros_like(z), self.force, self.metric)[0]
            return moved


@draw.register
def _(dist: Hamiltonian, shape: Shape) -> tuple[Tensor, Tensor]:
    return dist.draw(shape)


@scores.register
def _(dist: Hamiltonian) -> bool:
    return False


@centre.register
def _(dist: Hamiltonian) -> Tensor:
    return dist.middle()
