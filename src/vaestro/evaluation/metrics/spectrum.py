"""Blur, seen in the radial power spectrum: what pictures keep of the data's high frequencies."""

import torch
from torch import Tensor

from vaestro.errors import UsageError

HIGH = 0.25  # cycles per pixel: half of what a grid can carry


def _radius(height: int, width: int, device: torch.device) -> Tensor:
    fy = torch.fft.fftfreq(height, dtype=torch.float64, device=device)
    fx = torch.fft.rfftfreq(width, dtype=torch.float64, device=device)
    return torch.hypot(fy[:, None], fx)


def _columns(width: int, device: torch.device) -> Tensor:
    """How often each column of a real transform stands in the full one, [W // 2 + 1]."""
    columns = torch.full((width // 2 + 1,), 2.0, dtype=torch.float64, device=device)
    columns[0] = 1
    if width % 2 == 0:
        columns[-1] = 1
    return columns


def _power(images: Tensor) -> Tensor:
    """Power [n, H, W // 2 + 1] of pictures [n, C, H, W], summed over channels; it sums to the pictures' squares."""
    power: Tensor = torch.fft.rfft2(images.double(), norm="ortho").abs().square().sum(1)
    return power * _columns(images.shape[-1], images.device)


def high_power(images: Tensor) -> Tensor:
    """The power of each picture [n, C, H, W] at 0.25 cycles per pixel and above, [n]; raises UsageError for pictures too small to have any."""
    high = (_radius(images.shape[-2], images.shape[-1], images.device) >= HIGH).double()
    if not bool(high.any()):
        raise UsageError(f"pictures of {images.shape[-2]}x{images.shape[-1]} have no high frequencies, so blur cannot be seen; leave this metric out")
    return (_power(images) * high).sum((-1, -2))


def radial_spectrum(images: Tensor, bins: int = 16) -> Tensor:
    """Mean power of pictures [n, C, H, W] in `bins` rings from 0 to 0.5 cycles per pixel, [bins]; corners beyond 0.5 count in the last, empty rings are 0."""
    radius = _radius(images.shape[-2], images.shape[-1], images.device)
    ring = (radius * 2 * bins).long().clamp(max=bins - 1).flatten()
    power = _power(images).mean(0)
    cells = _columns(images.shape[-1], images.device).expand_as(power)
    total, number = (torch.zeros(bins, dtype=torch.float64, device=images.device).index_add_(0, ring, v.flatten()) for v in (power, cells))
    return total / number.clamp(min=1)
