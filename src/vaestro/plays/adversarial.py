"""Plays with adversaries: a critic tells what is real, and the other players move against it."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution

from vaestro.core import Batch, centre, content
from vaestro.plays.moves import Clock, Move, Play, terms_of


def vae_gan(gamma: float) -> Play:
    """Three players: encoder, decoder and critic (Larsen et al. 2016, algorithm 1).

    encoder: KL + 1/2 |f(x) - f(x~)|^2; decoder: gamma 1/2 |f(x) - f(x~)|^2 - log D(x~) - log D(x_p);
    critic: -log D(x) - log(1 - D(x~)) - log(1 - D(x_p)), with f the critic's features, x~ a reconstruction and x_p a sample of the prior.
    The decoder's adversarial loss is the non-saturating one.
    """

    def pictures(parts: nn.ModuleDict, batch: Batch) -> tuple[Tensor, Tensor]:
        made = centre(parts["model"](batch)["x"].prior)[0]
        dream: Distribution = parts["model"].generate_x(len(content(batch["x"])))  # type: ignore[operator]
        return made, centre(dream)

    def far(real: Tensor, made: Tensor) -> Tensor:
        return 0.5 * (real - made).square().flatten(1).sum(-1)

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        critic, x = parts["critic"], content(batch["x"])
        trace = parts["model"](batch)
        distance = far(critic(x)[0], critic(centre(trace["x"].prior)[0])[0])
        yield Move("encoder", trace.kl + distance, {**terms_of(trace), "features": distance.mean().detach()}, trace)
        made, dream = pictures(parts, batch)
        features, fake = critic(made)
        fooling = F.softplus(-fake) + F.softplus(-critic(dream)[1])
        yield Move("decoder", gamma * far(critic(x)[0], features) + fooling, {"fooling": fooling.mean().detach()})
        with torch.no_grad():
            made, dream = pictures(parts, batch)
        telling = F.softplus(-critic(x)[1]) + F.softplus(critic(made)[1]) + F.softplus(critic(dream)[1])
        yield Move("critic", telling, {"telling": telling.mean().detach()})

    return play
