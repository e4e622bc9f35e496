"""A referee at the terminal: entries made again, taken out, and put back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from vaestro import arena
from vaestro.arena.removal import Act
from vaestro.arena.replay import Replay
from vaestro.arena.words import many, number
from vaestro.cli.shared import console, print_json, print_table
from vaestro.errors import VaestroError
from vaestro.progress import watched


def decide(act: Callable[[Path, str, str], Act], folder: Path, entry: str, why: str) -> None:
    """Disqualify or reinstate an entry, and make the board anew."""
    made = act(folder, entry, why)
    arena.write_board(folder)
    typer.echo(f"{made.call} is {'out' if made.act == 'disqualify' else 'back'}: {made.why}.")
    typer.echo(f"Wrote {folder / 'board.json'}. Next: vaestro arena report {folder}")


def run_replay(folder: Path, entry: str | None, own: Path | None, as_json: bool) -> None:
    """Replay an entry, show every score, and raise VaestroError where one did not come again."""
    with bar():
        found = arena.replay(folder, entry, own)
    if as_json:
        print_json([r.to_json() for r in found])
    else:
        for replayed in found:
            show(replayed)
    broken = [r.id for r in found if not r.sound]
    if broken:
        raise VaestroError(f"{many(len(broken), 'run')} of {len(found)} did not come again ({', '.join(broken)}); disqualify the entry, or find what differs")


def show(replayed: Replay) -> None:
    """One run beside its replay."""
    typer.echo(f"{replayed.call}, seed {replayed.seed}, {replayed.steps:,} steps: {weights(replayed)}.")
    rows = [(s.metric, number(s.recorded), number(s.replayed), f"{number(s.low)} to {number(s.high)}", "yes" if s.within else "NO") for s in replayed.scores]
    print_table(("metric", "recorded", "replayed", "interval of the recorded run", "within"), rows, (1, 2))
    for name in replayed.lost:
        typer.echo(f"{name} has no value in the replay.")


def weights(replayed: Replay) -> str:
    """What is to be said of the weights."""
    if replayed.equal:
        return "the weights are equal, bit for bit"
    if replayed.same_machine:
        return "the weights differ, though machine, versions and threads read the same; another processor may be the reason, or the result was not made so"
    return "the weights differ, and so do the machine, the versions or the threads, so that only scores can be compared"


@contextmanager
def bar() -> Iterator[None]:
    """A bar on a terminal for whatever says how far it is."""
    to = console(err=True)
    with Progress(TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=to, disable=not to.is_terminal, transient=True) as shown:
        task = shown.add_task("", total=1.0)
        with watched(lambda what, done: shown.update(task, description=what, completed=done)):
            yield
