"""Convolutional networks for images of any size: strided downwards, resize and convolution upwards."""

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from vaestro.data.schema import Shape
from vaestro.errors import UsageError
from vaestro.networks.base import Network, linear, started

Size = tuple[int, int]
CHANNELS = (32, 64)  # of an encoder that is told none
Stage = Callable[[int, int, Size], nn.Module]  # (channels in, channels out, size of the map that it acts on) -> layers


def norm(channels: int, size: Size) -> nn.Module:
    """Group normalisation (Wu & He 2018) in at most 8 groups of at least 4 channels; none where one number a row would be normalised to 0."""
    if channels * math.prod(size) < 4:
        return nn.Identity()
    return nn.GroupNorm(max(g for g in range(1, 9) if channels % g == 0 and (g == 1 or channels // g >= 4)), channels)


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size, or halves it upwards at stride 2."""
    return started(nn.Conv2d(inputs, outputs, 3, stride, 1))


def doubling(kernel: Tensor) -> Tensor:
    """The kernel [i, o, 4, 4] of the transposed convolution of stride 2 that doubles nearest and then convolves by `kernel` [o, i, 3, 3].

    Doubling is a transposed convolution by ones [2, 2]; two in a row are one by the convolution of their kernels (Dumoulin & Visin 2016, section 4).
    """
    wide = F.pad(kernel.flip(2, 3).transpose(0, 1), (1, 1, 1, 1))
    return wide[..., :-1, :-1] + wide[..., 1:, :-1] + wide[..., :-1, 1:] + wide[..., 1:, 1:]


class Enlarged(nn.Module):
    """A 3x3 convolution of the nearest resize of a map to `size`.

    Where both sides double, the two are one transposed convolution: the same function with 4 products where the convolution of the large map has 9.
    """

    def __init__(self, layer: nn.Conv2d, size: Size) -> None:
        super().__init__()
        self.layer, self.size = layer, size

    def forward(self, x: Tensor) -> Tensor:
        """[n, i, h, w] to [n, o, *size]."""
        if (2 * x.shape[-2], 2 * x.shape[-1]) == self.size:
            return F.conv_transpose2d(x, doubling(self.layer.weight), self.layer.bias, stride=2, padding=1)
        grown: Tensor = self.layer(F.interpolate(x, self.size, mode="nearest"))
        return grown


def sizes(image: Shape, stages: int) -> list[Size]:
    """The image's size and those after each halving, rounded up; a side of 1 stays."""
    _, height, width = image
    found = [(height, width)]
    for _ in range(stages):
        height, width = -(-height // 2), -(-width // 2)
        found.append((height, width))
    return found


def plain_down(inputs: int, outputs: int, size: Size) -> nn.Module:
    """Halve, normalise, SiLU; `size` is that of the result."""
    return nn.Sequential(convolution(inputs, outputs, 2), norm(outputs, size), nn.SiLU())


def plain_up(inputs: int, outputs: int, size: Size) -> nn.Module:
    """Resize to `size`, convolve, normalise, SiLU."""
    return nn.Sequential(Enlarged(convolution(inputs, outputs), size), norm(outputs, size), nn.SiLU())


def down(image: Shape, hidden: tuple[int, ...], stage: Stage) -> nn.Sequential:
    """The way from an image to the smallest map."""
    widths = [image[0], *hidden]
    return nn.Sequential(*(stage(i, o, s) for i, o, s in zip(widths, hidden, sizes(image, len(hidden))[1:], strict=False)))


def up(image: Shape, hidden: tuple[int, ...], stage: Stage) -> nn.Sequential:
    """The way from the smallest map to an image, its levels mirrored exactly; the last convolution acts on the full size."""
    steps = list(zip(hidden, (hidden[0], *hidden), sizes(image, len(hidden))[:-1], strict=False))
    return nn.Sequential(*(stage(i, o, s) for i, o, s in reversed(steps)), convolution(hidden[0], image[0]))


def pyramid(inputs: Shape, outputs: Shape, hidden: tuple[int, ...] | None, stages: tuple[Stage, Stage]) -> nn.Module:
    """An encoder, a decoder or both, by which of the shapes are images; each built of `stages` (one down, one up).

    Two images are of one size, or one is the other's map after as many halvings as `hidden` has widths: then the network goes only down, or only up.
    Raises UsageError when neither is an image, or when both are and their sizes are others.
    """
    if len(inputs) != 3 and len(outputs) != 3:
        raise UsageError(f"a convolutional network cannot map {inputs} to {outputs}, for neither is an image [C, H, W]; use mlp")
    upwards = len(inputs) != 3 or (len(outputs) == 3 and inputs[1] * inputs[2] < outputs[1] * outputs[2])
    if hidden is None:
        hidden = CHANNELS[::-1] if upwards else CHANNELS
    if not hidden:
        raise UsageError("a convolutional network needs the channels of one stage or more, but hidden is empty; give hidden=32x64, or use mlp")
    if len(inputs) == len(outputs) == 3:
        return Network(_between(inputs, outputs, hidden, stages), inputs, outputs)
    if len(inputs) == 3:
        small = (hidden[-1], *sizes(inputs, len(hidden))[-1])
        return Network(nn.Sequential(down(inputs, hidden, stages[0]), nn.Flatten(), linear(math.prod(small), math.prod(outputs))), inputs, outputs)
    hidden = hidden[::-1]  # from the image inwards
    small = (hidden[-1], *sizes(outputs, len(hidden))[-1])
    start = [nn.Flatten(), linear(math.prod(inputs), math.prod(small)), nn.Unflatten(1, small), norm(small[0], (small[1], small[2])), nn.SiLU()]
    return Network(nn.Sequential(*start, up(outputs, hidden, stages[1])), inputs, outputs)


def _between(inputs: Shape, outputs: Shape, hidden: tuple[int, ...], stages: tuple[Stage, Stage]) -> nn.Sequential:
    """The layers from image to image."""
    if inputs[1:] == outputs[1:]:
        return nn.Sequential(down(inputs, hidden, stages[0]), up(outputs, hidden, stages[1]))
    if outputs[1:] == sizes(inputs, len(hidden))[-1]:
        return nn.Sequential(down(inputs, hidden, stages[0]), convolution(hidden[-1], outputs[0]))
    small = (inputs[1], inputs[2])
    if small == sizes(outputs, len(hidden))[-1]:
        return nn.Sequential(convolution(inputs[0], hidden[0]), norm(hidden[0], small), nn.SiLU(), up(outputs, hidden[::-1], stages[1]))
    raise UsageError(
        f"a convolutional network cannot map an image {inputs} to one of another size {outputs}; give both the same height and width, or one of them that "
        f"of the other halved {len(hidden)} times, once for each width of hidden"
    )


def convolutional(inputs: Shape, outputs: Shape, hidden: tuple[int, ...] | None = None) -> nn.Module:
    """3x3 convolutions of stride 2, group norm, SiLU, then a linear map; upwards its mirror, by nearest resize and 3x3 convolution.

    `hidden` are the channels in the order of the flow: 32x64 to an image's code, 64x32 from it; 32x64, inwards, from image to image.
    [n, *inputs] to [n, *outputs], one of them or both an image [C, H, W] of any size: of one size, or a map that is halved once for each width, and its
    image. Resizing leaves no chequerboard (Odena et al. 2016). Raises UsageError when neither is an image, when the sizes of two are others, or when
    `hidden` is empty.
    """
    return pyramid(inputs, outputs, hidden, (plain_down, plain_up))
