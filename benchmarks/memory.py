"""Peak anonymous memory: of the likelihood over rows and importance samples, and of training on data that are larger than it may be.

    python benchmarks/memory.py                      # a trial with 1 GB of data, about two minutes; writes benchmarks/results/memory.json
    python benchmarks/memory.py --gigabytes 10       # the real run; needs that much disk in --folder

Anonymous memory is what a process holds for itself (RssAnon); pages of the mapped data belong to the file system's cache, which takes what is free and gives
it back. Each number is from a process of its own: the peak, and what it grew over the memory of the imported library with the model built and used once.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from measure import ALONE, about, keep, side
from torch import Tensor

import vaestro
from vaestro.data import write_dataset
from vaestro.data.schema import Binary, Field, Integer, Schema
from vaestro.data.writing import Writer
from vaestro.evaluation.likelihood import importance
from vaestro.recipes import parse

MB = 2**20
SHAPE = (3, 64, 64)
LIMIT = 2048  # MB that training may take


def anonymous() -> float:
    """The anonymous memory of this process, in MB, as Linux tells it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) / 1024


class Peak:
    """The most anonymous memory within a `with` block, looked at every 2 ms by a thread."""

    def __enter__(self) -> "Peak":
        self.start = self.most = anonymous()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()
        return self

    def _look(self) -> None:
        while not self.done.wait(0.002):
            self.most = max(self.most, anonymous())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.done.set()
        self.thread.join()
        self.most = max(self.most, anonymous())

    def told(self) -> dict[str, float]:
        """Peak and growth in MB."""
        return {"peak_mb": round(self.most, 1), "grew_mb": round(self.most - self.start, 1)}


def stream(rows: int) -> Iterator[dict[str, Tensor]]:
    """Binary rows made as they are asked for, so that nothing of theirs is kept."""
    for start in range(0, rows, 250):
        yield {"x": (torch.rand(min(250, rows - start), 1, 28, 28) < 0.13).float()}


def likelihood(arguments: argparse.Namespace) -> dict[str, float]:
    """Memory of `importance` on so many rows with so many samples."""
    schema = Schema("rows", (Field("x", Binary(), (1, 28, 28)),), {"train": 1})
    model = parse("vae:latents=16,hidden=512").cook(schema).model
    importance(model, stream(20), 100)
    start = time.perf_counter()
    with Peak() as peak:
        importance(model, stream(arguments.rows), arguments.samples)
    return {"rows": arguments.rows, "samples": arguments.samples, **peak.told(), "seconds": round(time.perf_counter() - start, 1)}


def write(arguments: argparse.Namespace) -> dict[str, float]:
    """Memory of writing a data set of random bytes, block by block."""
    rows = max(5000, int(arguments.gigabytes * 1e9) // int(np.prod(SHAPE)))
    schema = Schema("noise", (Field("x", Integer(256), SHAPE),), {"train": rows - 2000, "validation": 1000, "test": 1000})
    bytes_ = np.random.default_rng(0)

    def fill(writer: Writer) -> None:
        for split, count in schema.rows.items():
            for done in range(0, count, 1000):
                writer.append(split, "x", bytes_.integers(0, 256, (min(1000, count - done), *SHAPE), np.uint8))

    start = time.perf_counter()
    with Peak() as peak:
        write_dataset(arguments.folder / "data", schema, fill)
    return {"rows": rows, **peak.told(), "seconds": round(time.perf_counter() - start, 1)}


def training(arguments: argparse.Namespace) -> dict[str, float]:
    """Memory of the whole of `vaestro.train` on that data set, batches from all over it."""
    start = time.perf_counter()
    with Peak() as peak:
        run = vaestro.train("vae:latents=32,hidden=64,batch=64", arguments.folder / "data", steps=arguments.steps, out=arguments.folder / "run")
    seconds = time.perf_counter() - start
    return {"steps": run.about["done_steps"], **peak.told(), "seconds": round(seconds, 1), "steps_a_second": round(arguments.steps / run.about["seconds"], 1)}


SIDES = {f.__name__: f for f in (likelihood, write, training)}


def flat(option: str, numbers: list[int], fixed: tuple[str, int]) -> dict[str, object]:
    """The likelihood at several sizes, and how much the peak differs between them."""
    sides = [side(__file__, "--side", "likelihood", f"--{option}", str(n), f"--{fixed[0]}", str(fixed[1]), environment=ALONE) for n in numbers]
    peaks = [s["peak_mb"] for s in sides]
    return {"runs": sides, "largest_over_smallest_peak": round(max(peaks) / min(peaks), 3), "times_the_work": numbers[-1] / numbers[0]}


def large(arguments: argparse.Namespace, gigabytes: float) -> dict[str, object]:
    """Data written and trained on, each by a process of its own; nothing of them is left."""
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        options = ("--folder", folder, "--gigabytes", str(gigabytes), "--steps", str(arguments.steps))
        written = side(__file__, "--side", "write", *options, environment=ALONE)
        size = sum(f.stat().st_size for f in (Path(folder) / "data").iterdir())
        trained = side(__file__, "--side", "training", *options, environment=ALONE)
    return {"gigabytes": round(size / 1e9, 3), "write": written, "train": trained, "limit_mb": LIMIT, "within": trained["peak_mb"] < LIMIT}


def main() -> None:
    """Measure both and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, default=1000, help=argparse.SUPPRESS)
    parser.add_argument("--samples", type=int, default=100, help=argparse.SUPPRESS)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--folder", type=Path, help="where the data are written and deleted again; the system's temporary folder if left out")
    parser.add_argument("--shrink", type=int, default=1, help="divide rows and samples of the likelihood by this, for a trial")
    arguments = parser.parse_args()
    if arguments.side:
        sys.stdout.write(json.dumps(SIDES[arguments.side](arguments)) + "\n")
        return
    rows, samples = ([max(1, n // arguments.shrink) for n in sizes] for sizes in ((1000, 10_000, 40_000), (10, 100, 1000)))
    found = {"likelihood over rows": flat("rows", rows, ("samples", 20)), "likelihood over samples": flat("samples", samples, ("rows", 500))}
    trained = {"training on large data": large(arguments, arguments.gigabytes), "training on a hundredth of it": large(arguments, arguments.gigabytes / 100)}
    keep("memory", {**about(), **found, **trained})


if __name__ == "__main__":
    main()
