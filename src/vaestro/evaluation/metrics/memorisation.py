"""Whether a model has learnt its training rows by heart: by its samples, and by its scores."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaestro.errors import UsageError
from vaestro.evaluation.metrics.manifold import distances, nearly_nothing

ENOUGH = 20  # rows a side of a cell, below which a Mann-Whitney test is no z-score
AT_ONCE = 2_000_000  # distances held together: 16 MB, which stay near the processor
RATE = 0.01  # strangers that may be taken for members


def nearest(rows: Tensor, others: Tensor) -> Tensor:
    """The squared distance of each row [n, d] to the nearest of the others [m, d], [n] float64, in chunks: exactly 0 for an equal row.

    Raises UsageError where there are none.
    """
    if not len(rows) or not len(others):
        raise UsageError("nearest rows were asked of an empty set; give at least one row on both sides")
    centre = others.mean(0, dtype=torch.float64)
    a, b = rows.double() - centre, others.double() - centre
    squares = b.square().sum(1)  # |a - b|^2 = |a|^2 + (|b|^2 - 2 a b): what is the same for all b waits until the smallest is found
    least = [torch.addmm(squares, part, b.T, alpha=-2).min(1).values for part in a.split(max(1, AT_ONCE // len(b)))]
    found = (torch.cat(least) + a.square().sum(1)).clamp(min=0)
    return torch.where(found > nearly_nothing(a, found), found, 0.0)


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


class Celled(NamedTuple):
    """Rows in a partition of space: the cell of each, and how far the nearest training row of that cell is."""

    cell: Tensor  # [n], whole numbers
    distance: Tensor  # [n]; inf where a cell has no training row

    def kept(self, index: Tensor) -> "Celled":
        """Some of the rows."""
        return Celled(self.cell[index], self.distance[index])


def celled(rows: Tensor, train: Tensor, means: Tensor) -> Celled:
    """Rows [n, d] in the cells of the nearest of `means` [c, d], with their squared distances to the nearest of the training rows [m, d] in that cell."""
    own, theirs = (distances(x.double(), means.double()).argmin(1) for x in (rows, train))
    found = torch.full((len(rows),), torch.inf, dtype=torch.float64)
    for cell in own.unique():
        here = own == cell
        if bool((theirs == cell).any()):
            found[here] = nearest(rows[here], train[theirs == cell])
    return Celled(own, found)


def mann_whitney(a: Tensor, b: Tensor) -> float:
    """Z_U = (U - n m / 2) / sqrt(n m / 12 ((n + m + 1) - sum (t^3 - t) / ((n + m) (n + m - 1)))), U the pairs in which `a` [n] is larger than `b` [m].

    Ties count half, t are their sizes, and there is no correction for continuity (Mann & Whitney 1947). 0 where all numbers are equal.
    """
    n, m = len(a), len(b)
    ordered = b.sort().values
    above = (torch.searchsorted(ordered, a) + torch.searchsorted(ordered, a, right=True)).double().sum() / 2
    ties = torch.cat([a, b]).unique(return_counts=True)[1].double()
    variance = n * m / 12 * (n + m + 1 - float((ties**3 - ties).sum()) / ((n + m) * (n + m - 1)))
    return float(above - n * m / 2) / variance**0.5 if variance > 0 else 0.0


def shared_cells(fake: Celled, held: Celled) -> Tensor:
    """The cells that have at least 20 generated and 20 held-out rows; raises UsageError where there are none."""
    cells = max(int(c.cell.max()) if len(c.cell) else 0 for c in (fake, held)) + 1
    counts = torch.stack([torch.bincount(c.cell, minlength=cells) for c in (fake, held)])
    found = (counts.min(0).values >= ENOUGH).nonzero()[:, 0]
    if not len(found):
        raise UsageError(f"no cell has {ENOUGH} generated and {ENOUGH} held-out rows, so nothing can be told of copies; score more rows")
    return found


def copying_z(fake: Celled, held: Celled, cells: Tensor) -> float:
    """C_T = sum_c P(c) Z_U(c) / sum_c P(c) over `cells`, P(c) the share of held-out rows in c (Meehan, Chaudhuri & Dasgupta 2020, section 4).

    Z_U(c) is the z-score of generated against held-out distances to the training rows of c. Below 0 generated rows lie nearer to training rows than unseen
    ones do, which is copying; above 0 farther off, which is underfitting. Where both are of one law it has mean 0 and a deviation of at most 1; where they
    are not it grows with the root of the rows.
    """
    z = torch.tensor([mann_whitney(fake.distance[fake.cell == c], held.distance[held.cell == c]) for c in cells])
    weight = torch.stack([(held.cell == c).sum() for c in cells]).to(z)
    return float((weight * z).sum() / weight.sum())


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
