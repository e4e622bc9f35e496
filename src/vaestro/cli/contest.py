"""An arena at the terminal: runs, board and report, one after the other."""

from collections.abc import Sequence
from pathlib import Path

import typer

from vaestro import arena
from vaestro.arena.running import resolve
from vaestro.cli.shared import INTERRUPTED, console, print_json, wrote
from vaestro.errors import VaestroError


def hold(what: tuple[str, str, Path | None], who: tuple[Sequence[str], Sequence[str] | None], jobs: int | None, retry: bool) -> None:
    """Run (challenge, tier, out) with (entered, only), then print the board and write the report; Ctrl-C says how to go on."""
    challenge, tier, out = what
    if retry:
        forget(out or place(challenge, tier))
    try:
        folder = arena.run(challenge, tier, out, who[0], jobs, who[1])
    except KeyboardInterrupt:
        typer.echo("vaestro: stopped; the same command goes on from here", err=True)
        raise typer.Exit(INTERRUPTED) from None
    arena.write_board(folder)
    print_board(arena.board(folder), False)
    wrote(arena.report(folder), f"the report of {folder}; open it in a browser", [])


def forget(folder: Path) -> None:
    """Let failed entries be tried again, in an arena that is there already."""
    if folder.is_dir():
        arena.forget_failures(folder)


def place(challenge: str, tier: str) -> Path:
    """Where `arena.run` puts its results when nobody says."""
    return Path("arena") / f"{resolve(challenge)[0].rules.name}-{tier}"


def print_board(board: arena.Board, as_json: bool) -> None:
    """The board as text, as wide as the terminal."""
    if as_json:
        print_json(board.to_json())
        return
    to = console()
    typer.echo(arena.render(board, to.width if to.is_terminal else 160))


def made(challenge: arena.Challenge) -> None:
    """Say what a new challenge holds and how to run it."""
    rules = challenge.rules
    typer.echo(f"Wrote {challenge.file}: the challenge {rules.name!r}, {len(rules.entrants)} entrants ({', '.join(rules.entrants)}).")
    typer.echo(f"Ranked by {rules.headline.metric}. Next: vaestro arena run {challenge.file.parent}")


def print_checks(found: Sequence[arena.Check], as_json: bool) -> None:
    """A line for each thing that was looked at; raises VaestroError where one was altered."""
    altered = [c for c in found if c.problem]
    if as_json:
        print_json([vars(c) for c in found])
    else:
        typer.echo("\n".join(map(str, found)))
    if altered:
        raise VaestroError(f"{len(altered)} of {len(found)} things are not what they were; bring the old ones back, or run the challenge again")
