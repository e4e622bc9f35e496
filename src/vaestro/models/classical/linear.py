"""Linear-Gaussian latents, fitted in closed form or by expectation maximisation: probabilistic PCA and factor analysis."""

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal

from vaestro.core import Batch, Model, Program, Site
from vaestro.data.schema import Field
from vaestro.errors import UsageError
from vaestro.families.base import FLOOR
from vaestro.models.classical.common import Shown, choose, gaussian, scales, shown
from vaestro.priors import StandardNormal

STEPS, GAIN = 500, 1e-7  # at most so many steps of expectation maximisation, and fewer once a step gains less than this, in nats a row
Moment: TypeAlias = Callable[[Tensor], Tensor]  # B [D, K] to S B, where S is the rows' covariance
Loadings: TypeAlias = tuple[Tensor, Tensor]  # W [D, K] and the variances of the noise, [D]
Estimate: TypeAlias = Callable[[Tensor, int], Loadings]  # of centred rows [n, D] and a number of latents


class Linear(Model):
    """z ~ N(0, I), x ~ N(mean + W z, diag noise^2), with q(z | x) the posterior of that Gaussian model given what was seen (Bishop 2006, eq. 12.42).

    q(z | x) = N(M^-1 W^T Psi^-1 (x - mean), M^-1), M = I + W^T Psi^-1 W, in float64. On real numbers log p(x, z) - log q(z | x) is log p(x) for every z.
    On discrete data a number's likelihood is the mass of its bin: log p(x) is then the mass that the Gaussian gives to the box around x, which q bounds.
    """

    floor: Tensor

    def __init__(self, field: Field, latents: int, estimate: Estimate) -> None:
        super().__init__()
        if latents >= field.size:
            raise UsageError(f"{latents} linear latents are no fewer than the {field.size} numbers of a row; choose latents below {field.size}")
        self.field, self.estimate, self.prior = field, estimate, StandardNormal((latents,))
        self.mean, self.noise = nn.Parameter(torch.zeros(field.size)), nn.Parameter(torch.ones(field.size))
        self.loadings = nn.Parameter(torch.randn(field.size, latents) / math.sqrt(latents))
        self.register_buffer("floor", torch.tensor(FLOOR))

    @property
    def scale(self) -> Tensor:
        """The standard deviations of the noise, [D]."""
        return self.noise.maximum(self.floor)

    def posterior(self, seen: Shown) -> Distribution:
        """q(z | x) of each row."""
        w, x = self.loadings.double(), seen.x.flatten(1).double() - self.mean.double()
        precision = self.scale.double().square().reciprocal()
        weight = precision.expand(1, -1) if seen.mask is None else seen.mask.flatten(1) * precision
        m = torch.einsum("bd,dk,dl->bkl", weight, w, w) + torch.eye(w.shape[1], dtype=w.dtype, device=w.device)
        covariance = torch.cholesky_inverse(torch.linalg.cholesky(m))
        loc = torch.einsum("bkl,bl->bk", covariance.expand(len(x), -1, -1), (weight * x) @ w)
        factor = torch.linalg.cholesky(covariance).expand(len(x), -1, -1)
        return MultivariateNormal(loc.to(seen.x.dtype), scale_tril=factor.to(seen.x.dtype), validate_args=False)

    def likelihood(self, z: Tensor) -> Distribution:
        """p(x | z)."""
        loc, shape = self.mean + z @ self.loadings.T, self.field.shape
        return gaussian(self.field.kind, loc.unflatten(-1, shape), self.scale.reshape(shape), len(shape))

    def program(self, batch: Batch | None = None) -> Program:
        """z ~ p(z), then x ~ p(x | z)."""
        seen = shown(batch)
        z = yield Site("z", self.prior(), None if seen is None else self.posterior(seen))
        yield Site("x", self.likelihood(z))

    @torch.no_grad()
    def fit(self, rows: Tensor, held: Tensor) -> None:
        """Fit all numbers to rows [n, *shape]; the least noise is the one that held-out rows like best."""
        flat = rows.flatten(1).double()
        self.mean.copy_(flat.mean(0))
        w, psi = self.estimate(flat - flat.mean(0), self.loadings.shape[1])
        self.loadings.copy_(w)
        self.noise.copy_(psi.clamp(min=0).sqrt())
        choose(self, self.floor.fill_, scales(flat, number=9), held)


def moment(x: Tensor) -> Moment:
    """The covariance of centred rows [n, D], as what it does: a matrix where there are more rows than numbers, else two products."""
    n, d = x.shape
    if d > n:
        return lambda b: x.T @ (x @ b) / n
    s = x.T @ x / n
    return lambda b: s @ b


def principal(x: Tensor, latents: int) -> Loadings:
    """Maximum likelihood of probabilistic PCA: W = U (L - s^2 I)^1/2, s^2 the mean of the other eigenvalues (Tipping & Bishop 1999, eqs 7 and 8).

    `x` are centred rows [n, D]. Where there are fewer rows than numbers the eigenvectors come from the products of rows.
    """
    n, d = x.shape
    if d <= n:
        values, vectors = torch.linalg.eigh(x.T @ x / n)
    else:
        values, left = torch.linalg.eigh(x @ x.T / n)
        vectors = x.T @ left / (n * values.clamp(min=values[-1].clamp(min=1e-30) * 1e-12)).sqrt()
    kept = min(latents, len(values))
    top, u = values[-kept:].flip(0).clamp(min=0), vectors[:, -kept:].flip(1)
    rest = (x.square().sum() / n - top.sum()).clamp(min=0) / max(d - kept, 1)
    w = torch.zeros(d, latents, dtype=x.dtype, device=x.device)
    w[:, :kept] = u * (top - rest).clamp(min=0).sqrt()
    return w, rest.expand(d).clone()


def factors(x: Tensor, latents: int) -> Loadings:
    """Maximum likelihood of factor analysis by expectation maximisation from the principal components (Rubin & Thayer 1982; Bishop 2006, eqs 12.66 to 12.69).

    B = M^-1 W^T Psi^-1; W <- S B^T (M^-1 + B S B^T)^-1; Psi <- diag(S - W B S). `x` are centred rows [n, D], and S is their covariance.
    A step never lowers the likelihood. A column's noise keeps a ten-millionth of the mean variance, for a likelihood has no top where it vanishes.
    """
    times, own = moment(x), x.square().mean(0)
    least = own.mean() * 1e-7 + FLOOR**2 * 1e-2
    w, psi = principal(x, latents)
    psi = (own - w.square().sum(1)).clamp(min=float(least))
    eye, last = torch.eye(latents, dtype=x.dtype, device=x.device), -math.inf
    for _ in range(STEPS):
        scaled = w / psi[:, None]
        m = eye + w.T @ scaled
        inverse = torch.linalg.inv(m)
        b = inverse @ scaled.T
        sb = times(b.T)  # S B^T, [D, K]
        inner = scaled.T @ sb
        now = -(torch.logdet(m) + psi.log().sum() + (own / psi).sum() - inner.trace()) / 2
        if float(now) - last < GAIN:
            break
        last = float(now)
        w = sb @ torch.linalg.inv(inverse + b @ sb)
        psi = (own - (w * sb).sum(1)).clamp(min=float(least))
    return w, psi
