"""The command that raises alarms."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from vaestro.cli.shared import Device, Json, Own, RunName, Seed

if TYPE_CHECKING:
    from vaestro.uses.detect import Detection, Detector

ROWS = "New rows: a table (.csv, .parquet), a .npy file of rows as the data store them, or images."
SCORE = "A score of strangeness by name; without one a self-test on rows spoilt on purpose chooses it, and says why."
LABELLED = "Rows of which it is known whether they are anomalies: they choose the score, or weigh several."
TRUTH = "Which of them are: the name of a column of that table (0 or 1), or a .npy file."
REPAIR = "How many of the strangest rows get their nearest plausible version, with the changed fields or pixels ranked."
STREAM = "Take rows as they come: an alarm where p <= RATE, and an alarm of drift for the stream as a whole."
THRESHOLD = "Of the drift alarm: while nothing changes it is false with a chance of at most 1 / this."


class Asked(NamedTuple):
    """What the command was asked for beside the rows."""

    out: Path
    fdr: float
    rate: float
    threshold: float
    repair: int
    picture: Path | None
    as_json: bool


def detect(
    run: RunName,
    files: Annotated[list[Path], typer.Argument(metavar="ROWS...", help=ROWS)],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Every row, the strangest first (.csv, .parquet).")] = Path("alarms.csv"),
    fdr: Annotated[float, typer.Option(help="The share of alarms that may be false, on average.")] = 0.1,
    score: Annotated[str | None, typer.Option(metavar="NAME", help=SCORE)] = None,
    labelled: Annotated[Path | None, typer.Option(metavar="FILE", help=LABELLED)] = None,
    truth: Annotated[str, typer.Option(metavar="COLUMN", help=TRUTH)] = "anomaly",
    repair: Annotated[int, typer.Option(min=0, help=REPAIR)] = 0,
    picture: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the repairs of pictures (.png).")] = None,
    stream: Annotated[bool, typer.Option("--stream", help=STREAM)] = False,
    rate: Annotated[float, typer.Option(help="With --stream: the share of usual rows that may be alarms.")] = 0.01,
    threshold: Annotated[float, typer.Option(help=f"With --stream. {THRESHOLD}")] = 100.0,
    samples: Annotated[int, typer.Option(min=1, help="Importance samples a row.")] = 20,
    resize: Annotated[bool, typer.Option("--resize", help="Bring images to the run's size and colours first.")] = False,
    seed: Seed = 0,
    device: Device = None,
    own: Own = None,
    as_json: Json = False,
) -> None:
    """Find strange rows: alarms at a false-discovery rate, calibrated on validation rows, with no guess of how many there are."""
    from vaestro.cli.cards import watching
    from vaestro.cli.shared import opened
    from vaestro.evaluation.conformal import require_level
    from vaestro.uses.detect import detector
    from vaestro.uses.detect.calibrated import USUAL
    from vaestro.uses.detect.scores import rows_of
    from vaestro.uses.detect.writing import require_writers, told
    from vaestro.uses.rows.inputs import exact, fitting

    of, asked = opened(run, own, device), Asked(out, fdr, rate, threshold, repair, picture, as_json)
    require_writers(of.field, out, picture, files)
    require_level(fdr, "the false-discovery rate")
    with watching():
        rows = rows_of(of, files, fitting if resize else exact)
        by = detector(of, score, None if labelled is None else told(labelled, truth), USUAL._replace(samples=samples, seed=seed))
        (run_stream if stream else run_batch)(by, rows, files, asked)


def run_batch(by: "Detector", rows: Any, files: list[Path], asked: Asked) -> None:
    """Alarms among all rows at once, the repairs of the strangest, files and words."""
    from vaestro.cli.shared import print_json, wrote
    from vaestro.uses.detect import detected
    from vaestro.uses.detect import repair as repaired
    from vaestro.uses.detect.writing import alarms_frame, own_columns, write_repairs
    from vaestro.uses.rows.frames import write_frame

    found = detected(by, rows[0], asked.fdr, tuple(rows[1]))
    repairs = repaired(by, rows[0], found.ranked[: asked.repair]) if asked.repair else []
    write_frame(asked.out, alarms_frame(found, repairs, own_columns(by.run.field, files)))
    notes = [] if asked.picture is None else write_repairs(asked.picture, by.run.field, repairs)
    if asked.as_json:
        print_json({"out": str(asked.out), **found.to_json(), "repairs": [r.to_json() for r in repairs]})
        return
    print_detection(found, [(r.row, r.text) for r in repairs])
    wrote(asked.out, f"{len(found.scores):,} rows, the strangest first", [f"{note}." for note in found.notes])
    if asked.picture is not None and repairs:
        wrote(asked.picture, f"{len(repairs)} repairs", [f"{note}." for note in notes])


def print_detection(found: "Detection", repairs: list[tuple[int, str]], most: int = 10) -> None:
    """What was found in sentences, and the strangest rows."""
    from vaestro.cli.shared import print_table
    from vaestro.cli.tables import say

    for sentence in found.findings:
        say(sentence)
    said = dict(repairs)
    rows = [
        (f"{i:,}", f"{found.scores[i]:.5g}", f"{found.p[i]:.4f}", "alarm" if found.alarms[i] else "", said.get(int(i), "")[:80])
        for i in found.ranked[: max(most, len(repairs))]
    ]
    print_table(("row", "score", "p", "", "would be usual with" if repairs else ""), rows, numbers=(0, 1, 2))


def run_stream(by: "Detector", rows: Any, files: list[Path], asked: Asked) -> None:
    """Rows in their order: an alarm each, and the alarm of drift."""
    from vaestro.cli.shared import print_json, wrote
    from vaestro.cli.tables import say
    from vaestro.uses.detect.writing import stream_frame, streamed
    from vaestro.uses.rows.frames import write_frame

    found = streamed(by, rows[0], asked.rate, asked.threshold)
    write_frame(asked.out, stream_frame(found.passed))
    if asked.as_json:
        print_json({"out": str(asked.out), **found.to_json(), "notes": list(rows[1])})
        return
    for sentence in found.findings:
        say(sentence)
    wrote(asked.out, f"{len(found.passed.scores):,} rows in their order", [f"{note}." for note in rows[1]])
