"""Bounds whose gradient is not that of their value: other estimators of the same gradient, with less noise or for draws that have no path.

Each reports its bound and lets a surrogate be differentiated. Two kinds of draws are told apart by what they carry: a *path*, the derivative of
the value by the posterior's parameters, or none, as of discrete latents and of `vaestro.plays.without_path`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from vaestro.core import Trace
from vaestro.errors import UsageError
from vaestro.objectives.evidence import Objective, iwae, mean_exp


def reported(value: Tensor, surrogate: Tensor) -> Tensor:
    """`value`, bit for bit, with the gradient of `surrogate`."""
    return value.detach() + (surrogate - surrogate.detach())


def log_q(trace: Trace) -> Tensor:
    """log q(z | x) of all latents, [k, b] in nats: the sum of what each site was drawn with, 0 where it was given."""
    return torch.as_tensor(sum(d.log_q for d in trace.latents.values()))


def needs_score(trace: Trace) -> bool:
    """Whether a gradient is wanted and the latents were drawn without one, so that only the score of q tells what its parameters do.

    Raises UsageError where some sites were drawn with a gradient and others without: neither kind of estimator is right for both.
    """
    by_site = {name: d.value.requires_grad for name, d in trace.latents.items()}
    if len(set(by_site.values())) > 1:
        able = ", ".join(name for name, path in by_site.items() if path)
        raise UsageError(f"only the draws of {able} carry a gradient, and one estimator must serve all latents; draw with `choosing=without_path`")
    return torch.is_grad_enabled() and not any(by_site.values())


def require_path(trace: Trace, what: str) -> None:
    """Raises UsageError where a posterior has parameters that its draw says nothing about, so that `what`, which follows draws, would leave them untrained."""
    for name, d in trace.latents.items():
        if not d.value.requires_grad and isinstance(d.log_q, Tensor) and d.log_q.requires_grad:
            law = type(d.posterior).__name__
            raise UsageError(f"{what} follows the gradient through the draws, and those of {name!r} ({law}) carry none; use vimco, reinforce, tvo or rws")


def stl(trace: Trace, held_log_q: Float[Tensor, " k b"]) -> Float[Tensor, " b"]:
    """Minus the ELBO, -(1/k) sum_i log w_i, without the score of q in its gradient. Nats per row, [b].

    The gradient is that of log p(x, z) - log q(z | x) through z and through p: no part of it comes from the parameters of q at a fixed z, whose mean
    is 0. So it vanishes draw by draw where q is the true posterior. `held_log_q` [k, b] is log q of the same values, held fixed. Roeder et al. 2017,
    the path derivative. Raises UsageError where the draws carry no gradient.
    """
    require_path(trace, "sticking the landing")
    return reported(-trace.log_w.mean(0), -(trace.log_w + held_log_q).mean(0))


def dreg(trace: Trace, held: Trace) -> Float[Tensor, " b"]:
    """Minus the importance-weighted bound with its doubly reparameterised gradient. Nats per row, [b].

    With normalised weights v_i, sum_i v_i^2 of the path d log w_i / dz dz / d(parameters), and sum_i v_i of what log p depends on directly; the score of q
    is replaced by its reparameterised form, which has the same mean. Exact for any number of latent sites, also where prior and posterior share parameters.
    `held` is the same trace with its values held fixed. Tucker et al. 2019; several sites as in Bauer & Mnih 2021.
    Raises UsageError where the draws carry no gradient.
    """
    require_path(trace, "the doubly reparameterised gradient")
    v = trace.log_w.detach().softmax(0)
    held_log_q = log_q(held)
    path = trace.log_w - held.log_w
    direct = held.log_w + held_log_q
    return reported(iwae(trace), -(v.square() * path + v * direct).sum(0))


def vimco(trace: Trace) -> Float[Tensor, " b"]:
    """Minus the importance-weighted bound; its gradient needs no path. Nats per row, [b].

    With L the bound, its gradient is sum_j (L - L_-j) d log q(z_j | x) + sum_j v_j d log w_j, where L_-j is the bound with w_j replaced by the geometric mean
    of the other weights and v_j are the normalised weights: unbiased, and each draw has a baseline of its own. Memory of k^2 b numbers.
    Mnih & Rezende 2016, algorithm 1.
    On draws that carry a gradient it is `iwae`. Raises UsageError for fewer than two draws.
    """
    k = len(trace.log_w)
    if k < 2:
        raise UsageError("vimco's baseline for a draw is made of the others, and there is one draw; take 2 samples or more")
    if not needs_score(trace):
        return iwae(trace)
    log_w = trace.log_w.detach()
    own = torch.eye(k, dtype=torch.bool, device=log_w.device).unsqueeze(-1)
    others = log_w.expand(k, *log_w.shape).masked_fill(own, 0.0).sum(1) / (k - 1)
    without = mean_exp(torch.where(own, others.unsqueeze(1), log_w).transpose(0, 1))  # row j of [j, i, b]: all weights, the j-th replaced
    signal = mean_exp(log_w) - without
    return reported(iwae(trace), iwae(trace) - (signal * log_q(trace)).sum(0))


def reinforce(baseline: Float[Tensor, " *b"] | float = 0.0) -> Objective:
    """Minus the ELBO, -(1/k) sum_i log w_i; its gradient needs no path. Nats per row, [b].

    The gradient is that of log p(x, z) + (log w - baseline) log q(z | x), with the bracket held fixed: unbiased for any `baseline`, a number or [b] of them,
    that does not depend on z, and the less noisy the better it predicts log w. Williams 1992; Mnih & Gregor 2014, algorithm 1, without its division by
    a running standard deviation, which would bias the size of the gradient. On draws that carry a gradient, that of the ELBO's estimate is taken instead.
    """

    def objective(t: Trace) -> Float[Tensor, " b"]:
        bound = -t.log_w.mean(0)
        if not needs_score(t):
            return bound
        q, signal = log_q(t), (t.log_w - baseline).detach()
        return reported(bound, -(t.log_w + q + signal * q).mean(0))

    return objective
