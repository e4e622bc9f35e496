"""An arena at the terminal: runs, board and report, one after the other."""

from collections.abc import Sequence
from pathlib import Path

import typer

from vaestro import arena
from vaestro.cli.shared import INTERRUPTED, console, print_json, wrote


def hold(what: tuple[str, str, Path | None], who: tuple[Sequence[str], Sequence[str] | None], jobs: int | None, retry: bool) -> None:
    """Run (challenge, tier, out) with (entered, only), then print the board and write the report; Ctrl-C says how to go on."""
    challenge, tier, out = what
    if retry:
        arena.forget_failures(out or place(challenge, tier))
    try:
        folder = arena.run(challenge, tier, out, who[0], jobs, who[1])
    except KeyboardInterrupt:
        typer.echo("vaestro: stopped; the same command goes on from here", err=True)
        raise typer.Exit(INTERRUPTED) from None
    print_board(arena.board(folder), False)
    wrote(arena.report(folder), f"the report of {folder}; open it in a browser", [])


def place(challenge: str, tier: str) -> Path:
    """Where `arena.run` puts its results when nobody says."""
    return Path("arena") / f"{arena.load_challenge(challenge).rules.name}-{tier}"


def print_board(board: arena.Board, as_json: bool) -> None:
    """The board as text, as wide as the terminal."""
    if as_json:
        print_json(board.to_json())
        return
    to = console()
    typer.echo(board.text(to.width if to.is_terminal else 160))
