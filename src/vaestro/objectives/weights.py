"""Objectives that weigh or bound the KL, or the scale of the likelihood, otherwise than the evidence bound does."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from vaestro.core import Draw, Trace, partial_log_prob
from vaestro.families import best_scale, rescaled
from vaestro.objectives.evidence import Objective


def rate(trace: Trace) -> Float[Tensor, " b"]:
    """KL(q(z|x) || p(z)) of each row, averaged over its k draws: nats, [b]."""
    kl: Tensor = torch.broadcast_tensors(trace.kl, trace.log_px)[0]
    return kl.mean(0)


def capacity(gamma: float, nats: float) -> Objective:
    """-E_q[log p(x|z)] + gamma |KL(q(z|x) || p(z)) - C|: holds the KL of each row at C = `nats`. Nats per row, [b]; it bounds nothing.

    Burgess et al. 2018, eq. 8. At gamma = 1 and C = 0 it is the ELBO; at gamma = 0 the reconstruction alone.
    """
    return lambda t: gamma * (rate(t) - nats).abs() - t.log_px.mean(0) + t.penalty


def by_dimension(draw: Draw) -> Float[Tensor, "*lead groups"]:
    """The KL of each latent dimension of a site; of the whole site where it does not split. Nats."""
    split = draw.kl_of_dimensions
    return by_site(draw) if split is None else split


def by_site(draw: Draw) -> Float[Tensor, "*lead 1"]:
    """The KL of a whole latent site, in nats."""
    return draw.kl.unsqueeze(-1)


def free_bits(floor: float, groups: Callable[[Draw], Tensor] = by_dimension) -> Objective:
    """-E_q[log p(x|z)] + sum_j max(floor, mean over the batch of KL_j), with j the `groups` of every latent site. Nats per row, [b].

    Kingma et al. 2016, eq. 15. At a floor of 0 it is the ELBO wherever the KL has a closed form, for that is never negative.
    The groups are the latent dimensions, or whole sites by `free_bits(floor, by_site)`; the maximum is taken of the mean over the minibatch, not row by row:
    a group whose mean is above the floor costs each row that row's own KL, another one costs each row the floor.
    """

    def charged(draw: Draw) -> Tensor:
        each = groups(draw)
        above = each.reshape(-1, each.shape[-1]).mean(0) > floor
        return torch.where(above, each, floor).sum(-1)

    def objective(t: Trace) -> Float[Tensor, " b"]:
        kl = sum(charged(d) for d in t.latents.values())
        return (kl - t.log_px).mean(0) + t.penalty

    return objective


def optimal_scale(site: str = "x") -> Objective:
    """The ELBO with the Gaussian scale of `site` that makes the batch likeliest: sigma*^2 = mean (x - mu(z))^2 over all values, rows and draws seen.

    Rybkin et al. 2021, section 3: -E_q[log N(x; mu(z), sigma*^2)] + KL = D/2 ln(2 pi sigma*^2) + |x - mu|^2 / (2 sigma*^2) + KL. Nats per row, [b].
    sigma* is held constant in the gradient, which changes nothing: at the optimum the derivative by it is zero. On discrete data it is set into the
    masses of the bins, of which it is nearly the best. Give the model a `TrackedGaussian`, which stores a scale for evaluation.
    Raises UsageError for a likelihood without one scale.
    """

    def objective(t: Trace) -> Float[Tensor, " b"]:
        drawn = t[site]
        now = _scored(drawn._replace(prior=rescaled(drawn.prior, best_scale(drawn))))
        return (t.kl - t.log_px - (now - drawn.log_p)).mean(0) + t.penalty

    return objective


def _scored(drawn: Draw) -> Tensor:
    """log p of what was seen of a draw, as `core.take` scores it."""
    if isinstance(drawn.seen, bool):
        return drawn.prior.log_prob(drawn.value)
    if drawn.seen.dim() == 1:
        return torch.where(drawn.seen, drawn.prior.log_prob(drawn.value), 0.0)
    return partial_log_prob(drawn.prior, drawn.value, drawn.seen)
