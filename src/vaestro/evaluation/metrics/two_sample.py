"""The classifier two-sample test: can generated rows be told from data rows that the classifier has not seen?"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vaestro.errors import NotFinite, UsageError
from vaestro.evaluation.metrics.manifold import distances

CHUNK = 1000
Classifier: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]  # rows [n, d], whether each is generated [n], other rows [m, d] -> what these are [m]


def nearest_vote(rows: Tensor, fake: Tensor, asked: Tensor) -> Tensor:
    """The majority among the nearest floor(sqrt(n)) rows (one more where that is even), as Lopez-Paz and Oquab use it (2017, section 5)."""
    k = int(len(rows) ** 0.5) | 1
    known = fake.double()
    votes = [known[distances(part, rows).topk(min(k, len(rows)), 1, largest=False).indices].mean(1) for part in asked.split(CHUNK)]
    return torch.cat(votes) > 0.5


def logistic(rows: Tensor, fake: Tensor, asked: Tensor) -> Tensor:
    """Logistic regression on standardised features, with a ridge of 1 on the sum of squared weights over 2 (scikit-learn's default), by L-BFGS."""
    centre, scale = rows.mean(0), rows.std(0).clamp(min=1e-12)
    x, y = (rows - centre) / scale, fake.to(rows.dtype)
    weight, bias = torch.zeros(x.shape[1], dtype=x.dtype, requires_grad=True), torch.zeros((), dtype=x.dtype, requires_grad=True)
    search = torch.optim.LBFGS([weight, bias], max_iter=200, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        value = (F.binary_cross_entropy_with_logits(x @ weight + bias, y, reduction="sum") + weight.square().sum() / 2) / len(x)
        value.backward()
        return value

    with torch.enable_grad():
        search.step(loss)
    return ((asked - centre) / scale) @ weight.detach() + bias.detach() > 0


def two_sample(real: Tensor, fake: Tensor, classifier: Classifier = nearest_vote, seed: int = 0) -> np.ndarray:
    """Whether each held-out row was told right, [2 (n // 2)] of zeros and ones: their mean is the accuracy, 1/2 in expectation for equal laws.

    A random half of either side teaches the classifier, the other half is held out; both sides are cut to the smaller one. The held-out rows are
    independent of the classifier, so the mean's binomial error is exact (Lopez-Paz & Oquab 2017, equation 2). Features [n, d], [m, d].
    Raises UsageError for fewer than 4 rows on a side, VaestroError for features that are not finite.
    """
    n = min(len(real), len(fake))
    if n < 4:
        raise UsageError(f"a classifier that is taught by one half and asked about the other needs at least 4 rows a side, and there are {n}; give more")
    if not (bool(real.isfinite().all()) and bool(fake.isfinite().all())):
        raise NotFinite("some features are not finite, so nothing can be told apart by them; look at the pictures they come from")
    rng = np.random.default_rng(seed)
    order_real, order_fake = (torch.from_numpy(rng.permutation(len(side))[:n]) for side in (real, fake))
    a, b = real.double()[order_real], fake.double()[order_fake]
    centre = torch.cat([a, b]).mean(0)  # centred numbers lose the least to rounding
    half = n - n // 2
    taught, asked = torch.cat([a[:half], b[:half]]) - centre, torch.cat([a[half:], b[half:]]) - centre
    said = classifier(taught, torch.arange(2 * half) >= half, asked)
    return (said == (torch.arange(len(asked)) >= n - half)).double().numpy()
