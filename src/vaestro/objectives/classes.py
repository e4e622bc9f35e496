"""Bounds of models whose classes are latent: a finite site is summed out instead of drawn."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from vaestro.core import Choose, Choosing, Draw, Seen, Shape, Site, Trace, Value, sampling
from vaestro.objectives.evidence import Objective


def every_class(name: str) -> Choosing:
    """Answers the site `name` with each of its n classes in turn along the leading axis, [k, b] with n dividing k, and the other sites by drawing.

    The draw's `log_q` is the log of the class's weight: q(y | x), or 0 and minus infinity where the class is given. The axis holds k / n draws of each class.
    """

    def choosing(lead: Shape, given: Mapping[str, Value]) -> Choose:
        others = sampling(lead, {n: v for n, v in given.items() if n != name})
        return lambda site: _each(site, lead, given.get(name)) if site.name == name else others(site)

    return choosing


def _each(site: Site, lead: Shape, given: Value | None) -> Draw:
    p, q = site.prior, site.posterior
    assert q is not None, "classes are summed out under a posterior; without data there is nothing to sum"
    support = p.enumerate_support(expand=False).flatten()
    assert lead[0] % len(support) == 0, "the leading axis holds every class equally often"
    values = support.repeat_interleave(lead[0] // len(support))[:, None].expand(lead)
    log_q = q.log_prob(values)
    if given is None:
        return Draw(values, p, q, p.log_prob(values), log_q, False)
    seen = given if isinstance(given, Seen) else Seen(given, torch.ones_like(given, dtype=torch.bool))
    known = torch.where(values == seen.value, 0.0, -torch.inf).to(log_q.dtype)
    return Draw(values, p, q, p.log_prob(values), torch.where(seen.mask, known, log_q), seen.mask)


def _weights(d: Draw) -> tuple[Tensor, Tensor]:
    """The weight of each class, summing to 1 over the leading axis, and log q(y | x): both [k, b]."""
    assert d.posterior is not None, "classes are summed out under a posterior"
    weight = torch.as_tensor(d.log_q).exp()
    draws = len(weight) // len(d.prior.enumerate_support(expand=False))
    return weight / draws, d.posterior.log_prob(d.value)


def summed_out(name: str) -> Objective:
    """Minus the bound with the class y of the site `name` summed out, of a trace by `every_class`. Nats per row, [b].

    A row without a label: -sum_y q(y|x) [log p(x, y, z_y) - log q(z_y | x, y) - log q(y | x)], which bounds -log p(x).
    A row with one: -[log p(x, y, z) - log q(z | x, y)], which bounds -log p(x, y). Kingma et al. 2014, eq. 7 and 6, with closed-form KLs.
    """

    def objective(t: Trace) -> Float[Tensor, " b"]:
        d, rest = t[name], Trace({n: other for n, other in t.items() if n != name})
        weight, log_q = _weights(d)
        charge = torch.where(torch.as_tensor(d.seen, device=log_q.device), 0.0, log_q)
        return -(weight * (d.log_p + rest.log_px - rest.kl - charge)).sum(0) + rest.penalty

    return objective


def misread(name: str) -> Objective:
    """-log q(y | x) of the label y where the site `name` was given, else 0, of a trace by `every_class`. Nats per row, [b]. Kingma et al. 2014, eq. 9."""

    def objective(t: Trace) -> Float[Tensor, " b"]:
        weight, log_q = _weights(t[name])
        return torch.where(torch.as_tensor(t[name].seen, device=log_q.device), -(weight * log_q).sum(0), 0.0)

    return objective
