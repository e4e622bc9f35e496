"""A prior fitted to a trained model's latents, as a run of its own."""

import copy
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vaestro.data.rows import Rows
from vaestro.errors import UsageError, VaestroError
from vaestro.evaluation.scope import device_of, evaluating
from vaestro.recipes import Call, Recipe, call_of
from vaestro.seeds import forked
from vaestro.training.device import machine
from vaestro.training.files import digest, locked, save_tensors, write_bytes, write_json
from vaestro.training.finding import RUNS, by_name
from vaestro.training.loop import weights
from vaestro.training.monitor import vital_signs
from vaestro.training.record import Watch
from vaestro.training.runs import ABOUT, WEIGHTS, Run
from vaestro.training.stages import (
    AT_ONCE,
    LOOK,
    USUAL,
    Effort,
    book,
    draws_for,
    encode,
    fit_latents,
    log_density,
    prior_call,
    require_slot,
    slot,
    with_prior,
)


@by_name
def fit_prior(
    run: Run, prior: str | Callable[..., nn.Module], *, out: Path | str | None = None, steps: int = 3000, seed: int = 0, watch: Watch = lambda line: None
) -> Run:
    """Fit a new prior to the latents of a trained model by maximum likelihood, and return the run that has it: `vaestro.fit_prior(run, "gmm:components=10")`.

    The model stays as it is: z ~ q(z | x) are drawn for the training rows, the prior is fitted to them and chosen on validation rows (Ghosh et al. 2020,
    section 4, and Dai & Wipf 2019 for the second stage). `prior` is a call, or a function that is registered under FITTED or PRIORS. `steps` bounds a fit by
    gradients, which stops early. The new folder is `out`, by default one in `runs/`; `run` is not changed.

    Raises UsageError for a prior that is unknown or does not suit the latents, a model without exactly one prior slot, and a folder that holds a run.
    """
    call = _call(prior)
    if steps < 1:
        raise UsageError(f"a prior cannot be fitted in {steps} steps; give one or more")
    site, data, folder = require_slot(run.model, run.about["call"], run.schema), run.data(), _folder(run, call, out)
    begun, device, draws = time.monotonic(), device_of(run.model), draws_for(run.schema.rows["train"])
    train, held = (Rows(data.split(s), data.schema, run.recipe.fields, device) for s in ("train", "validation"))
    latents = encode(run.model, train, site, draws, seed), encode(run.model, held, site, 1, seed + 1)
    second = replace(run.recipe, parts=copy.deepcopy(run.recipe.parts))
    with forked():
        torch.manual_seed(seed)
        new = with_prior(second.model, call, run.schema).to(device)
    training = replace(USUAL, **call.training)
    told = fit_latents(new, (train, *latents), Effort(steps, seed, training), watch)
    if call.training and "steps" not in told:
        raise UsageError(f"{call.entry.name} is not fitted by gradients, so it takes no {', '.join(call.training)}; leave it out")
    stage = {
        "prior": str(call._replace(training={})),
        "keywords": call._replace(training={}).to_json(),
        "training": call._replace(keywords={}).resolved(training).to_json() if "steps" in told else {},
        "run": run.name,
        "weights_sha256": digest(weights(run.recipe.parts)),
        "rows": {"split": "train", "rows": train.rows, "draws": draws},
        "seed": seed,
        "log_density": {"before": log_density(run.model.get_submodule(slot(run.model)), latents[1]), "after": log_density(new, latents[1])},
        "seconds": round(time.monotonic() - begun, 2),
        **told,
    }
    return _written(Run(folder, _about(run, second, stage, _validated(second, held, seed)), second, run.schema, run.held), run)


def _call(prior: str | Callable[..., nn.Module]) -> Call:
    if isinstance(prior, str):
        return prior_call(prior)
    for entry in book().values():
        if prior in (entry.build, getattr(entry.build, "__wrapped__", None)):
            return call_of(entry, {})
    raise UsageError("a prior of your own is fitted once it is registered, so that its run can be opened again: decorate it with @FITTED.register")


def _folder(run: Run, call: Call, out: Path | str | None) -> Path:
    """Where the new run goes; refused before anything is computed."""
    folder = Path(out) if out else RUNS / f"{run.about['call'].partition(':')[0]}-{call.entry.name}-{secrets.token_hex(4)}"
    if (folder / ABOUT).exists():
        raise UsageError(f"{folder} already holds a run; choose another folder with --out")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; choose another folder with --out")
    return folder


def _validated(recipe: Recipe, held: Rows, seed: int) -> float:
    """The score on validation rows, as training says it."""
    with forked(held.device), evaluating(recipe.parts):
        torch.manual_seed(seed)
        batches = (held.batch(i) for i in torch.arange(min(held.rows, LOOK), device=held.device).split(AT_ONCE))
        return float(vital_signs(recipe, batches, 1.0)["validation"])


def _about(run: Run, second: Recipe, stage: dict[str, Any], score: float) -> dict[str, Any]:
    """What `run.json` of the new run says: all that the first one's does, and the stage."""
    own = {
        "stages": [*run.about.get("stages", []), stage],
        "status": "done",
        "ended": run.about.get("ended", "stopped"),
        "seconds": round(run.about.get("seconds", 0.0) + stage["seconds"], 2),
        "parameters": sum(p.numel() for p in second.parts.parameters() if p.requires_grad),
        "validation": score,
        "machine": machine(),
    }
    return run.about | own


def _written(new: Run, first: Run) -> Run:
    """Write a run's folder, `run.json` last, so that a folder that holds one is whole."""
    try:
        new.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VaestroError(f"cannot make the folder {new.folder}: {error.strerror}; choose another with --out") from None
    with locked(new.folder):
        log = first.folder / "metrics.jsonl"
        if log.is_file():
            write_bytes(new.folder / log.name, log.read_bytes())
        sha256 = save_tensors(new.folder / WEIGHTS, weights(new.recipe.parts), {"step": first.about.get("done_steps", 0)})
        about = new.about | {"weights_sha256": sha256}
        write_json(new.folder / ABOUT, about)
    return replace(new, about=about)
