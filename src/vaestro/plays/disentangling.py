"""FactorVAE: a critic that tells latents from shuffled ones measures their total correlation."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Independent

from vaestro.core import Batch, Draw
from vaestro.errors import UsageError
from vaestro.objectives.evidence import elbo
from vaestro.plays.moves import Clock, Move, Play, terms_of


def dimensions(draw: Draw) -> Float[Tensor, "k b d v"]:
    """The value of a latent site as its dimensions, each a number or, of one-hot codes, a vector."""
    q = draw.posterior
    width = math.prod(q.base_dist.event_shape) if isinstance(q, Independent) else 1
    return draw.value.reshape(*draw.value.shape[:2], -1, width)


def shuffled(z: Float[Tensor, "n d v"]) -> Float[Tensor, "n d v"]:
    """Each dimension over the rows in an order of its own, so that the rows are draws of the product of the marginals. Kim & Mnih 2018, algorithm 1."""
    order = torch.rand(z.shape[:2], device=z.device).argsort(0)
    return z.gather(0, order.unsqueeze(-1).expand_as(z))


def side_by_side(sites: list[Tensor]) -> Float[Tensor, "n numbers"]:
    """The dimensions [n, d, v] of several sites as one vector a row."""
    return torch.cat([z.flatten(1) for z in sites], -1)


def factor(gamma: float, samples: int = 1) -> Play:
    """Two players: the model on the ELBO loss + gamma TC(z), and the critic D, part "critic", which tells z ~ q(z) from z~ ~ prod_j q(z_j).

    The critic returns logits [n, 1]; the best ones are log q(z) - sum_j log q(z_j), so their mean estimates TC. Its loss is
    -1/2 log D(z) - 1/2 log(1 - D(z~)), z from one half of the batch and z~ from the other half with its dimensions shuffled, drawn anew after the model
    has moved. Kim & Mnih 2018, eq. 2 and 3, algorithm 2, whose second batch is the second half here. Nats per row. Raises UsageError for a negative gamma.
    """
    if not gamma >= 0:
        raise UsageError(f"the weight of the total correlation cannot be {gamma}, which would reward it; give 0 or more")

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        model, critic = parts["model"], parts["critic"]
        trace = model(batch, samples)
        logits = critic(side_by_side([dimensions(d).flatten(0, 1) for d in trace.latents.values()]))
        correlation = logits.reshape(trace.log_px.shape).mean(0)
        yield Move("model", elbo()(trace) + gamma * correlation, {**terms_of(trace), "correlation": correlation.mean().detach()}, trace)
        with torch.no_grad():
            found = [dimensions(d)[0] for d in model(batch).latents.values()]
        rows = (len(found[0]) + 1) // 2  # of an odd batch, the middle row is in both halves
        yield Move("critic", told_apart(critic, [z[:rows] for z in found], [z[-rows:] for z in found]))

    return play


def told_apart(critic: nn.Module, ones: list[Tensor], others: list[Tensor]) -> Float[Tensor, " n"]:
    """-1/2 log D(z) - 1/2 log(1 - D(z~)) of the rows `ones` as they are and the rows `others` shuffled, both [n, d, v] a site."""
    real, made = critic(side_by_side(ones)), critic(side_by_side([shuffled(z) for z in others]))
    loss: Tensor = (F.softplus(-real) + F.softplus(made)).flatten() / 2
    return loss
