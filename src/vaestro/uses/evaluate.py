"""A run scored on held-out rows, with errors, and kept beside it."""

import io
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from vaestro.core import Batch
from vaestro.data.rows import Rows
from vaestro.data.store import Dataset
from vaestro.errors import UsageError, VaestroError
from vaestro.evaluation.metrics import METRICS, Cost, Report, Subject, measure
from vaestro.evaluation.metrics.disentanglement import known_factors
from vaestro.evaluation.metrics.held import AT_ONCE, Held, fixed_rows
from vaestro.evaluation.scope import device_of
from vaestro.models import conditions_of
from vaestro.training.files import digest, read_json, write_bytes, write_json
from vaestro.training.loop import weights
from vaestro.training.runs import Run, title
from vaestro.uses.finding import SHIPPED

FORMAT = 1
NAMES = ("nll", "elbo", "bits_per_dim", "kl", "cross_entropy", "reconstruction_mse", "active_units", "blur", "effective_samples", "bound_gap")


class Protocol(NamedTuple):
    """Which rows are scored and how: a part of every result."""

    split: str = "test"
    rows: int = 1000
    samples: int = 100  # importance samples a row
    seed: int = 0


USUAL = Protocol()


@dataclass(frozen=True)
class Evaluation:
    """What was measured: `about` is a JSON object, `rows` the scores of each row by metric, float64 [rows]."""

    folder: Path
    about: dict[str, Any]
    rows: dict[str, np.ndarray]

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.name

    @property
    def scores(self) -> dict[str, dict[str, Any]]:
        """Value, error, unit, direction and protocol of each metric."""
        found: dict[str, dict[str, Any]] = self.about["metrics"]
        return found


def evaluate(run: Run, protocol: Protocol = USUAL) -> Evaluation:
    """Every measure of a run on the fixed rows of a split: likelihood with its error and ladder, ELBO and its parts, reconstruction, latents.

    Nats a row; bits per dimension by the schema. Of a model without a posterior, the energy distance of its samples.
    What a model cannot be scored by is refused in words and the rest is given.
    Deterministic under the protocol's seed. Raises UsageError for an unknown split, VaestroError where the run's data changed or are not to be had.
    """
    data = run.data()
    device = device_of(run.model)
    split = Rows(data.split(protocol.split), data.schema, run.recipe.fields, device)
    index = fixed_rows(split.rows, protocol.rows)

    def rows() -> Iterable[Batch]:
        return (split.batch(i.to(device)) for i in index.split(AT_ONCE))

    cost = Cost(run.about["parameters"], run.about.get("seconds", math.nan), run.about.get("done_steps", 0))
    answers = answered(run, data, protocol.split, index)
    factors = known_factors(data.split(protocol.split), data.schema, index.numpy())
    held = Held(data, protocol.split, index.numpy(), run.recipe.fields)
    subject = Subject(run.model, rows, run.field, protocol.samples, protocol.seed, run.about["call"], {}, cost, answers, factors, held)
    alone = () if subject.encodes else ("energy",)
    report = measure((*alone, *NAMES, *(("classification_error",) if answers else ()), *(("mig",) if factors else ())), subject)
    about = _about(run, protocol._replace(rows=len(index)), report)
    if "nll" in report.scores:
        found = subject.likelihood
        about |= {"ladder": {str(k): float(v.mean()) for k, v in sorted(found.ladder.items())}, "protocol": found.protocol}
        about["sampling_error"] = float(np.sqrt(np.square(found.sampling_error).sum()) / len(found.log_px))
    return Evaluation(run.folder, about, {n: s.rows for n, s in report.scores.items() if s.rows is not None})


def answered(run: Run, data: Dataset, split: str, index: Tensor) -> Callable[[], Iterable[Batch]] | None:
    """The rows `index` with the labels that the run was told of some training rows; none for a run that was told no labels."""
    if run.recipe.told is None:
        return None
    held = Rows(data.split(split), data.schema, ("x", run.recipe.told.field), device_of(run.model))
    return lambda: (held.batch(i.to(held.device)) for i in index.split(AT_ONCE))


def identity(run: Run, protocol: Protocol) -> dict[str, Any]:
    """What an evaluation stands on: equal ones may be compared, or taken for each other where the weights are equal too."""
    return {"format": FORMAT, **protocol._asdict(), "data": run.about["data"]["sha256"], "weights": digest(weights(run.recipe.parts))}


def _about(run: Run, protocol: Protocol, report: Report) -> dict[str, Any]:
    named = {
        "run": str(run.folder),
        "call": title(run.about),
        "data_name": run.schema.name,
        "steps": run.about.get("done_steps"),
        "seconds": run.about.get("seconds"),
        "told": list(conditions_of(run.model)),
    }
    cells = {}
    for name, score in report.scores.items():
        metric = METRICS[name]
        words = {"title": metric.title, "unit": metric.unit, "direction": metric.direction.value, "protocol": metric.protocol}
        cells[name] = {"value": _number(score.value), "error": _number(score.error), "floor": score.floor, **words}
    return {**identity(run, protocol), **named, "parameters": run.about["parameters"], "metrics": cells, "refused": report.refused}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def files(folder: Path, split: str) -> tuple[Path, Path]:
    """Where an evaluation is kept: its JSON and its rows."""
    return folder / f"evaluation-{split}.json", folder / f"evaluation-{split}.rows.npz"


def store(found: Evaluation) -> None:
    """Keep an evaluation in the run's folder, the rows first, so that the JSON is there only when both are; a shipped run is left as it is."""
    if found.folder.resolve().is_relative_to(SHIPPED):
        return
    about, rows = files(found.folder, found.about["split"])
    packed = io.BytesIO()
    np.savez_compressed(packed, **found.rows)  # type: ignore[arg-type]
    write_bytes(rows, packed.getvalue())
    write_json(about, found.about)


def stored(run: Run, protocol: Protocol) -> Evaluation | None:
    """The evaluation that is kept for just these weights, data and protocol, if there is one that can be read."""
    about, rows = files(run.folder, protocol.split)
    if not (about.is_file() and rows.is_file()):
        return None
    try:
        found = read_json(about)
        with np.load(rows, allow_pickle=False) as file:
            arrays = {n: file[n] for n in file.files}
    except (VaestroError, ValueError, OSError, EOFError):
        return None
    same = identity(run, protocol._replace(rows=found.get("rows", 0)))
    whole = found.get("rows") == min(protocol.rows, run.schema.rows[protocol.split])
    return Evaluation(run.folder, found, arrays) if whole and all(found.get(k) == v for k, v in same.items()) else None


def evaluated(run: Run, protocol: Protocol = USUAL) -> Evaluation:
    """The stored evaluation of a run, or a new one, which is stored."""
    if protocol.split not in run.schema.rows:
        raise UsageError(f"data {run.schema.name!r} have no split called {protocol.split!r}; known are {', '.join(run.schema.rows)}")
    found = stored(run, protocol)
    if found is None:
        found = evaluate(run, protocol)
        store(found)
    return found
