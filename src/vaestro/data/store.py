"""A data set on disk is a folder: `schema.json` and one memory-mapped `.npy` for each field of each split."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vaestro.data.kinds import Array, Encoding, blocks, check, storage, survey
from vaestro.data.report import PrepareReport
from vaestro.data.schema import Binary, Field, Schema
from vaestro.errors import UsageError, VaestroError, did_you_mean

HEADER = "schema.json"
FORMAT = 1
REMEDY = "delete the folder and prepare the data again"

__all__ = ["Dataset", "Encoding", "Split", "array_sha256", "data_sha256", "open_dataset", "verify"]


class Entry(NamedTuple):
    """What `schema.json` says of one array."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str  # of the array's bytes in C order, without the header of its file
    encoding: Encoding


Entries = Mapping[str, Mapping[str, Entry]]  # by split, then by field


@dataclass(frozen=True)
class Split:
    """The rows of one split: an array [rows, *shape] for each field."""

    name: str
    arrays: Mapping[str, Array]
    encodings: Mapping[str, Encoding]

    @property
    def rows(self) -> int:
        """How many rows every array of this split has."""
        return len(next(iter(self.arrays.values())))


@dataclass(frozen=True)
class Dataset:
    """Named splits of rows that one schema describes, in memory or mapped from a folder."""

    schema: Schema
    splits: Mapping[str, Split]
    report: PrepareReport = field(default_factory=PrepareReport)
    folder: Path | None = None
    entries: Entries = field(default_factory=dict)  # empty where the data are in memory only

    @property
    def name(self) -> str:
        """The name of the data set."""
        return self.schema.name

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of how the arrays were read."""
        return self.report.notes

    def split(self, name: str) -> Split:
        """The split called `name`; raises UsageError with the names there are."""
        if name not in self.splits:
            raise UsageError(f"data {self.name!r} has no split called {name!r}{did_you_mean(name, self.splits)}")
        return self.splits[name]

    @cached_property
    def sha256(self) -> str:
        """The hash that results quote: of the schema and of every array's bytes, type, shape and encoding."""
        return data_sha256(self.schema, self.entries or entries_of(self.splits))


def array_sha256(array: Array) -> str:
    """The sha256 of an array's bytes in C order, read in blocks."""
    digest = hashlib.sha256()
    for _, block in blocks(array):
        digest.update(block.tobytes())
    return digest.hexdigest()


def entries_of(splits: Mapping[str, Split]) -> Entries:
    """What a header would say of arrays in memory."""
    return {
        s.name: {f: Entry(f"{s.name}.{f}.npy", a.dtype.str, a.shape, array_sha256(a), s.encodings[f]) for f, a in s.arrays.items()} for s in splits.values()
    }


