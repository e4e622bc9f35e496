"""A run beside data that it was not trained on: by which score are they strange, and how surely."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from vaestro.data import load
from vaestro.data.store import Dataset
from vaestro.errors import UsageError
from vaestro.evaluation.discrimination import Area, auroc, average_precision
from vaestro.evaluation.metrics.subject import Subject
from vaestro.evaluation.networks import Setting
from vaestro.evaluation.outliers import OUTLIER_SCORES, strangeness
from vaestro.progress import tell
from vaestro.training.finding import by_name
from vaestro.training.runs import Run, title
from vaestro.uses.evaluate import Protocol, subject_on
from vaestro.uses.rows.lots import require_same

USUAL = Protocol()
TRAINING = 1000  # training rows that say what is usual


@dataclass(frozen=True)
class Line:
    """How well one score tells the other rows from the run's own: 0.5 is chance for the AUROC, the share of other rows for the average precision."""

    name: str
    auroc: Area
    precision: Area

    @property
    def wrong(self) -> bool:
        """Whether the score is surely the wrong way round: the other rows look less strange than the run's own."""
        return self.auroc.high < 0.5

    @property
    def right(self) -> bool:
        """Whether the score is surely better than chance."""
        return self.auroc.low > 0.5


@dataclass(frozen=True)
class Panel:
    """Every score on one pair of data sets; it speaks of these weights alone."""

    run: str
    call: str
    data: str  # what the run was trained on
    other: str
    split: str
    rows: tuple[int, int]  # of the run's own data, and of the other
    samples: int
    lines: tuple[Line, ...]
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def findings(self) -> list[str]:
        """What the numbers say, in plain sentences."""
        said = []
        for line in self.lines:
            if line.wrong:
                share = f"in {1 - line.auroc.value:.0%} of pairs" if line.auroc.value > 0.005 else "in practically every pair"
                said.append(f"By {line.name}, rows of {self.other} look less strange than {self.data}, on which the run was trained: {share}.")
        if best := max((line for line in self.lines if line.right), key=lambda line: line.auroc.value, default=None):
            said.append(f"Best on this pair is {best.name} (AUROC {best.auroc.value:.3f}); seen on this pair, so no promise for another.")
        else:
            said.append(f"No score surely tells rows of {self.other} from those of {self.data}.")
        return said

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        scores = {}
        for line in self.lines:
            part = OUTLIER_SCORES[line.name]
            words = {"title": part.title, "unit": part.unit, "protocol": part.protocol, "source": part.source}
            scores[line.name] = {"auroc": line.auroc._asdict(), "average_precision": line.precision._asdict(), "wrong_way_round": line.wrong, **words}
        about = {"run": self.run, "call": self.call, "data": self.data, "against": self.other, "split": self.split, "rows": list(self.rows)}
        return {**about, "samples": self.samples, "scores": scores, "refused": self.refused, "findings": self.findings}


@by_name
def panel(run: Run, against: Any, protocol: Protocol = USUAL) -> Panel:
    """Every score of strangeness on held-out rows of the run's own data and of `against` (a name, a path, arrays or a data set), by one protocol.

    AUROC with DeLong's interval and average precision with a bootstrap's; other rows should score higher. What a model or the data cannot bear is refused in
    words and the rest is given. Deterministic under the protocol's seed. Raises UsageError for other data that are the run's own or whose rows are of
    another kind or shape, for a model that is told more than x, for an unknown split, and for fewer than two rows on a side.
    """
    own, other = run.data(), load(against)
    _comparable(run, own, other)
    usual = scored(run, own, protocol._replace(split="train", rows=TRAINING))
    inside, outside = (scored(run, data, protocol) for data in (own, other))
    lines, refused = [], {}
    for done, name in enumerate(OUTLIER_SCORES):
        tell("scores of strangeness", done / len(OUTLIER_SCORES))
        try:
            a, b = (strangeness(name, rows, usual) for rows in (inside, outside))
            lines.append(Line(name, auroc(a, b), average_precision(a, b, protocol.seed)))
        except UsageError as refusal:
            refused[name] = str(refusal)
    tell("scores of strangeness", 1.0)
    sizes = len(inside.beside.index), len(outside.beside.index)
    return Panel(run.name, title(run.about), own.name, other.name, protocol.split, sizes, protocol.samples, tuple(lines), refused)


def panels(runs: Sequence[Run], against: Any, protocol: Protocol = USUAL) -> tuple[Panel, ...]:
    """`panel` of one run, or of two the two directions: the second was trained on `against`, and is shown the data of the first.

    Raises UsageError for no run or more than two, and where the second was trained on other data.
    """
    if not 1 <= len(runs) <= 2:
        raise UsageError(f"a panel has one direction or two, so it takes one run or two, not {len(runs)}")
    other = load(against)
    if len(runs) > 1 and runs[1].data().sha256 != other.sha256:
        raise UsageError(
            f"{runs[1].name} was trained on {runs[1].data().name}, not on {other.name}, so it is not the other direction; give a run trained on it"
        )
    return tuple(panel(run, data, protocol) for run, data in zip(runs, (other, runs[0].data()), strict=False))


def scored(run: Run, data: Dataset, protocol: Protocol) -> Subject:
    """The fixed rows of a split of any data that the run can read, as rows to be scored."""
    return subject_on(run, data, protocol, Setting(data))


def _comparable(run: Run, own: Dataset, other: Dataset) -> None:
    name = run.field.name
    if other.sha256 == own.sha256:
        raise UsageError(f"{other.name} is what {run.name} was trained on, so there is nothing strange to find; give other data")
    if tuple(run.recipe.fields) != (name,):
        told = ", ".join(f for f in run.recipe.fields if f != name)
        raise UsageError(f"{run.about['call']} is told {told} beside {name}, which means nothing in other data; use a run that reads {name} alone")
    require_same(run, other, "`vaestro detect` reads other files of the same columns")
