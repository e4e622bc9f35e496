"""Dreams nearer to the middle: every latent's prior narrowed before it is drawn."""

import math
from functools import singledispatch

import torch
from torch.distributions import Distribution, Independent, Normal

from vaestro.core import Draw, Model, Program, Site, Trace, run, take
from vaestro.errors import UsageError
from vaestro.flows import FlowDistribution
from vaestro.models.bottom_up import Joint


@singledispatch
def tempered(dist: Distribution, temperature: float) -> Distribution:
    """`dist` with its scale times `temperature`. Open; raises UsageError for one that nobody said how to narrow."""
    raise UsageError(f"{type(dist).__name__} has no scale that a temperature could narrow; draw from it as it is, or say how with @tempered.register")


@tempered.register
def _(dist: Normal, temperature: float) -> Distribution:
    return Normal(dist.loc, dist.scale * temperature, validate_args=False)


@tempered.register
def _(dist: Independent, temperature: float) -> Distribution:  # type: ignore[type-arg]
    return Independent(tempered(dist.base_dist, temperature), dist.reinterpreted_batch_ndims, validate_args=False)


@tempered.register
def _(dist: FlowDistribution, temperature: float) -> Distribution:
    return FlowDistribution(tempered(dist.base, temperature), dist.bijection, dist.context, tuple(dist.event_shape))


@tempered.register
def _(dist: Joint, temperature: float) -> Distribution:
    return Joint(lambda: _narrowed(dist.program(), temperature), dist.sizes, tuple(dist.batch_shape))


def _narrowed(program: Program, temperature: float) -> Program:
    """A program whose sites have narrower priors."""
    try:
        site = next(program)
        while True:
            value = yield site._replace(prior=tempered(site.prior, temperature))
            site = program.send(value)
    except StopIteration:
        return


@torch.no_grad()
def dream(model: Model, n: int, temperature: float = 1.0) -> Trace:
    """`n` dreams, [n, *event], each latent from its prior with the scale times `temperature` (Vahdat & Kautz 2020, section 4; Child 2021, figure 4).

    Below 1 they are nearer to the middle of what the model knows, and no draws of it any more. What is observed is drawn as ever. Raises UsageError
    for a temperature that is not positive, and for priors without a scale.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise UsageError(f"a temperature cannot be {temperature}; give a positive number")

    def choose(site: Site) -> Draw:
        return take(site if site.name in model.observed else site._replace(prior=tempered(site.prior, temperature)), (n,), None)

    return run(model.program(), choose)
