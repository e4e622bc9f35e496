"""Seconds until something happens: `vaestro --help`, `import vaestro`, and the first training step after Enter.

    python benchmarks/startup.py               # about two minutes; writes benchmarks/results/startup.json

The first step is that of the very command `vaestro train vae mnist-dynamic` (data cached), which first measures how many steps its five minutes buy: the time
from the start of the process to the first line of the run's log, less the seconds of training that the line tells. The run is stopped there.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from measure import about, child, keep, spread

VAESTRO = (sys.executable, "-m", "vaestro")
PATIENCE = 120.0  # seconds until a first step is given up


def wall(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def first_step(data: str) -> float:
    """Seconds from Enter to the first training step."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "run" / "metrics.jsonl"
        start = time.time()
        process = subprocess.Popen(
            [*VAESTRO, "train", "vae", data, "--out", str(log.parent)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        try:
            line = _first_line(log, process, start + PATIENCE)
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()
    return line["written"] - line["seconds"] - start


def _first_line(log: Path, process: subprocess.Popen[bytes], deadline: float) -> dict[str, float]:
    """The first line of a log and when it was seen; raises RuntimeError if the process ends before, or takes too long."""
    while time.time() < deadline:
        text = log.read_text(encoding="utf-8") if log.exists() else ""
        if "\n" in text:
            return {**json.loads(text.splitlines()[0]), "written": time.time()}
        if process.poll() is not None:
            raise RuntimeError(f"training ended before its first line: {process.communicate()[1].decode()[-2000:]}")
        time.sleep(0.02)
    raise RuntimeError(f"no line of the log within {PATIENCE} s")


def one_step(data: str) -> None:
    """The whole of a training of one step, with its validation, its checkpoint and its farewell."""
    with tempfile.TemporaryDirectory() as folder:
        child([*VAESTRO, "train", "vae", data, "--steps", "1", "--out", f"{folder}/run"])


def main() -> None:
    """Measure in turn, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--data", default="mnist-dynamic")
    arguments = parser.parse_args()
    child([*VAESTRO, "data", "get", arguments.data])
    works: dict[str, Callable[[], float]] = {
        "python -c pass": lambda: wall(lambda: child([sys.executable, "-c", "pass"])),
        "import vaestro": lambda: wall(lambda: child([sys.executable, "-c", "import vaestro"])),
        "import torch": lambda: wall(lambda: child([sys.executable, "-c", "import torch"])),
        "vaestro --help": lambda: wall(lambda: child([*VAESTRO, "--help"])),
        f"vaestro train vae {arguments.data}, to the first step": lambda: first_step(arguments.data),
        f"vaestro train vae {arguments.data} --steps 1, to its end": lambda: wall(lambda: one_step(arguments.data)),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(arguments.rounds):
        for name, work in works.items():
            times[name].append(work())
    targets = {"vaestro --help": 0.3, f"vaestro train vae {arguments.data}, to the first step": 6.0}
    seconds = {name: spread(values) for name, values in times.items()}
    verdicts = {name: {"target": limit, "within": seconds[name]["median"] < limit} for name, limit in targets.items()}
    keep("startup", {**about(), "rounds": arguments.rounds, "seconds": seconds, "targets": verdicts})


if __name__ == "__main__":
    main()
