"""Alarms among new rows at a stated false-discovery rate."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from vaestro.data.prepare.frames import Frame, require_polars
from vaestro.data.schema import Table
from vaestro.evaluation.conformal import adjusted, discoveries, least_alarms, require_enough, require_level
from vaestro.evaluation.likelihood import Rows
from vaestro.training.finding import by_name
from vaestro.training.runs import Run, title
from vaestro.uses.detect.calibrated import USUAL, Detector, detector
from vaestro.uses.detect.labels import Labelled, labelled_of
from vaestro.uses.detect.scores import rows_of
from vaestro.uses.evaluate import Protocol


@dataclass(frozen=True)
class Detection:
    """What was found: for every row its score, its conformal p-value, the same adjusted for so many rows, and whether it is an alarm."""

    by: Detector
    fdr: float
    rows: Tensor  # in unit values
    scores: Rows
    p: Rows
    adjusted: Rows  # Benjamini and Hochberg: an alarm at level q where this is at most q
    alarms: np.ndarray  # bool
    notes: tuple[str, ...] = ()

    @property
    def ranked(self) -> np.ndarray:
        """Row numbers, the strangest first."""
        return np.argsort(-self.scores, kind="stable")

    @property
    def findings(self) -> list[str]:
        """What to know, in sentences."""
        n, m = len(self.by.calibration), len(self.scores)
        found = int(self.alarms.sum())
        said = [
            *self.by.why,
            f"{found:,} of {m:,} rows are alarms; among alarms, at most {self.fdr:.0%} are expected to be false, if usual rows still are as the "
            f"{n:,} {self.by.protocol.split} rows that calibrate.",
        ]
        wanted = least_alarms(n, m, self.fdr)
        if not found and wanted > 1:
            said.append(f"With {n:,} calibration rows among {m:,} new ones the first alarm needs {wanted:,} rows stranger than all of them: bring more.")
        return said

    def frame(self) -> Frame:
        """A row for each new row, the strangest first: its number, whether it is an alarm, p, adjusted p, score."""
        require_polars()
        import polars as pl

        order = self.ranked
        columns = {"row": order, "alarm": self.alarms, "p": self.p, "adjusted_p": self.adjusted, "score": self.scores}
        return pl.DataFrame({name: v if name == "row" else v[order] for name, v in columns.items()})

    def to_json(self) -> dict[str, Any]:
        """A JSON object: what was done, and the alarms, the strangest first."""
        choice = None if self.by.choice is None else self.by.choice.to_json()
        each = (("p", self.p), ("adjusted_p", self.adjusted), ("score", self.scores))
        alarms = [{"row": int(i), **{name: float(v[i]) for name, v in each}} for i in self.ranked if self.alarms[i]]
        about = {"run": self.by.run.name, "call": title(self.by.run.about), "score": self.by.scorer.name, "fdr": self.fdr, "rows": len(self.scores)}
        said = {"self_test": choice, "findings": self.findings, "notes": list(self.notes)}
        return {**about, "calibration_rows": len(self.by.calibration), "alarms": alarms, **said}


@by_name
def detect(
    run: Run, source: Any, fdr: float = 0.1, score: str | None = None, labelled: Labelled | tuple[Any, Any] | None = None, protocol: Protocol = USUAL
) -> Detection:
    """Which rows of `source` are strange to a run, at the false-discovery rate `fdr`: scores, conformal p-values p = (1 + #{>= s}) / (n + 1), alarms.

    `source` are paths, a frame, an array in the units of the data, a tensor in unit values, or a data set. `score` is a name in OUTLIER_SCORES; without one it
    is chosen by a self-test on rows spoilt on purpose, or by `labelled` = (rows, whether each is an anomaly). Validation rows calibrate; no share of
    anomalies is assumed (Bates et al. 2023; Benjamini & Hochberg 1995). The rate holds on average, for rows that are usual as validation rows are.

    Raises UsageError for rows that do not fit the run, a level outside (0, 1), fewer calibration rows than 1 / fdr - 1, a model without any score or that is
    told more than its rows, and an unknown score.
    """
    require_level(fdr, "the false-discovery rate")
    x, notes = rows_of(run, source)
    made = detector(run, score, labelled_of(labelled), protocol)
    return detected(made, x, fdr, tuple(notes))


def detected(by: Detector, x: Tensor, fdr: float, notes: tuple[str, ...] = ()) -> Detection:
    """The alarms of a detector among rows [m, *shape] in unit values; raises UsageError for a level that its calibration rows cannot bear."""
    require_level(fdr, "the false-discovery rate")
    require_enough(len(by.held), fdr)
    scores = by.score(x)
    p = by.p_values(scores)
    blank = int(x.isnan().all(1).sum()) if isinstance(by.run.field.kind, Table) else 0
    if blank and not any("no entry" in n for n in notes):
        notes = (*notes, f"{blank} rows have no entry that was seen")
    return Detection(by, fdr, x, scores, p, adjusted(p), discoveries(p, fdr), notes)
