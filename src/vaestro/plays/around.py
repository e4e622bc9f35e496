"""Plays around other plays: a loss with a part's judgement in it, and a table that says more."""

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor, nn

from vaestro.core import Batch, Trace
from vaestro.plays.moves import Clock, Move, Play


def priced(play: Play, weight: float, part: str) -> Play:
    """A play whose losses bear `weight` times a part's judgement of the part that moves: loss + weight * parts[part](parts[player]).

    The part maps a network to one number, such as `vaestro.networks.spectral.Spectral`; the table calls it by the part's name. For players called as the
    part that they move.
    """

    def played(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        for move in play(parts, batch, clock):
            price: Tensor = parts[part](parts[move.player])
            yield move._replace(loss=move.loss + weight * price, terms={**move.terms, part: price.detach()})

    return played


def telling(play: Play, more: Callable[[Trace], Mapping[str, Tensor | float]]) -> Play:
    """A play whose table also holds what `more` reads in the traces."""

    def played(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        for move in play(parts, batch, clock):
            yield move if move.trace is None else move._replace(terms={**move.terms, **more(move.trace)})

    return played
