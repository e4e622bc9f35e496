"""Plays of semi-supervised models."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from vaestro.core import Batch, Trace, content, draw, observe
from vaestro.models.classes import Stacked
from vaestro.objectives.classes import every_class, misread, summed_out
from vaestro.plays.moves import Clock, Move, Play
from vaestro.registry import says

SHARE = "share of the row"  # the entry of a batch that says how much each row counts, where labelled rows come more often than they occur


def shares(batch: Batch) -> Tensor | float:
    """How much each row counts in a mean over the data: 1, or what the batch says."""
    return content(batch[SHARE]) if SHARE in batch else 1.0


@torch.no_grad()
def drawn(model: nn.Module, batch: Batch) -> Trace | None:
    """A trace in which the class is drawn, for the parts that look at traces; none where no part does. All in turn would count unlikely classes."""
    looking = any(says(observe, part) for part in model.modules())
    return model(batch) if looking else None


def semi_supervised(label: str, classes: int, alpha: float, samples: int = 1) -> Play:
    """One player: the bound with the class summed out, plus alpha times the mean of -log q(y | x) over the labelled rows of the batch.

    Kingma et al. 2014, eq. 8 and 9, over the number of rows: their alpha = 0.1 N is 0.1 here. `samples` draws of the latents for each class and row.
    """
    bound, wrong, choosing = summed_out(label), misread(label), every_class(label)

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        trace = parts["model"](batch, classes * samples, choosing=choosing)
        loss, error = bound(trace), wrong(trace)
        seen = torch.as_tensor(trace[label].seen, device=loss.device).expand(len(loss)).sum()
        mean_error = error.sum() / seen.clamp(min=1)
        terms = {"bound": (shares(batch) * loss).mean().detach(), "classification": mean_error.detach()}
        yield Move("model", shares(batch) * loss + alpha * mean_error, terms, drawn(parts["model"], batch))

    return play


def stacked(first: Play, second: Play, share: float) -> Play:
    """Two players, one after the other: `m1` moves by `first` for a `share` of training, then stands still while `m2` moves by `second` on its latents.

    Kingma et al. 2014, section 2.1: M2 is trained on draws of q(z1 | x), drawn anew at each step. `model` holds both parts, `m1` and `m2`.
    """

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        model = cast(Stacked, parts["model"])
        if clock.progress < share:
            for move in first(nn.ModuleDict({"model": model.m1}), {"x": batch["x"]}, clock):
                yield move._replace(player="m1", loss=shares(batch) * move.loss)
            return
        with torch.no_grad():
            latents, _ = draw(model.m1.posterior(content(batch["x"])), ())
        for move in second(nn.ModuleDict({"model": model.m2}), {**batch, "x": latents}, clock):
            yield move._replace(player="m2")

    return play
