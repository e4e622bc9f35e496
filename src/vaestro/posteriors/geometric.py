"""Laws of latents that live in a space of their own: directions, points of the Poincare ball, shares of a whole."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaestro.codes import numbered
from vaestro.errors import UsageError
from vaestro.families.base import positive
from vaestro.families.gamma import LEAST, DirichletDistribution
from vaestro.families.hyperbolic import RIM, WrappedNormal
from vaestro.families.sphere import Around, PowerSpherical, UniformSphere, VonMisesFisher
from vaestro.networks.ball import from_origin, length, to_origin
from vaestro.posteriors.base import Law
from vaestro.registry import Registry

FAR = 10.0  # the distance times sqrt(c) from the origin within which posteriors are centred: beyond it float32 rounds away scales of 0.01
FINEST = 1e-2  # the smallest scale of a posterior on the ball


def direction(v: Tensor) -> Tensor:
    """v / |v| [*lead, m]; of no length, the first axis."""
    v = v / v.detach().abs().amax(-1, keepdim=True).clamp(min=torch.finfo(v.dtype).tiny)  # only its direction counts; its square could overflow
    n = torch.linalg.vector_norm(v, dim=-1, keepdim=True)  # 0, or at least 1
    first = torch.zeros_like(v)
    first[..., 0] = 1.0
    return torch.where(n > 0, v / n.clamp(min=1.0), first)


class Directed:
    """A law of directions in R^m: m numbers of the mean direction, and s with kappa = m (1e-4 + softplus(s + ln(e - 1))), so that it starts near m.

    Raises UsageError for fewer than two coordinates, for the sphere of one is two points.
    """

    def __init__(self, latents: int, make: Callable[[Tensor, Tensor], Distribution]) -> None:
        if latents < 2:
            raise UsageError(
                f"a sphere needs 2 latents or more, and got {latents}: they are its coordinates, and in one dimension it is two points; give latents=2"
            )
        self.latents, self.numbers, self.make = latents, latents + 1, make

    def __call__(self, h: Tensor) -> Distribution:
        """The distribution that `h` [*lead, m + 1] describes."""
        return self.make(direction(h[..., : self.latents]), self.latents * positive(h[..., self.latents]))


SPHERICAL: Registry[Callable[[int], Law]] = Registry("law of directions")


@SPHERICAL.register
def vmf(latents: int) -> Law:
    """Von Mises-Fisher, the Gaussian's cut through the sphere (Davidson et al. 2018)."""
    return Directed(latents, VonMisesFisher)


@SPHERICAL.register
def power_spherical(latents: int) -> Law:
    """Power spherical: nearly the same shape, drawn without rejection (De Cao & Aziz 2020)."""
    return Directed(latents, PowerSpherical)


class Wrapped:
    """Wrapped normals of the Poincare ball: D numbers of the centre, exp_0 of them, at most 10 / sqrt(c) far, and s, scale = 0.01 + positive(s).

    Raises UsageError for a curvature that is not positive.
    """

    def __init__(self, latents: int, curvature: float) -> None:
        check_curvature(curvature)
        self.latents, self.numbers, self.curvature = latents, 2 * latents, curvature

    def __call__(self, h: Tensor) -> Distribution:
        """The distribution that `h` [*lead, 2D] describes."""
        v, s = h.split(self.latents, -1)
        v = v * (FAR / math.sqrt(self.curvature) / length(v)).clamp(max=1.0)
        return WrappedNormal(from_origin(v, self.curvature), FINEST + positive(s), self.curvature)


def check_curvature(curvature: float) -> None:
    """Raises UsageError for a curvature that is not a positive number."""
    if not (math.isfinite(curvature) and curvature > 0):
        raise UsageError(f"the curvature of a Poincare ball cannot be {curvature}; give a positive number such as 1, or take the recipe vae for a flat space")


def check_room(latents: int, curvature: float, scale: float) -> None:
    """Raises UsageError where draws of a wrapped normal at the origin, four deviations outside of their usual distance, leave what float32 tells apart."""
    check_curvature(curvature)
    reach, room = scale * (math.sqrt(latents) + 4), RIM[torch.float32]
    if math.sqrt(curvature) * reach > room:
        most = (room / reach) ** 2
        raise UsageError(
            f"{latents} latents of scale {scale:g} reach beyond the rim of a Poincare ball of curvature {curvature:g} as float32 knows it; "
            f"give a curvature of {math.floor(most * 1000) / 1000:g} at most, or fewer latents"
        )


class Portions:
    """Dirichlet distributions of K shares: K numbers, concentration = 0.1 + 1e-4 + softplus(. + ln(e - 1)).

    Raises UsageError for fewer than two shares, for the only one is always the whole.
    """

    def __init__(self, latents: int) -> None:
        check_shares(latents)
        self.numbers = latents

    def __call__(self, h: Tensor) -> Distribution:
        """The distribution that `h` [*lead, K] describes."""
        return DirichletDistribution(LEAST + positive(h), validate_args=False)


def check_shares(latents: int) -> None:
    """Raises UsageError for fewer than two shares."""
    if latents < 2:
        raise UsageError(f"a Dirichlet distribution needs 2 latents or more, and got {latents}: one share of a whole is the whole; give latents=2")


@numbered.register(UniformSphere)
@numbered.register(Around)
def _(dist: Distribution, value: Tensor) -> Tensor:
    return value.reshape(len(value), -1) * math.sqrt(dist.event_shape[0])  # of a uniform direction, each of variance 1


@numbered.register
def _(dist: WrappedNormal, value: Tensor) -> Tensor:
    return to_origin(value, dist.curvature).reshape(len(value), -1)


@numbered.register
def _(dist: DirichletDistribution, value: Tensor) -> Tensor:
    return value.reshape(len(value), -1) * dist.event_shape[0]  # one is an even share
