"""The report's figures of numbers against numbers: entries as points with intervals, and scores by class."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from vaestro.arena.board import Board, Entry, Line, Value
from vaestro.arena.figures import COLOURS, ticks
from vaestro.arena.verdicts import is_classical
from vaestro.arena.words import cell, half, number
from vaestro.evaluation import intervals

WIDTH, HEIGHT, LEFT, BOTTOM = 380, 300, 52, 44
WIDE = 30.0  # a ratio of greatest to least beyond which an axis is logarithmic
CLASSES = 20  # shown at most


class Axis:
    """From values to places along one side of a plot, logarithmic where they span much."""

    def __init__(self, values: Sequence[float], ends: tuple[float, float]) -> None:
        self.log = min(values) > 0 and max(values) / min(values) > WIDE
        shown = [self.scale(v) for v in values]
        room = 0.06 * (max(shown) - min(shown) or abs(max(shown)) or 1.0)
        self.low, self.high, self.ends = min(shown) - room, max(shown) + room, ends

    def scale(self, v: float) -> float:
        """The value, or its logarithm."""
        return math.log10(max(v, 1e-300)) if self.log else v

    def at(self, v: float) -> float:
        """The place of a value, kept within the plot."""
        part = (self.scale(v) - self.low) / (self.high - self.low)
        return self.ends[0] + min(max(part, 0.0), 1.0) * (self.ends[1] - self.ends[0])

    @property
    def ticks(self) -> list[float]:
        """Round values along the axis."""
        if not self.log:
            return ticks(self.low, self.high, 4)
        powers = range(math.floor(self.low), math.ceil(self.high) + 1)
        steps = (1,) if self.high - self.low > 2.5 else (1, 3)
        return [m * 10.0**p for p in powers for m in steps if self.low <= math.log10(m * 10.0**p) <= self.high]


class Point(NamedTuple):
    """An entry in a plane."""

    name: str
    x: Value
    y: Value


def crosses(points: Sequence[Point], across: str, up: str, title: str) -> str:
    """Entries as numbered points with their intervals on both axes, the names in a legend below; classical rows are hollow."""
    if len(points) < 2:
        return ""
    x = Axis([v for p in points for v in marks(p.x)], (LEFT, WIDTH - 8.0))
    y = Axis([v for p in points for v in marks(p.y)], (HEIGHT - BOTTOM, 10.0))
    grid = "".join(f'<line x1="{x.at(t):.1f}" x2="{x.at(t):.1f}" y1="10" y2="{HEIGHT - BOTTOM}" class="tick"/>' for t in x.ticks)
    grid += "".join(f'<line x1="{LEFT}" x2="{WIDTH - 8}" y1="{y.at(t):.1f}" y2="{y.at(t):.1f}" class="tick"/>' for t in y.ticks)
    words = "".join(f'<text x="{x.at(t):.1f}" y="{HEIGHT - BOTTOM + 16}" class="axis">{brief(t)}</text>' for t in x.ticks)
    words += "".join(f'<text x="{LEFT - 6}" y="{y.at(t) + 4:.1f}" class="axis end">{brief(t)}</text>' for t in y.ticks)
    words += f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 6}" class="axis">{escape(across)}{" (log scale)" if x.log else ""}</text>'
    drawn = "".join(_cross(i, p, x, y) for i, p in enumerate(points))
    keys = "".join(f'<span><i style="background:{COLOURS[i % len(COLOURS)]}">{i + 1}</i>{escape(p.name)}</span>' for i, p in enumerate(points))
    said = "; ".join(f"{p.name} {cell(p.x)}, {cell(p.y)}" for p in points)
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{title}: {said}")}" class="plane">{grid}{words}{drawn}</svg>'
    upward = f'<p class="ends">&uarr; {escape(up)}{" (log scale)" if y.log else ""}</p>'
    return f'<figure><h4>{escape(title)}</h4>{upward}{svg}<p class="legend numbers">{keys}</p></figure>'


def marks(v: Value) -> tuple[float, ...]:
    """The mean and the ends of its interval."""
    return (v.mean,) if v.low is None or v.high is None else (v.mean, v.low, v.high)


def _cross(i: int, p: Point, x: Axis, y: Axis) -> str:
    colour = COLOURS[i % len(COLOURS)]
    a, b = x.at(p.x.mean), y.at(p.y.mean)
    arms = ""
    if p.x.low is not None and p.x.high is not None:
        arms += f'<line x1="{x.at(p.x.low):.1f}" x2="{x.at(p.x.high):.1f}" y1="{b:.1f}" y2="{b:.1f}" stroke="{colour}" stroke-width="1.5"/>'
    if p.y.low is not None and p.y.high is not None:
        arms += f'<line x1="{a:.1f}" x2="{a:.1f}" y1="{y.at(p.y.low):.1f}" y2="{y.at(p.y.high):.1f}" stroke="{colour}" stroke-width="1.5"/>'
    look = f'class="hollow" stroke="{colour}" stroke-width="2"' if is_classical(p.name) else f'fill="{colour}"'
    name = f"<title>{escape(p.name)}: {cell(p.x)}, {cell(p.y)}</title>"
    text = f'<text x="{a:.1f}" y="{b + 3.5:.1f}" class="in-dot{" dark" if is_classical(p.name) else ""}">{i + 1}</text>'
    return f'{arms}<circle cx="{a:.1f}" cy="{b:.1f}" r="7.5" {look}>{name}</circle>{text}'


def brief(v: float) -> str:
    """A tick's number: thousands as k, millions as M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(v) >= size:
            return f"{v / size:g}{letter}"
    return number(v)


