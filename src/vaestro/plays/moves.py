"""Plays: who moves, on what loss, in what order. Run the model anew after each yield: what follows sees the moved player."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

from torch import Tensor, nn

from vaestro.codes import Usage, used_in
from vaestro.core import Batch, Trace
from vaestro.objectives.evidence import Objective
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
    """The two halves of every bound, for the table: reconstruction and KL in nats per row, the KL of each site if there are several.

    Then, where there are any, what training adds to the bound, and the perplexity of the codes that the batch uses.
    """
    latents = trace.latents
    each = {f"kl_{n}": d.kl.mean().detach() for n, d in latents.items()} if len(latents) > 1 else {}
    return {"reconstruction": -trace.log_px.mean().detach(), "kl": sum(each.values()) if each else trace.kl.mean().detach(), **each, **_beside(trace)}


def _beside(trace: Trace) -> dict[str, Tensor | float]:
    penalty, used = trace.penalty, used_in(trace)
    asked: dict[str, Tensor | float] = {"penalty": penalty.mean().detach()} if isinstance(penalty, Tensor) else {}
    return asked if used is None else {**asked, "perplexity": Usage.of(used).perplexity}


def still(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
    """Nobody moves: the play of a recipe that is fitted at once."""
    yield from ()


def alone(objective: Objective, samples: int = 1) -> Play:
    """One player, one loss: nearly every VAE. `samples` draws of the latents a row."""

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        trace = parts["model"](batch, samples)
        yield Move("model", objective(trace), terms_of(trace), trace)

    return play


def annealed(objective: Callable[[float], Objective], weight: Schedule, samples: int = 1, term: str = "weight") -> Play:
    """`alone` with a weight that follows a schedule of step / total, such as KL warm-up: `annealed(elbo, warm_up(0.1))`; the table calls it `term`."""

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        now = weight(clock.progress)
        for move in alone(objective(now), samples)(parts, batch, clock):
            yield move._replace(terms={**move.terms, term: now})

    return play
