"""The mass of an interval, log P(low < X <= high), exact in the far tails."""

import math
from functools import singledispatch

import torch
from torch import Tensor
from torch.distributions import Distribution, Laplace, MixtureSameFamily, Normal

from vaestro.errors import UsageError
from vaestro.families.base import precise
from vaestro.families.logistic import LogisticDistribution, log_logistic_interval


@singledispatch
def log_interval(dist: Distribution, low: Tensor, high: Tensor) -> Tensor:
    """log P(low < X <= high) of each value, in nats; one end may be infinite, `low` < `high`. Open: register it for a new distribution.

    Raises UsageError for a distribution that has none registered.
    """
    raise UsageError(f"{type(dist).__name__} cannot be binned, for it has no mass of an interval; say it with @log_interval.register")


log_interval.register(LogisticDistribution, log_logistic_interval)


def _finite(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The ends with infinities made finite, and where there was one: a NaN that `where` drops would still poison the gradient."""
    open_ended = torch.isinf(low) | torch.isinf(high)
    return torch.where(torch.isinf(low), high - 1, low), torch.where(torch.isinf(high), low + 1, high), open_ended


@log_interval.register
def _(dist: Normal, low: Tensor, high: Tensor) -> Tensor:
    """Both ends are mirrored into the left tail, where log_ndtr is exact; float64, for the narrowest bins subtract nearly equal numbers."""
    right = (low - dist.loc) + (high - dist.loc) > 0
    finite_low, finite_high, open_ended = _finite(low, high)
    loc, scale = precise(dist.loc), precise(dist.scale)
    a, b = (precise(finite_low) - loc) / scale, (precise(finite_high) - loc) / scale
    a, b = torch.where(right, -b, a), torch.where(right, -a, b)
    whole = torch.special.log_ndtr(b)
    less = torch.where(open_ended, -1.0, torch.special.log_ndtr(a) - whole).clamp(max=-torch.finfo(whole.dtype).tiny)
    return (whole + torch.where(open_ended, 0.0, torch.log(-torch.expm1(less)))).to(dist.loc.dtype)


@log_interval.register
def _(dist: Laplace, low: Tensor, high: Tensor) -> Tensor:
    """In closed form on each side of the peak, with the width subtracted before it is scaled."""
    right = (low - dist.loc) + (high - dist.loc) > 0
    finite_low, finite_high, open_ended = _finite(low, high)
    a, b = (finite_low - dist.loc) / dist.scale, (finite_high - dist.loc) / dist.scale
    a, b = torch.where(right, -b, a), torch.where(right, -a, b)
    width = (finite_high - finite_low) / dist.scale
    tail = b.clamp(max=0) - math.log(2) + torch.where(open_ended, 0.0, torch.log(-torch.expm1(-width)))
    across = b > 0
    inside = -torch.expm1(-torch.where(across, b, 1.0)) - torch.where(open_ended, -1.0, torch.expm1(torch.where(across & ~open_ended, a, -1.0)))
    return torch.where(across, torch.log(inside / 2), tail)


@log_interval.register
def _(dist: MixtureSameFamily, low: Tensor, high: Tensor) -> Tensor:
    parts = log_interval(dist.component_distribution, low.unsqueeze(-1), high.unsqueeze(-1))
    return torch.logsumexp(parts + torch.log_softmax(dist.mixture_distribution.logits, -1), -1)
