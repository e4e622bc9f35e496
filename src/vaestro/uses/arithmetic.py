"""Attributes as directions in the latents: from rows that have them and rows that do not, added to other rows."""

import torch
from jaxtyping import Float
from torch import Tensor

from vaestro.errors import UsageError
from vaestro.evaluation.scope import device_of, evaluating
from vaestro.seeds import forked, mix
from vaestro.training.finding import by_name
from vaestro.training.runs import Run
from vaestro.uses.inference.latents import decoded, encoded
from vaestro.uses.rows.given import Given, require_rows, settle

AT_ONCE = 500  # rows that are encoded together


def _mean(run: Run, x: Tensor, given: Given | None) -> Tensor:
    """The mean code of some rows, [numbers]."""
    told = settle(run, len(x), given)
    parts = [encoded(run, x[i : i + AT_ONCE], {n: v[i : i + AT_ONCE] for n, v in told.items()}, "add up").z.double().sum(0) for i in range(0, len(x), AT_ONCE)]
    return torch.stack(parts).sum(0) / len(x)


@by_name
def attribute(run: Run, plus: Float[Tensor, "n ..."], minus: Float[Tensor, "m ..."], given: Given | None = None) -> Float[Tensor, " latents"]:
    """The mean code of the rows `plus` less that of the rows `minus`, [latents] (Larsen et al. 2016, section 4.2).

    Raises UsageError for no rows, rows of another shape, latents that are classes or lie on a sphere, and a model without a posterior.
    """
    plus, minus = require_rows(run, plus, "rows to add"), require_rows(run, minus, "rows to take away")
    with forked(device_of(run.model)), evaluating(run.model):
        torch.manual_seed(mix(0, 24))
        return (_mean(run, plus, given) - _mean(run, minus, given)).to(plus.dtype)


@by_name
def arithmetic(
    run: Run, x: Float[Tensor, "b ..."], direction: Float[Tensor, " latents"], scales: Float[Tensor, " steps"], given: Given | None = None
) -> Float[Tensor, "steps b ..."]:
    """The mean of p(x | z) at z = centre of q(z | x) + s `direction` for each s of `scales`: [b, *shape] to [steps, b, *shape], in unit values.

    Raises UsageError for a direction of another number of latents, scales that are not finite, and what `attribute` refuses.
    """
    x, told = require_rows(run, x), settle(run, len(x), given)
    if not len(scales) or not bool(scales.isfinite().all()):
        raise UsageError("the scales of an attribute are one finite number or more; 1 adds it once, -1 takes it away")
    with forked(device_of(run.model)), evaluating(run.model):
        torch.manual_seed(mix(0, 24))
        start = encoded(run, x, told, "add up")
        if direction.shape != start.z.shape[1:]:
            raise UsageError(f"a direction of {tuple(direction.shape)} numbers is none of {run.name}, of {start.z.shape[1]} latents; make it of this run")
        z = start.z + scales.to(start.z)[:, None, None] * direction.to(start.z)
        return decoded(run, start.layout.apart(z), told, (len(scales), len(x)))
