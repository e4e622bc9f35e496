"""What classical models share: the mass or density of a Gaussian on each kind of data, what a batch shows, and a least scale that held-out rows choose."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, constraints

from vaestro.core import Batch, Model, Seen, content
from vaestro.data.schema import Kind, levels
from vaestro.families.base import FLOOR, Sizes
from vaestro.families.binned import BinnedDistribution

LOOK = 500  # held-out rows that a choice is made on
AT_ONCE = 4_000_000  # numbers that a sum over levels holds at a time


def gaussian(kind: Kind, loc: Tensor, scale: Tensor, dims: int) -> Distribution:
    """N(loc, scale^2) over the last `dims` axes: a density on real numbers, the mass of each level's bin on discrete data; nats."""
    base: Distribution = Normal(loc, scale.expand(loc.shape), validate_args=False)
    return Independent(BinnedDistribution(base, levels(kind)) if levels(kind) else base, dims, validate_args=False)


def log_total(loc: Tensor, width: Tensor, count: int) -> Tensor:
    """ln of the sum over the levels u (0 to 1 in `count` steps), or of the integral where `count` is 0, of exp(-(u - loc)^2 / 2 width^2), shaped as `loc`."""
    if not count:
        return (width.log() + math.log(2 * math.pi) / 2).expand(loc.shape)
    pairs = zip(loc.reshape(-1).split(max(1, AT_ONCE // count)), width.expand(loc.shape).reshape(-1).split(max(1, AT_ONCE // count)), strict=True)
    return torch.cat([Near(a, b, count, a).exponents().logsumexp(-1) for a, b in pairs]).reshape(loc.shape)


class Near(Distribution):
    """A number near `loc`: p(v) = exp(-(v - loc)^2 / 2 width^2) / total, in unit values and nats; a Gaussian on real numbers (`count` 0), its like on levels.

    The total over all levels is given by its log, `log_total` [as loc], so the masses sum to one. On two levels, with `loc` one of them, it is the kernel of
    Aitchison & Aitken (1976): 1 - e for the stored value, e for the other.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real

    def __init__(self, loc: Tensor, width: Tensor, count: int, log_total: Tensor) -> None:
        self.loc, self.width, self.count, self.log_total = loc, width, count, log_total
        super().__init__(loc.shape, validate_args=False)

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "Near":
        """The same distribution, repeated over `batch_shape`."""
        shape = torch.Size(batch_shape)
        return Near(self.loc.expand(shape), self.width.expand(shape), self.count, self.log_total.expand(shape))

    @property
    def unit(self) -> Tensor:
        """The levels as unit values."""
        return torch.linspace(0, 1, self.count, dtype=self.loc.dtype, device=self.loc.device)

    def exponents(self) -> Tensor:
        """-(u - loc)^2 / 2 width^2 of every level u: [*shape, levels]."""
        return -((self.unit - self.loc.unsqueeze(-1)) / self.width.expand(self.loc.shape).unsqueeze(-1)).square() / 2

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density, or log mass of a level."""
        return -((value - self.loc) / self.width).square() / 2 - self.log_total

    @torch.no_grad()
    def sample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Values; no gradient."""
        shape = self._extended_shape(torch.Size(sample_shape))
        loc, width = self.loc.expand(shape), self.width.expand(shape)
        if not self.count:
            return torch.normal(loc, width)

        def drawn(part: Near) -> Tensor:
            below = part.exponents().softmax(-1).cumsum(-1)[:, :-1]
            return part.unit[(torch.rand(len(below), 1, dtype=below.dtype, device=below.device) > below).sum(1)]

        return self._by_parts(loc, width, drawn)

    @property
    def mean(self) -> Tensor:
        """The expectation in unit values."""
        return self._by_parts(self.loc, self.width.expand(self.loc.shape), lambda part: part.exponents().softmax(-1) @ part.unit) if self.count else self.loc

    def _by_parts(self, loc: Tensor, width: Tensor, f: "Callable[[Near], Tensor]") -> Tensor:
        size = max(1, AT_ONCE // self.count)
        pairs = zip(loc.reshape(-1).split(size), width.reshape(-1).split(size), strict=True)
        return torch.cat([f(Near(a, b, self.count, a)) for a, b in pairs]).reshape(loc.shape)


class Shown(NamedTuple):
    """What a batch shows of `x`: its values [b, *shape], 0 where they were not seen, and 1 where they were, [b, *shape], or nothing if all were."""

    x: Tensor
    mask: Tensor | None


def shown(batch: Batch | None) -> Shown | None:
    """What a batch shows of `x`; nothing where it has no `x`."""
    if batch is None or "x" not in batch:
        return None
    value = batch["x"]
    x = content(value)
    return Shown(x, value.mask.reshape(*value.mask.shape, *[1] * (x.dim() - value.mask.dim())).expand(x.shape) if isinstance(value, Seen) else None)


def spread(rows: Tensor) -> float:
    """The standard deviation of all numbers of rows about their column's mean; 1 where nothing varies."""
    found = float((rows - rows.mean(0)).double().square().mean().sqrt())
    return found if found > 0 else 1.0


def scales(rows: Tensor, least: float = 1e-4, number: int = 17) -> list[float]:
    """Scales from `least` times the spread of rows up to the spread, none below the least that a family takes."""
    return [max(w * spread(rows), FLOOR) for w in torch.logspace(math.log10(least), 0, number, dtype=torch.float64).tolist()]


@torch.no_grad()
def choose(model: Model, put: Callable[[float], object], tries: Sequence[float], held: Tensor) -> float:
    """Put that of `tries` into the model under which held-out rows have the highest bound, the first of equals, and return it.

    The bound is log p(x, z) - log q(z | x) of one draw, averaged over at most 500 rows.
    """
    some, best = held[:LOOK], (-math.inf, tries[0])
    for value in tries if len(some) else ():
        put(value)
        score = float(torch.cat([model({"x": part}).log_w[0] for part in some.split(100)]).double().mean())
        if score > best[0]:
            best = (score, value)
    put(best[1])
    return best[1]
