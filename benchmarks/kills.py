"""Is anything lost or counted twice when a fleet is killed a hundred times? SIGKILL to workers and to the runner, at random moments.

    python benchmarks/kills.py                 # about ten minutes; writes benchmarks/results/kills.json

A fleet of twelve runs of fixed steps is started; every few seconds a worker (three times in four) or the runner itself is killed at a random moment; a killed
runner is started again with the same command. After the last kill it is left to finish. Then every run must have exactly one result, `vaestro arena check` must
find every file sound, and every weight must equal, bit for bit, those of the same fleet that nobody disturbed. The steps must outlast the kills.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from fleet import challenge
from measure import about, keep

from vaestro.arena import check, load_challenge, result
from vaestro.arena.display import Quiet
from vaestro.arena.engine import PATIENCE, Local
from vaestro.arena.entry import entrants
from vaestro.arena.folder import Arena
from vaestro.arena.running import compete

CALLS = [f"vae:latents={n},hidden=128" for n in (4, 8, 12, 16)]
RUNNER = "import sys; from pathlib import Path; from vaestro.arena import run; run(sys.argv[1], out=Path(sys.argv[2]), jobs=2, only=sys.argv[3:])"


def hashes(folder: Path) -> dict[str, str | None]:
    """The weights of every finished run by its ID."""
    found = [result.read(p) for p in sorted((folder / "results").glob("*.json"))]
    return {r.id: r.weights_sha256 if r.status == "done" else r.reason for r in found}


def killed(of: Path, arena: Path, kills: int, rng: np.random.Generator) -> dict[str, int]:
    """Kill workers and runners at random moments, then let the fleet finish; how often each was hit."""
    hit = {"worker": 0, "runner": 0, "sessions": 1, "results when the killing ended": 0}
    command = [sys.executable, "-c", RUNNER, str(of), str(arena), *CALLS]
    said = (arena.parent / "said.txt").open("w+")
    runner = subprocess.Popen(command, stderr=said)
    deaths = 0  # of workers in this session: a runner gives a job up after some
    while sum(hit[k] for k in ("worker", "runner")) < kills:
        while runner.poll() is None and not psutil.Process(runner.pid).children():
            time.sleep(0.05)  # a runner that is killed before it has workers proves nothing
        time.sleep(rng.uniform(0.2, 6.0))
        if runner.poll() is not None:
            said.seek(0)
            raise RuntimeError(f"the fleet ended with {runner.returncode} after {hit}; give it more --steps, or read: {said.read()[-2000:]}")
        workers = psutil.Process(runner.pid).children()
        if workers and rng.random() < 0.75 and deaths < PATIENCE - 1:
            workers[rng.integers(len(workers))].kill()
            hit["worker"] += 1
            deaths += 1
        else:
            runner.kill()
            runner.wait()
            hit["runner"] += 1
            hit["sessions"] += 1
            deaths = 0
            runner = subprocess.Popen(command, stderr=said)
    hit["results when the killing ended"] = len(list((arena / "results").glob("*.json")))
    if runner.wait() != 0:
        raise RuntimeError(f"the last session ended with {runner.returncode}")
    return hit


def main() -> None:
    """Kill, finish, count, and compare with the fleet that nobody disturbed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--steps", type=int, default=6000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        of, arena = challenge(Path(place) / "challenge", arguments.steps), Path(place) / "killed"
        begun = time.perf_counter()
        hit = killed(of, arena, arguments.kills, np.random.default_rng(0))
        seconds = round(time.perf_counter() - begun)
        calm = compete(Arena(Path(place) / "calm", load_challenge(of), "quick"), entrants(CALLS, ()), Local(2, 1), Quiet())
        found, due = hashes(arena), hashes(calm)
        broken = [str(c) for c in check(arena) if c.problem]
    counts = {"runs": len(due), "results": len(found), "lost": len(due.keys() - found.keys()), "twice or foreign": len(found.keys() - due.keys())}
    keep("kills", {**about(), **hit, "seconds": seconds, "steps": arguments.steps, **counts, "equal weights": found == due, "altered files": broken})


if __name__ == "__main__":
    main()
