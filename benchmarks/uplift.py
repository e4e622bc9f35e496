"""The sampler's uplift: what a prior that is fitted after training does to the samples of a frozen model, at equal weights.

    python benchmarks/uplift.py             # about an hour and a half on two cores; stopped, it goes on from where it was
    python benchmarks/uplift.py --only vae  # these models
    python benchmarks/uplift.py --steps 200 --seeds 1 --out /tmp/trial

Every model is trained once a seed and scored with its own prior and with each fitted one: Frechet distance, density and coverage on the judge's features.
Runs lie below `--runs`, scores in `--out`/uplift; uplift.json and uplift.md hold every pair of which all scores are there.
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

from vaestro.arena import load_challenge
from vaestro.arena.scoring import subject
from vaestro.data import load
from vaestro.evaluation.intervals import Estimate, of_values, pairwise_values
from vaestro.evaluation.metrics import METRICS, measure
from vaestro.recipes import parse
from vaestro.training import runs
from vaestro.training.budget import Budget
from vaestro.training.files import read_json, write_bytes, write_json
from vaestro.training.train import Plan
from vaestro.uses.fitting import fit_prior

DATA, TIER = "mnist-dynamic", "claims"
NET = "latents=16,hidden=300x300"
MODELS = {"ae": f"ae:{NET}", "vae": f"vae:{NET}", "vq_vae": "vq_vae:codes=64,dimension=16"}
PRIORS = {"ae": ("gmm:components=10", "flow"), "vae": ("gmm:components=10", "flow"), "vq_vae": ("masked_codes",)}
SHOWN = ("frechet_judge", "density_judge", "coverage_judge")
OWN = "its own"


@dataclass(frozen=True)
class Place:
    """How long is trained, and where all of it lies."""

    steps: int
    runs: Path
    out: Path

    def name(self, model: str, seed: int, prior: str = OWN) -> str:
        """One name for a run and its score."""
        return f"{model}-{self.steps}-{seed}" + ("" if prior == OWN else f"-{prior.replace(':', '-').replace('=', '')}")

    def score(self, model: str, seed: int, prior: str = OWN) -> Path:
        """The score of a model under a prior."""
        return self.out / "uplift" / f"{self.name(model, seed, prior)}.json"


def trained(model: str, seed: int, place: Place) -> runs.Run:
    """The run of a model: trained, gone on with, or opened."""
    folder = place.runs / place.name(model, seed)
    if not (folder / runs.ABOUT).exists():
        return runs.train(Plan(parse(MODELS[model]), load(DATA), Budget(steps=place.steps), seed, "cpu"), folder, source=DATA)
    return runs.open_run(folder, device="cpu") if runs.read_about(folder)["status"] == "done" else runs.resume(folder)


def work(job: tuple[str, int, Place]) -> None:
    """Train one model with one seed, fit every prior to it and score them all, as far as that is still to do."""
    model, seed, place = job
    torch.set_num_threads(1)
    challenge = load_challenge(DATA)
    for prior in (OWN, *PRIORS[model]):
        path, folder = place.score(model, seed, prior), place.runs / place.name(model, seed, prior)
        if path.exists():
            continue
        run = trained(model, seed, place)
        if prior != OWN:
            run = runs.open_run(folder, device="cpu") if (folder / runs.ABOUT).exists() else fit_prior(run, prior, out=folder, seed=seed)
        report = measure(SHOWN, subject(run, run.data(), challenge, challenge.rules.tier(TIER)))
        path.parent.mkdir(parents=True, exist_ok=True)
        told = {"call": run.about["call"], "prior": prior, "seed": seed, "steps": place.steps, "weights_sha256": run.about["weights_sha256"]}
        write_json(path, told | {n: {"value": s.value, "error": s.error} for n, s in report.scores.items()})


def compared(model: str, prior: str, seeds: int, place: Place) -> dict[str, Any] | None:
    """A fitted prior beside the model's own, or None while scores are missing."""
    paths = [[place.score(model, s, p) for s in range(seeds)] for p in (prior, OWN)]
    if not all(path.exists() for group in paths for path in group):
        return None
    found = [[read_json(path) for path in group] for group in paths]
    told: dict[str, Any] = {}
    for name in SHOWN:
        values, errors = (np.array([[r[name][key] for r in group] for group in found]) for key in ("value", "error"))
        sign = METRICS[name].direction.loss(1.0)
        apart = pairwise_values(sign * values, errors)
        gap = Estimate(apart.mean[0, 1], apart.variance[0, 1], apart.df[0, 1], apart.seeds).interval()
        each = [of_values(values[i], errors[i]) for i in range(2)]
        told[name] = {"fitted": each[0].mean, "own": each[1].mean, "loss": gap.mean, "low": gap.low, "high": gap.high}
    return told


def lines(table: dict[str, Any]) -> Iterator[str]:
    """The page."""
    yield "# The sampler's uplift\n"
    yield f"Made by `python benchmarks/uplift.py`: {table['protocol']}. {table['date']}, {table['machine']}. The model stays as it is; only its prior is"
    yield "fitted anew (`vaestro fit-prior RUN PRIOR`). Differences are of losses, negative where the fitted prior is better, with 95 % intervals.\n"
    yield "| model | fitted prior | Frechet (judge): own, fitted | difference | density: own, fitted | coverage: own, fitted |\n|---|---|---|---|---|---|"
    for row in table["rows"]:
        told = row["scores"]
        if told is None:
            yield f"| `{MODELS[row['model']]}` | `{row['prior']}` | not run | | | |"
            continue
        f, d, c = (told[name] for name in SHOWN)
        gap = f"{f['loss']:.1f} ({f['low']:.1f} to {f['high']:.1f})"
        cells = (f"{f['own']:.1f}, {f['fitted']:.1f}", gap, f"{d['own']:.2f}, {d['fitted']:.2f}", f"{c['own']:.2f}, {c['fitted']:.2f}")
        yield f"| `{MODELS[row['model']]}` | `{row['prior']}` | {' | '.join(cells)} |"


def main() -> None:
    """Do what is still to do, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL", help="models to train: all of them if left out")
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread")
    parser.add_argument("--runs", type=Path, default=Path("runs/uplift"))
    parser.add_argument("--out", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    place = Place(arguments.steps, arguments.runs, arguments.out)
    with ProcessPoolExecutor(arguments.jobs) as pool:
        list(pool.map(work, [(model, seed, place) for seed in range(arguments.seeds) for model in arguments.only]))
    rows = [{"model": m, "prior": p, "scores": compared(m, p, arguments.seeds, place)} for m in MODELS for p in PRIORS[m]]
    protocol = f"{DATA}, {place.steps:,} steps, {arguments.seeds} seeds, 2,000 test rows and as many samples"
    table = {**about(), "protocol": protocol, "rows": rows}
    write_json(place.out / "uplift.json", table)
    text = "\n".join(lines(table)) + "\n"
    write_bytes(place.out / "uplift.md", text.encode())
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
