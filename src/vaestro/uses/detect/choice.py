"""Which score of strangeness a run gets: the one that best finds rows spoilt on purpose, and the reason in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaestro.errors import UsageError, VaestroError
from vaestro.evaluation.discrimination import Area, auroc
from vaestro.evaluation.likelihood import Rows
from vaestro.evaluation.metrics.subject import Subject
from vaestro.evaluation.outliers import OUTLIER_SCORES, strangeness
from vaestro.progress import tell
from vaestro.training.runs import Run
from vaestro.uses.detect.scores import subject
from vaestro.uses.detect.spoiling import SPOILINGS, spoilt
from vaestro.uses.evaluate import Protocol

SPOILT = 100  # rows of each kind
DEAR = ("regret",)  # tried only where the others leave something to find
GOOD = 0.9  # mean AUROC
HEDGED = "combined"  # taken unless another is clearly better here, for anomalies to come may be of a kind that a single score is blind to
CLEARLY = 3.0  # standard errors; on 18 tables that are not among our results 1 cost 0.012 to 0.034 of the mean AUROC, and 3 at most 0.001


@dataclass(frozen=True)
class Choice:
    """The self-test: how well each score tells each kind of spoilt rows from good ones. It speaks of these kinds alone, not of anomalies to come."""

    score: str
    areas: Mapping[str, Mapping[str, Area]]  # by score, then by kind of spoiling
    rows: int  # good rows that were shown
    refused: Mapping[str, str] = field(default_factory=dict)

    def mean(self, score: str) -> float:
        """The mean AUROC over the kinds of spoilt rows."""
        return float(np.mean([a.value for a in self.areas[score].values()]))

    def error(self, score: str) -> float:
        """The mean of their standard errors: as if all kinds stood or fell together, for they share the good rows."""
        return float(np.mean([a.error for a in self.areas[score].values()]))

    @property
    def best(self) -> str:
        """The score with the greatest mean."""
        return max(self.areas, key=self.mean)

    def near(self, errors: float) -> list[str]:
        """The scores that are within so many standard errors of the best, in the order in which they were tried."""
        return [name for name in self.areas if self.mean(name) >= self.mean(self.best) - errors * self.error(self.best)]

    @property
    def why(self) -> list[str]:
        """The reason in sentences."""
        kinds = self.areas[self.score]
        said = [
            f"Score: {self.score} ({OUTLIER_SCORES[self.score].title}), chosen by a self-test: it tells {len(kinds)} kinds of spoilt rows from "
            f"{self.rows} good ones with a mean AUROC of {self.mean(self.score):.3f}."
        ]
        if self.best != self.score:
            why = "not clearly above it and blind to more kinds" if self.score == HEDGED else "no more than a standard error above it and dearer to compute"
            said.append(f"The best mean is {self.mean(self.best):.3f} by {self.best}, {why}.")
        worst = min(kinds, key=lambda k: kinds[k].value)
        if kinds[worst].value < GOOD:
            said.append(f"Its weakest kind is {worst} ({SPOILINGS[worst].title}): {kinds[worst].value:.3f}.")
        for name, areas in self.areas.items():
            fooled = [k for k, a in areas.items() if a.high < 0.5]
            if fooled:
                said.append(f"Fooled: {name} finds {', '.join(fooled)} rows less strange than good ones.")
        return said

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        areas = {s: {k: a._asdict() for k, a in kinds.items()} for s, kinds in self.areas.items()}
        means = {s: self.mean(s) for s in self.areas}
        return {"score": self.score, "mean_auroc": means, "auroc": areas, "good_rows": self.rows, "refused": dict(self.refused), "why": self.why}


def choose(run: Run, good: Tensor, usual: Subject, protocol: Protocol, names: Sequence[str] | None = None) -> Choice:
    """`combined`, unless another has a mean AUROC over 3 standard errors above its own on rows that are spoilt from `good` [n, *shape]; else the best one.

    Of those within a standard error of the best the cheapest is taken, as is where `combined` cannot be computed.

    `good` are validation rows that serve nothing else, `usual` training rows. Kinds of spoilt rows are `SPOILINGS`; `names` are the scores to try, by default
    all but likelihood regret, which is dear and joins where the best of the others has a mean below 0.9. What a model cannot bear is refused in words.
    Raises UsageError for fewer than two good rows, and where no score can be computed at all.
    """
    if len(good) < 2:
        raise UsageError(f"a self-test of scores needs 2 good rows or more, and there are {len(good)}; bring more validation rows, or name a score")
    bad = spoilt(run.field, good, SPOILT, protocol.seed)
    rows = subject(run, torch.cat([good, *bad.values()]), protocol)
    tried = [n for n in OUTLIER_SCORES if n not in DEAR] if names is None else list(names)
    areas, refused = _tried(tried, rows, usual, len(good), list(bad))
    found = Choice("", areas, len(good), refused)
    if names is None and (not areas or max(map(found.mean, areas)) < GOOD):
        more, no = _tried(DEAR, rows, usual, len(good), list(bad))
        found = Choice("", {**areas, **more}, len(good), {**refused, **no})
    if not found.areas:
        raise UsageError(f"no score of strangeness can be computed of {run.name}: {next(iter(found.refused.values()))}")
    return replace(found, score=HEDGED if HEDGED in found.near(CLEARLY) else found.near(1.0)[0])


def _tried(names: Sequence[str], rows: Subject, usual: Subject, good: int, kinds: list[str]) -> tuple[dict[str, dict[str, Area]], dict[str, str]]:
    areas, refused = dict[str, dict[str, Area]](), dict[str, str]()
    for done, name in enumerate(names):
        tell("self-test of scores", done / len(names))
        try:
            found: Rows = strangeness(name, rows, usual)
        except VaestroError as refusal:
            refused[name] = str(refusal)
            continue
        parts = np.split(found[good:], len(kinds))
        areas[name] = {kind: auroc(found[:good], part) for kind, part in zip(kinds, parts, strict=True)}
    tell("self-test of scores", 1.0)
    return areas, refused
