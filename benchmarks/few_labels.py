"""Classes of MNIST from few labels, clusters without any, and characters that no training saw: beside classical rows and published numbers.

    nice -n 10 python benchmarks/few_labels.py --folder /tmp/few     # three seeds; about 20 minutes of one core; writes benchmarks/results/few_labels.json

Test rows choose nothing: recipes, steps and keywords are fixed below. Intervals are at 95 %: over three seeds and rows where three were trained, else over
draws of labels and rows. Runs that --folder holds already are used again.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import about, keep

import vaestro
from vaestro.evaluation.intervals import of_values
from vaestro.evaluation.metrics.clustering import agreement, clustered
from vaestro.evaluation.metrics.probes import few, linear, nearest
from vaestro.training.runs import Run
from vaestro.uses.augment import values
from vaestro.uses.classify import DRAWS, How, classified
from vaestro.uses.cluster import clusters
from vaestro.uses.embed import codes
from vaestro.uses.lots import Wish, lot
from vaestro.uses.recognise import Episodes, few_shot
from vaestro.uses.sure import Sure, left_out, shares

SEEDS = (0, 1, 2)
LABELS = (10, 100, 1000)
M1 = "vae:latents=32,hidden=256"
M1_M2 = "m1_m2:labels={},latents=32,upper=16,hidden=256,width=256"
VADE = "vade:latents=10,hidden=256"
CHARACTERS = "vae:latents=64,hidden=256"
PUBLISHED = {
    "errors with 100 labels, %": {"M1+M2": 3.33, "M2": 11.97, "source": "Kingma et al. 2014, table 1"},
    "accuracy of 10 clusters, %": {"VaDE": 94.46, "source": "Jiang et al. 2017, table 2, after pretraining a stacked autoencoder"},
}


def trained(call: str, data: str, seed: int, steps: int, folder: Path) -> Run:
    """A run of `call`, made or found."""
    out = folder / f"{call.replace(':', '-').replace('=', '').replace(',', '-')}-{data}-{steps}-{seed}"
    return vaestro.open_run(out) if (out / "model.safetensors").is_file() else vaestro.train(call, data, steps=steps, seed=seed, out=out)


def over_seeds(found: list[Sure]) -> dict[str, Any]:
    """The mean of seeds with its interval; the error of each is that of its own interval."""
    told = of_values(np.array([s.value for s in found]), np.array([(s.high - s.low) / 3.92 for s in found]))
    return {"value": round(told.mean, 4), "low": round(told.low, 4), "high": round(told.high, 4), "seeds": [round(s.value, 4) for s in found]}


def one(found: Sure) -> dict[str, float]:
    """A number and its interval, to four digits."""
    return {k: round(v, 4) for k, v in found._asdict().items()}


def pixels(run: Run, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training rows and labels, test rows and labels, as numbers."""
    parts: list[np.ndarray] = []
    for wish in (Wish("train", 10_000), Wish("test", most)):
        of = lot(run, None, wish)
        parts += [values(of, run).flatten(1).numpy(), of.labelled()]
    return parts[0], parts[1], parts[2], parts[3]


def drawn(learn: Callable[..., np.ndarray], number: int, rows: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]) -> Sure:
    """The accuracy of a classical classifier over draws of labels."""
    x, labels, test, truth = rows
    rng = np.random.default_rng(0)
    picked = [few(labels, number, rng) for _ in range(DRAWS)]
    return shares(np.stack([learn(x[p], labels[p], test) == truth for p in picked]))


def few_labels(folder: Path, steps: int, most: int) -> dict[str, Any]:
    """Accuracy from 10, 100 and 1,000 labels, and of ten clusters without any."""
    wish = Wish("test", most)
    m1 = [trained(M1, "mnist-dynamic", s, steps, folder) for s in SEEDS]
    found: dict[str, Any] = {}
    rows = pixels(m1[0], most)
    for number in LABELS:
        found[f"{number} labels"] = {
            "M1 + logistic regression": over_seeds([classified(run, None, How("linear", number), wish).accuracy for run in m1]),
            "M1 + nearest neighbours": over_seeds([classified(run, None, How("knn", number), wish).accuracy for run in m1]),
            "pixels, logistic regression": one(drawn(linear, number, rows)),
            "pixels, nearest neighbours": one(drawn(nearest, number, rows)),
        }
    stacked = [trained(M1_M2.format(100), "mnist-dynamic", s, steps, folder) for s in SEEDS]
    found["100 labels"]["M1+M2"] = over_seeds([classified(run, None, How("own"), wish).accuracy for run in stacked])
    vade = [trained(VADE, "mnist-dynamic", s, steps, folder) for s in SEEDS]

    def ten(runs: list[Run], by: str, number: int | None) -> dict[str, Any]:
        return over_seeds([clusters(run, None, by, number, wish).agreement["accuracy"] for run in runs])

    assigned = clustered(rows[0], rows[2], 10, 0)
    found["ten clusters"] = {
        "VaDE, its prior": ten(vade, "prior", None),
        "M1 + k-means": ten(m1, "kmeans", 10),
        "M1 + mixture": ten(m1, "gmm", 10),
        "pixels, k-means": one(left_out(lambda kept: agreement(assigned[kept], rows[3][kept]), most)[2]),
    }
    return found


def characters(folder: Path, steps: int) -> dict[str, Any]:
    """20-way accuracy on 100 characters that no training saw, 1 and 5 shots, by latents and by pixels."""
    runs = [trained(CHARACTERS, "hanzi", s, steps, folder) for s in SEEDS]
    test = lot(runs[0], None, Wish("test"))
    labels, raw = test.labelled(), values(test, runs[0]).flatten(1).double().numpy()
    z = [codes(run, lot(run, None, Wish("test"))) for run in runs]
    found: dict[str, Any] = {}
    for shots in (1, 5):
        task = Episodes(ways=20, shots=shots, queries=5, times=400)
        ways = ("euclidean",) if shots == 1 else ("euclidean", "mahalanobis")
        found[f"{shots} shot, 20 ways"] = {f"latents, {by}": over_seeds([few_shot(codes_of, labels, task, by) for codes_of in z]) for by in ways}
        found[f"{shots} shot, 20 ways"]["pixels, euclidean"] = one(few_shot(raw, labels, task))
    return found


def main() -> None:
    """Train, judge, keep."""
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("--folder", type=Path, required=True, help="where runs are kept")
    told.add_argument("--steps", type=int, default=3000)
    told.add_argument("--rows", type=int, default=5000, help="test rows")
    asked = told.parse_args()
    torch.set_num_threads(1)
    found = {"characters never seen": characters(asked.folder, asked.steps), "mnist-dynamic": few_labels(asked.folder, asked.steps, asked.rows)}
    protocol = {"steps": asked.steps, "test_rows": asked.rows, "recipes": [M1, M1_M2.format("N"), VADE, CHARACTERS], "published": PUBLISHED}
    keep("few_labels", {**about(), **protocol, **found})


if __name__ == "__main__":
    main()
