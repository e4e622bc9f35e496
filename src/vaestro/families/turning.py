"""How the angle to a mean direction turns with the concentration: the implicit gradient of von Mises-Fisher draws."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

NODES = 48
REACH = 12.0  # standard deviations beyond which a tail holds nothing


@cache
def _legendre() -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Nodes and weights of Gauss and Legendre on [0, 1]."""
    x, w = np.polynomial.legendre.leggauss(NODES)
    return tuple(((x + 1) / 2).tolist()), tuple((w / 2).tolist())


def slope(gap: Tensor, kappa: Tensor, resultant: Tensor, m: int) -> Tensor:
    """d gap / d kappa of a draw gap = 1 - cos f at a fixed value of its distribution function, [*lead]; float64.

    The angle f has the density h(f) = sin^(m-2) f exp(kappa cos f) / Z, and dE/dkappa of ln h is cos f - A, so d gap / d kappa = -sin f G / h(f) with
    G = int_0^f (cos - A) h = int_f^pi (A - cos) h (Figurnov et al. 2018, section 3). Of the two the one is taken whose integrand keeps its sign, so nothing
    cancels; relative to h(f), so nothing overflows.
    """
    nodes, weights = (torch.tensor(v, dtype=gap.dtype, device=gap.device) for v in _legendre())
    angle = 2 * torch.asin((gap / 2).clamp(0, 1).sqrt())
    inner = 1 - gap >= resultant
    reach = REACH / (m - 2 + kappa * resultant).clamp(min=1e-6).sqrt()
    end = torch.where(inner, (angle - reach).clamp(min=0), torch.minimum(angle + reach, torch.full_like(angle, torch.pi)))
    width = (end - angle).unsqueeze(-1)
    at = angle.unsqueeze(-1) + width * nodes
    fall = -2 * torch.sin(angle.unsqueeze(-1) + width * nodes / 2) * torch.sin(width * nodes / 2)  # cos(at) - cos(angle)
    log_ratio = kappa.unsqueeze(-1) * fall
    if m > 2:
        floor = torch.finfo(gap.dtype).tiny
        log_ratio = log_ratio + (m - 2) * (at.sin().clamp(min=floor).log() - angle.sin().clamp(min=floor).log().unsqueeze(-1))
    off = (1 - resultant).unsqueeze(-1) - 2 * torch.sin(at / 2).square()  # cos(at) - A
    mass = (weights * off.abs() * log_ratio.exp()).sum(-1) * width.squeeze(-1).abs()
    return -angle.sin() * mass
