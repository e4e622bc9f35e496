"""A handful of labelled anomalies: which scores find them, alone or weighed together."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaestro.errors import UsageError, VaestroError
from vaestro.evaluation.discrimination import auroc
from vaestro.evaluation.metrics.subject import Subject
from vaestro.evaluation.outliers import OUTLIER_SCORES, strangeness
from vaestro.training.runs import Run
from vaestro.uses.detect.choice import DEAR
from vaestro.uses.detect.scores import Scorer, rows_of, subject
from vaestro.uses.evaluate import Protocol

FOLDS = 5
ENOUGH = 5  # labelled anomalies from which scores are weighed together


class Labelled(NamedTuple):
    """Rows of which somebody said what they are."""

    rows: Any  # as `rows_of` takes them
    anomalous: Any  # truths [n]


def labelled_of(given: Any) -> Labelled | None:
    """Labelled rows from a pair of rows and labels, or none of nothing; raises UsageError for anything else."""
    if given is None or isinstance(given, Labelled):
        return given
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise UsageError(f"labelled rows are a pair, and a {type(given).__name__} is none; give (rows, labels), a label of 0 or 1 for each row")
    return Labelled(*given)


class Learnt(NamedTuple):
    """What the labels led to, and why, in a sentence."""

    scorer: Scorer
    why: str


def truths(run: Run, labelled: Labelled) -> tuple[Tensor, np.ndarray]:
    """The labelled rows and whether each is an anomaly, bool [n]; raises UsageError for other numbers, unequal lengths, and no anomaly at all."""
    x, _ = rows_of(run, labelled.rows)
    said = np.asarray(labelled.anomalous)
    if said.shape != (len(x),):
        raise UsageError(f"{len(x)} labelled rows have labels shaped {said.shape}; give one truth a row")
    if not np.isin(said, (0, 1)).all():
        raise UsageError("labels say whether a row is an anomaly, so they are 0 or 1; leave rows of which nobody knows out")
    if not said.any():
        raise UsageError("no labelled row is an anomaly, so nothing can be learnt from the labels; give one or more, or no labels")
    return x, said.astype(bool)


def learn(run: Run, good: Tensor, labelled: Labelled, usual: Subject, protocol: Protocol) -> Learnt:
    """The scores that best tell labelled anomalies from the labelled usual rows and `good`, validation rows that serve nothing else.

    Up to four anomalies choose the single score with the greatest AUROC. Five or more also try all scores together: a logistic regression (scikit-learn,
    unit ridge, balanced classes) on asinh((s - median) / spread), taken if its AUROC in five folds is greater than that of every single score.
    The calibration rows have no part in it, so p-values stay exact. Raises UsageError as `truths` does, and where no score can be computed.
    """
    x, anomalous = truths(run, labelled)
    rows, n = subject(run, torch.cat([good, x]), protocol), len(good)
    each: dict[str, np.ndarray] = {}
    reason = ""
    for name in (n for n in OUTLIER_SCORES if n not in DEAR):
        try:
            each[name] = strangeness(name, rows, usual)
        except VaestroError as refusal:
            reason = str(refusal)
    if not each:
        raise UsageError(f"no score of strangeness can be computed of {run.name}: {reason}")
    truth = np.concatenate([np.zeros(n, bool), anomalous])
    alone = {name: _area(s, truth) for name, s in each.items()}
    best = max(alone, key=lambda name: alone[name])
    known, others = int(truth.sum()), int((~truth).sum())
    single = Learnt(Scorer((best,)), f"Score: {best}, the best on {known} labelled anomalies (AUROC {alone[best]:.3f} beside {others} good rows).")
    if known < ENOUGH:
        return single
    together, area = _weighed(each, truth, n)
    if area <= alone[best]:
        return single
    why = f"Score: {len(each)} scores weighed by {known} labelled anomalies (AUROC {area:.3f} in {FOLDS} folds; best alone {alone[best]:.3f})."
    return Learnt(together, why)


def _area(scores: np.ndarray, truth: np.ndarray) -> float:
    inside, outside = scores[~truth], scores[truth]
    return auroc(inside, np.repeat(outside, 2) if len(outside) == 1 else outside).value  # one row alone has a place, though no error


def _weighed(each: Mapping[str, np.ndarray], truth: np.ndarray, good: int) -> tuple[Scorer, float]:
    """All scores with the weights of a logistic regression, and its mean AUROC over folds."""
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold, cross_val_score
    except ImportError:
        raise UsageError("labels are weighed with scikit-learn, which is not installed; run `pip install 'vaestro[science]'`") from None
    values = np.stack(list(each.values()), 1)
    low, middle, high = np.quantile(values[:good], [0.25, 0.5, 0.75], axis=0)
    scales = np.where(high > low, high - low, np.maximum(np.abs(middle), 1.0))
    unit = Scorer(tuple(each), (1.0,) * len(each), tuple(middle.tolist()), tuple(scales.tolist()))
    features = unit.features(values)
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    folds = StratifiedKFold(min(FOLDS, int(truth.sum())), shuffle=True, random_state=0)
    area = float(cross_val_score(model, features, truth, cv=folds, scoring="roc_auc").mean())
    weights = model.fit(features, truth).coef_[0]
    return Scorer(unit.names, tuple(weights.tolist()), unit.centres, unit.scales), area
