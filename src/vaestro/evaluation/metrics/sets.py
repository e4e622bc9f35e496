"""Metrics of generated rows as a set beside the data: quality, fidelity and diversity, over named features."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vaestro.errors import UsageError
from vaestro.evaluation.metrics.base import METRICS, Direction, Group, Metric, Need, Score, jackknife
from vaestro.evaluation.metrics.frechet import frechet
from vaestro.evaluation.metrics.kernel_distance import kernel
from vaestro.evaluation.metrics.manifold import Manifold, manifold
from vaestro.evaluation.metrics.subject import Pair, Subject
from vaestro.evaluation.metrics.two_sample import two_sample
from vaestro.evaluation.metrics.vendi import vendi

MOST = 5000  # rows a side for neighbours, whose cost is quadratic
NEIGHBOURS = 5
Statistic = Callable[[Tensor, Tensor], float]


def resampled(statistics: Callable[[Tensor, Tensor], np.ndarray], pair: Pair, seed: int) -> list[Score]:
    """Statistics of two sets of features, each with its delete-a-group jackknife error; raises UsageError for a single row, of which none can be left out."""
    if min(map(len, pair)) < 2:
        raise UsageError(f"two sets of rows are compared, and there is {len(pair.real)} row a side; score more rows")

    def left(real: np.ndarray, fake: np.ndarray) -> np.ndarray:
        return statistics(pair.real[torch.from_numpy(real)], pair.fake[torch.from_numpy(fake)])

    errors = jackknife(left, len(pair.real), len(pair.fake), seed=seed)
    return [Score(float(v), float(e)) for v, e in zip(statistics(*pair), errors, strict=True)]


def distance(subject: Subject, features: str, statistic: Statistic) -> Score:
    """A distance between the features of the data rows and of as many generated rows."""
    return resampled(lambda a, b: np.array([statistic(a, b)]), subject.pair(features), subject.seed)[0]


def relative_vendi(real: Tensor, fake: Tensor) -> float:
    """The Vendi score of the generated rows over that of the data rows."""
    return vendi(fake) / vendi(real)


def told_apart(subject: Subject, features: str) -> Score:
    """The held-out accuracy of a nearest-neighbour classifier, with its binomial error, on at most 5,000 rows a side."""
    pair = subject.pair(features)
    right = two_sample(pair.real[:MOST], pair.fake[:MOST], seed=subject.seed)
    return Score(float(right.mean()), float(np.sqrt(right.mean() * (1 - right.mean()) / len(right))))


def _shares(real: Tensor, fake: Tensor) -> np.ndarray:
    return np.array([float(column.mean()) for column in manifold(real, fake, NEIGHBOURS)])


def neighbours(subject: Subject, features: str, column: str) -> Score:
    """A mean over rows of what `manifold` says of them, on at most 5,000 rows a side."""
    pair = subject.pair(features)
    scores = subject.once(f"neighbours {features}", lambda: resampled(_shares, Pair(pair.real[:MOST], pair.fake[:MOST]), subject.seed))
    return scores[Manifold._fields.index(column)]


AS_MANY = "as many generated rows as data rows (binary data, counts and tables: draws; else the likelihood's mean at a draw of the prior)"
BALLS = f"{AS_MANY}, at most 5,000; balls up to the 5th neighbour"
VOTES = f"{AS_MANY}, at most 5,000; half teach, half are asked; the nearest sqrt(n) vote; 0.5 is chance"
RATIO = f"{AS_MANY}; cosine of features"
DISTANCES: tuple[tuple[str, str, Statistic, str], ...] = (
    ("frechet", "Frechet distance", frechet, "Heusel et al. 2017, equation 6"),
    ("kernel", "kernel distance, unbiased", kernel, "Binkowski et al. 2018, section 4"),
)
SHARES: tuple[tuple[str, str, str], ...] = (
    ("precision", "generated rows that look like data", "Kynkaanniemi et al. 2019, equation 1"),
    ("recall", "data rows that could be generated", "Kynkaanniemi et al. 2019, equation 2"),
    ("density", "how deep generated rows lie in the data", "Naeem et al. 2020, equation 2"),
    ("coverage", "data rows with a generated neighbour", "Naeem et al. 2020, equation 4"),
)
DEAR = ("effnetlite0", "inception")  # ImageNet's networks: a fifth of a second a picture on one core
KNOWN = ("judge", "pca64", *DEAR)
NAMED = {
    "frechet_effnetlite0": "fd_effnetlite0",
    "frechet_inception": "fid",
    "kernel_inception": "kid",
}  # usual names


def _register(features: str) -> None:
    def add(stem: str, title: str, how: tuple[str, Direction, str, str], function: Callable[..., Score]) -> None:
        name = NAMED.get(f"{stem}_{features}", f"{stem}_{features}")
        unit, direction, protocol, source = how
        needs, measured = frozenset({Need.FEATURES}), partial(function, features=features)
        METRICS.enter(Metric(name, f"{title} ({features})", unit, direction, protocol, source, measured, needs, features in DEAR, Group.QUALITY))

    for stem, title, statistic, source in DISTANCES:
        add(stem, title, ("squared features", Direction.LOWER, AS_MANY, source), partial(distance, statistic=statistic))
    for stem, title, source in SHARES:
        add(stem, title, ("share", Direction.HIGHER, BALLS, source), partial(neighbours, column=stem))
    apart = ("share of rows told right", Direction.LOWER, VOTES, "Lopez-Paz & Oquab 2017, equation 2")
    add("two_sample", "generated rows told from data", apart, told_apart)
    ratio = ("ratio", Direction.ONE, RATIO, "Friedman & Dieng 2023, definition of the Vendi score")
    add("vendi", "Vendi score of samples over that of data", ratio, partial(distance, statistic=relative_vendi))


for known in KNOWN:
    _register(known)
