"""Conformal p-values: how many rows that are usual look at least as strange, and which alarms can be raised at a false-discovery rate."""

import math
from numbers import Real

import numpy as np
from scipy import stats

from vaestro.errors import UsageError
from vaestro.evaluation.likelihood import Rows


def ranked(calibration: np.ndarray, scores: np.ndarray) -> Rows:
    """p = (1 + #{calibration scores >= s}) / (n + 1) for scores s [m], higher = stranger, and n calibration scores, without which p is 1: [m]."""
    below = np.searchsorted(np.sort(calibration), scores, side="left")
    return np.asarray((1 + len(calibration) - below) / (len(calibration) + 1), dtype=np.float64)


def p_values(calibration: np.ndarray, scores: np.ndarray) -> Rows:
    """`ranked`, of which more is known: p = (1 + #{calibration scores >= s}) / (n + 1) for scores s [m] and n calibration scores: [m].

    If a row and the calibration rows are exchangeable, P(p <= a) <= a for every a, exactly and whatever the model (Vovk et al. 2005, proposition 2.8;
    Bates et al. 2023, equation 2). The level holds on average over calibration rows; ties count against the alarm. Infinite scores are only ranked.
    Raises UsageError for no calibration scores, and for scores that are not numbers.
    """
    held, new = (np.asarray(a, dtype=np.float64).reshape(-1) for a in (calibration, scores))
    if not len(held):
        raise UsageError("there are no calibration rows, so no row can be called strange; give rows that are known to be usual")
    if np.isnan(held).any() or np.isnan(new).any():
        raise UsageError("some scores are not numbers, so they have no rank; mend those rows, or take another score")
    return ranked(held, new)


def adjusted(p: np.ndarray) -> Rows:
    """Benjamini and Hochberg's adjusted p-values [m]: a row is an alarm at level q where its value is at most q."""
    return np.asarray(stats.false_discovery_control(p), dtype=np.float64) if len(p) else np.zeros(0)


def discoveries(p: np.ndarray, fdr: float) -> np.ndarray:
    """Which of m tests are alarms at the false-discovery rate `fdr`, bool [m]: those up to the largest k with p_(k) <= fdr k / m.

    E[false alarms / max(1, alarms)] <= fdr x the share of usual rows (Benjamini & Hochberg 1995, theorem 1), which conformal p-values with common
    calibration rows keep, for they are positively dependent (Bates et al. 2023, theorem 2). Raises UsageError for a level outside (0, 1).
    """
    require_level(fdr, "the false-discovery rate")
    return adjusted(p) <= fdr * (1 + 1e-12)  # m p / k at the boundary itself is rounded


def require_level(level: object, what: str) -> None:
    """Raises UsageError for a level outside (0, 1), and for what is no number."""
    if not isinstance(level, Real) or not 0 < float(level) < 1:
        raise UsageError(f"{what} is {level!r}, and it is a share between 0 and 1, both left out; 0.1 lets one alarm in ten be false")


def needed(level: float) -> int:
    """The least number n of calibration rows with which a p-value can be as small as `level`: 1 / (n + 1) <= level."""
    return max(1, math.ceil(1 / level - 1e-9) - 1)


def require_enough(n: int, level: float) -> None:
    """Raises UsageError where n calibration rows can never raise an alarm at this level."""
    if n < needed(level):
        raise UsageError(
            f"{n} calibration rows give no p-value below {1 / (n + 1):.3g}, so nothing is ever an alarm at {level:g}; "
            f"at least {needed(level)} are needed: bring more validation rows, or raise the level"
        )


def least_alarms(n: int, m: int, fdr: float) -> int:
    """How many of m rows must look stranger than all n calibration rows before the first alarm can be raised: k with 1 / (n + 1) <= fdr k / m."""
    return max(1, math.ceil(m / (fdr * (n + 1)) - 1e-9))
