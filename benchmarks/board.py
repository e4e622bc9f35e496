"""How long does a large board take: 50 entries x 3 seeds x 100,000 rows, read from their files, hashed, tested in pairs and ranked?

    python benchmarks/board.py                 # about a minute; writes benchmarks/results/board.json

The results are made up (their scores share the difficulty of rows and differ in the luck of seeds), written as the arena writes them, and read by
`vaestro.arena.board` in a process of its own. The target is 5 seconds for the headline's scores; four metrics with rows beside it are told too. Files are
read once before, so that the disk is not what is measured.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import about, keep, side, spread

from vaestro.arena import board, load_challenge, result
from vaestro.arena.challenge import FILE
from vaestro.arena.folder import Arena, start
from vaestro.arena.result import About, Cell, Paper, Result
from vaestro.evaluation.metrics import METRICS

PER_ROW = ("nll", "elbo", "kl", "reconstruction_mse")
ENTRIES, SEEDS, ROWS = 50, 3, 100_000


def challenge(folder: Path) -> Path:
    """The small digits with three seeds and the metrics that have rows."""
    text = load_challenge("digits").file.read_text(encoding="utf-8")
    before, _, after = text.partition("metrics = [")
    text = f"{before}metrics = {json.dumps(PER_ROW)}\n{after.partition(']')[2].lstrip()}".replace("seeds = [0, 1]", "seeds = [0, 1, 2]")
    folder.mkdir()
    (folder / FILE).write_text(text, encoding="utf-8")
    return folder


def fill(folder: Path, metrics: tuple[str, ...]) -> None:
    """Write an arena of made-up results."""
    found = load_challenge(challenge(folder / "challenge"))
    arena = Arena(folder / "arena", found, "quick")
    start(arena)
    rules, rng = found.rules, np.random.default_rng(0)
    of = About(name=rules.name, version=rules.version, tier="quick", sha256=rules.sha256("quick"), data=rules.data.sha256)
    hard = rng.normal(80, 10, ROWS)
    for entry in range(ENTRIES):
        for seed in range(SEEDS):
            rows = {m: hard + entry / 100 + rng.normal(0, 0.02) + rng.normal(0, 1, ROWS) for m in metrics}
            made = Result(
                format=1, id=f"vae-{entry:04x}{seed:04x}", challenge=of, call=f"vae:latents={entry + 1}", keywords={}, recipe=Paper(), seed=seed,
                status="done", metrics={m: cell(m, r) for m, r in rows.items()},
            )  # fmt: skip
            result.write(arena.folder / "results", made, rows, {})


def cell(name: str, rows: np.ndarray) -> Cell:
    """A metric's cell, in its own words."""
    m = METRICS[name]
    error = float(rows.std(ddof=1) / len(rows) ** 0.5)
    words = {"title": m.title, "unit": m.unit, "direction": m.direction.value, "protocol": m.protocol}
    return Cell.model_validate({"value": float(rows.mean()), "error": error, "per_row": True, **words})


def measure(folder: Path) -> dict[str, float]:
    """Seconds of a board, its lines counted."""
    begun = time.perf_counter()
    made = board(folder / "arena")
    return {"seconds": time.perf_counter() - begun, "lines": len(made.ranked), "significant": len(made.better)}


def main() -> None:
    """Write both arenas, measure each three times, and keep the medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.measure:
        sys.stdout.write(json.dumps(measure(arguments.measure)) + "\n")
        return
    found = {}
    for name, metrics in {"the headline alone": PER_ROW[:1], "four metrics with rows": PER_ROW}.items():
        with tempfile.TemporaryDirectory() as folder:
            fill(Path(folder), metrics)
            size = sum(p.stat().st_size for p in Path(folder).rglob("*.npz"))
            measured = [side(__file__, "--measure", folder) for _ in range(arguments.rounds + 1)][1:]
        found[name] = {"seconds": spread(m["seconds"] for m in measured), "megabytes": round(size / 1e6), "ranked": measured[0]["lines"]}
    keep("board", {**about(), "entries": ENTRIES, "seeds": SEEDS, "rows": ROWS, **found})


if __name__ == "__main__":
    main()
