"""The likelihood ratio of a hierarchy: what the lower latents must say of a row that the top ones do not."""

import numpy as np
import torch

from vaestro.core import Batch, Draw, Model, Site, Trace, run, take
from vaestro.errors import UsageError
from vaestro.evaluation.likelihood import Chunk, Rows
from vaestro.evaluation.metrics.subject import Subject
from vaestro.evaluation.outliers.base import OUTLIER_SCORES, OutlierScore
from vaestro.evaluation.scope import chunked, count, device_of, evaluating, no_rows, seeded
from vaestro.seeds import forked, mix, reseed


def from_above(model: Model, batch: Batch, draws: int) -> Trace:
    """A run in which the first latent follows its posterior and every later one its prior given those before, [draws, b]; raises UsageError for one latent."""
    given = model.observations(batch)
    latents = 0

    def choose(site: Site) -> Draw:
        nonlocal latents
        if site.posterior is not None and site.name not in given:
            latents += 1
            site = site if latents == 1 else site._replace(posterior=None)
        return take(site, (draws, count(batch)), given.get(site.name))

    trace = run(model.program(batch), choose)
    if latents < 2:
        raise UsageError(f"a ratio of hierarchies needs two latent sites or more, and the model has {latents}; use a recipe such as top_down, or leave it out")
    return trace


def hierarchical_ratio(rows: Subject, usual: Subject) -> Rows:
    """L - L^(>k), nats, by the ELBO: in L^(>k) only the first latent is inferred, and those below it are drawn from the prior (Havtorn et al. 2021, section 4).

    k is one less than the number of latent sites, in the order in which the model draws them. Raises UsageError for a model of one site.
    """
    found, samples, device = [], rows.samples, device_of(rows.model)
    with forked(device), evaluating(rows.model):
        first = next((b for b in seeded(rows.rows(), rows.seed) if count(b)), None)
        if first is None:
            raise no_rows(rows.name)
        from_above(rows.model, first, 1)
        chunk = Chunk.fitting(samples, rows.field.size)
        for number, (batch, real) in enumerate(chunked(seeded(rows.rows(), rows.seed), chunk.rows)):
            total = torch.zeros(chunk.rows, dtype=torch.float64, device=device)
            for part, start in enumerate(range(0, samples, chunk.samples)):
                reseed(mix(rows.seed, number, 7, part), device)
                trace = from_above(rows.model, batch, min(chunk.samples, samples - start))
                total += (trace.log_px - trace.kl).double().sum(0)
            found.append((total / samples)[:real].cpu().numpy())
    return np.asarray(rows.likelihood.elbo - np.concatenate(found))


OUTLIER_SCORES.enter(
    OutlierScore(
        "hierarchical_ratio", "likelihood ratio of the hierarchy", "nats",
        "the bound, minus that with the first latent alone inferred and the rest drawn from the prior", "Havtorn et al. 2021, section 4", hierarchical_ratio,
    ),
)  # fmt: skip
