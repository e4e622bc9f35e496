"""One word for all data: a name, a folder, a file, arrays or a data set; what it is decides how it is read."""

from collections.abc import Mapping
from functools import singledispatch
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from vaestro.data.cache import Progress, cache_folder, silent
from vaestro.data.memory import from_arrays
from vaestro.data.prepare.arrays import prepare_arrays, reader
from vaestro.data.prepare.files import is_archive
from vaestro.data.prepare.frames import is_frame, is_table
from vaestro.data.prepare.images import prepare_images
from vaestro.data.prepare.tables import from_table, prepare_table
from vaestro.data.sources import SOURCES, get
from vaestro.data.store import HEADER, Dataset, open_dataset
from vaestro.errors import UsageError, did_you_mean


@runtime_checkable
class ArrayLike(Protocol):
    """Anything that turns into a NumPy array, such as a torch tensor on the CPU."""

    def __array__(self) -> Any:
        """The array."""


@runtime_checkable
class RowWise(Protocol):
    """Anything that hands out its rows by number, such as a torch Dataset."""

    def __len__(self) -> int:
        """How many rows there are."""

    def __getitem__(self, row: int, /) -> Any:
        """One row: x, or (x, label), or a mapping of fields."""


@singledispatch
def load(spec: object, offline: bool = False, progress: Progress = silent) -> Dataset:
    """The data set that `spec` means. Open.

    A name from `SOURCES`; the path of a stored data set, of a folder or archive of pictures, or of a .npy, .npz, IDX, .csv or .parquet file; an array or tensor
    (`x`); a pair (x, label); a mapping of fields, or of the columns of a table; a frame of polars or pandas; a list of pictures or rows; a torch Dataset; or a
    data set itself. Raises UsageError for anything else.
    """
    if is_frame(spec):
        return from_table(spec)
    if isinstance(spec, ArrayLike):
        return from_arrays("array", {"x": spec})
    if isinstance(spec, RowWise):
        return from_arrays("rows", _columns(spec, progress))
    raise UsageError(f"a {type(spec).__name__} is no data; give a name, a path, an array, a mapping of arrays or a torch Dataset")


@load.register
def _(spec: Dataset, offline: bool = False, progress: Progress = silent) -> Dataset:
    return spec


@load.register
def _(spec: str, offline: bool = False, progress: Progress = silent) -> Dataset:
    if spec in SOURCES:
        return get(spec, None, offline, progress)
    if spec and Path(spec).expanduser().exists():
        return load(Path(spec), offline, progress)
    if Path(spec).suffix or Path(spec).name != spec:
        _refuse_cleared(Path(spec))
        raise UsageError(f"there is no folder or file {spec!r}; data sets that have a name are listed by `vaestro data list`")
    raise UsageError(f"there is no data set, folder or file called {spec!r}{did_you_mean(spec, SOURCES)}")


@load.register
def _(spec: Path, offline: bool = False, progress: Progress = silent) -> Dataset:
    path = spec.expanduser()
    if not path.exists():
        _refuse_cleared(path)
        raise UsageError(f"there is no folder or file {path}")
    if (path / HEADER).is_file():
        return open_dataset(path)
    if path.is_dir():
        return prepare_images(path, progress=progress)
    if reader(path) is not None:
        return prepare_arrays(path, progress=progress)
    if is_archive(path):
        return prepare_images(path, progress=progress)
    if is_table(path):
        return prepare_table(path, progress=progress)
    raise UsageError(f"{path} is no data; give a folder or archive of pictures, or a .npy, .npz, IDX, .csv or .parquet file")


def _refuse_cleared(path: Path) -> None:
    """Raises UsageError, with the remedy, for data that were prepared with declarations of the user's own, which the cache alone held."""
    if path.parent == (cache_folder() / "data").resolve():
        raise UsageError(
            f"the cache no longer holds {path.name}; make it again from the same file as it was made then (for a table `vaestro data show FILE --columns "
            "NAME=KIND`), or give the data in Python, such as open_run(run, data=prepare_table(FILE, columns))"
        )


@load.register
def _(spec: np.ndarray, offline: bool = False, progress: Progress = silent) -> Dataset:
    return from_arrays("array", {"x": spec})


@load.register(bytes)
@load.register(bytearray)
@load.register(memoryview)
def _(spec: bytes | bytearray | memoryview, offline: bool = False, progress: Progress = silent) -> Dataset:
    raise UsageError(f"{type(spec).__name__} are no data, for they do not say what their rows are; give a name or a path as text, or np.asarray of numbers")


@load.register
def _(spec: Mapping, offline: bool = False, progress: Progress = silent) -> Dataset:  # type: ignore[type-arg]
    columns = "x" not in spec and all(map(_flat, spec.values()))
    return from_table(spec) if spec and columns else from_arrays("arrays", spec)


def _flat(values: object) -> bool:
    """Whether values are one column; so are those that NumPy cannot read, for a table says which column that is."""
    try:
        return bool(np.ndim(values) == 1)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        return True


@load.register
def _(spec: tuple, offline: bool = False, progress: Progress = silent) -> Dataset:  # type: ignore[type-arg]
    if len(spec) != 2:
        raise UsageError(f"a tuple of {len(spec)} is no data; give (x, label), or a mapping of fields")
    return from_arrays("arrays", {"x": spec[0], "label": spec[1]})


def _columns(items: RowWise, progress: Progress) -> dict[str, list[Any]]:
    """The rows of a torch Dataset or a list as columns: the fields of the first row decide."""
    columns: dict[str, list[Any]] = {}
    try:
        rows = len(items)
    except TypeError as error:  # a sparse matrix
        raise UsageError(f"a {type(items).__name__} does not say how many rows it has ({error}); give an array, as its .toarray() returns one") from None
    for i in range(rows):
        row = _row(items[i])
        if columns and set(row) != set(columns):
            raise UsageError(f"row {i} has the fields {', '.join(row)}, but row 0 has {', '.join(columns)}; give every row the same fields")
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
        if i % 1000 == 0:
            progress("reading rows", i / rows)
    return columns or {"x": []}


@singledispatch
def _row(item: object) -> dict[str, Any]:
    return {"x": item}


@_row.register
def _(item: tuple) -> dict[str, Any]:  # type: ignore[type-arg]
    names = ("x", "label", *(f"field{i}" for i in range(2, len(item))))
    return dict(zip(names, item, strict=False))


@_row.register
def _(item: Mapping) -> dict[str, Any]:  # type: ignore[type-arg]
    return dict(item)
