"""Objectives whose latents become independent of each other: the KL taken apart, covariances, discrepancies, and a capacity for each site."""

import math
from collections.abc import Callable, Mapping
from functools import singledispatch
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from vaestro.core import Draw, Trace, normalised
from vaestro.errors import UsageError
from vaestro.objectives.discrepancies import Discrepancy, mismatch
from vaestro.objectives.evidence import Objective, elbo
from vaestro.registry import Registry

Weighing: TypeAlias = Callable[[Tensor], Tensor]  # log q(z_i | x_j) [..., b, b] to the log weights [b, b] of rows j in q(z_i)
Estimator: TypeAlias = Callable[[int], Weighing]  # of the number of training rows
ESTIMATORS: Registry[Estimator] = Registry("estimator of the aggregate posterior")
Covariance: TypeAlias = Callable[[Trace], Float[Tensor, "d d"]]
INFERRED: Registry[Covariance] = Registry("covariance of inferred latents")


def _check_rows(rows: int) -> None:
    if rows < 1:
        raise UsageError(f"the aggregate posterior is a mean over the training rows, and there are {rows}; give how many there are")


@ESTIMATORS.register
def weighted(rows: int) -> Weighing:
    """Minibatch-weighted sampling: q(z) by 1/(N b) sum_j q(z | x_j), for N training `rows` and a batch of b in which z was drawn from a row of its own.

    Too small on average: E[log] <= log q(z). Its weights sum to 1/N, so a total correlation of D dimensions reads up to (D - 1) ln N too large; its
    gradient is that of the even mean over the batch, in which a draw's own row counts 1/b and not 1/N. Chen et al. 2018, eq. 3.
    Raises UsageError for fewer than one row.
    """
    _check_rows(rows)
    return lambda each: each.new_full(each.shape[-2:], -math.log(rows * each.shape[-1]))


@ESTIMATORS.register
def stratified(rows: int) -> Weighing:
    """Minibatch-stratified sampling: q(z) by 1/N q(z | x_i) + (N - 1)/(N (b - 1)) sum_{j != i} q(z | x_j), z drawn from row i of a batch of b, N `rows` in all.

    Unbiased for q(z) = 1/N sum_n q(z | x_n) where the other rows are drawn without replacement, and exact where the batch is all the data. Chen et al. 2018,
    appendix C.2, averaged over which of the other rows takes the odd weight (N - b + 1)/(N (b - 1)), so with less noise; code that is often copied puts its
    1/N into the first column and not on the diagonal. A batch of one row knows only itself. Raises UsageError for fewer than one row.
    """
    _check_rows(rows)

    def weights(each: Tensor) -> Tensor:
        b = each.shape[-1]
        share = 1 / rows if b > 1 else 1.0
        others = math.log((rows - 1) / (rows * (b - 1))) if b > 1 and rows > 1 else -math.inf
        own = torch.eye(b, dtype=torch.bool, device=each.device)
        return each.new_full((b, b), others).masked_fill(own, math.log(share))

    return weights


@singledispatch
def marginals(dist: Distribution) -> Distribution:
    """The laws of the single dimensions of a distribution, as one whose batch shape ends in them. Open; raises UsageError for what has none to be had."""
    raise UsageError(f"the dimensions of {type(dist).__name__} have no densities of their own to be had; use a diagonal or a full Gaussian as posterior")


@marginals.register
def _(dist: Independent) -> Distribution:  # type: ignore[type-arg]
    base: Distribution = dist.base_dist
    return base


@marginals.register
def _(dist: MultivariateNormal) -> Distribution:
    return Normal(dist.mean, dist.stddev, validate_args=False)


class Parts(NamedTuple):
    """Estimates of log q(z|x) - log p(z) in three parts, [k, b] in nats; for the same draws they sum to it, whatever the estimator."""

    information: Tensor  # log q(z|x) - log q(z): of the mutual information of index and code
    correlation: Tensor  # log q(z) - sum_j log q(z_j): of the total correlation
    dimensions: Tensor  # sum_j log q(z_j) - log p(z): of the KL of each dimension to its prior


