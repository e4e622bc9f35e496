"""The files in a folder or an archive, one after the other; nothing of an archive is ever written to the disk."""

import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from vaestro.data.cache import shown
from vaestro.data.prepare.idx import Bytes
from vaestro.errors import UsageError, VaestroError

LARGEST = 2**28  # bytes of one file that are read at most


class Member(NamedTuple):
    """One file: its name inside the folder or archive, with `/`, and how to read it."""

    name: str
    read: Callable[[], bytes]  # raises OSError or ValueError; only valid until the next member is asked for
    linked: bool = False  # it is no file but a link to a folder, and cannot be read


def members(path: Path) -> Iterator[Member]:
    """The files below a folder (sorted by name), or in a zip (sorted) or tar archive (in its order).

    A link to a file is read as the file. Links to folders may lead in a circle: they are named and cannot be read. Links in archives are passed over.
    Raises UsageError if `path` is none of these, VaestroError if the archive is broken.
    """
    if path.is_dir():
        yield from _in_folder(path)
        return
    try:
        if zipfile.is_zipfile(path):
            yield from _in_zip(path)
        elif tarfile.is_tarfile(path):
            yield from _in_tar(path)
        else:
            raise UsageError(f"{path} is neither a folder nor an archive (zip, tar, tgz)")
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise VaestroError(f"the archive {path} is broken or cannot be read ({error}); pack or fetch it again") from error


def is_archive(path: Path) -> bool:
    """Whether `path` is a zip or tar archive."""
    return path.is_file() and (zipfile.is_zipfile(path) or tarfile.is_tarfile(path))


def _in_folder(path: Path) -> Iterator[Member]:
    names = []
    for top, folders, files in os.walk(path):  # does not follow linked folders
        linked = [folder for folder in folders if Path(top, folder).is_symlink()]
        names += [(Path(top, name).relative_to(path).as_posix(), name in linked) for name in (*files, *linked)]
    yield from (Member(shown(name), partial(_read_path, path / name), linked) for name, linked in sorted(names))


def _in_zip(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in sorted((i for i in archive.infolist() if not i.is_dir()), key=lambda i: i.filename):
            yield Member(info.filename, partial(_read_zipped, archive, info))


def _in_tar(path: Path) -> Iterator[Member]:
    with tarfile.open(path) as archive:
        for info in archive:
            if info.isreg():
                yield Member(shown(info.name.removeprefix("./")), partial(_read_tarred, archive, info))


def _read_path(path: Path) -> bytes:
    if path.is_dir():
        raise ValueError("a link to a folder is not followed; copy the folder, or bring links to its files")
    if not path.is_file():
        raise ValueError("not a plain file")
    with path.open("rb") as file:
        return _read(file)


def _read_zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as file:
        return _read(file)


def _read_tarred(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(info)
    assert file is not None, "only plain files are asked for"
    with file:
        return _read(file)


def _read(file: Bytes) -> bytes:
    data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"larger than {LARGEST // 2**20} MiB")
    return data
