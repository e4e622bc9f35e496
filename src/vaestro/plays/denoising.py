"""Denoising: the encoder reads a spoilt row, and the decoder is scored on the clean one."""

import math
from collections.abc import Callable, Iterator
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn

from vaestro.core import Batch, Model, Seen, Value, content
from vaestro.data.schema import Binary, Count, Field, Integer, Table
from vaestro.errors import UsageError
from vaestro.objectives import Objective
from vaestro.plays.moves import Clock, Move, Play, terms_of
from vaestro.registry import Registry

Noise: TypeAlias = Callable[[Tensor], Tensor]  # rows to spoilt rows, drawn anew at each call
Spoiler: TypeAlias = Callable[[Field, float], Noise]  # noise of a strength, for the values of a field
NOISES: Registry[Spoiler] = Registry("noise")


def denoising(objective: Objective, noise: Noise, samples: int = 1) -> Play:
    """One player on `objective` of a trace in which the encoder read noise(x) and the likelihood scores the clean x; nats per row.

    Under `reconstruction` the denoising autoencoder (Vincent et al. 2008, section 2.3); under `elbo` the denoising VAE, whose loss bounds -log p(x) at every
    draw of the noise (Im et al. 2017, section 3). What was not seen of a row (`Seen`) stays hidden from the encoder.
    """

    def spoilt(value: Value) -> Value:
        made = noise(content(value))
        return made if isinstance(value, Tensor) else Seen(made, value.mask)

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        model = cast(Model, parts["model"])
        clean = model.observations(batch)
        trace = model({**batch, "x": spoilt(batch["x"])}, samples, given=clean)
        yield Move("model", objective(trace), terms_of(trace), trace)

    return play


def _share(name: str, strength: float) -> float:
    if not 0 <= strength <= 1:
        raise UsageError(f"the noise {name} spoils a share of the values, and {strength} is none; give a strength from 0 to 1")
    return strength


@NOISES.register
def masking(field: Field, strength: float) -> Noise:
    """A share `strength` of the values becomes 0 (Vincent et al. 2008, section 2.3); of a table it is hidden, as if it had not been seen."""
    share, hidden = _share("masking", strength), math.nan if isinstance(field.kind, Table) else 0.0
    return lambda x: torch.where(torch.rand_like(x) < share, hidden, x)


@NOISES.register
def gaussian(field: Field, strength: float) -> Noise:
    """x + `strength` e with e ~ N(0, I) (Vincent et al. 2010, section 3.3). Raises UsageError for counts, which it would make negative, and for tables."""
    if isinstance(field.kind, Table):
        raise UsageError("the noise gaussian has no meaning for the categories of a table; use masking, which hides entries")
    if isinstance(field.kind, Count):
        raise UsageError("the noise gaussian would make counts negative; use masking")
    if not strength >= 0:
        raise UsageError(f"the noise gaussian cannot have the scale {strength}; give 0 or more")
    return lambda x: x + strength * torch.randn_like(x)


@NOISES.register
def salt_and_pepper(field: Field, strength: float) -> Noise:
    """A share `strength` of the values becomes the least or the largest there is, by a fair coin (Vincent et al. 2010, section 3.3).

    Raises UsageError for numbers and counts, of which there is no largest.
    """
    if not isinstance(field.kind, Binary | Integer):
        raise UsageError(f"the noise salt_and_pepper needs a least and a largest value, and {type(field.kind).__name__} data have none; use masking")
    share = _share("salt_and_pepper", strength)

    def noise(x: Tensor) -> Tensor:
        u = torch.rand_like(x)
        return torch.where(u < share, (u < share / 2).to(x.dtype), x)

    return noise
