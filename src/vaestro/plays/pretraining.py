"""A play that lets a mixture prior find the clusters before it leads."""

import math
from collections.abc import Iterator
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence

from vaestro.core import Batch
from vaestro.objectives import elbo
from vaestro.plays.moves import Clock, Move, Play, terms_of
from vaestro.priors import FullMixture, GaussianMixture, responsibilities

Mixture: TypeAlias = GaussianMixture | FullMixture
NARROWEST = 1e-4  # the least variance while a mixture follows: a component must not shrink to a point
PULL = 0.1  # the weight of KL(q || N(0, I)) while the mixture follows: all of it packs the rows together, and clusters into one another


def pretrained(share: float) -> Play:
    """For the first `share` of training a VAE near N(0, I), in whose second half the mixture learns where the latents lie; then the ELBO with the mixture.

    First -E_q[log p(x|z)] + KL(q || N(0, I)) / 10, so that the mixture follows and does not pull; it starts at latents that lie far apart and goes on by
    stepwise expectation maximisation (Cappe & Moulines 2009, eq. 10). Then -E_q[log p(x|z)] + KL(q || p). It is the pretraining of VaDE (Jiang et al. 2017)
    without a second run. Nats; one latent vector with a Gaussian posterior, and a mixture of Gaussians as prior.
    """

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        trace = parts["model"](batch)
        if clock.progress >= share:
            yield Move("model", elbo()(trace), terms_of(trace), trace)
            return
        (site,) = trace.latents.values()
        assert site.posterior is not None, "a latent site has a posterior"
        z, prior = site.value[0].detach(), parts["model"].prior
        assert isinstance(prior, Mixture), "the prior is a mixture"
        middle = math.ceil(clock.total * share / 2)
        if clock.step == middle:
            spread_out(prior, z)
        if clock.step >= middle:
            follow(prior, z, (clock.step - middle + 2) ** -0.6)
        plain = Independent(Normal(torch.zeros_like(z[0]), torch.ones_like(z[0]), validate_args=False), 1, validate_args=False)
        loss = (PULL * kl_divergence(site.posterior, plain) - trace.log_px).mean(0)
        yield Move("model", loss, {**terms_of(trace), "prior": -prior().log_prob(z).mean().detach()}, trace)

    return play


@torch.no_grad()
def spread_out(prior: Mixture, z: Tensor) -> None:
    """Start a mixture at rows of `z` [n, D], each likelier the further from those before it (Arthur & Vassilvitskii 2007), all as wide as the rows."""
    chosen = z[torch.randint(len(z), (1,), device=z.device)]
    for _ in range(len(prior.loc) - 1):
        away = (z.unsqueeze(1) - chosen).square().sum(-1).amin(1) + 1e-12
        chosen = torch.cat([chosen, z[torch.multinomial(away, 1)]])
    wide = prior.outer((z - z.mean(0)).double()).mean(0)
    prior.become(torch.full_like(prior.logits, 1 / len(prior.loc)), chosen, wide.expand(len(chosen), *wide.shape), NARROWEST)


@torch.no_grad()
def follow(prior: Mixture, z: Tensor, rate: float) -> None:
    """One step of stepwise expectation maximisation on rows `z` [n, D]: the mixture's moments move by `rate` towards those of the rows it answers for.

    The moments (weight, weight times mean, weight times mean of z z^T) are the mixture's own numbers, so there is no other state; at a rate of 1 it is one
    step of expectation maximisation. A component that no row wants keeps its place and a millionth of weight.
    """
    r, rows = responsibilities(prior(), z).double(), z.double()
    weight, mean, covariance = prior.logits.double().softmax(0), prior.loc.double(), prior.covariance.double()
    new = (1 - rate) * weight + rate * r.mean(0)
    kept, told = (1 - rate) * weight / new.clamp(min=1e-12), rate * r / (len(rows) * new.clamp(min=1e-12))  # of the new moments, what is old and each row's
    place = kept[:, None] * mean + told.T @ rows
    square = torch.einsum("k,k...->k...", kept, covariance + prior.outer(mean)) + torch.einsum("nk,n...->k...", told, prior.outer(rows))
    wanted = new > 1e-6
    place, spread = (torch.where(wanted.view(-1, *[1] * (a.dim() - 1)), a, b) for a, b in ((place, mean), (square - prior.outer(place), covariance)))
    prior.become(new.clamp(min=1e-6), place, spread, NARROWEST)
