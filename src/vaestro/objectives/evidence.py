"""Objectives: a loss per row, in nats, from a trace. A new VAE of a paper is one to ten lines here."""

import math
from collections.abc import Callable
from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor

from vaestro.core import Trace

Objective: TypeAlias = Callable[[Trace], Float[Tensor, " b"]]


def mean_exp(log_w: Float[Tensor, " k *b"]) -> Float[Tensor, " *b"]:
    """log (1/k) sum_k exp(log_w) over the leading axis: [k, b] to [b]."""
    return log_w.logsumexp(0) - math.log(len(log_w))


def elbo(beta: float = 1.0) -> Objective:
    """Minus the evidence lower bound: -E_q[log p(x|z)] + beta KL(q(z|x) || p(z)), averaged over the k draws.

    Nats per row, [b]. At beta = 1 it bounds -log p(x) from above. Kingma & Welling 2014, eq. 3; Higgins et al. 2017, eq. 4.
    """
    return lambda t: (beta * t.kl - t.log_px).mean(0) + t.penalty


def reconstruction() -> Objective:
    """-E_q[log p(x|z)] alone: what a plain autoencoder minimises. Nats per row, [b]; it bounds nothing."""
    return lambda t: -t.log_px.mean(0) + t.penalty


def iwae(trace: Trace) -> Float[Tensor, " b"]:
    """Minus the importance-weighted bound: -log (1/k) sum_k p(x, z_k) / q(z_k | x). Nats per row, [b].

    Burda et al. 2016, eq. 8: the gradient of this value is the paper's estimator, and the value is the bound itself.
    """
    return -mean_exp(trace.log_w)