def against(made: Board, across: str, up: str, title: str) -> str:
    """Two columns of the board against each other, over every line that has both; nothing where fewer than two have."""
    lines = [x for x in made.lines if x.state != "disqualified" and across in x.values and up in x.values]
    if len(lines) < 2:
        return ""
    a, b = made.column(across), made.column(up)
    points = [Point(x.call, x.values[across], x.values[up]) for x in lines]
    return crosses(points, f"{a.title} ({a.unit})", f"{b.title} ({b.unit}), {b.direction}", title)


def rate_distortion(made: Board) -> str:
    """What latents cost against what is lost all the same: nats of the KL against nats of the reconstruction, else against the squared error."""
    names = [c.name for c in made.columns]
    lost = max((m for m in ("cross_entropy", "reconstruction_mse") if m in names), key=lambda m: _both(made, "kl", m), default="")
    return against(made, "kl", lost, "Rate and distortion") if lost and "kl" in names else ""


def _both(made: Board, a: str, b: str) -> int:
    return sum(a in x.values and b in x.values for x in made.lines)


def quality_and_time(made: Board) -> str:
    """The headline against the seconds of training."""
    return against(made, "seconds", made.headline, "Quality against time") if any(c.name == "seconds" for c in made.columns) else ""


def by_class(made: Board, entries: Sequence[Entry], labels: np.ndarray, classes: Sequence[str]) -> str:
    """The headline of every ranked entry by the class of the scored rows [n], a table that scrolls; the worst class of each entry is tinted."""
    present = [int(c) for c in np.unique(labels)][:CLASSES]
    rows = [_classes_of(x, made, [e for e in entries if e.result.call == x.call], labels, present) for x in made.ranked]
    if len(present) < 2 or not any(rows):
        return ""
    head = "".join(f"<th>{escape(classes[c] if c < len(classes) else str(c))}<small>{(labels == c).sum():,} rows</small></th>" for c in present)
    column = made.column(made.headline)
    note = f"{column.title} ({column.unit}, {column.direction}), mean over the rows of a class with its 95 % interval; tinted: the worst class of an entry."
    table = f'<table><thead><tr><th class="entry">entry</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<h3>Scores by class</h3><div class="scroll">{table}</div><p class="note">{escape(note[:1].upper() + note[1:])}</p>'


def _classes_of(line: Line, made: Board, own: Sequence[Entry], labels: np.ndarray, present: Sequence[int]) -> str:
    held = [e.rows[made.headline] for e in own if made.headline in e.rows]
    if not held or len(held) != len(own) or len(held[0]) != len(labels):
        return ""
    scores = np.array(held)
    values = {c: _mean(scores[:, labels == c]) for c in present}
    lower = made.column(made.headline).direction == "lower is better"
    worst = (max if lower else min)(values, key=lambda c: values[c].mean)
    cells = "".join(f"<td{' class=worst' if c == worst else ''}>{_number(v)}</td>" for c, v in values.items())
    return f'<tr><td class="entry">{escape(line.call)}</td>{cells}</tr>'


def _mean(scores: np.ndarray) -> Value:
    if scores.shape[1] < 2:
        return Value(float(scores.mean()), None, None)
    found = intervals.of_recipe(scores)
    return Value(found.mean, found.low, found.high)


def _number(v: Value) -> str:
    wide = half(v)
    return number(v.mean) if wide is None else f"{number(v.mean, wide)} <small>&plusmn;{number(wide, wide)}</small>"


def labels_of(shows: Sequence[Mapping[str, np.ndarray]], rows: int) -> tuple[np.ndarray, list[str]] | None:
    """The labels of the scored rows, which are the same for all entries, with the names of the classes, from any run that kept them."""
    for seen in shows:
        if "labels" in seen and len(seen["labels"]) == rows:
            return seen["labels"], [str(c) for c in seen.get("classes", ())]
    return None
