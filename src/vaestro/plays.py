"""Plays: who moves, on what loss, in what order. Run the model anew after each yield: what follows sees the moved player."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution

from vaestro.core import Batch, Trace, centre, content
from vaestro.objectives import Objective
from vaestro.schedules import Schedule


class Clock(NamedTuple):
    """Where training stands."""

    step: int
    total: int

    @property
    def progress(self) -> float:
        """step / total, in [0, 1]."""
        return self.step / max(self.total, 1)


class Move(NamedTuple):
    """One player's turn: the loss whose gradient that player, and nobody else, follows."""

    player: str
    loss: Tensor  # [batch], nats or whatever the player counts in
    terms: Mapping[str, Tensor | float] = {}  # for the table: the parts of the loss
    trace: Trace | None = None  # for model.observe


Play: TypeAlias = Callable[[nn.ModuleDict, Batch, Clock], Iterator[Move]]


def terms_of(trace: Trace) -> dict[str, Tensor | float]:
    """The two halves of every bound, for the table: reconstruction and KL in nats per row, the KL of each site if there are several."""
    latents = trace.latents
    each = {f"kl_{n}": d.kl.mean().detach() for n, d in latents.items()} if len(latents) > 1 else {}
    return {"reconstruction": -trace.log_px.mean().detach(), "kl": sum(each.values()) if each else trace.kl.mean().detach(), **each}


def alone(objective: Objective, samples: int = 1) -> Play:
    """One player, one loss: nearly every VAE. `samples` draws of the latents a row."""

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        trace = parts["model"](batch, samples)
        yield Move("model", objective(trace), terms_of(trace), trace)

    return play


def annealed(objective: Callable[[float], Objective], weight: Schedule, samples: int = 1) -> Play:
    """`alone` with a weight that follows a schedule of step / total, such as KL warm-up: `annealed(elbo, warm_up(0.1))`."""

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        now = weight(clock.progress)
        for move in alone(objective(now), samples)(parts, batch, clock):
            yield move._replace(terms={**move.terms, "weight": now})

    return play


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
