"""Rows as classes."""

import torch
from jaxtyping import Float
from torch import Tensor

from vaestro.models import classify as open_classify
from vaestro.training.runs import Run


@torch.no_grad()
def classify(run: Run, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b classes"]:
    """q(y | x), the probability of each class, [b, classes], for rows x [b, *shape] in unit values; raises UsageError for a model that has no classes."""
    probabilities: Tensor = open_classify(run.model, x).probs  # type: ignore[attr-defined]
    return probabilities
