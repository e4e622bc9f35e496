"""Plays that follow the path of the draws alone, without the score of the posterior."""

from collections.abc import Iterator
from typing import cast

from torch import Tensor, nn

from vaestro.core import Batch, Draw, Model, Trace, draw
from vaestro.objectives.evidence import iwae
from vaestro.objectives.gradients import dreg as dreg_bound
from vaestro.objectives.gradients import reported, require_path
from vaestro.objectives.gradients import stl as stl_bound
from vaestro.plays.moves import Clock, Move, Play, terms_of
from vaestro.plays.score import held_score, rescored
from vaestro.registry import says


def stl(samples: int = 1) -> Play:
    """One player on the ELBO, without the score in its gradient: `vaestro.objectives.stl` (Roeder et al. 2017).

    Several latent sites cost a second run of the model, without a gradient to x. Raises UsageError for posteriors that cannot score a value held fixed.
    """

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        model = cast(Model, parts["model"])
        trace = model(batch, samples)
        yield Move("model", stl_bound(trace, held_score(model, batch, trace)), terms_of(trace), trace)

    return play


def dreg(samples: int) -> Play:
    """One player on the importance-weighted bound of `samples` draws, with the gradient of `vaestro.objectives.dreg` (Tucker et al. 2019).

    One latent site costs what `iwae` does; several, and posteriors that score their draws in one pass, such as flows, cost a second run of the model.
    Raises UsageError for posteriors that cannot score a value held fixed.
    """

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        model = cast(Model, parts["model"])
        trace = model(batch, samples)
        latents = list(trace.latents.values())
        one = len(latents) == 1 and _scored_at_its_value(latents[0])
        loss = _dreg_of_one(trace, latents[0], held_score(model, batch, trace)) if one else dreg_bound(trace, rescored(model, batch, trace))
        yield Move("model", loss, terms_of(trace), trace)

    return play


def _scored_at_its_value(z: Draw) -> bool:
    """Whether log q reads the value itself. A law with a `draw` of its own may score the noise that it is made of, and that path would miss the hook below."""
    return not says(draw, z.posterior)


def _dreg_of_one(trace: Trace, z: Draw, held_log_q: Tensor) -> Tensor:
    """`vaestro.objectives.dreg` of one latent in one run: sum_i v_i log w_i without the score, and a second v_i on what flows back into z_i."""
    require_path(trace, "the doubly reparameterised gradient")
    v = trace.log_w.detach().softmax(0)
    if z.value.requires_grad:
        z.value.register_hook(lambda gradient: gradient * v[(...,) + (None,) * len(z.prior.event_shape)])
    return reported(iwae(trace), -(v * (trace.log_w + held_log_q)).sum(0))
