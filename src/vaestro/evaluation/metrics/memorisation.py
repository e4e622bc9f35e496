"""Whether a model has learnt its training rows by heart: by its samples, and by its scores."""

import numpy as np
import torch
from torch import Tensor

from vaestro.errors import UsageError
from vaestro.evaluation.metrics.manifold import distances

AT_ONCE = 20_000_000  # distances held together
RATE = 0.01  # strangers that may be taken for members


def nearest(rows: Tensor, others: Tensor) -> Tensor:
    """The squared distance of each row [n, d] to the nearest of the others [m, d], [n] float64, in chunks; raises UsageError where there are none."""
    if not len(rows) or not len(others):
        raise UsageError("nearest rows were asked of an empty set; give at least one row on both sides")
    centre = others.mean(0, dtype=torch.float64)
    b = others.double() - centre
    return torch.cat([distances(part.double() - centre, b).min(1).values for part in rows.split(max(1, AT_ONCE // len(b)))])


def copy_ratio(fake: Tensor, held: Tensor) -> float:
    """The median distance of generated rows to their nearest training row over that of held-out rows, from squared distances [n], [m].

    1: as near as unseen data; 0: copies. Blurred rows lie near everything, so a value below 1 alone is no proof: see `copied`. (After Meehan et al. 2020.)
    NaN where held-out rows are copies themselves.
    """
    usual, largest = float(held.median().sqrt()), float(torch.cat([fake, held]).max().sqrt())
    return float(fake.median().sqrt()) / usual if usual > 1e-6 * largest else float("nan")  # squares of rounded numbers are never quite 0


def copied(to_train: Tensor, to_held: Tensor, train: int, held: int) -> float:
    """The share of generated rows that are copies, from their squared distances to the nearest training and to the nearest held-out row, [n] each.

    (s - b) / (1 - b) with s the share that lies nearer to a training row (ties count half) and b = train / (train + held), which a model that
    favours neither has in expectation however blurred it is. 0 in expectation for such a model, 1 for a copier, c where a share c is copied;
    below 0 by chance only. Rows of both sides are taken for draws of one law.
    """
    chance = train / (train + held)
    nearer = float(((to_train < to_held).double() + (to_train == to_held).double() / 2).mean())
    return (nearer - chance) / (1 - chance)


def recognised(members: np.ndarray, strangers: np.ndarray, rate: float = RATE) -> float:
    """The share of members whose score is above a threshold that at most the share `rate` of strangers pass (Carlini et al. 2022, section 4).

    `rate` in expectation where a score says nothing, 1 where it tells all. Scores [n], [m]: the higher, the more a member.
    """
    passing = int(rate * len(strangers) + 1e-9)
    threshold = np.sort(strangers)[::-1][passing]
    return float((members > threshold).mean())


def recognised_error(members: np.ndarray, strangers: np.ndarray, rate: float = RATE, seed: int = 0) -> float:
    """The standard error of `recognised` over both sets of rows, by 200 bootstrap draws of each."""
    rng = np.random.default_rng(seed)
    values = [recognised(rng.choice(members, len(members)), rng.choice(strangers, len(strangers)), rate) for _ in range(200)]
    return float(np.std(values, ddof=1))
