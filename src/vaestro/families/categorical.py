"""The categorical family over the levels of integer data."""

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints, register_kl

from vaestro.errors import UsageError
from vaestro.families.base import Repr, Sizes, stack


class LevelDistribution(Distribution):
    """One of the unit values 0, 1/(L-1), ..., 1, with logits [..., L]: log p = logit - logsumexp(logits), in nats."""

    arg_constraints = {"logits": constraints.independent(constraints.real, 1)}
    support = constraints.unit_interval

    def __init__(self, logits: Tensor) -> None:
        self.logits, self.levels = logits, logits.shape[-1]
        super().__init__(logits.shape[:-1], validate_args=False)

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "LevelDistribution":
        """The same distribution, repeated over `batch_shape`."""
        return LevelDistribution(self.logits.expand(*batch_shape, self.levels))

    @property
    def _values(self) -> Tensor:
        return torch.arange(self.levels, dtype=self.logits.dtype, device=self.logits.device) / (self.levels - 1)

    @property
    def probs(self) -> Tensor:
        """The mass of each level, [..., L]."""
        return self.logits.softmax(-1)

    @property
    def mean(self) -> Tensor:
        """The expectation, in unit values."""
        return (self.probs * self._values).sum(-1)

    @property
    def variance(self) -> Tensor:
        """The variance, in unit values squared."""
        return (self.probs * (self._values - self.mean.unsqueeze(-1)).square()).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass of the level of each unit value, in nats."""
        level = torch.round(value * (self.levels - 1)).long().clamp(0, self.levels - 1)
        shape = torch.broadcast_shapes(level.shape, self.batch_shape)
        picked = self.logits.expand(*shape, self.levels).gather(-1, level.expand(shape).unsqueeze(-1)).squeeze(-1)
        return picked - self.logits.logsumexp(-1)

    def sample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Unit values."""
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            drawn = torch.distributions.Categorical(logits=self.logits, validate_args=False).sample(torch.Size(sample_shape))
            values: Tensor = (drawn.to(self.logits.dtype) / (self.levels - 1)).reshape(shape)
            return values

    def entropy(self) -> Tensor:
        """-sum p ln p, in nats."""
        logs = self.logits.log_softmax(-1)
        return -(logs.exp() * logs).sum(-1)


@register_kl(LevelDistribution, LevelDistribution)  # type: ignore[untyped-decorator]
def _kl(p: LevelDistribution, q: LevelDistribution) -> Tensor:
    logs = p.logits.log_softmax(-1)
    return (logs.exp() * (logs - q.logits.log_softmax(-1))).sum(-1)


class Categorical(Repr):
    """A free mass for each of `levels` unit values: `h` [..., levels * C, ...] are logits, the C of the first level first; nats.

    Raises UsageError for fewer than two levels.
    """

    def __init__(self, levels: int, event_dims: int = 1) -> None:
        if levels < 2:
            raise UsageError(f"a categorical family cannot have {levels} levels; give two or more")
        self.levels, self.event_dims = levels, event_dims

    @property
    def params(self) -> int:
        """One logit a level."""
        return self.levels

    def __call__(self, h: Tensor) -> Distribution:
        """The distribution whose parameters are `h`, with events of `event_dims` axes; raises UsageError when the channels do not divide."""
        return Independent(LevelDistribution(stack(h, self.levels, self.event_dims)), self.event_dims, validate_args=False)
