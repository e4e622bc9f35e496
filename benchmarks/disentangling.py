"""Mutual information gaps on redrawn sprites: methods at equal steps, five seeds each, with intervals and their differences from beta_vae.

    python benchmarks/disentangling.py --jobs 1                      # a GPU: some hours; stopped, it goes on from where it was
    python benchmarks/disentangling.py --only beta_vae beta_tc_vae   # these methods
    python benchmarks/disentangling.py --steps 300 --seeds 2 --net latents=6,hidden=64 --rows 2000 --out shrunken   # a trial of minutes
    python benchmarks/disentangling.py --table                       # the page again, from the runs that are there

One setting a method, from the papers; nothing is searched, for the labels that would choose are the ones that score. Runs are kept in `--out`/disentangling.
"""

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import about

import vaestro
from vaestro.evaluation.intervals import of_values, pairwise_values
from vaestro.recipes import parse
from vaestro.training.files import write_bytes, write_json
from vaestro.training.runs import Run, read_about
from vaestro.uses.evaluate import Protocol, evaluated

DATA, BASE = "dsprites", "beta_vae"
NET = "latents=10,network=convolutional,hidden=32x32x64x64"
METHODS = {
    "vae": "vae:warm_up=0.0",
    "beta_vae": "beta_vae:beta=4.0",
    "beta_tc_vae": "beta_tc_vae:beta=6.0",
    "factor_vae": "factor_vae:gamma=30.0",
    "dip_vae": "dip_vae:off_diagonal=10.0,diagonal=10.0",
}
SHOWN = ("mig", "elbo", "cross_entropy", "kl", "active_units")


@dataclass(frozen=True)
class Job:
    """One run: the method, its seed, and what all runs share."""

    method: str
    seed: int
    steps: int
    net: str
    rows: int
    out: Path

    @property
    def call(self) -> str:
        """The recipe call."""
        return f"{METHODS[self.method]},{self.net}"

    @property
    def folder(self) -> Path:
        """Where the run is kept."""
        return self.out / "disentangling" / f"{self.method}-{self.seed}"

    @property
    def protocol(self) -> Protocol:
        """Test rows, with a few importance samples, for the likelihood is not the question."""
        return Protocol(rows=self.rows, samples=10)

    def fits(self, run: Run) -> bool:
        """Whether a run that is there is the one that is asked for."""
        return run.about["call"] == str(parse(self.call)) and run.about["steps"] == self.steps


def score(job: Job) -> dict[str, Any]:
    """Train or go on, then evaluate; both are kept, so a second call only reads."""
    torch.set_num_threads(1)
    started = (job.folder / "run.json").is_file()
    if not started:
        run = vaestro.train(job.call, DATA, steps=job.steps, seed=job.seed, out=job.folder)
    elif read_about(job.folder)["status"] == "done":
        run = vaestro.open_run(job.folder)
    else:
        run = vaestro.resume(job.folder)
    if not job.fits(run):
        raise SystemExit(f"{job.folder} holds {run.about['call']} of {run.about['steps']} steps; choose another --out, or delete it")
    found = evaluated(run, job.protocol).scores
    cells = {name: {"value": found[name]["value"], "error": found[name]["error"]} for name in SHOWN}
    return {"method": job.method, "seed": job.seed, "call": str(run.about["call"]), "seconds": run.about["seconds"], **cells}


def done(job: Job) -> bool:
    """Whether a run is finished and scored."""
    return (job.folder / "run.json").is_file() and read_about(job.folder)["status"] == "done" and any(job.folder.glob("evaluation-test.json"))


