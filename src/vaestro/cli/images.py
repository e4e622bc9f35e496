"""Commands that move pictures through the latents of a run."""

from pathlib import Path
from typing import Annotated

import typer

from vaestro.cli.making import GivenTexts
from vaestro.cli.shared import Own, RunName, Seed

Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Images, or a .npy file of rows as the data store them.")]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="A picture (.png), or numbers (.npy, .csv).")]
Resize = Annotated[bool, typer.Option("--resize", help="Bring images to the run's size and colours first.")]
Rows = Annotated[int, typer.Option("--rows", min=2, help="Rows of the run's data to look at.")]


def vary(
    run: RunName,
    files: Files,
    *,
    n: Annotated[int, typer.Option("-n", min=1, help="Variations of each.")] = 16,
    noise: Annotated[float, typer.Option("--noise", help="0 reconstructs, 1 draws from the posterior, more fades to the prior, inf is the prior.")] = 1.0,
    out: Out = Path("variations.png"),
    seed: Seed = 0,
    resize: Resize = False,
    given: GivenTexts = None,
    own: Own = None,
) -> None:
    """Draw variations of pictures: a line for each, the picture first."""
    from vaestro.cli.shared import opened, wrote
    from vaestro.uses.rows.given import texts
    from vaestro.uses.rows.inputs import exact, fitting, read
    from vaestro.uses.rows.lines import write_lines
    from vaestro.uses.rows.pictures import require_writer
    from vaestro.uses.vary import vary

    require_writer(out, *files)
    of = opened(run, own)
    rows, notes = read(files, of.field, fitting if resize else exact)
    made = vary(of, rows, n, noise, seed, texts(given or []))
    wrote(out, f"{n} variations of {len(rows)} rows by {of.name}", [*notes, *write_lines(out, of.field, made, [rows])])


def interpolate(
    run: RunName,
    files: Annotated[list[Path], typer.Argument(metavar="A B", help="Two images, or files of as many rows: from the first to the second.")],
    *,
    steps: Annotated[int, typer.Option(min=2, help="Pictures of the way, both ends among them.")] = 9,
    path: Annotated[str, typer.Option(metavar="PATH", help="linear, spherical, or density: around what the prior holds unlikely.")] = "linear",
    out: Out = Path("interpolation.png"),
    resize: Resize = False,
    given: GivenTexts = None,
    own: Own = None,
) -> None:
    """Draw the way from one picture to another: the pictures themselves stand at both ends of the line."""
    from vaestro.cli.shared import opened, wrote
    from vaestro.errors import UsageError
    from vaestro.uses.interpolate import PATHS, interpolate
    from vaestro.uses.rows.given import texts
    from vaestro.uses.rows.inputs import exact, fitting, read
    from vaestro.uses.rows.lines import write_lines
    from vaestro.uses.rows.pictures import require_writer

    require_writer(out, *files)
    if len(files) != 2:
        raise UsageError(f"{len(files)} files are no way; give two, where it starts and where it ends")
    of, way = opened(run, own), PATHS[path]
    (a, notes), (b, more) = (read([f], of.field, fitting if resize else exact) for f in files)
    made = interpolate(of, a, b, steps, way, texts(given or []))
    wrote(out, f"{steps} steps of {len(a)} ways by {of.name}, {path}", [*notes, *more, *write_lines(out, of.field, made, [a], last=[b])])


def traverse(
    run: RunName,
    files: Annotated[list[Path] | None, typer.Argument(metavar="[FILE]", help="The picture to start from; the first row looked at if left out.")] = None,
    *,
    steps: Annotated[int, typer.Option(min=1, help="Values of each latent.")] = 9,
    most: Annotated[int, typer.Option("-n", min=1, help="Latents to show, the most used first.")] = 20,
    rows: Rows = 1000,
    out: Out = Path("traversal.png"),
    resize: Resize = False,
    given: GivenTexts = None,
    own: Own = None,
) -> None:
    """Move each latent over its range, the others held: a line for each, sorted by use, with the nats that it carries."""
    from vaestro.cli.shared import opened, wrote
    from vaestro.uses.rows.given import texts
    from vaestro.uses.rows.inputs import exact, fitting, read
    from vaestro.uses.rows.lines import held_or_dreamt, write_lines
    from vaestro.uses.rows.pictures import require_writer
    from vaestro.uses.traverse import titles, traverse

    require_writer(out, *(files or []))
    of = opened(run, own)
    looked, notes = held_or_dreamt(of, rows)
    x, more = read(files, of.field, fitting if resize else exact) if files else (looked, [])
    found = traverse(of, x, steps, most, looked, texts(given or []))
    lines = write_lines(out, of.field, found.pictures.transpose(0, 1), words=titles(found))
    ranges = "from the 2 % to the 98 % quantile of the codes of the rows looked at; numbers are nats a row"
    wrote(out, f"{len(found.labels)} latents of {of.name}", [*notes, *more, *lines, ranges])


def arithmetic(
    run: RunName,
    files: Files,
    *,
    plus: Annotated[list[str], typer.Option("--plus", metavar="FIELD=CLASS", help="Rows that have the attribute: label=7. May be repeated.")],
    minus: Annotated[list[str] | None, typer.Option("--minus", metavar="FIELD=CLASS", help="Rows that have not; all rows if left out.")] = None,
    scale: Annotated[float, typer.Option(help="How often the attribute is added at the end of the line.")] = 1.0,
    steps: Annotated[int, typer.Option(min=1, help="Pictures from nothing added to `scale`.")] = 5,
    rows: Rows = 1000,
    out: Out = Path("arithmetic.png"),
    resize: Resize = False,
    own: Own = None,
) -> None:
    """Add an attribute to pictures: the mean code of rows that have it less that of rows that have not."""
    import torch

    from vaestro.cli.shared import opened, wrote
    from vaestro.uses.arithmetic import arithmetic, attribute
    from vaestro.uses.rows.inputs import exact, fitting, read
    from vaestro.uses.rows.lines import labelled_rows, write_lines
    from vaestro.uses.rows.pictures import require_writer

    require_writer(out, *files)
    of = opened(run, own)
    x, notes = read(files, of.field, fitting if resize else exact)
    direction = attribute(of, labelled_rows(of, plus, rows), labelled_rows(of, minus or [], rows))
    made = arithmetic(of, x, direction, torch.linspace(0.0 if steps > 1 else scale, scale, steps))
    wrote(out, f"{len(x)} rows with {', '.join(plus)} added by {of.name}", [*notes, *write_lines(out, of.field, made, [x])])
