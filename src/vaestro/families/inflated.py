"""More zeros than a family of counts has: some rows never count at all."""

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints
from torch.nn import functional as F

from vaestro.errors import UsageError
from vaestro.families.base import Family, Repr, Sizes, split


class ZeroInflatedDistribution(Distribution):
    """0 with probability sigmoid(logits), else a draw of `base`: P(0) = pi + (1 - pi) P_base(0), P(x) = (1 - pi) P_base(x) (Lambert 1992, eq. 1); nats."""

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.nonnegative_integer

    def __init__(self, base: Distribution, logits: Tensor) -> None:
        self.base, self.logits = base, logits
        super().__init__(base.batch_shape, validate_args=False)

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "ZeroInflatedDistribution":
        """The same distribution, repeated over `batch_shape`."""
        return ZeroInflatedDistribution(self.base.expand(batch_shape), self.logits.expand(batch_shape))

    @property
    def mean(self) -> Tensor:
        """(1 - pi) E_base[x]."""
        return torch.sigmoid(-self.logits) * self.base.mean

    @property
    def variance(self) -> Tensor:
        """(1 - pi) (Var_base[x] + pi E_base[x]^2)."""
        return torch.sigmoid(-self.logits) * (self.base.variance + torch.sigmoid(self.logits) * self.base.mean.square())

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass of each count, in nats."""
        counted = F.logsigmoid(-self.logits) + self.base.log_prob(value)
        return torch.where(value == 0, torch.logaddexp(F.logsigmoid(self.logits).expand_as(counted), counted), counted)

    def sample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Counts, as floating numbers."""
        with torch.no_grad():
            counts = self.base.sample(torch.Size(sample_shape))
            idle = torch.rand_like(counts) < torch.sigmoid(self.logits)
            return torch.where(idle, 0.0, counts)


class ZeroInflated(Repr):
    """A `family` of counts with more zeros: `h` [..., (1 + params) C, ...] is the logit of never counting, then the family's own; nats (Lambert 1992).

    Raises UsageError for a family whose values are not independent.
    """

    def __init__(self, family: Family) -> None:
        self.family = family

    @property
    def event_dims(self) -> int:
        """The family's own."""
        return self.family.event_dims

    @property
    def params(self) -> int:
        """One more than the family's."""
        return 1 + self.family.params

    def __call__(self, h: Tensor) -> Distribution:
        """The distribution whose parameters are `h`, with events of `event_dims` axes; raises UsageError when the channels do not divide."""
        axis = -max(self.event_dims, 1)
        split(h, self.params, self.event_dims)  # refuses channels that do not divide
        channels = h.shape[axis] // self.params
        (logits,) = split(h.narrow(axis, 0, channels), 1, self.event_dims)
        dist = self.family(h.narrow(axis, channels, channels * self.family.params))
        if not isinstance(dist, Independent):
            raise UsageError(f"{self.family!r} cannot have more zeros, for its values are not independent; give a family of independent counts")
        return Independent(ZeroInflatedDistribution(dist.base_dist, logits), dist.reinterpreted_batch_ndims, validate_args=False)
