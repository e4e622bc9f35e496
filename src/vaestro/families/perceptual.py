"""Pictures compared as eyes would: distances that are no densities, and the likelihood that says so."""

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional as F

from vaestro import core
from vaestro.errors import UsageError
from vaestro.families.base import Sizes, split
from vaestro.families.point import PointDistribution

Distance: TypeAlias = Callable[[Tensor, Tensor], Tensor]  # two pictures [*lead, C, H, W] in unit values, their leads broadcast, to [*lead]; 0 between equals

SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # exponents of the five scales, Wang et al. 2003, section 3.2
WINDOW, SIGMA = 11, 1.5  # Wang et al. 2004, section III.B
C1, C2 = 0.01**2, 0.03**2
LEAST = 1e-4  # of a factor: a fractional power of 0 has an infinite slope, and one of a negative number is none


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """MS-SSIM of pictures [*lead, C, H, W] in unit values, [*lead], 1 between equals: the mean over channels of l_M^a_M prod_j (c_j s_j)^a_j.

    Wang, Simoncelli & Bovik 2003, eq. 7. The windows are Gaussian, 11 wide, of scale 1.5, and lie inside the picture; each scale halves the one before by
    means of 2 x 2. Five scales need 176 pixels of height and width; smaller pictures have as many as leave 11 pixels, one at least, their exponents scaled
    to the same sum; below 11 pixels the window shrinks. A mean contrast below 1e-4, or of opposite sign, counts as 1e-4.
    """
    number = scales(*x.shape[-2:])
    exponents = [a * sum(SCALES) / sum(SCALES[:number]) for a in SCALES[:number]]
    value = torch.ones((), dtype=x.dtype, device=x.device)
    with torch.autocast(x.device.type, enabled=False):  # a difference of mean squares in half precision is noise
        for j, exponent in enumerate(exponents):
            whole, contrast = _similarity(x, y)
            value = value * (whole if j == number - 1 else contrast).clamp(min=LEAST) ** exponent
            if j < number - 1:
                x, y = _halved(x), _halved(y)
    return value.mean(-1)


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """SSIM of pictures [*lead, C, H, W] in unit values, [*lead], 1 between equals: the mean of l c s over windows and channels.

    Wang, Bovik, Sheikh & Simoncelli 2004, eq. 13, with the paper's Gaussian windows, 11 wide and of scale 1.5, inside the picture; below 11 pixels they shrink.
    """
    return _similarity(x, y)[0].mean(-1)


def scales(height: int, width: int) -> int:
    """How many of the five scales of `ms_ssim` a picture bears: as many as leave 11 pixels, one at least."""
    side = min(height, width)
    return max(1, min(len(SCALES), int(math.log2(side / WINDOW)) + 1 if side >= WINDOW else 1))


def _similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The means over windows of l c s, and of c s alone, [*lead, C]."""
    side = min(WINDOW, *x.shape[-2:])
    width = side - (side + 1) % 2
    mx, my = _blurred(x, width), _blurred(y, width)
    vx, vy, both = _blurred(x.square(), width) - mx.square(), _blurred(y.square(), width) - my.square(), _blurred(x * y, width) - mx * my
    contrast = (2 * both + C2) / (vx + vy + C2)
    light = (2 * mx * my + C1) / (mx.square() + my.square() + C1)
    return (light * contrast).mean((-2, -1)), contrast.mean((-2, -1))


def _blurred(x: Tensor, width: int) -> Tensor:
    """The Gaussian means of all windows inside a picture."""
    places = torch.arange(width, dtype=x.dtype, device=x.device) - (width - 1) / 2
    taps = (-(places / SIGMA).square() / 2).softmax(0)
    h = F.conv2d(x.reshape(-1, 1, *x.shape[-2:]), taps[None, None, :, None])
    h = F.conv2d(h, taps[None, None, None, :])
    return h.reshape(*x.shape[:-2], *h.shape[-2:])


def _halved(x: Tensor) -> Tensor:
    h = F.avg_pool2d(x.reshape(-1, 1, *x.shape[-2:]), 2)
    return h.reshape(*x.shape[:-2], *h.shape[-2:])


class MsSsim(nn.Module):
    """C H W (1 - ms_ssim(x, y)): the similarity of Wang et al. 2003, eq. 7, as a distance that counts every number of a picture, [*lead]."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two pictures [*lead, C, H, W] to their distance [*lead]."""
        return x.shape[-3:].numel() * (1 - ms_ssim(x, y))


