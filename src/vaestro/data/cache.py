"""Where fetched and prepared data are kept, and how progress is told."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

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
