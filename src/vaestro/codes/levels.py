"""Codes on several grids at once: what quantises each level, and the one string that they make, the top level first."""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaestro.codes.base import Code, usage
from vaestro.codes.books import Book
from vaestro.codes.vector import VectorQuantiser
from vaestro.core import Trace, observe
from vaestro.data.schema import Shape
from vaestro.errors import UsageError
from vaestro.families.base import Sizes, single


class LevelCode(Code):
    """All mass on one string of codes [n], that of every level in turn; `h` and `vectors` are all levels' numbers side by side."""

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "LevelCode":
        """The same codes, repeated over `batch_shape`."""
        whole = super().expand(batch_shape)
        return LevelCode(whole.index, whole.h, self.by, whole.loss, self.points)


class LevelQuantiser(nn.Module):
    """`h` [*lead, numbers], the vectors [D, *grid] of every level flattened side by side, to codes [*lead, n] (Razavi et al. 2019, algorithm 1).

    `levels` are quantisers of one book each, the top one first; all have as many codes of as many numbers. The loss of a row is the sum of theirs.
    Raises UsageError without levels, and for unlike ones.
    """

    event_dims = 1

    def __init__(self, levels: Sequence[VectorQuantiser]) -> None:
        super().__init__()
        if not levels or len({(q.codes, q.params) for q in levels}) > 1 or max(q.depth for q in levels) > 1:
            raise UsageError("levels of codes need one or more quantisers of one book each, with as many codes of as many numbers; give them alike ones")
        self.levels = nn.ModuleList(levels)
        self.codes, self.depth, self.dimension = levels[0].codes, 1, levels[0].params
        self.grids: tuple[Shape, ...] = tuple(q.grid for q in levels)
        self.lengths = [math.prod(g) for g in self.grids]
        self.shape: Shape = (sum(self.lengths),)
        self.params = self.dimension

    @property
    def each(self) -> list[VectorQuantiser]:
        """The quantiser of every level, the top one first."""
        return [cast(VectorQuantiser, q) for q in self.levels]  # a ModuleList forgets the class of its parts

    def split(self, h: Tensor) -> list[Tensor]:
        """Numbers [*lead, D n] as the maps [*lead, D, *grid] of every level."""
        parts = h.split([self.dimension * n for n in self.lengths], -1)
        return [part.unflatten(-1, (self.dimension, *grid)) for part, grid in zip(parts, self.grids, strict=True)]

    def join(self, maps: Sequence[Tensor]) -> Tensor:
        """The inverse of `split`."""
        return torch.cat([m.flatten(-1 - len(grid)) for m, grid in zip(maps, self.grids, strict=True)], -1)

    def forward(self, h: Tensor) -> LevelCode:
        """The point mass on the codes of `h`."""
        h = single(h)
        found = [q(part) for q, part in zip(self.each, self.split(h), strict=True)]
        index = torch.cat([c.index.flatten(c.index.dim() - len(c.by.shape)) for c in found], -1)
        return LevelCode(index, h, self, sum(c.loss for c in found), tuple(p for c in found for p in c.points))

    def vectors(self, index: Tensor) -> Tensor:
        """The vectors that codes [*lead, n] stand for, side by side, without a gradient."""
        parts = index.split(self.lengths, -1)
        return self.join([q.vectors(part.unflatten(-1, q.grid)) for q, part in zip(self.each, parts, strict=True)])

    def start(self, h: Tensor) -> None:
        """Start every level's book from its part of the vectors [rows, numbers] that some training rows are encoded to."""
        for level in range(len(self.levels)):
            self.start_level(level, h)

    def start_level(self, level: int, h: Tensor) -> None:
        """Start the book of one level, by k-means."""
        self.each[level].start(self.split(h)[level])


@usage.register
def _(dist: LevelCode) -> Tensor:
    assert isinstance(dist.by, LevelQuantiser), "codes on levels are made by such a quantiser"
    parts = dist.index.split(dist.by.lengths, -1)
    return torch.stack([torch.bincount(p.flatten(), minlength=dist.by.codes) for p in parts]).to(dist.h.dtype)


@observe.register(LevelQuantiser)
def _(part: LevelQuantiser, trace: Trace) -> None:
    for d in trace.latents.values():
        if isinstance(d.posterior, LevelCode) and d.posterior.by is part:
            strings = d.posterior.index.split(part.lengths, -1)
            for level, points, index in zip(part.each, d.posterior.points, strings, strict=False):
                cast(Book, level.books[0]).observe(points, index.flatten())
