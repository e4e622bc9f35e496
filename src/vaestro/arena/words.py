"""What a board says in sentences, made from its numbers alone."""

import math

from vaestro.arena.board import Board, Line, Value
from vaestro.evaluation.metrics import METRICS

PLAIN, DECIMALS, DIGITS = 1e9, 6, 7  # numbers below this with so many decimals are written out; others as powers of ten, with so many digits at most
DESCRIBING = ("kl", "bound_gap", "effective_samples", "mutual_information", "active_units", "steps", "seconds")  # less or more of these is no merit by itself


def number(value: float, half: float | None = None) -> str:
    """A value to the digits that its half-interval supports (two of them), else to four; as a power of ten what would take too much room."""
    if half is None or not 0 < half < math.inf or not math.isfinite(value):
        whole = abs(value) < PLAIN and (value == int(value) or abs(value) >= 1000)
        return f"{value:,.0f}" if whole else f"{value:.4g}"
    decimals = 1 - math.floor(math.log10(half))
    if value == 0 or (abs(value) < PLAIN and decimals <= DECIMALS):
        return f"{value:,.{min(max(0, decimals), DECIMALS)}f}"
    return f"{value:.{min(max(0, math.floor(math.log10(abs(value))) + decimals), DIGITS - 1)}e}"


def half(value: Value) -> float | None:
    """Half the width of the interval, none where there is none."""
    return None if value.low is None or value.high is None else (value.high - value.low) / 2


def cell(value: Value) -> str:
    """`93.12 ±0.41`."""
    wide = half(value)
    return number(value.mean) if wide is None else f"{number(value.mean, wide)} ±{number(wide, wide)}"


def place(line: Line) -> str:
    """`2`, or `2-4` where the data leave the rank open."""
    if line.rank_low is None or line.rank_high is None:
        return ""
    return str(line.rank_low) if line.rank_low == line.rank_high else f"{line.rank_low}-{line.rank_high}"


def many(count: int, one: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{count} {one}" if count == 1 else f"{count} {one}s"


def headline(board: Board) -> str:
    """Who leads, by how much, and how sure that is."""
    ranked = board.ranked
    column = board.column(board.headline)
    if not ranked:
        return f"No entry has all its runs and a value of {column.title} yet, so nothing is ranked."
    lead, first = ranked[0], ranked[0].values[board.headline]
    sentence = f"{lead.call} leads with {cell(first)} {column.unit} ({column.title}, {column.direction})"
    if len(ranked) > 1:
        beaten = sum(1 for winner, _ in board.better if winner == lead.call)
        others = len(ranked) - 1
        sure = "all" if beaten == others else "none" if not beaten else str(beaten)
        several, single = f"{sure} of the {others} others", ranked[1].call
        sentence += f"; it is {'not ' if others == 1 and not beaten else ''}significantly better than {several if others > 1 else single}"
    return f"{sentence}. {scope(board)}"


def scope(board: Board) -> str:
    """Of what the intervals and ranks speak."""
    if board.these_runs_only:
        return f"Intervals are over the {board.rows:,} rows and speak of these runs only: with fewer than three seeds nothing is said of a recipe."
    return f"Intervals are over seeds and the {board.rows:,} rows."


def smallest(board: Board) -> str:
    """What difference would have been found."""
    if board.detectable is None:
        return ""
    unit = board.column(board.headline).unit
    return f"A difference of about {number(board.detectable, board.detectable)} {unit} would be found with probability 0.8."


def winners(board: Board) -> list[tuple[str, Line, Value]]:
    """For each column that judges, the line with the best mean among those whose runs are all there; ties go to the first of the board."""
    found = []
    for column in (c for c in board.columns if c.name not in DESCRIBING):
        loss = METRICS[column.name].direction.loss
        able = [line for line in board.lines if line.state in ("ranked", "unranked") and column.name in line.values]
        if len(able) > 1:
            best = min(able, key=lambda line: loss(line.values[column.name].mean))
            found.append((column.title, best, best.values[column.name]))
    return found
