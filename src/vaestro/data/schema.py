"""What the columns of a data set are: kinds, shapes and row counts, never rows. Needs no torch."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from vaestro.errors import UsageError, did_you_mean

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Binary:
    """Values 0 and 1."""

    levels = 2


@dataclass(frozen=True)
class Integer:
    """Whole numbers 0 .. levels - 1; models see value / (levels - 1), in [0, 1]."""

    levels: int


@dataclass(frozen=True)
class Count:
    """Whole numbers 0, 1, 2, ... without a top, such as how often something was seen; models see the number itself."""


@dataclass(frozen=True)
class Real:
    """Real numbers; `step` is the precision they were recorded with, if it is known."""

    step: float | None = None


@dataclass(frozen=True)
class Category:
    """One of `n` classes, as an index 0 .. n - 1; `names` label them."""

    n: int
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """A column of real numbers v, held as (v - loc) / scale; with a `step` its values are multiples of it, and have masses instead of densities."""

    name: str
    loc: float
    scale: float
    step: float | None = None
    dtype: str = "Float64"  # as polars names it, which is how the column is written again


@dataclass(frozen=True)
class Positive(Measured):
    """A column of numbers v > 0 of very different sizes, held as (ln v - loc) / scale."""


@dataclass(frozen=True)
class Dated(Measured):
    """A column of dates or times, v seconds since 1970, held as (v - loc) / scale."""


@dataclass(frozen=True)
class Counted:
    """A column of whole numbers v = 0, 1, 2, ..., held as they are; `loc` and `scale` are the mean and the deviation of ln(1 + v), and `top` is the largest v.

    All of training rows. Data that were prepared before `top` was kept have none.
    """

    name: str
    loc: float
    scale: float
    dtype: str = "Int64"
    top: float | None = None


@dataclass(frozen=True)
class Ordered:
    """A column of two levels or more in their order, held as an index."""

    name: str
    levels: tuple[str, ...]
    dtype: str = "String"


@dataclass(frozen=True)
class Named:
    """A column of two categories or more, held as an index; of an open one the last level, `other`, stands for every value that is not listed."""

    name: str
    levels: tuple[str, ...]
    dtype: str = "String"
    other: bool = False


@dataclass(frozen=True)
class Aside:
    """A column of a table that no model sees: of one value, which is written again, or an id, skipped or a label, which is left out."""

    name: str
    reason: str
    value: str | None = None
    dtype: str = "String"


Column = Measured | Positive | Dated | Counted | Ordered | Named
COLUMNS: dict[str, type[Any]] = {c.__name__: c for c in (Measured, Positive, Dated, Counted, Ordered, Named, Aside)}


@dataclass(frozen=True)
class Table:
    """Rows of a table, packed into one array [rows, columns]; NaN where an entry was not seen.

    Every column keeps how its values are held, so rows come back in their own units; `aside` are the columns that no model sees.
    """

    columns: tuple[Column, ...]
    aside: tuple[Aside, ...] = ()

    def __str__(self) -> str:
        return f"Table of {len(self.columns)} columns" if self.columns else "Table"

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        known = [c.name for c in self.columns]
        said = next((a.reason for a in self.aside if a.name == name), None)
        why = f"; column {name!r} of the table is {said}, and no model sees it" if said else did_you_mean(name, known)
        raise UsageError(f"the table has no column {name!r}{why}")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns that models see, in their order."""
        return tuple(c.name for c in self.columns)


Kind = Binary | Integer | Count | Real | Category | Table
KINDS: dict[str, type[Kind]] = {k.__name__: k for k in (Binary, Integer, Count, Real, Category, Table)}


def levels(kind: Kind) -> int:
    """How many values a number of this kind can take; 0 where they are not counted."""
    return kind.levels if isinstance(kind, Binary | Integer) else 0


@dataclass(frozen=True)
class Field:
    """One named column of a data set: what its values are and how one row is shaped."""

    name: str
    kind: Kind
    shape: Shape = ()

    @property
    def size(self) -> int:
        """Numbers in one row."""
        return math.prod(self.shape)

    def bits_per_dim(self, nats: float) -> float:
        """-log p per row, in nats, as bits per dimension of the data: nats / (ln 2 * size).

        A density on Real(step) data becomes the mass of a cell of that width: -log2(step) bits are added per dimension.
        Raises UsageError for Real data without a step, whose density has no bits, and for tables.
        """
        if isinstance(self.kind, Table):
            raise UsageError(f"field {self.name!r} is a table, whose columns have no dimension in common; read its nats a row, and those of each column")
        bits = nats / (math.log(2) * self.size)
        if isinstance(self.kind, Real):
            if self.kind.step is None:
                raise UsageError(f"field {self.name!r} is Real without a step, so its density has no bits per dimension; declare Real(step=...)")
            return bits - math.log2(self.kind.step)
        return bits


@dataclass(frozen=True)
class Schema:
    """The fields of a data set, its name and version, and how many rows each split has."""

    name: str
    fields: tuple[Field, ...]
    rows: Mapping[str, int] = field(default_factory=dict)
    version: str = "1"

    def __getitem__(self, name: str) -> Field:
        for f in self.fields:
            if f.name == name:
                return f
        raise UsageError(f"data {self.name!r} has no field {name!r}{did_you_mean(name, [f.name for f in self.fields])}")

    def __contains__(self, name: object) -> bool:
        return any(f.name == name for f in self.fields)

    def __iter__(self) -> Iterator[Field]:
        return iter(self.fields)

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` turns back into an equal schema."""
        fields = [{"name": f.name, "kind": _written(f.kind), "shape": list(f.shape)} for f in self.fields]
        return {"name": self.name, "version": self.version, "fields": fields, "rows": dict(self.rows)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Schema":
        """The schema that `to_json` wrote; raises UsageError on a kind that this version does not know."""
        return cls(data["name"], tuple(_field(f) for f in data["fields"]), dict(data["rows"]), data["version"])


def _written(part: Kind | Column | Aside) -> dict[str, Any]:
    if isinstance(part, Table):
        return {"is": "Table", "columns": [_written(c) for c in part.columns], "aside": [_written(a) for a in part.aside]}
    told = {"is": type(part).__name__} | asdict(part)
    if isinstance(part, Counted) and part.top is None:
        del told["top"]  # so that data from before it was kept have the hash that they had
    return told


def _field(data: Mapping[str, Any]) -> Field:
    return Field(data["name"], _read(data["kind"], KINDS), tuple(data["shape"]))


def _read(data: Mapping[str, Any], known: Mapping[str, type[Any]]) -> Any:
    part = dict(data)
    name = part.pop("is")
    if name not in known:
        raise UsageError(f"the schema has a field of kind {name!r}{did_you_mean(name, known)}")
    if known[name] is Table:
        return Table(*(tuple(_read(c, COLUMNS) for c in part[k]) for k in ("columns", "aside")))
    return known[name](**{k: tuple(v) if isinstance(v, list) else v for k, v in part.items()})