def decomposition(trace: Trace, weighing: Weighing) -> Parts:
    """The KL of all latents, side by side as one vector, taken apart (Chen et al. 2018, eq. 2), q(z) the aggregate posterior of the training rows.

    Memory of k b^2 D numbers. Raises UsageError for posteriors that depend on other latents, are no densities, or whose dimensions have no densities.
    """
    sites = trace.latents
    by_site = {name: _pairs(name, d) for name, d in sites.items()}
    joint = torch.stack([whole for whole, _ in by_site.values()]).sum(0)
    log_weights = weighing(joint)
    log_qz = (joint + log_weights).logsumexp(-1)
    each = torch.cat([single for _, single in by_site.values()], -1)
    log_product = (each + log_weights.unsqueeze(-1)).logsumexp(-2).sum(-1)
    log_q = torch.stack([torch.as_tensor(d.log_q) for d in sites.values()]).sum(0)
    log_p = torch.stack([torch.as_tensor(d.log_p) for d in sites.values()]).sum(0)
    return Parts(log_q - log_qz, log_qz - log_product, log_product - log_p)


def _pairs(name: str, d: Draw) -> tuple[Tensor, Tensor]:
    """log q(z_i | x_j) of a site, [k, i, j], and that of each of its dimensions, [k, i, j, D]."""
    q = d.posterior
    assert q is not None, "a latent has a posterior"
    if len(q.batch_shape) != 1 or d.seen is not False:
        why = "depends on other latents" if len(q.batch_shape) != 1 else "was seen in part"
        raise UsageError(f"the aggregate posterior of {name!r} {why}, so it is no mean over rows; use a model whose encoder reads x alone")
    if not normalised(q):
        raise UsageError(f"the posterior of {name!r} ({type(q).__name__}) is no density, so its KL has no parts; use a Gaussian posterior")
    z = d.value.unsqueeze(-1 - len(q.event_shape))
    single = marginals(q).log_prob(z)
    return q.log_prob(z), single.reshape(*single.shape[:3], -1)


def beta_tc(beta: float, weighing: Weighing, alpha: float = 1.0, gamma: float = 1.0) -> Objective:
    """-E_q[log p(x|z)] + alpha I_q(x; z) + beta TC(z) + gamma sum_j KL(q(z_j) || p(z_j)): nats per row, [b].

    Chen et al. 2018, eq. 4. Written as the ELBO plus (alpha - 1), (beta - 1) and (gamma - 1) times the parts that `decomposition` estimates: of the same mean,
    with less noise where the KL has a closed form, and at weights of 1 the ELBO itself, to the bit. Raises UsageError for a negative weight.
    """
    more = {"information": alpha - 1, "correlation": beta - 1, "dimensions": gamma - 1}
    for name, weight in more.items():
        if not weight >= -1:
            raise UsageError(f"the weight of the {name} cannot be {weight + 1}, which would reward it; give 0 or more")
    bound = elbo()

    def objective(t: Trace) -> Float[Tensor, " b"]:
        if not any(more.values()):
            return bound(t)
        parts = decomposition(t, weighing)._asdict()
        return bound(t) + torch.stack([weight * parts[name] for name, weight in more.items() if weight]).sum(0).mean(0)

    return objective


@singledispatch
def covariance(dist: Distribution) -> Tensor:
    """The covariance of a distribution over vectors, [*batch, D, D]. Open: a diagonal one from the variances, unless the dimensions depend on each other."""
    raise UsageError(f"{type(dist).__name__} has no covariance in closed form; use a diagonal or a full Gaussian as posterior")


@covariance.register
def _(dist: Independent) -> Tensor:  # type: ignore[type-arg]
    return torch.diag_embed(dist.variance.flatten(len(dist.batch_shape)))


@covariance.register
def _(dist: MultivariateNormal) -> Tensor:
    matrix: Tensor = dist.covariance_matrix
    return matrix


def _inferred(trace: Trace) -> list[Distribution]:
    found = {name: d.posterior for name, d in trace.latents.items() if d.posterior is not None}
    for name, q in found.items():
        if len(q.batch_shape) != 1:
            raise UsageError(f"the posterior of {name!r} depends on other latents, so its moments are no means over rows; use a model of one latent")
    return list(found.values())


