"""A run is a folder: its recipe's call, data and budget in `run.json`, weights beside it. Opening one runs no code from it."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaestro.core import Model
from vaestro.data import load
from vaestro.data.schema import Field, Schema
from vaestro.data.store import Dataset
from vaestro.errors import UsageError, VaestroError
from vaestro.recipes import Call, Recipe, recorded
from vaestro.seeds import ALONE
from vaestro.training.budget import CLOCKS, Budget
from vaestro.training.device import choose, machine, peak_memory, present
from vaestro.training.files import digest, load_tensors, locked, read_json, save_tensors, write_json
from vaestro.training.record import Line, Log, Watch, read_lines
from vaestro.training.stages import rebuild
from vaestro.training.train import STATE, Plan, Trainer, adopt

FORMAT = 1
MOST_THREADS = 1024
ABOUT, WEIGHTS = "run.json", "model.safetensors"


@dataclass(frozen=True)
class Run:
    """A trained model with all that is known of it; `model` is in evaluation mode and its weights are the averaged ones where the recipe keeps them."""

    folder: Path
    about: dict[str, Any]
    recipe: Recipe
    schema: Schema
    held: Dataset | None = None  # the data, where this process has them

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def model(self) -> Model:
        """The model itself."""
        return self.recipe.model

    @property
    def field(self) -> Field:
        """The field that the model describes."""
        return self.schema["x"]

    def data(self) -> Dataset:
        """The data that it was trained on; raises VaestroError if they have changed since, UsageError if they are not to be had."""
        return its_data(self.about, self.held)

    def log(self) -> list[Line]:
        """Every line of its log."""
        return list(read_lines(self.folder / "metrics.jsonl"))


def new_folder(call: Call, parent: Path) -> Path:
    """A fresh folder for a run: the recipe's name and eight hex digits."""
    return parent / f"{call.entry.name}-{secrets.token_hex(4)}"


def call_in(about: dict[str, Any]) -> Call:
    """The call of a run, every keyword as it was settled then."""
    return recorded(about["call"].partition(":")[0], about["keywords"])


def title(about: dict[str, Any]) -> str:
    """The call of a run and of each prior that was fitted to it later: `vae:latents=4 + gmm:components=10`."""
    return " + ".join([str(about["call"]), *(stage["prior"] for stage in about.get("stages", []) if "prior" in stage)])


def its_data(about: dict[str, Any], data: Dataset | None = None) -> Dataset:
    """The data of a run, given or brought; raises VaestroError if their hash differs, UsageError for arrays that are not given."""
    source = about["data"]["source"]
    if data is None and not source:
        raise UsageError("the run was trained on arrays, which no file keeps; give them again in Python: open_run(folder, data=x), or resume(folder, data=x)")
    data = data or load(source)
    if data.sha256 != about["data"]["sha256"]:
        raise VaestroError(
            f"data {data.schema.name!r} are not those that the run was made with (their hash differs); bring the old ones back, or train a new run"
        )
    return data


def train(
    plan: Plan, folder: Path, *, source: str = "", watch: Watch = lambda line: None, start: Path | None = None, more: dict[str, Any] | None = None
) -> Run:
    """Train a new run into an empty or new folder; `start` is a run whose weights it takes over. Raises UsageError if the folder holds a run."""
    if (folder / ABOUT).exists():
        raise UsageError(f"{folder} already holds a run; `vaestro resume {folder}` goes on with it, or choose another folder with --out")
    left = next((name for name in (WEIGHTS, STATE) if (folder / name).exists()), None)
    if left is not None:
        raise UsageError(f"{folder} holds the {left} of a run that has lost its {ABOUT}; restore that from a copy, or choose another folder with --out")
    first = None if start is None else _tensors(start)[0]
    if first is not None:
        adopt(plan.call.cook(plan.data.schema, plan.seed).parts, first)  # weights that do not fit are told before a folder is made
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VaestroError(f"cannot make the folder {folder}: {error.strerror}; choose another with --out") from None
    with locked(folder), ALONE:
        trainer = Trainer(plan, folder, Log(folder, watch))
        trainer.begin(start=first)
        about = describe(plan, source, trainer) | {"stages": [{"from": str(start)}] if start else []} | (more or {})
        write_json(folder / ABOUT, about)
        if first is not None:
            trainer.checkpoint()  # whatever becomes of the run that it started from
        return _finish(trainer, about)


