"""How well a score tells two sets of rows apart: the area under the ROC curve and the average precision, with intervals."""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from vaestro.errors import UsageError

LEVEL = 0.95
RESAMPLES, AT_ONCE = 400, 20


class Area(NamedTuple):
    """A number from 0 to 1 with its standard error and its interval at 95 %."""

    value: float
    error: float
    low: float
    high: float


class Placements(NamedTuple):
    """For each row, the share of the other set that lies on its right side, ties by half; both means are the AUROC."""

    outside: np.ndarray  # [m]: the share of inside rows below it
    inside: np.ndarray  # [n]: the share of outside rows above it


def placements(inside: np.ndarray, outside: np.ndarray) -> Placements:
    """The structural components of the AUROC of scores [n] and [m], where outside rows should score higher (DeLong et al. 1988).

    Infinite scores are only ranked. Raises UsageError where a score is not a number, or a side has no row.
    """
    n, m = len(inside), len(outside)
    if not n or not m:
        raise UsageError(f"two sets of rows are told apart where both have some, and there are {n} and {m}; give more")
    both = np.concatenate([inside, outside]).astype(np.float64)
    if np.isnan(both).any():
        raise UsageError(f"{int(np.isnan(both).sum())} of {n + m} scores are not numbers, so rows cannot be ranked by them; leave this score out")
    together = stats.rankdata(both)
    above = (together[n:] - stats.rankdata(outside)) / n
    below = 1 - (together[:n] - stats.rankdata(inside)) / m
    return Placements(np.asarray(above), np.asarray(below))


def auroc(inside: np.ndarray, outside: np.ndarray) -> Area:
    """P(outside > inside) + P(equal) / 2 for scores [n] and [m]: 0.5 is chance, 0 the wrong way round.

    The error is DeLong's (1988); the interval is the value -+ 1.96 errors, cut at 0 and 1. Where no pair is out of order (or every pair is), DeLong's
    error is 0, and the interval's far end is what each side's extreme row leaves open: 1 - ln 40 / n - ln 40 / m, at least 0.
    Raises UsageError for fewer than two rows on a side or scores that are no numbers.
    """
    if min(len(inside), len(outside)) < 2:
        raise UsageError(f"the error of an AUROC needs 2 rows or more on each side, and there are {len(inside)} and {len(outside)}; score more rows")
    found = placements(inside, outside)
    value = float(found.outside.mean())
    error = math.sqrt(found.outside.var(ddof=1) / len(outside) + found.inside.var(ddof=1) / len(inside))
    half = float(stats.norm.ppf(0.5 + LEVEL / 2)) * error
    if error == 0 and value in (0.0, 1.0):
        half = min(1.0, math.log(2 / (1 - LEVEL)) * (1 / len(inside) + 1 / len(outside)))
    return Area(value, error, max(0.0, value - half), min(1.0, value + half))


def areas_of_rows(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Numbers [n] whose mean is the AUROC of scores [n] for the rows that are `positive` [n], and whose spread over sqrt(n) is its error: its linearisation."""
    found, n = placements(scores[~positive], scores[positive]), len(scores)
    value = found.outside.mean()
    rows = np.full(n, value)
    rows[positive] += (found.outside - value) * n / len(found.outside)
    rows[~positive] += (found.inside - value) * n / len(found.inside)
    return rows


def average_precision(inside: np.ndarray, outside: np.ndarray, seed: int = 0) -> Area:
    """sum over thresholds of (recall - recall before) x precision, where outside rows should score higher; chance is m / (n + m).

    Ties share a threshold, as in scikit-learn. Error and interval are those of 400 bootstrap resamples of each side (percentiles), seeded. Raises UsageError
    for scores that are no numbers and for sides without rows.
    """
    placements(inside, outside)  # says what is wrong with them
    rng, n, m = np.random.default_rng(seed), len(inside), len(outside)
    scores = -np.concatenate([inside, outside]).astype(np.float64)
    order = np.argsort(scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(np.unique(scores[order], return_inverse=True)[1])), n + m - 1)  # of each run of ties

    def precision_of(weights: np.ndarray) -> np.ndarray:
        """Of rows that count `weights` [resamples, n + m] times."""
        weights = weights[:, order]
        true, every = (np.cumsum(w, 1)[:, ends] for w in (weights * (order >= n), weights))
        share = np.divide(true, every, out=np.zeros(true.shape), where=every > 0)
        return np.asarray((np.diff(true, axis=1, prepend=0) * share).sum(1) / m)

    blocks = (np.concatenate([rng.multinomial(k, np.full(k, 1 / k), AT_ONCE) for k in (n, m)], 1) for _ in range(RESAMPLES // AT_ONCE))
    found = np.concatenate([precision_of(block) for block in blocks])
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Area(float(precision_of(np.ones((1, n + m), np.int64))[0]), float(found.std(ddof=1)), float(low), float(high))
