"""Monotonic maps of one number, from zuko, which is imported at the first flow that is built."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor
from torch.distributions import Distribution, Transform

from vaestro.core import Shape
from vaestro.errors import UsageError
from vaestro.families.base import precise, single


def zuko() -> Any:
    """zuko, without what its import does to everybody: it turns torch's argument validation off. Raises UsageError where it is not installed."""
    validate, limits = Distribution._validate_args, Distribution.__dict__["arg_constraints"]
    try:
        import zuko as package
    except ModuleNotFoundError:
        raise UsageError("flows need zuko, which is not installed; install it with: pip install 'vaestro[flows]'") from None
    finally:
        Distribution._validate_args, Distribution.arg_constraints = validate, limits  # type: ignore[method-assign]
    return package


class Univariate(NamedTuple):
    """A monotonic map of one number, built from tensors of `shapes`; with all of them at 0 it is the identity."""

    build: Callable[..., Transform]
    shapes: tuple[Shape, ...]
    cast: Callable[[Tensor], Tensor] = single  # the precision that it is computed in

    @property
    def numbers(self) -> int:
        """How many numbers it needs."""
        return sum(math.prod(s) for s in self.shapes)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """u [..., D] and ln |du/dx| [...], summed over D, for x [..., D] and the map's numbers `h` [..., D, numbers]."""
        u, ladj = self._at(h).call_and_ladj(self.cast(x))  # type: ignore[attr-defined]
        return u.to(single(x).dtype), ladj.sum(-1).to(single(x).dtype)

    def inverse(self, u: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x [..., D] and ln |du/dx| [...] there, summed over D."""
        t, exact = self._at(h), self.cast(u)
        x = t.inv(exact)
        return x.to(single(u).dtype), t.log_abs_det_jacobian(x, exact).sum(-1).to(single(u).dtype)

    def _at(self, h: Tensor) -> Transform:
        groups = self.cast(h).split([math.prod(s) for s in self.shapes], -1)
        return self.build(*(g.reshape(*h.shape[:-1], *s) for g, s in zip(groups, self.shapes, strict=True)))


def affine() -> Univariate:
    """u = exp(a) x + b, with a bent softly into (-3, 3), for larger steps make training unstable (Dinh et al. 2017, Real NVP, eq. 7).

    Raises UsageError without zuko.
    """
    return Univariate(partial(zuko().transforms.MonotonicAffineTransform, slope=math.exp(-3)), ((), ()))


def spline(bins: int = 8) -> Univariate:
    """A monotonic rational-quadratic spline of `bins` pieces on [-5, 5], the identity outside (Durkan et al. 2019, Neural Spline Flows, eq. 4 to 8).

    It is computed in float64, for in float32 the inverse of a steep spline is not a number. Raises UsageError for fewer than two pieces, and without zuko.
    """
    if bins < 2:
        raise UsageError(f"a spline cannot have {bins} bins; give two or more")
    return Univariate(zuko().transforms.MonotonicRQSTransform, ((bins,), (bins,), (bins - 1,)), precise)
