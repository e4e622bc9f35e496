"""Commands that use a trained run."""

from pathlib import Path
from typing import Annotated

import typer

from vaestro.cli.shared import Json, Own, RunName, Seed

WRITTEN = "A picture (.png), a new folder of one each (no ending), or numbers (.npy, .csv...)."
LEFT_OUT = "If left out, grid.png, or rows.csv where rows are no pictures."
Out = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help=WRITTEN)]
NOISE = "Draw from the likelihood, noise and all, instead of its mean."
TOLD = "What the model is told: label=7, several as label=0,1,2, numbers as c=0.5,1.2, or c=rows.npy; of a table any columns, age=40,sex=F. May be repeated."
GivenTexts = Annotated[list[str] | None, typer.Option("--given", metavar="NAME=VALUE", help=TOLD)]
USUAL = 64


def generate(
    run: RunName,
    *,
    n: Annotated[int | None, typer.Option("-n", min=1, help="How many; 64 if left out, or 8 of each class of a model that is told one.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help=f"{WRITTEN} {LEFT_OUT}")] = None,
    seed: Seed = 0,
    given: GivenTexts = None,
    temperature: Annotated[float, typer.Option(help="Of the prior: its spread times this; below 1 rows are more usual.")] = 1.0,
    sample: Annotated[bool, typer.Option("--sample", help=NOISE)] = False,
    volume: Annotated[bool, typer.Option("--by-volume", help="Latents by the volume of a riemannian_vae's learnt space, not by the prior.")] = False,
    own: Own = None,
) -> None:
    """Draw new rows from the prior, of a table whole ones: a grid of pictures, or a file of numbers."""
    from vaestro.cli.cards import watching
    from vaestro.cli.shared import opened, wrote
    from vaestro.errors import UsageError
    from vaestro.evaluation.metrics.subject import is_picture
    from vaestro.uses.generate import generate as means
    from vaestro.uses.generate import is_drawn
    from vaestro.uses.generate import sample as draws
    from vaestro.uses.rows.given import arranged, texts
    from vaestro.uses.rows.pictures import require_writer, write
    from vaestro.uses.volume import by_volume

    of, said = opened(run, own), texts(given or [])
    out = out or Path("grid.png" if is_picture(of.field) else "rows.csv")
    require_writer(out)
    n, columns = arranged(of, n, said, USUAL)
    if volume and (said or sample or temperature != 1):
        raise UsageError("--by-volume draws latents without conditions, noise or temperature; leave --given, --sample and --temperature out")
    with watching():
        rows = by_volume(of, n, seed) if volume else (draws if sample else means)(of, n, seed, said, temperature)
    wrote(out, f"{n} {'samples' if sample or is_drawn(of.field) else 'means'} of {of.name}", write(out, of.field, rows, columns))


def reconstruct(
    run: RunName,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Images, a .npy file of rows as the data store them, or a table (.csv, .parquet).")],
    *,
    out: Out = Path("reconstruction.png"),
    seed: Seed = 0,
    resize: Annotated[bool, typer.Option("--resize", help="Bring images to the run's size and colours first.")] = False,
    given: GivenTexts = None,
    own: Own = None,
) -> None:
    """Set rows beside what the model makes of them: the original on the left, its reconstruction on the right."""
    from vaestro.cli.cards import watching
    from vaestro.cli.shared import opened, wrote
    from vaestro.uses.reconstruct import reconstruct as back
    from vaestro.uses.rows.given import texts
    from vaestro.uses.rows.inputs import exact, fitting, read
    from vaestro.uses.rows.pictures import require_writer, write_pairs

    require_writer(out, *files)
    of = opened(run, own)
    rows, notes = read(files, of.field, fitting if resize else exact)
    with watching():
        made = back(of, rows, seed, texts(given or []))
    wrote(out, f"{len(rows)} reconstructed by {of.name}", [*notes, *write_pairs(out, of.field, rows, made)])


def impute(
    run: RunName,
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="A table with the columns of training (.csv, .parquet) and gaps in them.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="All completed tables, numbered in the column `draw` (.csv, .parquet).")],
    draws: Annotated[int, typer.Option(min=1, help="Completed tables; one is written without a number.")] = 10,
    samples: Annotated[int, typer.Option(min=1, help="Importance samples of the latents of a row.")] = 500,
    seed: Seed = 0,
    own: Own = None,
    as_json: Json = False,
) -> None:
    """Fill the gaps of a table several times, with an interval for each cell and pooled means of columns (Rubin's rules)."""
    from vaestro.cli.cards import watching
    from vaestro.cli.shared import opened, print_json, print_table, wrote
    from vaestro.uses.impute import beside, impute
    from vaestro.uses.rows.frames import require_frame_writer, write_frame

    require_frame_writer(out, table)
    require_frame_writer(beside(out), table)
    of = opened(run, own)
    with watching():
        found = impute(of, table, draws, samples, seed)
    write_frame(out, found.long())
    write_frame(beside(out), found.cells)
    if as_json:
        print_json({"out": str(out), "cells": str(beside(out)), **found.to_json()})
        return
    wrote(out, f"{draws} completed tables" if draws > 1 else "the completed table", [])
    wrote(beside(out), f"estimates and 95 % intervals of {len(found.cells):,} cells", [f"{note}." for note in found.notes])
    rows = [(name, f"{p.estimate:.6g}", f"{p.low:.6g} to {p.high:.6g}", f"{p.missing:.1%}") for name, p in found.pooled.items()]
    if rows:
        print_table(("mean of", "estimate", "95 % interval", "variance due to gaps"), rows, numbers=(1, 2, 3))


def export(
    run: RunName,
    *,
    onnx: Annotated[Path, typer.Option(metavar="FILE", help="NAME.onnx gives NAME-encoder.onnx and NAME-decoder.onnx.")],
    own: Own = None,
) -> None:
    """Write the encoder (data to the posterior's mean) and the decoder (latents to the likelihood's mean) as ONNX."""
    from vaestro.cli.shared import opened, wrote
    from vaestro.training.export import export_onnx

    for path, what in export_onnx(opened(run, own), onnx):
        wrote(path, what, [])
