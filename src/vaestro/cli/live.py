"""What is seen while a model trains: a progress bar and a table of every term on a terminal, a plain line at each validation elsewhere."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vaestro.training.record import Line, Watch, read_lines

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 24  # characters of a trend
APART = ("step", "seconds", "latents", "note", "skipped", "too_large")  # not rows of their own
RECENT = 10  # lines from which the speed is told


def sparkline(values: list[float], width: int = WIDTH) -> str:
    """A trend in one line: the means of `width` stretches, between the lowest and the highest of all but the first tenth (what is above is cut off)."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return ""
    cells = min(width, len(finite))
    edges = [i * len(finite) // cells for i in range(cells + 1)]
    means = [sum(finite[a:b]) / (b - a) for a, b in pairwise(edges)]
    settled = finite[len(finite) // 10 :]
    low, high = min(settled), max(settled)
    span = (high - low) or 1.0
    return "".join(BARS[min(max(int((m - low) / span * len(BARS)), 0), len(BARS) - 1)] for m in means)


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    s = max(0, round(seconds))
    return f"{s // 3600}:{s // 60 % 60:02}:{s % 60:02}" if s >= 3600 else f"{s // 60}:{s % 60:02}"


class Display:
    """All that is known of a run, from the lines of its log; it draws itself."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.total = folder, 0
        self.lines: list[Line] = list(read_lines(folder / "metrics.jsonl"))  # of a run that goes on
        self.since, self.heard = len(self.lines), time.monotonic()

    def __call__(self, line: Line) -> None:
        """Take in a line of the log."""
        if not self.total:
            self.total = int(json.loads((self.folder / "run.json").read_text(encoding="utf-8"))["steps"])
        self.lines.append(line)
        self.heard = time.monotonic()

    @property
    def speed(self) -> float:
        """Steps a second over the last lines; 0 while unknown."""
        own = self.lines[self.since :][-RECENT:]
        if len(own) < 2 or own[-1]["seconds"] <= own[0]["seconds"]:
            return 0.0
        return float((own[-1]["step"] - own[0]["step"]) / (own[-1]["seconds"] - own[0]["seconds"]))

    @property
    def left(self) -> float:
        """Seconds that are left, as far as the speed tells."""
        return (self.total - self.lines[-1]["step"]) / self.speed if self.speed else float("nan")

    def history(self) -> dict[str, list[float]]:
        """Every term's values, in the order of the log."""
        found: dict[str, list[float]] = {}
        for line in self.lines:
            for name, value in line.items():
                if name not in APART and isinstance(value, int | float):
                    found.setdefault(name, []).append(float(value))
        return found

    def notes(self) -> list[str]:
        """What the monitor says now, and how many gradients moved nothing."""
        checked = [line for line in self.lines if "validation" in line]
        said = [str(checked[-1]["note"])] if checked and "note" in checked[-1] else []
        last = self.lines[-1] if self.lines else {}
        still = {"skipped": "infinite or NaN", "too_large": "longer than skip allows"}
        return [*said, *(f"{last[n]} gradients were {what}, and moved nothing" for n, what in still.items() if last.get(n))]

    def plain(self) -> str:
        """One line for a log file: where the run is, its loss and its vital signs."""
        line = self.lines[-1]
        latents = f" of {line['latents']}" if "latents" in line else ""
        signs = [f"{n} {line[n]:.5g}" for n in self.history() if n in line and n != "active_units"]
        signs += [f"active units {line['active_units']}{latents}"] if "active_units" in line else []
        left = f", {clock(self.left)} left" if self.left > 0 else ""
        return f"step {line['step']} of {self.total}, {line['seconds']:.1f} s{left}: " + ", ".join(signs) + "".join(f"; {n}" for n in self.notes())

    def __rich__(self) -> RenderableType:
        if len(self.lines) == self.since:
            return Text(f"{self.folder}: measuring the speed of a step ...", style="dim")
        return Group(self._bar(), self._table(), *(Text(f"! {n}", style="yellow") for n in self.notes()))

    def _bar(self) -> Table:
        line = self.lines[-1]
        bar = Table.grid(padding=(0, 2))
        spent = line["seconds"] + time.monotonic() - self.heard
        cells = [f"{line['step']:,} of {self.total:,} steps", f"{self.speed:.3g} steps/s" if self.speed else "", clock(spent), self._left()]
        bar.add_row(ProgressBar(self.total, line["step"], width=32), *cells)
        return bar

    def _left(self) -> str:
        left = self.left - (time.monotonic() - self.heard)
        return f"{clock(left)} left" if self.speed else ""

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for name, justify in (("term", "left"), ("now", "right"), ("first", "right"), ("lowest", "right"), ("trend", "left")):
            table.add_column(name, justify=justify, header_style="dim")  # type: ignore[arg-type]
        latents = next((f" of {line['latents']}" for line in reversed(self.lines) if "latents" in line), "")
        for name, values in self.history().items():
            of = latents if name == "active_units" else ""
            bold = "bold" if name in ("loss", "validation") else ""
            cells = [f"{values[-1]:.5g}{of}", f"{values[0]:.5g}", f"{min(values):.5g}", sparkline(values)]
            table.add_row(name.replace("_", " "), *cells, style=bold)
        return table


@contextmanager
def display(board: Display, console: Console) -> Iterator[Watch]:
    """A watcher that keeps `board` on the terminal, or prints a line at each validation where there is none."""
    if not console.is_terminal:

        def tell(line: Line) -> None:
            board(line)
            if "validation" in line:
                console.print(board.plain(), markup=False)

        yield tell
        return
    with Live(board, console=console, refresh_per_second=4):
        yield board
