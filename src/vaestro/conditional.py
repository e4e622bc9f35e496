"""A network that ends in a family: contexts to a distribution, whatever their leading axes."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaestro.families.base import Family


class Conditional(nn.Module):
    """p(event | contexts): `net` [n, *inputs] -> [n, *outputs], then `family`.

    `net` declares `event_dims`, the trailing axes of one input. Contexts may lead with any axes, [k, b, ...] or none; these are broadcast,
    the contexts joined on the channel axis (the first of an input), and the batch shape of the distribution is what they broadcast to.
    """

    def __init__(self, net: nn.Module, family: Family) -> None:
        super().__init__()
        self.net, self.family = net, family

    @property
    def event_dims(self) -> int:
        """The trailing axes of one context."""
        return cast(int, self.net.event_dims)

    def forward(self, *contexts: Tensor) -> Distribution:
        """The distribution given `contexts`, each [*lead, channels, ...]."""
        return self.family(through(self.net, *contexts))


def through(net: nn.Module, *contexts: Tensor) -> Tensor:
    """The contexts, their leading axes broadcast and their channels joined, passed through `net` whatever those axes are: [*lead, *outputs]."""
    dims = cast(int, net.event_dims)
    x = contexts[0] if len(contexts) == 1 else _join(contexts, dims)
    if x.dim() == dims + 1:
        return cast(Tensor, net(x))
    cut = x.dim() - dims
    h = net(x.reshape(-1, *x.shape[cut:]))
    return cast(Tensor, h.reshape(*x.shape[:cut], *h.shape[1:]))


def _join(contexts: tuple[Tensor, ...], dims: int) -> Tensor:
    lead = torch.broadcast_shapes(*(c.shape[: c.dim() - dims] for c in contexts))
    return torch.cat([c.expand(*lead, *c.shape[c.dim() - dims :]) for c in contexts], -dims)
