"""Tables as data: columns found or declared, every row packed into one array in which NaN was not seen, and rows written again."""

import difflib
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaestro.data.cache import Progress, prepared_folder, shown, silent
from vaestro.data.kinds import Array
from vaestro.data.memory import from_arrays
from vaestro.data.prepare.columns import again, extent, pack, texts, unpack, word
from vaestro.data.prepare.frames import Frame, frame_of
from vaestro.data.prepare.inferring import DECLARED, infer, stray, typed
from vaestro.data.report import PrepareReport
from vaestro.data.schema import Aside, Category, Column, Counted, Field, Kind, Measured, Table
from vaestro.data.splits import carve, row_keys
from vaestro.data.store import HEADER, Dataset, open_dataset
from vaestro.data.writing import refuse_taken, save
from vaestro.errors import UsageError, did_you_mean

FARTHEST = 1e15  # deviations from the centre of a column
RULES = 3  # raised when the rules change, so that no older result is taken from the cache
Packed = NDArray[np.float32]
Declared = Mapping[str, str]


def from_table(source: Any, columns: Declared | None = None, *, test: Any = None, name: str = "table", seed: int = 0) -> Dataset:
    """A data set of one table: field `x` of kind Table, [rows, columns] with NaN where an entry was not seen, and `label` where a column is one.

    `source` is a path (.csv, .parquet), a frame of polars or pandas, or a mapping of columns; `test` are further rows that are the test split.
    `columns` declares kinds by name (`{"amount": "positive", "id": "skip"}`); the others are found from their values. Centres and scales are those of
    training rows. Equal rows are in one split. Raises UsageError for a table that cannot be one, VaestroError for a file that cannot be read.
    """
    frame = frame_of(source)
    frame = frame.with_columns(typed(frame[c]).alias(c) for c in frame.columns)
    table = _found(frame, columns or {})
    if not table.columns:
        reasons = ", ".join(f"{a.name}: {a.reason}" for a in table.aside)
        raise UsageError(f"the table has no column to model ({reasons}); declare one with --columns NAME=KIND, or columns={{NAME: KIND}}")
    held = None if test is None else _like(table, frame_of(test))
    names = [a.name for a in table.aside if a.reason == "label"]
    every = [frame] if held is None else [frame, held]
    labels, number = _labels(every, names[0]) if names else (None, np.zeros(sum(f.height for f in every), np.int64))
    first = packed(table, frame)
    blank = np.asarray(np.isnan(first).all(1))
    number, more = number[: len(blank)][~blank], number[len(blank) :]
    frame, first = frame.filter(~blank), first[~blank]
    if not len(first):
        raise UsageError("no row of the table has an entry that was seen; give rows with values")
    rows = carve(row_keys([first]), [] if held is None else ["test"], seed)
    table = _centred(table, first[rows["train"]])
    kinds: dict[str, Kind] = {"x": table}
    kinds |= {} if labels is None else {"label": labels}
    parts = {s: _arrays(table, frame[rows[s]], number[rows[s]], kinds) for s in rows}
    parts |= {} if held is None else {"test": _arrays(table, held, more, kinds)}
    made = from_arrays(name, parts["train"], kinds, seed, test=parts["test"], validation=parts["validation"])
    slips = [stray(c, frame[c]) for c in frame.columns if c not in (columns or {})]
    notes = (*_notes(table, int(blank.sum())), *filter(None, slips), *_deciding(table, frame))
    return replace(made, report=PrepareReport("Columns of a table; equal rows are in one split.", notes))


def prepare_table(source: Path | str, columns: Declared | None = None, out: Path | str | None = None, seed: int = 0, progress: Progress = silent) -> Dataset:
    """`from_table` of a file, kept in `out` or in the cache, where a second call with the same file and columns finds it at once."""
    path = Path(source).expanduser()
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    stat = path.stat()
    key = hashlib.sha256(repr((RULES, str(path.resolve()), stat.st_size, stat.st_mtime_ns, sorted((columns or {}).items()), seed)).encode()).hexdigest()
    folder = Path(out) if out is not None else prepared_folder("table", path.stem, key)
    if (folder / HEADER).is_file() and (stored := open_dataset(folder)).report.key == key:
        return stored
    refuse_taken(folder)
    name = shown(path.name)
    progress(f"reading {name}", 0.0)
    made = from_table(path, columns, name=shown(path.stem), seed=seed)
    progress(f"reading {name}", 1.0)
    return save(replace(made, report=replace(made.report, rule=f"The rows of {name}. {made.report.rule}", read=1, key=key)), folder)