def data_sha256(schema: Schema, entries: Entries) -> str:
    """The sha256 of a canonical JSON text of the schema and of each array's type, shape, hash and encoding."""
    arrays = {s: {f: [e.dtype, list(e.shape), e.sha256, e.encoding.value] for f, e in fields.items()} for s, fields in entries.items()}
    text = json.dumps({"schema": schema.to_json(), "arrays": arrays}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def header(schema: Schema, entries: Entries, report: PrepareReport) -> dict[str, Any]:
    """The content of `schema.json`."""
    arrays = {s: {f: {**e._asdict(), "shape": list(e.shape), "encoding": e.encoding.value} for f, e in fields.items()} for s, fields in entries.items()}
    return {"format": FORMAT, **schema.to_json(), "arrays": arrays, "report": report.to_json(), "sha256": data_sha256(schema, entries)}


def open_dataset(folder: Path | str) -> Dataset:
    """The data set stored in `folder`, its arrays mapped and not read; raises VaestroError where the folder is not sound.

    Arrays are mapped for reading only: pages are shared with the file system's cache, and the data may be larger than memory (the system refuses a private,
    writable map of more than there is).
    """
    folder = Path(folder)
    schema, entries, report, sha256 = _read_header(folder)
    if sha256 != data_sha256(schema, entries):
        raise VaestroError(f"{folder / HEADER} was altered, for its hash does not fit; {REMEDY}")
    if not schema.rows or set(entries) != set(schema.rows):
        raise VaestroError(f"{folder / HEADER} describes other splits than it lists; {REMEDY}")
    splits = {}
    for name, fields in entries.items():
        if set(fields) != {f.name for f in schema}:
            raise VaestroError(f"split {name!r} in {folder / HEADER} does not have the fields of the schema; {REMEDY}")
        arrays = {f.name: _map(folder, schema.rows[name], f, fields[f.name]) for f in schema}
        splits[name] = Split(name, arrays, {f: e.encoding for f, e in fields.items()})
    return Dataset(schema, splits, report, folder, entries)


def verify(dataset: Dataset) -> None:
    """Reads every row again: raises VaestroError if an array is not what its hash says, UsageError if a value is illegal."""
    for name, fields in dataset.entries.items():
        for f, entry in fields.items():
            if array_sha256(dataset.splits[name].arrays[f]) != entry.sha256:
                raise VaestroError(f"{entry.file} in {dataset.folder} was altered, for its hash does not fit; {REMEDY}")
    for split in dataset.splits.values():
        for column in dataset.schema:
            if split.encodings[column.name] is Encoding.VALUE:
                check(column, survey(b for _, b in blocks(split.arrays[column.name])))


def _read_header(folder: Path) -> tuple[Schema, Entries, PrepareReport, str]:
    path = folder / HEADER
    if not path.is_file():
        raise VaestroError(f"{folder} is not a stored data set, for it has no {HEADER}; name a folder that `vaestro data` wrote")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise VaestroError(f"{path} has format {data['format']!r}, and this version reads format {FORMAT}; update vaestro or prepare the data again")
        entries = {str(s): {str(f): _entry(e) for f, e in fields.items()} for s, fields in data["arrays"].items()}
        return Schema.from_json(data), entries, PrepareReport.from_json(data["report"]), str(data["sha256"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise VaestroError(f"{path} is not the header of a data set ({type(error).__name__}: {error}); {REMEDY}") from error
    except OSError as error:
        raise VaestroError(f"{path} cannot be read ({error.strerror}); check its permissions") from error


def _entry(data: Mapping[str, Any]) -> Entry:
    shape = tuple(int(n) for n in data["shape"])
    return Entry(str(data["file"]), str(data["dtype"]), shape, str(data["sha256"]), Encoding(data["encoding"]))


def _map(folder: Path, rows: int, column: Field, entry: Entry) -> Array:
    """One array, after everything that its file and the header say of it was compared; nothing of its content is read."""
    path = folder / entry.file
    if Path(entry.file).name != entry.file or path.resolve().parent != folder.resolve():
        raise VaestroError(f"{folder / HEADER} names the file {entry.file!r}, which is outside the folder; such a folder is not opened")
    wanted = np.dtype(np.uint8) if entry.encoding is Encoding.INTENSITY else storage(column.kind)
    if entry.encoding is Encoding.INTENSITY and not isinstance(column.kind, Binary):
        raise VaestroError(f"{folder / HEADER} stores field {column.name!r} as intensities, which only Binary fields have; {REMEDY}")
    if entry.shape != (rows, *column.shape) or entry.dtype != wanted.str or rows < 1:
        raise VaestroError(
            f"{folder / HEADER} says {entry.dtype} {entry.shape} of {entry.file}, but its schema wants {wanted.str} {(rows, *column.shape)}; {REMEDY}"
        )
    try:
        shape, dtype, start = _npy_header(path)
    except OSError as error:
        raise VaestroError(f"{path} cannot be read ({error.strerror}); {REMEDY}") from error
    except ValueError as error:
        raise VaestroError(f"{path} is not an array file ({error}); {REMEDY}") from error
    if dtype.hasobject:
        raise VaestroError(f"{path} holds Python objects, which are never loaded; {REMEDY}")
    if (shape, dtype.str) != (entry.shape, entry.dtype):
        raise VaestroError(f"{path} holds {dtype.str} {shape}, but {HEADER} says {entry.dtype} {entry.shape}; {REMEDY}")
    size, due = path.stat().st_size, start + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if size != due:
        raise VaestroError(f"{path} has {size} bytes where its header promises {due}; {REMEDY}")
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _npy_header(path: Path) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"version {version} of the format")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        if fortran:
            raise ValueError("columns first")
        return shape, dtype, file.tell()
