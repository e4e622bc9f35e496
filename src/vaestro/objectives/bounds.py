"""Bounds made of importance weights w = p(x, z) / q(z | x) alone: between the ELBO and the evidence, and one family beyond it."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from vaestro.core import Trace
from vaestro.errors import UsageError
from vaestro.objectives.evidence import Objective, iwae, mean_exp

NEARLY_ONE = 1e-3  # so near to alpha = 1 the usual formula divides a rounding error by 1 - alpha


def miwae(k: int) -> Objective:
    """Minus the mean of m importance-weighted bounds, each of `k` draws: -(1/m) sum_i log (1/k) sum_j w_ij, from a trace of m k draws.

    Nats per row, [b]. `miwae(1)` is the ELBO estimated from the draws, and with m = 1 it is `iwae`; in expectation it lies between the two.
    Raises UsageError for k < 1, and for a trace whose draws k does not divide. Rainforth et al. 2018, section 6, MIWAE.
    """
    if k < 1:
        raise UsageError(f"miwae averages over groups of k draws, and k = {k} is none; give a whole number from 1 upwards")

    def objective(t: Trace) -> Float[Tensor, " b"]:
        draws = len(t.log_w)
        if draws % k:
            raise UsageError(f"miwae({k}) averages over groups of {k} draws, and {draws} do not divide into them; draw a multiple of {k} samples")
        return -mean_exp(t.log_w.unflatten(0, (-1, k)).transpose(0, 1)).mean(0)

    return objective


def ciwae(beta: float) -> Objective:
    """Minus a convex combination of two bounds: -beta (1/k) sum_i log w_i - (1 - beta) log (1/k) sum_i w_i. Nats per row, [b].

    `ciwae(0)` is `iwae`, `ciwae(1)` the ELBO estimated from the draws. Raises UsageError for beta outside [0, 1]. Rainforth et al. 2018, section 6, CIWAE.
    """
    if not 0 <= beta <= 1:
        raise UsageError(f"ciwae mixes the ELBO with weight beta and the importance-weighted bound with 1 - beta, and beta = {beta} is not in [0, 1]")
    return lambda t: iwae(t) if beta == 0 else (1 - beta) * iwae(t) - beta * t.log_w.mean(0)


def renyi(alpha: float) -> Objective:
    """Minus the variational Renyi bound, -1 / (1 - alpha) log (1/k) sum_i w_i^(1 - alpha). Nats per row, [b].

    It falls as alpha rises: the largest log w at alpha = -inf (VR-max), `iwae` at 0, the ELBO estimated from the draws at 1, the smallest log w at inf.
    For alpha >= 0 it bounds log p(x) from below at every number of draws; for alpha < 0 it does not: its limit bounds log p(x) from above.
    Raises UsageError where alpha is not a number. Li & Turner 2016, the variational Renyi bound and its Monte Carlo estimate.
    """
    if math.isnan(alpha):
        raise UsageError("the Renyi bound needs an order alpha, and got NaN; give a real number, or inf or -inf")
    if math.isinf(alpha):
        return lambda t: -(t.log_w.amin(0) if alpha > 0 else t.log_w.amax(0))
    rest = 1 - alpha
    if rest == 0:
        return lambda t: -t.log_w.mean(0)
    if abs(rest) > NEARLY_ONE:
        return lambda t: -mean_exp(rest * t.log_w) / rest

    def objective(t: Trace) -> Float[Tensor, " b"]:
        mean = t.log_w.mean(0)
        tilt = rest * (t.log_w - mean)
        near = tilt.clamp(max=1).expm1().mean(0).log1p()  # the same, without the cancellation of log k against the logs of k numbers close to 1
        return -mean - torch.where(tilt.amax(0) < 1, near, mean_exp(tilt)) / rest

    return objective
