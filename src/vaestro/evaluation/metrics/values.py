"""The metric of samples that needs no feature network: the energy distance of generated rows to the data."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vaestro.evaluation.metrics.base import METRICS, Direction, Group, Metric, Score
from vaestro.evaluation.metrics.encodings import as_numbers
from vaestro.evaluation.metrics.manifold import CHUNK, distances
from vaestro.evaluation.metrics.sets import MOST, resampled
from vaestro.evaluation.metrics.subject import Pair, Subject
from vaestro.networks.judge import unit


class Values:
    """Rows as their own features: [n, *shape] to [n, numbers], as `read` sees them."""

    name = "values"

    def __init__(self, read: Callable[[Tensor], Tensor]) -> None:
        self.read = read

    def features(self, images: Tensor) -> Tensor:
        """Unit values, or real ones, side by side in float32."""
        return self.read(unit(images))


def energy_of(real: Tensor, fake: Tensor) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'| of two sets of rows [n, d], [m, d], without bias, in float64; NaN for a single row."""
    centre = real.mean(0, dtype=torch.float64)  # rows far from 0 lie near each other, and products of their numbers would hide it
    x, y = real.double() - centre, fake.double() - centre
    return 2 * _apart(x, y) / (len(x) * len(y)) - _among(x) - _among(y)


def _apart(rows: Tensor, others: Tensor) -> float:
    """The sum of all distances between two sets of rows, in chunks."""
    return sum(float(distances(part, others).sqrt().sum()) for part in rows.split(CHUNK))


def _among(rows: Tensor) -> float:
    """The mean distance of two different rows; NaN for one. A row lies at 0 from itself, but for rounding, which the root would enlarge."""
    n = len(rows)
    total = 0.0
    for start in range(0, n, CHUNK):
        part = distances(rows[start : start + CHUNK], rows)
        part.diagonal(start).zero_()
        total += float(part.sqrt().sum())
    return total / (n * (n - 1)) if n > 1 else math.nan


def energy(subject: Subject) -> Score:
    """The energy distance between the data rows and as many generated ones, at most 5,000 a side: 0 in expectation where both have one law."""
    pair = subject.once("values", lambda: subject.pair_by(Values(as_numbers(subject))))
    kept = Pair(pair.real[:MOST], pair.fake[:MOST])
    return resampled(lambda a, b: np.array([energy_of(a, b)]), kept, subject.seed)[0]


METRICS.enter(
    Metric(
        "energy", "energy distance of samples", "unit values", Direction.LOWER, "as many generated rows as data rows, at most 5,000; numbers side by side",
        "Szekely & Rizzo 2013, eq. 2", energy, group=Group.QUALITY,
    ),
)  # fmt: skip
