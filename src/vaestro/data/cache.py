"""Where fetched and prepared data are kept, and how progress is told."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

LONGEST = 60  # bytes of a name within that of a folder
Progress: TypeAlias = Callable[[str, float], None]  # what is being done, and the part of it that is done, 0 to 1


def silent(what: str, done: float) -> None:
    """A progress callback that says nothing."""


def cache_folder() -> Path:
    """`$VAESTRO_CACHE`, or `vaestro` in the platform's cache folder; it need not exist yet."""
    if chosen := os.environ.get("VAESTRO_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "vaestro"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "vaestro" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vaestro"


def shown(name: str) -> str:
    """A file's name as it can be shown and stored: a byte that is no UTF-8 is written as a backslash, x and two digits."""
    return os.fsencode(name).decode(errors="backslashreplace")


def prepared_folder(kind: str, stem: str, key: str) -> Path:
    """Where the cache keeps what was made of a file or folder called `stem`; of a long name the first 60 bytes, for file systems allow some 255."""
    return cache_folder() / "data" / f"{kind}-{shown(stem).encode()[:LONGEST].decode(errors='ignore')}-{key[:12]}"