def declared(texts: list[str]) -> dict[str, str]:
    """`amount=positive,city=category` as a mapping; raises UsageError for text that is none, or names a column twice."""
    found: dict[str, str] = {}
    for piece in (p for text in texts for p in text.split(",") if p.strip()):
        name, equals, kind = (part.strip() for part in piece.rpartition("="))
        if not (name and equals and kind):
            raise UsageError(f"{piece!r} declares nothing: write --columns NAME=KIND,NAME=KIND; kinds are {', '.join(DECLARED)}")
        if name in found:
            raise UsageError(f"column {name!r} is declared twice; declare it once")
        DECLARED[kind]
        found[name] = kind
    return found


def _found(frame: Frame, declared: Declared) -> Table:
    for name in declared:
        if name not in frame.columns:
            raise UsageError(f"column {name!r} is declared, and the table has none of that name{did_you_mean(name, frame.columns)}")
    found = {name: DECLARED[declared[name]](name, frame[name]) if name in declared else infer(name, frame[name]) for name in frame.columns}
    labels = [name for name, column in found.items() if isinstance(column, Aside) and column.reason == "label"]
    if len(labels) > 1:
        said = [name for name in labels if name in declared]
        if len(said) != 1:
            raise UsageError(f"columns {', '.join(labels)} are all labels, and a table has one; declare the others category or skip")
        found |= {name: DECLARED["category"](name, frame[name]) for name in labels if name not in said}
    columns = tuple(c for c in found.values() if not isinstance(c, Aside))
    return Table(columns, tuple(c for c in found.values() if isinstance(c, Aside)))


def _centred(table: Table, first: Array) -> Table:
    """The table with centres and scales of training rows alone, given as they are held now."""
    columns: list[Column] = []
    for i, column in enumerate(table.columns):
        seen = first[:, i][~np.isnan(first[:, i])].astype(np.float64)
        if isinstance(column, Measured) and len(seen) and seen.std() > 0:
            columns.append(replace(column, loc=column.loc + column.scale * float(seen.mean()), scale=column.scale * float(seen.std())))
        elif isinstance(column, Counted) and len(seen) and seen.std() > 0:
            columns.append(replace(column, loc=float(np.log1p(seen).mean()), scale=float(np.log1p(seen).std()), top=float(seen.max())))
        else:
            columns.append(column)
    return replace(table, columns=tuple(columns))


def _like(table: Table, frame: Frame) -> Frame:
    """A frame with the columns of a table; raises UsageError that names what lacks."""
    wanted = [*table.names, *(a.name for a in table.aside if a.reason == "label")]
    for name in wanted:
        if name not in frame.columns:
            near = difflib.get_close_matches(name, [c for c in frame.columns if c not in wanted], n=3, cutoff=0.5)
            hint = did_you_mean(name, near) if near else "; add it, with empty entries where it was not seen"
            raise UsageError(f"the table has no column {name!r}, which the model was trained on{hint}")
    return frame


def _labels(frames: list[Frame], name: str) -> tuple[Category, Array]:
    """The classes that a column of some frames names, numbers in their order, else words in theirs; and the class of every row."""
    import polars as pl

    words = texts(typed(frames[0][name] if len(frames) == 1 else pl.concat([f[name].cast(pl.String) for f in frames])))
    if words.null_count():
        row = int(words.is_null().arg_max() or 0)
        raise UsageError(f"column {name!r} is the label, and row {row} has none; remove that row, or declare {name}=category to model it as a column")
    numeric = words.cast(int, strict=False)
    levels = sorted(set(words)) if numeric.null_count() else sorted(set(words), key=lambda word: (int(word), word))  # 01 is another word than 1
    number = words.replace_strict(dict(zip(levels, range(len(levels)), strict=True)), return_dtype=int)
    return Category(len(levels), tuple(levels)), number.to_numpy()


