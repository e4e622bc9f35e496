"""Runs side by side: their evaluations, and paired differences where they were scored on the same rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vaestro.errors import UsageError
from vaestro.evaluation.intervals import of_rows
from vaestro.training.runs import Run
from vaestro.uses.evaluate import USUAL, Evaluation, Protocol, evaluated

PAIRED = ("nll", "elbo", "reconstruction_mse")  # of which differences are told
SAME = ("data", "split", "rows", "seed")  # what makes two runs' rows the same rows


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

    The intervals speak of these runs, not of their recipes: that takes several seeds, as in the arena. Raises UsageError for one run.
    """
    if len(runs) < 2:
        raise UsageError("a comparison needs two runs or more; `vaestro evaluate RUN` scores one")
    found = tuple(evaluated(run, protocol) for run in runs)
    first, differences, notes = found[0], [], []
    for other in found[1:]:
        if any(first.about[k] != other.about[k] for k in SAME):
            notes.append(f"{other.name} was scored on other rows than {first.name}, so their differences are not paired and none is told")
            continue
        if first.about.get("told", []) != other.about.get("told", []):
            notes.append(f"{other.name} and {first.name} are not told the same fields, so their nats are of different things and no difference is told")
            continue
        differences += [_difference(first, other, m) for m in PAIRED if m in first.rows and m in other.rows]
    return Comparison(found, tuple(differences), tuple(notes))


def _difference(first: Evaluation, other: Evaluation, metric: str) -> Difference:
    interval = of_rows(other.rows[metric] - first.rows[metric])
    return Difference(other.name, metric, other.scores[metric]["unit"], interval.mean, interval.low, interval.high, interval.level)
