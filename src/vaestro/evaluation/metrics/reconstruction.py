"""Metrics of reconstruction and of the latents behind it."""

import numpy as np

from vaestro.data.schema import Count, Table
from vaestro.errors import UsageError
from vaestro.evaluation.metrics.base import METRICS, Direction, Group, Metric, Need, Score
from vaestro.evaluation.metrics.subject import Subject

ACTIVE = 0.01
THROUGH = "the likelihood's mean at the posterior's mean (at one seeded draw where the posterior has none)"


def reconstruction_mse(subject: Subject) -> Score:
    """The mean squared difference of a row's numbers and their reconstruction, unit values; raises UsageError for tables, whose columns have none."""
    if isinstance(subject.field.kind, Table):
        raise UsageError(f"field {subject.field.name!r} is a table, and columns of different kinds have no squared error; read the nats of each column")
    return Score.of_rows(subject.reconstructions.squared_error)


def ratio(above: np.ndarray, below: np.ndarray) -> Score:
    """mean(above) / mean(below) over paired rows [n]; the rows are its linearisation R + (a - R b) / mean b, whose mean it is (Cochran 1977, section 6.3)."""
    value = above.mean() / below.mean()
    return Score.of_rows(value + (above - value * below) / below.mean())


def blur(subject: Subject) -> Score:
    """The power of the reconstructions at 0.25 cycles per pixel and above, over that of the data: below one is blurred, above one is noisy."""
    if isinstance(subject.field.kind, Count):
        raise UsageError(f"field {subject.field.name!r} holds counts, whose noise is most of their fine detail, so no blur can be seen; leave this metric out")
    found = subject.reconstructions
    if not len(found.high_data):
        raise UsageError(f"field {subject.field.name!r} has shape {subject.field.shape}, and blur is seen in pictures [C, H, W] only; leave this metric out")
    if not found.high_data.any():
        raise UsageError("the data rows have no power at high frequencies, so no blur can be seen; leave this metric out")
    return ratio(found.high_reconstruction, found.high_data)


def active(means: np.ndarray, threshold: float = ACTIVE) -> np.ndarray:
    """Which columns of posterior means [n, latents] move with the data: Var_x(E_q[z]) > 0.01 (Burda et al. 2016, section 5.2), bool [latents]."""
    return np.asarray(means.var(0) > threshold)


def active_units(subject: Subject) -> Score:
    """The number of latents whose posterior mean moves with the data; the error is that of resampled rows."""
    means = subject.reconstructions.means
    rng = np.random.default_rng(subject.seed)
    n = len(means)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=200).astype(np.float64)
    centred = means - means.mean(0)
    variances = counts @ np.square(centred) / n - np.square(counts @ centred / n)
    return Score(float(active(means).sum()), float((variances > ACTIVE).sum(1).std(ddof=1)))


METRICS.enter(
    Metric(
        "reconstruction_mse", "reconstruction error", "squared unit values", Direction.LOWER, f"per number; {THROUGH}",
        "Kingma & Welling 2014", reconstruction_mse, frozenset({Need.LATENTS}), group=Group.RECONSTRUCTION,
    ),
    Metric(
        "blur", "sharpness of reconstructions", "ratio", Direction.ONE, f"power at 0.25 cycles per pixel and above, over the data's; {THROUGH}",
        "Durall et al. 2020, section 3 (radial spectrum)", blur, frozenset({Need.LATENTS, Need.PICTURES}), group=Group.RECONSTRUCTION,
    ),
    Metric(
        "active_units", "active latents", "latents", Direction.HIGHER, "latents with Var_x(E_q[z]) > 0.01 over the rows scored",
        "Burda et al. 2016, section 5.2", active_units, frozenset({Need.LATENTS}), group=Group.LATENTS,
    ),
)  # fmt: skip
