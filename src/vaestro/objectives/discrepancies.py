"""How far two samples are apart: maximum mean discrepancy and sliced Wasserstein distance, and those of latents and their prior."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from vaestro.core import Trace, draw
from vaestro.errors import UsageError
from vaestro.families.base import precise

Kernel: TypeAlias = Callable[[Tensor], Tensor]  # of squared distances over 2 D, which is what two draws of N(0, I) over [D] are apart on average
Discrepancy: TypeAlias = Callable[[Float[Tensor, "n d"], Float[Tensor, "m d"]], Float[Tensor, ""]]

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # those of Tolstikhin et al.'s experiments


def imq(scales: tuple[float, ...] = SCALES) -> Kernel:
    """The inverse multiquadratic kernel, summed over scales: k(a, b) = sum_s s C / (s C + |a - b|^2) with C = 2 D (Tolstikhin et al. 2018, section 4).

    Raises UsageError for a scale that is not positive.
    """
    _check(scales)
    return lambda squares: sum((s / (s + squares) for s in scales), torch.zeros_like(squares))


def rbf(scales: tuple[float, ...] = (1.0,)) -> Kernel:
    """The Gaussian kernel, summed over scales: k(a, b) = sum_s exp(-|a - b|^2 / (s C)) with C = 2 D, so its bandwidth is sqrt(s D).

    Raises UsageError for a scale that is not positive.
    """
    _check(scales)
    return lambda squares: sum((torch.exp(-squares / s) for s in scales), torch.zeros_like(squares))


def _check(scales: tuple[float, ...]) -> None:
    if not scales or min(scales) <= 0:
        raise UsageError(f"a kernel cannot have the scales {scales}; give one or more positive numbers")


def _squares(a: Tensor, b: Tensor) -> Tensor:
    """|a_i - b_j|^2 / (2 D) of [n, D] and [m, D]: [n, m], by one matrix product in float64, for its terms nearly cancel."""
    middle = b.mean(0)
    a, b = a - middle, b - middle
    apart = a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * a @ b.T
    return apart.clamp(min=0) / (2 * a.shape[1])


def mmd(kernel: Kernel | None = None) -> Discrepancy:
    """The squared maximum mean discrepancy of two samples a [n, D] and b [m, D], unbiased: a number [] without a unit, `imq()` unless told another kernel.

    1/(n(n-1)) sum_{i != j} k(a_i, a_j) + 1/(m(m-1)) sum_{i != j} k(b_i, b_j) - 2/(n m) sum_{i, j} k(a_i, b_j) (Gretton et al. 2012, eq. 3; Tolstikhin et al.
    2018, algorithm 2). The pairs (i, i) are left out, so its mean is 0 where both samples come from one law; it may then be negative, and is not clamped.
    Raises UsageError for a sample of one.
    """
    k = kernel or imq()

    def discrepancy(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
        if min(len(a), len(b)) < 2:
            raise UsageError("the MMD compares pairs of rows, and a batch of one row has none; give a batch of 2 rows or more, and better 64")
        x, y = precise(a), precise(b)

        def within(rows: Tensor) -> Tensor:
            n = len(rows)
            own = torch.eye(n, dtype=torch.bool, device=rows.device)
            return k(_squares(rows, rows)).masked_fill(own, 0.0).sum() / (n * (n - 1))

        return (within(x) + within(y) - 2 * k(_squares(x, y)).mean()).to(a.dtype)

    return discrepancy


def sliced_wasserstein(projections: int = 50, power: float = 2.0) -> Discrepancy:
    """The sliced Wasserstein distance of two samples a [n, D] and b [m, D], to its `power` p: a number [] in units of latents to the power p.

    The mean over random directions u, |u| = 1, of W_p^p of the projections u . a and u . b, which in one dimension is the integral over t of
    |A^-1(t) - B^-1(t)|^p, A^-1 and B^-1 the sample quantiles: of as many rows, the mean over sorted pairs (Kolouri et al. 2019, algorithm 1). It is never
    negative, and of finite samples of one law above 0. Raises UsageError for fewer than one direction, and for p below 1.
    """
    if projections < 1 or power < 1:
        raise UsageError(f"there is no sliced Wasserstein distance of {projections} directions and power {power}; give one or more, and a power from 1")

    def discrepancy(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
        x, y = precise(a), precise(b)
        u = F.normalize(torch.randn(a.shape[1], projections, dtype=x.dtype, device=x.device), dim=0)
        return _quantile_gap((x @ u).sort(0).values, (y @ u).sort(0).values, power).to(a.dtype)

    return discrepancy


def _quantile_gap(a: Tensor, b: Tensor, power: float) -> Tensor:
    """The integral over t of |A^-1(t) - B^-1(t)|^p for sorted columns [n, L] and [m, L], averaged over the columns."""
    n, m = len(a), len(b)
    if n == m:
        return (a - b).abs().pow(power).mean()
    edges = sorted({i * m for i in range(n)} | {j * n for j in range(m)} | {n * m})  # where one of the two steps, in units of 1 / (n m)
    steps = torch.tensor(edges, device=a.device)
    gap = (a[steps[:-1] // m] - b[steps[:-1] // n]).abs().pow(power)
    return (gap * steps.diff().unsqueeze(1)).sum(0).mean() / (n * m)


def latents_and_dreams(trace: Trace) -> tuple[Float[Tensor, "k b d"], Float[Tensor, "k b d"]]:
    """The latents of every row, all sites side by side, and as many draws of their prior: two tensors [k, b, D].

    Raises UsageError where the prior of a latent depends on another latent, for draws of it beside encoded ones are then no draws of the prior.
    """
    found, dreamt = [], []
    for name, d in trace.latents.items():
        event = len(d.prior.event_shape)
        lead = d.value.shape[: d.value.dim() - event]
        if len(d.prior.batch_shape):
            raise UsageError(f"the prior of {name!r} depends on other latents, so draws of it cannot be compared with encoded rows; use a model of one latent")
        found.append(d.value.reshape(*lead, -1))
        dreamt.append(draw(d.prior, tuple(lead))[0].reshape(*lead, -1))
    return torch.cat(found, -1), torch.cat(dreamt, -1)


def mismatch(discrepancy: Discrepancy) -> Callable[[Trace], Float[Tensor, ""]]:
    """The discrepancy of the latents of a batch, draws of the aggregate posterior 1/b sum_i q(z | x_i), and as many fresh draws of the prior: a number [].

    The mean over the k draws of a trace; several latent sites are compared side by side, as one vector. Errors are those of `latents_and_dreams` and of
    `discrepancy`.
    """

    def measure(trace: Trace) -> Float[Tensor, ""]:
        z, dreams = latents_and_dreams(trace)
        return torch.stack([discrepancy(a, b) for a, b in zip(z, dreams, strict=True)]).mean()

    return measure
