"""A play of a VAE that also minds how its reconstructions look."""

from collections.abc import Iterator

from torch import nn

from vaestro.core import Batch
from vaestro.objectives.evidence import elbo
from vaestro.objectives.perceptual import perceived
from vaestro.plays.moves import Clock, Move, Play, terms_of


def beside(weight: float, samples: int = 1) -> Play:
    """One player on -ELBO + weight * E_q[distance(x, x')], x' the centre of p(x | z) and `distance` the part of that name, two pictures to a number.

    The model stays a density, and its bound is what it was; the term only moves what it is trained towards (as Snell et al. 2017 and Hou et al. 2017 train).
    """

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        trace = parts["model"](batch, samples)
        far = perceived(trace, parts["distance"])
        yield Move("model", elbo()(trace) + weight * far, {**terms_of(trace), "distance": far.mean().detach()}, trace)

    return play
