"""The kernel distance of two clouds of features: the squared maximum mean discrepancy, without bias."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaestro.errors import NotFinite, UsageError

CHUNK = 2000


class Spread(NamedTuple):
    """The mean over subsets, and their standard deviation."""

    mean: float
    deviation: float


def _sum(a: Tensor, b: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64, device=a.device)
    for start in range(0, len(a), CHUNK):
        total += (a[start : start + CHUNK] @ b.T / a.shape[1] + 1).pow(3).sum()
    return total


def kernel(real: Tensor, fake: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy with k(a, b) = (a.b / d + 1)^3 (Binkowski et al. 2018, section 4); 0 in expectation for equal laws.

    Features [n, d] and [m, d]; all pairs are used, in chunks. Raises UsageError for fewer than 2 rows on a side, VaestroError for features that are not finite.
    """
    if min(len(real), len(fake)) < 2:
        raise UsageError("the kernel distance needs at least 2 rows on both sides; give more rows")
    if not (bool(real.isfinite().all()) and bool(fake.isfinite().all())):
        raise NotFinite("some features are not finite, so no distance can be measured; look at the pictures they come from")
    a, b = real.double(), fake.double()
    n, m, d = len(a), len(b), a.shape[1]
    own_a, own_b = ((x.square().sum(1) / d + 1).pow(3).sum() for x in (a, b))
    within = (_sum(a, a) - own_a) / (n * (n - 1)) + (_sum(b, b) - own_b) / (m * (m - 1))
    return float(within - 2 * _sum(a, b) / (n * m))


def kernel_of_subsets(real: Tensor, fake: Tensor, subsets: int = 100, size: int = 1000, seed: int = 0) -> Spread:
    """`kernel` averaged over random subsets of `size` rows of each side, as published kernel inception distances are (Binkowski et al. 2018, appendix E).

    It estimates the same number as all pairs together, with more noise: use it beside published tables only. Deterministic under `seed`.
    Raises UsageError where a side has fewer than `size` rows.
    """
    if min(len(real), len(fake)) < size:
        raise UsageError(f"subsets of {size} rows cannot be drawn from {len(real)} and {len(fake)}; give more rows or a smaller size")
    rng = np.random.default_rng(seed)

    def drawn(rows: Tensor) -> Tensor:
        return rows[torch.from_numpy(rng.permutation(len(rows))[:size])]

    values = [kernel(drawn(real), drawn(fake)) for _ in range(subsets)]
    return Spread(float(np.mean(values)), float(np.std(values)))
