"""Array files as data sets: .npy, .npz and IDX, plain or compressed, told apart by their first bytes."""

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from vaestro.data.cache import Progress, prepared_folder, shown, silent
from vaestro.data.kinds import Array
from vaestro.data.memory import Plan, plan
from vaestro.data.prepare.idx import GZIP, read_idx
from vaestro.data.report import PrepareReport
from vaestro.data.schema import Kind
from vaestro.data.splits import NAMES
from vaestro.data.store import HEADER, Dataset, open_dataset
from vaestro.data.writing import Writer, refuse_taken, write_dataset
from vaestro.errors import UsageError, VaestroError

RULES = 1  # raised when the rules change, so that no older result is taken from the cache
X_NAMES, LABEL_NAMES = ("x", "image", "images", "data", "features", "arr_0"), ("y", "label", "labels", "target", "targets")
PARTS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
PARTED = re.compile(r"^(?:(?P<field>.+)_(?P<part>train|val|valid|validation|test)|(?P<part2>train|val|valid|validation|test)_(?P<field2>.+))$")
Parts = dict[str, dict[str, Array]]


def prepare_arrays(
    source: Path | str, out: Path | str | None = None, kinds: Mapping[str, Kind] | None = None, seed: int = 0, progress: Progress = silent
) -> Dataset:
    """A data set of the arrays in a .npy, .npz or IDX file, in `out` or in the cache, where a second call finds it at once.

    A single array is `x`. In a .npz the names count: `x` (or images, data, ...), `label` (or y, targets, ...), and `x_train`, `y_test`, ... give the splits.
    All else is as in `from_arrays`. A .npy is mapped, so it may be larger than memory. Raises VaestroError for a broken file, UsageError for
    arrays that are no data.
    """
    source = Path(source).expanduser()
    if not source.is_file():
        raise UsageError(f"there is no file {source}")
    stat = source.stat()
    key = hashlib.sha256(repr((RULES, str(source.resolve()), stat.st_size, stat.st_mtime_ns, kinds, seed)).encode()).hexdigest()
    folder = Path(out) if out is not None else prepared_folder("arrays", source.stem, key)
    if (folder / HEADER).is_file() and (stored := open_dataset(folder)).report.key == key:
        return stored
    refuse_taken(folder)
    progress(f"reading {shown(source.name)}", 0.0)
    parts = read_arrays(source)
    made = plan(shown(source.stem), parts["train"], kinds, seed, {s: parts.get(s) for s in NAMES[1:]})
    report = PrepareReport(f"The arrays of {shown(source.name)}.", made.notes, read=1, key=key)
    return write_dataset(folder, made.schema, lambda writer: _store(made, writer, progress), report)


def _store(made: Plan, writer: Writer, progress: Progress) -> None:
    for i, split in enumerate(made.schema.rows):
        progress(f"storing {made.schema.name}", i / len(made.schema.rows))
        for field in made.schema:
            for block in made.blocks(split, field.name):
                writer.append(split, field.name, block)
    progress(f"storing {made.schema.name}", 1.0)


def reader(path: Path) -> Callable[[Path], Parts] | None:
    """How the file is read, by its first bytes; None if it is no array file."""
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(b"\x93NUM"):
        return _read_npy
    if start.startswith(b"PK") and path.suffix.lower() == ".npz":
        return _read_npz
    if start[:2] == b"\0\0" or (start[:2] == GZIP and not path.name.lower().endswith((".tgz", ".tar.gz"))):
        return _read_idx
    return None


def read_arrays(path: Path) -> Parts:
    """The arrays in a file by split and field; raises VaestroError for a broken file, UsageError for another kind of file."""
    read = reader(path)
    if read is None:
        raise UsageError(f"{path} is no array file; give a .npy, .npz or IDX file")
    try:
        return read(path)
    except VaestroError:
        raise
    except Exception as error:  # NumPy and zipfile raise many types on broken files
        raise VaestroError(f"{path} is broken, or holds Python objects, which are never loaded ({str(error).splitlines()[0]})") from error


def _read_npy(path: Path) -> Parts:
    return {"train": {"x": np.load(path, mmap_mode="r", allow_pickle=False)}}


def _read_idx(path: Path) -> Parts:
    return {"train": {"x": read_idx(path)}}


def _read_npz(path: Path) -> Parts:
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    if len(arrays) == 1:
        return {"train": {"x": next(iter(arrays.values()))}}
    parts: Parts = {}
    for name, array in arrays.items():
        match = PARTED.match(name)
        part = PARTS[match["part"] or match["part2"]] if match else "train"
        field = _field((match["field"] or match["field2"]) if match else name)
        if field in parts.setdefault(part, {}):
            raise UsageError(f"{path} has two arrays for the field {field!r} of the {part} rows; keep one of them")
        parts[part][field] = array
    if any("x" not in fields for fields in parts.values()) or "train" not in parts:
        raise UsageError(f"{path} has the arrays {', '.join(arrays)}; call the data `x` (or `x_train`, `x_test`) and the classes `label`")
    return parts


def _field(name: str) -> str:
    return "x" if name.lower() in X_NAMES else "label" if name.lower() in LABEL_NAMES else name
