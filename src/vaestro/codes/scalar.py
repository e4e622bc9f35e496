"""Finite scalar quantisation: every number is rounded to a few levels, and the code book is all their combinations."""

import math

import torch
from torch import Tensor, nn

from vaestro.codes.base import Code
from vaestro.data.schema import Shape
from vaestro.errors import UsageError
from vaestro.families.base import single

MOST = 2**20  # codes


class ScalarQuantiser(nn.Module):
    """`h` [*lead, D, *grid] to one of prod(levels) codes a place: number j becomes the nearest of L_j even levels in [-1, 1] to tanh(h_j).

    Mentzer et al. 2023, section 3.1, for an odd number of levels. For an even one the paper shifts the tanh so that 0 is a level; here the levels lie
    evenly on either side of 0, so that every level is reached, two levels included, and no number starts where tanh is flat.
    There is no book to learn, hence no loss beside the bound and no dead code to revive. Raises UsageError for fewer than two levels.
    """

    sizes: Tensor
    steps: Tensor
    like: Tensor

    def __init__(self, levels: tuple[int, ...], grid: Shape) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise UsageError(f"finite scalar quantisation cannot have levels {levels}; give two or more for each of one or more numbers, such as 8x5x5x5")
        if math.prod(levels) > MOST:
            raise UsageError(f"levels {levels} make {math.prod(levels):,} codes; give fewer: {MOST:,} at most, for the use of each is counted")
        self.levels, self.grid, self.shape = tuple(levels), tuple(grid), tuple(grid)
        self.codes, self.params, self.depth, self.event_dims = math.prod(levels), len(levels), 1, len(grid)
        self.register_buffer("sizes", torch.tensor(levels), persistent=False)
        self.register_buffer("like", torch.zeros(()), persistent=False)  # follows the model's precision
        self.register_buffer("steps", torch.tensor([math.prod(levels[:i]) for i in range(len(levels))]), persistent=False)

    def _on_grid(self, numbers: Tensor) -> Tensor:
        return numbers.reshape(-1, *[1] * len(self.grid))

    def forward(self, h: Tensor) -> Code:
        """The point mass on the codes of `h`; raises UsageError where `h` is of another shape than the codes."""
        h = single(h)
        if h.shape[h.dim() - 1 - len(self.grid) :] != (self.params, *self.grid):
            raise UsageError(f"a quantiser of {self.params} numbers at {self.grid} places cannot read an input shaped {tuple(h.shape)}")
        bounded = h.tanh()
        level = ((bounded.detach().nan_to_num() + 1) / 2 * self._on_grid(self.sizes - 1)).round().long()
        return Code((level * self._on_grid(self.steps)).sum(-1 - len(self.grid)), bounded, self)

    def vectors(self, index: Tensor) -> Tensor:
        """The levels of each code as numbers in [-1, 1]: [*lead, *grid] to [*lead, D, *grid]."""
        level = index.long().unsqueeze(-1 - len(self.grid)) // self._on_grid(self.steps) % self._on_grid(self.sizes)
        return level.to(self.like.dtype) / self._on_grid(self.sizes - 1) * 2 - 1

    def start(self, h: Tensor) -> None:
        """Nothing: there is no book."""
