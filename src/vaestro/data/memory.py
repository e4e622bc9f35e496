"""Arrays as data: which kind each field is, how its images lie, and which rows belong to which split."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaestro.data.kinds import BLOCK, MOST_COUNTED, MOST_LEVELS, Array, Encoding, Survey, blocks, check, highest, infer, join, storage, survey
from vaestro.data.layout import layout
from vaestro.data.report import PrepareReport
from vaestro.data.schema import Category, Field, Kind, Schema
from vaestro.data.splits import NAMES, carve, row_keys
from vaestro.data.store import Dataset, Split
from vaestro.errors import UsageError, did_you_mean

Arrays = Mapping[str, Array]
LOST = f"whole numbers beyond {MOST_COUNTED:,} lose their last digits as 32-bit numbers; take a common start away from them"


@singledispatch
def as_array(value: object) -> Array:
    """One row or one column as an array. Open: pictures register how they are read."""
    return np.asarray(value)


@as_array.register
def _(value: np.ma.MaskedArray) -> Array:
    if np.ma.is_masked(value):
        raise UsageError("a masked array has masked entries, and nobody knows what lies beneath; fill them, or give columns by name as a table with gaps")
    return np.asarray(value)


@dataclass(frozen=True)
class Plan:
    """Everything that is decided before rows are moved, so that they can be moved in blocks."""

    schema: Schema
    origins: Mapping[str, tuple[Arrays, NDArray[np.int64]]]  # split -> the arrays given, and which of their rows
    notes: tuple[str, ...]

    def blocks(self, split: str, field: str) -> Iterator[Array]:
        """The rows of one field of one split, in order, as they are stored."""
        arrays, rows = self.origins[split]
        return _stored(arrays[field], rows, self.schema[field])


def _stored(array: Array, rows: NDArray[np.int64], field: Field) -> Iterator[Array]:
    apply = layout(field.name, array).apply
    step = max(1, BLOCK // max(1, array[:1].nbytes))
    for start in range(0, len(rows), step):
        yield apply(array[rows[start : start + step]]).astype(storage(field.kind), copy=False)


def from_arrays(
    name: str,
    arrays: Mapping[str, Any],
    kinds: Mapping[str, Kind] | None = None,
    seed: int = 0,
    test: Mapping[str, Any] | None = None,
    validation: Mapping[str, Any] | None = None,
) -> Dataset:
    """A data set in memory from NumPy arrays, torch tensors on the CPU, or lists of them: `{"x": [n, ...], "label": [n]}`.

    Kinds that are not given are found: only 0 and 1 is Binary, uint8 is Integer(256), other whole numbers 0..m are Integer(m + 1), fractions are Real; a
    one-dimensional field of whole numbers or words beside `x` is a Category. Images are [n, H, W], [n, H, W, C] or [n, C, H, W], with C = 1, 3, or 4 (uint8
    RGBA, laid over white); rows [n, D] stay. Splits that are not given are carved from `arrays` by content, so that equal rows stay together.
    `notes` of the result say what may surprise. Raises UsageError for NaN, illegal values, unequal shapes and too few rows.
    """
    made = plan(name, arrays, kinds, seed, {"validation": validation, "test": test})
    splits = {}
    for split in made.schema.rows:
        held = {f.name: np.concatenate(list(made.blocks(split, f.name))) for f in made.schema}
        splits[split] = Split(split, held, dict.fromkeys(held, Encoding.VALUE))
    return Dataset(made.schema, splits, PrepareReport(notes=made.notes))


def plan(name: str, arrays: Mapping[str, Any], kinds: Mapping[str, Kind] | None, seed: int, held: Mapping[str, Mapping[str, Any] | None]) -> Plan:
    """Reads every array once, in blocks, and decides fields, kinds and splits; raises UsageError as `from_arrays` does."""
    parts = {"train": _columns("train", arrays)} | {s: _columns(s, given) for s, given in held.items() if given is not None}
    declared = dict(kinds or {})
    for field in declared:
        if field not in parts["train"]:
            raise UsageError(f"a kind is declared for {field!r}, but there is no such array{did_you_mean(field, parts['train'])}")
    for split, part in parts.items():
        if set(part) != set(parts["train"]):
            raise UsageError(f"the {split} rows have the fields {', '.join(sorted(part))}, but the training rows have {', '.join(sorted(parts['train']))}")
    _number_words(parts, declared)
    fields: list[Field] = []
    notes: list[str] = []
    for field in parts["train"]:
        column, said = _field(field, {s: part[field] for s, part in parts.items()}, declared.get(field))
        fields.append(column)
        notes += said
    content = [f for f in fields if f.name == "x"] or fields
    every = np.arange(_length(parts["train"]))
    keys = row_keys(*(_stored(parts["train"][f.name], every, f) for f in content))
    try:
        rows = carve(keys, parts, seed)
    except UsageError as error:
        raise UsageError("; ".join([str(error), *(note for note in notes if note.endswith(LOST))])) from None
    origins = {s: (parts["train"], rows[s]) if s in rows else (parts[s], np.arange(_length(parts[s]))) for s in NAMES}
    return Plan(Schema(name, tuple(fields), {s: len(origins[s][1]) for s in NAMES}), origins, tuple(notes))


def _columns(split: str, arrays: Mapping[str, Any]) -> dict[str, Array]:
    """Arrays with equally many rows, at least one."""
    part = {str(field): _array(str(field), value) for field, value in arrays.items()}
    if not part:
        raise UsageError(f'no {split} arrays were given; give {{"x": array}}')
    lengths = {field: len(array) for field, array in part.items()}
    if len(set(lengths.values())) > 1:
        raise UsageError(f"the {split} arrays have unequal numbers of rows ({', '.join(f'{f}: {n}' for f, n in lengths.items())})")
    if not _length(part):
        raise UsageError(f"the {split} arrays have no rows; give at least one")
    return part


def _length(part: Arrays) -> int:
    return len(next(iter(part.values())))


def _array(field: str, value: Any) -> Array:
    if isinstance(value, list | tuple):
        rows = [_read(field, row) for row in value]
        odd = next((i for i, row in enumerate(rows) if row.shape != rows[0].shape), None)
        if odd is not None:
            raise UsageError(f"row {odd} of {field!r} has shape {rows[odd].shape}, but row 0 has {rows[0].shape}; bring all rows to one size and one mode")
        value = np.stack(rows) if rows else np.zeros(0)
    array = _read(field, value)
    if array.dtype.kind == "O" and all(isinstance(word, str) for word in array.reshape(-1)):  # as pandas holds words
        array = array.astype(str)
    if array.ndim == 0 or array.dtype.kind not in "buifUS":
        raise UsageError(f"{field!r} is an array of type {array.dtype} with shape {array.shape}; give numbers with one row along the first axis")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _read(field: str, value: Any) -> Array:
    try:
        return as_array(value)
    except (TypeError, ValueError, RuntimeError) as error:  # torch: a tensor on another device, or one with a gradient
        raise UsageError(f"{field!r} cannot be read as an array ({str(error).splitlines()[0]})") from error


def _number_words(parts: Mapping[str, dict[str, Array]], declared: dict[str, Kind]) -> None:
    """Labels that are words become the indices of a category, whose names are the words of all splits, sorted."""
    for field in [f for f, a in parts["train"].items() if a.dtype.kind in "US"]:
        for part in parts.values():
            part[field] = _text(field, part[field])
        words = np.unique(np.concatenate([part[field].reshape(-1) for part in parts.values()]))
        for part in parts.values():
            part[field] = np.searchsorted(words, part[field])
        declared.setdefault(field, Category(len(words), tuple(map(str, words))))


def _text(field: str, words: Array) -> Array:
    """Words as text; bytes are UTF-8."""
    try:
        return np.char.decode(words, "utf-8") if words.dtype.kind == "S" else words.astype(str)
    except UnicodeDecodeError as error:
        raise UsageError(f"{field!r} holds bytes that are no UTF-8 text ({error}); give words, or whole numbers") from None


def _field(name: str, arrays: Arrays, kind: Kind | None) -> tuple[Field, Sequence[str]]:
    """One field from its array in each split: its kind, found or declared, and what to tell the user."""
    founds: dict[str, Survey] = {}
    shaped = layout(name, arrays["train"])
    for split, array in arrays.items():
        own = layout(name, array)
        if own.shape != shaped.shape:
            raise UsageError(f"the {split} rows of {name!r} have shape {own.shape}, but the training rows have {shaped.shape}; bring them to one shape")
        founds[split] = survey(own.apply(block) for _, block in blocks(array))
    _refuse_unlike_scales(name, founds)
    total = survey(())
    for found in founds.values():
        total = join(total, found)
    dtype = np.result_type(*arrays.values())
    notes: tuple[str, ...] = ()
    if kind is None and name != "x" and shaped.shape == () and dtype.kind in "bui" and 0 <= total.low <= total.high < MOST_LEVELS:
        kind = Category(int(total.high) + 1)
    elif kind is None:
        kind, notes = infer(total, dtype)
    column = Field(name, kind, shaped.shape)
    for split, found in founds.items():
        check(column, found, split if len(founds) > 1 else "")
    if isinstance(kind, Category) and total.low == total.high:
        return column, [*shaped.notes, *notes, f"all rows of {name!r} are of one class"]
    if highest(kind) == np.inf and max(abs(total.low), abs(total.high)) > float(np.finfo(np.float32).max):
        raise UsageError(f"field {name!r} holds values up to {max(abs(total.low), abs(total.high)):g}, too large for 32-bit numbers; rescale them")
    if highest(kind) == np.inf and max(-total.low, total.high) > MOST_COUNTED and any(array.dtype.kind in "iu" for array in arrays.values()):
        notes = (*notes, LOST)
    return column, [*shaped.notes, *(f"field {name!r}: {note}" for note in notes)]


def _refuse_unlike_scales(name: str, founds: Mapping[str, Survey]) -> None:
    """Raises UsageError where one split holds pixels of 0..255 or the like and another the same scaled to 0..1: each alone is legal, together they are not."""
    levels = [s for s, f in founds.items() if f.whole and f.low >= 0 and f.high > 1]
    shares = [s for s, f in founds.items() if not f.whole and f.low >= 0 and f.high <= 1]
    if levels and shares:
        high = founds[levels[0]].high
        raise UsageError(
            f"the {levels[0]} rows of {name!r} are whole numbers up to {high:g}, but the {shares[0]} rows are fractions of 0 to 1; bring them to one scale"
        )
