"""Rows of one split that are, or nearly are, rows of another: what makes a held-out score too good."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaestro.data.cache import Progress, silent
from vaestro.data.kinds import Array, Encoding
from vaestro.data.schema import Category, Field, Integer
from vaestro.data.store import Dataset
from vaestro.errors import UsageError

WITHIN = 0.05  # of the full range of a value, root mean square over the row: on 28x28 binary pixels, one pixel
BLOCK = 2000  # rows of either side that are compared at once
SHOWN = 10


@dataclass(frozen=True)
class Doubles:
    """What one held-out split shares with the training split; `pairs` are the nearest, as (row, training row, distance)."""

    split: str
    rows: int
    equal: int
    near: int  # equal ones included
    within: float
    pairs: tuple[tuple[int, int, float], ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)

    def line(self) -> str:
        """The finding in a sentence."""
        first = f"; such as row {self.pairs[0][0]}, training row {self.pairs[0][1]}" if self.near else ""
        return (
            f"{self.split}: {self.equal:,} of {self.rows:,} rows are equal to a training row, {self.near:,} differ from one by at most {self.within:g}{first}"
        )


def doubles(data: Dataset, within: float = WITHIN, field: str = "x", progress: Progress = silent) -> tuple[Doubles, ...]:
    """For each held-out split, the rows whose nearest training row is within `within`: sqrt(mean_i (a_i - b_i)^2) of unit values.

    Whole numbers of an Integer field are divided by its highest level, real ones by the standard deviation of each column in training.
    Costs rows x training rows x numbers; memory is flat. Raises UsageError for a negative or non-finite `within`, a field of classes, a split that is
    missing, and for rows stored as intensities, whose draws are never equal.
    """
    if not 0 <= within < np.inf:
        raise UsageError(f"within={within} is no distance; give a number from 0 upwards, such as {WITHIN}")
    column, train = data.schema[field], data.split("train")
    if isinstance(column.kind, Category):
        raise UsageError(f"field {field!r} holds classes, and equal classes are no doubles; name the field that the rows are judged by")
    if train.encodings[field] is Encoding.INTENSITY:
        raise UsageError(f"the training rows of {data.name!r} are drawn anew at each reading, so none is ever equal; check the grey version of the data")
    unit = unit_of(column, train.arrays[field])
    return tuple(_doubles(data, name, field, unit, within, progress) for name in data.splits if name != "train")


class Unit(NamedTuple):
    """What makes values comparable: what is taken off and what they are divided by, [numbers] or [1]."""

    centre: NDArray[np.float64]
    scale: NDArray[np.float64]

    def of(self, rows: Array) -> NDArray[np.float32]:
        """Rows as unit values [n, numbers]; what is missing is 0."""
        return np.nan_to_num((rows.reshape(len(rows), -1).astype(np.float64) - self.centre) / self.scale).astype(np.float32)


def unit_of(column: Field, train: Array) -> Unit:
    """By the highest level, or by mean and spread in training (1 where there is none)."""
    if isinstance(column.kind, Integer):
        return Unit(np.zeros(1), np.array([column.kind.levels - 1.0]))
    if train.dtype.kind != "f":
        return Unit(np.zeros(1), np.ones(1))
    columns = train.reshape(len(train), -1).astype(np.float64)
    centre, spread = np.nanmean(columns, 0), np.nanstd(columns, 0)
    return Unit(centre, np.where(spread > 0, spread, 1))


def _doubles(data: Dataset, split: str, field: str, unit: Unit, within: float, progress: Progress) -> Doubles:
    train, rows = (data.split(name).arrays[field] for name in ("train", split))
    nearest, place = np.full(len(rows), np.inf), np.zeros(len(rows), np.int64)
    starts = range(0, len(rows), BLOCK)
    for number, start in enumerate(starts):
        progress(f"comparing {split} rows with training rows", number / len(starts))
        mine = slice(start, start + BLOCK)
        nearest[mine], place[mine] = _nearest(rows[mine], train, unit)
    progress(f"comparing {split} rows with training rows", 1.0)
    near = nearest <= within * (1 + 1e-6)
    equal = [i for i in np.flatnonzero(near) if np.array_equal(rows[i], train[place[i]], equal_nan=rows.dtype.kind == "f")]
    order = np.argsort(nearest, kind="stable")[: min(SHOWN, int(near.sum()))]
    pairs = tuple((int(i), int(place[i]), float(nearest[i])) for i in order)
    return Doubles(split, len(rows), len(equal), int(near.sum()), within, pairs)


def _nearest(rows: Array, train: Array, unit: Unit) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The distance of each row to its nearest training row, and which that is; the distance itself is computed from the two rows, free of cancellation."""
    a = unit.of(rows)
    best, place = np.full(len(a), np.inf, np.float32), np.zeros(len(a), np.int64)
    for start in range(0, len(train), BLOCK):
        b = unit.of(train[start : start + BLOCK])
        squares = np.square(b).sum(1) - 2 * (a @ b.T)
        found = squares.argmin(1)
        least = squares[np.arange(len(a)), found]
        place = np.where(least < best, start + found, place)
        best = np.minimum(least, best)
    return np.sqrt(np.square(a.astype(np.float64) - unit.of(train[place])).mean(1)), place
