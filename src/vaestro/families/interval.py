"""The mass of an interval and of a tail, exact however far out."""

import math
from functools import singledispatch

import torch
from torch import Tensor
from torch.distributions import Distribution, Laplace, MixtureSameFamily, Normal
from torch.nn import functional as F

from vaestro.errors import UsageError
from vaestro.families.base import precise
from vaestro.families.logistic import LogisticDistribution
from vaestro.families.normal import log_mass, log_ndtr

_BEYOND = 1e20  # stands for infinity where infinity times a vanishing gradient would be NaN


@singledispatch
def log_interval(dist: Distribution, low: Tensor, high: Tensor) -> Tensor:
    """log P(low < X <= high) of each value, in nats; ends may be infinite, and low < high. Open: register it for a new distribution.

    Raises UsageError for a distribution that has none registered.
    """
    raise UsageError(f"{type(dist).__name__} has no mass of an interval, so it cannot be binned; say it with @log_interval.register")


@singledispatch
def log_tail(dist: Distribution, edge: Tensor, above: Tensor) -> Tensor:
    """log P(X > edge) where `above` is true, log P(X <= edge) elsewhere, in nats. Open, for those who know a faster way than `log_interval`."""
    return log_interval(dist, torch.where(above, edge, -math.inf), torch.where(above, math.inf, edge))


@log_interval.register
def _(dist: Normal, low: Tensor, high: Tensor) -> Tensor:
    low, high = (precise(end).clamp(-_BEYOND, _BEYOND) for end in (low, high))
    return log_mass(low, high, precise(dist.loc), precise(dist.scale)).to(dist.loc.dtype)


@log_tail.register
def _(dist: Normal, edge: Tensor, above: Tensor) -> Tensor:
    z = (edge - dist.loc) / dist.scale
    return log_ndtr(torch.where(above, -z, z))


@log_interval.register
def _(dist: LogisticDistribution, low: Tensor, high: Tensor) -> Tensor:
    """By sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)), in which nothing cancels."""
    low, high = low.clamp(-_BEYOND, _BEYOND), high.clamp(-_BEYOND, _BEYOND)
    b, a = (high - dist.loc) / dist.scale, (low - dist.loc) / dist.scale
    return F.logsigmoid(b) + F.logsigmoid(-a) + torch.log(-torch.expm1((low - high) / dist.scale))


@log_tail.register
def _(dist: LogisticDistribution, edge: Tensor, above: Tensor) -> Tensor:
    z = (edge - dist.loc) / dist.scale
    return F.logsigmoid(torch.where(above, -z, z))


@log_interval.register
def _(dist: Laplace, low: Tensor, high: Tensor) -> Tensor:
    """Beside the peak, exp(b) (1 - exp(a - b)) / 2 with the ends mirrored to its left; across it, 1 - (exp(a) + exp(-b)) / 2."""
    low, high = low.clamp(-_BEYOND, _BEYOND), high.clamp(-_BEYOND, _BEYOND)
    a, b = (low - dist.loc) / dist.scale, (high - dist.loc) / dist.scale
    right = a + b > 0
    a, b = torch.where(right, -b, a), torch.where(right, -a, b)
    beside = b.clamp(max=0) + torch.log(-torch.expm1((low - high) / dist.scale) / 2)
    across = torch.log(-(torch.expm1(-b.abs()) + torch.expm1(a.clamp(max=0))) / 2)
    return torch.where(b > 0, across, beside)


@log_interval.register
def _(dist: MixtureSameFamily, low: Tensor, high: Tensor) -> Tensor:
    parts = log_interval(dist.component_distribution, low.unsqueeze(-1), high.unsqueeze(-1))
    return torch.logsumexp(parts + dist.mixture_distribution.logits.log_softmax(-1), -1)


@log_tail.register
def _(dist: MixtureSameFamily, edge: Tensor, above: Tensor) -> Tensor:
    parts = log_tail(dist.component_distribution, edge.unsqueeze(-1), above.unsqueeze(-1))
    return torch.logsumexp(parts + dist.mixture_distribution.logits.log_softmax(-1), -1)
