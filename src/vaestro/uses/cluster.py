"""Rows in the clusters of a prior that is a mixture."""

import torch
from jaxtyping import Float
from torch import Tensor

from vaestro.evaluation.scope import device_of, forked
from vaestro.priors import responsibilities
from vaestro.seeds import mix
from vaestro.training.runs import Run, title
from vaestro.training.stages import require_slot


@torch.no_grad()
def cluster(run: Run, x: Float[Tensor, "b ..."], draws: int = 16, seed: int = 0) -> Float[Tensor, "b components"]:
    """p(c | x) = E_q(z|x)[p(c | z)] of every component c of the prior, [b, components], by `draws` draws: a row's cluster is its largest.

    Jiang et al. 2017 (VaDE), section 3. Rows are in unit values. Any prior that is a mixture has clusters: of `vade` and `gmm_prior`, of a Vamp or exemplar
    prior (one for each pseudo-input or exemplar), or one that was fitted later. Raises UsageError for other priors and for models without one prior slot.
    """
    site, device = require_slot(run.model, title(run.about), run.schema), device_of(run.model)
    with forked(device):
        torch.manual_seed(mix(seed, 13))
        drawn = run.model({"x": x.to(device)}, draws)[site]
    return responsibilities(drawn.prior, drawn.value).mean(0)
