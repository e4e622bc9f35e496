"""The Laplace family: absolute error as a density."""

from torch import Tensor
from torch.distributions import Distribution, Independent
from torch.distributions import Laplace as LaplaceDistribution

from vaestro.families.base import Repr, positive, split


class Laplace(Repr):
    """exp(-|x - loc| / scale) / (2 scale), both predicted: `h` [..., 2C, ...] is loc and s, with scale = 1e-4 + softplus(s + ln(e - 1)); nats."""

    params = 2

    def __init__(self, event_dims: int = 1) -> None:
        self.event_dims = event_dims

    def __call__(self, h: Tensor) -> Distribution:
        """The distribution whose parameters are `h`, with events of `event_dims` axes; raises UsageError when the channels do not divide."""
        loc, s = split(h, 2, self.event_dims)
        return Independent(LaplaceDistribution(loc, positive(s), validate_args=False), self.event_dims, validate_args=False)
