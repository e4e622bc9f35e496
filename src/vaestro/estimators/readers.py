"""How an estimator reads X: numbers are standardised, frames of mixed columns become rows of a table; and how rows are written again."""

import math
import numbers
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vaestro.data.kinds import Array
from vaestro.data.prepare.frames import is_frame
from vaestro.data.prepare.tables import from_table, rows_of_table, unpacked
from vaestro.data.schema import Field, Measured, Real, Table
from vaestro.errors import UsageError, VaestroError

Held: TypeAlias = NDArray[np.float32]


class Refused(UsageError, ValueError):
    """What an estimator cannot do with its data or parameters: a UsageError that scikit-learn, too, knows for what it is."""


@contextmanager
def refusing() -> Iterator[None]:
    """What is asked for inside raises Refused where it raises UsageError."""
    try:
        yield
    except UsageError as error:
        raise Refused(str(error)) from None


def whole(name: str, value: object) -> int:
    """A parameter that is a whole number from 1 upwards; raises Refused, with the name, for another."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or int(value) < 1:
        raise Refused(f"{name} is {value!r}, and must be at least 1 and whole; give a whole number from 1 upwards")
    return int(value)


def share(name: str, value: object, least: float = math.ulp(0.0)) -> float:
    """A parameter that is a share, from `least` to below 1; raises Refused, with the name, for another."""
    if not isinstance(value, numbers.Real) or not least <= float(value) < 1:
        raise Refused(f"{name} is {value!r}, and is a share of the rows: give a number {'from 0' if least == 0 else 'above 0'} to below 1")
    return float(value)


def is_mixed(X: object, columns: Mapping[str, str] | None) -> bool:
    """Whether X is a frame to be read column by column: one whose columns are declared, or of which one at least holds no numbers."""
    with refusing():
        if not is_frame(X):
            return False
    import narwhals

    native: Any = X
    return bool(columns) or not all(kind.is_numeric() for kind in narwhals.from_native(native, eager_only=True).schema.values())


@dataclass(frozen=True)
class Numbers:
    """Columns of numbers, held as (x - loc) / scale in float32: loc is the mean, scale the standard deviation, 1 where a column is constant."""

    loc: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def of(cls, X: Array) -> "Numbers":
        """Learn centres and scales from rows [n, columns]; NaN is passed over. Raises Refused for a column without an entry."""
        X = X.astype(np.float64)
        empty = np.isnan(X).all(0)
        if empty.any():
            raise Refused(f"column {int(empty.argmax())} of X has no entry that was seen, so nothing can be learnt of it; leave it out")
        top = np.nanmax(np.abs(X), 0)
        top = np.where(top > 0, top, 1.0)  # squares of huge numbers would overflow
        loc, spread = np.nanmean(X / top, 0), np.nanstd(X / top, 0)
        spread = np.where(spread > 1e-13, spread, 1 / top)  # less is the rounding of a constant
        return cls(tuple((loc * top).tolist()), tuple((spread * top).tolist()))

    @property
    def field(self) -> Field:
        """The field that models describe."""
        return Field("x", Real(), (len(self.loc),))

    @property
    def log_volume(self) -> float:
        """ln |dx / d held|, which a log density of held numbers is too large by, in nats."""
        return float(np.log(self.scale).sum())

    def pack(self, X: Array) -> Held:
        """Rows as they are held; numbers of more than 1e15 deviations are held as that many, so that their squares are still numbers."""
        held = (X.astype(np.float64) - np.array(self.loc)) / np.array(self.scale)
        return np.asarray(np.clip(held, -1e15, 1e15), dtype=np.float32)

    def unpack(self, held: Array) -> Array:
        """Held rows in their own units, float64."""
        return np.asarray(held.astype(np.float64) * np.array(self.scale) + np.array(self.loc))

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `reader_of` turns back into an equal reader."""
        return {"is": type(self).__name__, "loc": list(self.loc), "scale": list(self.scale)}


