"""How many of a quantiser's codes are in use, and how evenly."""

import math

import numpy as np
import torch
from torch import Tensor

from vaestro.codes import Usage, used_in
from vaestro.errors import UsageError
from vaestro.evaluation.metrics.base import METRICS, Direction, Group, Metric, Need, Score, jackknife
from vaestro.evaluation.metrics.subject import Subject, central
from vaestro.evaluation.scope import chunked, device_of, evaluating, no_rows, seeded, slice_rows
from vaestro.seeds import forked, mix, reseed

BLOCK = 25  # rows that the jackknife keeps or leaves out together
GROUPS = 10
CODES = "use of codes"  # both scores, made at the first asking for either


def _counts(subject: Subject) -> Tensor:
    """How often some rows at a time use each code, [blocks, books, K]; raises UsageError for a model without codes and where there are no rows."""
    found = []
    with forked(device_of(subject.model)), evaluating(subject.model):
        for number, (batch, real) in enumerate(chunked(seeded(subject.rows(), subject.seed), BLOCK)):
            reseed(mix(subject.seed, number, 9), device_of(subject.model))
            used = used_in(central(subject.model, slice_rows(batch, 0, real)))
            if used is None:
                raise UsageError(f"{subject.name} has no codes, or books of different sizes, so there is no share of codes to tell; read active_units")
            found.append(used.double().cpu())
    if not found:
        raise no_rows(subject.name)
    return torch.stack(found)


def _scores(subject: Subject) -> tuple[Score, Score]:
    """`codes_used` and `perplexity` of all rows, with errors by the jackknife over groups of rows; NaN where there are too few rows to leave some out."""
    counts = _counts(subject)

    def both(kept: np.ndarray, _: np.ndarray) -> np.ndarray:
        return np.array([float(v) for v in Usage.of(counts[kept].sum(0))])

    whole, groups = both(np.arange(len(counts)), np.zeros(0)), min(GROUPS, len(counts))
    errors = jackknife(both, len(counts), len(counts), groups, subject.seed) if groups > 1 else (math.nan, math.nan)
    share, perplexity = (Score(float(v), float(e)) for v, e in zip(whole, errors, strict=True))
    return share, perplexity


def codes_used(subject: Subject) -> Score:
    """The share of all codes that the rows use at least once, over all books of a quantiser; raises UsageError for a model without codes."""
    return subject.once(CODES, lambda: _scores(subject))[0]


def perplexity(subject: Subject) -> Score:
    """exp(-sum_k f_k ln f_k), the mean over books, with f_k the share of places that hold code k: 1 for a single code, K for K even ones.

    Raises UsageError for a model without codes.
    """
    return subject.once(CODES, lambda: _scores(subject))[1]


METRICS.enter(
    Metric(
        "codes_used", "codes in use", "share of codes", Direction.HIGHER,
        "codes that the rows scored use at least once, of all; of codes that are drawn, once on average",
        "van den Oord et al. 2017; Lancucki et al. 2020, section 3", codes_used, frozenset({Need.LATENTS}), group=Group.LATENTS,
    ),
    Metric(
        "perplexity", "perplexity of the codes", "codes", Direction.HIGHER,
        "exp of the entropy of the codes' frequencies over the rows scored; the mean of several books",
        "van den Oord et al. 2017", perplexity, frozenset({Need.LATENTS}), group=Group.LATENTS,
    ),
)  # fmt: skip
