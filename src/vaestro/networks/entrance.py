"""What stands before a network whose input is a point of some space: maps of points to vectors that a network can read."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vaestro.networks.ball import TINY, add, to_origin
from vaestro.registry import Registry


class Entrance(nn.Module):
    """A map of points [n, inputs] to vectors [n, width]."""

    width: int


class Entered(nn.Module):
    """`net` behind `entrance`: points [n, inputs] to [n, width], then to the network's outputs."""

    event_dims = 1

    def __init__(self, entrance: Entrance, net: nn.Module) -> None:
        super().__init__()
        self.entrance, self.net = entrance, net

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs] to [n, *outputs]."""
        out: Tensor = self.net(self.entrance(x))
        return out


class Standardised(Entrance):
    """(x - mean) / deviation, so that points spread as the prior spreads them reach a network with unit variance."""

    def __init__(self, width: int, mean: float, deviation: float) -> None:
        super().__init__()
        self.width, self.mean, self.deviation = width, mean, deviation

    def forward(self, x: Tensor) -> Tensor:
        """[n, width] to [n, width]."""
        return (x - self.mean) / self.deviation


class LogMap(Entrance):
    """log_0(z) = (2 / sqrt(c)) artanh(sqrt(c) |z|) z / |z|: a point of the Poincare ball as the vector that leads to it from the origin."""

    def __init__(self, inputs: int, curvature: float) -> None:
        super().__init__()
        self.width, self.curvature = inputs, curvature

    def forward(self, z: Tensor) -> Tensor:
        """[n, inputs] to [n, inputs]."""
        return to_origin(z, self.curvature)


class Gyroplanes(Entrance):
    """Signed distances to hyperplanes of the Poincare ball, four for each number of a point (Mathieu et al. 2019, section 3.2; Ganea et al. 2018, section 3.1).

    f(z) = (|a| / sqrt(c)) arsinh(2 sqrt(c) u.a / ((1 - c |u|^2) |a|)), u = (-p) + z in the ball, a the normal and p a point of the plane, both learnt.
    As c falls to 0 it is the linear layer 2 a.(z - p).
    """

    def __init__(self, inputs: int, curvature: float) -> None:
        super().__init__()
        self.width, self.curvature = 4 * inputs, curvature
        self.normal = nn.Parameter(torch.randn(self.width, inputs) / math.sqrt(inputs))
        self.shift = nn.Parameter(torch.randn(self.width) / math.sqrt(inputs))  # the plane's distance from the origin, along its normal

    def forward(self, z: Tensor) -> Tensor:
        """[n, inputs] to [n, width]."""
        c, size = self.curvature, self.normal.square().sum(-1).clamp(min=TINY).sqrt()
        unit = self.normal / size.unsqueeze(-1)
        point = (torch.tanh(math.sqrt(c) * self.shift / 2) / math.sqrt(c)).unsqueeze(-1) * unit
        u, near, at = add(-point, z.unsqueeze(-2), c), 1 - c * point.square().sum(-1), 1 - c * z.square().sum(-1, keepdim=True)
        apart = near * at.clamp(min=torch.finfo(z.dtype).eps) + c * (point - z.unsqueeze(-2)).square().sum(-1)
        side = 2 * math.sqrt(c) * (u * unit).sum(-1) * apart / (near * at.clamp(min=torch.finfo(z.dtype).eps))  # 1 - c |u|^2 = near * at / apart
        return size / math.sqrt(c) * torch.asinh(side)


ENTRANCES: Registry[Callable[[int, float], Entrance]] = Registry("entrance from the Poincare ball")
ENTRANCES.add("log_map", LogMap)
ENTRANCES.add("gyroplanes", Gyroplanes)
