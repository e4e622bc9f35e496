"""Frames as files, whole or absent."""

import io
from collections.abc import Collection
from pathlib import Path

from vaestro.data.prepare.frames import Frame
from vaestro.errors import UsageError
from vaestro.training.files import write_bytes


def require_frame_writer(path: Path, *read: Path) -> None:
    """Raises UsageError where a table cannot be written to `path`: another ending than .csv and .parquet, no such folder, or a file that is `read`."""
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise UsageError(f"cannot write {path}: a table is written as .csv or .parquet")
    require_place(path, *read)


def require_place(path: Path, *read: Path) -> None:
    """Raises UsageError where there is no folder for a file, a folder has its name, or it is one of the files that are `read`."""
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {path}: there is no folder {path.parent}; make it first, or choose another")
    if path.is_dir():
        raise UsageError(f"cannot write {path}: a folder has that name; choose another")
    if path.exists() and any(file.exists() and path.samefile(file) for file in read):
        raise UsageError(f"cannot write {path}: it is read, and would be lost; choose another name with -o")


def write_frame(path: Path, frame: Frame) -> None:
    """A frame as .csv or .parquet, by the ending of `path`; raises UsageError as `require_frame_writer` does."""
    require_frame_writer(path)
    file = io.BytesIO()
    (frame.write_parquet if path.suffix.lower() == ".parquet" else frame.write_csv)(file)
    write_bytes(path, file.getvalue())


def free(name: str, taken: Collection[str]) -> str:
    """A name for a column that is none of those taken: `name`, with as many `_` behind it as that takes."""
    while name in taken:
        name += "_"
    return name
