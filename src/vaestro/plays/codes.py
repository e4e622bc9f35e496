"""Plays of discrete latents: a temperature that falls, and gradients by enumeration."""

from collections.abc import Iterator

import torch
from torch import nn

from vaestro.codes import cool, strings
from vaestro.core import Batch, Draw, Model, Site, content, replaying, run, take
from vaestro.errors import UsageError
from vaestro.plays.moves import Clock, Move, Play, terms_of
from vaestro.schedules import Schedule


def cooled(play: Play, temperature: Schedule) -> Play:
    """`play` with the temperature of relaxed codes on a schedule of step / total (Jang et al. 2017, section 2.2; Ramesh et al. 2021, appendix A.2)."""

    def cooling(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        now = temperature(clock.progress)
        cool(parts, now)
        for move in play(parts, batch, clock):
            yield move._replace(terms={**move.terms, "temperature": now})

    return cooling


def enumerated(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
    """One player on minus the exact ELBO, -sum_z q(z|x) (log p(x, z) - log q(z|x)) over every string z: nats per row, and a gradient without noise.

    For one site of one-hot codes with 4,096 strings at most; raises UsageError for others. What was seen in part (`Seen`) is scored in part.
    Parts that look at traces are shown a drawn one: every string in turn would count unlikely codes.
    """
    model = parts["model"]
    assert isinstance(model, Model)
    with torch.no_grad():
        drawn = model(batch)
    posteriors = {name: d.posterior for name, d in drawn.latents.items() if d.posterior is not None}
    if len(posteriors) != 1:
        raise UsageError(f"enumeration is for models of one latent site, and this one has {len(posteriors)}; use an estimator that draws, such as vimco")
    ((name, posterior),) = posteriors.items()
    every = strings(posterior)
    rows = len(content(next(iter(batch.values()))))
    replay = replaying({name: every.unsqueeze(1).expand(-1, rows, *every.shape[1:])})

    def choose(site: Site) -> Draw:
        return replay(site) if site.name == name else take(site, (len(every), rows), batch.get(site.name))

    trace = run(model.program(batch), choose)
    q = torch.as_tensor(trace[name].log_q).exp()
    reconstruction, kl = -(q * trace.log_px).sum(0), trace.kl
    yield Move("model", reconstruction + kl, {**terms_of(trace), "reconstruction": reconstruction.mean().detach()}, drawn)
