"""Writing a data set: rows arrive in blocks, so it may be larger than memory, and the folder appears only when it is whole."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vaestro.data.kinds import Array, Encoding, blocks, check, storage, survey
from vaestro.data.report import PrepareReport
from vaestro.data.schema import Binary, Field, Schema
from vaestro.data.store import HEADER, Dataset, Entry, header, open_dataset
from vaestro.errors import UsageError, VaestroError


class _Column:
    """One array under construction: a plain file, for a full disk answers a write with an error but a memory map with a crash."""

    def __init__(self, folder: Path, split: str, field: Field, rows: int, encoding: Encoding) -> None:
        if encoding is Encoding.INTENSITY and not isinstance(field.kind, Binary):
            raise UsageError(f"field {field.name!r} is {type(field.kind).__name__}, and only Binary fields are drawn anew from intensities")
        self.field, self.rows, self.encoding, self.split = field, rows, encoding, split
        self.dtype: np.dtype[Any] = np.dtype(np.uint8) if encoding is Encoding.INTENSITY else storage(field.kind)
        self.path = folder / f"{split}.{field.name}.npy"
        self.digest, self.count = hashlib.sha256(), 0
        self.file: BinaryIO = self.path.open("wb")
        np.lib.format.write_array_header_1_0(self.file, {"descr": self.dtype.str, "fortran_order": False, "shape": (rows, *field.shape)})

    def append(self, values: Array) -> None:
        if values.shape[1:] != self.field.shape:
            raise UsageError(f"field {self.field.name!r} has rows of shape {self.field.shape}, but rows of shape {values.shape[1:]} were given")
        if self.count + len(values) > self.rows:
            raise UsageError(f"split {self.split!r} has {self.rows} rows, but more were given for field {self.field.name!r}")
        if self.encoding is Encoding.VALUE:
            check(self.field, survey([values]))
        elif values.dtype != np.uint8:
            raise UsageError(f"intensities of field {self.field.name!r} must be uint8, not {values.dtype}")
        data = values.astype(self.dtype, order="C", copy=False).tobytes()
        self.file.write(data)
        self.digest.update(data)
        self.count += len(values)

    def finish(self) -> Entry:
        if self.count != self.rows:
            raise UsageError(f"split {self.split!r} has {self.rows} rows, but {self.count} were given for field {self.field.name!r}")
        self.file.flush()
        os.fsync(self.file.fileno())
        return Entry(self.path.name, self.dtype.str, (self.rows, *self.field.shape), self.digest.hexdigest(), self.encoding)


class Writer:
    """Takes the rows of a data set under construction, in any number of blocks, and in any order of splits and fields."""

    def __init__(self, folder: Path, schema: Schema) -> None:
        self.folder, self.schema = folder, schema
        self._columns: dict[tuple[str, str], _Column] = {}

    def append(self, split: str, field: str, values: Array, encoding: Encoding = Encoding.VALUE) -> None:
        """Adds the rows `values` [n, *shape]; the first block of an array decides its encoding.

        Raises UsageError for values that the field's kind does not allow, a wrong shape or too many rows.
        """
        if split not in self.schema.rows:
            raise UsageError(f"data {self.schema.name!r} has no split called {split!r}")
        if (split, field) not in self._columns:
            self._columns[split, field] = _Column(self.folder, split, self.schema[field], self.schema.rows[split], encoding)
        self._columns[split, field].append(values)

    def finish(self) -> dict[str, dict[str, Entry]]:
        """What the header says of the arrays; raises UsageError if rows are missing."""
        wanted = [(s, f.name) for s in self.schema.rows for f in self.schema]
        missing = [key for key in wanted if key not in self._columns]
        if missing:
            raise UsageError(f"split {missing[0][0]!r} was given no rows of field {missing[0][1]!r}")
        return {s: {f.name: self._columns[s, f.name].finish() for f in self.schema} for s in self.schema.rows}

    def close(self) -> None:
        """Closes every file, whatever state it is in."""
        for column in self._columns.values():
            try:
                column.file.close()
            except OSError:  # a full disk was already reported by the write that met it
                continue


def write_dataset(folder: Path | str, schema: Schema, fill: Callable[[Writer], None], report: PrepareReport | None = None) -> Dataset:
    """A new data set in `folder`, whose rows `fill` hands to a `Writer`; memory is that of the largest block.

    It is written to a temporary folder beside it and renamed, so that after an error or a full disk nothing is left. If another process
    made the same data meanwhile, theirs are opened. Raises UsageError if the folder is taken by something else, VaestroError if it cannot be written.
    """
    folder = Path(folder)
    refuse_taken(folder)
    odd = next((f.name for f in schema if {"/", "\0"} & set(f.name)), None)
    if odd is not None:
        raise UsageError(f"the array {odd!r} cannot be stored, for its name would be part of a file's name; give it one without {'/' if '/' in odd else 'NUL'}")
    temporary = folder.parent / f".{folder.name}.{os.getpid()}.partial"
    writer = Writer(temporary, schema)
    try:
        _start(temporary)
        fill(writer)
        head = header(schema, writer.finish(), report or PrepareReport())
        writer.close()
        (temporary / HEADER).write_text(json.dumps(head, indent=1) + "\n", encoding="utf-8")
        _rename(temporary, folder, head["sha256"])
    except OSError as error:
        raise VaestroError(f"{folder} could not be written ({error.strerror or error}); free some space or choose another folder") from error
    finally:
        writer.close()
        shutil.rmtree(temporary, ignore_errors=True)
    return open_dataset(folder)


def refuse_taken(folder: Path) -> None:
    """Raises UsageError if `folder` is already something else than an empty folder."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists already; name another folder, or delete it first")


def _start(temporary: Path) -> None:
    """An empty temporary folder; what an earlier process of the same number left there is dropped."""
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)


def _rename(temporary: Path, folder: Path, sha256: str) -> None:
    try:
        temporary.replace(folder)
    except OSError:
        if not (folder / HEADER).is_file() or open_dataset(folder).sha256 != sha256:  # else another process was faster, with equal data
            raise


def save(dataset: Dataset, folder: Path | str) -> Dataset:
    """A stored copy of `dataset` in `folder`, with the same hash."""

    def fill(writer: Writer) -> None:
        for split in dataset.splits.values():
            for name, array in split.arrays.items():
                for _, block in blocks(array):
                    writer.append(split.name, name, block, split.encodings[name])

    return write_dataset(folder, dataset.schema, fill, dataset.report)
