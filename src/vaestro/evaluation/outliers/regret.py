"""Likelihood regret: what the bound of a row gains when the posterior is fitted to that row alone."""

from collections.abc import Callable
from functools import singledispatch
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from vaestro.core import Batch, Draw, Model, Site, Trace, run, take
from vaestro.errors import UsageError
from vaestro.evaluation.likelihood import Rows
from vaestro.evaluation.metrics.subject import Subject
from vaestro.evaluation.outliers.base import OUTLIER_SCORES, OutlierScore
from vaestro.evaluation.scope import at_rest, chunked, count, device_of, no_rows, seeded
from vaestro.models.refined import usable
from vaestro.progress import tell
from vaestro.seeds import forked, mix, reseed

AT_ONCE = 250  # rows
PARTS, DRAWS = 4, 25  # by which both bounds are compared: how often, and how many draws at once


class Effort(NamedTuple):
    """How hard a row's own posterior is sought."""

    steps: int = 60
    size: float = 0.1  # of Adam's first step, in units of each latent's scale; it falls to zero along a cosine
    draws: int = 4  # of the bound at each step


USUAL = Effort()


class Free(NamedTuple):
    """A distribution as a function of numbers that may move: at zeros it is the one it was made of."""

    numbers: tuple[Tensor, ...]  # zeros
    build: Callable[..., Distribution]


@singledispatch
def free(q: Distribution) -> Free:
    """The posteriors of a row that are searched, around the encoder's. Open; raises UsageError for what has no such family."""
    raise UsageError(f"a posterior of kind {type(q).__name__} is not fitted to single rows; likelihood regret needs a Gaussian one, so leave it out")


@free.register
def _(q: Independent) -> Free:  # type: ignore[type-arg]
    base = q.base_dist
    if not isinstance(base, Normal):
        raise UsageError(f"a posterior of kind {type(base).__name__} is not fitted to single rows; likelihood regret needs a Gaussian one, so leave it out")
    loc, scale, event = base.loc.detach().clone(), base.scale.detach().clone(), q.reinterpreted_batch_ndims

    def build(shift: Tensor, stretch: Tensor) -> Distribution:
        return Independent(Normal(loc + scale * shift, scale * stretch.exp(), validate_args=False), event, validate_args=False)

    return Free((torch.zeros_like(loc), torch.zeros_like(loc)), build)


@free.register
def _(q: MultivariateNormal) -> Free:
    loc, root = q.loc.detach().clone(), q.scale_tril.detach().clone()

    def build(shift: Tensor, turn: Tensor) -> Distribution:
        inner = torch.diag_embed(turn.diagonal(dim1=-2, dim2=-1).exp()) + turn.tril(-1)
        return MultivariateNormal(loc + (root @ shift.unsqueeze(-1)).squeeze(-1), scale_tril=root @ inner, validate_args=False)

    return Free((torch.zeros_like(loc), torch.zeros((*loc.shape, loc.shape[-1]), dtype=loc.dtype, device=loc.device)), build)


def under(model: Model, batch: Batch, q: Distribution, draws: int) -> Trace:
    """A run of `draws` for each row whose only latent follows `q` instead of the encoder's posterior; numbers are shaped [draws, b]."""
    given = model.observations(batch)

    def choose(site: Site) -> Draw:
        site = site if site.posterior is None or site.name in given else site._replace(posterior=q)
        return take(site, (draws, count(batch)), given.get(site.name))

    return run(model.program(batch), choose)


def encoded(model: Model, batch: Batch, name: str) -> Distribution:
    """The encoder's posterior of the only latent; raises UsageError for none or several, and for what is no density."""
    with torch.no_grad():
        trace = model(batch, 1)
    found = list(trace.latents.values())
    if len(found) != 1 or found[0].posterior is None:
        raise UsageError(f"{name} has {len(found)} latent sites, and likelihood regret fits the posterior of a single one; leave it out")
    if not trace.normalised:
        raise UsageError(f"{name} has no density, so its rows have no likelihood to regret; use squared_error instead")
    posterior: Distribution = found[0].posterior
    return posterior


def bound(trace: Trace) -> Tensor:
    """The ELBO of each row, the mean over draws, [b]."""
    found: Tensor = (trace.log_px - trace.kl).mean(0)
    return found


def _bound(model: Model, batch: Batch, q: Distribution, seed: int) -> Tensor:
    parts = []
    for part in range(PARTS):
        reseed(mix(seed, 2, part), device_of(model))
        parts.append(bound(under(model, batch, q, DRAWS)).double())
    return torch.stack(parts).mean(0)


def regrets(model: Model, batch: Batch, seed: int, effort: Effort = USUAL, name: str = "the model") -> Tensor:
    """max_q ELBO(x; q) - ELBO(x; q(z | x)) of each row, [b], nats, both by the same 100 draws; q moves in the family of the encoder's posterior.

    Adam climbs from the encoder's posterior (Kingma & Ba 2015), on fresh draws at each step. Sampling can make a small regret negative.
    """
    device = device_of(model)
    with torch.inference_mode(False), torch.enable_grad():
        given = {n: usable(v) for n, v in batch.items()}
        reseed(mix(seed, 0), device)
        q = encoded(model, given, name)
        numbers, build = free(q)
        for number in numbers:
            number.requires_grad_()
        climber = torch.optim.Adam(numbers, effort.size)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(climber, max(1, effort.steps))
        for step in range(effort.steps):
            reseed(mix(seed, 1, step), device)
            slopes = torch.autograd.grad(-bound(under(model, given, build(*numbers), effort.draws)).sum(), numbers)
            for number, slope in zip(numbers, slopes, strict=True):
                number.grad = slope.nan_to_num(0.0, 0.0, 0.0)
            climber.step()
            falling.step()
    with torch.no_grad():
        best: Distribution = build(*numbers)
        return _bound(model, batch, best, seed) - _bound(model, batch, q, seed)


def regret(rows: Subject, usual: Subject) -> Rows:
    """`regrets` of every row, in chunks."""
    parts = []
    known = 1 if rows.held is None else len(rows.held.index)
    with forked(device_of(rows.model)), at_rest(rows.model):
        for number, (batch, real) in enumerate(chunked(seeded(rows.rows(), rows.seed), AT_ONCE)):
            tell("likelihood regret", min(1.0, number * AT_ONCE / known))
            parts.append(regrets(rows.model, batch, mix(rows.seed, number, 6), name=rows.name)[:real].cpu().numpy())
    tell("likelihood regret", 1.0)
    if not parts:
        raise no_rows(rows.name)
    return np.concatenate(parts)


OUTLIER_SCORES.enter(
    OutlierScore(
        "regret", "likelihood regret", "nats",
        f"{USUAL.steps} steps of Adam on the mean and scale of each row's posterior, {USUAL.draws} draws each; both bounds by {PARTS * DRAWS} common draws",
        "Xiao et al. 2020, section 3", regret,
    ),
)  # fmt: skip
