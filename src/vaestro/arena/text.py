"""The board on a terminal."""

import io

from rich.console import Console
from rich.table import Table

from vaestro.arena.board import Board, Line
from vaestro.arena.result import printable
from vaestro.arena.words import cell, headline, many, place, smallest

MOST = 7  # columns; the rest stand in the report and in the JSON
SHORT = {"reconstruction_mse": "recon. error", "cross_entropy": "cross-ent.", "active_units": "active"}
STATES = {"unranked": "-", "incomplete": "...", "disqualified": "out", "failed": "x", "ranked": ""}


def render(board: Board, width: int = 120) -> str:
    """The table, the headline and the notes as plain text of at most `width` characters a line; the same bytes every time."""
    file = io.StringIO()
    console = Console(file=file, width=width, color_system=None, highlight=False, markup=False, emoji=False, legacy_windows=False, force_terminal=False)
    console.print(f"{board.title} ({board.challenge}, version {board.version}), tier {board.tier}: {board.label}")
    console.print()
    console.print(_table(board))
    for note in (headline(board), smallest(board), *_notes(board)):
        if note:
            console.print(note)
    if board.published:
        console.print("\nPublished, under other protocols, not ranked:")
        for row in board.published:
            console.print(f"  {row.value:g} {row.unit}  {row.name} ({row.protocol}; {row.source})")
    return printable("\n".join(line.rstrip() for line in file.getvalue().splitlines())) + "\n"


def _table(board: Board) -> Table:
    table = Table(box=None, padding=(0, 1), show_edge=False, pad_edge=False)
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("entry", overflow="fold", min_width=16)
    columns = [board.column(board.headline), *(c for c in board.columns if c.name != board.headline)][:MOST]
    for column in columns:
        table.add_column(f"{short(column.name, board)}\n{column.unit if len(column.unit) < 9 else ''}", justify="right", no_wrap=True)
    for line in board.lines:
        cells = [cell(line.values[c.name]) if c.name in line.values else "none" for c in columns]
        table.add_row(place(line) or STATES[line.state], line.call, *cells)
    return table


def short(name: str, board: Board) -> str:
    """A metric's name as the column's head, without its feature network where no other column differs by that alone."""
    bare = {c.name: c.name.removesuffix("_judge").removesuffix("_pca64") for c in board.columns}
    return SHORT.get(name, bare[name] if list(bare.values()).count(bare[name]) == 1 else name)


def _notes(board: Board) -> list[str]:
    return [note for line in board.lines for note in notes(board, line)]


def notes(board: Board, line: Line) -> list[str]:
    """What is to be said of a line that has no rank, or whose runs failed."""
    found = []
    if line.state == "unranked":
        reason = line.none.get(board.headline, "its value is infinitely far from the best, so nothing can be compared with it")
        found.append(f"{line.call} is not ranked: {reason.removeprefix(line.call).strip()}.")
    if line.state == "incomplete":
        found.append(f"{line.call} is not ranked: only {many(len(line.seeds), 'run')} of it finished.")
    out = 1 if line.state == "disqualified" else 0
    found += [f"{line.call} is disqualified: {reason}." for reason in line.reasons[:out]]
    return found + [f"{line.call} failed, {reason}." for reason in line.reasons[out:]]
