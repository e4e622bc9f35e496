"""Reconstructions compared as eyes would: a term beside a bound, never part of a density."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from vaestro.core import Trace, centre
from vaestro.errors import UsageError


def perceived(trace: Trace, distance: Callable[[Tensor, Tensor], Tensor]) -> Float[Tensor, " b"]:
    """E_q[distance(x, x')], x' the centre of p(x | z), averaged over the k draws, [b]; 0 for rows that were not seen.

    `distance` is one of `vaestro.families.perceptual`: two pictures in unit values to numbers [k, b]. Its unit is its own; it bounds nothing.
    Raises UsageError for rows that were seen in part, for pictures are compared whole.
    """
    x = trace["x"]
    far = distance(x.value, centre(x.prior))
    if isinstance(x.seen, bool):
        return far.mean(0)
    if x.seen.dim() != 1:
        raise UsageError("a perceptual distance compares whole pictures, and these were seen in part; give whole rows, or use a recipe such as vae")
    return torch.where(x.seen, far, 0.0).mean(0)