def row(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The seeds of a method together."""
    values, errors = (np.array([f["mig"][key] for f in found]) for key in ("value", "error"))
    gap = of_values(values, errors)
    means = {name: float(np.mean([f[name]["value"] for f in found])) for name in SHOWN if name != "mig"}
    told = {"mean": gap.mean, "low": gap.low, "high": gap.high, "these_runs_only": gap.these_runs_only, "values": values.tolist(), "errors": errors.tolist()}
    return {"call": found[0]["call"], "mig": told, **means, "seconds": float(np.mean([f["seconds"] for f in found]))}


def differences(found: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Each method's gap less that of beta_vae on the same seeds, and whether the interval leaves out 0."""
    names = [n for n in found if [f["seed"] for f in found[n]] == [f["seed"] for f in found.get(BASE, [])]]
    if len(names) < 2:
        return {}
    values, errors = (np.array([[f["mig"][key] for f in found[n]] for n in names]) for key in ("value", "error"))
    estimate, base = pairwise_values(values, errors), names.index(BASE)
    half = estimate.half_width()
    told = {}
    for i, name in enumerate(names):
        if i != base:
            mean, low, high = (float(v[i, base]) for v in (estimate.mean, estimate.mean - half, estimate.mean + half))
            told[name] = {"mean": mean, "low": low, "high": high, "verdict": "higher" if low > 0 else "lower" if high < 0 else "undecided"}
    return told


def lines(table: dict[str, Any]) -> Iterator[str]:
    """The page."""
    yield "# Disentangling sprites\n"
    yield f"Made by `python benchmarks/disentangling.py` ({table['protocol']}). {table['date']}, {table['machine']}. Intervals of 95 % over seeds and rows; the"
    yield "sprites are redrawn, so published numbers are near relatives and not the same measurement. The best gap that 20 bins can show here is 0.90.\n"
    yield f"| method | MIG | of each seed | less `{BASE}` | ELBO loss | reconstruction | KL | active units | seconds |\n|---|---|---|---|---|---|---|---|---|"
    for name, r in table["methods"].items():
        gap, apart = r["mig"], table["differences"].get(name)
        seeds = ", ".join(f"{v:.3f}" for v in gap["values"])
        less = f"{apart['mean']:+.3f} ({apart['low']:+.3f} to {apart['high']:+.3f}): {apart['verdict']}" if apart else ""
        numbers = (f"{-r['elbo']:.1f}", f"{r['cross_entropy']:.1f}", f"{r['kl']:.1f}", f"{r['active_units']:.1f}", f"{r['seconds']:.0f}")
        yield f"| `{r['call']}` | {gap['mean']:.3f} ({gap['low']:.3f} to {gap['high']:.3f}) | {seeds} | {less} | {' | '.join(numbers)} |"


def report(jobs: list[Job]) -> None:
    """Write the table of all runs that are finished, as JSON and as a page."""
    finished = [score(job) for job in jobs if done(job)]
    found = {name: [f for f in finished if f["method"] == name] for name in METHODS}
    found = {name: runs for name, runs in found.items() if runs}
    first = jobs[0]
    protocol = f"{DATA}, {first.net}, {first.steps:,} steps, {first.rows:,} test rows, {1 + max(j.seed for j in jobs)} seeds"
    table = {**about(), "protocol": protocol, "methods": {n: row(runs) for n, runs in found.items()}, "differences": differences(found)}
    first.out.mkdir(parents=True, exist_ok=True)
    write_json(first.out / "disentangling.json", table)
    text = "\n".join(lines(table)) + "\n"
    write_bytes(first.out / "disentangling.md", text.encode())
    sys.stdout.write(text)


def main() -> None:
    """Do what is still to do, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--net", default=NET)
    parser.add_argument("--rows", type=int, default=7000)
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread; 1 where they share a GPU")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--table", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    shared = (arguments.steps, arguments.net, arguments.rows, arguments.out)
    jobs = [Job(name, seed, *shared) for seed in range(arguments.seeds) for name in arguments.only]
    if not arguments.table:
        vaestro.load(DATA)  # drawn once, before several processes want it
        with ProcessPoolExecutor(arguments.jobs) as pool:
            for number, _ in enumerate(pool.map(score, jobs), 1):
                sys.stderr.write(f"{number} of {len(jobs)} runs\n")
    report(jobs)


if __name__ == "__main__":
    main()
