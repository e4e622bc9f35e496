"""Plays with adversaries: a critic tells what is real, and the other players move against it."""

from collections.abc import Callable, Iterator
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from vaestro.core import Batch, Model, Seen, Trace, Value, centre, content, draw, run, sampling
from vaestro.models import VAE
from vaestro.plays.moves import Clock, Move, Play, terms_of


def discerning(real: Float[Tensor, " b"], fake: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """-log D(real) - log(1 - D(fake)) of a critic's logits: at its best 2 ln 2 - 2 JS(data, made) in the mean. Goodfellow et al. 2014, eq. 1."""
    return F.softplus(-real) + F.softplus(fake)


def fooling(fake: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """-log D(fake), which does not saturate: against the best critic ln 2 + KL(made || data) - KL(made || their mean). Goodfellow et al. 2014, section 3."""
    return F.softplus(-fake)


def sloped(critic: Callable[..., Tensor], *inputs: Tensor) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """A critic's logits, and the squared norm of their gradient in the inputs: R1 where these are real (Mescheder et al. 2018, eq. 9)."""
    held = [i.detach().requires_grad_() for i in inputs]
    logits = critic(*held)
    slopes = torch.autograd.grad(logits.sum(), held, create_graph=True)
    return logits, torch.stack([s.square().flatten(1).sum(-1) for s in slopes]).sum(0)


def dreams(model: Model, n: int) -> Trace:
    """`n` dreams of a model, with gradients."""
    return run(model.program(), sampling((n,), {}))


def seen_alike(made: Tensor, value: Value) -> Tensor:
    """What a critic may see of made rows: zeros where the real ones were not seen, for holes must not tell them apart (Bora et al. 2018, AmbientGAN)."""
    return made if isinstance(value, Tensor) else content(Seen(made, value.mask))


def gan(penalty: float = 0.0) -> Play:
    """Two players: the critic follows `discerning` + penalty / 2 * R1, then the generator follows `fooling` (Goodfellow et al. 2014, algorithm 1, a step each).

    R1 = |grad_x D(x)|^2 at real rows, D the logit (Mescheder et al. 2018, eq. 9): without it the game need not converge. The part "critic" maps rows to
    [n, 1] logits; rows that were seen in part are shown to it as they were, and made rows with the same holes.
    """

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        model, rows = cast(Model, parts["model"]), batch["x"]

        def critic(x: Tensor) -> Tensor:
            logits: Tensor = parts["critic"](x)[..., 0]
            return logits

        def made() -> Tensor:
            return seen_alike(centre(dreams(model, len(content(rows)))["x"].prior), rows)

        with torch.no_grad():
            fake = made()
        yield _judging(critic, (content(rows),), (fake,), penalty)
        fooled = fooling(critic(made()))
        yield Move("generator", fooled, {"fooling": fooled.mean().detach()})

    return play


def bigan(penalty: float = 0.0) -> Play:
    """Two players around pairs: a critic tells (x, E(x)) from (G(z), z), z ~ p(z), and a `VAE` moves both ends against it, on the loss that does not saturate.

    critic: -log D(x, E(x)) - log(1 - D(G(z), z)) + penalty / 2 * R1; model: -log(1 - D(x, E(x))) - log D(G(z), z). At the optimum both pairs have one
    law, so G and E invert each other (Donahue et al. 2017, eq. 2 to 4; Dumoulin et al. 2017, eq. 2, with a posterior that draws).
    """

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        model, critic, rows = cast(VAE, parts["model"]), parts["critic"], batch["x"]
        x = content(rows)

        def pairs() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
            code, _ = draw(model.posterior(x), ())
            z, _ = draw(model.prior(), (len(x),))
            return (x, code), (seen_alike(centre(model.likelihood(z)), rows), z)

        with torch.no_grad():
            real, fake = pairs()
        yield _judging(critic, real, fake, penalty)
        real, fake = pairs()
        fooled = fooling(-critic(*real)) + fooling(critic(*fake))
        yield Move("model", fooled, {"fooling": fooled.mean().detach()})

    return play


def _judging(critic: Callable[..., Tensor], real: tuple[Tensor, ...], fake: tuple[Tensor, ...], penalty: float) -> Move:
    """The critic's turn, on what is real and what is made."""
    if not penalty:
        told = discerning(critic(*real), critic(*fake))
        return Move("critic", told, {"telling": told.mean().detach()})
    logits, slope = sloped(critic, *real)
    told = discerning(logits, critic(*fake))
    return Move("critic", told + penalty / 2 * slope, {"telling": told.mean().detach(), "slope": slope.mean().detach()})


def vae_gan(gamma: float) -> Play:
    """Three players: encoder, decoder and critic (Larsen et al. 2016, algorithm 1).

    encoder: KL + 1/2 |f(x) - f(x~)|^2; decoder: gamma 1/2 |f(x) - f(x~)|^2 - log D(x~) - log D(x_p);
    critic: -log D(x) - log(1 - D(x~)) - log(1 - D(x_p)), with f the critic's features, x~ a reconstruction and x_p a sample of the prior.
    The decoder's adversarial loss is the non-saturating one. Where x was seen in part, made rows are judged with the same holes.
    """

    def pictures(parts: nn.ModuleDict, batch: Batch) -> tuple[Tensor, Tensor]:
        made = centre(parts["model"](batch)["x"].prior)[0]
        dream: Distribution = parts["model"].generate_x(len(content(batch["x"])))  # type: ignore[operator]
        return seen_alike(made, batch["x"]), seen_alike(centre(dream), batch["x"])

    def far(real: Tensor, made: Tensor) -> Tensor:
        return 0.5 * (real - made).square().flatten(1).sum(-1)

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        critic, x = parts["critic"], content(batch["x"])
        trace = parts["model"](batch)
        distance = far(critic(x)[0], critic(seen_alike(centre(trace["x"].prior)[0], batch["x"]))[0])
        yield Move("encoder", trace.kl + distance, {**terms_of(trace), "features": distance.mean().detach()}, trace)
        made, dream = pictures(parts, batch)
        features, fake = critic(made)
        fooled = fooling(fake) + fooling(critic(dream)[1])
        yield Move("decoder", gamma * far(critic(x)[0], features) + fooled, {"fooling": fooled.mean().detach()})
        with torch.no_grad():
            made, dream = pictures(parts, batch)
        told = discerning(critic(x)[1], critic(made)[1]) + F.softplus(critic(dream)[1])
        yield Move("critic", told, {"telling": told.mean().detach()})

    return play
