"""What every benchmark shares: measurements in processes of their own, interleaved, with medians, spread and a dated file."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
ALONE = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # one thread, and none that waits by spinning


def child(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """What a process prints, its threads set by nothing but `environment`; raises RuntimeError with its last words if it fails."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "MKL_"))}
    done = subprocess.run(list(command), env=clean | dict(environment or {}), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout


def side(script: str, *arguments: str, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The JSON object that one side of a script prints as its last line, measured in a process of its own."""
    found: dict[str, Any] = json.loads(child([sys.executable, script, *arguments], environment).splitlines()[-1])
    return found


def spread(values: Iterable[float], digits: int = 3) -> dict[str, float]:
    """Median, least and greatest."""
    numbers = list(values)
    return {"median": round(statistics.median(numbers), digits), "min": round(min(numbers), digits), "max": round(max(numbers), digits)}


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Ours over theirs, round by round."""
    return spread((a / b for a, b in zip(ours, theirs, strict=True)), 2)


def interval(values: Sequence[float]) -> str:
    """The mean of a number over seeds and half its 95 % t-interval; the mean alone of fewer than three."""
    import numpy as np

    from vaestro.evaluation.intervals import of_values

    found = of_values(np.array(values), np.full(len(values), np.nan))
    return f"{found.mean:.3f}" if found.these_runs_only else f"{found.mean:.3f} ± {found.high - found.mean:.3f}"


def about() -> dict[str, Any]:
    """When and on what a number was measured."""
    return {"date": time.strftime("%Y-%m-%d"), "machine": f"{platform.machine()}, {os.cpu_count()} cores", "python": platform.python_version()}


def keep(name: str, found: Mapping[str, Any]) -> None:
    """Write `results/NAME.json` whole or not at all, and show it."""
    RESULTS.mkdir(exist_ok=True)
    out, part = RESULTS / f"{name}.json", RESULTS / f".{name}.part"
    part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    part.replace(out)
    sys.stdout.write(out.read_text(encoding="utf-8"))
