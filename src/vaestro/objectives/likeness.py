"""Scores of models without a density: how like the rows are what the model makes. In units of the data, not nats."""

import torch
from jaxtyping import Float
from torch import Tensor

from vaestro.core import Trace, centre


def energy(trace: Trace) -> Float[Tensor, " b"]:
    """The energy distance between rows and dreams, 2 E|x - y| - E|x - x'| - E|y - y'|, split over the rows, [b]; for a model without a posterior.

    Its mean is the unbiased estimate from these rows and the k dreams beside each: 0 in expectation where both have one law, more elsewhere
    (Szekely & Rizzo 2013, eq. 2). A single row, or dream, has no neighbour, and counts as 0 away from it.
    """
    p = trace["x"].prior
    x = trace["x"].value.reshape(-1, p.event_shape.numel())
    y = centre(p).reshape(-1, p.event_shape.numel())
    return 2 * _apart(x, y).mean(1) - _among(x) - _among(y).mean()


def _apart(rows: Tensor, others: Tensor) -> Tensor:
    return torch.cdist(rows, others, compute_mode="donot_use_mm_for_euclid_dist")  # by products a row is not at 0 from itself


def _among(rows: Tensor) -> Tensor:
    """The mean distance of each row to the others, [n]."""
    return _apart(rows, rows).sum(1) / max(len(rows) - 1, 1)


def squared_error(trace: Trace) -> Float[Tensor, " b"]:
    """The squared error of reconstructions, summed over a row's numbers, averaged over the k draws, [b]."""
    p = trace["x"].prior
    gap = (trace["x"].value - centre(p)).square()
    return gap.flatten(-len(p.event_shape)).sum(-1).mean(0)
