"""A fitted estimator as a folder, or as the numbers that a pickle holds: the run's description, its weights, and what was fitted beside it."""

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
    """Write the run and `estimator.json`, which comes last; raises UsageError where the folder holds a run, VaestroError where it cannot be written."""
    if (folder / ABOUT).exists():
        raise UsageError(f"{folder} already holds a run; choose another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VaestroError(f"cannot make the folder {folder}: {error.strerror}; choose another") from None
    sha256 = save_tensors(folder / WEIGHTS, weights(run.recipe.parts), {"step": run.about["done_steps"]})
    write_json(folder / ABOUT, run.about | {"weights_sha256": sha256})
    write_json(folder / FILE, json.loads(json.dumps({"format": FORMAT, **about}, default=_plain)))
    return folder


def read_folder(folder: Path, name: str) -> dict[str, Any]:
    """The description in a folder that `write_folder` wrote for an estimator called `name`; raises UsageError for a folder of another or none."""
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
    return about | {"fitted": {n: _restored(v) for n, v in about["fitted"].items()}}


def _plain(value: Any) -> Any:
    """What JSON does not know: arrays, their numbers, calls of recipes; a generator of random numbers and a recipe of one's own are not kept."""
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": "str" if value.dtype.kind in "OU" else value.dtype.str}
    return value.item() if isinstance(value, np.generic) else None


def _restored(value: Any) -> Any:
    if isinstance(value, dict) and "array" in value:
        return np.array(value["array"], dtype=object if value["dtype"] == "str" else np.dtype(value["dtype"]))
    return value
