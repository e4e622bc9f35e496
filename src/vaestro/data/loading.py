"""One word for all data: a name, a folder, a file, arrays or a data set, and what it is decides how it is read."""

from functools import singledispatch
from pathlib import Path

from vaestro.data.cache import Progress, silent
from vaestro.data.sources import SOURCES, get
from vaestro.data.store import HEADER, Dataset, open_dataset
from vaestro.errors import UsageError, did_you_mean


@singledispatch
def load(spec: object, offline: bool = False, progress: Progress = silent) -> Dataset:
    """The data set that `spec` means. Open."""
    raise UsageError(f"a {type(spec).__name__} is no data")


@load.register
def _(spec: Dataset, offline: bool = False, progress: Progress = silent) -> Dataset:
    return spec


@load.register
def _(spec: str, offline: bool = False, progress: Progress = silent) -> Dataset:
    if spec in SOURCES:
        return get(spec, None, offline, progress)
    if Path(spec).expanduser().exists():
        return load(Path(spec).expanduser(), offline, progress)
    raise UsageError(f"there is no data set and no file called {spec!r}{did_you_mean(spec, SOURCES)}")


@load.register
def _(spec: Path, offline: bool = False, progress: Progress = silent) -> Dataset:
    if (spec / HEADER).is_file():
        return open_dataset(spec)
    raise UsageError(f"{spec} is no data")
