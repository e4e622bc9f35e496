"""Blocks of deep hierarchies over maps [channels, H, W], and whether their activations are stored or computed again on the way back."""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vaestro.networks.base import Network, started
from vaestro.networks.convolutional import Size, norm
from vaestro.registry import Registry

Keep: TypeAlias = Callable[[nn.Module, Tensor], Tensor]  # how a block runs its layers
ACTIVATIONS: Registry[Keep] = Registry("way to keep activations")
SMALL = 2  # a map of this side or less is too small for 3x3 convolutions (Child 2021)


@ACTIVATIONS.register
def stored(net: nn.Module, x: Tensor) -> Tensor:
    """What a block computes stays in memory until its gradient is taken."""
    out: Tensor = net(x)
    return out


@ACTIVATIONS.register
def recomputed(net: nn.Module, x: Tensor) -> Tensor:
    """Only a block's input stays in memory, and the rest is computed again for the gradient (Chen et al. 2016): equal bits, about a third more time.

    For layers that draw no random numbers.
    """
    if not torch.is_grad_enabled():
        return stored(net, x)
    out: Any = checkpoint(net, x, use_reentrant=False, preserve_rng_state=False)
    assert isinstance(out, Tensor), "layers return a tensor"
    return out


def conv(inputs: int, outputs: int, side: int, gain: float = 1.0, groups: int = 1) -> nn.Conv2d:
    """A convolution of an odd side that keeps the size of the map; its outputs have the variance gain^2 on inputs of unit variance."""
    return started(nn.Conv2d(inputs, outputs, side, padding=side // 2, groups=groups), gain)


def over(size: Size, inputs: int, outputs: int, *layers: nn.Module) -> Network:
    """Layers as a network of maps: [n, inputs, H, W] to [n, outputs, H, W]."""
    return Network(nn.Sequential(*layers), (inputs, *size), (outputs, *size))


class Added(nn.Module):
    """x + scale * net(x), its activations kept as `keep` says: [n, channels, H, W] to the same (He et al. 2016, eq. 1)."""

    def __init__(self, net: nn.Module, scale: float = 1.0, keep: Keep = stored) -> None:
        super().__init__()
        self.net, self.scale, self.keep = net, scale, keep

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, H, W] to the same."""
        return x + self.scale * self.keep(self.net, x)


def bottleneck(inputs: int, outputs: int, size: Size, last: float = 1.0) -> nn.Sequential:
    """Convolutions of sides 1, 3, 3 and 1, each behind a GELU, through a quarter of the channels; `last` scales the last (Child 2021, figure 3).

    On maps of two pixels a side or less, all are 1x1.
    """
    middle, side = max(1, max(inputs, outputs) // 4), 3 if max(size) > SMALL else 1
    sides = [(inputs, middle, 1, 1.0), (middle, middle, side, 1.0), (middle, middle, side, 1.0), (middle, outputs, 1, last)]
    return nn.Sequential(*(layer for i, o, k, gain in sides for layer in (nn.GELU(), conv(i, o, k, gain))))


class SqueezeExcite(nn.Module):
    """x times a gate for each channel, sigmoid(W2 silu(W1 mean(x))), through a sixteenth of the channels, four at least (Hu et al. 2018, eq. 3).

    SiLU stands for the paper's ReLU, all of whose few units may die.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        few = max(channels // 16, 4)
        self.gate = nn.Sequential(nn.Linear(channels, few), nn.SiLU(), nn.Linear(few, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, H, W] to the same."""
        gate: Tensor = self.gate(x.mean((-2, -1)))
        return x * gate[..., None, None]


def encoder_cell(channels: int, size: Size) -> nn.Sequential:
    """Twice norm, SiLU and a 3x3 convolution, then squeeze and excite (Vahdat & Kautz 2020, figure 3b, with group norm for batch norm)."""
    first, second = conv(channels, channels, 3), conv(channels, channels, 3)
    return nn.Sequential(norm(channels, size), nn.SiLU(), first, norm(channels, size), nn.SiLU(), second, SqueezeExcite(channels))


def decoder_cell(channels: int, size: Size, expand: int = 3) -> nn.Sequential:
    """A 1x1 convolution to `expand` times the channels, a depthwise 5x5 one, and a 1x1 one back, with norms, SiLUs, and squeeze and excite at the end.

    Vahdat & Kautz 2020, figure 3a, with group norm for batch norm.
    """
    wide = expand * channels
    return nn.Sequential(
        *(norm(channels, size), conv(channels, wide, 1)),
        *(norm(wide, size), nn.SiLU(), conv(wide, wide, 5, groups=wide)),
        *(norm(wide, size), nn.SiLU(), conv(wide, channels, 1)),
        *(norm(channels, size), SqueezeExcite(channels)),
    )


class Shrink(nn.Module):
    """The means of 2x2 pixels; an odd last row or column is averaged alone, and a side of 1 stays: [n, C, H, W] to [n, C, ceil(H/2), ceil(W/2)]."""

    def forward(self, x: Tensor) -> Tensor:
        """The smaller map."""
        return F.avg_pool2d(x, 2, ceil_mode=True)


class Unpool(nn.Module):
    """A map enlarged to `size` by its nearest pixels, plus learnt numbers for each place (Child 2021, section 3)."""

    def __init__(self, channels: int, size: Size) -> None:
        super().__init__()
        self.size, self.bias = size, nn.Parameter(torch.zeros(channels, *size))

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] to [n, channels, H, W]."""
        return F.interpolate(x, self.size, mode="nearest") + self.bias


class Taken(nn.Module):
    """A state of `width` channels with a latent beside it, to body(state + a 1x1 convolution of the latent): [n, width + latents, H, W] to [n, width, H, W]."""

    def __init__(self, width: int, latents: int, gain: float, body: nn.Module) -> None:
        super().__init__()
        self.width, self.project, self.body = width, conv(latents, width, 1, gain), body

    def forward(self, x: Tensor) -> Tensor:
        """The next state."""
        out: Tensor = self.body(x[:, : self.width] + self.project(x[:, self.width :]))
        return out
