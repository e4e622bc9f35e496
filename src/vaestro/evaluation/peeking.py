"""Whether a model reads the row that it scores where its law may know the latents alone."""

from itertools import count as counting

import torch
from torch import Tensor

from vaestro.core import Batch, Draw, Model, Site, Trace, run, sampling, take
from vaestro.evaluation.scope import count, each
from vaestro.seeds import mix

TOLERANCE = 1e-3  # nats, and as a share: what another order of sums may change


@torch.no_grad()
def peeks(model: Model, batch: Batch) -> str:
    """The site whose p changes with the observed row while all values stay as they are; empty for an honest model, and where there is one row alone.

    p(x, z) of one x and z is a number: it may depend on conditions, never on the x that encoders read, or log p(x, z) - log q(z | x) bounds nothing. The
    program is run on the rows and on each row's neighbour, with the same values. Uses torch's generator; the model should be in eval mode.
    """
    seen, rows = model.observations(batch), count(batch)
    if rows < 2:
        return ""
    neighbours = {**batch, **{n: each(v, lambda t: t.roll(1, 0)) for n, v in seen.items()}}
    torch.manual_seed(0)
    values = {n: d.value for n, d in run(model.program(batch), sampling((rows,), seen)).items()}
    own, others = (_scored(model, given, seen, values) for given in (batch, neighbours))
    return next((n for n, d in own.items() if not _same(d.log_p, others[n].log_p)), "")


def _scored(model: Model, batch: Batch, seen: Batch, values: dict[str, Tensor]) -> Trace:
    """A run of the program on a batch in which the seen rows and the values stand; laws that estimate draw the same numbers whatever the batch."""
    places = counting()

    def choose(site: Site) -> Draw:
        torch.manual_seed(mix(0, next(places)))
        if site.name in seen:
            return take(site, (count(batch),), seen[site.name])
        value = values[site.name]
        return Draw(value, site.prior, site.posterior, 0.0 if site.posterior is None else site.prior.log_prob(value), 0.0, False)

    torch.manual_seed(0)
    return run(model.program(batch), choose)


def _same(one: Tensor | float, other: Tensor | float) -> bool:
    a, b = torch.as_tensor(one), torch.as_tensor(other)
    return bool(torch.isclose(a, b.expand_as(a), rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True).all())
