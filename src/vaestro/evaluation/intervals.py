"""How sure a number is: intervals over rows and seeds, paired differences, and ranks that do not overstate them."""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy import stats

from vaestro.errors import UsageError

Array: TypeAlias = np.ndarray
Numbers: TypeAlias = np.ndarray | np.float64  # where all axes are summed, NumPy returns a scalar
LEVEL = 0.95
SEEDS_FOR_A_RECIPE = 3
NEAR = 1e-6  # of their own squares: pairs of vectors no further apart are subtracted
JACKKNIFE_DF = 9  # set metrics carry errors of ten left-out groups


@dataclass(frozen=True)
class Interval:
    """A mean with its t-interval."""

    mean: float
    low: float
    high: float
    error: float  # standard error
    df: float  # degrees of freedom (Satterthwaite)
    seeds: int
    these_runs_only: bool  # fewer than three seeds: nothing is said of the recipe
    level: float = LEVEL


@dataclass(frozen=True)
class Estimate:
    """Means with squared standard errors and degrees of freedom, arrays of one shape: what intervals and tests are made of."""

    mean: Array
    variance: Array
    df: Array
    seeds: int

    @property
    def error(self) -> Array:
        """The standard errors."""
        return np.asarray(np.sqrt(self.variance))

    def half_width(self, level: float = LEVEL) -> Array:
        """Half the width of the t-interval at `level`."""
        return np.asarray(stats.t.ppf(0.5 + level / 2, self.df) * self.error)

    def covers(self, truth: float, level: float = LEVEL) -> Array:
        """Where the interval holds `truth`."""
        return np.asarray(np.abs(self.mean - truth) <= self.half_width(level))

    def interval(self, level: float = LEVEL) -> Interval:
        """The single interval of a scalar estimate."""
        mean, half = float(self.mean), float(self.half_width(level))
        return Interval(mean, mean - half, mean + half, float(self.error), float(self.df), self.seeds, self.seeds < SEEDS_FOR_A_RECIPE, level)


def _finite(what: str, *arrays: Array) -> None:
    if not all(np.isfinite(a).all() for a in arrays):
        raise UsageError(f"some {what} are not finite, so they have no interval; leave that entry out or mend it")


def _estimate(mean: Numbers, variance: Numbers, df: Numbers, seeds: int) -> Estimate:
    return Estimate(np.asarray(mean), np.asarray(variance), np.asarray(df), seeds)


def _crossed(seed: Numbers, row: Numbers, rest: Numbers, sizes: tuple[int, int]) -> tuple[Numbers, Numbers]:
    """Variance of the grand mean and its degrees of freedom, from sums of squares of seed means, row means and the rest."""
    s, r = sizes
    df_s, df_r = s - 1, r - 1
    ms_s, ms_r, ms_e = seed / df_s, row / df_r, rest / (df_s * df_r)
    total = ms_s + np.maximum(ms_r - ms_e, 0.0)
    parts = ms_s**2 / df_s + ms_r**2 / df_r + ms_e**2 / (df_s * df_r)
    df = np.maximum(np.divide(total**2, parts, out=np.full_like(total, df_s, dtype=float), where=parts > 0), df_s)
    return total / (s * r), df


def recipe(scores: Array) -> Estimate:
    """The mean of per-row scores [..., seeds, rows], both seeds and rows being a sample of what might have been.

    Two-way crossed random effects: Var(mean) = (MS_seed + MS_row - MS_rest) / (S R), a negative row part counting as zero, with Satterthwaite's
    degrees of freedom (Satterthwaite 1946; Searle, Casella & McCulloch 1992, section 4.3), at least S - 1.
    With fewer than three seeds the runs are taken as they are and only rows vary (`these runs only`).
    Raises UsageError for fewer than 2 rows or scores that are not finite.
    """
    scores = np.asarray(scores, dtype=np.float64)
    _finite("scores", scores)
    s, r = scores.shape[-2:]
    if r < 2:
        raise UsageError(f"an interval over rows needs at least 2 rows, and there are {r}; score more rows")
    mean = scores.mean((-1, -2))
    row_means = scores.mean(-2)
    if s < SEEDS_FOR_A_RECIPE:
        return _estimate(mean, row_means.var(-1, ddof=1) / r, np.full(mean.shape, r - 1.0), s)
    centred = scores - mean[..., None, None]
    row = s * np.square(centred.mean(-2)).sum(-1)
    seed = r * np.square(centred.mean(-1)).sum(-1)
    rest = np.maximum(np.square(centred).sum((-1, -2)) - row - seed, 0.0)
    return _estimate(mean, *_crossed(seed, row, rest, (s, r)), s)


def of_rows(scores: Array, level: float = LEVEL) -> Interval:
    """One run: mean -+ t over its rows [rows]. It speaks of these weights alone."""
    return recipe(np.asarray(scores)[None]).interval(level)


def of_recipe(scores: Array, level: float = LEVEL) -> Interval:
    """A recipe: per-row scores [seeds, rows] of runs that differ in their seed; see `recipe`."""
    return recipe(scores).interval(level)


