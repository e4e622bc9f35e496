"""Runs by name: a path, a name inside ./runs, the first letters of one, or a run that came with the package."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

from vaestro.errors import UsageError, did_you_mean
from vaestro.recipes import RECIPES
from vaestro.training.runs import ABOUT, Run, open_run, read_about

RUNS = Path("runs")
SHIPPED = Path(__file__).resolve().parent.parent / "shipped"
SHIPPED_NAMES = {"demo": SHIPPED / "vae-demo"}
P = ParamSpec("P")
T = TypeVar("T")
Named: TypeAlias = Run | Path | str  # a run, its folder, or its name


def find(name: Path | str) -> Path:
    """The folder of the run that `name` means; raises UsageError, with what was probably meant, where it is none or several."""
    text, path = str(name), Path(name).expanduser()
    if not text:
        raise UsageError("a run is named by its folder, its name inside ./runs, or the first letters of that; give one: `vaestro runs` lists them")
    if (path / ABOUT).is_file():
        return path
    if (RUNS / text / ABOUT).is_file():
        return RUNS / text
    if text in SHIPPED_NAMES and SHIPPED_NAMES[text].is_dir():
        return SHIPPED_NAMES[text]
    names = sorted(p.parent.name for p in RUNS.glob(f"*/{ABOUT}"))
    begun = [n for n in names if text and n.startswith(text)]
    if len(begun) == 1:
        return RUNS / begun[0]
    if begun:
        raise UsageError(f"{text!r} may mean {', '.join(begun)}; write more of its name")
    if path.is_dir():
        raise UsageError(f"{path} is no run, for it has no {ABOUT}; `vaestro runs` lists those that there are")
    raise UsageError(f"there is no run called {text!r}{did_you_mean(text, [*names, *(n for n, p in SHIPPED_NAMES.items() if p.is_dir())])}")


def open_found(folder: Path, device: str | None = None) -> Run:
    """The run in a folder, ready for use; raises UsageError where its recipe is the user's own and its file was not given."""
    call = str(read_about(folder)["call"])
    name = call.partition(":")[0]
    if name not in RECIPES:
        raise UsageError(f"{folder} was trained with a recipe of your own, {name!r}; give its file with --from, or in Python the recipe itself to open_run")
    return open_run(folder, device=device)


def opened(run: Any) -> Run:
    """The run, opened if it is given by its folder or name; raises UsageError where there is none, or where it is neither."""
    if isinstance(run, Run):
        return run
    if not isinstance(run, Path | str):
        raise UsageError(f"a {type(run).__name__} is no run; give one that vaestro.train or vaestro.open_run returned, or its folder or name")
    return open_found(find(run))


def by_name(verb: Callable[Concatenate[Run, P], T]) -> Callable[Concatenate[Named, P], T]:
    """The verb of a run, which takes it also by its folder or name, as the command of that name does."""

    @wraps(verb)
    def named(run: Any, *args: P.args, **options: P.kwargs) -> T:
        return verb(opened(run), *args, **options)

    return named  # type: ignore[return-value]  # `run` may be given by its name too, which Concatenate cannot say
