"""A distribution seen through a bijection, and the module that makes one."""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, constraints

from vaestro.core import Shape, centre, draw
from vaestro.families.base import Sizes
from vaestro.flows.bijections import Bijection


class FlowDistribution(Distribution):
    """x = f^-1(u) with u ~ base: log p(x) = log base(f(x)) + ln |det df/dx|, in nats; its mean and entropy have no closed form.

    `base` has events [D], `bijection` is f, `context` [*lead, C] or None is given to it, and `event` is the shape that D numbers are shown in.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    has_rsample = True

    def __init__(self, base: Distribution, bijection: Bijection, context: Tensor | None = None, event: Shape | None = None) -> None:
        self.base, self.bijection, self.context = base, bijection, context
        super().__init__(base.batch_shape, torch.Size(base.event_shape if event is None else event), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """All real numbers."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "FlowDistribution":
        """The same distribution, repeated over `batch_shape`."""
        return FlowDistribution(self.base.expand(torch.Size(batch_shape)), self.bijection, self.context, tuple(self.event_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of each event, in nats."""
        lead = torch.broadcast_shapes(value.shape[: value.dim() - len(self.event_shape)], self.batch_shape)
        u, ladj = self.bijection(value.expand(*lead, *self.event_shape).reshape(*lead, *self.base.event_shape), self.context)
        log_p: Tensor = self.base.log_prob(u) + ladj
        return log_p

    def rsample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Samples that differentiate."""
        return self.draw(torch.Size(sample_shape))[0]

    def draw(self, shape: Shape) -> tuple[Tensor, Tensor]:
        """Samples and their log densities in one pass."""
        u, log_u = draw(self.base, shape)
        x, ladj = self.bijection.inverse(u, self.context)
        return x.reshape(*u.shape[:-1], *self.event_shape), log_u + ladj


@draw.register
def _(dist: FlowDistribution, shape: Shape) -> tuple[Tensor, Tensor]:
    return dist.draw(shape)


@centre.register
def _(dist: FlowDistribution) -> Tensor:
    x, _ = dist.bijection.inverse(centre(dist.base), dist.context)
    return x.reshape(dist._extended_shape())


class Flow(nn.Module):
    """N(0, I) seen through a bijection, over events of any shape: log p(x) = log N(f(x); 0, I) + ln |det df/dx|, in nats.

    Without contexts its batch shape is (); contexts [*lead, c] are joined on their last axis and give it the batch shape that they broadcast to.
    """

    zeros: Tensor

    def __init__(self, event: Shape, bijection: Bijection) -> None:
        super().__init__()
        self.event, self.bijection = tuple(event), bijection
        self.register_buffer("zeros", torch.zeros(math.prod(event)), persistent=False)

    def forward(self, *contexts: Tensor) -> Distribution:
        """The distribution given `contexts`."""
        base = Independent(Normal(self.zeros, torch.ones_like(self.zeros), validate_args=False), 1, validate_args=False)
        if not contexts:
            return FlowDistribution(base, self.bijection, event=self.event)
        lead = torch.broadcast_shapes(*(c.shape[:-1] for c in contexts))
        context = torch.cat([c.expand(*lead, c.shape[-1]) for c in contexts], -1)
        return FlowDistribution(base.expand(lead), self.bijection, context, self.event)
