"""What a metric is: a named function with unit, direction, protocol, needs and source; and the score it gives."""

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from vaestro.errors import NotFinite, UsageError
from vaestro.evaluation.likelihood import Rows, standard_error
from vaestro.evaluation.metrics.subject import Subject
from vaestro.progress import tell
from vaestro.registry import Registry


class Direction(Enum):
    """Which values are better; `loss` turns a value into a number of which less is better."""

    LOWER = "lower is better"
    HIGHER = "higher is better"
    ONE = "nearer to one is better"
    ZERO = "nearer to zero is better"

    def loss(self, value: float) -> float:
        """`value`, so turned that less is better: itself, its negative, |ln value| or |value|."""
        if self is Direction.ZERO:
            return abs(value)
        if self is Direction.ONE:
            return abs(math.log(value)) if value > 0 else math.inf
        return value if self is Direction.LOWER else -value


class Need(Enum):
    """What a metric cannot do without."""

    DENSITY = "a model that is a density"
    LATENTS = "a posterior over latents"
    PICTURES = "pictures [C, H, W]"
    FEATURES = "a feature network"
    COST = "the cost of training"
    LABELS = "a model that tells classes apart, and labels"
    FACTORS = "data with known factors"
    SPLITS = "the data set's other splits"


class Group(Enum):
    """What a metric speaks of; tables are ordered so."""

    DENSITY = "density"
    RECONSTRUCTION = "reconstruction"
    LATENTS = "latents"
    FACTORS = "known factors"
    CLASSES = "classes"
    QUALITY = "samples: quality and diversity"
    MODES = "samples: modes"
    HONESTY = "honesty"
    COST = "cost"
    OTHER = "other"


@dataclass(frozen=True)
class Score:
    """A value with its standard error; where the metric is a mean over rows, also the rows [n], whose mean the value is."""

    value: float
    error: float  # standard error over rows (or by resampling); NaN where it cannot be known, 0 for a count
    rows: Rows | None = None
    floor: float | None = None  # what no model can beat, where that is known

    @classmethod
    def of_rows(cls, rows: Rows, floor: float | None = None) -> "Score":
        """The mean over rows [n], with its standard error."""
        rows = np.asarray(rows, dtype=np.float64)
        return cls(float(rows.mean()), standard_error(rows), rows, floor)


@dataclass(frozen=True)
class Metric:
    """A registered measure of a trained model."""

    name: str
    title: str
    unit: str
    direction: Direction
    protocol: str
    source: str
    function: Callable[[Subject], Score]
    needs: frozenset[Need] = frozenset()
    dear: bool = False  # measured only where it is asked for by name: minutes, or few rows
    group: Group = Group.OTHER


METRICS: Registry[Metric] = Registry("metric")


@dataclass(frozen=True)
class Report:
    """What was measured, and why the rest was not."""

    scores: dict[str, Score] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def without(self, names: Collection[str], reason: str) -> "Report":
        """The report with the scores of `names`, all of them measured, refused for a reason."""
        return Report({n: s for n, s in self.scores.items() if n not in names}, {**self.refused, **dict.fromkeys(names, reason)})


def measure(names: Iterable[str], subject: Subject) -> Report:
    """Every metric of `names` on one subject; what a metric cannot score is refused in words. Raises UsageError for an unknown name."""
    report = Report()
    wanted = [METRICS[n] for n in dict.fromkeys(names)]
    for number, metric in enumerate(wanted, 1):
        said = f"{number} of {len(wanted)}: {metric.name}"
        tell(said, 0.0)
        try:
            report.scores[metric.name] = metric.function(subject)
        except (UsageError, NotFinite) as refusal:
            report.refused[metric.name] = str(refusal)
        tell(said, 1.0)
    return report


def jackknife(values: Callable[[np.ndarray, np.ndarray], np.ndarray], n: int, m: int, groups: int = 10, seed: int = 0) -> np.ndarray:
    """The standard errors of statistics of two independent sets of rows, by leaving out one of `groups` random groups of both at a time.

    sqrt((g - 1) / g * sum_i (v_i - mean v)^2) (Efron & Stein 1981; Shao & Tu 1995, section 2.3); `values` gets the indices
    that are kept; [statistics] comes back.
    A plain bootstrap would not do: repeated rows are each other's nearest neighbours.
    """
    rng = np.random.default_rng(seed)
    group_n, group_m = (rng.permutation(np.arange(size) % groups) for size in (n, m))
    left = np.array([values(np.flatnonzero(group_n != g), np.flatnonzero(group_m != g)) for g in range(groups)])
    return np.asarray(np.sqrt((groups - 1) / groups * np.square(left - left.mean(0)).sum(0)))
