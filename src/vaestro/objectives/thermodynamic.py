"""The evidence as an integral over temperatures between q and p, and its Riemann sums (Masrani, Le & Wood 2019)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from vaestro.core import Trace
from vaestro.errors import UsageError
from vaestro.objectives.evidence import Objective
from vaestro.objectives.gradients import log_q, needs_score, reported


def log_uniform(partitions: int, first: float, like: Tensor) -> Tensor:
    """0, then `partitions` temperatures from `first` to 1, equally spaced in logs; 0 and 1 alone for one partition: [partitions + 1].

    They are of the type of `like` and made on its device, so that no step waits for a copy.
    """
    one = like.new_ones(1)
    logs = torch.linspace(math.log(first), 0.0, partitions, dtype=like.dtype, device=like.device)[:-1]  # the last is exactly 1
    return torch.cat([0 * one, logs.exp(), one])


def tvo(partitions: int = 5, first: float = 0.08) -> Objective:
    """Minus the thermodynamic bound, the left Riemann sum of log p(x) = integral_0^1 E_pi_b[log w] db, pi_b proportional to q^(1 - b) p^b. Nats per row, [b].

    sum_i (b_i+1 - b_i) sum_s v_s(b_i) log w_s over `log_uniform(partitions, first)`, where v(b) = softmax(b log w) stands for pi_b. The integrand rises
    with b, so one partition is the ELBO, finer ones are tighter, and the sum of the estimates lies below `iwae` of the same draws: it is a bound at
    every number of draws.

    Of draws without a path, its gradient is the covariance estimator, E_pi[d log w] + Cov_pi[d log pi_b, log w]: it serves discrete latents too, and needs
    two draws. It is unbiased at b = 0, and consistent in the draws elsewhere. Of draws with a path, the gradient is that of the value.

    Raises UsageError for fewer than one partition, `first` outside (0, 1), and one draw without a path. Masrani, Le & Wood 2019, TVO and "Optimizing the TVO".
    """
    return _riemann(partitions, first, slice(None, -1))


def tvo_upper(partitions: int = 5, first: float = 0.08) -> Objective:
    """Minus the right Riemann sum: as `tvo`, with every integrand taken at the end of its partition. Nats per row, [b].

    It bounds log p(x) from above in the limit of many draws; of few draws it only bounds `iwae` of the same draws. Masrani, Le & Wood 2019, TVO.
    """
    return _riemann(partitions, first, slice(1, None))


def _riemann(partitions: int, first: float, ends: slice) -> Objective:
    if partitions < 1:
        raise UsageError(f"[0, 1] cannot be cut into {partitions} partitions; give 1 or more")
    if not 0 < first < 1:
        raise UsageError(f"the first temperature above 0 must lie between 0 and 1, and {first} does not")

    def objective(t: Trace) -> Float[Tensor, " b"]:
        log_w = t.log_w
        betas = log_uniform(partitions, first, log_w)[:, None, None]
        nodes, width = betas[ends], betas.diff(dim=0)
        v = (nodes * log_w).softmax(1)  # [partitions, k, b]
        value = -(width * v * log_w).sum((0, 1))
        if not needs_score(t):
            return value
        k = len(log_w)
        if k < 2:
            raise UsageError("the covariance gradient of the thermodynamic bound compares draws, and there is one; take 2 samples or more")
        v, f = v.detach(), log_w.detach()
        by_q = width * v * (f - (v * f).sum(1, keepdim=True)) * k / (k - 1)  # the covariance's weights; k / (k - 1) makes that at b = 0 unbiased
        q = log_q(t)
        log_pi = q + nodes * log_w  # (1 - b) log q + b log p
        return reported(value, -(width * v * log_w + by_q * log_pi).sum((0, 1)))

    return objective
