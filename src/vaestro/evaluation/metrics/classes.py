"""Metrics of models that tell classes apart."""

import numpy as np

from vaestro.core import content
from vaestro.errors import UsageError
from vaestro.evaluation.metrics.base import METRICS, Direction, Group, Metric, Need, Score
from vaestro.evaluation.metrics.subject import Subject
from vaestro.evaluation.scope import device_of, evaluating, seeded
from vaestro.models import classify
from vaestro.seeds import forked


def classification_error(subject: Subject) -> Score:
    """The share of rows whose most likely class under q(y | x) is not their label."""
    if subject.answers is None:
        raise UsageError(f"{subject.name} was given no labels to be compared with; leave this metric out")
    wrong = []
    with forked(device_of(subject.model)), evaluating(subject.model):
        for batch in seeded(subject.answers(), subject.seed):
            rest = [v for n, v in batch.items() if n != subject.field.name]
            found = classify(subject.model, content(batch[subject.field.name])).probs.argmax(-1)  # type: ignore[attr-defined]
            wrong.append((found != content(rest[0])).double().cpu().numpy())
    return Score.of_rows(np.concatenate(wrong))


METRICS.enter(
    Metric(
        "classification_error", "classification error", "share of rows", Direction.LOWER, "rows whose most likely class under q(y | x) is not their label",
        "Kingma et al. 2014, table 1", classification_error, frozenset({Need.LABELS}), group=Group.CLASSES,
    ),
)  # fmt: skip