@dataclass(frozen=True)
class Gapped(Numbers):
    """Columns of numbers with gaps: a table of measured columns, in which NaN was not seen."""

    @property
    def field(self) -> Field:
        """The field that models describe."""
        columns = tuple(Measured(f"x{i}", loc, scale) for i, (loc, scale) in enumerate(zip(self.loc, self.scale, strict=True)))
        return Field("x", Table(columns), (len(columns),))

    @property
    def log_volume(self) -> float:
        """Nothing: a table's densities are those of its own units."""
        return 0.0


@dataclass(frozen=True)
class Mixed:
    """A frame of columns of several kinds."""

    field: Field

    @classmethod
    def of(cls, X: Any, columns: Mapping[str, str] | None) -> "Mixed":
        """Find the kinds of the columns, or take those declared; centres and scales are those of a fixed choice of most rows."""
        with refusing():
            return cls(from_table(X, columns, test=X).schema["x"])

    @property
    def log_volume(self) -> float:
        """Nothing: a table's densities are those of its own units."""
        return 0.0

    def pack(self, X: Any) -> Held:
        """Rows as they are held; raises Refused for columns that lack and values that a column cannot hold."""
        with refusing():
            return rows_of_table(self.field, X)[0]

    def unpack(self, held: Array) -> Any:
        """Held rows as a frame of polars, in their own units, names and types."""
        assert isinstance(self.field.kind, Table), "frames are tables"
        return unpacked(self.field.kind, held)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; the columns themselves stand in the schema of the run."""
        return {"is": "Mixed"}


Reader: TypeAlias = Numbers | Mixed
READERS: dict[str, type[Numbers]] = {"Numbers": Numbers, "Gapped": Gapped}


def reader_of(data: Mapping[str, Any], field: Field) -> Reader:
    """The reader that `to_json` wrote, for a run of this field.

    Raises UsageError for one that this version does not know, VaestroError for centres and scales that are not finite numbers, one for each column.
    """
    name = data.get("is")
    if name == "Mixed":
        return Mixed(field)
    if not isinstance(name, str) or name not in READERS:
        raise UsageError(f"the estimator reads its rows by {name!r}, which this version does not know; use the version that saved it")
    loc, scale = (_finite(data.get(n), field.size) for n in ("loc", "scale"))
    if loc is None or scale is None or min(scale, default=1.0) <= 0:
        raise VaestroError(f"the estimator's reader has no centre and scale for each of {field.size} columns; the file was altered: restore it from a copy")
    return READERS[name](loc, scale)


def _finite(values: object, size: int) -> tuple[float, ...] | None:
    """So many finite numbers, or nothing where values are none."""
    if not isinstance(values, list) or len(values) != size or not all(isinstance(v, float | int) and math.isfinite(v) for v in values):
        return None
    return tuple(map(float, values))


def like(X: Any, frame: Any, before: Any) -> Any:
    """X with the columns that a frame of polars holds otherwise than `before`, which is X as polars has it: in X's library, index and, where it fits, type."""
    import narwhals

    native = narwhals.from_native(X, eager_only=True)
    if native.implementation.is_polars():
        return frame
    news = {i: frame[:, i] for i in range(frame.width) if not frame[:, i].equals(before[:, i], null_equal=True)}
    made = {i: narwhals.new_series(new.name, new.to_list(), backend=native.implementation) for i, new in news.items()}
    if not native.implementation.is_pandas_like():
        return native.with_columns(column.cast(native.schema[column.name]) for column in made.values()).to_native()
    full = X.copy()
    for i, column in made.items():
        full.isetitem(i, _of_type(column.to_native().set_axis(X.index), X.dtypes.iloc[i]))
    return full


def _of_type(column: Any, dtype: Any) -> Any:
    """A column of pandas in a type, or as it is where that cannot hold its values."""
    try:
        cast = column.astype(dtype)
    except (TypeError, ValueError):
        return column
    return cast if cast.isna().sum() == column.isna().sum() else column  # a category that is not among the known ones becomes a gap
