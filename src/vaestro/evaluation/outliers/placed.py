"""Scores by their places among usual rows: those of the columns of a table added up, and several notions of strangeness in one."""

import numpy as np

from vaestro.errors import UsageError
from vaestro.evaluation.columns import nats_of_entries
from vaestro.evaluation.likelihood import Rows
from vaestro.evaluation.metrics.subject import Subject
from vaestro.evaluation.outliers.base import OUTLIER_SCORES, OutlierScore, strangeness

PARTS = ("elbo", "neighbours", "columns", "complexity")  # badly explained, where no usual row is, odd in many columns, likely because it is simple
TAIL = 0.05  # the share of usual rows beyond which the tail is a law instead of a count
LARGEST = 1e300  # infinite scores count as this


def shares(usual: np.ndarray, scores: np.ndarray) -> Rows:
    """(#{usual > s} + #{usual = s} / 2 + 1/2) / (n + 1) for scores s [m] and n usual ones, [m]: middle p-values, never 0."""
    known, n = np.sort(usual), len(usual)
    twice = 2 * n - np.searchsorted(known, scores, "left") - np.searchsorted(known, scores, "right")
    return np.asarray((0.5 * twice + 0.5) / (n + 1))


def tail(usual: np.ndarray, scores: np.ndarray) -> Rows:
    """-ln p of scores [m] among those of n usual rows, nats, [m]: `shares`, and beyond the 95 % quantile a Pareto law.

    With u the quantile, k of the n above it and b the median of what they exceed it by: p = (k + 1/2) / (n + 1) / (1 + (s - u) / b) beyond u, of which half
    lie beyond u + b, as they do. So scores beyond all that is known still have an order, and scores in other units can be compared.
    """
    known, s = (np.clip(np.asarray(v, dtype=np.float64), -LARGEST, LARGEST) for v in (usual, scores))
    u = np.quantile(known, 1 - TAIL)
    above = known[known > u]
    half = max(float(np.median(above)) - u if len(above) else 0.0, 1e-6 * max(1.0, abs(u)))
    rim = (len(above) + 0.5) / (len(known) + 1)
    return np.asarray(np.log1p(np.maximum(s - u, 0.0) / half) - np.log(np.maximum(shares(known, s), rim)))


def columns(rows: Subject, usual: Subject) -> Rows:
    """sum_c -ln p_c, nats, of a row of a table: p_c is the share of usual rows whose entry of column c surprises the model more, by -E_q[log p(x_c | z)].

    No column weighs more than the logarithm of the number of usual rows, however heavy its tail; an entry that was not seen counts 1, the mean of -ln p.
    Raises UsageError for other data than tables, and for models without a posterior or a density.
    """
    known, found = nats_of_entries(usual), nats_of_entries(rows)
    if known is None or found is None:
        raise UsageError(f"{rows.name} says nothing of single columns, for its rows are no table, or it has no posterior or no density of them; use elbo")
    total = np.zeros(len(found))
    for before, now in zip(known.T, found.T, strict=True):
        among = before[~np.isnan(before)]
        total += np.where(np.isnan(now), 1.0, -np.log(shares(among, np.nan_to_num(now, nan=0.0)))) if len(among) else 1.0
    return total


def combined(rows: Subject, usual: Subject) -> Rows:
    """ln (1/k sum_i 1/p_i), nats: minus the logarithm of the harmonic mean of the p-values by k scores among the usual rows, as `tail` has them (Wilson 2019).

    The scores are elbo, neighbours, columns and complexity. A row may be badly explained, or explained well by a code that no usual row has, or odd in many
    columns at once, or likely only because it is simple: one suffices, and two weigh more. What the model or the data cannot bear is left out. Raises
    UsageError where fewer than two are left.
    """
    found, refused = list[Rows](), list[str]()
    for name in PARTS:
        try:
            known = usual.once(f"strangeness {name}", lambda name=name: strangeness(name, usual, usual))  # type: ignore[misc]
            found.append(tail(known, strangeness(name, rows, usual)))
        except UsageError as refusal:
            refused.append(str(refusal))
    if len(found) < 2:
        raise UsageError(f"several scores are combined, two or more of {', '.join(PARTS)}, and there are {len(found)}: {refused[0]}")
    return np.asarray(np.logaddexp.reduce(found, 0) - np.log(len(found)))


OUTLIER_SCORES.enter(
    OutlierScore(
        "columns", "surprise of each column by its place", "nats",
        "ten draws a row; the share of 1,000 training rows that surprise more, column by column", "Fisher 1932", columns,
    ),
    OutlierScore(
        "combined", "harmonic mean of the p-values by several scores", "nats",
        f"p-values among 1,000 training rows by {', '.join(PARTS)}, as far as they are given", "Wilson 2019, equation 1", combined,
    ),
)  # fmt: skip
