"""The normal's masses in logs: fast, and exact however far in the tail."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

_ROOT_HALF = math.sqrt(0.5)
_ROOT_HALF_PI = math.sqrt(math.pi / 2)
_LOG_ROOT_TWO_PI = math.log(2 * math.pi) / 2


def _far(dtype: torch.dtype) -> float:
    """Where erfc gives way to its asymptotic series: both are exact to rounding there, and erfc does not underflow before it."""
    return -30.0 if dtype == torch.float64 else -10.0


def _mills(z: Tensor) -> Tensor:
    """Phi(z) / phi(z) for z far below 0, by four terms of its asymptotic series (Abramowitz & Stegun 1964, 26.2.12)."""
    v = z.reciprocal().square()
    return (1 - v * (1 - 3 * v * (1 - 5 * v * (1 - 7 * v)))) / -z


class _LogNdtr(Function):
    """log Phi(z) of vectorised operations only: torch's own is ten times slower on a CPU."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor) -> Tensor:
        edge = _far(z.dtype)
        near = torch.log(torch.erfc(z.clamp(min=edge) * -_ROOT_HALF) / 2)
        far = z.clamp(max=edge)
        return torch.where(z > edge, near, torch.log(_mills(far)) - far * far / 2 - _LOG_ROOT_TWO_PI)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        edge = _far(z.dtype)
        near = z.clamp(min=edge)
        hazard = torch.exp(near.square() / -2) / (torch.erfc(near * -_ROOT_HALF) * _ROOT_HALF_PI)
        return grad * torch.where(z > edge, hazard, _mills(z.clamp(max=edge)).reciprocal())


def log_ndtr(z: Tensor) -> Tensor:
    """log Phi(z), the log of the standard normal's cumulative function, in nats; finite, with a finite gradient, for every finite z."""
    result: Tensor = _LogNdtr.apply(z)  # type: ignore[no-untyped-call]
    return result


class _LogMass(Function):
    """log (Phi(b) - Phi(a)) for a < b, a + b <= 0 and width = b - a, which is given since it may be lost in the rounding of a and b.

    All is relative to phi(r), r = min(b, 0): M = (Phi(b) - Phi(a)) / phi(r) neither under- nor overflows. Its derivatives are phi(b) / mass and
    -phi(a) / mass. Float64, because the two terms of M are nearly equal in narrow bins.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor, width: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        edge = _far(b.dtype)
        peak = b.clamp(max=0)
        half = peak.square() / 2
        fall = torch.where(b > 0, a.square() / -2, width * (a + b) / 2)  # log phi(a) / phi(r)
        near = (torch.erfc(b * -_ROOT_HALF) - torch.erfc(a * -_ROOT_HALF)) * torch.exp(half.clamp(max=edge * edge / 2)) * _ROOT_HALF_PI
        far = _mills(b.clamp(max=edge)) - _mills(a.clamp(max=edge)) * fall.exp()
        narrow = width * b.abs().clamp(min=1) < math.sqrt(torch.finfo(b.dtype).eps)  # the density is constant across it, and the difference below rounding
        mass = torch.where(narrow, width, torch.where(b > edge, near, far))
        log_mass = torch.log(mass) - half - _LOG_ROOT_TWO_PI
        return log_mass, fall.exp() / -mass, torch.exp(half - b.square() / 2) / mass

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, None]:
        by_a, by_b = ctx.saved_tensors
        return grad * by_a, grad * by_b, None


def log_mass(low: Tensor, high: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """log P(low < X <= high) of X ~ N(loc, scale^2), in nats; finite ends only. Both are mirrored into the left tail, where nothing cancels."""
    a, b = (low - loc) / scale, (high - loc) / scale
    right = a + b > 0
    result: Tensor = _LogMass.apply(torch.where(right, -b, a), torch.where(right, -a, b), (high - low) / scale)[0]  # type: ignore[no-untyped-call]
    return result
