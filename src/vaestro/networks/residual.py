"""Convolutional networks with pre-activation residual blocks."""

import torch
from torch import Tensor, nn

from vaestro.data.schema import Shape
from vaestro.networks.convolutional import Size, convolution, norm, pyramid


class Block(nn.Module):
    """x + conv(SiLU(norm(conv(SiLU(norm(x)))))), the last convolution a tenth of its usual size, to start near the identity (He et al. 2016, eq. 3)."""

    def __init__(self, channels: int, size: Size) -> None:
        super().__init__()
        last = convolution(channels, channels)
        with torch.no_grad():
            last.weight.mul_(0.1)
        self.change = nn.Sequential(norm(channels, size), nn.SiLU(), convolution(channels, channels), norm(channels, size), nn.SiLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, H, W] to the same."""
        change: Tensor = self.change(x)
        return x + change


def residual_down(inputs: int, outputs: int, size: Size) -> nn.Module:
    """Halve, then a block; `size` is that of the result."""
    return nn.Sequential(convolution(inputs, outputs, 2), Block(outputs, size))


def residual_up(inputs: int, outputs: int, size: Size) -> nn.Module:
    """Resize to `size` and convolve, then a block."""
    return nn.Sequential(nn.Upsample(size=size, mode="nearest"), convolution(inputs, outputs), Block(outputs, size))


def residual(inputs: Shape, outputs: Shape, hidden: tuple[int, ...] | None = None) -> nn.Module:
    """As `convolutional`, with a pre-activation residual block at each level (He et al. 2016). [n, *inputs] to [n, *outputs].

    Sizes and errors are those of `convolutional`.
    """
    return pyramid(inputs, outputs, hidden, (residual_down, residual_up))
