"""One distribution for a row of mixed columns: those of one family are scored together, and what was not seen is integrated out."""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from vaestro import core
from vaestro.data.schema import Shape, Table
from vaestro.families.base import Sizes, outputs, single
from vaestro.families.columns import Group, Law, groups_of, normal


class Fields(nn.Module):
    """Rows of a table: the columns are independent given `h` [..., numbers], each of the family of its kind; `law` is that of measured columns.

    Real and dated columns: `law`, N(loc, scale^2) unless told otherwise; positive ones: its exponential; counts: negative binomial; ordered: discretised
    logistic; categories: free masses. Values are held as the schema's columns say, NaN where an entry was not seen. log p is in nats in the columns' own
    units: of seen entries alone, the others being integrated out (Nazabal et al. 2020, HI-VAE, section 2; Mattei & Frellsen 2019, MIWAE, eq. 4).
    """

    event_dims = 1
    back: Tensor

    def __init__(self, table: Table, law: Law = normal) -> None:
        super().__init__()
        self.table = table
        self.groups = nn.ModuleList(groups_of(table.columns, law))
        places = torch.cat([g.at for g in self.groups])  # type: ignore[misc]
        self.register_buffer("back", places.argsort(), persistent=False)

    @property
    def params(self) -> int:
        """How many numbers describe a row."""
        return sum(self.sizes)

    @property
    def sizes(self) -> list[int]:
        """How many numbers describe each group."""
        return [g.numbers for g in self.groups]  # type: ignore[misc]

    def forward(self, h: Tensor) -> Distribution:
        """The distribution of rows that `h` [..., numbers] describes."""
        return FieldsDistribution(self, single(h))

    def __repr__(self) -> str:
        return f"Fields({len(self.table.columns)} columns, {self.params} numbers)"


@outputs.register
def _(family: Fields, event: Shape) -> Shape:
    return (family.params,)


class FieldsDistribution(Distribution):
    """Rows of a table; NaN in a value says that the entry was not seen: it is integrated out, before anything is computed of it."""

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, family: Fields, h: Tensor) -> None:
        self.family, self.h = family, h
        super().__init__(h.shape[:-1], torch.Size((len(family.table.columns),)), validate_args=False)

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "FieldsDistribution":
        """The same distribution, repeated over `batch_shape`."""
        return FieldsDistribution(self.family, self.h.expand(*batch_shape, self.h.shape[-1]))

    def _parts(self) -> list[tuple[Group, Tensor]]:
        return list(zip(self.family.groups, self.h.split(self.family.sizes, -1), strict=True))  # type: ignore[arg-type]

    def _joined(self, parts: list[Tensor]) -> Tensor:
        return torch.cat(parts, -1)[..., self.family.back]

    def log_prob_by_column(self, value: Tensor) -> Tensor:
        """log p of each entry, [..., columns], in nats; 0 where it was not seen."""
        seen = ~value.isnan()
        legal = torch.where(seen, value, 0.0)  # before anything is computed: masking afterwards gives NaN gradients
        each = self._joined([g.each(h, legal[..., g.at]) for g, h in self._parts()])
        return torch.where(seen, each, 0.0)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p of the entries that were seen, in nats."""
        return self.log_prob_by_column(value).sum(-1)

    def sample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Whole rows, as they are held."""
        with torch.no_grad():
            return self._joined([g.draw(h, torch.Size(sample_shape)) for g, h in self._parts()])

    @property
    def mean(self) -> Tensor:
        """A middle of every column, as it is held: means of real columns and counts, medians of positive ones, the most probable category."""
        return self._joined([g.centre(h) for g, h in self._parts()])


@core.partial_log_prob.register
def _(dist: FieldsDistribution, value: Tensor, mask: Tensor) -> Tensor:
    return dist.log_prob(torch.where(mask, value, math.nan))
