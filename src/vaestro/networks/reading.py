"""How networks read values of each kind: as they are, unless these are too far apart or no numbers at all."""

from functools import singledispatch

import torch
from torch import Tensor, nn

from vaestro.data.schema import Column, Count, Counted, Field, Kind, Named, Ordered, Shape, Table
from vaestro.networks.base import Build

ONE_HOT, EMBEDDED = 32, 16  # categories up to so many are read one-hot, and more of them as so many numbers
NEAR = 5.0  # deviations from the mean beyond which numbers are read by their logarithm


@singledispatch
def reading(kind: Kind, net: nn.Module) -> nn.Module:
    """`net` as a reader of values of `kind`, which may bring them into its reach first; what is modelled stays the values themselves. Open."""
    return net


@singledispatch
def read_shape(kind: Kind, shape: Shape) -> Shape:
    """The shape of what the network inside `reading` takes, for rows of `shape`. Open."""
    return shape


def reader(field: Field, network: Build, outputs: Shape, hidden: tuple[int, ...] | None = None) -> nn.Module:
    """`network`, at these widths or its own, as one that reads rows of `field`: [n, *shape] to [n, *outputs]."""
    inputs = read_shape(field.kind, field.shape)
    return reading(field.kind, network(inputs, outputs) if hidden is None else network(inputs, outputs, hidden))


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


def _width(column: Column) -> int:
    return min(len(column.levels), ONE_HOT if len(column.levels) <= ONE_HOT else EMBEDDED) if isinstance(column, Named) else 1


class Columns(nn.Module):
    """`net` on rows of a table: numbers standardised, categories one-hot or embedded, all of them 0 where an entry was not seen, and 1 where it was.

    Numbers more than five deviations away are read as 5 (1 + ln(|x| / 5)). An entry is unseen where it is NaN, which is never computed with.
    """

    event_dims = 1
    loc: Tensor
    scale: Tensor
    counted: Tensor

    def __init__(self, table: Table, net: nn.Module) -> None:
        super().__init__()
        self.net, columns = net, table.columns
        numbers = [i for i, c in enumerate(columns) if not isinstance(c, Named)]
        self.numbers, self.categories = numbers, [(i, len(c.levels)) for i, c in enumerate(columns) if isinstance(c, Named)]
        moments = [_moments(columns[i]) for i in numbers]
        self.register_buffer("loc", torch.tensor([m for m, _ in moments]), persistent=False)
        self.register_buffer("scale", torch.tensor([s for _, s in moments]), persistent=False)
        self.register_buffer("counted", torch.tensor([isinstance(columns[i], Counted) for i in numbers], dtype=torch.bool), persistent=False)
        self.embedded = nn.ModuleDict({str(i): nn.Embedding(n, EMBEDDED) for i, n in self.categories if n > ONE_HOT})

    def forward(self, x: Tensor) -> Tensor:
        """Rows [n, columns], as a table holds them, to [n, *outputs]."""
        seen = ~x.isnan()
        x = torch.where(seen, x, 0.0)
        parts = [self._standard(x[:, self.numbers]) * seen[:, self.numbers]] if self.numbers else []
        for i, n in self.categories:
            level = x[:, i].round().long().clamp(0, n - 1)
            code = self.embedded[str(i)](level) if n > ONE_HOT else nn.functional.one_hot(level, n).to(x.dtype)
            parts.append(code * seen[:, i : i + 1])
        out: Tensor = self.net(torch.cat([*parts, seen.to(x.dtype)], -1))
        return out

    def _standard(self, x: Tensor) -> Tensor:
        y = (torch.where(self.counted, x.clamp(min=0).log1p(), x) - self.loc.to(x.dtype)) / self.scale.to(x.dtype)
        far = NEAR * (1 + (y.abs().clamp(min=NEAR) / NEAR).log())
        return torch.where(y.abs() <= NEAR, y, far.copysign(y))


def _moments(column: Column) -> tuple[float, float]:
    """The centre and the deviation of what is read of a column of numbers: measured ones are held standardised."""
    if isinstance(column, Counted):
        return column.loc, column.scale
    top = len(column.levels) - 1 if isinstance(column, Ordered) else 0
    return (top / 2, top / 3) if top else (0.0, 1.0)


@reading.register
def _(kind: Table, net: nn.Module) -> nn.Module:
    return Columns(kind, net)


@read_shape.register
def _(kind: Table, shape: Shape) -> Shape:
    return (sum(map(_width, kind.columns)) + len(kind.columns),)
