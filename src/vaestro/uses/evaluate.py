"""A run scored on held-out rows, with errors, and kept beside it."""

import hashlib
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
from vaestro.evaluation.columns import by_column
from vaestro.evaluation.metrics import METRICS, Cost, Group, Report, Subject, measure
from vaestro.evaluation.metrics.disentanglement import known_factors
from vaestro.evaluation.metrics.held import AT_ONCE, Held
from vaestro.evaluation.networks import Networks, Setting
from vaestro.evaluation.scope import device_of, fixed_rows
from vaestro.models import conditions_of
from vaestro.networks.judge import Judge
from vaestro.training.device import machine
from vaestro.training.files import digest, read_json, write_bytes, write_json
from vaestro.training.finding import SHIPPED, by_name
from vaestro.training.loop import weights
from vaestro.training.runs import Run, title
from vaestro.uses.features import FeatureFolder

FORMAT = 1
IDENTITY = ("format", "split", "rows", "samples", "seed", "data", "weights")  # what two evaluations of the same thing share
INCEPTION = ("fid", "kid")
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


def every() -> tuple[str, ...]:
    """The names of all registered metrics but the dear ones, which take minutes and are asked for by name."""
    return tuple(name for name, metric in METRICS.items() if not metric.dear)


def chosen(all_of_them: bool, names: Iterable[str], inception: Path | None) -> tuple[str, ...] | None:
    """What a command asks for: every metric or some by name, FID and KID where Inception's weights are given, and none of all that for the usual ones."""
    brought = () if inception is None else INCEPTION
    wanted = (*(every() if all_of_them else ()), *names, *(brought if all_of_them else ()))
    for name in wanted:
        METRICS[name]  # a misspelt one is told before anything is computed
    return tuple(dict.fromkeys(wanted)) or (None if inception is None else (*NAMES, *INCEPTION))


def subject_of(run: Run, protocol: Protocol = USUAL, inception: Path | None = None, features: Path | None = None) -> Subject:
    """A run and the fixed rows of a split, with all that metrics may read beside them; `inception` is a file of that network's weights.

    `features` is a folder where features of the data's rows are kept from one evaluation to the next.

    Raises UsageError for an unknown split, VaestroError where the run's data changed or are not to be had.
    """
    data = run.data()
    return subject_on(run, data, protocol, Setting(data, inception=inception), features)


def subject_on(run: Run, data: Dataset, protocol: Protocol, setting: Setting, features: Path | None = None) -> Subject:
    """A run and the fixed rows of a split of `data`, in the setting of their networks; raises UsageError for an unknown split.

    `features` is as in `subject_of`.
    """
    device = device_of(run.model)
    split = Rows(data.split(protocol.split), data.schema, run.recipe.fields, device)
    index = fixed_rows(split.rows, protocol.rows)

    def rows() -> Iterable[Batch]:
        return (split.batch(i.to(device)) for i in index.split(AT_ONCE))

    about = run.about
    cost = Cost(about["parameters"], about.get("seconds", math.nan), about.get("done_steps", 0), about.get("peak_memory"))
    answers, factors = answered(run, data, protocol.split, index), known_factors(data.split(protocol.split), data.schema, index.numpy())
    held = Held(data, protocol.split, index.numpy(), run.recipe.fields, None if features is None else FeatureFolder(features))
    return Subject(run.model, rows, run.field, protocol.samples, protocol.seed, about["call"], Networks(setting), cost, answers, factors, held)


def usual(subject: Subject) -> tuple[str, ...]:
    """The metrics that are measured where none is named: likelihood and its parts, reconstruction, latents, and what the data let be known."""
    return (
        *(() if subject.encodes else ("energy",)),
        *NAMES,
        *(("classification_error",) if subject.answers else ()),
        *(("mig",) if subject.factors else ()),
    )


@by_name
def evaluate(
    run: Run, protocol: Protocol = USUAL, names: Iterable[str] | None = None, inception: Path | None = None, features: Path | None = None
) -> Evaluation:
    """Measures of a run on the fixed rows of a split; without `names` likelihood with its error and ladder, ELBO and its parts, reconstruction, latents.

    `every()` names all but the dear ones. Nats a row; bits per dimension by the schema. Of a model without a posterior, the energy distance of its samples.
    What a model cannot be scored by is refused in words and the rest is given. `inception` is a file of that network's weights, for `fid` and `kid`.
    `features` is a folder where features of the data's rows are kept from one evaluation to the next (`FeatureFolder`).
    Deterministic under the protocol's seed, but for timings.
    Raises UsageError for an unknown split or metric, VaestroError where the run's data changed or are not to be had, or kept features are of something else.
    """
    subject = subject_of(run, protocol, inception, features)
    report = fairly_judged(run, measure(usual(subject) if names is None else names, subject))
    about = _about(run, protocol._replace(rows=len(subject.beside.index)), report)
    if columns := by_column(subject):
        about["columns"] = columns
    if "nll" in report.scores:
        found = subject.likelihood
        about |= {"ladder": {str(k): float(v.mean()) for k, v in sorted(found.ladder.items())}, "protocol": found.protocol}
        about |= {"bounds": list(found.bounds)} if found.bounds else {}
        about["sampling_error"] = float(np.sqrt(np.square(found.sampling_error).sum()) / len(found.log_px))
    return Evaluation(run.folder, about, {n: s.rows for n, s in report.scores.items() if s.rows is not None})


