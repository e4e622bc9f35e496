"""Plays in which encoder and decoder follow losses of their own."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from vaestro.core import Batch, Model, content, replaying, run
from vaestro.errors import UsageError
from vaestro.objectives.bounds import miwae
from vaestro.objectives.evidence import iwae
from vaestro.objectives.gradients import log_q
from vaestro.plays.moves import Clock, Move, Play, terms_of
from vaestro.plays.score import without_path


def piwae(samples: int, k: int) -> Play:
    """Two players on `samples` draws each: the decoder follows `iwae` of them all, the encoder `miwae(k)`, whose gradient is less noisy for it.

    Rainforth et al. 2018, section 6, PIWAE. Raises UsageError where k does not divide `samples`.
    """
    if k < 1 or samples % k:
        raise UsageError(f"piwae's encoder averages over groups of {k} draws, and {samples} do not divide into them; give a multiple of {k} samples")
    objective = miwae(k)

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        trace = parts["model"](batch, samples)
        yield Move("decoder", iwae(trace), terms_of(trace), trace)
        yield Move("encoder", objective(parts["model"](batch, samples)))

    return play


def rws(samples: int, sleep: float = 0.0) -> Play:
    """Two players, reweighted wake-sleep: the decoder follows `iwae`; the encoder learns to give likely draws a high log q, nats per row.

    Wake: -sum_i v_i log q(z_i | x), v the normalised weights of `samples` draws of q, held fixed: consistent in the draws for KL(p(z | x) || q(z | x)).
    Sleep: -log q(z | x) of one dreamt row, (x, z) ~ p: unbiased, but about dreams. The encoder's loss is (1 - sleep) wake + sleep * sleep phase.
    Draws carry no path, so latents may be discrete. Bornschein & Bengio 2015, algorithm 1; Le et al. 2019.
    Raises UsageError for `sleep` outside [0, 1], and for one draw that is not all asleep: its weight is always 1, so it teaches the encoder nothing.
    """
    if not 0 <= sleep <= 1:
        raise UsageError(f"the sleep phase has a share of the encoder's loss, and {sleep} is not in [0, 1]")
    if samples < 2 and sleep < 1:
        raise UsageError("the wake phase weighs draws against each other, and there is one; take 2 samples or more, or sleep=1")

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        model = cast(Model, parts["model"])
        trace = model(batch, samples, choosing=without_path)
        yield Move("decoder", iwae(trace), terms_of(trace), trace)
        wake = (1 - sleep) * awake(model, batch, samples) if sleep < 1 else 0.0
        yield Move("encoder", wake + sleep * asleep(model, batch) if sleep > 0 else torch.as_tensor(wake))

    return play


def awake(model: Model, batch: Batch, samples: int) -> Tensor:
    """-sum_i v_i log q(z_i | x) of `samples` draws of q, with their normalised weights v held fixed, [b] in nats."""
    trace = model(batch, samples, choosing=without_path)
    weighted: Tensor = trace.log_w.detach().softmax(0) * log_q(trace)
    return -weighted.sum(0)


def asleep(model: Model, batch: Batch) -> Tensor:
    """-log q(z | x) of as many dreams (x, z) ~ p as the batch has rows, [b] in nats; what the model does not observe, conditions, is the batch's."""
    conditions = {name: value for name, value in batch.items() if name not in model.observed}
    rows = len(content(next(iter(batch.values()))))
    dreams = {name: d.value for name, d in model.generate(rows, conditions=conditions or None).items()}
    return -log_q(run(model.program({**conditions, **model.observations(dreams)}), replaying(dreams)))
