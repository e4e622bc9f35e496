"""The Frechet distance of two clouds of features: that of the Gaussians with their moments."""

import torch
from torch import Tensor

from vaestro.errors import NotFinite, UsageError

CHUNK = 2000


class Moments:
    """Count, mean and covariance of features that come a batch at a time, so that 50,000 rows need not be held (Chan et al. 1983)."""

    def __init__(self) -> None:
        self.rows = 0
        self.mean = torch.zeros(0, dtype=torch.float64)
        self.scatter = torch.zeros(0, 0, dtype=torch.float64)  # sum of (x - mean) (x - mean)^T

    def add(self, features: Tensor) -> "Moments":
        """Takes in a batch [n, d]; raises VaestroError where a feature is not finite, UsageError for features of another width."""
        for part in features.split(CHUNK):
            self._add(part)
        return self

    def _add(self, part: Tensor) -> None:
        if not len(part):
            return
        if not bool(part.isfinite().all()):
            raise NotFinite("some features are not finite, so no distance can be measured; look at the pictures they come from")
        x = part.double()
        if not self.rows:
            self.mean, self.scatter = x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1], x.shape[1])
        if x.shape[1] != len(self.mean):
            raise UsageError(f"features of {x.shape[1]} numbers do not go with those of {len(self.mean)}; take both from one network")
        centre = x.mean(0)
        shift, total = centre - self.mean, self.rows + len(x)
        centred = x - centre
        self.scatter.addmm_(centred.T, centred).addr_(shift, shift, alpha=self.rows * len(x) / total)
        self.mean = self.mean + shift * (len(x) / total)
        self.rows = total

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance [d, d]; raises UsageError for fewer than 2 rows."""
        if self.rows < 2:
            raise UsageError(f"a covariance needs at least 2 rows of features, and there are {self.rows}; give more rows")
        return self.scatter / (self.rows - 1)


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [d] and unbiased covariance [d, d] of features [n, d], in float64 and in chunks of rows.

    Raises UsageError for fewer than 2 rows, VaestroError where a feature is not finite.
    """
    found = Moments().add(features)
    return found.mean, found.covariance


def root(cov: Tensor) -> Tensor:
    """The symmetric square root of a covariance [d, d]; eigenvalues that rounding made negative count as zero."""
    values, vectors = torch.linalg.eigh(cov)
    found: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return found


def factor(cov: Tensor) -> Tensor:
    """Some F with F F^T = cov: Cholesky's, which takes a hundredth of the time of an eigenvalue, or the symmetric root where `cov` is singular."""
    lower, failed = torch.linalg.cholesky_ex(cov)
    return root(cov) if bool(failed) else lower


def frechet_of_moments(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2), the squared 2-Wasserstein distance of two Gaussians (Dowson & Landau 1982).

    The last trace is the sum of singular values of F_a^T F_b for any F F^T = C, which never squares the condition number. Never below 0.
    """
    cross = torch.linalg.svdvals(factor(cov_a).T @ factor(cov_b)).sum()
    return max(float((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross), 0.0)


def frechet(real: Tensor, fake: Tensor) -> float:
    """The Frechet distance of features [n, d] and [m, d] (Heusel et al. 2017, equation 6), in squared feature units; 0 is best."""
    return frechet_of_moments(*moments(real), *moments(fake))
