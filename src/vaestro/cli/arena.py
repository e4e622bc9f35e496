"""Commands of the arena."""

from pathlib import Path
from typing import Annotated

import typer

from vaestro.cli.shared import Json, Own

app = typer.Typer(help="Competitions: entrants, budgets, a board and a report.", no_args_is_help=True)

Folder = Annotated[Path | None, typer.Argument(metavar="[ARENA]", help="An arena: its folder, or its name inside ./arena; the newest if left out.")]
Challenge = Annotated[
    str, typer.Argument(metavar="CHALLENGE", help="A challenge: its name, its folder, or `quick` (MNIST, or small digits where no source answers).")
]
Entrants = Annotated[list[str] | None, typer.Option(metavar="FILE:NAME", help="Add a recipe of your own file: my_models.py:mine. May be given several times.")]
Which = Annotated[Path, typer.Argument(metavar="ARENA", help="An arena: its folder, or its name inside ./arena.")]
Entry = Annotated[str, typer.Argument(metavar="ID|CALL", help="An entry: its call, or the ID of one of its results.")]
Why = Annotated[str, typer.Option("--why", help="The reason, which stays on the board.")]
Only = Annotated[list[str] | None, typer.Option(metavar="CALL", help="These entrants in place of the challenge's own. May be given several times.")]


@app.command()
def new(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A folder or archive of images, a file of arrays, or the name of a data set.")],
    *,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where the challenge goes; ./NAME-challenge if left out.")] = None,
    name: Annotated[str | None, typer.Option(help="What it is called; the name of the data if left out.")] = None,
) -> None:
    """Make a challenge of data of your own: hashed split, baselines, budgets and a board, ready to run."""
    from vaestro.arena import new
    from vaestro.cli.contest import made

    made(new(data, out, name))


@app.command()
def run(
    challenge: Challenge,
    *,
    tier: Annotated[str, typer.Option(help="How much each run may use: quick is a demonstration, standard is for claims.")] = "quick",
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where results go; ./arena/CHALLENGE-TIER if left out.")] = None,
    enter: Entrants = None,
    only: Only = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time; one a core if left out.")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try failed entries again.")] = False,
) -> None:
    """Train, score and rank every entrant, then write report.html. Stopped and started again, it goes on."""
    from vaestro.cli.contest import hold

    hold((challenge, tier, out), (enter or [], only), jobs, retry)


@app.command()
def board(arena: Folder = None, *, as_json: Json = False) -> None:
    """Show the board of an arena."""
    from vaestro.arena import board
    from vaestro.cli.challenges import arena_folder
    from vaestro.cli.contest import print_board

    print_board(board(arena_folder(arena)), as_json)


@app.command()
def report(
    arena: Folder = None, *, out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="report.html in the arena if left out.")] = None
) -> None:
    """Write the report of an arena: one page that needs no network."""
    from vaestro.arena import report
    from vaestro.cli.challenges import arena_folder
    from vaestro.cli.shared import wrote

    folder = arena_folder(arena)
    wrote(report(folder, out), f"the report of {folder}", [])


@app.command()
def check(arena: Folder = None, *, as_json: Json = False) -> None:
    """Verify the hash of every file that the board stands on; exits with 1 where one was altered."""
    from vaestro.arena import check
    from vaestro.cli.challenges import arena_folder
    from vaestro.cli.contest import print_checks

    print_checks(check(arena_folder(arena)), as_json)


@app.command()
def replay(
    arena: Folder = None,
    entry: Annotated[str | None, typer.Argument(metavar="[ID|CALL]", help="A result's ID, or a call with all its seeds; the leader if left out.")] = None,
    *,
    own: Own = None,
    as_json: Json = False,
) -> None:
    """Train an entry again from what its result recorded; exits with 1 where a score does not come again."""
    from vaestro.cli.challenges import arena_folder
    from vaestro.cli.refereeing import run_replay

    run_replay(arena_folder(arena), entry, own, as_json)


@app.command()
def disqualify(arena: Which, entry: Entry, *, why: Why) -> None:
    """Take an entry out of the ranking; it stays on the board with the reason."""
    from vaestro.arena import disqualify
    from vaestro.cli.challenges import arena_folder
    from vaestro.cli.refereeing import decide

    decide(disqualify, arena_folder(arena), entry, why)


@app.command()
def reinstate(arena: Which, entry: Entry, *, why: Why) -> None:
    """Rank a disqualified entry again; both decisions stay on record."""
    from vaestro.arena import reinstate
    from vaestro.cli.challenges import arena_folder
    from vaestro.cli.refereeing import decide

    decide(reinstate, arena_folder(arena), entry, why)
