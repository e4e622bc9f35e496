"""Rows in order, read some at a time, and what is known of each: a split of data, or the user's own array, table or folder of pictures."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaestro.core import Batch
from vaestro.data import SOURCES
from vaestro.data.kinds import Array, blocks, check, storage, survey
from vaestro.data.prepare.columns import texts
from vaestro.data.prepare.files import members
from vaestro.data.prepare.frames import Frame, frame_of, is_frame, is_table
from vaestro.data.prepare.inferring import typed
from vaestro.data.prepare.pictures import ENDINGS
from vaestro.data.prepare.tables import rows_of_table
from vaestro.data.rows import Rows, unit
from vaestro.data.schema import Category, Table
from vaestro.data.store import HEADER, Dataset, open_dataset
from vaestro.errors import UsageError, VaestroError, did_you_mean
from vaestro.evaluation.scope import fixed_rows
from vaestro.training.runs import Run
from vaestro.uses.rows.inputs import Bring, exact, laid, read

AT_ONCE = 500  # rows that are read and encoded together
LABEL = "label"


@dataclass(frozen=True)
class Lot:
    """Rows in a fixed order; `batches` reads them anew at every call, as the model of a run does."""

    name: str
    size: int
    batches: Callable[[], Iterator[Batch]]
    labels: np.ndarray | None = None  # classes as whole numbers, int64 [size]
    classes: tuple[str, ...] = ()  # their names
    files: tuple[str, ...] = ()  # the name of each row's file, of pictures
    notes: tuple[str, ...] = ()

    def labelled(self) -> np.ndarray:
        """The classes of the rows; raises UsageError where nobody said them."""
        if self.labels is None:
            raise UsageError(f"{self.name} has no labels; give data with a field `label`, a table with the label's column, or a folder of classes")
        return self.labels

    def table(self, found: Mapping[str, Any]) -> Frame:
        """What was found of every row, as a frame of polars: its number, its file where known, the columns `found`, and its label where known."""
        import polars as pl

        columns: dict[str, Any] = {"row": np.arange(self.size), **({"file": list(self.files)} if self.files else {}), **found}
        if self.labels is not None:
            columns["label"] = [self.classes[i] if self.classes else str(i) for i in self.labels]
        return pl.DataFrame(columns)


@dataclass(frozen=True)
class Wish:
    """Which rows are wanted: of data with splits one of these and at most so many fixed rows of it; how pictures are brought to the run's size."""

    split: str = "test"
    most: int | None = None
    bring: Bring = exact


USUAL = Wish()


def lot(run: Run, source: Any = None, wish: Wish = USUAL) -> Lot:
    """The rows that `source` means, in its order.

    Nothing is the run's own data; else a name, a stored data set, a folder of pictures (its sub-folders are classes), a picture, a .npy file, a table (.csv,
    .parquet, a frame), or an array of stored values [n, *shape]. Arrays in files are mapped and pictures opened one by one, so that memory does not grow with
    the rows. Raises UsageError for what is none of these, has no rows or does not fit the run's field, VaestroError for a file that cannot be read.
    """
    return of_data(run, run.data(), wish) if source is None else _lot(source, run, wish)


def require_same(run: Run, data: Dataset, of_tables: str = "give the file or the frame itself, which is read as that of training was") -> None:
    """Raises UsageError where the rows of a data set are of another kind or shape than a run reads; `of_tables` is the remedy where both are tables."""
    field, own = run.field, next((f for f in data.schema if f.name == run.field.name), None)
    if own is not None and (own.kind, own.shape) == (field.kind, field.shape):
        return
    if own is not None and isinstance(own.kind, Table) and isinstance(field.kind, Table):
        raise UsageError(f"rows of {data.name} are a table with columns, categories or scales of its own, and {run.name} reads another; {of_tables}")
    found, wanted = (f"without {field.name!r}" if f is None else "a table" if isinstance(f.kind, Table) else f"{f.kind} {f.shape}" for f in (own, field))
    raise UsageError(f"rows of {data.name} are {found}, and {run.name} reads {wanted}; give data of the same kind and shape")


def of_data(run: Run, data: Dataset, wish: Wish = USUAL) -> Lot:
    """A split of a data set; raises UsageError where its rows are of another kind or shape, or lack a field that the model reads."""
    require_same(run, data)
    lacks = [n for n in run.recipe.fields if n not in data.schema]
    if lacks:
        raise UsageError(f"{run.about['call']} reads {', '.join(lacks)} too, and {data.name} has no such field; give data that have it")
    part = data.split(wish.split)
    rows = Rows(part, data.schema, run.recipe.fields)
    index = torch.arange(part.rows) if wish.most is None or wish.most >= part.rows else fixed_rows(part.rows, wish.most)
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    if LABEL in data.schema and isinstance(kind := data.schema[LABEL].kind, Category) and data.schema[LABEL].shape == ():
        labels, classes = np.asarray(part.arrays[LABEL][index.numpy()], dtype=np.int64), named(kind)
    return Lot(f"{wish.split} rows of {data.name}", len(index), lambda: (rows.batch(i) for i in index.split(AT_ONCE)), labels, classes)


