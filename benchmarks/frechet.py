"""The Frechet distance over 50,000 x 2,048 features: seconds and peak memory, beside the usual route by scipy's matrix square root.

`python benchmarks/frechet.py` writes results/frechet.json. Each side runs in a process of its own; features are made there, a part at a time, with equal seeds.
"""

import json
import platform
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

ROWS, WIDTH, PART = 50_000, 2048, 2000
RESULT = Path(__file__).parent / "results" / "frechet.json"


def parts(seed: int) -> "Iterator[torch.Tensor]":
    """Correlated features with a decaying spectrum, as those of a network are; another seed gives another cloud."""
    import torch

    mixing = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(7)) * torch.linspace(1, 0, WIDTH).pow(3)
    draws = torch.Generator().manual_seed(seed)
    for _ in range(ROWS // PART):
        yield (1 + 0.1 * seed) * torch.randn(PART, WIDTH, generator=draws) @ mixing.T / WIDTH**0.5 + 0.1 * seed


def ours() -> tuple[float, float]:
    """Moments accumulated batch by batch, then singular values."""
    from vaestro.evaluation.metrics import Moments, frechet_of_moments

    found, spent = [], 0.0
    for seed in (0, 1):
        moments = Moments()
        for part in parts(seed):
            start = time.perf_counter()
            moments.add(part)
            spent += time.perf_counter() - start
        found += [moments.mean, moments.covariance]
    start = time.perf_counter()
    value = frechet_of_moments(*found)
    return value, spent + time.perf_counter() - start


def usual() -> tuple[float, float]:
    """All features held, numpy's mean and covariance, scipy's sqrtm of the product."""
    import numpy as np
    import scipy.linalg

    sides = [np.concatenate([p.numpy().astype(np.float64) for p in parts(seed)]) for seed in (0, 1)]
    start = time.perf_counter()
    (m, a), (n, b) = ((x.mean(0), np.cov(x, rowvar=False)) for x in sides)
    root = scipy.linalg.sqrtm(a @ b)
    return float(((m - n) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * np.trace(root.real)), time.perf_counter() - start


def measured(side: str) -> dict[str, float]:
    """Value, seconds and peak memory of one side in a fresh process; making the features is not counted."""
    out = subprocess.run([sys.executable, __file__, side], capture_output=True, text=True, check=True).stdout
    return json.loads(out.splitlines()[-1])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        value, seconds = {"ours": ours, "usual": usual}[sys.argv[1]]()
        cpu = time.process_time()  # of all threads, the making of the features counted in: what a busy machine does not inflate
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"value": value, "seconds": seconds, "cpu_seconds_in_all": cpu, "peak_gib": peak}))
    else:
        import torch

        found = {side: measured(side) for side in ("ours", "usual")}
        about = {"rows": ROWS, "width": WIDTH, "threads": torch.get_num_threads(), "machine": platform.processor() or platform.machine()}
        text = {**about, "when": datetime.now(UTC).isoformat(timespec="seconds"), "target": {"seconds": 60, "peak_gib": 3}, **found}
        RESULT.write_text(json.dumps(text, indent=1) + "\n")
        print(json.dumps(text, indent=1))
