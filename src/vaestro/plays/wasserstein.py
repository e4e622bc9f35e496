"""A critic of latents: the encoder learns to make rows look like draws of the prior."""

from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaestro.conditional import through
from vaestro.core import Batch, Model
from vaestro.objectives.discrepancies import latents_and_dreams
from vaestro.objectives.evidence import reconstruction
from vaestro.plays.moves import Clock, Move, Play, terms_of
from vaestro.plays.regularised import check_weight


def adversarial_latents(weight: float) -> Play:
    """Three players: encoder, decoder and `critic`, a network [n, D] to [n, 1] logits of being a draw of the prior; nats per row.

    decoder: -log p(x|z); encoder: the same - weight log C(z); critic: -log C(z_p) - log(1 - C(z)), z_p ~ p(z), C = sigmoid(critic) (Makhzani et al. 2016,
    section 2; Tolstikhin et al. 2018, algorithm 1, WAE-GAN). At the best critic, C = p / (p + q), its loss is 2 ln 2 - 2 JSD(p, q). Several latent sites are
    judged side by side. Raises UsageError for a negative weight, and for a prior that depends on other latents.
    """
    check_weight("critic", weight)

    def judged(critic: nn.Module, z: Tensor) -> Tensor:
        return through(critic, z)[..., 0]

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        model, critic = cast(Model, parts["model"]), parts["critic"]
        trace = model(batch)
        yield Move("decoder", reconstruction()(trace), terms_of(trace), trace)
        trace = model(batch)
        fooling = F.softplus(-judged(critic, latents_and_dreams(trace)[0])).mean(0)
        yield Move("encoder", reconstruction()(trace) + weight * fooling, {"fooling": fooling.mean().detach()})
        with torch.no_grad():
            z, dreams = latents_and_dreams(model(batch))
        telling = (F.softplus(-judged(critic, dreams)) + F.softplus(judged(critic, z))).mean(0)
        yield Move("critic", telling, {"telling": telling.mean().detach()})

    return play
