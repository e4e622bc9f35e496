"""Posteriors made narrower, or wider until they fade into the prior."""

import math
from functools import singledispatch

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, Normal, OneHotCategorical

from vaestro.core import Shape, middle_of
from vaestro.errors import UsageError
from vaestro.evaluation.annealed import everywhere
from vaestro.families.base import counted_kind, is_discrete
from vaestro.uses.inference.latents import drawn


@singledispatch
def faded(q: Distribution, p: Distribution, s: float) -> Distribution | None:
    """q^(1/s^2), normalised, for 0 < s <= 1, and q^(1/s^2) p^(1 - 1/s^2) above; None where that has no closed form. Open.

    Of a Gaussian it is N(mu, s^2 sigma^2) up to 1; above, precisions and their means are weighed by 1/s^2 and 1 - 1/s^2. Where q is p(z | x) it is the
    posterior of data that weigh 1/s^2 as much: of a Gaussian likelihood, of noise s times as wide.
    """
    return None


@faded.register
def _(q: Normal, p: Distribution, s: float) -> Distribution | None:
    if s <= 1:
        return Normal(q.loc, q.scale * s, validate_args=False)
    if not isinstance(p, Normal):
        return None
    share = 1 / s**2
    own, other = share / q.scale.square(), (1 - share) / p.scale.square()
    return Normal((own * q.loc + other * p.loc) / (own + other), (own + other).rsqrt(), validate_args=False)


@faded.register
def _(q: Independent, p: Distribution, s: float) -> Distribution | None:  # type: ignore[type-arg]
    dims = q.reinterpreted_batch_ndims
    if s > 1 and not (isinstance(p, Independent) and p.reinterpreted_batch_ndims == dims):
        return None
    base = faded(q.base_dist, p.base_dist if isinstance(p, Independent) else p, s)
    return None if base is None else Independent(base, dims, validate_args=False)


@faded.register(Categorical)
@faded.register(OneHotCategorical)
@faded.register(Bernoulli)
def _(q: Categorical | OneHotCategorical | Bernoulli, p: Distribution, s: float) -> Distribution | None:
    share, kind = 1 / s**2, counted_kind(q)
    if s <= 1:
        return kind(logits=q.logits * share, validate_args=False)
    return kind(logits=share * q.logits + (1 - share) * p.logits, validate_args=False) if isinstance(p, kind) else None


def around(q: Distribution, p: Distribution, s: float, lead: Shape) -> Tensor:
    """A draw of `faded`, [*lead, *event]: at s = 0 the centre of q, at 1 a draw of it, at infinity one of the prior p.

    Where `faded` has no closed form and values fill a space, up to 1 the draw of q is moved towards its centre: c + s (z - c). Raises UsageError for the rest.
    """
    centre = None if is_discrete(q) else middle_of(q)
    if s == 0:
        return drawn(q, lead) if centre is None else centre.expand(*lead, *p.event_shape)
    if s == 1 or math.isinf(s):
        return drawn(p if math.isinf(s) else q, lead)
    law = faded(q, p, s)
    if law is not None:
        return drawn(law, lead)
    if s < 1 and centre is not None and everywhere(p):
        return torch.lerp(centre.expand(*lead, *p.event_shape), drawn(q, lead), s)
    raise UsageError(f"a posterior {type(q).__name__} beside a prior {type(p).__name__} has no law between them at noise {s:g}; give 0, 1 or inf, or use vae")
