"""The metric of samples that needs no feature network: the energy distance of generated rows to the data."""

import numpy as np
import torch
from torch import Tensor

from vaestro.evaluation.metrics.base import METRICS, Direction, Group, Metric, Score
from vaestro.evaluation.metrics.sets import MOST, resampled
from vaestro.evaluation.metrics.subject import Pair, Subject
from vaestro.networks.judge import unit


class Values:
    """Rows as their own features: [n, *shape] to [n, numbers]."""

    name = "values"

    def features(self, images: Tensor) -> Tensor:
        """Unit values, or real ones, side by side in float32."""
        return unit(images).flatten(1)


def energy_of(real: Tensor, fake: Tensor) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'| of two sets of rows [n, d], [m, d], without bias; NaN for a single row."""
    return float(2 * torch.cdist(real, fake).mean() - torch.pdist(real).mean() - torch.pdist(fake).mean())


def energy(subject: Subject) -> Score:
    """The energy distance between the data rows and as many generated ones, at most 5,000 a side: 0 in expectation where both have one law."""
    pair = subject.once("values", lambda: subject.pair_by(Values()))
    kept = Pair(pair.real[:MOST], pair.fake[:MOST])
    return resampled(lambda a, b: np.array([energy_of(a, b)]), kept, subject.seed)[0]


METRICS.add(
    "energy",
    Metric(
        "energy", "energy distance of samples", "unit values", Direction.LOWER, "as many generated rows as data rows, at most 5,000; numbers side by side",
        "Szekely & Rizzo 2013, eq. 2", energy, group=Group.QUALITY,
    ),
)  # fmt: skip
