"""Metrics of generated rows as a set beside the data: quality, fidelity and diversity, over named features."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vaestro.evaluation.metrics.base import METRICS, Direction, Metric, Need, Score, jackknife
from vaestro.evaluation.metrics.frechet import frechet, kernel
from vaestro.evaluation.metrics.manifold import Manifold, manifold
from vaestro.evaluation.metrics.subject import Pair, Subject

MOST = 5000  # rows a side for neighbours, whose cost is quadratic
NEIGHBOURS = 5
Statistic = Callable[[Tensor, Tensor], float]


def resampled(statistics: Callable[[Tensor, Tensor], np.ndarray], pair: Pair, seed: int) -> list[Score]:
    """Statistics of two sets of features, each with its delete-a-group jackknife error."""

    def left(real: np.ndarray, fake: np.ndarray) -> np.ndarray:
        return statistics(pair.real[torch.from_numpy(real)], pair.fake[torch.from_numpy(fake)])

    errors = jackknife(left, len(pair.real), len(pair.fake), seed=seed)
    return [Score(float(v), float(e)) for v, e in zip(statistics(*pair), errors, strict=True)]


def distance(subject: Subject, features: str, statistic: Statistic) -> Score:
    """A distance between the features of the data rows and of as many generated rows."""
    return resampled(lambda a, b: np.array([statistic(a, b)]), subject.pair(features), subject.seed)[0]


def _shares(real: Tensor, fake: Tensor) -> np.ndarray:
    return np.array([float(column.mean()) for column in manifold(real, fake, NEIGHBOURS)])


def neighbours(subject: Subject, features: str, column: str) -> Score:
    """A mean over rows of what `manifold` says of them, on at most 5,000 rows a side."""
    pair = subject.pair(features)
    scores = subject.once(f"neighbours {features}", lambda: resampled(_shares, Pair(pair.real[:MOST], pair.fake[:MOST]), subject.seed))
    return scores[Manifold._fields.index(column)]


AS_MANY = "as many generated rows as data rows (binary data: draws; else the likelihood's mean at a draw of the prior)"
BALLS = f"{AS_MANY}, at most 5,000; balls up to the 5th neighbour"
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


def _register(features: str) -> None:
    needs = frozenset({Need.FEATURES})
    for name, title, statistic, source in DISTANCES:
        function = partial(distance, features=features, statistic=statistic)
        METRICS.add(
            f"{name}_{features}", Metric(f"{name}_{features}", f"{title} ({features})", "squared features", Direction.LOWER, AS_MANY, source, function, needs)
        )
    for name, title, source in SHARES:
        function = partial(neighbours, features=features, column=name)
        METRICS.add(f"{name}_{features}", Metric(f"{name}_{features}", f"{title} ({features})", "share", Direction.HIGHER, BALLS, source, function, needs))


for known in ("judge", "pca64"):
    _register(known)
