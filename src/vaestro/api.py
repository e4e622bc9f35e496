"""The verbs of the library: what `import vaestro` offers and the command line calls."""

from collections.abc import Callable
from dataclasses import replace
from functools import singledispatch
from pathlib import Path
from typing import Any

from vaestro.core import Model
from vaestro.data import SOURCES, Dataset, load
from vaestro.data.cache import shown
from vaestro.errors import UsageError
from vaestro.recipes import Call, call_of, parse
from vaestro.recipes.own import from_model, from_modules
from vaestro.seeds import seed_of
from vaestro.training import runs
from vaestro.training.budget import Budget
from vaestro.training.compiling import require_compiler
from vaestro.training.device import choose
from vaestro.training.diagnosis import diagnose
from vaestro.training.finding import RUNS, find, open_found
from vaestro.training.record import Watch
from vaestro.training.runs import Run
from vaestro.training.train import Plan

__all__ = ["budget", "diagnose", "open_run", "plan", "resume", "source_of", "to_call", "train"]

SECONDS = 300.0  # of training, where no budget is named


@singledispatch
def to_call(recipe: Callable[..., Any]) -> Call:
    """A call from whatever names a recipe: its text, a function of a schema, a Model, or an (encoder, decoder) pair."""
    if not callable(recipe):
        raise UsageError(f"{recipe!r} is no recipe: give a call such as 'vae:latents=20', a function of a schema, a Model, or an (encoder, decoder) pair")
    return call_of(recipe, {})


to_call.register(str, parse)
to_call.register(Model, lambda model: call_of(from_model(model), {}))


@to_call.register
def _(recipe: tuple) -> Call:  # type: ignore[type-arg, misc]
    if len(recipe) != 2:
        raise UsageError(f"{len(recipe)} modules are no recipe; give (encoder, decoder), and with another likelihood vaestro.recipes.own.from_modules")
    return call_of(from_modules(*recipe), {})


to_call.register(Call, lambda call: call)  # a Call is a tuple too, and no pair of modules


def budget(seconds: float | None = None, steps: int | None = None) -> Budget:
    """A budget of seconds or steps, five minutes if neither is given."""
    return Budget(steps, SECONDS if seconds is None and steps is None else seconds)


def plan(recipe: Any, data: Any, budget: Budget, seed: int = 0, device: str | None = None, compile: bool = False) -> Plan:
    """What is trained, on what and for how long; raises UsageError on anything misspelt, out of range or that does not fit."""
    call, dataset, place = to_call(recipe), load(data), choose(device)
    call.cook(dataset.schema, seed_of(seed))  # whatever does not fit is told before a folder is made
    if compile:
        require_compiler(place)
    return Plan(call, dataset, budget, seed, device, compile)


@singledispatch
def source_of(data: Any) -> str:
    """Where data can be had again, for `run.json`: the name or the whole path; nothing for arrays. Raises UsageError for a path that is no UTF-8."""
    return ""


@source_of.register
def _(data: Dataset) -> str:
    return source_of(data.folder.resolve()) if data.folder is not None else ""


@source_of.register(str)
@source_of.register(Path)
def _(data: str | Path) -> str:
    if str(data) in SOURCES:
        return str(data)
    path = str(Path(data).expanduser().resolve())
    if shown(path) != path:
        raise UsageError(f"the path {shown(path)} holds bytes that are no UTF-8, by which no run can name its data; rename that file or folder")
    return path


def train(  # noqa: PLR0913 (the options of a verb, each by its name)
    recipe: Any,
    data: Any,
    *,
    seconds: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    out: Path | str | None = None,
    start: Path | str | None = None,
    device: str | None = None,
    compile: bool = False,
    watch: Watch = lambda line: None,
) -> Run:
    """Train a model and return its run: `vaestro.train("iwae:samples=5", "mnist-dynamic")`, or your own parts on your own array.

    `recipe` is a call, a function of a schema, a Model, or an (encoder, decoder) pair; `data` a name, a path, an array, or a Dataset.
    Without `seconds` or `steps` it trains for five minutes. The run's folder is `out`, by default a new one in `runs/`.
    `start` is a run whose weights it takes over; `compile` fuses the model's kernels (torch.compile).
    Raises UsageError on anything misspelt, out of range or that does not fit, before a step is taken.
    """
    planned = plan(recipe, data, budget(seconds, steps), seed, device, compile)
    folder = Path(out) if out else runs.new_folder(planned.call, RUNS)
    return runs.train(planned, folder, source=source_of(data), watch=watch, start=None if start is None else find(start))


def open_run(run: Path | str, recipe: Any = None, data: Any = None) -> Run:
    """A trained run, ready for use, by its folder or name; `recipe` is needed only for your own function or modules, `data` only to score a run on arrays."""
    found = open_found(find(run)) if recipe is None else runs.open_run(find(run), to_call(recipe))
    return found if data is None else replace(found, held=runs.its_data(found.about, load(data)))


def resume(run: Path | str, *, data: Any = None, recipe: Any = None, watch: Watch = lambda line: None) -> Run:
    """Go on with a run that was stopped; arrays and recipes of your own must be given again."""
    return runs.resume(find(run), data=None if data is None else load(data), call=None if recipe is None else to_call(recipe), watch=watch)
