"""What a score of strangeness is: a named function of a model's rows, and of training rows to know what is usual."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vaestro.errors import VaestroError
from vaestro.evaluation.likelihood import Rows
from vaestro.evaluation.metrics.subject import Subject
from vaestro.registry import Registry


@dataclass(frozen=True)
class OutlierScore:
    """A registered score of strangeness.

    `function` takes the rows to score and some training rows, both as subjects of one model, and returns a number for each row, higher = stranger.
    It raises UsageError where the model or the data cannot bear it.
    """

    name: str
    title: str
    unit: str
    protocol: str
    source: str
    function: Callable[[Subject, Subject], Rows]


OUTLIER_SCORES: Registry[OutlierScore] = Registry("score of strangeness")


def strangeness(name: str, rows: Subject, usual: Subject) -> Rows:
    """How strange each of `rows` is by the score called `name`, [n], higher = stranger; `usual` are training rows of the same model.

    Raises UsageError for an unknown name and what the score cannot bear, VaestroError where a score is not a number.
    """
    found = np.asarray(OUTLIER_SCORES[name].function(rows, usual), dtype=np.float64)
    if np.isnan(found).any():
        raise VaestroError(
            f"{name} of {rows.name} is not a number for row {int(np.isnan(found).argmax())}; its weights or this row are not finite: train it anew"
        )
    return found
