"""VAEs whose posterior follows the gradient of log p(x, z): Hamiltonian dynamics, in a flat space or in one that is learnt."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaestro.conditional import through
from vaestro.core import Batch, Program, Site, prepare, take
from vaestro.errors import UsageError
from vaestro.models.base import VAE, data_of
from vaestro.models.refined import Slope, usable
from vaestro.posteriors.hamiltonian import Curved, Flat, Force, Hamiltonian, Leapfrog, Metric
from vaestro.seeds import places


class FlatSpace(nn.Module):
    """G = I."""

    def forward(self) -> Metric:
        """The metric."""
        return Flat()


class Bend(NamedTuple):
    """How curved a learnt space is: G(z)^-1 = sum_i L_i L_i' exp(-|z - c_i|^2 / width^2) + floor I; `rounds` of iteration for the leaps in it."""

    width: float = 0.8
    floor: float = 0.1
    rounds: int = 8


class LearntSpace(nn.Module):
    """The metric of Chadebec et al. 2020: bumps around the encodings c_i of `rows` of the data, with triangles L_i that a network says of them.

    The N rows [N, *event of x] are taken from the training data before the first step and saved with the weights, so that training, scoring and reopening
    have one metric; the encodings are those of the present encoder, which is held, not owned. (The paper takes the rows of the batch in training.)
    `net` maps x to the D (D + 1) / 2 numbers of a lower triangle, held to (0, 1) on its diagonal and to (-1, 1) below it, all over sqrt(N):
    G^-1 has the size of one where all bumps meet, and leaps stay stable (the paper's are free, and only the
    diagonal positive). Raises UsageError for a width, a floor or rounds that are not positive, and where the posterior is no diagonal Gaussian.
    """

    rows: Tensor
    places: Tensor

    def __init__(self, posterior: nn.Module, net: nn.Module, rows: Tensor, latents: int, bend: Bend) -> None:
        super().__init__()
        if min(bend) <= 0 or not len(rows):
            raise UsageError(f"a space cannot have {len(rows)} centres and {bend}; give one centre or more, and positive numbers")
        self._held, self.net, self.bend, self.latents = (posterior,), net, bend, latents
        self.register_buffer("rows", rows.detach().clone())
        self.register_buffer("places", torch.tril_indices(latents, latents), persistent=False)

    @torch.no_grad()
    def start(self, rows: Tensor) -> None:
        """Takes its rows from those of the data [n, *event], at random; with replacement where there are fewer."""
        order = places(len(self.rows), len(rows), rows.device)
        self.rows.copy_(rows[order])

    def forward(self) -> Metric:
        """The metric, differentiable in the encoder and in the network."""
        learning = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.set_grad_enabled(learning):
            q = self._held[0](self.rows)
            if not (isinstance(q, Independent) and isinstance(q.base_dist, Normal)):
                raise UsageError("a learnt space is centred on a posterior that is a diagonal Gaussian; give the posterior the family Gaussian")
            numbers = through(self.net, self.rows)
            down, along = self.places
            filled = torch.where(down == along, numbers.sigmoid(), numbers.tanh()) / math.sqrt(len(numbers))
            factors = filled.new_zeros(len(filled), self.latents**2).index_copy(1, down * self.latents + along, filled).unflatten(1, (self.latents, -1))
            centres: Tensor = q.base_dist.loc
            return Curved(centres, factors, *self.bend)


@prepare.register(LearntSpace)
def _(part: LearntSpace, data: Mapping[str, Tensor]) -> None:
    part.start(data["x"])


class HamiltonianVAE(VAE):
    """A VAE whose draws of q(z | x) are moved by Hamiltonian dynamics towards p(z | x): in training, in evaluation, wherever the program runs.

    log_w = log p(x, z_K) + log N(r_K; 0, G) - log q(z_0 | x) - log N(r_0; 0, G / b_0) + D log(b_0) / 2 (Caterini et al. 2018, algorithm 1), so that the
    mean of its exponential is p(x), and its own mean a bound. Without steps it is the VAE, whose KL then has its closed form. `slope` takes the gradient of
    log p(x, z): with its own derivatives, or as a constant, which alters what is trained and not what is reported. Where x was seen in part
    (`Seen`), only that part pulls.
    """

    def __init__(self, parts: tuple[nn.Module, nn.Module, nn.Module], leapfrog: Leapfrog, space: nn.Module, slope: Slope) -> None:
        super().__init__(*parts)
        self.leapfrog, self.space, self.slope = leapfrog, space, slope

    def program(self, batch: Batch | None = None) -> Program:
        """z ~ p(z) with the moved q(z | x), then x ~ p(x | z)."""
        x = data_of(batch)
        z = yield Site("z", self.prior(), None if batch is None or x is None else self.moved(self.posterior(x), batch))
        yield Site("x", self.likelihood(z))

    def moved(self, q: Distribution, batch: Batch) -> Distribution:
        """q(z | x) after the dynamics; `q` itself without any."""
        return Hamiltonian(q, self.leapfrog, self.force(batch), self.space()) if self.leapfrog.steps else q

    def force(self, batch: Batch) -> Force:
        """z [*lead, D] to the gradient of log p(x, z) in z."""
        with torch.inference_mode(False):
            given = {n: usable(v) for n, v in batch.items()}

        def joint(z: Tensor) -> Tensor:
            x = take(Site("x", self.likelihood(z)), tuple(z.shape[:-1]), given["x"])
            log_p: Tensor = self.prior().log_prob(z) + x.log_p
            return log_p.sum()

        return lambda z: _force(joint, z, self.slope)


def _force(joint: Callable[[Tensor], Tensor], z: Tensor, slope: Slope) -> Tensor:
    with torch.enable_grad():
        found = slope(joint, z)
    return found if z.requires_grad else found.detach()
