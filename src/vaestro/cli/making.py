"""Commands that use a trained run."""

from pathlib import Path
from typing import Annotated

import typer

from vaestro.cli.shared import Own, RunName, Seed

Out = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="A picture (.png), or numbers (.npy, .csv).")]
NOISE = "Draw from the likelihood, noise and all, instead of its mean."
TOLD = "What the model is told: label=7, several as label=0,1,2, numbers as c=0.5,1.2, or c=rows.npy. May be repeated."
GivenTexts = Annotated[list[str] | None, typer.Option("--given", metavar="NAME=VALUE", help=TOLD)]
USUAL = 64


def generate(
    run: RunName,
    *,
    n: Annotated[int | None, typer.Option("-n", min=1, help="How many; 64 if left out, or 8 of each class of a model that is told one.")] = None,
    out: Out = Path("grid.png"),
    seed: Seed = 0,
    given: GivenTexts = None,
    sample: Annotated[bool, typer.Option("--sample", help=NOISE)] = False,
    own: Own = None,
) -> None:
    """Draw new rows from the prior: a grid of pictures, or a file of numbers."""
    from vaestro.cli.cards import progress
    from vaestro.cli.shared import opened, wrote
    from vaestro.progress import watched
    from vaestro.uses.generate import generate as means
    from vaestro.uses.generate import sample as draws
    from vaestro.uses.given import arranged, texts
    from vaestro.uses.pictures import require_writer, write

    require_writer(out)
    of, said = opened(run, own), texts(given or [])
    n, columns = arranged(of, n, said, USUAL)
    with progress() as told, watched(told):
        rows = draws(of, n, seed, said) if sample else means(of, n, seed, said)
    wrote(out, f"{n} {'samples' if sample else 'means'} of {of.name}", write(out, of.field, rows, columns))


def reconstruct(
    run: RunName,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Images, or a .npy file of rows as the data store them.")],
    *,
    out: Out = Path("reconstruction.png"),
    seed: Seed = 0,
    resize: Annotated[bool, typer.Option("--resize", help="Bring images to the run's size and colours first.")] = False,
    given: GivenTexts = None,
    own: Own = None,
) -> None:
    """Set rows beside what the model makes of them: the original on the left, its reconstruction on the right."""
    from vaestro.cli.cards import progress
    from vaestro.cli.shared import opened, wrote
    from vaestro.progress import watched
    from vaestro.uses.given import texts
    from vaestro.uses.inputs import exact, fitting, read
    from vaestro.uses.pictures import require_writer, write_pairs
    from vaestro.uses.reconstruct import reconstruct as back

    require_writer(out)
    of = opened(run, own)
    rows, notes = read(files, of.field, fitting if resize else exact)
    with progress() as told, watched(told):
        made = back(of, rows, seed, texts(given or []))
    wrote(out, f"{len(rows)} reconstructed by {of.name}", [*notes, *write_pairs(out, of.field, rows, made)])


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
