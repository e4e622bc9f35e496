"""A VAE whose encoder is its own critic: rows that the decoder made must have a low bound, and the decoder makes rows of a low KL."""

from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from vaestro.core import Batch, Trace, centre
from vaestro.models import VAE
from vaestro.plays.adversarial import dreams
from vaestro.plays.moves import Clock, Move, Play, terms_of


class Betas(NamedTuple):
    """The weights of reconstructions, of the KLs that are minimised, and of the KL of made rows in the encoder's exponent."""

    rec: float = 1.0
    kl: float = 1.0
    neg: float = 256.0


PAPER = Betas()  # as its code trains MNIST
ECHO = 1e-8  # gamma_r of the paper: how much the decoder reconstructs what it made


def soft_intro(numbers: int, betas: Betas = PAPER, adversary: float = 1.0) -> Play:
    """Two players, encoder and decoder of a `VAE`, and no critic (Daniel & Tamar 2021, Soft-IntroVAE, eq. 3 and algorithm 1); s = 1 / numbers of a row.

    encoder: s (rec L(x) + kl KL(x)) + adversary / 2 * mean over made rows of exp(-2 s (rec L(x') + neg KL(x')))
    decoder: s (rec L(x) + adversary * mean over made rows of (kl KL(x') + 1e-8 rec L(x')))
    Made rows x' are, half and half, reconstructions and dreams, as centres of p(x | z); the encoder's are held fixed, and so are the decoder's in L(x').
    L is -log p(x | z) in nats; in the exponent it is counted from -log p of the reconstruction itself, held fixed, so that a perfect one is 0, as the squared
    error of the paper is. Without an adversary (0) both follow the ELBO of the VAE, in units of 1 / s nats.
    """
    s = 1 / numbers

    def nats(trace: Trace, kl: float) -> Tensor:
        return (-betas.rec * trace.log_px + kl * trace.kl)[0]

    def encoding(model: VAE, batch: Batch) -> Move:
        trace = model(batch)
        loss = s * nats(trace, betas.kl)
        if not adversary:
            return Move("encoder", loss, terms_of(trace), trace)
        with torch.no_grad():
            made = _made(model, trace)
        bounds = [(-2 * s * (betas.rec * _excess(t) + betas.neg * t.kl)).exp()[0] for t in (model({**batch, "x": x}) for x in made)]
        praise = torch.stack(bounds).mean(0)
        return Move("encoder", loss + adversary / 2 * praise, {**terms_of(trace), "praise": praise.mean().detach()}, trace)

    def decoding(model: VAE, batch: Batch) -> Move:
        trace = model(batch)
        loss = -betas.rec * trace.log_px[0]
        if not adversary:
            return Move("decoder", s * loss)
        runs = [(x, model({**batch, "x": x})) for x in _made(model, trace)]
        cost = torch.stack([betas.kl * t.kl.expand_as(t.log_px)[0] - ECHO * betas.rec * _echo(model, x, t) for x, t in runs]).mean(0)
        return Move("decoder", s * (loss + adversary * cost), {"kl_made": torch.stack([t.kl.mean().detach() for _, t in runs]).mean()})

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        for move in (encoding, decoding):
            yield move(cast(VAE, parts["model"]), batch)

    return play


def _made(model: VAE, trace: Trace) -> tuple[Tensor, Tensor]:
    """The reconstructions of a trace, and as many dreams."""
    made = centre(trace["x"].prior)[0]
    return made, centre(dreams(model, len(made))["x"].prior)


def _excess(trace: Trace) -> Tensor:
    """-log p(x | z) beyond that of the reconstruction itself, which is held fixed, [k, b]."""
    p = trace["x"].prior
    with torch.no_grad():
        least = p.log_prob(centre(p))
    return least - trace.log_px


def _echo(model: VAE, made: Tensor, trace: Trace) -> Tensor:
    """log p of made rows given their latents, both held fixed, [b]."""
    score: Tensor = model.likelihood(trace["z"].value[0].detach()).log_prob(made.detach())
    return score
