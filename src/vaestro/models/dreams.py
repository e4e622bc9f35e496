"""Dreams at a temperature: every latent's prior made narrower or wider before it is drawn."""

import math
from functools import singledispatch

import torch
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, MixtureSameFamily, MultivariateNormal, Normal, OneHotCategorical

from vaestro.core import Batch, Draw, Model, Program, Site, Trace, run, take
from vaestro.errors import UsageError
from vaestro.families.base import counted_kind
from vaestro.flows import FlowDistribution
from vaestro.models.bottom_up import Joint
from vaestro.priors.mixtures import DiagonalMixture


@singledispatch
def tempered(dist: Distribution, temperature: float) -> Distribution:
    """`dist` with its spread times `temperature`: scales of Gaussians, of each component of a mixture, of the base of a flow; logits / temperature.

    Open. Raises UsageError where a spread has no meaning.
    """
    raise UsageError(f"a temperature has no meaning for the law {type(dist).__name__}, whose spread is no scale; leave it out, or use standard_normal or gmm")


@tempered.register
def _(dist: Normal, temperature: float) -> Distribution:
    return Normal(dist.loc, dist.scale * temperature, validate_args=False)


@tempered.register
def _(dist: Independent, temperature: float) -> Distribution:  # type: ignore[type-arg]
    return Independent(tempered(dist.base_dist, temperature), dist.reinterpreted_batch_ndims, validate_args=False)


@tempered.register
def _(dist: MultivariateNormal, temperature: float) -> Distribution:
    return MultivariateNormal(dist.loc, scale_tril=dist.scale_tril * temperature, validate_args=False)


@tempered.register
def _(dist: DiagonalMixture, temperature: float) -> Distribution:
    return DiagonalMixture(dist.logits, dist.loc, dist.scale * temperature).expand(dist.batch_shape)


@tempered.register
def _(dist: MixtureSameFamily, temperature: float) -> Distribution:
    return MixtureSameFamily(dist.mixture_distribution, tempered(dist.component_distribution, temperature), validate_args=False)


@tempered.register(Categorical)
@tempered.register(OneHotCategorical)
@tempered.register(Bernoulli)
def _(dist: Categorical | OneHotCategorical | Bernoulli, temperature: float) -> Distribution:
    return counted_kind(dist)(logits=dist.logits / temperature, validate_args=False)


@tempered.register
def _(dist: FlowDistribution, temperature: float) -> Distribution:
    return FlowDistribution(tempered(dist.base, temperature), dist.bijection, dist.context, tuple(dist.event_shape))


@tempered.register
def _(dist: Joint, temperature: float) -> Distribution:
    return Joint(lambda: _at(dist.program(), temperature), dist.sizes, tuple(dist.batch_shape))


def _at(program: Program, temperature: float) -> Program:
    """A program whose sites have their priors at a temperature."""
    try:
        site = next(program)
        while True:
            value = yield site._replace(prior=tempered(site.prior, temperature))
            site = program.send(value)
    except StopIteration:
        return


@torch.no_grad()
def dream(model: Model, n: int, temperature: float = 1.0, given: Batch | None = None, conditions: Batch | None = None) -> Trace:
    """`n` dreams as `Model.generate` has them, each latent from its prior at a temperature (Vahdat & Kautz 2020, section 4; Child 2021, figure 4).

    Below 1 they are nearer to the middle of what the model knows, and no draws of it any more. What is given stands, and what is observed is drawn as
    ever. Raises UsageError for a temperature that is not positive, and for priors without a scale.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise UsageError(f"a temperature of {temperature} is none; give a positive number: 1 is the prior, less stays nearer its middle")
    if temperature == 1:
        return model.generate(n, given, conditions)
    stands = given or {}

    def choose(site: Site) -> Draw:
        told = site.name in stands or site.name in model.observed
        return take(site if told else site._replace(prior=tempered(site.prior, temperature), posterior=None), (n,), stands.get(site.name))

    return run(model.program(conditions), choose)
