"""Statements of introductory texts, tested: small paired experiments, one difference with its interval each, one verdict.

    python benchmarks/introductory.py                    # about a quarter of an hour of one core; stopped, it goes on from where it was
    python benchmarks/introductory.py --only rows hybrid # these claims
    python benchmarks/introductory.py --table            # the page again, from the results that are there

Each trial is a file in `--out`/claims/trials, each claim one in `--out`/claims; README.md there names them all, also those that were not run.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from claims import verdict
from measure import about
from scipy import stats
from trials import SHARPNESS, Setting, trial

from vaestro.evaluation import intervals
from vaestro.evaluation.intervals import Interval
from vaestro.progress import tell
from vaestro.training.files import read_json, write_bytes, write_json

SEEDS = (0, 1, 2)
MANY = tuple(range(10))
HIGHER = ("recall_pca64", "precision_pca64", "codes_used")  # measures of which more is better; of sharpness the claim says which way
GREY = "vae:latents=16,hidden=64"
GAN = "gan:latents=16,hidden=64,network=mlp"


@dataclass(frozen=True)
class Contrast:
    """A claim that a weighted sum of losses lies below nought: of two settings, the first less the second."""

    says: str
    terms: tuple[tuple[float, Setting], ...]
    metric: str
    seeds: tuple[int, ...] = SEEDS
    dear: bool = False  # run only when it is named

    def settle(self, found: Sequence[Sequence[dict[str, Any]]]) -> Interval:
        """The sum with its interval, paired on seeds, and on rows where the measure has them; `found` are trials by term and seed."""
        sign = -1.0 if self.metric in HIGHER else 1.0
        weights = np.array([sign * w for w, _ in self.terms])
        if all(self.metric in t["rows"] for own in found for t in own):
            return intervals.of_recipe(np.einsum("t,tsr->sr", weights, np.array([[t["rows"][self.metric] for t in own] for own in found])))
        values = np.array([[t["values"][self.metric]["value"] for t in own] for own in found])
        errors = np.array([[t["values"][self.metric]["error"] for t in own] for own in found])
        return intervals.of_values(weights @ values, np.sqrt(np.square(weights) @ np.square(errors)))


@dataclass(frozen=True)
class Spread(Contrast):
    """A claim that one setting's values spread less over seeds than another's: the difference of the logarithms of their variances."""

    def settle(self, found: Sequence[Sequence[dict[str, Any]]]) -> Interval:
        """The difference with its interval, by the jackknife."""
        first, second = (np.array([t["values"][self.metric]["value"] for t in own]) for own in found)
        return spread(first, second)


@dataclass(frozen=True)
class Apart(Contrast):
    """A claim that seeds alone make runs of one setting differ: the greatest paired difference of two of them."""

    def settle(self, found: Sequence[Sequence[dict[str, Any]]]) -> Interval:
        """Best less worst run, with an interval that holds for all pairs together (Bonferroni)."""
        return apart(np.array([t["rows"][self.metric] for t in found[0]]))


def log_variances(values: np.ndarray) -> np.ndarray:
    """Pseudo-values of the logarithm of the variance, [n]: n l - (n - 1) l_without_i (Miller 1968)."""
    n = len(values)
    left = np.array([np.log(np.delete(values, i).var(ddof=1)) for i in range(n)])
    return np.asarray(n * np.log(values.var(ddof=1)) - (n - 1) * left)


def spread(first: np.ndarray, second: np.ndarray) -> Interval:
    """ln of the first's variance over the second's, with Welch's interval over the jackknife's pseudo-values: it does not lean on normal values as F does."""
    a, b = log_variances(first), log_variances(second)
    parts = [v.var(ddof=1) / len(v) for v in (a, b)]
    error = math.sqrt(sum(parts))
    df = sum(parts) ** 2 / sum(p**2 / (len(v) - 1) for p, v in zip(parts, (a, b), strict=True))
    return _interval(float(a.mean() - b.mean()), error, df, 0.05, len(first))


def apart(rows: np.ndarray) -> Interval:
    """The least mean of runs [seeds, rows] less the greatest, paired on rows, its level shared by all pairs."""
    order = rows.mean(1).argsort()
    difference = rows[order[0]] - rows[order[-1]]
    pairs = len(rows) * (len(rows) - 1) // 2
    return _interval(float(difference.mean()), float(difference.std(ddof=1) / math.sqrt(rows.shape[1])), rows.shape[1] - 1, 0.05 / pairs, len(rows))


def _interval(mean: float, error: float, df: float, miss: float, seeds: int) -> Interval:
    half = float(stats.t.isf(miss / 2, df)) * error
    return Interval(mean, mean - half, mean + half, error, df, seeds, seeds < intervals.SEEDS_FOR_A_RECIPE)


def less(first: Setting, second: Setting) -> tuple[tuple[float, Setting], ...]:
    """First less second."""
    return ((1.0, first), (-1.0, second))


def sized(rows: int) -> Setting:
    """A VAE on so many rows of MNIST."""
    return Setting("vae:latents=20,hidden=200", "mnist-dynamic", 1000, rows)


def quantised(revive: float) -> Setting:
    """A VQ-VAE whose rare codes are moved, or not."""
    return Setting(f"vq_vae:codes=256,dimension=8,hidden=8x16,revive={revive}")


def at(side: int) -> tuple[Setting, Setting]:
    """A convolutional VAE and GAN on emoji of so many pixels a side."""
    return tuple(Setting(f"{c}:network=convolutional,latents=32", "emoji-64", 2000, side=side) for c in ("vae", "gan"))  # type: ignore[return-value]


PLAIN, RIVAL, CONVOLUTIONAL = Setting(GREY), Setting(GAN), Setting("vae:latents=16,hidden=8x16,network=convolutional")
CLAIMS: dict[str, Contrast] = {
    "diverse": Contrast("samples of a VAE are more diverse than a GAN's (recall)", less(PLAIN, RIVAL), "recall_pca64"),
    "sharp": Contrast("samples of a VAE are less sharp than a GAN's (power at high frequencies)", less(PLAIN, RIVAL), SHARPNESS),
    "stable": Spread("training a VAE is more stable than training a GAN (ln of the variance over ten seeds)", less(PLAIN, RIVAL), "energy", MANY),
    "hybrid": Contrast("a VAE with a critic has better samples than a VAE", less(Setting("vae_gan:latents=16,hidden=8x16"), CONVOLUTIONAL), "frechet_pca64"),
    "revival": Contrast("codes that nobody uses can be revived", less(quantised(0.03), quantised(0.0)), "codes_used"),
    "autoencoder": Contrast("a VAE generates better than an autoencoder", less(PLAIN, Setting("ae:latents=16,hidden=64")), "frechet_pca64"),
    "initialisation": Apart("runs that differ in their seed alone differ (best less worst of ten)", ((1.0, PLAIN),), "nll", MANY),
    "learning-rate": Contrast("a tenth of the learning rate costs nats at equal steps", less(PLAIN, Setting(f"{GREY},learning_rate=0.0002")), "nll"),
    "latents": Contrast("2 latents are too few", less(PLAIN, Setting("vae:latents=2,hidden=64")), "nll"),
    "rows-small": Contrast("1,000 training rows beat 100", less(sized(1000), sized(100)), "nll"),
    "rows-middle": Contrast("10,000 training rows beat 1,000", less(sized(10_000), sized(1000)), "nll"),
    "rows-large": Contrast("50,000 training rows beat 10,000", less(sized(50_000), sized(10_000)), "nll"),
    "resolution": Contrast(
        "VAEs lag behind GANs more at 64 pixels a side than at 28", tuple(zip((-1.0, 1.0, 1.0, -1.0), (*at(64), *at(28)), strict=True)),
        "two_sample_pca64", dear=True,
    ),
}  # fmt: skip


def settled(claim: Contrast, trials: Path, train: bool) -> dict[str, Any] | None:
    """A claim beside what was measured; None while trials are missing and none are to be made."""
    todo = [(setting, seed) for _, setting in claim.terms for seed in claim.seeds]
    if not train and not all((trials / f"{s.identity(seed)}.json").exists() for s, seed in todo):
        return None
    made = []
    for number, (setting, seed) in enumerate(todo, 1):
        tell(f"{number} of {len(todo)}: {setting.call}, seed {seed}", 0.0)
        made.append(trial(setting, seed, trials))
    found = [made[i : i + len(claim.seeds)] for i in range(0, len(made), len(claim.seeds))]
    interval = claim.settle(found)
    values = [float(np.mean([t["values"][claim.metric]["value"] for t in own])) for own in found]
    told = {"difference": interval.mean, "low": interval.low, "high": interval.high, "verdict": verdict(interval.low, interval.high)}
    words = {"says": claim.says, "metric": claim.metric, "seeds": list(claim.seeds), "trials": [t for _, s in claim.terms for t in [vars(s)]]}
    return {**words, "values": values, **told, "seconds": round(sum(t["seconds"] for t in made), 1), **about()}


def lines(out: Path) -> Iterator[str]:
    """The page, from the files."""
    yield "# What introductory texts say, and what was measured\n"
    yield "Made by `make intro`: tiny models on tiny data, each claim tested by itself at 5 %. A difference is of losses, the first setting less the"
    yield "second, negative where the claim holds, with its 95 % interval over seeds and rows (of sets: over seeds and the measure's own error).\n"
    yield "A verdict speaks of these settings, not of all VAEs and GANs: nothing was tuned, and a longer or larger run may turn it.\n"
    yield "| claim | settings | metric | values | difference | verdict | seeds |\n|---|---|---|---|---|---|---|"
    for name, claim in CLAIMS.items():
        path = out / f"{name}.json"
        settings = " / ".join(f"`{s.call}`" + (f" on {s.rows:,} rows" if s.rows else "") + (f" at {s.side}" if s.side else "") for _, s in claim.terms)
        if not path.exists():
            yield f"| {claim.says} | {settings} | {claim.metric} | | | not run | |"
            continue
        row = read_json(path)
        values = " / ".join(f"{v:.3g}" if abs(v) < 10 else f"{v:.2f}" for v in row["values"])
        difference = f"{row['difference']:.3g} ({row['low']:.3g} to {row['high']:.3g})"
        yield f"| {claim.says} | {settings} | {claim.metric} | {values} | {difference} | {row['verdict']} | {len(row['seeds'])} |"
    yield "\nData, steps and rows of each setting stand in `NAME.json`, each trial in `trials/`. 10,000 of MNIST's 60,000 training rows are validation rows."


def main() -> None:
    """Do what is still to do, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CLAIMS, default=[n for n, c in CLAIMS.items() if not c.dear])
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--table", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    folder = arguments.out / "claims"
    folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        row = settled(CLAIMS[name], folder / "trials", not arguments.table)
        if row is not None:
            write_json(folder / f"{name}.json", row)
            sys.stderr.write(f"{name}: {row['verdict']}\n")
    text = "\n".join(lines(folder)) + "\n"
    write_bytes(folder / "README.md", text.encode())
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
