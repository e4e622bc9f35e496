"""A Gaussian posterior that cannot collapse: its KL to the standard normal has a floor."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from vaestro.errors import UsageError
from vaestro.families.base import FLOOR, Repr, split


def widest(rate: float) -> float:
    """The largest scale s < 1 at which KL(N(0, s^2) || N(0, 1)) = (s^2 - 1) / 2 - ln s is `rate` nats: by bisection, to rounding.

    Raises UsageError for a rate that is negative, or so high that the scale would be below 2e-4.
    """
    if not 0 <= rate <= -0.5 - math.log(2 * FLOOR):
        raise UsageError(f"a Gaussian of one value cannot commit {rate} nats; give a rate from 0 to 8, for each latent")
    if rate == 0:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if (middle**2 - 1) / 2 - math.log(middle) > rate else (low, middle)
    return high


class CommittedGaussian(Repr):
    """N(loc, scale^2) with scale = 1e-4 + (s_u - 1e-4) sigmoid(s) below s_u: each value costs at least `rate` nats of KL to N(0, 1).

    KL(N(m, s^2) || N(0, 1)) = (m^2 + s^2 - 1) / 2 - ln s falls in s < 1, so its infimum is at m = 0, s = s_u, where it is `rate`
    (Razavi et al. 2019, section 2: the committed rate of independent Gaussians). `h` [..., 2C, ...] is loc and s. Raises UsageError for a rate out of reach.
    """

    params = 2

    def __init__(self, rate: float, event_dims: int = 1) -> None:
        self.rate, self.event_dims = rate, event_dims
        self._widest = widest(rate)

    def __call__(self, h: Tensor) -> Distribution:
        """The distribution whose parameters are `h`, with events of `event_dims` axes; raises UsageError when the channels do not divide."""
        loc, s = split(h, 2, self.event_dims)
        scale = FLOOR + (self._widest - FLOOR) * torch.sigmoid(s)
        return Independent(Normal(loc, scale, validate_args=False), self.event_dims, validate_args=False)
