"""Inception v3 as the Frechet inception distance reads it: TensorFlow's graph of 2015, whose pooling differs from torchvision's in two places."""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = 299
WIDTH = 2048
Kernel: TypeAlias = tuple[int, int]
Stage: TypeAlias = tuple[tuple[str, int, Kernel, int, Kernel], ...]  # units side by side: name, channels out, kernel, stride, padding


class Unit(nn.Module):
    """Convolution, batch normalisation, rectifier."""

    def __init__(self, channels: int, out: int, kernel: Kernel = (1, 1), stride: int = 1, padding: Kernel = (0, 0)) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, H, W] to [n, out, ...]."""
        return F.relu(self.bn(self.conv(x)))


def step(name: str, out: int, high: int = 1, wide: int = 1, stride: int = 1) -> Stage:
    """A unit of a branch; one that keeps the size is padded. The sum of two stages is a fork, whose ends are joined."""
    return ((name, out, (high, wide), stride, (high // 2, wide // 2) if stride == 1 else (0, 0)),)


class Average(nn.Module):
    """A mean over 3 x 3 in which the padding does not count."""

    def forward(self, x: Tensor) -> Tensor:
        """[n, C, H, W] to the same shape."""
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class Mixed(nn.Module):
    """Branches side by side, each a chain of stages, and a pooled one. Names are those of the weights."""

    def __init__(self, channels: int, branches: Sequence[Sequence[Stage]], pool: nn.Module, pooled: int = 0) -> None:
        super().__init__()
        self.branches = [[[unit[0] for unit in stage] for stage in branch] for branch in branches]
        for branch in branches:
            width = channels
            for stage in branch:
                for name, out, kernel, stride, padding in stage:
                    self.add_module(name, Unit(width, out, kernel, stride, padding))
                width = sum(unit[1] for unit in stage)
        self.pool = pool
        self.projects = pooled > 0
        if self.projects:
            self.branch_pool = Unit(channels, pooled)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, H, W] to the branches' outputs, joined on channels."""
        ends = []
        for branch in self.branches:
            h = x
            for names in branch:
                h = torch.cat([self.get_submodule(n)(h) for n in names], 1)
            ends.append(h)
        pooled = self.pool(x)
        return torch.cat([*ends, self.branch_pool(pooled) if self.projects else pooled], 1)


def mixed_a(channels: int, pooled: int) -> Mixed:
    """Figure 5 of Szegedy et al. 2016, at 35 x 35."""
    double = [step("branch3x3dbl_1", 64), step("branch3x3dbl_2", 96, 3, 3), step("branch3x3dbl_3", 96, 3, 3)]
    return Mixed(channels, [[step("branch1x1", 64)], [step("branch5x5_1", 48), step("branch5x5_2", 64, 5, 5)], double], Average(), pooled)


def mixed_b(channels: int) -> Mixed:
    """From 35 x 35 to 17 x 17."""
    double = [step("branch3x3dbl_1", 64), step("branch3x3dbl_2", 96, 3, 3), step("branch3x3dbl_3", 96, 3, 3, 2)]
    return Mixed(channels, [[step("branch3x3", 384, 3, 3, 2)], double], nn.MaxPool2d(3, 2))


def mixed_c(wide: int) -> Mixed:
    """Figure 6, at 17 x 17."""
    once = [step("branch7x7_1", wide), step("branch7x7_2", wide, 1, 7), step("branch7x7_3", 192, 7, 1)]
    twice = [step("branch7x7dbl_1", wide), step("branch7x7dbl_2", wide, 7, 1), step("branch7x7dbl_3", wide, 1, 7), step("branch7x7dbl_4", wide, 7, 1)]
    return Mixed(768, [[step("branch1x1", 192)], once, [*twice, step("branch7x7dbl_5", 192, 1, 7)]], Average(), 192)


def mixed_d() -> Mixed:
    """From 17 x 17 to 8 x 8."""
    long = [step("branch7x7x3_1", 192), step("branch7x7x3_2", 192, 1, 7), step("branch7x7x3_3", 192, 7, 1), step("branch7x7x3_4", 192, 3, 3, 2)]
    return Mixed(768, [[step("branch3x3_1", 192), step("branch3x3_2", 320, 3, 3, 2)], long], nn.MaxPool2d(3, 2))


def mixed_e(channels: int, pool: nn.Module) -> Mixed:
    """Figure 7, at 8 x 8."""
    once = [step("branch3x3_1", 384), step("branch3x3_2a", 384, 1, 3) + step("branch3x3_2b", 384, 3, 1)]
    fork = step("branch3x3dbl_3a", 384, 1, 3) + step("branch3x3dbl_3b", 384, 3, 1)
    return Mixed(channels, [[step("branch1x1", 320)], once, [step("branch3x3dbl_1", 448), step("branch3x3dbl_2", 384, 3, 3), fork]], pool, 192)


class Inception(nn.Module):
    """Szegedy et al. 2016, "Rethinking the Inception Architecture", with the pooling of the graph of 2015; the state's names are torchvision's.

    Padding does not count in means, and the last block takes a maximum where the paper has a mean: so are the weights that published distances were made with.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Unit(3, 32, (3, 3), 2)
        self.Conv2d_2a_3x3 = Unit(32, 32, (3, 3))
        self.Conv2d_2b_3x3 = Unit(32, 64, (3, 3), 1, (1, 1))
        self.Conv2d_3b_1x1 = Unit(64, 80)
        self.Conv2d_4a_3x3 = Unit(80, 192, (3, 3))
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = mixed_a(192, 32), mixed_a(256, 64), mixed_a(288, 64)
        self.Mixed_6a = mixed_b(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = mixed_c(128), mixed_c(160), mixed_c(160), mixed_c(192)
        self.Mixed_7a = mixed_d()
        self.Mixed_7b, self.Mixed_7c = mixed_e(1280, Average()), mixed_e(2048, nn.MaxPool2d(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Pictures [n, 3, 299, 299] with values from -1 to 1 to pooled features [n, 2048]."""
        h = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        h = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(h, 3, 2)))
        h = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(h, 3, 2))))
        h = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(h)))))
        return torch.as_tensor(self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(h))).mean((2, 3)))


def resized(x: Tensor, size: int = SIZE) -> Tensor:
    """Pictures [n, C, H, W] at [n, C, size, size] as TensorFlow 1 resizes: bilinear, pixel i read at i * H / size, without anti-aliasing."""

    def places(old: int) -> tuple[Tensor, Tensor, Tensor]:
        at = torch.arange(size, dtype=torch.float32, device=x.device) * (old / size)
        low = at.long()
        return low, (low + 1).clamp(max=old - 1), (at - low).to(x.dtype)

    (top, bottom, down), (left, right, along) = places(x.shape[2]), places(x.shape[3])
    upper, lower = (rows[..., left] + (rows[..., right] - rows[..., left]) * along for rows in (x[:, :, top], x[:, :, bottom]))
    return torch.as_tensor(upper + (lower - upper) * down[:, None])