@INFERRED.register
def means(trace: Trace) -> Float[Tensor, "d d"]:
    """Cov_x[mu(x)], the covariance of the posterior means over the b rows of the batch, divided by b. Kumar et al. 2018, eq. 6, DIP-VAE-I.

    Several sites stand side by side. Raises UsageError where a posterior has no mean, or depends on other latents.
    """
    try:
        mu = torch.cat([q.mean.flatten(1) for q in _inferred(trace)], -1)
    except NotImplementedError:
        raise UsageError("a posterior without a mean has no covariance of means; use a diagonal or a full Gaussian as posterior") from None
    away = mu - mu.mean(0)
    matrix: Tensor = away.T @ away / len(mu)
    return matrix


@INFERRED.register
def latents(trace: Trace) -> Float[Tensor, "d d"]:
    """Cov_q(z)[z] = E_x[Sigma(x)] + Cov_x[mu(x)], the covariance of the aggregate posterior of the batch. Kumar et al. 2018, eq. 5 and 7, DIP-VAE-II."""
    within: Tensor = torch.block_diag(*[covariance(q).mean(0) for q in _inferred(trace)])
    return means(trace) + within


def dip(inferred: Covariance, off_diagonal: float, diagonal: float) -> Objective:
    """ELBO loss + off_diagonal sum_{i != j} C_ij^2 + diagonal sum_i (C_ii - 1)^2, C the covariance `means` (I) or `latents` (II): nats per row, [b].

    Kumar et al. 2018, eq. 6 and 7. At weights of 0 it is the ELBO. Raises UsageError for a negative weight.
    """
    if not (off_diagonal >= 0 and diagonal >= 0):
        raise UsageError(f"weights of {off_diagonal} and {diagonal} would reward what they should charge for; give 0 or more")

    def objective(t: Trace) -> Float[Tensor, " b"]:
        c = inferred(t)
        own = c.diagonal()
        return elbo()(t) + off_diagonal * (c - own.diag()).square().sum() + diagonal * (own - 1).square().sum()

    return objective


def info(alpha: float, scaling: float, discrepancy: Discrepancy) -> Objective:
    """-E_q[log p(x|z)] + (1 - alpha) KL(q(z|x) || p(z)) + (alpha + scaling - 1) D(q(z), p(z)): nats per row, [b]; it bounds nothing in general.

    InfoVAE, Zhao et al. 2019, section 3: `alpha` rewards mutual information of x and z, `scaling` is their lambda, D a discrepancy of the batch's latents and
    draws of the prior. alpha = 0 with scaling = 1 is the ELBO; alpha = 1 the MMD-VAE, no KL at all.
    Raises UsageError for alpha above 1 and for a weight of D below 0.
    """
    weight = alpha + scaling - 1
    if not (alpha <= 1 and weight >= 0):
        raise UsageError(
            f"alpha={alpha} and scaling={scaling} reward a distance from the prior; give an alpha of 1 at most, and a scaling of 1 - alpha at least"
        )
    bound, measure = elbo(1 - alpha), mismatch(discrepancy)
    return lambda t: bound(t) + weight * measure(t) if weight else bound(t)


def capacities(gamma: float, nats: Mapping[str, float]) -> Objective:
    """-E_q[log p(x|z)] + gamma sum_s |KL_s - C_s|: holds the KL of each row in each latent site s at `nats[s]`. Nats per row, [b]; it bounds nothing.

    JointVAE, Dupont 2018, eq. 7. Raises UsageError where the latent sites are others than those named.
    """

    def objective(t: Trace) -> Float[Tensor, " b"]:
        found = t.latents
        if set(found) != set(nats):
            raise UsageError(f"capacities were told for {', '.join(sorted(nats))}, and the latents are {', '.join(sorted(found))}; name each of these")
        away = torch.stack([(torch.broadcast_to(d.kl, t.log_px.shape) - nats[name]).abs() for name, d in found.items()]).sum(0)
        return (gamma * away - t.log_px).mean(0) + t.penalty

    return objective
