"""What every family is: numbers in, a distribution out; and the helpers they share."""

import math
from functools import singledispatch
from typing import Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, OneHotCategorical, TransformedDistribution
from torch.distributions.constraints import Constraint
from torch.nn import functional as F

from vaestro.data.schema import Shape
from vaestro.errors import UsageError

Sizes: TypeAlias = torch.Size | list[int] | tuple[int, ...]

FLOOR = 1e-4  # the smallest scale: below it one value could earn an unbounded density
_ONE = math.log(math.e - 1)  # softplus of this is 1


@runtime_checkable
class Family(Protocol):
    """Numbers to a distribution: `h` [*lead, params * C, ...] becomes one whose events are [C, ...], `event_dims` axes long."""

    @property
    def event_dims(self) -> int:
        """How many trailing axes one event has."""

    @property
    def params(self) -> int:
        """How many numbers a value needs; they are stacked on the channel axis, the first axis of the event."""

    def __call__(self, h: Tensor, /) -> Distribution:
        """The distribution whose parameters are `h`."""


@singledispatch
def outputs(family: Family, event: Shape) -> Shape:
    """The shape that a network must return for `family` to describe events shaped `event`: (params * C, ...). Open, for families of unlike values.

    Raises UsageError when the event has not as many axes as the family describes.
    """
    if len(event) != family.event_dims:
        raise UsageError(f"{family!r} describes events of {family.event_dims} axes, not one shaped {event}; give the family event_dims={len(event)}")
    return (family.params * event[0], *event[1:]) if event else (family.params,)


def single(h: Tensor) -> Tensor:
    """`h` in float32 at least: densities in half precision are noise."""
    return h if h.dtype == torch.float64 else h.float()


def stack(h: Tensor, params: int, event_dims: int) -> Tensor:
    """`h` [*lead, params * C, ...] as a view [*lead, C, ..., params], in float32 at least.

    Raises UsageError when the channels do not divide.
    """
    h, axis = _divisible(h, params, event_dims)
    apart: Tensor = h.unflatten(axis, (params, h.shape[axis] // params)).movedim(axis - 1, -1)
    return apart if event_dims else apart.squeeze(-2)


def _divisible(h: Tensor, params: int, event_dims: int) -> tuple[Tensor, int]:
    """`h` in float32 at least, and the axis of its channels."""
    axis = -max(event_dims, 1)
    if h.dim() < -axis or h.shape[axis] % params:
        raise UsageError(f"a family with {params} numbers a value cannot divide an input shaped {tuple(h.shape)}; its channels must be a multiple of {params}")
    return single(h), axis


def split(h: Tensor, params: int, event_dims: int) -> tuple[Tensor, ...]:
    """The `params` equal parts of `h` on its channel axis, each [*lead, C, ...], in float32 at least; raises UsageError when the channels do not divide."""
    if not event_dims:
        return stack(h, params, event_dims).unbind(-1)
    h, axis = _divisible(h, params, event_dims)
    return h.chunk(params, axis) if params > 1 else (h,)  # a whole is no copy on the way back


def positive(s: Tensor) -> Tensor:
    """A positive scale: 1e-4 + softplus(s + ln(e - 1)); 1 at s = 0, linear far above, never below the floor."""
    return F.softplus(s + _ONE) + FLOOR


def unpositive(scale: Tensor) -> Tensor:
    """What `positive` turns into `scale`: its inverse, in the precision of `scale`."""
    above = (scale - FLOOR).clamp(min=1e-12)
    return above + torch.log(-torch.expm1(-above)) - _ONE


def precise(t: Tensor) -> Tensor:
    """`t` in float64, where its device has it (Apple's does not)."""
    return t if t.device.type == "mps" else t.double()


def support_of(dist: Distribution) -> Constraint | None:
    """Where a distribution may lie, or None where it does not declare that."""
    try:
        support: Constraint | None = dist.support
    except NotImplementedError:
        return None
    return support


def is_discrete(dist: Distribution) -> bool:
    """Whether the values of a distribution are counted, not measured; one that does not declare its support counts as continuous."""
    support = support_of(dist)
    return support is not None and bool(support.is_discrete)


def counted_kind(dist: Categorical | OneHotCategorical | Bernoulli) -> type[Categorical] | type[OneHotCategorical] | type[Bernoulli]:
    """The law itself of one that may know more, such as how its draws are to be differentiated; it is made of `logits`."""
    return Bernoulli if isinstance(dist, Bernoulli) else OneHotCategorical if isinstance(dist, OneHotCategorical) else Categorical


@singledispatch
def is_bound(dist: Distribution) -> bool:
    """Whether `log_prob` is itself a noisy bound, below the true one on average: numbers that are made of it say so. Open: a diffusion registers True."""
    return False


@is_bound.register(Independent)
@is_bound.register(TransformedDistribution)
def _(dist: Independent | TransformedDistribution) -> bool:  # type: ignore[type-arg]
    return is_bound(dist.base_dist)


class Repr:
    """Shows a family as its call, so that errors can name it."""

    def __repr__(self) -> str:
        inside = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if not k.startswith("_"))
        return f"{type(self).__name__}({inside})"
