"""Student's t: a Gaussian that forgives outliers."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints

from vaestro.errors import UsageError
from vaestro.families.base import Repr, Sizes, positive, precise, split
from vaestro.families.interval import log_interval

CLOSED = 4.0  # degrees of freedom whose masses have a simple closed form
_BEYOND = 1e20  # stands for infinity where infinity times a vanishing gradient would be NaN


class StudentDistribution(Distribution):
    """Student's t of `df` degrees of freedom: log p = const - ln scale - (df + 1) / 2 ln(1 + z^2 / df), z = (x - loc) / scale; nats."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    has_rsample = True
    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor, scale: Tensor, df: float) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        self.df = df
        super().__init__(self.loc.shape, validate_args=False)

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "StudentDistribution":
        """The same distribution, repeated over `batch_shape`."""
        return StudentDistribution(self.loc.expand(batch_shape), self.scale.expand(batch_shape), self.df)

    @property
    def mean(self) -> Tensor:
        """loc."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """loc."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """scale^2 df / (df - 2)."""
        return self.scale.square() * (self.df / (self.df - 2))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of each value, in nats."""
        constant = math.lgamma((self.df + 1) / 2) - math.lgamma(self.df / 2) - math.log(self.df * math.pi) / 2
        z = (value - self.loc) / self.scale
        return constant - self.scale.log() - (self.df + 1) / 2 * torch.log1p(z.square() / self.df)

    def cdf(self, value: Tensor) -> Tensor:
        """P(X <= value); raises UsageError for other than four degrees of freedom."""
        return log_interval(self, torch.full_like(value, -math.inf), value).exp()

    def rsample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Samples that differentiate: loc + scale N(0, 1) / sqrt(chi^2 / df)."""
        shape = self._extended_shape(torch.Size(sample_shape))
        half = torch.full(shape, self.df / 2, dtype=self.loc.dtype, device=self.loc.device)
        chi = torch.distributions.Gamma(half, torch.full_like(half, 0.5), validate_args=False).sample()
        return self.loc + self.scale * torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device) * (self.df / chi).sqrt()


@log_interval.register
def _(dist: StudentDistribution, low: Tensor, high: Tensor) -> Tensor:
    """In u = z / sqrt(4 + z^2) the density is 3/4 (1 - u^2), so with w = 1 - u the mass is 3/4 (w1 - w2) (w1 + w2 - (w1^2 + w1 w2 + w2^2) / 3).

    The interval is mirrored to the right of the peak, where w is small, and w1 - w2 is taken by a form in which nothing cancels.
    """
    if dist.df != CLOSED:
        raise UsageError(f"Student's t of {dist.df} degrees of freedom has no mass of an interval in closed form; give df=4 on discrete data")
    loc, scale = precise(dist.loc), precise(dist.scale)
    a, b = ((precise(end).clamp(-_BEYOND, _BEYOND) - loc) / scale for end in (low, high))
    left = a + b < 0
    a, b = torch.where(left, -b, a), torch.where(left, -a, b)
    ra, rb = (CLOSED + a.square()).sqrt(), (CLOSED + b.square()).sqrt()
    wa, wb = (CLOSED / (r * (r + torch.where(z < 0, -z, z))) for r, z in ((ra, a), (rb, b)))  # the gradient of abs is wrong at 0
    wa = torch.where(a < 0, 2 - wa, wa)
    width = (precise(high).clamp(-_BEYOND, _BEYOND) - precise(low).clamp(-_BEYOND, _BEYOND)) / scale
    beside = a > 0
    sum_ = torch.where(beside, b * ra + a * rb, 1.0)
    gap = torch.where(beside, CLOSED * width * (a + b) / (sum_ * ra * rb), b / rb - a / ra)
    return torch.log(0.75 * gap * (wa + wb - (wa.square() + wa * wb + wb.square()) / 3)).to(dist.loc.dtype)


class Student(Repr):
    """Student's t with `df` degrees of freedom, loc and scale predicted: `h` [..., 2C, ...] is loc and s, scale = 1e-4 + softplus(s + ln(e - 1)); nats.

    Its tails fall as |x|^-(df + 1), so one outlier costs a logarithm and not a square. Raises UsageError unless df is a number above 2, for below it
    there is no variance.
    """

    params = 2

    def __init__(self, event_dims: int = 1, df: float = CLOSED) -> None:
        if not (math.isfinite(df) and df > 2):
            raise UsageError(f"Student's t cannot have {df} degrees of freedom here, for its variance would be infinite; give a number above 2, such as 4")
        self.event_dims, self.df = event_dims, float(df)

    def __call__(self, h: Tensor) -> Distribution:
        """The distribution whose parameters are `h`, with events of `event_dims` axes; raises UsageError when the channels do not divide."""
        loc, s = split(h, 2, self.event_dims)
        return Independent(StudentDistribution(loc, positive(s), self.df), self.event_dims, validate_args=False)
