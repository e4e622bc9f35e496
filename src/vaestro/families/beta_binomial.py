"""The beta-binomial family of levels: a smooth, wide or two-ended mass in two numbers."""

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints
from torch.nn import functional as F

from vaestro.errors import UsageError
from vaestro.families.base import Repr, Sizes, precise, split
from vaestro.families.counts import log_positive, log_rising
from vaestro.families.gamma import log_gamma_draw

_FLAT = -60.0  # a smaller concentration draws one of the two ends, as this one does


class BetaBinomialDistribution(Distribution):
    """P(n) = C(N, n) B(n + a, N - n + b) / B(a, b) on the unit values n / N, N = levels - 1, a = c sigmoid(l), b = c sigmoid(-l); nats, in float64.

    sigmoid(l) is the mean; c is the concentration: 2 at l = 0 is uniform, more is narrower (the binomial at infinity), less has its mass at the ends.
    """

    arg_constraints = {"logits": constraints.real, "log_c": constraints.real}
    support = constraints.unit_interval
    logits: Tensor
    log_c: Tensor

    def __init__(self, logits: Tensor, log_c: Tensor, levels: int) -> None:
        self.logits, self.log_c = torch.broadcast_tensors(logits, log_c)
        self.levels = levels
        super().__init__(self.logits.shape, validate_args=False)

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "BetaBinomialDistribution":
        """The same distribution, repeated over `batch_shape`."""
        return BetaBinomialDistribution(self.logits.expand(batch_shape), self.log_c.expand(batch_shape), self.levels)

    @property
    def mean(self) -> Tensor:
        """sigmoid(l), in unit values."""
        return torch.sigmoid(self.logits)

    @property
    def variance(self) -> Tensor:
        """m (1 - m) (c + N) / (N (c + 1)), in unit values squared."""
        c, top = self.log_c.exp(), self.levels - 1
        return self.mean * torch.sigmoid(-self.logits) * (c + top) / (top * (c + 1))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass of the level of each unit value, in nats."""
        top = self.levels - 1
        n = torch.round(precise(value) * top)
        rest, logits, log_c = top - n, precise(self.logits), precise(self.log_c)
        choose = torch.lgamma(torch.full_like(n, top + 1)) - torch.lgamma(n + 1) - torch.lgamma(rest + 1)
        ends = log_rising(log_c + F.logsigmoid(logits), n) + log_rising(log_c + F.logsigmoid(-logits), rest)
        return (choose + ends - log_rising(log_c, torch.full_like(n, top))).to(self.logits.dtype)

    def sample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Unit values: a share drawn from the beta, then a binomial of it."""
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            logits, log_c = precise(self.logits).expand(shape), precise(self.log_c).expand(shape).clamp(min=_FLAT)
            a, b = (log_c + F.logsigmoid(logits)).exp(), (log_c + F.logsigmoid(-logits)).exp()
            share = torch.sigmoid(log_gamma_draw(a) - log_gamma_draw(b))
            top = self.levels - 1
            return (torch.binomial(torch.full_like(share, top), share) / top).to(self.logits.dtype)


class BetaBinomial(Repr):
    """A beta-binomial mass for each of `levels` unit values: `h` [..., 2C, ...] is the logit of the mean and the log of the concentration; nats.

    The likelihood of BB-ANS on grey pictures (Townsend et al. 2019, section 3.2). Raises UsageError for fewer than two levels.
    """

    params = 2

    def __init__(self, levels: int, event_dims: int = 1) -> None:
        if levels < 2:
            raise UsageError(f"a beta-binomial family cannot have {levels} levels; give two or more")
        self.levels, self.event_dims = levels, event_dims

    def __call__(self, h: Tensor) -> Distribution:
        """The distribution whose parameters are `h`, with events of `event_dims` axes; raises UsageError when the channels do not divide."""
        logits, log_c = split(h, 2, self.event_dims)
        return Independent(BetaBinomialDistribution(logits, log_positive(log_c), self.levels), self.event_dims, validate_args=False)
