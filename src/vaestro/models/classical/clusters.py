"""Mixtures of independent numbers, fitted by expectation maximisation, and k-means as the mixture that it is."""

import math
import warnings
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from vaestro.codes.onehot import Hard
from vaestro.core import Batch, Model, Program, Site
from vaestro.data.schema import Field, levels
from vaestro.errors import UsageError
from vaestro.families.base import FLOOR
from vaestro.families.bernoulli import Bernoulli
from vaestro.models.base import memberships
from vaestro.models.classical.common import Near, Shown, choose, log_total, scales, shown
from vaestro.priors.fitted import expectation_maximisation
from vaestro.seeds import places

STEPS, GAIN = 200, 1e-4  # of expectation maximisation: at most, and until a step gains less than this, in nats a row
SURE = 1e4  # the logit of a cluster that is certain
Assign: TypeAlias = Callable[["Clusters", Shown], Tensor]  # the logits of q(c | x), [b, K]


class Shares(nn.Module):
    """p(c): how often each of `components` occurs; one-hot events [1, components]."""

    def __init__(self, components: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))

    def forward(self) -> Distribution:
        """The distribution, of batch shape ()."""
        return Independent(Hard(self.logits.unsqueeze(0)), 1, validate_args=False)


class Clusters(Model):
    """c ~ p(c), then independent numbers x | c: Bernoullis on binary data, Gaussians on real numbers, on levels the masses that `Near` gives them.

    q(c | x) comes from `assign`. With `by_share`, the exact posterior, log p(x, c) - log q(c | x) is log p(x) for every c. `loc` [K, D] are logits on
    binary data, else means; `noise` [K, D] are standard deviations and `total` [K, D] the logs of what they sum to, both not read on binary data.
    """

    total: Tensor

    def __init__(self, field: Field, components: int, assign: Assign) -> None:
        super().__init__()
        self.field, self.assign, self.prior, self.count = field, assign, Shares(components), levels(field.kind)
        self.loc, self.noise = nn.Parameter(torch.rand(components, field.size)), nn.Parameter(torch.ones(components, field.size))
        self.register_buffer("total", torch.zeros(components, field.size))
        self.settle(FLOOR)

    @torch.no_grad()
    def settle(self, least: float) -> None:
        """Let no standard deviation be below `least`, and sum up."""
        self.noise.clamp_(min=least)
        if self.count != 2:
            self.total.copy_(log_total(self.loc, self.noise, self.count))

    def component(self, c: Tensor) -> Distribution:
        """p(x | c) of one-hot clusters [*lead, K]."""
        dims = len(self.field.shape)
        loc, noise, total = ((c @ t).unflatten(-1, self.field.shape) for t in (self.loc, self.noise, self.total))
        return Bernoulli(dims)(loc) if self.count == 2 else Independent(Near(loc, noise, self.count, total), dims, validate_args=False)

    def joint(self, seen: Shown) -> Tensor:
        """log p(x, c) of what was seen of each row, for every c: [b, K], nats, by matrix products in float64: it is quadratic in x."""
        x, loc, noise = (t.double() for t in (seen.x.flatten(1), self.loc, self.noise))
        square, linear, constant = torch.zeros_like(loc), loc, -nn.functional.softplus(loc)
        if self.count != 2:
            weight = noise.square().reciprocal()
            square, linear, constant = -weight / 2, loc * weight, -loc.square() * weight / 2 - self.total
        whole = constant.sum(1) if seen.mask is None else seen.mask.flatten(1).to(x.dtype) @ constant.T
        return x.square() @ square.T + x @ linear.T + whole + self.prior.logits.log_softmax(0)

    def program(self, batch: Batch | None = None) -> Program:
        """c ~ p(c), then x ~ p(x | c)."""
        seen = shown(batch)
        q = None if seen is None else Independent(Hard(self.assign(self, seen).unsqueeze(1)), 1, validate_args=False)
        c = yield Site("c", self.prior(), q)
        yield Site("x", self.component(c.squeeze(-2)))

    @torch.no_grad()
    def put(self, shares: Tensor, loc: Tensor, noise: Tensor) -> None:
        """Take over the numbers of a fit."""
        self.prior.logits.copy_(shares.clamp(min=1e-30).log())
        self.loc.copy_(loc)
        self.noise.copy_(noise)
        self.settle(FLOOR)


@memberships.register
@torch.no_grad()
def _(model: Clusters, batch: Batch) -> Tensor:
    seen = shown(batch)
    assert seen is not None, "rows of x belong to clusters"
    return model.assign(model, seen).softmax(1)


def by_share(model: Clusters, seen: Shown) -> Tensor:
    """The exact posterior: p(c | x) is in proportion to p(x, c)."""
    found = model.joint(seen)
    return (found - found.amax(1, keepdim=True)).to(seen.x.dtype)


