"""The log-likelihood of each row, by importance sampling in chunks, with the bounds that lie under it."""

import math
from array import array
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaestro.core import Batch, Model, Trace, content, normalised
from vaestro.data.schema import Field
from vaestro.errors import UsageError, VaestroError
from vaestro.evaluation.scope import chunked, count, device_of, evaluating, no_rows, seeded, slice_rows
from vaestro.families.base import is_bound
from vaestro.seeds import forked, mix, reseed

Rows = np.ndarray[tuple[int], np.dtype[np.float64]]


class Chunk(NamedTuple):
    """How much is computed at once: small enough for the processor's cache, and part of the protocol, for it shapes the random numbers."""

    rows: int
    samples: int

    @classmethod
    def fitting(cls, samples: int, numbers: int) -> "Chunk":
        """A chunk for `samples` draws of rows of `numbers` values: about 0.8 million values at once.

        Measured on one core: larger chunks were slower (their temporaries fall out of the cache), and a convolutional decoder needs 0.2 GB at this size.
        """
        draws = min(max(800_000 // max(numbers, 1), 50), 1000)
        at_once = min(samples, 100, draws)
        return cls(draws // at_once, at_once)


@dataclass(frozen=True)
class Likelihood:
    """What importance sampling says of each row, in nats, as float64 arrays [rows].

    `log_px` is log (1/k) sum_i w_i with w_i = p(x, z_i) / q(z_i | x) and k = `samples` (Burda et al. 2016, equation 8); `ladder` holds the same
    bound at fewer samples, averaged over disjoint groups: what it still climbs at its upper end is the order of the bias that is left.
    """

    samples: int
    seed: int
    chunk: Chunk
    log_px: Rows
    elbo: Rows  # E_q[log p(x | z)] - KL
    reconstruction: Rows  # E_q[log p(x | z)]
    kl: Rows  # KL(q(z | x) || p(z)): closed form where one is registered
    ess: Rows  # effective sample size (sum w)^2 / sum w^2, 1 to `samples`
    ladder: dict[int, Rows]  # sample numbers 1, 10, 100, ... and `samples`
    bounds: tuple[str, ...] = ()  # the latents whose prior's density is itself a bound, which makes all of these looser bounds

    @property
    def mean(self) -> float:
        """The mean log-likelihood of a row, in nats."""
        return float(self.log_px.mean())

    @property
    def standard_error(self) -> float:
        """The standard error of `mean` over rows, in nats; NaN for one row."""
        return standard_error(self.log_px)

    @property
    def sampling_error(self) -> Rows:
        """The standard error of each row's `log_px` by its own samples: sqrt(1 / ess - 1 / samples), the delta method (Owen 2013, section 9.3), in nats."""
        return np.sqrt(np.maximum(1 / np.maximum(self.ess, 1e-300) - 1 / self.samples, 0.0))

    @property
    def protocol(self) -> str:
        """How the numbers were made, in words."""
        how = f"{len(self.log_px)} rows, {self.samples} importance samples, chunks of {self.chunk.rows} rows x {self.chunk.samples} samples, seed {self.seed}"
        return how + "".join(f"; the prior of {site!r} is estimated from below, so these are looser bounds" for site in self.bounds)

    def bits_per_dim(self, field: Field) -> float:
        """The mean negative log-likelihood in bits per dimension of `field`; raises UsageError where its density has no bits."""
        return field.bits_per_dim(-self.mean)


def standard_error(values: Rows) -> float:
    """The standard error of a mean over rows: s / sqrt(n); NaN for one row."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


class _Rungs:
    """Log-sum-exps of groups of 1, 10, 100, ... weights, streamed: ten groups of one rung make one of the next, so memory stays flat."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self.empty = torch.empty(0, rows, dtype=torch.float64, device=device)
        self.rest: list[Tensor] = []
        self.sums: list[Tensor] = []
        self.groups: list[int] = []

    def push(self, logs: Tensor, level: int = 0) -> None:
        """`logs` [n, rows] are the next n groups of 10^level weights."""
        if level == len(self.sums):
            self.rest.append(self.empty)
            self.sums.append(torch.zeros_like(logs[0]))
            self.groups.append(0)
        self.sums[level] += (logs - level * math.log(10)).sum(0)
        self.groups[level] += len(logs)
        logs = torch.cat([self.rest[level], logs])
        whole = len(logs) // 10 * 10
        self.rest[level] = logs[whole:]
        if whole:
            self.push(logs[:whole].view(-1, 10, logs.shape[1]).logsumexp(1), level + 1)

    def bounds(self) -> dict[int, Tensor]:
        """Sample number to the mean bound of its groups, [rows]."""
        return {10**i: s / n for i, (s, n) in enumerate(zip(self.sums, self.groups, strict=True))}


def _refuse_unnormalised(trace: Trace, name: str) -> None:
    for site, d in trace.items():
        if d.posterior is not None and not normalised(d.posterior):
            raise UsageError(f"{name} has no density: its posterior of {site!r} is a point; use reconstruction error instead")
        if not normalised(d.prior):
            instead = "use reconstruction error instead" if trace.latents else "it has no posterior either: its samples alone can be judged"
            raise UsageError(f"{name} has no density: what it says of {site!r} does not integrate to one; {instead}")


def _wide(number: Tensor, samples: int, rows: int) -> Tensor:
    return number.double().expand(samples, rows)


def _score(model: Model, batch: Batch, samples: int, seeds: tuple[int, int], chunk: Chunk) -> dict[str, Tensor]:
    """All numbers of one chunk of rows: log w is folded in as it comes, so memory is flat in `samples`."""
    rows = chunk.rows
    device = content(next(iter(batch.values()))).device
    rungs = _Rungs(rows, device)
    total, squares = (torch.full((rows,), -torch.inf, dtype=torch.float64, device=device) for _ in range(2))
    reconstruction, kl = (torch.zeros(rows, dtype=torch.float64, device=device) for _ in range(2))
    for number, start in enumerate(range(0, samples, chunk.samples)):
        reseed(mix(*seeds, 1, number), device)
        k = min(chunk.samples, samples - start)
        trace = model(batch, k)
        log_w = _wide(trace.log_w, k, rows)
        rungs.push(log_w)
        total = torch.logaddexp(total, log_w.logsumexp(0))
        squares = torch.logaddexp(squares, (2 * log_w).logsumexp(0))
        reconstruction += _wide(trace.log_px, k, rows).sum(0)
        kl += _wide(trace.kl, k, rows).sum(0)
    found = {"log_px": total - math.log(samples), "reconstruction": reconstruction / samples, "kl": kl / samples}
    ess = (2 * total - squares).exp().nan_to_num(0.0)  # all weights zero: no sample is effective
    return {**found, "ess": ess, **{f"ladder{k}": b for k, b in rungs.bounds().items()}}


def _check(samples: int, chunk: Chunk | None) -> None:
    for what, number in (("samples", samples), *(() if chunk is None else (("chunk.rows", chunk.rows), ("chunk.samples", chunk.samples)))):
        if number < 1:
            raise UsageError(f"{what} is {number}, and importance sampling needs at least 1; give a whole number from 1 upwards")


def importance(
    model: Model, batches: Batch | Iterable[Batch], samples: int = 100, seed: int = 0, chunk: Chunk | None = None, name: str = "the model"
) -> Likelihood:
    """The log-likelihood of every row of `batches` by importance sampling: log p(x) >= E log (1/k) sum_i p(x, z_i) / q(z_i | x), in nats.

    Source: Burda, Grosse and Salakhutdinov 2016, "Importance Weighted Autoencoders", equation 8; sums are float64 and streamed, so memory is flat
    in rows and samples. Random numbers are seeded by (seed, chunk of rows, chunk of samples): the result is deterministic, a row's estimate does not
    depend on the rows after it, and torch's global generator, the model's modes and its gradients are left alone.
    Without a `chunk` one is chosen by `Chunk.fitting`; the result records it.
    Raises UsageError for a model without a density, no rows or numbers below 1; VaestroError where a weight is not a number.
    """
    _check(samples, chunk)
    kept: dict[str, array[float]] = defaultdict(lambda: array("d"))  # eight bytes a number; a small tensor for each chunk would take a hundred times that
    with forked(device_of(model)), evaluating(model):
        stream = (b for b in seeded(batches, seed) if count(b))
        first = next(stream, None)
        if first is None:
            raise no_rows(name)
        torch.manual_seed(seed)
        trace = model(slice_rows(first, 0, 1), 1)
        _refuse_unnormalised(trace, name)
        chunk = chunk or Chunk.fitting(samples, sum(content(first[n])[0].numel() for n in model.observed if n in first))
        for number, (batch, real) in enumerate(chunked(chain([first], stream), chunk.rows)):
            scored = _score(model, batch, samples, (seed, number), chunk)
            _refuse_broken(scored["log_px"][:real], number * chunk.rows, name)
            for n, v in scored.items():
                kept[n].frombytes(v[:real].cpu().numpy().tobytes())
    found = _collect({n: np.array(numbers) for n, numbers in kept.items()}, samples, seed, chunk)
    return replace(found, bounds=tuple(n for n, d in trace.items() if is_bound(d.prior)))


def _refuse_broken(log_px: Tensor, first: int, name: str) -> None:
    broken = (log_px.isnan() | log_px.isposinf()).nonzero()
    if len(broken):
        row = first + int(broken[0])
        raise VaestroError(f"{name} gives row {row} a log-likelihood of {float(log_px[broken[0]])}; its weights or this row are not finite: train it anew")


def _collect(found: dict[str, Rows], samples: int, seed: int, chunk: Chunk) -> Likelihood:
    ladder = {int(n.removeprefix("ladder")): v for n, v in found.items() if n.startswith("ladder")}
    ladder[samples] = found["log_px"]
    elbo = found["reconstruction"] - found["kl"]
    return Likelihood(samples, seed, chunk, found["log_px"], elbo, found["reconstruction"], found["kl"], found["ess"], ladder)
