"""All mass on one value: what a plain autoencoder's encoder says."""

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from vaestro import core
from vaestro.families.base import Repr, Sizes, split


class PointDistribution(Distribution):
    """One value, and no density: `log_prob` is 0 everywhere and `normalised` is False, so that no report calls it nats."""

    arg_constraints: dict[str, constraints.Constraint] = {}
    has_rsample = True

    def __init__(self, value: Tensor, event_dims: int) -> None:
        self.value, self.event_dims = value, event_dims
        cut = value.dim() - event_dims
        super().__init__(value.shape[:cut], value.shape[cut:], validate_args=False)

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "PointDistribution":
        """The same value, repeated over `batch_shape`."""
        return PointDistribution(self.value.expand(*batch_shape, *self.event_shape), self.event_dims)

    @property
    def mean(self) -> Tensor:
        """The value."""
        return self.value

    @property
    def mode(self) -> Tensor:
        """The value."""
        return self.value

    @property
    def variance(self) -> Tensor:
        """Zero."""
        return torch.zeros_like(self.value)

    def rsample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """The value itself, once for each sample, with its gradient."""
        return self.value.expand(self._extended_shape(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """Zeros."""
        lead = torch.broadcast_shapes(value.shape[: value.dim() - self.event_dims], self.batch_shape)
        return torch.zeros(lead, dtype=self.value.dtype, device=self.value.device)


@core.normalised.register
def _(dist: PointDistribution) -> bool:
    return False


@core.partial_log_prob.register
def _(dist: PointDistribution, value: Tensor, mask: Tensor) -> Tensor:
    return dist.log_prob(value)


class Point(Repr):
    """All mass on `h` [..., C, ...]: a sample is `h` itself. Not a density: its log_prob is 0, and `normalised` False."""

    params = 1

    def __init__(self, event_dims: int = 1) -> None:
        self.event_dims = event_dims

    def __call__(self, h: Tensor) -> Distribution:
        """The distribution whose parameters are `h`, with events of `event_dims` axes; raises UsageError when the channels do not divide."""
        (value,) = split(h, 1, self.event_dims)
        return PointDistribution(value, self.event_dims)


class UnitPoint(Point):
    """All mass on sigmoid(h): a picture in unit values, which is what a generator makes of data of levels. Not a density."""

    def __call__(self, h: Tensor) -> Distribution:
        """The distribution whose value is sigmoid(h); raises UsageError when the channels do not divide."""
        (logits,) = split(h, 1, self.event_dims)
        return PointDistribution(logits.sigmoid(), self.event_dims)