def resume(folder: Path, *, data: Dataset | None = None, call: Call | None = None, watch: Watch = lambda line: None) -> Run:
    """Go on with a run that was stopped, to the bits it would have had. Raises UsageError if it is finished.

    `data` are needed for a run on arrays, `call` for one of a recipe that is not in the book.
    """
    _refuse_finished(folder)  # before the lock, which writes into the folder
    with locked(folder), ALONE:
        about = _refuse_finished(folder)
        _require_device(folder, about["device"])
        torch.set_num_threads(about["threads"])  # sums are taken in another order by another number of threads
        plan = Plan(
            call or call_in(about),
            its_data(about, data),
            Budget(about["budget"]["steps"], about["budget"]["seconds"], CLOCKS[about["budget"].get("clock", "wall")]),
            about["seed"],
            about["device"],
            about.get("compile", False),
        )
        trainer = Trainer(plan, folder, Log(folder, watch))
        if (folder / STATE).exists():
            trainer.restore()
        else:
            start = about["stages"][0]["from"] if about["stages"] else None
            trainer.log.path.unlink(missing_ok=True)
            trainer.begin(about["steps"], None if start is None else _tensors(Path(start))[0])
        return _finish(trainer, about)


def _refuse_finished(folder: Path) -> dict[str, Any]:
    about = read_about(folder)
    if about["status"] == "done":
        raise UsageError(f"{folder} is finished ({about['ended']}); train on from its weights with `vaestro train ... --start {folder}`")
    return about


def _require_device(folder: Path, name: str) -> None:
    try:
        choose(name)
    except UsageError:
        raise UsageError(
            f"{folder} is trained on {name!r}, and this machine has {', '.join(present())}; go on with it there, or train on from its weights: "
            f"`vaestro train ... --start {folder}`"
        ) from None


def describe(plan: Plan, source: str, trainer: Trainer) -> dict[str, Any]:
    """What `run.json` says from the first step on."""
    schema = plan.data.schema
    return {
        "format": FORMAT,
        "call": str(plan.call),
        "keywords": plan.call.resolved(trainer.recipe.training).to_json(),
        "data": {"source": source, "sha256": plan.data.sha256, "schema": schema.to_json()},
        "seed": plan.seed,
        "budget": {"steps": plan.budget.steps, "seconds": plan.budget.seconds, "clock": CLOCKS.name_of(plan.budget.clock)},
        "steps": trainer.progress.total,
        "device": str(trainer.device),
        "threads": torch.get_num_threads(),
        "compile": plan.compile,
        "parameters": trainable(trainer.recipe),
        "machine": machine(),
        "status": "running",
    }


def trainable(recipe: Recipe) -> int:
    """The parameters that training moves, those of critics among them."""
    return sum(p.numel() for p in recipe.parts.parameters() if p.requires_grad)


def _finish(trainer: Trainer, about: dict[str, Any]) -> Run:
    try:
        ended = trainer.go()
    except VaestroError as error:
        write_json(trainer.folder / ABOUT, about | {"status": "failed", "ended": str(error)})
        raise
    trainer.checkpoint()
    step = trainer.loop.n
    tensors, score = trainer.final()
    sha256 = save_tensors(trainer.folder / WEIGHTS, tensors, {"step": step})
    done = {"status": "done", "ended": ended, "done_steps": step, "seconds": round(trainer.progress.elapsed, 2), "weights_sha256": sha256}
    numbers = {
        "validation": score,
        "unit": trainer.unit(),
        "skipped": int(trainer.loop.skipped),
        "too_large": int(trainer.loop.too_large),
        "peak_memory": peak_memory(trainer.device),
    }
    write_json(trainer.folder / ABOUT, about | done | numbers)
    return replace(open_run(trainer.folder, trainer.plan.call), held=trainer.plan.data)