@torch.no_grad()
def nearest(model: Clusters, seen: Shown) -> Tensor:
    """All mass on the cluster whose mean is nearest, by what was seen: what k-means says of a row."""
    means = model.loc.sigmoid() if model.count == 2 else model.loc
    gap = (seen.x.flatten(1).unsqueeze(1) - means).square()
    if seen.mask is not None:
        gap = torch.where(seen.mask.flatten(1).unsqueeze(1), gap, 0.0)
    best = gap.sum(2).argmin(1, keepdim=True)
    return torch.zeros(len(best), len(means), dtype=seen.x.dtype, device=seen.x.device).scatter_(1, best, SURE)


def _logits(on: Tensor, rows: Tensor) -> Tensor:
    """The logits of shares whose counts are `on` [K, D] of `rows` [K], each with one more of either kind (Laplace 1814)."""
    return ((on + 1) / (rows[:, None] + 2)).logit()


@torch.no_grad()
def fit_mixture(model: Clusters, rows: Tensor, held: Tensor) -> None:
    """Fit a mixture to rows [n, *shape]: Bernoullis by our own expectation maximisation, Gaussians by scikit-learn's.

    The least scale of a Gaussian is the one that held-out rows like best. Raises UsageError for fewer rows than components.
    """
    flat = rows.flatten(1)
    if model.count == 2:
        model.put(*bernoulli_mixture(flat.float(), len(model.loc)))
        return
    found = expectation_maximisation(flat.repeat(2, 1) if len(flat) == 1 else flat, len(model.loc), "diag")
    weights, means, variances = (torch.from_numpy(getattr(found, n)) for n in ("weights_", "means_", "covariances_"))
    model.put(weights, means, variances.sqrt())
    noise = model.noise.detach().clone()

    def put(least: float) -> None:
        model.noise.copy_(noise)
        model.settle(least)

    choose(model, put, scales(flat, number=9), held)


def bernoulli_mixture(x: Tensor, components: int) -> tuple[Tensor, Tensor, Tensor]:
    """Shares [K], logits [K, D] and ones [K, D] of a mixture of Bernoullis, by expectation maximisation on binary rows [n, D] (Bishop 2006, section 9.3.3).

    It starts from random rows, drawn halfway to the mean, and stops after 200 steps, or once a step gains less than 1e-4 nats a row.
    """
    start = x[places(components, len(x), x.device)]
    h, shares, last = ((start + x.mean(0)) / 2 * 0.98 + 0.01).logit(), torch.full((components,), 1 / components, device=x.device), -math.inf
    for _ in range(STEPS):
        joint = torch.addmm(shares.log() - nn.functional.softplus(h).sum(1), x, h.T)
        now = float(joint.logsumexp(1).mean())
        if now - last < GAIN:
            break
        last, r = now, joint.softmax(1)
        counts = r.sum(0)
        h, shares = _logits(r.T @ x, counts), (counts / len(x)).clamp(min=1e-12)
    return shares, h, torch.ones_like(h)


def k_means(x: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """The means [K, D] of scikit-learn's k-means on rows [n, D] and each row's cluster [n], its seed from torch's generator.

    Raises UsageError without scikit-learn, or with fewer rows than clusters.
    """
    try:
        from sklearn.cluster import KMeans
    except ModuleNotFoundError:
        raise UsageError("k_means is fitted by scikit-learn, which is not installed; install it with: pip install 'vaestro[science]'") from None
    if len(x) < clusters:
        raise UsageError(f"{clusters} clusters cannot be made of {len(x)} rows; choose fewer components")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some rows are equal, and so fewer clusters are distinct, is no failure
        found = KMeans(clusters, n_init=1, max_iter=100, random_state=int(torch.randint(2**31 - 1, ()))).fit(x.float().cpu().numpy())
    return torch.from_numpy(found.cluster_centers_).to(x), torch.from_numpy(found.labels_).long().to(x.device)


@torch.no_grad()
def fit_k_means(model: Clusters, rows: Tensor, held: Tensor) -> None:
    """Fit k-means to rows [n, *shape] (scikit-learn's), with the shares of its clusters and one scale for all, the root mean squared distance a number."""
    flat = rows.flatten(1)
    means, labels = k_means(flat, len(model.loc))
    counts = torch.bincount(labels, minlength=len(means)).to(flat.dtype)
    shares = (counts + 1) / (counts.sum() + len(counts))
    scale = (flat - means[labels]).square().mean().sqrt().clamp(min=FLOOR)
    if model.count == 2:
        model.put(shares, _logits(means * counts[:, None], counts), torch.ones_like(means))
    else:
        model.put(shares, means, scale.expand_as(means))
