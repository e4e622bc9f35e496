"""Does a fleet gain from two processes? 24 runs of fixed steps on the small digits, `--jobs 2` beside one after another, equal weights out.

    python benchmarks/fleet.py                 # about ten minutes on two quiet cores; writes benchmarks/results/fleet.json

Both sides are the same command, `vaestro.arena.run`, with the same entrants and seeds: eight entrants, three seeds, one thread a run, every run in a process
of its own, whose start is a part of its time. The target is a time of at most 1/1.6; the weights must be equal, bit for bit.
"""

import argparse
import os
import re
import tempfile
import time
from pathlib import Path

from measure import about, keep

from vaestro.arena import load_challenge, result, run
from vaestro.arena.challenge import FILE

CALLS = [f"{name}:hidden={width}" for name in ("vae", "iwae") for width in (128, 192, 256, 320)]


def challenge(folder: Path, steps: int, seeds: tuple[int, ...] = (0, 1, 2)) -> Path:
    """The small digits with some fixed steps, scored lightly."""
    text = load_challenge("digits").file.read_text(encoding="utf-8")
    text = re.sub(r"^seconds = \d+", f"steps = {steps}", text, flags=re.M).replace("seeds = [0, 1]", f"seeds = {list(seeds)}", 1)
    text = re.sub(r"^metrics = \[.*?\]", 'metrics = ["nll", "elbo"]', text, flags=re.M | re.S)
    folder.mkdir()
    (folder / FILE).write_text(text, encoding="utf-8")
    return folder


def main() -> None:
    """Run the fleet both ways, and compare times and weights."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=600)
    arguments = parser.parse_args()
    seconds, weights = {}, {}
    with tempfile.TemporaryDirectory() as place:
        of = challenge(Path(place) / "challenge", arguments.steps)
        for jobs in (2, 1):
            begun, busy = time.perf_counter(), os.getloadavg()[0]
            folder = run(of, out=Path(place) / f"jobs-{jobs}", jobs=jobs, only=CALLS)
            seconds[jobs] = round(time.perf_counter() - begun, 1)
            found = [result.read(p) for p in sorted((folder / "results").glob("*.json"))]
            weights[jobs] = {r.id: r.weights_sha256 for r in found if r.status == "done"}
            seconds[f"load before, jobs {jobs}"] = round(busy, 2)
    equal = weights[1] == weights[2] and len(weights[1]) == 24
    ratio = round(seconds[1] / seconds[2], 2)
    keep(
        "fleet", {**about(), "runs": len(weights[2]), "steps": arguments.steps, "seconds": seconds, "one after another over two": ratio, "equal weights": equal}
    )


if __name__ == "__main__":
    main()
