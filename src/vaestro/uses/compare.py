"""Runs side by side: their evaluations, and paired differences where they were scored on the same rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vaestro.data.schema import Integer
from vaestro.errors import UsageError
from vaestro.evaluation.intervals import of_rows
from vaestro.training.runs import Run
from vaestro.uses.evaluate import USUAL, Evaluation, Protocol, evaluated

PAIRED = ("nll", "elbo", "reconstruction_mse")  # of which differences are told


@dataclass(frozen=True)
class Difference:
    """A metric of `run` minus that of the first run, over the same rows, with its interval; it speaks of these weights alone."""

    run: str
    metric: str
    unit: str
    mean: float
    low: float
    high: float
    level: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Comparison:
    """Evaluations side by side, and differences to the first."""

    evaluations: tuple[Evaluation, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {"runs": [e.about for e in self.evaluations], "differences": [vars(d) for d in self.differences], "notes": list(self.notes)}


def compare(runs: Sequence[Run], protocol: Protocol = USUAL) -> Comparison:
    """Evaluations of two runs or more, computed where they are not stored, and paired t-intervals of each run's rows minus the first's.

    The intervals speak of these runs, not of their recipes: that takes several seeds, as in the arena. Raises UsageError for one run, and for runs
    on other data: numbers of other pixels, levels or sizes share no column.
    """
    if len(runs) < 2:
        raise UsageError("a comparison needs two runs or more; `vaestro evaluate RUN` scores one")
    require_one_data_set(runs)
    found = tuple(evaluated(run, protocol) for run in runs)
    first, differences, notes = found[0], [], []
    for other in found[1:]:
        if first.about.get("told", []) != other.about.get("told", []):
            notes.append(f"{other.name} and {first.name} are not told the same fields, so their nats are of different things and no difference is told")
            continue
        differences += [_difference(first, other, m) for m in PAIRED if m in first.rows and m in other.rows]
    return Comparison(found, tuple(differences), tuple(notes))


def require_one_data_set(runs: Sequence[Run]) -> None:
    """Raises UsageError unless all runs were trained on the same data: same rows, same binarisation, same levels, same size, by their hash."""
    first = runs[0]
    for other in runs[1:]:
        if other.about["data"]["sha256"] != first.about["data"]["sha256"]:
            raise UsageError(
                f"{other.name} was trained on {_data(other)} and {first.name} on {_data(first)}, which are other data: their numbers are of different "
                "things and share no column; compare runs on the same data, or evaluate each by itself"
            )


def _data(run: Run) -> str:
    """The data of a run in words, with what two data sets of one name may differ in."""
    field = run.field
    kind = f"{type(field.kind).__name__} {'x'.join(map(str, field.shape))}"
    levels = f", {field.kind.levels} levels" if isinstance(field.kind, Integer) else ""
    return f"{run.schema.name!r} ({kind}{levels}, hash {run.about['data']['sha256'][:8]})"


def _difference(first: Evaluation, other: Evaluation, metric: str) -> Difference:
    interval = of_rows(other.rows[metric] - first.rows[metric])
    return Difference(other.name, metric, other.scores[metric]["unit"], interval.mean, interval.low, interval.high, interval.level)