def read_about(folder: Path) -> dict[str, Any]:
    """`run.json`, checked; raises VaestroError where the folder is not a run of a format that this version reads."""
    if not folder.is_dir():
        raise UsageError(f"there is no run at {folder}; `vaestro runs` lists those that there are")
    about = read_json(folder / ABOUT)
    if about.get("format") != FORMAT:
        raise VaestroError(f"{folder / ABOUT} is of format {about.get('format')}, and this version reads format {FORMAT}; use the version that made it")
    lacking = {"call", "keywords", "data", "seed", "budget", "steps", "threads", "device", "parameters", "status"} - about.keys()
    if lacking:
        raise VaestroError(f"{folder / ABOUT} lacks {', '.join(sorted(lacking))}; the file was altered: restore it from a copy")
    wrong = [name for name, is_sound in SOUND.items() if not is_sound(about)]
    if wrong:
        raise VaestroError(f"{folder / ABOUT} holds no {' and no '.join(wrong)} that vaestro writes; the file was altered: restore it from a copy")
    return about


def _words(found: Any) -> bool:
    return isinstance(found, dict) and all(isinstance(v, str) for v in found.values())


def _told(data: Any) -> bool:
    try:
        Schema.from_json(data["schema"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return False
    return isinstance(data["source"], str) and isinstance(data["sha256"], str) and isinstance(data["schema"]["name"], str)


def _staged(stage: Any) -> bool:
    return isinstance(stage, dict) and isinstance(stage.get("prior", ""), str) and isinstance(stage.get("from", ""), str) and _words(stage.get("keywords", {}))


def _allowed(budget: Any) -> bool:
    if not (isinstance(budget, dict) and {"steps", "seconds"} <= budget.keys() and isinstance(budget.get("clock", ""), str)):
        return False
    given = [budget[name] for name in ("steps", "seconds") if budget[name] is not None]
    return len(given) == 1 and type(given[0]) in (int, float) and given[0] > 0


MEASURES = ("parameters", "done_steps", "seconds", "validation", "skipped", "too_large")
SOUND: dict[str, Callable[[dict[str, Any]], bool]] = {  # parts of `run.json` that are read by their names, and what they must be
    "call": lambda about: isinstance(about["call"], str) and _words(about["keywords"]),
    "data": lambda about: _told(about["data"]),
    "stages": lambda about: isinstance(about.get("stages", []), list) and all(map(_staged, about.get("stages", []))),
    "budget": lambda about: _allowed(about["budget"]),
    "numbers": lambda about: all(type(about[name]) is int for name in ("seed", "steps", "threads")) and about["steps"] >= 0 < about["threads"] <= MOST_THREADS,
    "measures": lambda about: all(type(about.get(name, 0)) in (int, float) or about[name] is None for name in MEASURES),
    "status": lambda about: isinstance(about["status"], str) and (about["status"] != "done" or {"ended", "weights_sha256"} <= about.keys()),
}


def open_run(folder: Path, call: Call | None = None, device: str | None = None) -> Run:
    """The run in a folder, ready for use. Raises VaestroError where files are missing, cut, altered or foreign, and for an untrained run.

    A run that was stopped is opened as it stood at its last checkpoint. `call` is needed for a recipe that is not in the book.
    """
    about = read_about(folder)
    schema = Schema.from_json(about["data"]["schema"])
    tensors, sha256 = _tensors(folder)
    if about["status"] == "done" and sha256 != about["weights_sha256"]:
        raise VaestroError(f"the weights in {folder} are not those that {ABOUT} describes; restore the folder from a copy")
    recipe = rebuild((call or call_in(about)).cook(schema), about.get("stages", []), schema)
    adopt(recipe.parts, tensors)
    recipe.parts.to(choose(device)).eval()
    return Run(folder, about, recipe, schema)


def _tensors(folder: Path) -> tuple[dict[str, Tensor], str]:
    """The weights to use of a finished or a stopped run, and their hash."""
    if (folder / WEIGHTS).exists():
        tensors, _ = load_tensors(folder / WEIGHTS)
        return tensors, digest(tensors)
    if not (folder / STATE).exists():
        raise VaestroError(f"{folder} holds no trained weights yet; `vaestro resume {folder}` trains it")
    state, _ = load_tensors(folder / STATE)
    prefix = "average." if any(n.startswith("average.") for n in state) else "weights."
    tensors = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    return tensors, digest(tensors)
