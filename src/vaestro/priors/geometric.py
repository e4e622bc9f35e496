"""Priors of latents that live in a space of their own: directions, points of the Poincare ball, positive numbers, shares of a whole. None has weights."""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from vaestro.errors import UsageError
from vaestro.families.gamma import DirichletDistribution, GammaDistribution
from vaestro.families.hyperbolic import WrappedNormal
from vaestro.families.sphere import Around, UniformSphere
from vaestro.priors.fitted import replaceable


class UniformDirections(nn.Module):
    """The uniform law of directions in R^m: log p(z) = -ln (2 pi^(m/2) / Gamma(m/2)), to the surface of the sphere; nats."""

    zeros: Tensor

    def __init__(self, latents: int) -> None:
        super().__init__()
        self.register_buffer("zeros", torch.zeros(latents), persistent=False)

    def forward(self) -> Distribution:
        """The distribution, of batch shape ()."""
        return UniformSphere(self.zeros)


class WrappedAtOrigin(nn.Module):
    """The wrapped normal at the origin of the Poincare ball of curvature -c, of one `scale`; see `WrappedNormal`."""

    zeros: Tensor

    def __init__(self, latents: int, curvature: float, scale: float = 1.0) -> None:
        super().__init__()
        self.curvature, self.scale = curvature, _above_zero(scale, "scale")
        self.register_buffer("zeros", torch.zeros(latents), persistent=False)

    def forward(self) -> Distribution:
        """The distribution, of batch shape ()."""
        return WrappedNormal(self.zeros, torch.full_like(self.zeros, self.scale), self.curvature)


class EvenDirichlet(nn.Module):
    """Dirichlet of K equal concentrations a: log p(z) = ln Gamma(K a) - K ln Gamma(a) + (a - 1) sum ln z_k, in nats.

    Below a = 1 few shares are large, above it all are alike. Raises UsageError for a concentration that is not positive.
    """

    zeros: Tensor

    def __init__(self, latents: int, concentration: float = 1.0) -> None:
        super().__init__()
        self.concentration = _above_zero(concentration, "concentration")
        self.register_buffer("zeros", torch.zeros(latents), persistent=False)

    def forward(self) -> Distribution:
        """The distribution, of batch shape ()."""
        return DirichletDistribution(self.zeros + self.concentration, validate_args=False)


class EvenGamma(nn.Module):
    """Independent gammas of one concentration a and one rate r: log p(z) = sum_d a ln r - ln Gamma(a) + (a - 1) ln z_d - r z_d, in nats."""

    zeros: Tensor

    def __init__(self, latents: int, concentration: float = 1.0, rate: float = 1.0) -> None:
        super().__init__()
        self.concentration, self.rate = _above_zero(concentration, "concentration"), _above_zero(rate, "rate")
        self.register_buffer("zeros", torch.zeros(latents), persistent=False)

    def forward(self) -> Distribution:
        """The distribution, of batch shape ()."""
        return Independent(GammaDistribution(self.zeros + self.concentration, self.zeros + self.rate, validate_args=False), 1, validate_args=False)


def _above_zero(number: float, what: str) -> float:
    if not (math.isfinite(number) and number > 0):
        raise UsageError(f"the {what} of a prior cannot be {number}; give a positive number")
    return number


@replaceable.register(UniformSphere)
@replaceable.register(Around)
@replaceable.register(WrappedNormal)
@replaceable.register(DirichletDistribution)
@replaceable.register(GammaDistribution)
def _(dist: Distribution) -> bool:
    return False  # a density over all vectors has no place on a sphere, in a ball or on shares: its nats would be to another measure
