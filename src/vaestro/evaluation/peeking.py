"""Whether a model reads the row that it scores where its law may know the latents alone."""

from itertools import count as counting

import torch
from torch import Tensor

from vaestro.core import Batch, Draw, Model, Site, Trace, draw, run, take
from vaestro.evaluation.scope import count, each
from vaestro.seeds import mix

TOLERANCE = 1e-3  # nats, and as a share: what another order of sums may change


@torch.no_grad()
def peeks(model: Model, batch: Batch) -> str:
    """The site whose p changes with the observed row while all values stay as they are; empty for an honest model, and where there is one row alone.

    p(x, z) of one x and z is a number: it may depend on conditions, never on the x that encoders read, or log p(x, z) - log q(z | x) bounds nothing. The
    program is run on the rows, and again on each row's neighbour with the values of the first run. Uses torch's generator; the model should be in eval mode.
    """
    seen, rows = model.observations(batch), count(batch)
    if rows < 2:
        return ""
    neighbours = {**batch, **{n: each(v, lambda t: t.roll(1, 0)) for n, v in seen.items()}}
    first = _scored(model, batch, seen, {})
    again = _scored(model, neighbours, seen, {n: d.value for n, d in first.items() if n not in seen})
    return next((n for n, d in first.items() if not _same(d.log_p, again[n].log_p)), "")


def _scored(model: Model, batch: Batch, seen: Batch, values: dict[str, Tensor]) -> Trace:
    """A run that answers each site by what is seen or in `values`, else by a draw; laws that estimate draw the same numbers in every run."""
    rows, places = count(batch), counting()

    def choose(site: Site) -> Draw:
        place, lead = next(places), (rows,)
        if site.name in seen or (site.posterior is None and site.name not in values):
            found = take(site, lead, seen.get(site.name))
        elif site.name in values:
            found = Draw(values[site.name], site.prior, site.posterior, 0.0, 0.0, False)
        else:
            assert site.posterior is not None
            value, _ = draw(site.posterior, lead[: 1 - len(site.posterior.batch_shape)])
            found = Draw(value, site.prior, site.posterior, 0.0, 0.0, False)
        if site.posterior is not None and site.name not in seen:
            torch.manual_seed(mix(0, place))
            found = found._replace(log_p=site.prior.log_prob(found.value))
        torch.manual_seed(mix(1, place))
        return found

    torch.manual_seed(0)
    return run(model.program(batch), choose)


def _same(one: Tensor | float, other: Tensor | float) -> bool:
    a, b = torch.as_tensor(one), torch.as_tensor(other)
    return bool(torch.isclose(a, b.expand_as(a), rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True).all())
