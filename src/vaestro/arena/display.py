"""What a person sees while an arena runs: a bar and a live table on a terminal, plain lines elsewhere."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vaestro.arena.engine import Standing
from vaestro.arena.entry import Job
from vaestro.arena.result import printable, read
from vaestro.arena.words import number

TAIL = 4096  # bytes from the end of a log, enough for its last lines
HIDDEN = ("step", "seconds", "note", "latents")
PLACES = 5  # terms shown of a run


@runtime_checkable
class Display(Protocol):
    """Shows how a session stands, as often as it is told."""

    def note(self, text: str) -> None:
        """One line that stays."""

    def tell(self, standing: Standing) -> None:
        """The standing now."""


class Quiet:
    """Shows nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def tell(self, standing: Standing) -> None:
        """Nothing."""


class News:
    """One line for whatever has begun or ended since it was last asked."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, str]] = set()

    def of(self, standing: Standing) -> Iterator[str]:
        """What is new."""
        groups = {"begins": [j for j, _ in standing.running.values()], "done": standing.done, "failed": standing.failed}
        for word, jobs in groups.items():
            for job in jobs:
                if (word, job.id) not in self.seen:
                    self.seen.add((word, job.id))
                    over = len(standing.done) + len(standing.failed)
                    yield f"[{over}/{standing.total}] {word}: {job.call}, seed {job.seed}{outcome(job)}"


class Lines:
    """One line whenever a run begins or ends, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self.console, self.news = console, News()

    def note(self, text: str) -> None:
        """Print it."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def tell(self, standing: Standing) -> None:
        """Print what is new."""
        for line in self.news.of(standing):
            self.note(line)


class Screen:
    """The live table of a terminal."""

    def __init__(self, console: Console, live: Live) -> None:
        self.console, self.live, self.news = console, live, News()
        self.start = time.time()

    def note(self, text: str) -> None:
        """Print it above the table."""
        self.console.print(text, highlight=False, markup=False)

    def tell(self, standing: Standing) -> None:
        """Draw anew, with a lasting line for what has ended; `Live` decides how often that reaches the screen."""
        for line in self.news.of(standing):
            if "] begins: " not in line:
                self.note(line)
        self.live.update(self.draw(standing))

    def draw(self, standing: Standing) -> Group:
        """The bar and a row for each running entry."""
        over = len(standing.done) + len(standing.failed)
        running = [(job, progress(job)) for job, _ in standing.running.values()]
        part = (over + sum(0.9 * p.share for _, p in running)) / max(standing.total, 1)
        head = f"{over} of {standing.total} runs, {len(standing.failed)} failed, {left(part, time.time() - self.start)}"
        table = Table(box=None, padding=(0, 2), header_style="bold")
        for name in ("entry", "seed", "step", "left", "loss terms"):
            table.add_column(name, justify="left" if name in ("entry", "loss terms") else "right", no_wrap=name != "loss terms")
        for job, p in running:
            table.add_row(job.call, str(job.seed), p.steps, p.left, p.terms)
        bar = Table.grid(padding=(0, 2))
        bar.add_row(ProgressBar(total=1.0, completed=part, width=50), Text(head))
        return Group(bar, table)


def outcome(job: Job) -> str:
    """What a finished job came to: its first metric, or why it failed; nothing for one that has no result yet."""
    if not job.result.is_file():
        return ""
    found = read(job.result)
    if found.status == "failed":
        return f": {printable(found.reason)}"
    name, value = next(((n, c) for n, c in found.metrics.items()), ("", None))
    return "" if value is None else f": {name} {number(value.value)} {value.unit}"


def left(part: float, elapsed: float) -> str:
    """About how long the rest will take."""
    if part < 0.02:
        return "measuring"
    seconds = elapsed * (1 - part) / part
    return f"about {seconds / 60:.0f} min left" if seconds > 90 else f"about {seconds:.0f} s left"


class Progress:
    """Where one run stands, from its own files."""

    def __init__(self, line: dict[str, Any], total: int, phase: str) -> None:
        step = int(line.get("step", 0))
        self.share = min(step / total, 1.0) if total else 0.0
        self.steps = f"{step:,}/{total:,}" if total else phase
        seconds = float(line.get("seconds", 0.0))
        self.left = f"{seconds * (total - step) / step:.0f} s" if step and phase == "training" else phase if total else ""
        terms = {k: v for k, v in line.items() if k not in HIDDEN and isinstance(v, int | float)}
        self.terms = "  ".join(f"{k} {v:.4g}" for k, v in list(terms.items())[:PLACES])


def progress(job: Job) -> Progress:
    """Where the run of a job stands."""
    try:
        about = json.loads((job.run_folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Progress({}, 0, "starting")
    phase = {"running": "training", "done": "scoring"}.get(about.get("status", ""), "ending")
    return Progress(last_line(job.run_folder / "metrics.jsonl"), int(about.get("steps", 0)), phase)


def last_line(path: Path) -> dict[str, Any]:
    """The last whole line of a log, read from its end."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            lines = file.read().split(b"\n")[:-1]
        found = json.loads(lines[-1]) if lines else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def shown() -> Iterator[Display]:
    """A live table if the standard error is a terminal, else lines there."""
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield Lines(console)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield Screen(console, live)
