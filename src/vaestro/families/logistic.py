"""The logistic family and its mixtures."""

import math

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, constraints

from vaestro.errors import UsageError
from vaestro.families.base import Repr, Sizes, positive, split, stack


class LogisticDistribution(Distribution):
    """The logistic distribution: its cumulative function is sigmoid(z), z = (x - loc) / scale; log p = -z - 2 softplus(-z) - ln scale, in nats."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    has_rsample = True
    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        super().__init__(self.loc.shape, validate_args=False)

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "LogisticDistribution":
        """The same distribution, repeated over `batch_shape`."""
        return LogisticDistribution(self.loc.expand(batch_shape), self.scale.expand(batch_shape))

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
        """pi^2 scale^2 / 3."""
        return self.scale.square() * (math.pi**2 / 3)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of each value, in nats."""
        z = ((value - self.loc) / self.scale).abs()  # the density is even; this side of it cannot overflow
        return -z - 2 * torch.log1p(torch.exp(-z)) - self.scale.log()

    def cdf(self, value: Tensor) -> Tensor:
        """P(X <= value)."""
        return torch.sigmoid((value - self.loc) / self.scale)

    def icdf(self, value: Tensor) -> Tensor:
        """The value below which a share `value` of the mass lies."""
        return self.loc + self.scale * (value.log() - torch.log1p(-value))

    def rsample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Samples that differentiate: loc + scale (ln u - ln(1 - u))."""
        shape = self._extended_shape(torch.Size(sample_shape))
        u = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device).clamp(torch.finfo(self.loc.dtype).tiny, 1 - torch.finfo(self.loc.dtype).eps)
        return self.icdf(u)

    def entropy(self) -> Tensor:
        """ln scale + 2, in nats."""
        return self.scale.log() + 2


class Logistic(Repr):
    """The logistic distribution, loc and scale predicted: `h` [..., 2C, ...], scale = 1e-4 + softplus(s + ln(e - 1)); nats.

    With `Binned` it is the discretised logistic of Kingma et al. 2016 (inverse autoregressive flow, appendix).
    """

    params = 2

    def __init__(self, event_dims: int = 1) -> None:
        self.event_dims = event_dims

    def __call__(self, h: Tensor) -> Distribution:
        """The distribution whose parameters are `h`, with events of `event_dims` axes; raises UsageError when the channels do not divide."""
        loc, s = split(h, 2, self.event_dims)
        return Independent(LogisticDistribution(loc, positive(s)), self.event_dims, validate_args=False)


class LogisticMixture(Repr):
    """A mixture of logistics for every value: `h` [..., 3KC, ...] is K weights' logits, K locs and K scales; nats.

    sum_k softmax(w)_k Logistic(loc_k, scale_k), channels independent (Salimans et al. 2017, PixelCNN++, eq. 1 to 2, without its channel regression).
    Raises UsageError for fewer than one component.
    """

    def __init__(self, components: int = 5, event_dims: int = 1) -> None:
        if components < 1:
            raise UsageError(f"a mixture cannot have {components} components; give one or more")
        self.components, self.event_dims = components, event_dims

    @property
    def params(self) -> int:
        """Three numbers a component."""
        return 3 * self.components

    def __call__(self, h: Tensor) -> Distribution:
        """The distribution whose parameters are `h`, with events of `event_dims` axes; raises UsageError when the channels do not divide."""
        logits, loc, s = stack(h, self.params, self.event_dims).chunk(3, -1)
        spread = torch.linspace(-1, 1, self.components + 2, dtype=loc.dtype, device=loc.device)[1:-1]  # equal components would stay equal for ever
        parts_dist = LogisticDistribution(loc + spread, positive(s))
        mixture = MixtureSameFamily(Categorical(logits=logits, validate_args=False), parts_dist, validate_args=False)
        return Independent(mixture, self.event_dims, validate_args=False)