def values(scores: Array, errors: Array) -> Estimate:
    """The mean of one value a seed [..., seeds] with its own standard error (set metrics).

    Var(mean) = s^2 / S + mean(error^2): the errors are taken as shared by all seeds, as that of the data rows is, which is conservative.
    An error of NaN is not known: with three seeds or more the others speak for it, and where none is known the seeds alone; with fewer nothing does, so
    that the variance is infinite.
    """
    scores, errors = np.asarray(scores, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    _finite("values", scores, np.where(np.isnan(errors), 0.0, errors))
    s = scores.shape[-1]
    known = ~np.isnan(errors)
    squares = np.square(np.where(known, errors, 0.0)).sum(-1)
    shared = np.divide(squares, known.sum(-1), out=np.full(squares.shape, np.nan), where=known.any(-1))  # of the seeds whose error is known
    mean = scores.mean(-1)
    if s < SEEDS_FOR_A_RECIPE:
        return _estimate(mean, np.where(known.all(-1), shared, np.inf), np.full(mean.shape, float(JACKKNIFE_DF)), s)
    shared = np.where(np.isnan(shared), 0.0, shared)
    own = scores.var(-1, ddof=1) / s
    parts = own**2 / (s - 1) + shared**2 / JACKKNIFE_DF
    df = np.divide((own + shared) ** 2, parts, out=np.full(mean.shape, float(s - 1)), where=parts > 0)
    return _estimate(mean, own + shared, np.maximum(df, s - 1), s)


def of_values(scores: Array, errors: Array, level: float = LEVEL) -> Interval:
    """A recipe's set metric: one value and error a seed, [seeds]; see `values`."""
    return values(scores, errors).interval(level)


def pairwise(scores: Array) -> Estimate:
    """All paired differences of entries [entries, seeds, rows] on the same seeds and rows, [i, j] = i - j, each estimated as by `recipe`.

    Differences need only inner products of row means, seed means and scores, so that 50 entries of 100,000 rows take a second.
    """
    scores = np.asarray(scores, dtype=np.float64)
    _finite("scores", scores)
    n, s, r = scores.shape
    if r < 2:
        raise UsageError(f"an interval over rows needs at least 2 rows, and there are {r}; score more rows")
    means = scores.mean((-1, -2))
    usual = scores[np.argsort(scores.var((-1, -2)))[n // 2]]  # not the mean of all: one that has gone astray would leave its size in every other
    centred = scores - usual  # the common part cancels in differences: taking it away first keeps small ones exact
    centred -= centred.mean((-1, -2))[:, None, None]
    row = s * _squares(centred.mean(1))
    difference = means[:, None] - means
    if s < SEEDS_FOR_A_RECIPE:
        return _estimate(difference, row / s / (r - 1) / r, np.full((n, n), r - 1.0), s)
    seed = r * _squares(centred.mean(2))
    rest = np.maximum(_squares(centred.reshape(n, -1)) - row - seed, 0.0)
    return _estimate(difference, *_crossed(seed, row, rest, (s, r)), s)


def _squares(vectors: Array) -> Array:
    """Squared distances of all pairs of vectors [n, d], [n, n], by one product; of near pairs, where it would leave rounding alone, by their difference."""
    gram = vectors @ vectors.T
    own = np.diag(gram)
    both = own[:, None] + own
    found = np.asarray(both - 2 * gram)
    for i, j in zip(*np.nonzero(np.triu(found < NEAR * both, 1)), strict=True):
        found[i, j] = found[j, i] = np.square(vectors[i] - vectors[j]).sum()
    np.fill_diagonal(found, 0.0)
    return found


def pairwise_values(scores: Array, errors: Array) -> Estimate:
    """All paired differences of one value a seed [entries, seeds] with standard errors, [i, j] = i - j; errors of a pair add in squares."""
    scores, errors = np.asarray(scores, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    return values(scores[:, None] - scores, np.hypot(errors[:, None], errors))


def p_values(differences: Estimate) -> Array:
    """Two-sided p of each difference against none; 1 for exact equality."""
    error = differences.error
    apart = differences.mean != 0
    t = np.divide(np.abs(differences.mean), error, out=np.where(apart, math.inf, 0.0), where=error > 0)
    return np.asarray(2 * stats.t.sf(t, differences.df))


def holm(p: Array) -> Array:
    """Holm's adjusted p-values of a family [m] (Holm 1979): the largest so far of (m - i) p_(i), at most 1."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(np.asarray(p)[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


@dataclass(frozen=True)
class Ranks:
    """Places of entries: `rank` = 1 + the number of entries that are significantly better; low and high are what the data leave open."""

    rank: Array  # [entries], 1 is best
    low: Array  # 1 + significantly better
    high: Array  # entries - significantly worse
    better: Array  # [i, j]: entry i is significantly better than entry j
    p: Array  # [i, j], adjusted by Holm over all pairs
    these_runs_only: bool
    detectable: float  # the smallest difference that would be found with probability 0.8, median over pairs; NaN for one entry


def ranks(losses: Estimate, level: float = LEVEL, power: float = 0.8) -> Ranks:
    """Ranks from all paired differences of losses (less is better), tested together with Holm's correction.

    Being indistinguishable is not transitive, hence an interval: rank from 1 + significantly better to n - significantly worse.
    """
    n = len(losses.mean)
    above = np.triu_indices(n, 1)
    p = np.ones((n, n))
    p[above] = holm(p_values(losses)[above])
    p = np.minimum(p, p.T)
    better = (p < 1 - level) & (losses.mean < 0)
    low = 1 + better.sum(0)
    return Ranks(low, low, n - better.sum(1), better, p, losses.seeds < SEEDS_FOR_A_RECIPE, detectable(losses, level, power))


def detectable(losses: Estimate, level: float = LEVEL, power: float = 0.8) -> float:
    """The smallest difference that these rows and seeds could find, in the metric's unit: median over pairs of (t_a + t_power) x standard error.

    `a` is the level of Holm's first and strictest step, (1 - level) / pairs; the approximation of Cohen 1988, section 2.5. NaN for one entry.
    """
    above = np.triu_indices(len(losses.mean), 1)
    if not len(above[0]):
        return math.nan
    df, error = losses.df[above], losses.error[above]
    strict = stats.t.isf((1 - level) / len(df) / 2, df) + stats.t.ppf(power, df)
    return float(np.median(strict * error))
