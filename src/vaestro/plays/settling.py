"""A play that lets a learnt prior find its place before it leads."""

from collections.abc import Iterator

import torch
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence

from vaestro.core import Batch
from vaestro.objectives import elbo
from vaestro.plays.moves import Clock, Move, Play, terms_of


def settled(share: float) -> Play:
    """For the first `share` of training: a VAE under N(0, I), while its prior learns by maximum likelihood where the latents lie; then the ELBO.

    First -E_q[log p(x|z)] + KL(q || N(0, I)) - log p(stopped z), so that the prior follows and does not pull; then -E_q[log p(x|z)] + KL(q || p). It is the
    pretraining of VaDE (Jiang et al. 2017, section 3) without a second run. Nats; one latent site with a Gaussian posterior.
    """

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        trace = parts["model"](batch)
        if clock.progress >= share:
            yield Move("model", elbo()(trace), terms_of(trace), trace)
            return
        (site,) = trace.latents.values()
        assert site.posterior is not None, "a latent site has a posterior"
        zeros = torch.zeros_like(site.value[0, 0])
        plain = Independent(Normal(zeros, torch.ones_like(zeros), validate_args=False), zeros.dim(), validate_args=False)
        following = -site.prior.log_prob(site.value.detach())
        loss = (kl_divergence(site.posterior, plain) - trace.log_px + following).mean(0)
        yield Move("model", loss, {**terms_of(trace), "prior": following.mean().detach()}, trace)

    return play
