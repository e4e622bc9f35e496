"""Rows near given rows: what else the model could have seen in them."""

import torch
from jaxtyping import Float
from torch import Tensor

from vaestro.core import Site
from vaestro.errors import UsageError
from vaestro.evaluation.metrics.subject import mean_of
from vaestro.evaluation.scope import device_of, evaluating
from vaestro.seeds import forked, mix
from vaestro.training.finding import by_name
from vaestro.training.runs import Run, title
from vaestro.uses.inference.latents import passed
from vaestro.uses.inference.spread import around
from vaestro.uses.reconstruct import require_latents
from vaestro.uses.rows.given import Given, require_rows, settle


@by_name
def vary(run: Run, x: Float[Tensor, "b ..."], n: int = 16, noise: float = 1.0, seed: int = 0, given: Given | None = None) -> Float[Tensor, "n b ..."]:
    """The mean of p(x | z) at `n` latents around each row's posterior: [b, *shape] to [n, b, *shape], in unit values.

    With s = `noise`, z is drawn from q(z | x)^(1/s^2), normalised, up to 1, and from q(z | x)^(1/s^2) p(z)^(1 - 1/s^2) above: s = 0 is the centre of q, which
    reconstructs the row; 1 is a draw of q; of a Gaussian q the noise is s sigma up to 1, and fades to the prior as s grows, which infinity is. In a hierarchy
    this holds for each level given those above. A q without such a law (a flow) is shrunk to its centre up to 1, and refused above.

    Raises UsageError for n below 1, noise below 0, rows of another shape, a model without a posterior, and where a condition is missing in `given`.
    """
    if n < 1:
        raise UsageError(f"{n} variations are none; give a whole number from 1 upwards")
    if not noise >= 0:
        raise UsageError(f"the noise {noise} is no scale; give 0 for the reconstruction, 1 for draws of the posterior, or more")
    x, told = require_rows(run, x), settle(run, len(x), given)

    def pick(site: Site) -> Tensor:
        assert site.posterior is not None
        return around(site.posterior, site.prior, noise, (n, len(x)))

    with forked(device_of(run.model)), evaluating(run.model):
        torch.manual_seed(mix(seed, 21))
        trace = passed(run, x, told, (n, len(x)), pick)
        require_latents(run, trace)
        return mean_of(trace[run.field.name], title(run.about)).expand(n, *x.shape).clone()
