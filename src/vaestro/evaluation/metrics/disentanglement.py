"""Metrics of latents against the known factors that made the data."""

import math
from typing import NamedTuple

import numpy as np

from vaestro.data.schema import Category, Schema
from vaestro.data.store import Split
from vaestro.errors import UsageError
from vaestro.evaluation.metrics.base import METRICS, Direction, Group, Metric, Need, Score, jackknife
from vaestro.evaluation.metrics.factors import gaps
from vaestro.evaluation.metrics.subject import Subject

BINS = 20


class Gap(NamedTuple):
    """What latents tell of factors; everything in nats."""

    information: np.ndarray  # [latents, factors], I(z_j; v_k) of the binned latents
    entropy: np.ndarray  # [factors], H(v_k)

    @property
    def each(self) -> np.ndarray:
        """For each factor that varies, the gap between the two latents that tell most of it, over its entropy; with one latent the second tells 0."""
        varies = self.entropy > 0
        return np.asarray(gaps(self.information)[varies] / self.entropy[varies])


def binned(codes: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Codes [n, latents] as numbers of `bins` bins of equal width between the least and the largest code of each latent, whole numbers [n, latents]."""
    low, high = codes.min(0), codes.max(0)
    width = np.where(high > low, high - low, 1.0)
    return np.asarray(np.minimum((codes - low) / width * bins, bins - 1).astype(np.int64))


def entropy(counts: np.ndarray) -> float:
    """-sum p ln p of how often each value was seen, in nats: the plug-in estimate."""
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


def gap(codes: np.ndarray, factors: np.ndarray, bins: int = BINS) -> Gap:
    """What codes [n, latents] tell of factors [n, factors], which are whole numbers from 0: I(z; v) = H(z) + H(v) - H(z, v), plug-in estimates, nats.

    Raises UsageError for fewer than two bins, unequal numbers of rows, or no rows.
    """
    if bins < 2 or len(codes) != len(factors) or not len(codes):
        raise UsageError(f"a gap of information needs two bins or more and equally many codes and factors, not {bins}, {len(codes)} and {len(factors)}")
    numbers, levels = binned(codes, bins), factors.astype(np.int64)
    own = [entropy(np.bincount(z)) for z in numbers.T]
    known = [entropy(np.bincount(v)) for v in levels.T]
    both = [[entropy(np.bincount(v * bins + z)) for v in levels.T] for z in numbers.T]
    information = np.array(own)[:, None] + np.array(known) - np.array(both).reshape(len(own), len(known))
    return Gap(np.maximum(information, 0.0), np.array(known))


def mig(subject: Subject) -> Score:
    """The mutual information gap of the posterior's means: 1/K sum_k (I(z_(1); v_k) - I(z_(2); v_k)) / H(v_k), with the two latents that tell most of factor k.

    Its error leaves out one tenth of the rows at a time. Raises UsageError where no factors are known, or none varies.
    """
    if not subject.factors:
        raise UsageError(f"{subject.name} was given no factors to compare its latents with; use data with known factors, such as dsprites")
    codes, factors = subject.reconstructions.means, np.stack([np.asarray(v) for v in subject.factors.values()], 1)
    found = gap(codes, factors).each
    if not len(found):
        raise UsageError(f"no factor varies over the rows that {subject.name} is scored on; give more rows")

    def without(kept: np.ndarray, _: np.ndarray) -> np.ndarray:
        each = gap(codes[kept], factors[kept]).each
        return np.array([each.mean() if len(each) else math.nan])

    return Score(float(found.mean()), float(jackknife(without, len(codes), len(codes), seed=subject.seed)[0]))


def known_factors(split: Split, schema: Schema, index: np.ndarray) -> dict[str, np.ndarray]:
    """The factors of the rows `index`: every field beside x that is one category, where there are two or more; a single label is no factor."""
    names = [f.name for f in schema if f.name != "x" and isinstance(f.kind, Category) and f.shape == ()]
    return {name: np.asarray(split.arrays[name])[index] for name in names} if len(names) > 1 else {}


METRICS.enter(
    Metric(
        "mig", "mutual information gap", "share of a factor's entropy", Direction.HIGHER,
        f"posterior means in {BINS} bins of equal width, on the rows scored; a factor of more than {BINS} levels cannot reach 1",
        "Chen et al. 2018, equation 6; bins as Locatello et al. 2019", mig, frozenset({Need.LATENTS, Need.FACTORS}), group=Group.FACTORS,
    ),
)  # fmt: skip
