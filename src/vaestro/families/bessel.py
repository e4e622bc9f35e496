"""The modified Bessel function in the form that directions need: its log without powers and scale, and the ratio of neighbouring orders."""

import math
from fractions import Fraction
from functools import cache

import torch
from torch import Tensor

ORDER = 24  # from which Debye's expansion to TERMS terms is exact to rounding, whatever the argument
TERMS = 8


@cache
def _debye() -> tuple[tuple[float, ...], ...]:
    """The polynomials u_1 to u_TERMS of Debye's expansion, u_k(t) = t^k sum_i c_i t^(2i), as their c (Abramowitz & Stegun 1964, 9.3.9 and 9.3.10)."""
    u, found = {0: Fraction(1)}, []
    for k in range(1, TERMS + 1):
        above: dict[int, Fraction] = {}
        for j, a in u.items():
            above[j + 1] = above.get(j + 1, Fraction(0)) + a * (Fraction(j, 2) + Fraction(1, 8 * (j + 1)))
            above[j + 3] = above.get(j + 3, Fraction(0)) - a * (Fraction(j, 2) + Fraction(5, 8 * (j + 3)))
        u = above
        found.append(tuple(float(u[k + 2 * i]) for i in range(k + 1)))
    return tuple(found)


def _correction(order: float, root: Tensor) -> Tensor:
    """log sum_k u_k(t) / order^k with t = order / root and root = sqrt(order^2 + x^2)."""
    p, t = 1 / root, (order / root).square()
    total, power = torch.zeros_like(root), torch.ones_like(root)
    for c in _debye():
        power, inner = power * p, torch.zeros_like(root)
        for a in reversed(c):
            inner = inner * t + a
        total = total + power * inner
    return torch.log1p(total)


def _start(order: float, x: Tensor) -> tuple[Tensor, Tensor]:
    """log (I_v(x) (x / 2)^-v) and 2 I_(v+1)(x) / (x I_v(x)) for a high order v, by Debye's expansion; the ratio by differences in which nothing cancels."""
    low, high = (order**2 + x.square()).sqrt(), ((order + 1) ** 2 + x.square()).sqrt()
    gap = (2 * order + 1) / (low + high)  # high - low
    here, there = _correction(order, low), _correction(order + 1, high)
    log_i = low - order * torch.log((order + low) / 2) - (2 * math.pi * low).log() / 2 + here
    log_ratio = gap - torch.log((order + 1 + high) / 2) - order * torch.log1p((1 + gap) / (order + low)) - torch.log1p(gap / low) / 2 + there - here
    return log_i, log_ratio.exp()


def log_bessel(order: float, x: Tensor) -> tuple[Tensor, Tensor]:
    """log (I_v(x) Gamma(v + 1) (2 / x)^v), which is 0 at x = 0, and A(x) = I_(v+1)(x) / I_v(x), its derivative; x >= 0 in float64, any v >= 0.

    Debye's expansion at an order of 24 or more, then the recurrence r_v = 1 / (2 (v + 1) / x + r_(v+1)) downwards, where errors shrink (Amos 1974). Both
    results differentiate, and neither overflows, for x from 0 to 1e8 at least.
    """
    steps = max(0, math.ceil(ORDER - order))
    log_i, ratio = _start(order + steps, x)
    quarter = x.square() / 4
    for j in range(steps - 1, -1, -1):
        ratio = 1 / (order + j + 1 + quarter * ratio)  # 2 I_(v+j+1) / (x I_(v+j)), which is smooth at 0
        log_i = log_i - ratio.log()
    return log_i + math.lgamma(order + 1), x * ratio / 2
