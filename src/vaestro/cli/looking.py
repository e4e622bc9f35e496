"""Commands that judge runs."""

from pathlib import Path
from typing import Annotated

import typer

from vaestro.cli.shared import Device, Json, Own, RunName, Seed

Samples = Annotated[int, typer.Option(min=1, help="Importance samples a row.")]
RowCount = Annotated[int, typer.Option("--rows", min=1, help="Rows to score: one fixed random choice among those of the split.")]
SplitName = Annotated[str, typer.Option(help="train, validation or test.")]


def evaluate(
    run: RunName,
    *,
    every: Annotated[bool, typer.Option("--all", help="Every metric that the run can bear, but those that take minutes.")] = False,
    metric: Annotated[list[str] | None, typer.Option(metavar="NAME", help="A metric by name; may be given again. `vaestro show NAME` says more.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE.png", help="Also draw rows, their reconstructions, and where they differ.")] = None,
    inception: Annotated[Path | None, typer.Option(metavar="FILE", help="Weights of Inception v3, for the metrics fid and kid.")] = None,
    features: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Keep the networks' features of data rows here, for the next evaluation.")] = None,
    samples: Samples = 100,
    rows: RowCount = 1000,
    split: SplitName = "test",
    seed: Seed = 0,
    device: Device = None,
    own: Own = None,
    as_json: Json = False,
) -> None:
    """Score a run on held-out rows: likelihood with its error, bounds, reconstruction, latents in use. Kept in the run's folder."""
    from vaestro.cli.cards import watching
    from vaestro.cli.shared import opened, wrote
    from vaestro.cli.tables import print_evaluation
    from vaestro.errors import UsageError
    from vaestro.uses.evaluate import Protocol, chosen, evaluate, store
    from vaestro.uses.maps import require_maps, write_maps

    of, protocol, names = opened(run, own, device), Protocol(split, rows, samples, seed), chosen(every, metric or [], inception)
    if out is not None:
        require_maps(out, of)
    with watching():
        found = evaluate(of, protocol, names, inception, features)
    if metric and not found.scores:
        raise UsageError("nothing was measured: " + "; ".join(f"{name}, for {why}" for name, why in found.about["refused"].items()))
    print_evaluation(found, as_json)
    store(found)
    if out is not None:
        wrote(out, f"errors of {of.name}", write_maps(out, of, protocol), as_json)


def diagnose(run: RunName, *, own: Own = None, as_json: Json = False) -> None:
    """Say in plain words what is wrong with a run, why, and what to try."""
    from vaestro.cli.shared import opened
    from vaestro.cli.tables import print_diagnosis
    from vaestro.training.diagnosis import diagnose

    of = opened(run, own)
    print_diagnosis(of, diagnose(of), as_json)


def runs(folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where to look.")] = Path("runs"), *, as_json: Json = False) -> None:
    """List the runs in a folder, newest first."""
    from vaestro.cli.tables import print_runs
    from vaestro.training.listing import listing

    print_runs(listing(folder), folder, as_json)


def compare(
    names: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="Two runs or more.")],
    *,
    samples: Samples = 100,
    rows: RowCount = 1000,
    split: SplitName = "test",
    seed: Seed = 0,
    own: Own = None,
    as_json: Json = False,
) -> None:
    """Set evaluations side by side, with paired differences where runs were scored on the same rows; what lacks is evaluated first."""
    from vaestro.cli.shared import opened
    from vaestro.cli.tables import print_comparison
    from vaestro.uses.compare import compare
    from vaestro.uses.evaluate import Protocol

    print_comparison(compare([opened(n, own) for n in names], Protocol(split, rows, samples, seed)), as_json)
