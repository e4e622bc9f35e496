"""A code as a random variable: the point mass of a quantiser, and how often each code is used."""

from functools import singledispatch
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, OneHotCategorical, constraints, register_kl

from vaestro import core
from vaestro.core import Trace
from vaestro.data.schema import Shape
from vaestro.families.base import Family, Sizes


@runtime_checkable
class Quantiser(Family, Protocol):
    """A family whose distribution is a point mass on a code: `h` [*lead, D, *grid] to integers [*lead, *shape], and these back to vectors."""

    @property
    def codes(self) -> int:
        """How many codes there are to choose from at each place."""

    @property
    def depth(self) -> int:
        """How many codes a place has, one a book."""

    @property
    def shape(self) -> Shape:
        """The shape of one row's codes: the grid, and the books of a residual quantiser as the last axis."""

    def vectors(self, index: Tensor) -> Tensor:
        """The vectors [*lead, D, *grid] that the codes [*lead, *shape] stand for, without a gradient."""

    def start(self, h: Tensor) -> None:
        """Start from the vectors `h` [n, D, *grid] that some training rows are encoded to."""


class Code(Distribution):
    """All mass on one code a place: q(index) = 1, log q = 0 there and -inf elsewhere, in nats; a proper mass function on integers.

    `index` [*lead, *shape]; `h` [*lead, D, *grid] is what was quantised, `vectors` what it became; `loss` [*lead] or 0.0 is what training adds to the
    bound (see `core.penalty`); `by` is the quantiser, and `points` what each of its books was shown, [m, D].
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, index: Tensor, h: Tensor, by: Quantiser, loss: Tensor | float = 0.0, points: tuple[Tensor, ...] = ()) -> None:
        self.index, self.h, self.by, self.loss, self.points = index, h, by, loss, points
        cut = index.dim() - len(by.shape)
        super().__init__(index.shape[:cut], index.shape[cut:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """Whole numbers from 0 to codes - 1."""
        return constraints.independent(constraints.integer_interval(0, self.by.codes - 1), len(self.event_shape))

    @property
    def vectors(self) -> Tensor:
        """The vectors that the codes stand for, [*lead, D, *grid]."""
        return self.by.vectors(self.index)

    @property
    def mode(self) -> Tensor:
        """The codes."""
        return self.index

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "Code":
        """The same codes, repeated over `batch_shape`."""
        cut = len(self.batch_shape)
        index, h = (t.expand(*batch_shape, *t.shape[cut:]) for t in (self.index, self.h))
        loss = self.loss.expand(torch.Size(batch_shape)) if isinstance(self.loss, Tensor) else self.loss
        return Code(index, h, self.by, loss, self.points)

    def sample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """The codes, once for each sample."""
        return self.index.expand(self._extended_shape(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """0 at the codes, -inf elsewhere, in nats."""
        same = (value == self.index).flatten(-len(self.event_shape)).all(-1) if self.event_shape else value == self.index
        return torch.where(same, 0.0, -torch.inf).to(self.h.dtype)

    def entropy(self) -> Tensor:
        """Zero."""
        return self.h.new_zeros(self.batch_shape)


@register_kl(Code, Distribution)  # type: ignore[untyped-decorator]
def _kl(q: Code, p: Distribution) -> Tensor:
    """KL(q || p) = -log p(index): exactly n log K under the uniform prior."""
    cost: Tensor = -p.log_prob(q.index)
    return cost


@core.penalty.register
def _(dist: Code) -> Tensor | float:
    return dist.loss


@core.centre.register
def _(dist: Code) -> Tensor:
    return dist.vectors


def straight_through(e: Tensor, h: Tensor) -> Tensor:
    """`e`, bit for bit, with the gradient of `h` (Bengio et al. 2013; van den Oord et al. 2017, section 3.2). The usual h + (e - h) is not bit-equal to e."""
    return e + (h - h.detach())


class Usage(NamedTuple):
    """How evenly codes are used."""

    share: Tensor  # of all codes, those that were used
    perplexity: Tensor  # exp of the entropy of the codes' frequencies, the mean of all books: 1 for one code, K for K even ones

    @classmethod
    def of(cls, counts: Tensor) -> "Usage":
        """From how often each code was used, [books, K]; nothing here waits for the device."""
        f = counts / counts.sum(-1, keepdim=True).clamp(min=1e-30)
        return cls((counts > 0.5).double().mean(), torch.special.entr(f).sum(-1).exp().mean())


@singledispatch
def usage(dist: Distribution) -> Tensor | None:
    """How often each code is used by the rows of a posterior, [books, K], expected counts for one that draws; None for what is no code. Open."""
    return None


@usage.register
def _(dist: Independent) -> Tensor | None:  # type: ignore[type-arg]
    return usage(dist.base_dist)


@usage.register
def _(dist: Code) -> Tensor:
    by_book = dist.index.reshape(-1, dist.by.depth).T
    counts = dist.h.new_zeros(dist.by.depth, dist.by.codes)
    return counts.scatter_add_(1, by_book, torch.ones_like(by_book, dtype=counts.dtype))


@singledispatch
def numbered(dist: Distribution, value: Tensor) -> Tensor:
    """The value or the centre [rows, ...] of a posterior as one number a latent, [rows, latents]: codes as their numbers, for vectors have no scale. Open."""
    return value.reshape(len(value), -1)


@numbered.register
def _(dist: Independent, value: Tensor) -> Tensor:  # type: ignore[type-arg]
    return numbered(dist.base_dist, value)


@numbered.register
def _(dist: OneHotCategorical, value: Tensor) -> Tensor:
    shares = value.reshape(len(value), -1, dist.event_shape[0])
    return (shares * torch.arange(dist.event_shape[0], device=value.device)).sum(-1)


@numbered.register
def _(dist: Code, value: Tensor) -> Tensor:
    return dist.index.reshape(len(value), -1).to(dist.h)


def used_in(trace: Trace) -> Tensor | None:
    """`usage` of all code sites of a trace side by side, [books, K]; None where there is none, or where they have different numbers of codes."""
    found = [u for d in trace.latents.values() if d.posterior is not None and (u := usage(d.posterior)) is not None]
    return torch.cat(found) if found and len({u.shape[1] for u in found}) == 1 else None
