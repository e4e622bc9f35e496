"""Rows spoilt on purpose: what a score must find strange is made from rows of the run's own data alone."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vaestro.data.schema import Binary, Count, Counted, Field, Integer, Kind, Named, Ordered, Real, Table
from vaestro.evaluation.metrics.subject import is_picture
from vaestro.registry import Registry
from vaestro.seeds import forked, mix

FAR = (4.0, 8.0)  # deviations that an entry is moved by
FEW = 3  # entries of a row that are moved at most


class Domain(NamedTuple):
    """Which values the entries of a row take, each a tensor of the row's shape."""

    low: Tensor  # of the rows that were seen, or by the kind
    high: Tensor
    spread: Tensor  # their standard deviation
    step: Tensor  # 0 where values are continuous
    bounded: Tensor  # whether low and high are the kind's own bounds
    unordered: Tensor  # whether values have no order, as categories

    def snapped(self, x: Tensor) -> Tensor:
        """Values on the grid and within the bounds."""
        step = torch.where(self.step > 0, self.step, 1.0)
        x = torch.where(self.step > 0, (x / step).round() * step, x)
        return torch.where(self.bounded, x.clamp(self.low, self.high), x)

    def uniform(self, shape: torch.Size) -> Tensor:
        """Draws that are uniform from low to high."""
        u = torch.rand(shape, dtype=self.low.dtype)
        cells = torch.where(self.step > 0, ((self.high - self.low) / torch.where(self.step > 0, self.step, 1.0)).round() + 1, 1.0)
        return torch.where(self.step > 0, self.low + (u * cells).floor().minimum(cells - 1) * self.step, self.low + u * (self.high - self.low))


@singledispatch
def domain(kind: Kind, x: Tensor) -> Domain:
    """The values that rows [n, *shape] of a kind take. Open: the range that was seen, unless the kind has bounds of its own."""
    return _seen(x, kind.step or 0.0 if isinstance(kind, Real) else 0.0)


@domain.register
def _(kind: Count, x: Tensor) -> Domain:
    return _seen(x, 1.0)


@domain.register
def _(kind: Binary, x: Tensor) -> Domain:
    return _known(x, 1.0, True)


@domain.register
def _(kind: Integer, x: Tensor) -> Domain:
    return _known(x, 1 / max(1, kind.levels - 1), False)


@domain.register
def _(kind: Table, x: Tensor) -> Domain:
    parts = [list(_seen(x[:, i], 1.0 if isinstance(c, Counted | Ordered | Named) else 0.0)) for i, c in enumerate(kind.columns)]
    for part, column in zip(parts, kind.columns, strict=True):
        if isinstance(column, Ordered | Named):
            part[0], part[1], part[4] = torch.zeros_like(part[0]), torch.full_like(part[1], len(column.levels) - 1), torch.tensor(True)
            part[5] = torch.tensor(isinstance(column, Named))
    return Domain(*(torch.stack(column) for column in zip(*parts, strict=True)))


def _seen(x: Tensor, step: float) -> Domain:
    seen = ~x.isnan()
    low, high = torch.where(seen, x, torch.inf).amin(0), torch.where(seen, x, -torch.inf).amax(0)
    low, high = (torch.where(v.isinf(), 0.0, v) for v in (low, high))
    middle = torch.where(seen, x, 0.0).sum(0) / seen.sum(0).clamp(min=1)
    spread = (torch.where(seen, x - middle, 0.0).square().sum(0) / seen.sum(0).clamp(min=1)).sqrt()
    no = torch.zeros_like(low, dtype=torch.bool)
    return Domain(low, high, spread, torch.full_like(low, step), no, no)


def _known(x: Tensor, step: float, unordered: bool) -> Domain:
    found = _seen(x, step)
    yes = torch.ones_like(found.bounded)
    return found._replace(low=torch.zeros_like(found.low), high=torch.ones_like(found.high), bounded=yes, unordered=yes if unordered else ~yes)


@dataclass(frozen=True)
class Spoiling:
    """A registered way to spoil rows: `function` takes rows [n, *shape], other rows of the same number and their domain, and returns spoilt ones."""

    name: str
    title: str
    function: Callable[[Tensor, Tensor, Domain], Tensor]
    fits: Callable[[Field], bool]


SPOILINGS: Registry[Spoiling] = Registry("way to spoil rows")


