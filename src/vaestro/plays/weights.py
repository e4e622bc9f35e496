"""Plays whose weights follow the training itself: a constraint with its multiplier, and a curriculum of easy rows first."""

import math
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from vaestro.core import Batch, Trace, observe
from vaestro.errors import UsageError
from vaestro.objectives import Objective, rate
from vaestro.plays.moves import Clock, Move, Play, terms_of
from vaestro.schedules import Schedule

MOST = math.log(1e6)  # a constraint that cannot be met must not overflow its multiplier


class Multiplier(nn.Module):
    """The Lagrange multiplier of -E_q[log p(x|z)] <= `tolerance` nats a row (GECO: Rezende & Viola 2018, algorithm 1).

    With C the mean of -log p(x|z) - tolerance over a batch and M its running mean of `memory`, every step does lambda <- lambda exp(speed M):
    it rises while the constraint is violated and falls while there is slack. `speed` is per nat; lambda starts at 1 and stays in [1e-6, 1e6].
    All of it lives in saved buffers. Raises UsageError for a tolerance that is not finite, a speed that is not positive, a memory outside [0, 1).
    """

    log_value: Tensor
    average: Tensor
    steps: Tensor

    def __init__(self, tolerance: float, speed: float = 1e-3, memory: float = 0.99) -> None:
        super().__init__()
        for name, value, fine in (("tolerance", tolerance, math.isfinite(tolerance)), ("speed", speed, speed > 0), ("memory", memory, 0 <= memory < 1)):
            if not fine:
                raise UsageError(f"a multiplier cannot have a {name} of {value}; give a finite tolerance in nats a row, a speed above 0, a memory in [0, 1)")
        self.tolerance, self.speed, self.memory = tolerance, speed, memory
        for name in ("log_value", "average", "steps"):
            self.register_buffer(name, torch.tensor(0.0))

    def forward(self) -> Tensor:
        """lambda, []."""
        return self.log_value.exp()

    @torch.no_grad()
    def track(self, trace: Trace) -> None:
        """Moves the running mean and lambda on by one step; a batch that is not finite is left out."""
        now = -trace.log_px.mean() - self.tolerance
        fine = now.isfinite()
        weight = torch.where(fine, torch.where(self.steps > 0, 1 - self.memory, 1.0), 0.0)
        self.steps.add_(fine)
        self.average.lerp_(torch.where(fine, now, 0.0).to(self.average.dtype), weight.to(self.average.dtype))
        self.log_value.add_(torch.where(fine, self.speed * self.average, 0.0)).clamp_(-MOST, MOST)


@observe.register(Multiplier)
def _(part: Multiplier, trace: Trace) -> None:
    part.track(trace)


def geco(samples: int = 1) -> Play:
    """One player on KL + lambda (-E_q[log p(x|z)] - tolerance), with lambda the part `multiplier`, a `Multiplier` (Rezende & Viola 2018).

    The least rate at which reconstructions are as good as the tolerance asks. Nats per row; at lambda = 1 it is the ELBO less the tolerance.
    """

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        trace, multiplier = parts["model"](batch, samples), cast(Multiplier, parts["multiplier"])
        now = multiplier()
        slack = -trace.log_px.mean(0) - multiplier.tolerance
        loss = rate(trace) + now * slack + trace.penalty
        yield Move("model", loss, {**terms_of(trace), "multiplier": now, "constraint": slack.mean().detach()}, trace)

    return play


def easiest(losses: Tensor, share: float) -> Tensor:
    """Row weights [b] that keep the easiest `share` of rows, at least one, by their losses [b]: b / n for the n kept, 0 for the others; their mean is 1."""
    rows = len(losses)
    kept = min(rows, max(1, math.ceil(share * rows - 1e-9)))
    rank = losses.detach().argsort(stable=True).argsort()
    return torch.where(rank < kept, rows / kept, 0.0).to(losses.dtype)


def curriculum(objective: Objective, share: Schedule, samples: int = 1) -> Play:
    """One player that follows the easiest `share` of the rows of each batch, by their own loss under the present model; at a share of 1, all of them.

    Self-paced learning (Kumar et al. 2010, its threshold set by a quantile) with the pacing of a curriculum (Bengio et al. 2009). What is
    minimised is the mean loss of the rows kept, so a schedule that ends at 1 ends with the ordinary objective. No state but the clock.
    """

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        trace, now = parts["model"](batch, samples), share(clock.progress)
        loss = objective(trace)
        yield Move("model", easiest(loss, now) * loss, {**terms_of(trace), "share": now}, trace)

    return play
