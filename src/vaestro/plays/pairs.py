"""Pairs: two rows that have most of what made them in common, so that the latents in which they agree are shared."""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, kl_divergence

from vaestro.core import Batch, Choose, Draw, Seen, Shape, Site, Trace, Value, take
from vaestro.errors import UsageError
from vaestro.objectives import Objective
from vaestro.plays.moves import Clock, Move, Play, terms_of
from vaestro.registry import Registry

Average: TypeAlias = Callable[[Normal, Normal], tuple[Tensor, Tensor]]  # two Gaussians to the mean and the scale that they share
AVERAGES: Registry[Average] = Registry("average of posteriors")


@AVERAGES.register
def arithmetic(p: Normal, q: Normal) -> tuple[Tensor, Tensor]:
    """The mean of the means and of the variances (Hosoya 2019, GVAE; Locatello et al. 2020, Ada-GVAE)."""
    return (p.loc + q.loc) / 2, ((p.scale.square() + q.scale.square()) / 2).sqrt()


@AVERAGES.register
def harmonic(p: Normal, q: Normal) -> tuple[Tensor, Tensor]:
    """The product of the two densities, its variance doubled so that equal ones stay as they are: precisions are averaged, and weigh the means.

    Bouchacourt et al. 2018, ML-VAE, as Locatello et al. 2020 take it (Ada-ML-VAE).
    """
    one, other = p.scale.square().reciprocal(), q.scale.square().reciprocal()
    return (one * p.loc + other * q.loc) / (one + other), (2 / (one + other)).sqrt()


def alike(p: Normal, q: Normal) -> Tensor:
    """The dimensions that a pair is taken to share: True where KL(p_d || q_d) < (max_d + min_d) / 2, over the last axis.

    Locatello et al. 2020, section 4, its estimate of the unknown number of factors that changed. Where all are equal, none is below; no gradient passes.
    """
    with torch.no_grad():
        kl = kl_divergence(p, q)
        return kl < (kl.amax(-1, keepdim=True) + kl.amin(-1, keepdim=True)) / 2


def normals(posterior: Distribution) -> Normal:
    """The Gaussians of a posterior over vectors, one a dimension; raises UsageError for another, whose dimensions have no averages here."""
    if isinstance(posterior, Independent) and isinstance(posterior.base_dist, Normal) and len(posterior.event_shape) == 1:
        return posterior.base_dist
    raise UsageError(f"posteriors of pairs are averaged by dimension, and {type(posterior).__name__} is not one Gaussian for each; use a diagonal one")


def shared(posterior: Distribution, average: Average) -> Distribution:
    """The posteriors of 2b rows, row i and row b + i a pair, with those dimensions averaged in which the two are alike."""
    both = normals(posterior)
    p, q = (Normal(*half, validate_args=False) for half in zip(both.loc.chunk(2, -2), both.scale.chunk(2, -2), strict=True))
    same, (loc, scale) = alike(p, q), average(p, q)
    locs = torch.cat([torch.where(same, loc, own.loc) for own in (p, q)], -2)
    scales = torch.cat([torch.where(same, scale, own.scale) for own in (p, q)], -2)
    return Independent(Normal(locs, scales, validate_args=False), 1, validate_args=False)


def one_below_the_other(a: Value, b: Value) -> Value:
    """The rows of `a`, then those of `b`."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.cat([a, b])
    parts = [v if isinstance(v, Seen) else Seen(v, torch.ones_like(v, dtype=torch.bool)) for v in (a, b)]
    axes = max(v.mask.dim() for v in parts)
    masks = [v.mask[(...,) + (None,) * (axes - v.mask.dim())].expand(*v.mask.shape, *v.value.shape[v.mask.dim() : axes]) for v in parts]
    return Seen(torch.cat([v.value for v in parts]), torch.cat(masks))


def agreed(trace: Trace) -> Tensor:
    """The share of latent dimensions, over all pairs, in which both rows have one posterior."""
    both = [normals(d.posterior) for d in trace.latents.values() if d.posterior is not None]
    parts = [[n.chunk(2, -2) for n in (q.loc, q.scale)] for q in both]
    return torch.cat([((locs[0] == locs[1]) & (scales[0] == scales[1])).flatten() for locs, scales in parts]).float().mean()


def paired(objective: Objective, pair: str, average: Average = arithmetic, samples: int = 1) -> Play:
    """One player on `objective` of both rows of each pair, the fields `x` and `pair`, their posteriors averaged where they are alike; nats per row.

    The loss of a pair is the mean of those of its two rows (Locatello et al. 2020, section 4, halved); each row has a draw of its own. The table's `shared` is
    the share of dimensions that are averaged. For models whose latents have diagonal Gaussian posteriors; raises UsageError for others.
    """

    def choosing(lead: Shape, given: Mapping[str, Value]) -> Choose:
        def choose(site: Site) -> Draw:
            q = site.posterior
            return take(site if q is None else site._replace(posterior=shared(q, average)), lead, given.get(site.name))

        return choose

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        trace = parts["model"]({"x": one_below_the_other(batch["x"], batch[pair])}, samples, choosing=choosing)
        loss = torch.stack(objective(trace).chunk(2)).mean(0)
        yield Move("model", loss, {**terms_of(trace), "shared": agreed(trace)}, trace)

    return play
