"""Is the model well, and if not, why: vital signs while it trains, and a diagnosis in plain words."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vaestro.core import Batch, Model, Trace
from vaestro.recipes import Recipe

ACTIVE = 0.01  # Burda et al. 2016, section 5.2: the least variance over rows of a posterior mean that counts as used


def posterior_means(trace: Trace) -> dict[str, Tensor]:
    """The mean of each latent site's posterior, [rows, dimensions]; with several draws above it, that of the first."""
    means = {n: d.posterior.mean for n, d in trace.latents.items() if d.posterior is not None}
    flat = {n: m if m.dim() == len(trace[n].prior.event_shape) + 1 else m[0] for n, m in means.items()}
    return {n: m.flatten(1) for n, m in flat.items()}


@torch.no_grad()
def vital_signs(recipe: Recipe, batches: Iterable[Batch]) -> tuple[float, dict[str, float]]:
    """The recipe's own score on some rows, in nats a row, and how many latent units are in use; called at each validation."""
    scores, means = [], []
    for batch in batches:
        trace = recipe.model(batch, recipe.samples)
        scores.append(recipe.score(trace))
        means.append(torch.cat(list(posterior_means(trace).values()), -1))
    used = torch.cat(means).var(0, correction=0) > ACTIVE
    return float(torch.cat(scores).mean()), {"active_units": float(used.sum())}
