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


Kind = Binary | Integer | Count | Real | Category
KINDS: dict[str, type[Kind]] = {k.__name__: k for k in (Binary, Integer, Count, Real, Category)}


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
        Raises UsageError for Real data without a step, whose density has no bits.
        """
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
        fields = [{"name": f.name, "kind": {"is": type(f.kind).__name__} | asdict(f.kind), "shape": list(f.shape)} for f in self.fields]
        return {"name": self.name, "version": self.version, "fields": fields, "rows": dict(self.rows)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Schema":
        """The schema that `to_json` wrote; raises UsageError on a kind that this version does not know."""
        return cls(data["name"], tuple(_field(f) for f in data["fields"]), dict(data["rows"]), data["version"])


def _field(data: Mapping[str, Any]) -> Field:
    kind = dict(data["kind"])
    name = kind.pop("is")
    if name not in KINDS:
        raise UsageError(f"the schema has a field of kind {name!r}{did_you_mean(name, KINDS)}")
    kind = {k: tuple(v) if isinstance(v, list) else v for k, v in kind.items()}
    return Field(data["name"], KINDS[name](**kind), tuple(data["shape"]))
