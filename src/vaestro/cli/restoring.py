"""Commands that restore pictures: noise taken away, holes completed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vaestro.cli.images import Files, Out, Resize
from vaestro.cli.making import GivenTexts
from vaestro.cli.shared import Json, Own, RunName, Seed

if TYPE_CHECKING:
    from vaestro.uses.complete import Choice

Samples = Annotated[int, typer.Option(min=1, help="Importance samples a row.")]
Draws = Annotated[int, typer.Option(min=1, help="Draws of the posterior that are kept.")]
Moves = Annotated[int, typer.Option(min=0, help="Moves of each draw.")]
RefineName = Annotated[str, typer.Option("--refine", metavar="HOW", help="How draws are moved: hamiltonian, langevin, gibbs (holes only) or none.")]


def denoise(
    run: RunName,
    files: Files,
    *,
    noise: Annotated[
        str | None, typer.Option("--noise", metavar="NAME=STRENGTH", help="gaussian=0.3, salt_and_pepper=0.1, masking=0.2; in unit values.")
    ] = None,
    samples: Samples = 256,
    draws: Draws = 64,
    moves: Moves = 40,
    refine: RefineName = "hamiltonian",
    out: Out = Path("denoised.png"),
    seed: Seed = 0,
    resize: Resize = False,
    given: GivenTexts = None,
    own: Own = None,
) -> None:
    """Take noise away: by inference under the noise that you name, or by a run that was trained as a denoiser; noisy and clean in pairs."""
    from vaestro.cli.cards import watching
    from vaestro.cli.shared import opened, wrote
    from vaestro.uses.denoise import denoised
    from vaestro.uses.inference.posterior_draws import REFINEMENTS, Effort
    from vaestro.uses.rows.given import texts
    from vaestro.uses.rows.inputs import exact, fitting
    from vaestro.uses.rows.lines import read_noisy, write_lines
    from vaestro.uses.rows.pictures import require_writer

    require_writer(out, *files)
    of, how = opened(run, own), REFINEMENTS[refine]
    rows, notes = read_noisy(files, of, fitting if resize else exact)
    with watching():
        clean, said = denoised(of, rows, noise, (Effort(samples, draws, moves), how), seed, texts(given or []))
    wrote(out, f"{len(rows)} rows denoised by {of.name}", [*notes, *said, *write_lines(out, of.field, clean[None], [rows])])


def complete(
    run: RunName,
    files: Files,
    *,
    mask: Annotated[Path | None, typer.Option(metavar="FILE", help="An image, white where rows are to be completed, or a .npy of booleans.")] = None,
    box: Annotated[str | None, typer.Option(metavar="ROW,COLUMN,HEIGHT,WIDTH", help="The hole in pixels, in place of a mask.")] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Unlike completions of each row, the likeliest first.")] = 6,
    samples: Samples = 256,
    draws: Draws = 64,
    moves: Moves = 40,
    refine: RefineName = "hamiltonian",
    out: Out = Path("completed.png"),
    seed: Seed = 0,
    resize: Resize = False,
    given: GivenTexts = None,
    own: Own = None,
    as_json: Json = False,
) -> None:
    """Complete what a mask or a box hides, in several ways, each with its probability; what is seen stays as it is."""
    from vaestro.cli.cards import watching
    from vaestro.cli.shared import opened, wrote
    from vaestro.uses.complete import complete, diverse, padded
    from vaestro.uses.inference.posterior_draws import REFINEMENTS, Effort
    from vaestro.uses.rows.given import texts
    from vaestro.uses.rows.inputs import exact, fitting, read
    from vaestro.uses.rows.lines import hole, with_hole, write_lines
    from vaestro.uses.rows.pictures import require_writer

    require_writer(out, *files)
    of, how = opened(run, own), REFINEMENTS[refine]
    rows, notes = read(files, of.field, fitting if resize else exact)
    seen = hole(of, mask, box)
    with watching():
        found = complete(of, rows, seen, Effort(samples, draws, moves), how, seed, given=texts(given or []))
    choices = [diverse(found, i, n, seed) for i in range(len(rows))]
    print_choices(choices, found.effective.tolist(), as_json)
    made = write_lines(out, of.field, padded(choices, n), [rows, with_hole(rows, seen)])
    wrote(out, f"up to {n} completions of {len(rows)} rows by {of.name}", [*notes, *made], as_json)


def print_choices(choices: "list[Choice]", effective: list[float], as_json: bool) -> None:
    """The probabilities of the completions of each row."""
    from vaestro.cli.shared import print_json, print_table

    if as_json:
        print_json([{"row": i, "probability": c.probability.tolist(), "error": c.error.tolist(), "effective": effective[i]} for i, c in enumerate(choices)])
        return
    lines = [
        (str(i), "  ".join(f"{p:.2f} ± {e:.2f}" for p, e in zip(c.probability, c.error, strict=True)), f"{effective[i]:.1f}") for i, c in enumerate(choices)
    ]
    print_table(("row", "probability of each completion ± standard error", "effective samples"), lines, numbers=(0, 2))
