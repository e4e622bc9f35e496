"""Networks over strings of codes in which a place reads only the places before it: a causal transformer, and masked convolutions over the grid."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaestro.data.schema import Shape
from vaestro.errors import UsageError
from vaestro.networks.convolutional import plain_up
from vaestro.networks.masked import PixelNet

StringNet = Callable[[Sequence[Shape], int], nn.Module]  # (grids, codes) -> a network of strings [n, places] to logits [n, places, codes]


class Attention(nn.Module):
    """Causal self-attention of several heads (Vaswani et al. 2017, section 3.2): [n, places, width] to the same; a place reads itself and those before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.inwards, self.outwards = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[n, places, width] to the same."""
        q, k, v = self.inwards(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        read = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.outwards(read.transpose(1, 2).flatten(2))
        return out


class Layer(nn.Module):
    """Attention, then two dense layers, each after a layer norm and beside the way through (Radford et al. 2019, section 2.3)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(width), Attention(width, heads))
        self.dense = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """[n, places, width] to the same."""
        x = x + self.attention(x)
        out: Tensor = x + self.dense(x)
        return out


class Transformer(nn.Module):
    """A causal transformer over strings of codes: [n, m <= places] whole numbers to logits [n, m, codes], those of place i from the codes before i alone.

    Places are learnt vectors; the first place reads a learnt start. Raises UsageError where the heads do not divide the width.
    """

    def __init__(self, places: int, codes: int, width: int = 64, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        if width % heads:
            raise UsageError(f"{heads} heads cannot share a width of {width}; give a width that they divide")
        self.start, self.place = nn.Parameter(0.5 * torch.randn(width)), nn.Parameter(0.5 * torch.randn(places, width))
        self.code = nn.Embedding(codes, width)
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(layers)), nn.LayerNorm(width))
        self.head = nn.Linear(width, codes)
        nn.init.normal_(self.head.weight, std=0.1 / math.sqrt(width))
        nn.init.zeros_(self.head.bias)

    def forward(self, index: Tensor) -> Tensor:
        """[n, m] whole numbers to [n, m, codes] logits; the last code is read by nobody."""
        start = self.start.expand(len(index), 1, -1)
        before = torch.cat([start, self.code(index[:, :-1])], 1) + self.place[: index.shape[1]]
        logits: Tensor = self.head(self.layers(before))
        return logits


class MaskedCodes(nn.Module):
    """A gated PixelCNN over a grid of codes: [n, places] whole numbers, row by row, to logits [n, places, codes] (van den Oord et al. 2016, 2017).

    A place reads as far as layers times kernel // 2 places to the left, and as many rows up; for long strings in one row take a transformer.
    A vector of codes is a picture of one row; further axes of a grid, such as the books of a residual quantiser, stand side by side in the row.
    Places are learnt vectors, which all may read. Errors are those of `PixelNet`.
    """

    def __init__(self, grid: Shape, codes: int, width: int = 64, layers: int = 4, kernel: int = 5) -> None:
        super().__init__()
        rows = grid[0] if len(grid) > 1 else 1
        self.size = (rows, math.prod(grid) // rows)
        self.place = nn.Parameter(torch.randn(1, width, *self.size))
        self.code = nn.Embedding(codes, width)
        self.net = PixelNet(width, codes, context=width, hidden=(width,) * layers, kernel=kernel)

    def forward(self, index: Tensor) -> Tensor:
        """[n, places] whole numbers to [n, places, codes] logits; a string that stops early is filled up, for nobody reads what follows."""
        logits, _ = self.told(index, None)
        return logits

    def told(self, index: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """The logits where all places may also read a context [n, width, *size], and a map [n, width, *size] of all that the level then knows."""
        full = F.pad(index, (0, math.prod(self.size) - index.shape[1]))
        seen = self.code(full).unflatten(1, self.size).movedim(-1, 1)
        where = self.place.expand(len(index), -1, -1, -1)
        where = where if context is None else where + context
        logits: Tensor = self.net(seen, where)
        return logits.flatten(2).transpose(1, 2)[:, : index.shape[1]], seen + where


class MaskedLevels(nn.Module):
    """Gated PixelCNNs over several grids of codes, one after the other: a place reads those before it on its own grid, and all of the grids before.

    [n, places] whole numbers to [n, places, codes] logits (Razavi et al. 2019, VQ-VAE-2, section 3.2). What the grids before say is enlarged to the size of
    the next. `how` is the width, the layers and the kernel of each network. Errors are those of `PixelNet`.
    """

    def __init__(self, grids: Sequence[Shape], codes: int, how: tuple[int, int, int]) -> None:
        super().__init__()
        self.levels = nn.ModuleList(MaskedCodes(grid, codes, *how) for grid in grids)
        self.lengths = [math.prod(grid) for grid in grids]
        self.enter = nn.ModuleList(plain_up(how[0], how[0], level.size) for _, level in pairwise(self._each))

    @property
    def _each(self) -> list[MaskedCodes]:
        return [cast(MaskedCodes, level) for level in self.levels]  # a ModuleList forgets the class of its parts

    def forward(self, index: Tensor) -> Tensor:
        """[n, m] whole numbers to [n, m, codes] logits; levels that a string does not reach are not computed."""
        context: Tensor | None = None
        found: list[Tensor] = []
        for number, (level, length) in enumerate(zip(self._each, self.lengths, strict=True)):
            start = sum(self.lengths[:number])
            if number and start >= index.shape[1]:
                break
            logits, known = level.told(index[:, start : start + length], context)
            found.append(logits)
            context = self.enter[number](known) if number < len(self.enter) else None
        return torch.cat(found, 1)
