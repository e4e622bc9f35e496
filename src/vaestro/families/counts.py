"""Counts without a top: Poisson and negative binomial, with parameters in logs so that nothing over- or underflows."""

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints

from vaestro.families.base import Repr, Sizes, precise, split

_STEEP = 17.0  # exp(17) is more than any count that float32 holds exactly (2^24)
_LARGE = 10.0  # from here on Stirling's series is exact to rounding


def log_positive(h: Tensor) -> Tensor:
    """The log of a positive parameter: h itself, so that it is exp(h), and above 17 17 + ln(1 + h - 17), so that it is linear in h and never overflows."""
    return torch.where(h > _STEEP, _STEEP + torch.log1p(h.clamp(min=_STEEP) - _STEEP), h)


def _stirling(z: Tensor) -> Tensor:
    """ln Gamma(z) - ((z - 1/2) ln z - z + ln(2 pi) / 2) for z >= 10 (Abramowitz & Stegun 1964, 6.1.41)."""
    v = z.reciprocal()
    w = v.square()
    return v * (1 / 12 + w * (-1 / 360 + w * (1 / 1260 + w * (-1 / 1680 + w * (1 / 1188 - w * 691 / 360360)))))


def log_rising(log_r: Tensor, x: Tensor) -> Tensor:
    """ln Gamma(r + x) - ln Gamma(r) for counts x and any r = exp(log_r), in nats: exactly 0 at x = 0; neither small nor large r cancels.

    Below 10, Gamma(r) = Gamma(1 + r) / r takes the pole at 0 out; above, x ln r + (r + x - 1/2) ln(1 + x / r) - x and the rest of Stirling's series.
    """
    some = x.clamp(min=1)
    r = log_r.exp()
    small, large = r.clamp(max=_LARGE), r.clamp(min=_LARGE)
    near = torch.lgamma(some + small) - torch.lgamma(1 + small) + log_r
    far = some * log_r + (large + some - 0.5) * torch.log1p(some / large) - some + _stirling(large + some) - _stirling(large)
    return torch.where(x > 0, torch.where(r < _LARGE, near, far), 0.0)


class PoissonDistribution(Distribution):
    """P(x) = exp(x l - exp(l)) / x! on 0, 1, 2, ..., l the log of the rate; nats, computed in float64, for its terms nearly cancel."""

    arg_constraints = {"log_rate": constraints.real}
    support = constraints.nonnegative_integer

    def __init__(self, log_rate: Tensor) -> None:
        self.log_rate = log_rate
        super().__init__(log_rate.shape, validate_args=False)

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "PoissonDistribution":
        """The same distribution, repeated over `batch_shape`."""
        return PoissonDistribution(self.log_rate.expand(batch_shape))

    @property
    def mean(self) -> Tensor:
        """exp(l)."""
        return self.log_rate.exp()

    @property
    def variance(self) -> Tensor:
        """exp(l)."""
        return self.log_rate.exp()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass of each count, in nats."""
        x, log_rate = precise(value), precise(self.log_rate)
        return (x * log_rate - log_rate.exp() - torch.lgamma(x + 1)).to(self.log_rate.dtype)

    def sample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Counts, as floating numbers."""
        with torch.no_grad():
            rate = precise(self.log_rate).exp().expand(self._extended_shape(torch.Size(sample_shape)))
            return torch.poisson(rate).to(self.log_rate.dtype)


class NegativeBinomialDistribution(Distribution):
    """P(x) = Gamma(x + r) / (Gamma(r) x!) (r / (r + m))^r (m / (r + m))^x on 0, 1, 2, ...: mean m, variance m + m^2 / r; nats, in float64.

    A Poisson whose rate is Gamma(r) with mean m (Hilbe 2011, section 8.2): as r grows it becomes the Poisson.
    """

    arg_constraints = {"log_mean": constraints.real, "log_r": constraints.real}
    support = constraints.nonnegative_integer
    log_mean: Tensor
    log_r: Tensor

    def __init__(self, log_mean: Tensor, log_r: Tensor) -> None:
        self.log_mean, self.log_r = torch.broadcast_tensors(log_mean, log_r)
        super().__init__(self.log_mean.shape, validate_args=False)

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "NegativeBinomialDistribution":
        """The same distribution, repeated over `batch_shape`."""
        return NegativeBinomialDistribution(self.log_mean.expand(batch_shape), self.log_r.expand(batch_shape))

    @property
    def mean(self) -> Tensor:
        """m."""
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        """m + m^2 / r."""
        return self.mean + torch.exp(2 * self.log_mean - self.log_r)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass of each count, in nats."""
        x, log_m, log_r = precise(value), precise(self.log_mean), precise(self.log_r)
        each = log_rising(log_r, x) - torch.lgamma(x + 1)
        log_p = each + log_r.exp() * torch.nn.functional.logsigmoid(log_r - log_m) + x * torch.nn.functional.logsigmoid(log_m - log_r)
        return log_p.to(self.log_mean.dtype)

    def sample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Counts, as floating numbers: a rate drawn from the gamma, then a Poisson of it."""
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            log_m, r = precise(self.log_mean).expand(shape), precise(self.log_r).clamp(min=-600).exp().expand(shape)
            share = torch.distributions.Gamma(r, torch.ones_like(r), validate_args=False).sample() / r
            return torch.poisson(share * log_m.exp()).to(self.log_mean.dtype)


class Poisson(Repr):
    """Counts with mean exp(h), `h` [..., C, ...] (linear beyond e^17): log p = x h - exp(h) - ln x!, in nats."""

    params = 1

    def __init__(self, event_dims: int = 1) -> None:
        self.event_dims = event_dims

    def __call__(self, h: Tensor) -> Distribution:
        """The distribution whose parameters are `h`, with events of `event_dims` axes; raises UsageError when the channels do not divide."""
        (log_rate,) = split(h, 1, self.event_dims)
        return Independent(PoissonDistribution(log_positive(log_rate)), self.event_dims, validate_args=False)


class NegativeBinomial(Repr):
    """Counts that vary more than a Poisson's: `h` [..., 2C, ...] is ln m and ln r, of mean m and variance m + m^2 / r (both linear beyond e^17); nats.

    1 / r is the dispersion (Hilbe 2011, section 8.2; as a VAE's likelihood, Lopez et al. 2018, scVI).
    """

    params = 2

    def __init__(self, event_dims: int = 1) -> None:
        self.event_dims = event_dims

    def __call__(self, h: Tensor) -> Distribution:
        """The distribution whose parameters are `h`, with events of `event_dims` axes; raises UsageError when the channels do not divide."""
        log_mean, log_r = split(h, 2, self.event_dims)
        return Independent(NegativeBinomialDistribution(log_positive(log_mean), log_positive(log_r)), self.event_dims, validate_args=False)
