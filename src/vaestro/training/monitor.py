"""Vital signs while a model trains: its own score on held-out rows, and how many latents are in use."""

from collections.abc import Iterable

import torch
from torch import Tensor

from vaestro.core import Batch, Trace
from vaestro.evaluation.metrics.reconstruction import ACTIVE
from vaestro.recipes import Recipe
from vaestro.training.record import Line

INFORMATIVE = 0.1  # nats a row that a latent must carry to count as in use
FEW = 0.25  # a smaller share of latents in use is called a collapse
SETTLED = 0.3  # of training, before which few active latents mean nothing


def posterior_means(trace: Trace) -> dict[str, Tensor]:
    """The mean of each latent site's posterior, [rows, dimensions]; below other draws, given the first of them."""
    found = {}
    for name, d in trace.latents.items():
        assert d.posterior is not None
        mean: Tensor = d.posterior.mean
        one_draw = mean.dim() == len(d.prior.event_shape) + 1
        found[name] = (mean if one_draw else mean[0]).flatten(1)
    return found


def kl_by_dimension(trace: Trace) -> dict[str, Tensor]:
    """The mean KL of each latent dimension, by site, in nats; sites whose KL does not split into dimensions are left out."""
    split = {name: d.kl_by_dimension for name, d in trace.latents.items()}
    return {name: kl for name, kl in split.items() if kl is not None}


def informative(latents: int, active: int, kl: Iterable[Tensor]) -> int:
    """How many latents carry 0.1 nats a row or more; where the KL does not split into dimensions, how many have moving means.

    Moving means alone do not tell: a collapsed posterior can spread a few nats over hundreds of latents that all move a little.
    """
    split = list(kl)
    return int((torch.cat(split) > INFORMATIVE).sum()) if sum(len(k) for k in split) == latents else active


@torch.no_grad()
def vital_signs(recipe: Recipe, batches: Iterable[Batch], progress: float) -> Line:
    """`validation` (the recipe's own score, nats a row), `active_units`, and a `note` where most latents are idle; called at each validation."""
    scores, means, kls = [], [], []
    for batch in batches:
        trace = recipe.model(batch, recipe.samples)
        scores.append(recipe.score(trace))
        means.append(torch.cat(list(posterior_means(trace).values()), -1))
        kls.append(list(kl_by_dimension(trace).values()))
    used = torch.cat(means).var(0, correction=0) > ACTIVE
    active, latents = int(used.sum()), len(used)
    busy = informative(latents, active, (torch.stack(site).mean(0) for site in zip(*kls, strict=True)))
    note = {"note": f"posterior collapse: {busy} of {latents} latents in use"} if progress > SETTLED and busy < FEW * latents else {}
    return {"validation": float(torch.cat(scores).mean()), "active_units": active, **note}
