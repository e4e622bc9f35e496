"""A search at the terminal: its budget in words, a bar while it goes on, the table and the best call."""

import re
import shlex
from pathlib import Path

import typer

from vaestro.arena.words import number
from vaestro.cli.refereeing import bar
from vaestro.cli.shared import INTERRUPTED, print_json, print_table
from vaestro.errors import UsageError
from vaestro.evaluation.intervals import Interval
from vaestro.training.budget import Budget
from vaestro.training.process import cores
from vaestro.uses.search.halving import Found, Searching, Tried, search

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
USUAL = "20m"
SHOWN = 12  # calls of the table


def seconds(text: str) -> float:
    """Seconds of `90s`, `20m`, `1.5h` or a plain number of seconds; raises UsageError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if found is None:
        raise UsageError(f"{text!r} is no time; write 90s, 20m or 2h")
    return float(found[1]) * SECONDS[found[2]]


def run_search(
    what: tuple[str, str], time: tuple[str | None, int | None], how: tuple[str | None, int | None, int, Path | None], out: Path | None, as_json: bool
) -> None:
    """Search (recipe, data) with (time, steps) and (over, jobs, seed, own), and say what came of it."""
    (recipe, data), (given, steps), (over, jobs, seed, own) = what, time, how
    if given is not None and steps is not None:
        raise UsageError("a budget is one of --budget and --steps; give only one of them")
    budget = Budget(steps=steps) if steps is not None else Budget(seconds=seconds(given or USUAL))
    names = None if over is None else tuple(n.strip() for n in over.split(",") if n.strip())
    folder = out or Path("searches") / f"{recipe.partition(':')[0]}-{Path(data).stem}"
    try:
        with bar():
            found = search(recipe, data, budget, folder, Searching(names, jobs or cores(), seed, own))
    except KeyboardInterrupt:
        typer.echo("vaestro: stopped; the same command goes on from here", err=True)
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json(found.to_json())
    else:
        show(found, data, own)


def show(found: Found, data: str, own: Path | None) -> None:
    """The table, the best call, and what to do next."""
    rows = [(t.call, str(t.units), score(t), str(len(t.values) or "")) for t in found.tried[:SHOWN]]
    print_table(("call", "length", f"{found.metric}, {found.unit}", "seeds"), rows, (1, 2, 3))
    if len(found.tried) > SHOWN:
        typer.echo(f"and {len(found.tried) - SHOWN} more, in {found.folder / 'found.json'}")
    typer.echo(f"Best:    {found.best}")
    if found.interval is not None:
        typer.echo(f"Score:   {around(found.interval)} {found.unit} on validation rows, which chose it: a test is for the arena")
    gain = "nothing found is better than the call as it is" if found.gain is None else f"{around(found.gain)} {found.unit} better than the call as it is"
    typer.echo(f"Gain:    {gain}")
    typer.echo(f"Ended:   {found.ended}")
    again = ["vaestro", "train", found.best, data, *([] if own is None else ["--from", str(own)])]
    typer.echo(f"Next:    {shlex.join(again)}")


def score(tried: Tried) -> str:
    """The mean over seeds, or why there is none."""
    return f"failed: {tried.failed}" if tried.failed else number(sum(tried.values) / len(tried.values))


def around(of: Interval) -> str:
    """`0.74 ±0.06`."""
    half = of.high - of.mean
    return f"{number(of.mean, half)} ±{number(half, half)}"
