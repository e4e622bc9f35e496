"""Plays that give inference more steps than generation: an encoder that lags behind is let catch up."""

import math
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from vaestro.core import Batch, Draw, Trace
from vaestro.errors import UsageError
from vaestro.objectives import Objective
from vaestro.plays.moves import Clock, Move, Play, terms_of


@torch.no_grad()
def mutual_information(drawn: Draw) -> Tensor:
    """I_q(x; z) of a batch in nats, []: mean over its rows of log q(z_i|x_i) - log 1/b sum_j q(z_i|x_j), z_i the first draw of row i.

    Hoffman & Johnson 2016; He et al. 2019. It is at most ln b, and 0 for a batch of one. Raises UsageError where the posterior of a row
    depends on other draws, as below the top of a hierarchy.
    """
    q = drawn.posterior
    if q is None or len(q.batch_shape) != 1:
        raise UsageError("the mutual information needs a posterior that depends on x alone; use a model with one latent site")
    z = drawn.value.reshape(-1, *drawn.value.shape[-1 - len(q.event_shape) :])[0]
    each = q.log_prob(z.unsqueeze(1))  # [i, j] = log q(z_i | x_j)
    return (each.diagonal() - each.logsumexp(1) + math.log(len(each))).mean()


class Lead(nn.Module):
    """Whether the encoder still moves ahead of the decoder: until the mutual information of z and x, averaged over a window of steps, stops rising.

    All of it lives in saved buffers, on the device. `holds` copies the answer to the host only after it may have changed, once a window.
    """

    total: Tensor
    steps: Tensor
    best: Tensor
    on: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, value in (("total", 0.0), ("steps", 0.0), ("best", -1.0), ("on", 1.0)):
            self.register_buffer(name, torch.tensor(value))
        self._answer: tuple[tuple[int, int], bool] | None = None  # which `on` was read, at which of its versions, and what it said

    def track(self, information: Tensor) -> None:
        """Adds one step's mutual information to the window; one that is not finite is left out."""
        fine = information.isfinite()
        self.total.add_(torch.where(fine, information, 0.0))
        self.steps.add_(fine)

    def judge(self) -> None:
        """Ends a window: the lead goes on if it ever did and the mean has risen (He et al. 2019, algorithm 1)."""
        mean = self.total / self.steps.clamp(min=1)
        self.on.mul_((mean > self.best) | (self.steps == 0))
        self.best.copy_(torch.where(self.steps > 0, mean, self.best))
        self.total.zero_()
        self.steps.zero_()

    def holds(self) -> bool:
        """Whether the encoder still leads."""
        version = (id(self.on), self.on._version)  # it counts the writes to the buffer, those of a resumed run too
        if self._answer is None or self._answer[0] != version:
            self._answer = (version, bool(self.on > 0.5))
        return self._answer[1]


def lagging(objective: Objective, inner: int = 10, windows: int = 50, samples: int = 1) -> Play:
    """Two players: while the part `lead`, a `Lead`, holds, `inner` moves of the encoder before each move of the decoder; one each afterwards.

    He et al. 2019, algorithm 1. Where this differs: the inner number is fixed, not until the bound stops rising; the inner moves see the same rows with fresh
    noise; the mutual information is that of the training batches over 1/`windows` of the run (the paper: validation rows, each epoch), so the run waits
    for the device once a window. Once the lead ends, each step is one move of the encoder, then one of the decoder against the moved encoder.
    """

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        model, lead = parts["model"], cast(Lead, parts["lead"])
        if clock.step and clock.step % math.ceil(max(clock.total, 1) / windows) == 0:
            lead.judge()
        leading = lead.holds()
        for _ in range(inner if leading else 1):
            yield Move("encoder", objective(model(batch, samples)))
        trace = model(batch, samples)
        terms: dict[str, Tensor | float] = {**terms_of(trace), "lead": float(leading)}
        if leading:
            terms["information"] = _information(trace)
            lead.track(cast(Tensor, terms["information"]))
        yield Move("decoder", objective(trace), terms, trace)

    return play


def _information(trace: Trace) -> Tensor:
    return mutual_information(next(iter(trace.latents.values())))
