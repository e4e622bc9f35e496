"""Convolutional networks with pre-activation residual blocks."""

import torch
from torch import Tensor, nn

from vaestro.data.schema import Shape
from vaestro.errors import UsageError
from vaestro.networks.base import Build
from vaestro.networks.convolutional import Enlarged, Size, convolution, norm, pyramid


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


def resnet(depth: int) -> Build:
    """As `residual`, with `depth` blocks at each level: a function of inputs, outputs and `hidden`, as networks are. Raises UsageError for a depth below 1."""
    if depth < 1:
        raise UsageError(f"a residual network cannot have {depth} blocks at a level; give one or more")

    def down(inputs: int, outputs: int, size: Size) -> nn.Module:
        return nn.Sequential(residual_down(inputs, outputs, size), *(Block(outputs, size) for _ in range(depth - 1)))

    def up(inputs: int, outputs: int, size: Size) -> nn.Module:
        return nn.Sequential(residual_up(inputs, outputs, size), *(Block(outputs, size) for _ in range(depth - 1)))

    return lambda inputs, outputs, hidden=None: pyramid(inputs, outputs, hidden, (down, up))


def residual_down(inputs: int, outputs: int, size: Size) -> nn.Module:
    """Halve, then a block; `size` is that of the result."""
    return nn.Sequential(convolution(inputs, outputs, 2), Block(outputs, size))


def residual_up(inputs: int, outputs: int, size: Size) -> nn.Module:
    """Resize to `size` and convolve, then a block."""
    return nn.Sequential(Enlarged(convolution(inputs, outputs), size), Block(outputs, size))


def residual(inputs: Shape, outputs: Shape, hidden: tuple[int, ...] | None = None) -> nn.Module:
    """As `convolutional`, with a pre-activation residual block at each level (He et al. 2016). [n, *inputs] to [n, *outputs].

    Sizes and errors are those of `convolutional`.
    """
    return pyramid(inputs, outputs, hidden, (residual_down, residual_up))
