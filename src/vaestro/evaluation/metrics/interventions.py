"""What changes in the latents while one factor is held: the scores of beta-VAE and FactorVAE, on rows grouped by factor."""

from collections.abc import Callable

import numpy as np

from vaestro.errors import UsageError
from vaestro.evaluation.metrics.base import METRICS, Direction, Group, Metric, Need, Score, jackknife
from vaestro.evaluation.metrics.encodings import require_learners
from vaestro.evaluation.metrics.factors import Made, halves, made
from vaestro.evaluation.metrics.probes import linear, standardised
from vaestro.evaluation.metrics.reconstruction import active
from vaestro.evaluation.metrics.subject import Subject

TOGETHER = 64  # pairs, or rows, that share a factor in one point
POINTS = 10_000  # that a classifier learns from, and as many that it is judged on


def _sorted(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows sorted by level, and of each place in that order where its level starts and how many rows it has."""
    order = np.argsort(levels, kind="stable")
    _, place, count = np.unique(levels[order], return_index=True, return_counts=True)
    return order, place.repeat(count), count.repeat(count)


def differences(part: Made, points: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Mean |z - z'| over 64 pairs of rows that share one factor, [points, latents], and which factor that is, [points] (Higgins et al. 2017, section 3).

    Raises UsageError where fewer than 64 rows share a value of some factor with another row.
    """
    found, which = [], rng.integers(len(part.names), size=points)
    for k, name in enumerate(part.names):
        order, start, count = _sorted(part.factors[:, k])
        able = np.flatnonzero(count > 1)
        if len(able) < TOGETHER:
            needed = max(8 * part.levels[k], 4 * TOGETHER)
            raise UsageError(f"of {name!r}, {len(able)} rows share their value with another and {TOGETHER} are needed; score at least {needed:,} rows")
        first = rng.choice(able, (int((which == k).sum()), TOGETHER))
        step = 1 + (rng.random(first.shape) * (count[first] - 1)).astype(np.int64)
        second = start[first] + (first - start[first] + step) % count[first]
        found.append(np.abs(part.codes[order[first]] - part.codes[order[second]]).mean(1))
    return np.concatenate(found), np.sort(which)


def held_still(part: Made, points: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Which latent varies least, over its variance among all rows, in 64 rows that share one factor, [points], and which factor (Kim & Mnih 2018, section 4).

    Only values of a factor that 64 rows have are asked; raises UsageError where a factor has fewer than two of them.
    """
    scale, still, which = part.codes.std(0), [], rng.integers(len(part.names), size=points)
    for k, name in enumerate(part.names):
        groups = [rows for level in np.unique(part.factors[:, k]) if len(rows := np.flatnonzero(part.factors[:, k] == level)) >= TOGETHER]
        if len(groups) < 2:
            needed = 2 * TOGETHER * part.levels[k]
            raise UsageError(f"{len(groups)} values of {name!r} are shared by {TOGETHER} rows of a half, and two are needed; score about {needed:,} rows")
        asked = rng.integers(len(groups), size=int((which == k).sum()))
        for g, rows in enumerate(groups):
            chosen = rows[rng.random((int((asked == g).sum()), len(rows))).argpartition(TOGETHER - 1)[:, :TOGETHER]]
            still.append((part.codes[chosen] / scale).var(1).argmin(1) if len(scale) else np.zeros(len(chosen), np.int64))
    return np.concatenate(still), np.sort(which)


def beta_vae(found: Made, seed: int = 0) -> float:
    """How often a linear classifier tells from `differences` which factor was held: 1 / factors is chance. It learns on one half of the rows."""
    rng = np.random.default_rng(seed)
    (x, y), (test, truth) = (differences(found.take(rows), POINTS, rng) for rows in halves(len(found.codes), seed))
    train, test = standardised(x, test)
    return float((linear(train, y, test) == truth).mean())


def factor_vae(found: Made, seed: int = 0) -> float:
    """How often the latent that was held stillest names the factor that was held, each latent standing for the factor it was held by most in one half.

    1 / factors is chance. Latents that do not move with the data (`active`) are left out, as in the paper.
    """
    rng, kept = np.random.default_rng(seed), found._replace(codes=found.codes[:, active(found.codes)])
    (still, which), (test, truth) = (held_still(kept.take(rows), POINTS, rng) for rows in halves(len(found.codes), seed))
    votes = np.zeros((max(1, kept.codes.shape[1]), len(found.names)), np.int64)
    np.add.at(votes, (still, which), 1)
    return float((votes.argmax(1)[test] == truth).mean())


def scored(subject: Subject, value: Callable[[Made, int], float]) -> Score:
    """A measure of latents beside factors, with the error of leaving out a tenth of the rows at a time."""
    found, seed = made(subject), subject.seed
    error = jackknife(lambda kept, _: np.array([value(found.take(kept), seed)]), len(found.codes), len(found.codes), seed=seed)[0]
    return Score(value(found, seed), float(error))


def beta_vae_score(subject: Subject) -> Score:
    """`beta_vae` of the posterior means of the scored rows."""
    require_learners()
    return scored(subject, beta_vae)


def factor_vae_score(subject: Subject) -> Score:
    """`factor_vae` of the posterior means of the scored rows."""
    return scored(subject, factor_vae)


ON_ROWS = f"on pairs and groups of {TOGETHER} among the rows scored, learnt on one half and judged on the other; chance is 1 / factors"
METRICS.enter(
    Metric(
        "beta_vae_score", "held factor told from differences", "share", Direction.HIGHER, f"logistic regression, {ON_ROWS}", "Higgins et al. 2017, section 3",
        beta_vae_score, frozenset({Need.LATENTS, Need.FACTORS}), group=Group.FACTORS,
    ),
    Metric(
        "factor_vae_score", "held factor told from the stillest latent", "share", Direction.HIGHER, f"majority vote, {ON_ROWS}", "Kim & Mnih 2018, section 4",
        factor_vae_score, frozenset({Need.LATENTS, Need.FACTORS}), group=Group.FACTORS,
    ),
)  # fmt: skip