class FocalFrequency(nn.Module):
    """sum_uv w |F_x - F_y|^2, F the orthonormal Fourier transform of each channel, w = |F_x - F_y|^alpha over its largest, held fixed.

    Jiang et al. 2021, section 3.3. The frequencies that are worst weigh most; at alpha = 0 it is the squared error (Parseval). The paper's is this divided
    by the numbers of a picture. Raises UsageError for alpha below 0.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        if not 0 <= alpha < math.inf:
            raise UsageError(f"the worst frequencies weigh most at alpha above 0, all the same at 0, and alpha = {alpha} is neither; give one from 0 upwards")
        super().__init__()
        self.alpha = alpha

    def extra_repr(self) -> str:
        """What is inside."""
        return f"alpha={self.alpha}"

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two pictures [*lead, C, H, W] to their distance [*lead]."""
        gap = torch.fft.fft2(x - y, norm="ortho")
        power = gap.real.square() + gap.imag.square()
        weight = power.detach() ** (self.alpha / 2)
        weight = weight / weight.amax((-2, -1), keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
        far: Tensor = (weight * power).sum((-3, -2, -1))
        return far


class FeatureDistance(nn.Module):
    """C H W sum_l mean (f_l(x) - f_l(y))^2 over the layers f_l of a fixed network, [*lead] (Johnson et al. 2016, eq. 2, summed over layers as Hou et al. 2017).

    `net` maps pictures [n, C, H, W] to a list of maps [n, ...]; its weights should not train.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two pictures [*lead, C, H, W] to their distance [*lead]."""
        with torch.autocast(x.device.type, enabled=False):
            gaps = [(a - b).square().mean(-1) for a, b in zip(self._maps(x), self._maps(y), strict=True)]
        far: Tensor = x.shape[-3:].numel() * torch.stack(gaps).sum(0)
        return far

    def _maps(self, x: Tensor) -> list[Tensor]:
        """Each layer's numbers, [*lead, numbers]."""
        lead = x.shape[:-3]
        return [m.reshape(*lead, -1) for m in self.net(x.reshape(-1, *x.shape[-3:]))]


class PictureDistribution(PointDistribution):
    """One picture, and no density: `log_prob` is -weight * distance to it, and `normalised` is False, so that no report calls it nats."""

    def __init__(self, value: Tensor, distance: Distance, weight: float) -> None:
        super().__init__(value, 3)
        self.distance, self.weight = distance, weight

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "PictureDistribution":
        """The same picture, repeated over `batch_shape`."""
        return PictureDistribution(self.value.expand(*batch_shape, *self.event_shape), self.distance, self.weight)

    def log_prob(self, value: Tensor) -> Tensor:
        """-weight * distance(value, picture)."""
        return -self.weight * self.distance(value, self.value)


@core.partial_log_prob.register
def _(dist: PictureDistribution, value: Tensor, mask: Tensor) -> Tensor:
    raise UsageError("a perceptual distance compares whole pictures, not a part of one; give whole rows, or use likelihood=default")


class Perceptual(nn.Module):
    """The picture sigmoid(h), scored by -weight * distance: `h` [..., C, H, W]. Not a density: `normalised` is False.

    Raises UsageError for a weight that is not positive and finite.
    """

    params = 1
    event_dims = 3

    def __init__(self, distance: Distance, weight: float = 1.0) -> None:
        if not 0 < weight < math.inf:
            raise UsageError(f"a distance cannot weigh {weight}; give a weight above 0")
        super().__init__()
        self.distance, self.weight = distance, weight

    def extra_repr(self) -> str:
        """What is inside."""
        return f"weight={self.weight}"

    def forward(self, h: Tensor) -> Distribution:
        """The picture whose logits are `h`; raises UsageError when the channels do not divide."""
        (logits,) = split(h, 1, 3)
        return PictureDistribution(logits.sigmoid(), self.distance, self.weight)