def spoilt(field: Field, x: Tensor, n: int, seed: int) -> dict[str, Tensor]:
    """`n` rows of each kind of spoiling that fits a field, made from rows x [m, *shape]: {name: [n, *shape]}. The caller's generator is not touched."""
    able, found = domain(field.kind, x), {}
    with forked():
        for number, (name, way) in enumerate(SPOILINGS.items()):
            if way.fits(field):
                torch.manual_seed(mix(seed, number, 23))
                index, other = (torch.randint(len(x), (n,)) for _ in range(2))
                found[name] = way.function(x[index], x[other], able)
    return found


def constant(x: Tensor, other: Tensor, able: Domain) -> Tensor:
    """One value everywhere: that of a random place of another row; the simplest rows there are."""
    place = torch.randint(other[0].numel(), (len(x),))
    value = other.flatten(1)[torch.arange(len(x)), place]
    return value.view(-1, *(1,) * (x.dim() - 1)).expand_as(x).contiguous()


def smooth(x: Tensor, other: Tensor, able: Domain) -> Tensor:
    """Blocks of a quarter of the side, each with its mean: rows with less in them."""
    side = max(2, min(x.shape[-2:]) // 4)
    small = F.avg_pool2d(x, side, ceil_mode=True, count_include_pad=False)
    return able.snapped(F.interpolate(small, scale_factor=side, mode="nearest")[..., : x.shape[-2], : x.shape[-1]])


def shuffled(x: Tensor, other: Tensor, able: Domain) -> Tensor:
    """The pixels of each row in a random order."""
    flat = x.flatten(1)
    return flat.gather(1, torch.rand_like(flat).argsort(1)).view_as(x)


def permuted(x: Tensor, other: Tensor, able: Domain) -> Tensor:
    """Every entry taken from another row: each is usual, and they do not belong together."""
    flat = x.flatten(1)
    return flat.gather(0, torch.rand(flat.shape).argsort(0)).view_as(x)


def noise(x: Tensor, other: Tensor, able: Domain) -> Tensor:
    """Uniform draws over what each entry may be."""
    return torch.where(x.isnan(), x, able.uniform(x.shape).to(x.dtype))


def blend(x: Tensor, other: Tensor, able: Domain) -> Tensor:
    """The mean of two rows; a coin decides where values have no middle."""
    coin = torch.where(torch.rand(x.shape) < 0.5, x, other)
    return torch.where(able.unordered, coin, able.snapped((x + other) / 2))


def patch(x: Tensor, other: Tensor, able: Domain) -> Tensor:
    """A square of a third of the side from another row."""
    height, width = x.shape[-2:]
    side = max(1, min(height, width) // 3)
    top, left = (torch.randint(size - side + 1, (len(x), 1, 1, 1)) for size in (height, width))
    rows, columns = torch.arange(height).view(-1, 1), torch.arange(width)
    inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
    return torch.where(inside, other, x)


def crossed(x: Tensor, other: Tensor, able: Domain) -> Tensor:
    """Half of the entries from another row."""
    half = torch.rand(x.shape).argsort(1) < x.shape[1] // 2
    return torch.where(half, other, x)


def far(x: Tensor, other: Tensor, able: Domain) -> Tensor:
    """One to three entries moved by 4 to 8 deviations; where values have no order, or bounds, any of them."""
    moved = torch.rand(x.shape).argsort(1) < torch.randint(1, FEW + 1, (len(x), 1))
    away = x + (torch.randint(2, x.shape) * 2 - 1) * (FAR[0] + (FAR[1] - FAR[0]) * torch.rand(x.shape)) * able.spread
    least = torch.where((able.step > 0) & ~able.bounded, able.low.clamp(max=0.0), -torch.inf)  # counts stay counts
    away = torch.where(able.bounded, able.uniform(x.shape).to(x.dtype), able.snapped(away).maximum(least.to(x.dtype)))
    return torch.where(moved & ~x.isnan(), away, x)


def _vector(field: Field) -> bool:
    return len(field.shape) == 1


def _several(field: Field) -> bool:
    return field.size > 1


SPOILINGS.enter(
    Spoiling("constant", "pictures of one value", constant, is_picture),
    Spoiling("smooth", "pictures of a few flat blocks", smooth, is_picture),
    Spoiling("shuffled", "pixels in a random order", shuffled, is_picture),
    Spoiling("patch", "a square from another picture", patch, is_picture),
    Spoiling("blend", "the mean of two pictures", blend, is_picture),
    Spoiling("permuted", "every entry from another row", permuted, _several),
    Spoiling("noise", "uniform noise", noise, lambda field: True),
    Spoiling("crossed", "half of the entries from another row", crossed, lambda field: _vector(field) and _several(field)),
    Spoiling("far", "one to three entries far out", far, _vector),
)
