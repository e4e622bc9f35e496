"""A play that lets a mixture prior find the clusters before it leads."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence

from vaestro.core import Batch
from vaestro.families.base import FLOOR, unpositive
from vaestro.objectives import elbo
from vaestro.plays.moves import Clock, Move, Play, terms_of
from vaestro.priors import GaussianMixture


def settled(share: float) -> Play:
    """For the first `share` of training a VAE under N(0, I), in whose second half the mixture learns where the latents lie; then the ELBO with the mixture.

    First -E_q[log p(x|z)] + KL(q || N(0, I)), so that the mixture follows and does not pull; it starts at latents that lie far apart and goes on by
    stepwise expectation maximisation (Cappe & Moulines 2009, eq. 10). Then -E_q[log p(x|z)] + KL(q || p). It is the pretraining of VaDE (Jiang et al. 2017)
    without a second run. Nats; one latent vector with a Gaussian posterior, and a `GaussianMixture` as prior.
    """

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        trace = parts["model"](batch)
        if clock.progress >= share:
            yield Move("model", elbo()(trace), terms_of(trace), trace)
            return
        (site,) = trace.latents.values()
        assert site.posterior is not None, "a latent site has a posterior"
        z, prior = site.value[0].detach(), parts["model"].prior
        assert isinstance(prior, GaussianMixture), "the prior is a mixture"
        middle = math.ceil(clock.total * share / 2)
        if clock.step == middle:
            spread_out(prior, z)
        if clock.step >= middle:
            follow(prior, z, (clock.step - middle + 2) ** -0.6)
        plain = Independent(Normal(torch.zeros_like(z[0]), torch.ones_like(z[0]), validate_args=False), 1, validate_args=False)
        loss = (kl_divergence(site.posterior, plain) - trace.log_px).mean(0)
        yield Move("model", loss, {**terms_of(trace), "prior": -prior().log_prob(z).mean().detach()}, trace)

    return play


@torch.no_grad()
def spread_out(prior: GaussianMixture, z: Tensor) -> None:
    """Start a mixture at rows of `z` [n, D], each likelier the further from those before it (Arthur & Vassilvitskii 2007), all as wide as the rows."""
    chosen = z[torch.randint(len(z), (1,), device=z.device)]
    for _ in range(len(prior.loc) - 1):
        away = (z.unsqueeze(1) - chosen).square().sum(-1).amin(1) + 1e-12
        chosen = torch.cat([chosen, z[torch.multinomial(away, 1)]])
    prior.loc.copy_(chosen)
    prior.logits.zero_()
    prior.raw_scale.copy_(unpositive(z.std(0, correction=0).clamp(min=2 * FLOOR)).expand_as(prior.raw_scale))


@torch.no_grad()
def follow(prior: GaussianMixture, z: Tensor, rate: float) -> None:
    """One step of stepwise expectation maximisation on rows `z` [n, D]: the mixture's moments move by `rate` towards those of the rows it answers for.

    The moments (weight, weight times mean, weight times mean square) are the mixture's own numbers, so there is no other state; at a rate of 1 it is one
    step of expectation maximisation. A component that no row wants keeps its place and a millionth of weight.
    """
    dist = prior()
    r = dist.joint(z).softmax(-1)
    weight, square = dist.probs.double(), dist.scale.double().square() + dist.loc.double().square()
    rows = z.double()
    new = (1 - rate) * weight + rate * r.mean(0)
    first = (1 - rate) * weight[:, None] * prior.loc.double() + rate * (r.T @ rows) / len(rows)
    second = (1 - rate) * weight[:, None] * square + rate * (r.T @ rows.square()) / len(rows)
    share = new.clamp(min=1e-12)[:, None]
    mean = first / share
    variance = (second / share - mean.square()).clamp(min=1e-4)
    alive = new[:, None] > 1e-6
    prior.logits.copy_(new.clamp(min=1e-6).log())
    prior.loc.copy_(torch.where(alive, mean, prior.loc.double()))
    prior.raw_scale.copy_(torch.where(alive, unpositive(variance.sqrt()), prior.raw_scale.double()))
