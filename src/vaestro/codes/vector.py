"""Vector quantisation: the nearest code of a book, and of the next book for what is left."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from vaestro.codes.base import Code
from vaestro.codes.books import Book
from vaestro.core import Trace, observe
from vaestro.data.schema import Shape
from vaestro.errors import UsageError
from vaestro.families.base import single


class VectorQuantiser(nn.Module):
    """`h` [*lead, D, *grid] to the nearest codes of `books`, each of which takes what those before it left over: [*lead, *grid], and the books as a last axis.

    One book: van den Oord et al. 2017, eq. 1 and 2. Several: Zeghidour et al. 2021, SoundStream, algorithm 1. In training the loss of a row is, in squared
    units that are added to its nats, the sum over books and places of commitment |h - sg(e)|^2 (eq. 3, third term) and of what the book asks itself.
    It is a sum over one row, so it does not grow with the batch. Raises UsageError without books, for unlike ones, or a negative commitment.
    """

    def __init__(self, books: Sequence[Book], grid: Shape, commitment: float = 0.25) -> None:
        super().__init__()
        if not books or len({b.codes.shape for b in books}) > 1:
            raise UsageError(f"a quantiser needs code books of one size, and got {[tuple(b.codes.shape) for b in books]}; give one or more that are alike")
        if commitment < 0:
            raise UsageError(f"a commitment of {commitment} would drive vectors away from their codes; give 0 or more")
        self.books, self.grid, self.commitment = nn.ModuleList(books), tuple(grid), commitment
        self.codes, self.params = books[0].codes.shape
        self.depth = len(books)
        self.shape: Shape = self.grid if self.depth == 1 else (*self.grid, self.depth)
        self.event_dims = len(self.shape)

    @property
    def _books(self) -> list[Book]:
        return [cast(Book, b) for b in self.books]  # a ModuleList forgets the class of its parts

    def forward(self, h: Tensor) -> Code:
        """The point mass on the codes of `h`; raises UsageError where `h` is of another shape than the codes."""
        h = single(h)
        if h.shape[h.dim() - 1 - len(self.grid) :] != (self.params, *self.grid):
            raise UsageError(f"a quantiser of {self.params} numbers at {self.grid} places cannot read an input shaped {tuple(h.shape)}")
        rest = h.movedim(-1 - len(self.grid), -1)
        chosen, points, losses = [], [], []
        for book in self._books:
            index = book.nearest(rest)
            e = book.codes[index]
            if self.training:
                points.append(rest.detach().reshape(-1, self.params))
                losses.append(self.commitment * (rest - e.detach()).square().sum(-1) + book.loss(rest, e))
            chosen.append(index)
            rest = rest - e.detach()
        index = chosen[0] if self.depth == 1 else torch.stack(chosen, -1)
        lead = h.dim() - 1 - len(self.grid)
        loss: Tensor | float = sum(losses).reshape(*h.shape[:lead], -1).sum(-1) if losses else 0.0  # type: ignore[union-attr]
        return Code(index, h, self, loss, tuple(points))

    def vectors(self, index: Tensor) -> Tensor:
        """The sum of the chosen vectors of all books: [*lead, *shape] to [*lead, D, *grid], without a gradient."""
        each = index.long().unsqueeze(-1) if self.depth == 1 else index.long()
        e = torch.stack([book.codes.detach()[i] for book, i in zip(self._books, each.unbind(-1), strict=True)]).sum(0)
        return e.movedim(-1, -1 - len(self.grid))

    def start(self, h: Tensor) -> None:
        """Start every book by k-means from what those before it left of `h` [n, D, *grid]."""
        rest = h.detach().movedim(1, -1).reshape(-1, self.params)
        for book in self._books:
            book.start(rest)
            rest = rest - book.codes.detach()[book.nearest(rest)]


@observe.register(VectorQuantiser)
def _(part: VectorQuantiser, trace: Trace) -> None:
    for d in trace.latents.values():
        if isinstance(d.posterior, Code) and d.posterior.by is part:
            index = d.posterior.index.reshape(-1, part.depth)
            for number, (book, points) in enumerate(zip(part._books, d.posterior.points, strict=False)):
                book.observe(points, index[:, number])
