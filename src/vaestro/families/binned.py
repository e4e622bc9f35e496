"""The mass of a bin: a continuous family made honest on discrete data."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, constraints

from vaestro.core import centre
from vaestro.errors import UsageError
from vaestro.families.base import Family, Sizes, precise
from vaestro.families.interval import log_interval, log_tail

_AT_ONCE = 1 << 16  # numbers that a sum over levels holds at a time
_TRACED = 16  # levels at a time in a traced graph


class BinnedDistribution(Distribution):
    """What `base` gives the `levels` bins around 0, 1/(levels-1), ..., 1: edges at (n +- 1/2)/(levels-1), the tails in the end bins."""

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.unit_interval

    def __init__(self, base: Distribution, levels: int) -> None:
        self.base, self.levels = base, levels
        super().__init__(base.batch_shape, validate_args=False)

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "BinnedDistribution":
        """The same distribution, repeated over `batch_shape`."""
        return BinnedDistribution(self.base.expand(batch_shape), self.levels)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass of the level of each unit value, in nats."""
        top = self.levels - 1
        level = torch.round(value * top)
        if top == 1:
            return log_tail(self.base, torch.full_like(level, 0.5), level > 0)
        low = torch.where(level <= 0, -math.inf, (level - 0.5) / top)
        high = torch.where(level >= top, math.inf, (level + 0.5) / top)
        return log_interval(self.base, low, high)

    def sample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Unit values, each one of the levels."""
        top = self.levels - 1
        with torch.no_grad():
            return torch.round(self.base.sample(torch.Size(sample_shape)) * top).clamp(0, top) / top

    @property
    def mean(self) -> Tensor:
        """The exact expectation in unit values, 1 - sum_n P(level < n) / (levels - 1)."""
        return (1 - self._sum_below(torch.ones_like) / (self.levels - 1)).to(self.base.mean.dtype)

    @property
    def variance(self) -> Tensor:
        """The exact variance, in unit values squared; n^2 is the sum of the first n odd numbers."""
        first, second = self._sum_below(torch.ones_like) / (self.levels - 1), self._sum_below(lambda n: 2 * n - 1) / (self.levels - 1) ** 2
        return (1 - second - (1 - first).square()).clamp(min=0).to(self.base.mean.dtype)

    def _sum_below(self, weight: Callable[[Tensor], Tensor]) -> Tensor:
        """sum_n weight(n) P(level < n) over n = 1 .. levels - 1, few enough levels at a time to stay in the cache."""
        like, top = self.base.mean, self.levels - 1
        total = precise(torch.zeros_like(like))
        # a graph that is traced for any number of rows must not take its number of steps from the rows at hand
        at_once = _TRACED if torch.compiler.is_compiling() else max(1, _AT_ONCE // max(1, like.numel()))
        for first in range(1, self.levels, at_once):
            n = torch.arange(first, min(first + at_once, self.levels), device=like.device, dtype=total.dtype).reshape(-1, *[1] * like.dim())
            below = self.base.cdf(((n - 0.5) / top).to(like.dtype))
            total = total + (weight(n) * below).sum(0)
        return total


@centre.register
def _(dist: BinnedDistribution) -> Tensor:
    return centre(dist.base)  # the exact mean costs a pass for each level


class Binned(nn.Module):
    """Turns a continuous `family` into the mass of its bins on unit values of `levels` levels, so that nats stay honest on discrete data.

    log p(v) = log P((v - 1/2) / (levels-1) < X <= (v + 1/2) / (levels-1)), the tails in the end bins; the masses sum to 1.
    Raises UsageError for fewer than two levels, or a family whose distribution has no `log_interval`.
    """

    def __init__(self, family: Family, levels: int) -> None:
        if levels < 2:
            raise UsageError(f"data cannot be binned to {levels} levels; give two or more")
        super().__init__()
        self.family, self.levels = family, levels

    @property
    def event_dims(self) -> int:
        """The family's own."""
        return self.family.event_dims

    @property
    def params(self) -> int:
        """The family's own."""
        return self.family.params

    def extra_repr(self) -> str:
        """What is inside, for errors to name."""
        return f"{self.family!r}, levels={self.levels}"

    def forward(self, h: Tensor) -> Distribution:
        """The binned distribution whose parameters are `h`."""
        dist = self.family(h)
        if not isinstance(dist, Independent):
            raise UsageError(f"{self.family!r} cannot be binned, for its values are not independent; give a family of independent values")
        return Independent(BinnedDistribution(dist.base_dist, self.levels), dist.reinterpreted_batch_ndims, validate_args=False)
