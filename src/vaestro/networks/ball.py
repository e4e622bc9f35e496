"""The Poincare ball, the points c |z|^2 < 1 under the metric (2 / (1 - c |z|^2))^2 |dz|^2, of curvature -c: plain functions of vectors on the last axis."""

import math

import torch
from torch import Tensor

TINY = 1e-30  # below it a squared length counts as 0, so that its root has a gradient


def length(v: Tensor) -> Tensor:
    """|v| [*lead, 1], with a gradient at 0."""
    return v.square().sum(-1, keepdim=True).clamp(min=TINY).sqrt()


def add(x: Tensor, y: Tensor, c: float) -> Tensor:
    """Moebius addition, the point at y from x (Ganea et al. 2018, section 2): ((1 + 2c x.y + c |y|^2) x + (1 - c |x|^2) y) / (1 + 2c x.y + c^2 |x|^2 |y|^2)."""
    xy, xx, yy = (x * y).sum(-1, keepdim=True), x.square().sum(-1, keepdim=True), y.square().sum(-1, keepdim=True)
    return ((1 + 2 * c * xy + c * yy) * x + (1 - c * xx) * y) / (1 + 2 * c * xy + c**2 * xx * yy)


def from_origin(v: Tensor, c: float) -> Tensor:
    """The point at distance |v| from the origin in the direction of v: tanh(sqrt(c) |v| / 2) v / (sqrt(c) |v|)."""
    n = math.sqrt(c) * length(v)
    return torch.tanh(n / 2) / n * v


def to_origin(z: Tensor, c: float) -> Tensor:
    """The inverse of `from_origin`: (2 / sqrt(c)) artanh(sqrt(c) |z|) z / |z|."""
    n = math.sqrt(c) * length(z)
    return 2 * torch.atanh(n.clamp(max=1 - torch.finfo(n.dtype).eps)) / n * z


def distance(x: Tensor, y: Tensor, c: float) -> Tensor:
    """The length [*lead, 1] of the geodesic: (2 / sqrt(c)) arsinh(sqrt(c) |x - y| / sqrt((1 - c |x|^2) (1 - c |y|^2)))."""
    room = (1 - c * x.square().sum(-1, keepdim=True)) * (1 - c * y.square().sum(-1, keepdim=True))
    return 2 / math.sqrt(c) * torch.asinh(math.sqrt(c) * length(x - y) / room.sqrt())


def step(mean: Tensor, v: Tensor, c: float) -> Tensor:
    """The exponential map at `mean` of v, a tangent vector at the origin that was transported there (Mathieu et al. 2019, section 2)."""
    return add(mean, from_origin(v, c), c)


def steps_back(mean: Tensor, z: Tensor, c: float) -> Tensor:
    """The inverse of `step`: v with |v| the distance from mean to z; accurate where both lie near the rim."""
    toward = add(-mean, z, c)
    return distance(mean, z, c) / length(toward) * toward


def inside(z: Tensor, c: float, far: float) -> Tensor:
    """z, brought to at most the distance far / sqrt(c) from the origin."""
    most = math.tanh(far / 2) / math.sqrt(c)
    return z * (most / length(z)).clamp(max=1.0)
