"""Classes of MNIST from few labels, clusters without any, and characters that no training saw: beside classical rows and published numbers.

    python benchmarks/few_labels.py --folder FOLDER     # three seeds, about half an hour of one core

Writes results/few_labels.json and results/few_labels.md.
Test rows choose nothing: recipes, steps and keywords are fixed below. Intervals are at 95 %: over three seeds and rows where three were trained, else over
draws of labels and rows. Runs that --folder holds already are used again.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from measure import about

import vaestro
from vaestro.evaluation.intervals import of_values
from vaestro.evaluation.metrics.clustering import agreement, clustered
from vaestro.evaluation.metrics.probes import NEIGHBOURS, few, linear, nearest
from vaestro.evaluation.sure import Sure, left_out, shares
from vaestro.training.files import write_json
from vaestro.training.runs import Run
from vaestro.uses.augment import values
from vaestro.uses.classify import Probing, classified
from vaestro.uses.cluster import clusters
from vaestro.uses.embed import codes, levelled
from vaestro.uses.recognise import Episodes, few_shot
from vaestro.uses.rows.lots import Lot, Wish, lot

Learn: TypeAlias = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
SEEDS = (0, 1, 2)
PAGE = Path(__file__).resolve().parents[1] / "results" / "few_labels.md"
LABELS = (10, 100, 1000)
M1 = "vae:latents=32,hidden=256"
M1_M2 = "m1_m2:labels={},latents=32,upper=16,hidden=256,width=256"
LONGER = 20_000  # steps of M1+M2 and of VaDE besides: both gain for long
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


class Told(NamedTuple):
    """Training rows and labels, test rows and labels, as numbers."""

    x: np.ndarray
    labels: np.ndarray
    test: np.ndarray
    truth: np.ndarray

    def drawn(self, learn: Learn, number: int, draws: int) -> Sure:
        """The accuracy over draws of so many labels."""
        rng = np.random.default_rng(0)
        picked = [few(self.labels, number, rng) for _ in range(draws)]
        return shares(np.stack([learn(self.x[p], self.labels[p], self.test) == self.truth for p in picked]))

    def grouped(self, groups: np.ndarray) -> Sure:
        """The accuracy of the best matching of clusters of test rows to classes."""
        return left_out(lambda kept: agreement(groups[kept], self.truth[kept]), len(groups))[2]


def of(run: Run, most: int, read: Callable[[Lot], np.ndarray]) -> Told:
    """What `read` makes of 10,000 training rows and `most` test rows."""
    train, test = (lot(run, None, wish) for wish in (Wish("train", 10_000), Wish("test", most)))
    return Told(read(train), train.labelled(), read(test), test.labelled())


def latents(run: Run, most: int) -> Told:
    """Posterior means, divided by one number, as `classified` and `clusters` read them."""
    found = of(run, most, lambda rows: codes(run, rows))
    x, test = levelled(found.x, found.test)
    return found._replace(x=x, test=test)


def few_labels(folder: Path, steps: int, most: int, draws: int) -> dict[str, Any]:
    """Accuracy from 10, 100 and 1,000 labels, and of ten clusters without any. A temperature changes no class, so that probes are not calibrated here."""
    runs = [trained(M1, "mnist-dynamic", s, steps, folder) for s in SEEDS]
    m1, raw = [latents(run, most) for run in runs], of(runs[0], most, lambda rows: values(rows, runs[0]).flatten(1).numpy())
    found: dict[str, Any] = {}
    for number in LABELS:
        near = partial(nearest, k=min(NEIGHBOURS, number // 10))
        found[f"{number} labels"] = {
            "M1 + logistic regression": over_seeds([told.drawn(linear, number, draws) for told in m1]),
            "M1 + nearest neighbours": over_seeds([told.drawn(near, number, draws) for told in m1]),
            "pixels, logistic regression": one(raw.drawn(linear, number, draws)),
            "pixels, nearest neighbours": one(raw.drawn(near, number, draws)),
        }
    wish = Wish("test", most)
    for name, given in (("M1+M2", steps), (f"M1+M2, {LONGER:,} steps", LONGER)):
        stacked = [trained(M1_M2.format(100), "mnist-dynamic", s, given, folder) for s in SEEDS]
        found["100 labels"][name] = over_seeds([classified(run, None, Probing("own"), wish).accuracy for run in stacked])
    found["ten clusters"] = {
        **ten_clusters(folder, steps, runs, wish),
        "M1 + k-means": over_seeds([told.grouped(clustered(told.x, told.test, 10, 0)) for told in m1]),
        "pixels, k-means": one(raw.grouped(clustered(raw.x, raw.test, 10, 0))),
    }
    return found


def ten_clusters(folder: Path, steps: int, m1: list[Run], wish: Wish) -> dict[str, Any]:
    """Accuracy of the components of VaDE's priors, and of mixtures fitted to latents."""
    of_prior = {
        "VaDE, its prior": (VADE, steps),
        "VaDE, its prior, diagonal as in the paper": (f"{VADE},covariance=diagonal", steps),
        f"VaDE, its prior, {LONGER:,} steps": (VADE, LONGER),
    }
    found = {}
    for name, (call, given) in of_prior.items():
        runs = [trained(call, "mnist-dynamic", s, given, folder) for s in SEEDS]
        found[name] = over_seeds([clusters(run, None, "prior", None, wish).agreement["accuracy"] for run in runs])
    found["M1 + mixture"] = over_seeds([clusters(run, None, "gmm", 10, wish).agreement["accuracy"] for run in m1])
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


def table(found: dict[str, Any]) -> str:
    """The numbers as a page."""
    lines = [
        "# Few labels, clusters, characters never seen",
        "",
        f"`python benchmarks/few_labels.py`, {found['date']}, {found['machine']}. Small trainings: {found['steps']:,} steps of 128 rows,",
        "or as many as are said, three seeds;",
        f"{found['test_rows']:,} test rows; {found['draws']} draws of labels. Shares that are right, with 95 % intervals: of models over",
        "seeds, of classical rows over draws and rows.",
        "Recipes: " + ", ".join(f"`{call}`" for call in found["recipes"]) + ".",
    ]
    for part in ("mnist-dynamic", "characters never seen"):
        lines += ["", f"## {part}", "", "| task | method | right |", "|---|---|---|"]
        lines += [f"| {task} | {n} | {v['value']:.3f} [{v['low']:.3f}, {v['high']:.3f}] |" for task, rows in found[part].items() for n, v in rows.items()]
    lines += ["", "Published, after far longer training:", ""]
    lines += [f"- {what}: {', '.join(f'{n} {v}' for n, v in said.items() if n != 'source')} ({said['source']})" for what, said in found["published"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train, judge, keep."""
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("--folder", type=Path, required=True, help="where runs are kept")
    told.add_argument("--steps", type=int, default=3000)
    told.add_argument("--rows", type=int, default=2000, help="test rows")
    told.add_argument("--draws", type=int, default=5, help="draws of labels")
    asked = told.parse_args()
    torch.set_num_threads(1)
    found = {"characters never seen": characters(asked.folder, asked.steps), "mnist-dynamic": few_labels(asked.folder, asked.steps, asked.rows, asked.draws)}
    recipes = [M1, M1_M2.format(100), VADE, CHARACTERS]
    protocol = {"steps": asked.steps, "test_rows": asked.rows, "draws": asked.draws, "recipes": recipes, "published": PUBLISHED}
    every = {**about(), **protocol, **found}
    write_json(PAGE.with_suffix(".json"), every)
    PAGE.write_text(table(every), encoding="utf-8")


if __name__ == "__main__":
    main()
