"""Gaussians with a predicted, a fixed and a shared scale."""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaestro.errors import UsageError
from vaestro.families.base import FLOOR, Repr, positive, split


class Gaussian(Repr):
    """N(loc, scale^2), both predicted: `h` [..., 2C, ...] is loc and s, with scale = 1e-4 + softplus(s + ln(e - 1)), which is 1 at s = 0.

    Log densities are in nats, and computed in float32 at least (Kingma & Welling 2014, appendix C.2).
    """

    params = 2

    def __init__(self, event_dims: int = 1) -> None:
        self.event_dims = event_dims

    def __call__(self, h: Tensor) -> Distribution:
        """The distribution whose parameters are `h`, with events of `event_dims` axes; raises UsageError when the channels do not divide."""
        loc, s = split(h, 2, self.event_dims)
        return Independent(Normal(loc, positive(s), validate_args=False), self.event_dims, validate_args=False)


class FixedGaussian(Repr):
    """N(h, scale^2) with one scale that nobody trains: -log p = (x - h)^2 / (2 scale^2) + ln scale + ln(2 pi) / 2, in nats.

    Raises UsageError unless the scale is a positive number.
    """

    params = 1

    def __init__(self, scale: float = 1.0, event_dims: int = 1) -> None:
        if not (math.isfinite(scale) and scale > 0):
            raise UsageError(f"a Gaussian cannot have the scale {scale}; give a positive number")
        self.scale, self.event_dims = float(scale), event_dims

    def __call__(self, h: Tensor) -> Distribution:
        """The distribution whose parameters are `h`, with events of `event_dims` axes; raises UsageError when the channels do not divide."""
        (loc,) = split(h, 1, self.event_dims)
        return Independent(Normal(loc, torch.full_like(loc, self.scale), validate_args=False), self.event_dims, validate_args=False)


class SharedGaussian(nn.Module):
    """N(h, scale^2) with one scale for all values, learnt: the optimum is the root of the mean squared error (Rybkin et al. 2021, sigma-VAE, eq. 4).

    The scale is exp(log_scale), with a floor of 1e-4. Raises UsageError unless the initial scale is a positive number.
    """

    params = 1

    def __init__(self, event_dims: int = 1, initial: float = 1.0) -> None:
        super().__init__()
        if not (math.isfinite(initial) and initial > 0):
            raise UsageError(f"a Gaussian cannot start from the scale {initial}; give a positive number")
        self.event_dims = event_dims
        self.log_scale = nn.Parameter(torch.tensor(math.log(initial)))

    def forward(self, h: Tensor) -> Distribution:
        """The distribution whose means are `h` [..., C, ...]."""
        (loc,) = split(h, 1, self.event_dims)
        scale = (self.log_scale.to(loc.dtype).exp() + FLOOR).expand_as(loc)
        return Independent(Normal(loc, scale, validate_args=False), self.event_dims, validate_args=False)
