"""Masked convolutions: networks in which a pixel reads only the pixels before it, row by row, and of its own pixel only the channels before it."""

import operator
from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaestro.errors import UsageError
from vaestro.networks.base import started

Sees: TypeAlias = Callable[[Tensor, Tensor], Tensor]  # (group of a channel that is read, group of the one that reads) -> whether it may, at one pixel
Hidden: TypeAlias = tuple[int, ...]

BEFORE: Sees = operator.lt  # mask A: of its own pixel, the groups before its own; for the layer that reads the data
UP_TO: Sees = operator.le  # mask B: and its own; for every layer after it


def groups_of(channels: int, groups: int) -> list[int]:
    """The group of each channel, dealt in turn: 0, 1, .., groups - 1, 0, 1, ...; so families stack their numbers, [params * C] with C groups."""
    return [i % groups for i in range(channels)]


class MaskedConv2d(nn.Conv2d):
    """A convolution over the pixels above and to the left, and of its own pixel over the channels that `sees` admits (van den Oord et al. 2016, PixelRNN, 3.4).

    `inputs` and `outputs` give the group of every channel; [n, inputs, H, W] to [n, outputs, H, W]. `BEFORE` is the paper's mask A, `UP_TO` its mask B.
    Raises UsageError for an even side of the kernel.
    """

    mask: Tensor

    def __init__(self, inputs: Sequence[int], outputs: Sequence[int], kernel: tuple[int, int], sees: Sees) -> None:
        tall, wide = kernel
        if tall % 2 == 0 or wide % 2 == 0 or min(kernel) < 1:
            raise UsageError(f"a masked convolution needs a centre, and a kernel of {tall}x{wide} has none; give odd sides")
        super().__init__(len(inputs), len(outputs), kernel, padding=(tall // 2, wide // 2))
        mask = torch.zeros_like(self.weight)
        mask[:, :, : tall // 2] = 1
        mask[:, :, tall // 2, : wide // 2] = 1
        mask[:, :, tall // 2, wide // 2] = sees(torch.tensor(inputs), torch.tensor(outputs).unsqueeze(1)).to(mask.dtype)
        self.register_buffer("mask", mask, persistent=False)
        with torch.no_grad():
            self.weight.normal_().mul_(mask).div_(mask.sum((1, 2, 3), keepdim=True).clamp(min=1).sqrt())
            nn.init.zeros_(cast(nn.Parameter, self.bias))

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, H, W] to [n, outputs, H, W]."""
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


def gate(h: Tensor) -> Tensor:
    """tanh(a) sigmoid(b) of the two halves of the channels (van den Oord et al. 2016, conditional PixelCNN, eq. 2)."""
    a, b = h.chunk(2, 1)
    return torch.tanh(a) * torch.sigmoid(b)


class GatedLayer(nn.Module):
    """One layer of two stacks: one reads all the rows above, the other its own row up to its pixel and the first, so that there is no blind spot.

    van den Oord et al. 2016, Conditional Image Generation with PixelCNN Decoders, figure 2; here both stacks are residual, and the context
    enters the first, from which the second has it. `inputs` and `outputs` are the groups of the channels of the second stack.
    """

    def __init__(self, inputs: Sequence[int], outputs: Sequence[int], context: int, kernel: int, sees: Sees) -> None:
        super().__init__()
        before, width = len(inputs), len(outputs)
        self.margins = (kernel // 2, kernel // 2, kernel // 2, 0)  # left, right, above, below: the row itself is read, for it is a row above
        self.rows = started(nn.Conv2d(before, 2 * width, (kernel // 2 + 1, kernel)))
        self.down = started(nn.Conv2d(2 * width, 2 * width, 1))
        self.told = started(nn.Conv2d(context, 2 * width, 1, bias=False)) if context else None
        self.row = MaskedConv2d(inputs, [*outputs, *outputs], (1, kernel), sees)
        self.out = MaskedConv2d(outputs, outputs, (1, 1), UP_TO)
        self.skips = before == width and sees is UP_TO

    def above(self, rows: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """The first stack, and what it tells the second: [n, before, H, W] to [n, width, H, W] and [n, 2 width, H, W]."""
        return self.below(F.pad(rows, self.margins), context)

    def below(self, rows: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """The same of the rows but the first kernel // 2, which are only read, as are as many columns on either side."""
        side = self.margins[0]
        h: Tensor = self.rows(rows)
        own = rows[:, :, side:, side : rows.shape[3] - side]
        if self.told is not None and context is not None:
            h = h + self.told(context)
        return (own + gate(h) if self.skips else gate(h)), self.down(h)

    def along(self, row: Tensor, told: Tensor) -> Tensor:
        """The second stack, on any rows: [n, before, R, W] and what the first told of them, to [n, width, R, W]."""
        h: Tensor = self.out(gate(self.row(row) + told))
        return row + h if self.skips else h

    def at(self, window: Tensor, told: Tensor) -> Tensor:
        """The second stack at one pixel: [n, before, kernel // 2 + 1], the pixels up to it, and [n, 2 width], to [n, width]. Small products, so it is quick."""
        h: Tensor = gate(_product(self.row, window) + told)
        out = _product(self.out, h.unsqueeze(2))
        return window[:, :, -1] + out if self.skips else out


class PixelNet(nn.Module):
    """A gated PixelCNN: output channels of group g at a pixel read every pixel before it, and of its own pixel the inputs of the groups before g.

    [n, inputs, H, W], with a context [n, context, H, W] that all may read if `context` is not 0, to [n, outputs, H, W]; any size of picture.
    Groups are dealt in turn (see `groups_of`): with groups = channels, the outputs are as families stack them; codes with embeddings are one group.
    `hidden` are the widths of the gated layers, each of which reaches kernel // 2 pixels further. van den Oord et al. 2016, Conditional Image
    Generation with PixelCNN Decoders. Raises UsageError without a layer, for a layer narrower than the groups, or for an even kernel.
    """

    def __init__(self, inputs: int, outputs: int, groups: int = 1, context: int = 0, hidden: Hidden = (32, 32, 32, 32), kernel: int = 5) -> None:
        if not hidden:
            raise UsageError("a masked network needs the width of one layer or more, but hidden is empty; give hidden=32x32x32x32")
        if min(hidden) < groups:
            raise UsageError(f"a masked layer of {min(hidden)} channels cannot serve {groups} channels of data; give layers at least as wide")
        super().__init__()
        self.outputs, self.context = outputs, context
        self.side = kernel // 2  # how many pixels to the left one layer looks
        widths = [groups_of(n, groups) for n in (inputs, *hidden)]
        sees = [BEFORE] + [UP_TO] * (len(hidden) - 1)
        self.layers = nn.ModuleList(GatedLayer(i, o, context, kernel, s) for i, o, s in zip(widths, widths[1:], sees, strict=False))
        self.head = MaskedConv2d(widths[-1], groups_of(outputs, groups), (1, 1), UP_TO)

    def above(self, x: Tensor, context: Tensor | None = None) -> list[Tensor]:
        """What the rows above each row tell it, one tensor [n, 2 width, H, W] a layer; row r of them depends on the rows before r only."""
        rows = F.pad(x, (0, 0, 1, 0))[:, :, :-1]
        told = []
        for layer in self._gated:
            rows, down = layer.above(rows, context)
            told.append(down)
        return told

    def next_row(self, past: list[Tensor], row: Tensor, context: Tensor | None = None) -> list[Tensor]:
        """What `above` tells one row, given the row of inputs just above it and its own context, [n, channels, 1, W] each.

        `past` holds what each layer reads, [n, channels, kernel // 2, W] of zeros before the first row, and is brought up to date.
        """
        told = []
        for i, layer in enumerate(self._gated):
            rows = torch.cat([past[i], row], 2)
            past[i] = rows[:, :, 1:]
            row, down = layer.below(F.pad(rows, (self.side, self.side)), context)
            told.append(down)
        return told

    def along(self, row: Tensor, told: Sequence[Tensor]) -> Tensor:
        """The outputs at any rows [n, inputs, R, W], given what `above` told of these rows: [n, outputs, R, W]."""
        for layer, down in zip(self._gated, told, strict=True):
            row = layer.along(row, down)
        out: Tensor = self.head(F.silu(row))
        return out

    def blank(self, rows: int, width: int, like: Tensor) -> list[Tensor]:
        """Room for one row of the inputs and of what each layer makes of it, [n, channels, kernel // 2 + W]: what `at` reads and fills."""
        channels = [self._gated[0].row.in_channels, *(layer.out.out_channels for layer in self._gated)]
        return [like.new_zeros(rows, c, self.side + width) for c in channels]

    def at(self, row: Sequence[Tensor], told: Sequence[Tensor], column: int) -> Tensor:
        """The outputs at one pixel, [n, outputs], of a row from `blank` whose inputs up to it are filled, and the told of that row; without gradients."""
        for before, after, layer, down in zip(row, row[1:], self._gated, told, strict=False):
            after[:, :, self.side + column] = layer.at(before[:, :, column : column + self.side + 1], down[:, :, 0, column])
        return _product(self.head, F.silu(row[-1][:, :, self.side + column, None]))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """All outputs in one pass: [n, inputs, H, W] to [n, outputs, H, W]."""
        return self.along(x, self.above(x, context))

    @property
    def _gated(self) -> list[GatedLayer]:
        return [cast(GatedLayer, layer) for layer in self.layers]  # a ModuleList forgets the class of its parts


def _product(layer: MaskedConv2d, window: Tensor) -> Tensor:
    """A masked convolution of one row at one pixel, as the product that it is: [n, inputs, the pixels up to it] to [n, outputs]."""
    weight = (layer.weight * layer.mask)[:, :, 0, : window.shape[2]]
    return F.linear(window.flatten(1), weight.flatten(1), layer.bias)
