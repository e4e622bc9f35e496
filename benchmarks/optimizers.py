"""Seconds to 90, 89 and 88 nats: the same MLP VAE under every optimiser, each at the best of three rates.

    python benchmarks/optimizers.py                 # about an hour and a half on two cores; stopped, it goes on from where it was
    python benchmarks/optimizers.py --limit 20      # a shrunken trial

The rate of each optimiser is chosen by validation nats with one seed and a fraction of the time; then it is trained with other seeds until it reaches the
last target or its time is over. Time is the core's time of training steps alone; likelihoods are of validation rows, never of test rows.
"""

import argparse
import math
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measure import about, keep

from vaestro.data import load
from vaestro.data.rows import Batches, Rows
from vaestro.evaluation.likelihood import importance
from vaestro.evaluation.scope import fixed_rows
from vaestro.optimizers import OPTIMIZERS
from vaestro.recipes import parse
from vaestro.training.budget import core
from vaestro.training.files import read_json, write_json
from vaestro.training.loop import Loop

DATA, NET = "mnist-dynamic", "vae:latents=40,hidden=300x300,rate=constant"
RATES = {"sgd": (1e-3, 3e-3, 1e-2)}  # the others are relatives of Adam
ADAM_RATES = (5e-4, 1e-3, 3e-3)
TARGETS = (90.0, 89.0, 88.0)
ROWS, SAMPLES = 1000, 100
FIRST, GROWTH = 5.0, 1.12  # seconds to the first look, and the factor from one look to the next


@dataclass(frozen=True)
class Trial:
    """One training: the optimiser, its rate, the seed and the longest time in core seconds."""

    optimizer: str
    rate: float
    seed: int
    limit: float

    @property
    def call(self) -> str:
        """The recipe call."""
        return f"{NET},optimizer={self.optimizer},learning_rate={self.rate}"

    @property
    def file(self) -> str:
        """Where its curve is kept."""
        return f"{self.optimizer}-{self.rate:g}-{self.seed}-{self.limit:g}.json"


def looks(trial: Trial) -> Iterator[tuple[float, float]]:
    """Core seconds of training so far, and validation nats by importance sampling."""
    torch.set_num_threads(1)
    data = load(DATA)
    recipe = parse(trial.call).cook(data.schema, trial.seed)
    device = torch.device("cpu")
    train, validation = (Rows(data.split(s), data.schema, recipe.fields, device) for s in ("train", "validation"))
    batches = Batches(train.rows, recipe.training.batch, trial.seed, device)
    loop = Loop(recipe, trial.seed, 1_000_000, device)
    index = fixed_rows(validation.rows, ROWS)
    spent, due = 0.0, FIRST
    while spent < trial.limit:
        start = core()
        while spent + core() - start < due:
            rows = batches.batch_index(loop.n)
            loop.step(lambda rows=rows: train.batch(rows))  # type: ignore[misc]
        spent, due = spent + core() - start, due * GROWTH
        found = importance(recipe.model.eval(), ({"x": validation.batch(i)["x"]} for i in index.split(250)), SAMPLES, name=trial.call)
        recipe.model.train()
        yield spent, -found.mean


def train(trial: Trial, folder: Path) -> list[tuple[float, float]]:
    """The looks of a trial, to the last target or to its limit; read from the folder if they were kept there."""
    path = folder / trial.file
    if path.exists():
        return [(spent, nats) for spent, nats in read_json(path)["looks"]]
    found = []
    for look in looks(trial):
        found.append(look)
        if look[1] <= TARGETS[-1] or not math.isfinite(look[1]):
            break
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, {"call": trial.call, "seed": trial.seed, "looks": found})
    return found


def reached(curve: list[tuple[float, float]]) -> dict[str, float | None]:
    """The seconds of the first look at or below each target."""
    return {f"{target:g}": next((round(s, 1) for s, nats in curve if nats <= target), None) for target in TARGETS}


def main() -> None:
    """Choose the rates, race, and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=float, default=300.0, help="core seconds of one training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/optimizers"), help="where the curves of single trainings are kept")
    arguments = parser.parse_args()
    raced = partial(train, folder=arguments.runs)
    with ProcessPoolExecutor(arguments.jobs) as pool:
        choices = [Trial(name, rate, 100, arguments.limit / 5) for name in OPTIMIZERS for rate in RATES.get(name, ADAM_RATES)]
        ends = {t: curve[-1][1] for t, curve in zip(choices, pool.map(raced, choices), strict=True)}
        best = {name: min((t for t in choices if t.optimizer == name), key=lambda t: (math.isnan(ends[t]), ends[t])).rate for name in OPTIMIZERS}
        races = [Trial(name, best[name], seed, arguments.limit) for seed in range(arguments.seeds) for name in OPTIMIZERS]
        curves = dict(zip(races, pool.map(raced, races), strict=True))
    protocol = f"{NET}, batch 128, {ROWS:,} validation rows of {DATA} x {SAMPLES} importance samples, one thread; core seconds of steps, looked at every 12 %"
    tried = {name: {f"{t.rate:g}": round(ends[t], 2) for t in choices if t.optimizer == name} for name in OPTIMIZERS}
    rows: dict[str, Any] = {}
    for name in OPTIMIZERS:
        mine = [curves[t] for t in races if t.optimizer == name]
        rows[name] = {
            "rate": best[name],
            "rates tried, nats": tried[name],
            "seconds to": [reached(c) for c in mine],
            "last": [[round(v, 2) for v in c[-1]] for c in mine],
        }
    keep("optimizers", {**about(), "protocol": protocol, "limit": arguments.limit, "optimizers": rows})


if __name__ == "__main__":
    main()
