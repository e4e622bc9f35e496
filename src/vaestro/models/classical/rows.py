"""Models that are made of stored training rows: a kernel around each, or the rows themselves."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent

from vaestro import core
from vaestro.core import Batch, Model, Program, Site
from vaestro.data.schema import Field, levels
from vaestro.families.base import Sizes
from vaestro.families.point import PointDistribution
from vaestro.models.classical.common import Near, Shown, choose, log_total, scales, shown
from vaestro.seeds import places

SURE = 1e4  # the logit of a row that is certain


class Which(Categorical):
    """The number of a stored row: log p = logit - logsumexp(logits), nats; events are whole numbers []. Numbers of rows have no middle."""

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "Which":
        """The same distribution, repeated over `batch_shape`."""
        return Which(logits=self.logits.expand(*batch_shape, self.logits.shape[-1]), validate_args=False)


@core.centre.register
def _(dist: Which) -> Tensor:
    return dist.logits.argmax(-1).to(dist.logits.dtype)


Around: TypeAlias = Callable[["Stored", Tensor], Distribution]  # p(x | row), of rows [*lead, *shape]
Recall: TypeAlias = Callable[["Stored", Shown], Tensor]  # the logits of q(row | x), [b, N]


class Stored(Model):
    """A stored training row, each as likely as another, then x ~ `around` it; q(row | x) comes from `recall`.

    `count` rows are kept, of the training rows a random choice, as bytes where levels fit. The latent is the row's number.
    """

    rows: Tensor
    width: Tensor

    def __init__(self, field: Field, count: int, around: Around, recall: Recall) -> None:
        super().__init__()
        self.field, self.around, self.recall = field, around, recall
        kept = torch.zeros(count, *field.shape)
        self.register_buffer("rows", kept.to(torch.uint8) if 2 <= levels(field.kind) <= 256 else kept)
        self.register_buffer("width", torch.tensor(1.0))

    @property
    def values(self) -> Tensor:
        """The stored rows in unit values, [N, *shape]."""
        return self.rows.to(self.width.dtype) / (levels(self.field.kind) - 1) if self.rows.dtype == torch.uint8 else self.rows

    def prior(self) -> Distribution:
        """p(row)."""
        return Which(logits=torch.zeros(len(self.rows), dtype=self.width.dtype, device=self.width.device), validate_args=False)

    def program(self, batch: Batch | None = None) -> Program:
        """A row, then x."""
        seen = shown(batch)
        row = yield Site("row", self.prior(), None if seen is None else Which(logits=self.recall(self, seen), validate_args=False))
        yield Site("x", self.around(self, self.values[row]))

    @torch.no_grad()
    def keep(self, rows: Tensor) -> None:
        """Store a random choice of rows [n, *shape]; where there are too few, each is stored several times."""
        chosen = rows[places(len(self.rows), len(rows), rows.device)]
        self.rows.copy_((chosen * (levels(self.field.kind) - 1)).round() if self.rows.dtype == torch.uint8 else chosen)


def totals(model: Stored, rows: Tensor) -> Tensor:
    """The log of the kernel's total around each number of rows: on levels it depends on the level alone."""
    count = levels(model.field.kind)
    if not count:
        return log_total(rows, model.width, 0)
    unit = torch.linspace(0, 1, count, dtype=model.width.dtype, device=model.width.device)
    return log_total(unit, model.width, count)[(rows * (count - 1)).round().long().clamp(0, count - 1)]


def kernel(model: Stored, rows: Tensor) -> Distribution:
    """A kernel around each number of the row, all of one width."""
    return Independent(Near(rows, model.width, levels(model.field.kind), totals(model, rows)), len(model.field.shape), validate_args=False)


def itself(model: Stored, rows: Tensor) -> Distribution:
    """The row and nothing else: no density."""
    return PointDistribution(rows, len(model.field.shape))


def gaps(model: Stored, seen: Shown) -> Tensor:
    """Squared distances of each row to each stored one, over the numbers that were seen, [b, N], by products in float64, of unit values."""
    x, rows = seen.x.flatten(1).double(), model.values.flatten(1).double()
    mask = torch.ones_like(x) if seen.mask is None else seen.mask.flatten(1).double()
    return ((x * x * mask).sum(1, keepdim=True) - 2 * (x * mask) @ rows.T + mask @ rows.square().T).clamp(min=0)


def by_kernel(model: Stored, seen: Shown) -> Tensor:
    """The exact posterior: p(row | x) is in proportion to the kernel's value at what was seen of x."""
    total = totals(model, model.values).flatten(1).double()
    whole = total.sum(1) if seen.mask is None else seen.mask.flatten(1).double() @ total.T
    found = -gaps(model, seen) / (2 * model.width.double().square()) - whole
    return (found - found.amax(1, keepdim=True)).to(seen.x.dtype)


def to_nearest(model: Stored, seen: Shown) -> Tensor:
    """All mass on the nearest stored row."""
    found = gaps(model, seen)
    return torch.zeros_like(found, dtype=seen.x.dtype).scatter_(1, found.argmin(1, keepdim=True), SURE)


def fit_kernels(model: Stored, rows: Tensor, held: Tensor) -> None:
    """Store rows, and choose the width that held-out rows like best."""
    model.keep(rows)
    choose(model, model.width.fill_, scales(rows.flatten(1), 3e-3, 33), held)


def fit_copies(model: Stored, rows: Tensor, held: Tensor) -> None:
    """Store rows."""
    model.keep(rows)