def _arrays(table: Table, frame: Frame, number: Array, kinds: Mapping[str, Kind]) -> dict[str, Array]:
    return {"x": packed(table, frame)} | ({"label": number} if "label" in kinds else {})


def _notes(table: Table, blank: int) -> list[str]:
    said = [f"column {a.name!r} is {'the label' if a.reason == 'label' else f'left out ({a.reason})'}" for a in table.aside]
    return [*said, *([f"{blank} rows had no entry that was seen and were left out"] if blank else [])]


def _deciding(table: Table, frame: Frame) -> list[str]:
    """A note for every column of few values, each of which goes with one label alone: it may be the label itself."""
    import polars as pl

    label = next((a.name for a in table.aside if a.reason == "label"), "")
    notes = []
    for name in table.names if label and frame[label].n_unique() > 1 else ():
        pairs = frame.select(pl.col(name).alias("value"), pl.col(label).alias("label")).drop_nulls()
        if 4 * pairs["value"].n_unique() <= len(pairs) and pairs.n_unique() == pairs["value"].n_unique():
            notes.append(f"column {name!r} decides the label {label!r} alone; if it was made from it, declare {name}=skip")
    return notes


def packed(table: Table, frame: Frame) -> Packed:
    """The rows of a frame as a table holds them, float32 [rows, columns], NaN where an entry was not seen; further columns are left out.

    Numbers of more than 1e15 deviations are held as that many, so that their squares are still numbers.
    Raises UsageError for a column that lacks, and for values that a column cannot hold, with the row and the remedy.
    """
    frame = _like(replace(table, aside=()), frame)
    return np.clip(np.stack([pack(c, frame[c.name]) for c in table.columns], 1), -FARTHEST, FARTHEST).astype(np.float32)


def unpacked(table: Table, rows: Array) -> Frame:
    """Rows [n, columns] as a frame in the units, names and types of the table; null where an entry was not seen. Columns of one value come last."""
    import polars as pl

    if rows.ndim != 2 or rows.shape[1] != len(table.columns):
        raise UsageError(f"rows shaped {rows.shape} are none of this table, which has {len(table.columns)} columns")
    made = [unpack(c, rows[:, i].astype(np.float64)) for i, c in enumerate(table.columns)]
    return pl.DataFrame([*made, *(again(a, len(rows)) for a in table.aside if a.reason == "constant")])


def rows_of_table(field: Field, source: Any) -> tuple[Packed, list[str]]:
    """A user's table as rows of a field that a run was trained on, and notes: columns that the run does not know, rows with no entry seen.

    Raises UsageError for a field that is no table, a column that lacks (with 'did you mean'), and values that a column cannot hold.
    """
    frame, table = frame_of(source), require_table(field)
    rows = packed(table, frame)
    known = {*table.names, *(a.name for a in table.aside)}
    extra = [c for c in frame.columns if c not in known]
    notes = [f"columns {', '.join(map(repr, extra))} are not known to the run and were not read"] if extra else []
    blank = int(np.isnan(rows).all(1).sum())
    return rows, [*notes, *([f"{blank} rows have no entry that was seen"] if blank else [])]


def require_table(field: Field) -> Table:
    """The table that a field holds; raises UsageError where it is none."""
    if not isinstance(field.kind, Table):
        raise UsageError(f"field {field.name!r} holds {type(field.kind).__name__} values and is no table; train on a .csv or .parquet file for this")
    return field.kind


class Card(NamedTuple):
    """What is said of one column."""

    column: str
    kind: str
    extent: str
    missing: float | None
    example: str


def cards(data: Dataset) -> list[Card]:
    """Every column of a table in words, from the first 100,000 training rows: kind, levels or range, the share that was not seen, an example."""
    table = require_table(data.schema["x"])
    rows = np.asarray(data.split("train").arrays["x"][:100_000])
    found = []
    for i, column in enumerate(table.columns):
        seen = rows[:, i][~np.isnan(rows[:, i])]
        example = str(unpack(column, seen[:1].astype(np.float64))[0]) if len(seen) else ""
        found.append(Card(column.name, word(column), extent(column, rows[:, i].astype(np.float64)), float(np.isnan(rows[:, i]).mean()), example))
    return [*found, *(Card(a.name, word(a), extent(a, np.zeros(0)), None, "") for a in table.aside)]