def fairly_judged(run: Run, report: Report) -> Report:
    """The report without what a judge says of a model that learnt to please it."""
    if not any(isinstance(part, Judge) for part in run.recipe.parts.modules()):
        return report
    reason = f"{run.about['call']} was trained on the layers of the judge itself"
    barred = {n for n in report.scores if n.endswith("_judge") or METRICS[n].group is Group.MODES}
    return report.without(barred, reason)


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
        words["group"] = metric.group.value
        cells[name] = {"value": _number(score.value), "error": _number(score.error), "floor": score.floor, **words}
    return {**identity(run, protocol), **named, "parameters": run.about["parameters"], "machine": machine(), "metrics": cells, "refused": report.refused}


def joined(old: Evaluation, new: Evaluation) -> Evaluation:
    """Two evaluations of one identity as one: what was measured twice is as it was measured last."""
    metrics = {**old.scores, **new.scores}
    refused = {n: why for n, why in {**old.about["refused"], **new.about["refused"]}.items() if n not in metrics}
    return Evaluation(new.folder, {**old.about, **new.about, "metrics": metrics, "refused": refused}, {**old.rows, **new.rows})


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def files(folder: Path, split: str) -> tuple[Path, Path]:
    """Where an evaluation is kept: its JSON and its rows."""
    return folder / f"evaluation-{split}.json", folder / f"evaluation-{split}.rows.npz"


def store(found: Evaluation) -> None:
    """Keep an evaluation in the run's folder, beside what was measured before on the same weights, data and protocol.

    The rows are written first, so that the JSON is there only when both are; a shipped run is left as it is.
    """
    if found.folder.resolve().is_relative_to(SHIPPED):
        return
    old = _kept(found.folder, found.about["split"])
    if old is not None and all(old.about.get(k) == found.about[k] for k in IDENTITY):
        found = joined(old, found)
    about, rows = files(found.folder, found.about["split"])
    packed = io.BytesIO()
    np.savez_compressed(packed, **found.rows)  # type: ignore[arg-type]
    write_bytes(rows, packed.getvalue())
    write_json(about, {**found.about, "rows_sha256": hashlib.sha256(packed.getvalue()).hexdigest()})


def _kept(folder: Path, split: str) -> Evaluation | None:
    """The evaluation that a folder holds of a split, if there is one that can be read."""
    about, rows = files(folder, split)
    if not (about.is_file() and rows.is_file()):
        return None
    try:
        found, packed = read_json(about), rows.read_bytes()
        if found.pop("rows_sha256", None) != hashlib.sha256(packed).hexdigest():
            return None  # a kill between the two, or another hand: it is measured again
        with np.load(io.BytesIO(packed), allow_pickle=False) as file:
            arrays = {n: file[n] for n in file.files}
    except (VaestroError, ValueError, OSError, EOFError):
        return None
    whole = all(isinstance(found.get(name), dict) for name in ("metrics", "refused"))
    return Evaluation(folder, found, arrays) if whole else None


def stored(run: Run, protocol: Protocol) -> Evaluation | None:
    """The evaluation that is kept for just these weights, data and protocol, if there is one that can be read and has the usual metrics."""
    found = _kept(run.folder, protocol.split)
    if found is None:
        return None
    same = identity(run, protocol._replace(rows=found.about.get("rows", 0)))
    whole = found.about.get("rows") == min(protocol.rows, run.schema.rows[protocol.split])
    known = {*found.scores, *found.about["refused"]}
    return found if whole and set(NAMES) <= known and all(found.about.get(k) == v for k, v in same.items()) else None


def evaluated(run: Run, protocol: Protocol = USUAL) -> Evaluation:
    """The stored evaluation of a run, or a new one, which is stored."""
    if protocol.split not in run.schema.rows:
        raise UsageError(f"data {run.schema.name!r} have no split called {protocol.split!r}; known are {', '.join(run.schema.rows)}")
    found = stored(run, protocol)
    if found is None:
        found = evaluate(run, protocol)
        store(found)
    return found
