"""Distances between two clouds of features: Frechet (of their Gaussians) and kernel (unbiased)."""

import torch
from torch import Tensor

from vaestro.errors import UsageError, VaestroError

CHUNK = 2000


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [d] and unbiased covariance [d, d] of features [n, d], in float64 and in chunks of rows.

    Raises UsageError for fewer than 2 rows, VaestroError where a feature is not finite.
    """
    n, d = features.shape
    if n < 2:
        raise UsageError(f"a covariance needs at least 2 rows of features, and there are {n}; give more rows")
    if not bool(features.isfinite().all()):
        raise VaestroError("some features are not finite, so no distance can be measured; look at the pictures they come from")
    mean = features.mean(0, dtype=torch.float64)
    cov = torch.zeros(d, d, dtype=torch.float64, device=features.device)
    for start in range(0, n, CHUNK):
        centred = features[start : start + CHUNK].double() - mean
        cov.addmm_(centred.T, centred)
    return mean, cov / (n - 1)


def root(cov: Tensor) -> Tensor:
    """The symmetric square root of a covariance [d, d]; eigenvalues that rounding made negative count as zero."""
    values, vectors = torch.linalg.eigh(cov)
    found: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return found


def frechet_of_moments(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2), the squared 2-Wasserstein distance of two Gaussians (Dowson & Landau 1982).

    The last trace is the sum of singular values of C_a^1/2 C_b^1/2, which never squares the condition number. Never below 0.
    """
    cross = torch.linalg.svdvals(root(cov_a) @ root(cov_b)).sum()
    return max(float((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross), 0.0)


def frechet(real: Tensor, fake: Tensor) -> float:
    """The Frechet distance of features [n, d] and [m, d] (Heusel et al. 2017, equation 6), in squared feature units; 0 is best."""
    return frechet_of_moments(*moments(real), *moments(fake))


def _kernel_sum(a: Tensor, b: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64, device=a.device)
    for start in range(0, len(a), CHUNK):
        total += (a[start : start + CHUNK] @ b.T / a.shape[1] + 1).pow(3).sum()
    return total


def kernel(real: Tensor, fake: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy with k(a, b) = (a.b / d + 1)^3 (Binkowski et al. 2018, section 4); 0 in expectation for equal laws.

    Features [n, d] and [m, d]; all pairs are used, in chunks. Raises UsageError for fewer than 2 rows on a side.
    """
    if min(len(real), len(fake)) < 2:
        raise UsageError("the kernel distance needs at least 2 rows on both sides; give more rows")
    a, b = real.double(), fake.double()
    n, m, d = len(a), len(b), a.shape[1]
    own_a, own_b = ((x.square().sum(1) / d + 1).pow(3).sum() for x in (a, b))
    within = (_kernel_sum(a, a) - own_a) / (n * (n - 1)) + (_kernel_sum(b, b) - own_b) / (m * (m - 1))
    return float(within - 2 * _kernel_sum(a, b) / (n * m))
