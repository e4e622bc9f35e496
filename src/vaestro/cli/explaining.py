"""The command that says what latents mean."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vaestro.cli.images import Rows
from vaestro.cli.shared import Json, Own
from vaestro.errors import UsageError

if TYPE_CHECKING:
    from vaestro.uses.explain import Explanation


def explain(
    runs: Annotated[list[str], typer.Argument(metavar="RUN [RUN...]", help="The run to explain; others of the same data show how stable its latents are.")],
    *,
    rows: Rows = 1000,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "validation",
    most: Annotated[int, typer.Option("-n", min=1, help="Latents to show, the most used first.")] = 20,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Maps of the effects (.png, .npy, .csv).")] = None,
    own: Own = None,
    as_json: Json = False,
) -> None:
    """Say what each latent does to pictures or fields, what it tells of the classes, and whether other runs found it, too."""
    from vaestro.cli.cards import watching
    from vaestro.cli.shared import opened, wrote
    from vaestro.evaluation.metrics.subject import is_picture
    from vaestro.uses.explain import explain, write_explanation
    from vaestro.uses.rows.lines import held_rows
    from vaestro.uses.rows.pictures import require_writer, write_png

    first, *others = (opened(name, own) for name in runs)
    out = Path("explanation.png") if out is None and is_picture(first.field) else out
    if out is not None and require_writer(out) is write_png and not is_picture(first.field):
        raise UsageError(f"the rows of {first.name} are no pictures, so the effects of its latents are numbers; give a .csv or .npy file")
    x, factors = held_rows(first, rows, split)
    with watching():
        found = explain([first, *others], x, factors, most=most)
    print_explanation(found, as_json)
    if out is not None:
        wrote(out, f"what {len(found.latents)} latents of {first.name} move", write_explanation(out, first, found), as_json)


def print_explanation(found: "Explanation", as_json: bool) -> None:
    """A row for each latent."""
    from vaestro.cli.shared import print_json, print_table
    from vaestro.cli.tables import number, say

    if as_json:
        print_json(found.to_json())
        return
    lines = []
    for z in found.latents:
        linked = "; ".join(f"{link.factor} {link.nats:.3f} [{link.low:.3f}, {link.high:.3f}] of {link.entropy:.2f}" for link in z.links)
        stable = "-" if z.stability is None else f"{z.stability[0]:.2f} ({z.stability[1]:.2f} to {z.stability[2]:.2f})"
        lines.append((z.label, number(z.kl, 3), f"{z.effect:.4f}", linked or "-", stable))
    print_table(("latent", "KL, nats", "effect", "tells of, nats [95 %]", "|correlation| with other runs"), lines, numbers=(1, 2))
    say(f"Over {found.rows:,} rows and {found.runs} runs. The effect is the mean change of x, in unit values, as a latent moves by its standard deviation.")