def named(kind: Category) -> tuple[str, ...]:
    """The names of classes, their numbers where they have none."""
    return kind.names or tuple(map(str, range(kind.n)))


def of_tensor(run: Run, x: Tensor) -> Lot:
    """Rows [n, *shape] in unit values, of which there may be none."""
    return Lot("the rows", len(x), lambda: ({run.field.name: part} for part in x.split(AT_ONCE) if len(part)))


@singledispatch
def _lot(source: object, run: Run, wish: Wish) -> Lot:
    if is_frame(source):
        return _of_table(source, "the table", run)
    raise UsageError(f"a {type(source).__name__} is no rows; give a name, a path, an array, a frame or a data set")


@_lot.register
def _(source: Dataset, run: Run, wish: Wish) -> Lot:
    return of_data(run, source, wish)


@_lot.register
def _(source: Lot, run: Run, wish: Wish) -> Lot:
    return source


@_lot.register(np.ndarray)
def _(source: Array, run: Run, wish: Wish) -> Lot:
    return _of_array(source, "the array", run)


@_lot.register
def _(source: Tensor, run: Run, wish: Wish) -> Lot:
    return _of_array(source.detach().cpu().numpy(), "the tensor", run)


@_lot.register
def _(source: str, run: Run, wish: Wish) -> Lot:
    if source in SOURCES:
        from vaestro.data import load

        return of_data(run, load(source), wish)
    if not source or not Path(source).expanduser().exists():
        raise UsageError(f"there is no data set, folder or file called {source!r}{did_you_mean(source, SOURCES)}")
    return _lot(Path(source), run, wish)


@_lot.register
def _(source: Path, run: Run, wish: Wish) -> Lot:
    path = source.expanduser()
    if not path.exists():
        raise UsageError(f"there is no folder or file {path}")
    if (path / HEADER).is_file():
        return of_data(run, open_dataset(path), wish)
    if path.is_dir():
        return _of_pictures(path, run, wish.bring)
    if path.suffix.lower() == ".npy":
        return _of_array(_mapped(path), str(path), run)
    if is_table(path):
        return _of_table(path, str(path), run)
    rows, notes = read([path], run.field, wish.bring)
    return Lot(f"rows of {path}", len(rows), lambda: iter([{run.field.name: rows}]), files=(path.name,) * len(rows), notes=tuple(notes))


def _mapped(path: Path) -> Array:
    try:
        found: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise VaestroError(f"{path} is not an array file ({error}); write it with numpy.save") from None
    return found


def _of_array(array: Array, name: str, run: Run) -> Lot:
    field = run.field
    if isinstance(field.kind, Table):
        raise UsageError(f"{name} is an array, and {run.name} reads a table, whose columns have names and types; give a .csv or .parquet file or a frame")
    array = laid(array, field, name)
    check(field, survey(block for _, block in blocks(array)))
    kind = storage(field.kind)

    def batches() -> Iterator[Batch]:
        for start in range(0, len(array), AT_ONCE):
            yield {field.name: unit(field.kind, torch.from_numpy(np.array(array[start : start + AT_ONCE], dtype=kind)))}

    return Lot(f"rows of {name}", len(array), batches)


def _of_table(source: Any, name: str, run: Run) -> Lot:
    frame = frame_of(source)
    rows, notes = rows_of_table(run.field, frame)
    x = torch.from_numpy(rows)
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    aside = next((a.name for a in run.field.kind.aside if a.reason == LABEL), None) if isinstance(run.field.kind, Table) else None
    if aside is not None and aside in frame.columns and LABEL in run.schema and isinstance(kind := run.schema[LABEL].kind, Category):
        found = [kind.names.index(word) if word in kind.names else -1 for word in texts(typed(frame[aside]))]
        if min(found) >= 0:
            labels, classes = np.array(found), named(kind)
        else:
            notes = [*notes, f"column {aside!r} is not read, for row {found.index(-1)} has no label that the run knows"]
    return Lot(f"rows of {name}", len(x), lambda: ({run.field.name: part} for part in x.split(AT_ONCE)), labels, classes, notes=tuple(notes))


def _of_pictures(folder: Path, run: Run, bring: Bring) -> Lot:
    names = [m.name for m in members(folder) if Path(m.name).suffix.lower() in ENDINGS and not Path(m.name).name.startswith(".")]
    if not names:
        raise UsageError(f"{folder} holds no pictures; known endings are {', '.join(sorted(ENDINGS))}")
    inside = [n.partition("/")[0] for n in names if "/" in n]
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    if len(inside) == len(names):
        classes = tuple(sorted(set(inside)))
        labels = np.array([classes.index(c) for c in inside], dtype=np.int64)

    def batches() -> Iterator[Batch]:
        for start in range(0, len(names), AT_ONCE):
            yield {run.field.name: read([folder / n for n in names[start : start + AT_ONCE]], run.field, bring)[0]}

    notes = read([folder / names[0]], run.field, bring)[1]  # a picture that does not fit is told before the first is encoded
    return Lot(f"rows of {folder}", len(names), batches, labels, classes, tuple(names), tuple(notes))
