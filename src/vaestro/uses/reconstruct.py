"""What a model makes of given rows."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vaestro.core import Trace
from vaestro.errors import UsageError
from vaestro.evaluation.metrics.subject import central, mean_of
from vaestro.families.base import is_discrete
from vaestro.seeds import forked, mix
from vaestro.training.finding import by_name
from vaestro.training.monitor import posterior_means
from vaestro.training.runs import Run, title
from vaestro.uses.rows.given import Given, readable, settle


@torch.no_grad()
@by_name
def reconstruct(run: Run, x: Tensor | np.ndarray, seed: int = 0, given: Given | None = None) -> Float[Tensor, "b ..."]:
    """The mean of p(x | z) at the centre of q(z | x), in a hierarchy of each level given those above: [b, *shape] to the same, in unit values.

    It is what `vary` gives at noise 0 and what `reconstruction_mse` compares with x; a row's does not depend on the rows beside it. A posterior without a
    centre (codes, classes) and a likelihood without a mean in closed form (`pixel_vae`) are drawn from, under `seed`. A model that is told something needs it
    in `given`, for example {"label": labels}; raises UsageError where it is missing, for a model without a posterior, such as a GAN, and for other shapes.
    """
    x, told = readable(run, x), settle(run, len(x), given)
    with forked():
        torch.manual_seed(mix(seed, 8))
        trace = central(run.model, {run.field.name: x, **told})
        require_latents(run, trace)
        return mean_of(trace[run.field.name], title(run.about)).expand(x.shape).clone()  # a mean may draw too, where it is an estimate


def require_latents(run: Run, trace: Trace) -> None:
    """Raises UsageError for a model without a posterior."""
    if not trace.latents:
        raise UsageError(f"{run.about['call']} has no posterior, so no row has latents: it only generates; use a recipe such as vae, or bigan")


def codes_of(trace: Trace, rows: int) -> dict[str, Tensor]:
    """The codes [rows, numbers] of each latent site of a run in which latents took their posterior's mean: of classes, their probabilities."""
    middles, found = posterior_means(trace), {}
    for name, d in trace.latents.items():
        assert d.posterior is not None
        each = middles[name] if is_discrete(d.posterior) else d.value
        found[name] = each.reshape(each.shape[0], -1).expand(rows, -1)
    return found


@torch.no_grad()
@by_name
def embed(run: Run, x: Tensor | np.ndarray, given: Given | None = None) -> Float[Tensor, "b latents"]:
    """The posterior means of all latent groups, each given the means of those above it, [b, latents]; of classes, their probabilities.

    A map of the rows that is the same every time, and the one that `write_codes` and `vaestro embed` write. A posterior without a mean gives one fixed draw.
    A model that is told something needs it in `given`, for example {"label": labels}; raises UsageError where it is missing.
    """
    x, told = readable(run, x), settle(run, len(x), given)
    with forked():
        torch.manual_seed(0)
        trace = central(run.model, {"x": x, **told})
        require_latents(run, trace)
        return torch.cat(list(codes_of(trace, len(x)).values()), -1)
