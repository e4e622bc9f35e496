"""Each latent moved over its range, the others held."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vaestro.errors import UsageError
from vaestro.evaluation.scope import device_of, evaluating
from vaestro.seeds import forked, mix
from vaestro.training.finding import by_name
from vaestro.training.runs import Run
from vaestro.uses.inference.latents import Encoded, decoded, encoded, lengthened, prior_draws
from vaestro.uses.rows.given import Given, require_rows, settle

DRAWS, MOST = 2000, 20  # draws of the prior from which its quantiles are read; latents that are shown
TAIL = 0.02  # of the prior, or of the rows' codes, that is left out at each end


@dataclass(frozen=True)
class Traversal:
    """Latents in the order of their use, with the values that each takes [latents, steps] and the pictures of them [latents, steps, *shape]."""

    labels: tuple[str, ...]
    kl: Tensor | None  # nats a row of each latent shown, where the KL splits into latents and rows were given
    values: Tensor
    pictures: Tensor


def use_of(found: Encoded) -> Tensor | None:
    """The mean KL of each latent over the rows, in nats, [numbers]; None where one site's does not split."""
    each = [d.kl_by_dimension for d in found.trace.latents.values()]
    sizes = [None if kl is None else len(kl) for kl in each]
    return torch.cat([kl for kl in each if kl is not None]) if sizes == found.layout.sizes else None


def _quantiles(z: Tensor, steps: int) -> Tensor:
    """Equal steps between the outer quantiles of each latent, [numbers, steps]."""
    low, high = torch.quantile(z.double(), torch.tensor([TAIL, 1 - TAIL], dtype=torch.float64, device=z.device), dim=0).to(z.dtype)
    return torch.lerp(low[:, None], high[:, None], torch.linspace(0, 1, steps, dtype=z.dtype, device=z.device))


@by_name
def traverse(
    run: Run, x: Float[Tensor, "b ..."], steps: int = 9, most: int = MOST, rows: Float[Tensor, "n ..."] | None = None, given: Given | None = None
) -> Traversal:
    """The mean of p(x | z) as each latent goes from its 2 % to its 98 % quantile and the others stay at the centre of the posterior of the first row of `x`.

    The quantiles are those of the codes of `rows` where these are given, else of 2,000 draws of the prior (a hierarchy's levels given those above). Latents
    are sorted by their mean KL over `rows` (else over `x`), else by the spread of the rows' codes, and the first `most` are shown.

    Raises UsageError for steps or most below 1, rows of another shape, latents that are classes or lie on a sphere, and a model without a posterior.
    """
    if steps < 1 or most < 1:
        raise UsageError(f"{steps} steps of {most} latents show nothing; give 1 or more of both")
    x = require_rows(run, x)
    told = {name: v[:1] for name, v in settle(run, len(x), given).items()}  # as the first row of x is told
    with forked(device_of(run.model)), evaluating(run.model):
        torch.manual_seed(mix(0, 23))
        start = encoded(run, x[:1], told, "traverse")
        many = encoded(run, x if rows is None else require_rows(run, rows), settle(run, len(x if rows is None else rows), given), "traverse")
        kl = use_of(many)
        spread = prior_draws(run, start.layout, DRAWS, lengthened(told, DRAWS)) if rows is None or len(rows) < 2 else many.z
        order = (many.z.var(0, correction=0) if kl is None else kl).argsort(descending=True, stable=True)[:most]
        values = _quantiles(spread, steps)[order]
        z = start.z.expand(len(order), steps, -1).clone()
        z.scatter_(2, order[:, None, None].expand(-1, steps, 1), values[..., None])
        flat = z.reshape(-1, z.shape[-1])
        pictures = decoded(run, start.layout.apart(flat), lengthened(told, len(flat)), (len(flat),)).reshape(len(order), steps, *run.field.shape)
    return Traversal(tuple(start.layout.labels[i] for i in order.tolist()), None if kl is None else kl[order], values, pictures)


def titles(found: Traversal) -> Sequence[str]:
    """A line for each latent: its name and the nats that it carries, where they are known."""
    return found.labels if found.kl is None else [f"{name}: {nats:.2f}" for name, nats in zip(found.labels, found.kl.tolist(), strict=True)]
