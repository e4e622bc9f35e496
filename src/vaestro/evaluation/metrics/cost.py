"""What a model took to make."""

from collections.abc import Callable

from vaestro.errors import UsageError
from vaestro.evaluation.metrics.base import METRICS, Direction, Metric, Need, Score
from vaestro.evaluation.metrics.subject import Cost, Subject


def _read(read: Callable[[Cost], float]) -> Callable[[Subject], Score]:
    def function(subject: Subject) -> Score:
        if subject.cost is None:
            raise UsageError(f"nobody said what {subject.name} took to train; give Subject(cost=Cost(parameters, seconds, steps))")
        return Score(float(read(subject.cost)), 0.0)

    return function


for name, title, unit, protocol, read in (
    ("parameters", "parameters", "numbers", "trained numbers of the model, each counted once", lambda c: c.parameters),
    ("seconds", "training time", "seconds", "wall clock of training alone, on the machine that the result names", lambda c: c.seconds),
    ("steps", "training steps", "steps", "optimiser steps of the first player", lambda c: c.steps),
):
    METRICS.add(name, Metric(name, title, unit, Direction.LOWER, protocol, "counted", _read(read), frozenset({Need.COST})))
