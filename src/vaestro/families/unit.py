"""The continuous Bernoulli: a density on [0, 1], stable where its usual formula divides zero by zero."""

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints, register_kl

from vaestro.families.base import Repr, Sizes, split
from vaestro.families.interval import log_interval

_TINY = 1e-4  # below it, the first order is exact to rounding
_SMALL = 0.5  # below it, the series are exact to rounding; above it, so are the formulas


def _log_ratio(u: Tensor) -> Tensor:
    """log((1 - exp(-u)) / u) for u >= 0: a Taylor series near 0, where both sides of the fraction vanish."""
    v = u.square()
    series = -u / 2 + v * (1 / 24 + v * (-1 / 2880 + v * (1 / 181440 - v / 9676800)))
    large = torch.where(u < _SMALL, 1.0, u)
    return torch.where(u < _SMALL, series, torch.log(-torch.expm1(-large) / large))


def _mean_above(u: Tensor) -> Tensor:
    """The mean of the density u exp(u x) / (exp(u) - 1) on [0, 1] for u >= 0: 1 / (1 - exp(-u)) - 1 / u."""
    v = u.square()
    series = 0.5 + u * (1 / 12 + v * (-1 / 720 + v * (1 / 30240 - v / 1209600)))
    large = torch.where(u < _SMALL, 1.0, u)
    return torch.where(u < _SMALL, series, 1 / -torch.expm1(-large) - 1 / large)


def _variance(u: Tensor) -> Tensor:
    """Its variance for u >= 0: 1 / u^2 - 1 / (4 sinh^2(u / 2))."""
    v = u.square()
    series = 1 / 12 + v * (-1 / 240 + v * (1 / 6048 + v * (-1 / 172800 + v / 5322240)))
    large = torch.where(u < _SMALL, 1.0, u)
    return torch.where(u < _SMALL, series, 1 / large.square() - torch.exp(-large) / torch.expm1(-large).square())


class ContinuousBernoulliDistribution(Distribution):
    """p(x) = exp(l x) l / (exp(l) - 1) on [0, 1], l the logit (Loaiza-Ganem & Cunningham 2019, eq. 4 to 6); nats.

    All is computed from the end at which the density is highest, so that large logits cancel nothing.
    """

    arg_constraints = {"logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        super().__init__(logits.shape, validate_args=False)

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "ContinuousBernoulliDistribution":
        """The same distribution, repeated over `batch_shape`."""
        return ContinuousBernoulliDistribution(self.logits.expand(batch_shape))

    @property
    def size(self) -> Tensor:
        """|l|, by a branch whose gradient is right at 0 too."""
        return torch.where(self.logits > 0, self.logits, -self.logits)

    def to_peak(self, x: Tensor) -> Tensor:
        """How far `x` lies from the end where the density is highest."""
        return torch.where(self.logits > 0, 1 - x, x)

    @property
    def mean(self) -> Tensor:
        """1 / (1 - exp(-l)) - 1 / l."""
        above = _mean_above(self.size)
        return torch.where(self.logits > 0, above, 1 - above)

    @property
    def variance(self) -> Tensor:
        """1 / l^2 - 1 / (4 sinh^2(l / 2))."""
        return _variance(self.size)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of each value, in nats."""
        return -self.size * self.to_peak(value) - _log_ratio(self.size)

    def cdf(self, value: Tensor) -> Tensor:
        """P(X <= value)."""
        value = value.clamp(0, 1)
        near = self.to_peak(value)
        tiny = self.size < _TINY
        size = torch.where(tiny, 1.0, self.size)
        share = torch.where(tiny, near + self.size * near * (1 - near) / 2, torch.expm1(-size * near) / torch.expm1(-size))
        return torch.where(self.logits > 0, 1 - share, share)

    def icdf(self, value: Tensor) -> Tensor:
        """The point below which a share `value` of the mass lies."""
        share = torch.where(self.logits > 0, 1 - value, value)  # of the mass, counted from the peak
        tiny = self.size < _TINY
        size = torch.where(tiny, 1.0, self.size)
        far = torch.where(tiny, share + self.size * share * (share - 1) / 2, -torch.log1p(share * torch.expm1(-size)) / size)
        far = far.clamp(0, 1)
        return torch.where(self.logits > 0, 1 - far, far)

    def rsample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Samples that differentiate, by the inverse of the cumulative function."""
        eps = torch.finfo(self.logits.dtype).eps
        return self.icdf(torch.rand(self._extended_shape(torch.Size(sample_shape)), dtype=self.logits.dtype, device=self.logits.device).clamp(eps, 1 - eps))

    def entropy(self) -> Tensor:
        """-E log p, in nats; it is negative, for no density on [0, 1] has more than the uniform's 0."""
        return self.size * (1 - _mean_above(self.size)) + _log_ratio(self.size)


@log_interval.register
def _(dist: ContinuousBernoulliDistribution, low: Tensor, high: Tensor) -> Tensor:
    low, high = low.clamp(0, 1), high.clamp(0, 1)
    width = high - low
    nearest = torch.where(dist.logits > 0, 1 - high, low)
    return -dist.size * nearest + torch.log(width) + _log_ratio(dist.size * width) - _log_ratio(dist.size)


@register_kl(ContinuousBernoulliDistribution, ContinuousBernoulliDistribution)  # type: ignore[untyped-decorator]
def _kl(p: ContinuousBernoulliDistribution, q: ContinuousBernoulliDistribution) -> Tensor:
    return -p.entropy() - q.log_prob(p.mean)  # log q is linear in x


class ContinuousBernoulli(Repr):
    """A density on [0, 1] with logits `h` [..., C, ...]: log p = h x + ln(h / (exp(h) - 1)), in nats (Loaiza-Ganem & Cunningham 2019)."""

    params = 1

    def __init__(self, event_dims: int = 1) -> None:
        self.event_dims = event_dims

    def __call__(self, h: Tensor) -> Distribution:
        """The distribution whose parameters are `h`, with events of `event_dims` axes; raises UsageError when the channels do not divide."""
        (logits,) = split(h, 1, self.event_dims)
        return Independent(ContinuousBernoulliDistribution(logits), self.event_dims, validate_args=False)
