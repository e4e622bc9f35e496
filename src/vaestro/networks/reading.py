"""How networks read values of each kind: as they are, unless these are too far apart."""

from functools import singledispatch

import torch
from torch import Tensor, nn

from vaestro.data.schema import Count, Kind


@singledispatch
def reading(kind: Kind, net: nn.Module) -> nn.Module:
    """`net` as a reader of values of `kind`, which may bring them into its reach first; what is modelled stays the values themselves. Open."""
    return net


class Logged(nn.Module):
    """`net` on ln(1 + x): counts of 0 and of 10,000 come within ten of each other (as in scVI, Lopez et al. 2018, methods)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    @property
    def event_dims(self) -> int:
        """The network's own."""
        dims: int = self.net.event_dims  # type: ignore[assignment]
        return dims

    def forward(self, x: Tensor) -> Tensor:
        """[n, *inputs] counts to [n, *outputs]."""
        out: Tensor = self.net(torch.log1p(x))
        return out


@reading.register
def _(kind: Count, net: nn.Module) -> nn.Module:
    return Logged(net)
