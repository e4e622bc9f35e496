"""What was found as files: alarms as a table, repairs as a picture; and what somebody labelled, from files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaestro.data.prepare.frames import Frame, frame_of, is_table
from vaestro.data.schema import Field, Table
from vaestro.errors import UsageError, VaestroError, did_you_mean
from vaestro.evaluation.metrics.subject import is_picture
from vaestro.uses.detect.calibrated import Detector
from vaestro.uses.detect.detecting import Detection
from vaestro.uses.detect.labels import Labelled
from vaestro.uses.detect.repairing import Repair
from vaestro.uses.detect.stream import Passed, Stream
from vaestro.uses.rows.frames import free, require_frame_writer
from vaestro.uses.rows.pictures import require_writer, visible, write


def alarms_frame(found: Detection, repairs: Sequence[Repair] = (), beside: Frame | None = None) -> Frame:
    """`Detection.frame`, with the repair of each row in words where there is one, and the user's own columns beside it, `_` behind names that are taken."""
    import polars as pl

    frame = found.frame()
    if repairs:
        said = {r.row: r.text for r in repairs}
        frame = frame.with_columns(pl.Series("repair", [said.get(i) for i in frame["row"].to_list()], dtype=pl.String))
    if beside is None:
        return frame
    taken, names = {*frame.columns, *beside.columns}, dict[str, str]()
    for own in (c for c in beside.columns if c in frame.columns):
        names[own] = free(own, taken)
        taken.add(names[own])
    return pl.concat([frame, beside.rename(names)[frame["row"].to_list()]], how="horizontal")


def own_columns(field: Field, files: Sequence[Path]) -> Frame | None:
    """The user's own table, whose columns stand beside the alarms; none where the rows are no table."""
    return frame_of(files[0]) if isinstance(field.kind, Table) and len(files) == 1 else None


def told(path: Path, truth: str) -> Labelled:
    """Labelled rows from files: a table with a column `truth` of 0 and 1, or other rows with a .npy file of them.

    Raises UsageError for a column that lacks or holds something else, VaestroError for a file that cannot be read.
    """
    if not is_table(path):
        try:
            return Labelled(path, np.load(Path(truth), allow_pickle=False))
        except (ValueError, OSError, EOFError) as error:
            raise VaestroError(f"{truth} is not an array file ({error}); write 0 and 1 with numpy.save, and name it with --truth") from None
    frame = frame_of(path)
    if truth not in frame.columns:
        raise UsageError(f"{path} has no column {truth!r} that says which rows are anomalies{did_you_mean(truth, frame.columns)}")
    values = frame[truth].cast(str).str.to_lowercase().replace({"true": "1", "false": "0"}).cast(float, strict=False)
    if values.null_count():
        row = int(values.is_null().arg_max() or 0)
        raise UsageError(f"row {row} of column {truth!r} is {frame[truth][row]!r}; labels are 0 or 1, so leave rows of which nobody knows out")
    return Labelled(frame.drop(truth), values.to_numpy())


@dataclass(frozen=True)
class Streamed:
    """A whole stream that has passed."""

    by: Detector
    rate: float
    threshold: float
    passed: Passed
    drift: int | None  # the row at which the alarm was raised

    @property
    def findings(self) -> list[str]:
        """What to know, in sentences."""
        rows, alarms = len(self.passed.scores), int(self.passed.alarms.sum())
        most = float(self.passed.evidence.max(initial=0.0))
        drift = f"Drift: none told; the evidence reached 10^{most:.1f}, and the alarm is at {self.threshold:g}."
        if self.drift is not None:
            drift = f"Drift: an alarm at row {self.drift:,}. While nothing changes, one in {self.threshold:g} streams at most ever raises it."
        share = f"{alarms:,} of {rows:,} rows are alarms; {self.rate:.1%} of usual rows would be, about {self.rate * rows:.0f} of so many."
        return [*self.by.why, share, drift]

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        alarms = np.flatnonzero(self.passed.alarms).tolist()
        about = {"run": self.by.run.name, "score": self.by.scorer.name, "rate": self.rate, "threshold": self.threshold, "rows": len(self.passed.scores)}
        return {**about, "calibration_rows": len(self.by.calibration), "alarms": alarms, "drift": self.drift, "findings": self.findings}


def streamed(by: Detector, x: Tensor, rate: float = 0.01, threshold: float = 100.0) -> Streamed:
    """All rows [n, *shape] of a stream, in unit values, in their order; raises UsageError as `Stream` does."""
    stream = Stream(by, rate, threshold)
    passed = stream.push_rows(x)
    return Streamed(by, rate, threshold, passed, stream.drift.alarm)


def stream_frame(passed: Passed) -> Frame:
    """A row for each row of a stream, in its order: its place, whether it is an alarm, p, score, log10 of the evidence of drift."""
    import polars as pl

    place = np.arange(passed.first, passed.first + len(passed.scores))
    return pl.DataFrame({"row": place, "alarm": passed.alarms, "p": passed.p, "score": passed.scores, "log10_evidence": passed.evidence})


def require_writers(field: Field, out: Path, picture: Path | None, read: Sequence[Path] = ()) -> None:
    """Raises UsageError, before any work, where a file cannot be written."""
    require_frame_writer(out, *read)
    if picture is not None:
        require_picture(picture, field)


def require_picture(path: Path, field: Field) -> None:
    """Raises UsageError where repairs of rows of a field cannot be drawn, or not to this path."""
    if not is_picture(field):
        raise UsageError(f"rows shaped {field.shape} are no pictures, so their repairs are written in words, in the column `repair` of the table")
    if path.suffix.lower() != ".png":
        raise UsageError(f"cannot write {path}: repairs of pictures are drawn as .png")
    require_writer(path)


def write_repairs(path: Path, field: Field, repairs: Sequence[Repair]) -> list[str]:
    """A line of three pictures for each repair: the row, its nearest plausible version, and what was changed; returns what to know of it."""
    require_picture(path, field)
    if not repairs:
        return ["no row was repaired, so no picture was written"]
    lines: list[Any] = []
    for r in repairs:
        (before, after), gap = (visible(field.kind, v[None])[0][0] for v in (r.before, r.after)), (r.after - r.before).abs()
        lines += [before, after, gap / (float(gap.max()) or 1.0)]
    return ["from left to right: the row, its nearest plausible version, what was changed", *write(path, field, torch.stack(lines), 3)]
