"""A fitted estimator as a folder, or as the numbers that a pickle holds: the run's description, its weights, and what was fitted beside it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vaestro.data.schema import Schema
from vaestro.errors import UsageError, VaestroError
from vaestro.recipes import RECIPES, Call
from vaestro.training.device import choose
from vaestro.training.files import read_json, save_tensors, write_json
from vaestro.training.loop import weights
from vaestro.training.runs import ABOUT, WEIGHTS, Run, call_in
from vaestro.training.train import adopt

FORMAT, FILE = 1, "estimator.json"
PLAIN = "biuf"  # kinds of arrays whose values JSON holds as they are
Numbers = dict[str, NDArray[Any]]


def packed_run(run: Run) -> tuple[dict[str, Any], Numbers]:
    """A run as its description and its weights."""
    return run.about, {n: t.cpu().numpy() for n, t in weights(run.recipe.parts).items()}


def fitted_run(about: dict[str, Any], numbers: Numbers, call: Call) -> Run:
    """The run of `packed_run`, made by calling its recipe again; `call` is the estimator's own, for recipes that are not in the book."""
    schema = Schema.from_json(about["data"]["schema"])
    cooked = (call_in(about) if about["call"].partition(":")[0] in RECIPES else call).cook(schema)
    adopt(cooked.parts, {n: torch.from_numpy(np.array(a)) for n, a in numbers.items()})
    cooked.parts.to(choose(None if about["device"] == "cpu" else about["device"])).eval()
    return Run(Path(), about, cooked, schema)


def write_folder(folder: Path, run: Run, about: Mapping[str, Any]) -> Path:
    """Write the run and `estimator.json`, which comes last and holds the hash of its own content.

    Raises UsageError where the folder holds a run and for arrays that JSON cannot keep, VaestroError where it cannot be written.
    """
    if (folder / ABOUT).exists():
        raise UsageError(f"{folder} already holds a run; choose another folder")
    content = json.loads(json.dumps({"format": FORMAT, **about}, default=_plain))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VaestroError(f"cannot make the folder {folder}: {error.strerror}; choose another") from None
    sha256 = save_tensors(folder / WEIGHTS, weights(run.recipe.parts), {"step": run.about["done_steps"]})
    write_json(folder / ABOUT, run.about | {"weights_sha256": sha256})
    write_json(folder / FILE, content | {"sha256": _digest(content)})
    return folder


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_folder(folder: Path, name: str, kept: Mapping[str, type]) -> dict[str, Any]:
    """The description in a folder that `write_folder` wrote for an estimator called `name`, of which `kept` says what was fitted.

    Raises UsageError for a folder of another or none, VaestroError for a description that was altered; files of older versions hold no hash.
    """
    if not (folder / FILE).is_file():
        raise UsageError(f"{folder} holds no estimator; save one with to_folder")
    about = read_json(folder / FILE)
    if about.get("format") != FORMAT:
        raise VaestroError(f"{folder / FILE} is of format {about.get('format')}, and this version reads format {FORMAT}; use the version that made it")
    if about.get("is") != name:
        raise UsageError(f"{folder} holds a {about.get('is')}; open it with {about.get('is')}.from_folder")
    lacking = {"params", "reader", "seed", "fitted"} - about.keys()
    if lacking:
        raise VaestroError(f"{folder / FILE} lacks {', '.join(sorted(lacking))}; the file was altered: restore it from a copy")
    said = about.pop("sha256", None)
    if said is not None and said != _digest(about):
        raise VaestroError(f"{folder / FILE} is not as it was written (its hash differs); the file was altered: restore it from a copy")
    wrong = [n for n, kind in (("params", dict), ("reader", dict), ("seed", int), ("fitted", dict)) if not isinstance(about[n], kind)]
    fitted = {} if wrong else {n: _restored(v) for n, v in about["fitted"].items()}
    wrong += [] if wrong else [n for n, kind in kept.items() if not isinstance(fitted.get(n), kind)]
    if wrong:
        raise VaestroError(f"{folder / FILE} holds no {wrong[0]!r} that can be read; the file was altered: restore it from a copy")
    return about | {"fitted": fitted}


def _plain(value: Any) -> Any:
    """What JSON does not know: arrays, their numbers, calls of recipes; a generator of random numbers and a recipe of one's own are not kept."""
    if not isinstance(value, np.ndarray):
        return value.item() if isinstance(value, np.generic) else None
    kind = value.dtype.kind
    if kind == "O" and all(isinstance(v, str | bool | int | float | np.integer | np.floating | np.bool_) for v in value.flat):
        return {"array": value.tolist(), "dtype": "str"}
    if kind not in PLAIN + "UM":
        raise UsageError(
            f"an array of {value.dtype} values, such as {value.flat[0]!r}, is not kept in a folder; fit with words, numbers or datetime64, or pickle it"
        )
    return {"array": value.astype(str).tolist() if kind == "M" else value.tolist(), "dtype": value.dtype.str}


def _restored(value: Any) -> Any:
    """A fitted value; nothing where it is an array that cannot be read."""
    if not (isinstance(value, dict) and "array" in value):
        return value
    try:
        dtype = str(value["dtype"])
        return np.array(value["array"], dtype=object if dtype == "str" else np.dtype(dtype))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
