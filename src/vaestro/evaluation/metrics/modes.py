"""Which modes of the data a model's samples reach: mode collapse, which is a fault of samples, as posterior collapse is one of latents."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from vaestro.core import content
from vaestro.data import gaussian_grid
from vaestro.errors import UsageError
from vaestro.evaluation.judge import Features
from vaestro.evaluation.metrics.base import METRICS, Direction, Group, Metric, Need, Score, jackknife
from vaestro.evaluation.metrics.histograms import caught, imbalance, total_variation
from vaestro.evaluation.metrics.subject import Subject
from vaestro.evaluation.scope import seeded


@runtime_checkable
class Classifier(Features, Protocol):
    """Features by which rows fall into classes: a judge, or the known modes of drawn data."""

    modes: int

    def classes(self, features: Tensor) -> Tensor:
        """Features [n, d] to classes 0 .. modes - 1, or -1 for a row of no class, [n]."""


class Grid:
    """The modes of the Gaussian grid: a point belongs to the nearest centre if it is within three deviations of it."""

    name = "grid"
    modes = gaussian_grid.MODES

    def features(self, images: Tensor) -> Tensor:
        """The points [n, 2] themselves."""
        return images.float()

    def classes(self, features: Tensor) -> Tensor:
        """The mode of each point, or -1."""
        return torch.from_numpy(gaussian_grid.modes(features.cpu().numpy()))


KNOWN: dict[str, Classifier] = {gaussian_grid.NAME: Grid()}  # what tells the modes of data apart, by their name; for the others their judge does


class Found(NamedTuple):
    """The classes of data rows [n] and of generated rows [n], -1 for a row of none, and how many classes there are."""

    real: np.ndarray
    fake: np.ndarray
    modes: int


def found(subject: Subject) -> Found:
    """The class of each data row and of as many generated rows; raises UsageError where nothing knows any."""
    known = None if subject.held is None else KNOWN.get(subject.held.data.name)
    pair = subject.pair("judge") if known is None else subject.pair_by(known)
    network = subject.features["judge"] if known is None else known
    if not isinstance(network, Classifier):
        raise UsageError(f"the features {network.name!r} know no classes, so no modes can be counted; give a judge network")
    real, fake = (network.classes(side).numpy() for side in pair)
    return Found(real, fake, network.modes)


def _of_both(subject: Subject, statistic: Callable[[np.ndarray, np.ndarray, int], float]) -> Score:
    real, fake, modes = subject.once("modes", lambda: found(subject))
    errors = jackknife(lambda i, j: np.array([statistic(real[i], fake[j], modes)]), len(real), len(fake), seed=subject.seed)
    return Score(statistic(real, fake, modes), float(errors[0]))


def modes_caught(subject: Subject) -> Score:
    """How many modes hold at least one generated row."""
    return _of_both(subject, lambda _real, fake, _modes: float(caught(fake)))


def mode_balance(subject: Subject) -> Score:
    """KL of the modes' shares among generated rows to equal shares, in nats; rows of no mode are left out. Raises UsageError where all are of none."""
    score = _of_both(subject, lambda _real, fake, modes: imbalance(fake, modes))
    if np.isnan(score.value):
        raise UsageError(f"no generated row of {subject.name} lies in any mode, so there is no balance to speak of; see modes_caught")
    return score


def on_modes(subject: Subject) -> Score:
    """The share of generated rows that lie in a mode."""
    fake = subject.once("modes", lambda: found(subject)).fake
    share = float((fake >= 0).mean())
    return Score(share, float(np.sqrt(share * (1 - share) / len(fake))))


def class_histogram(subject: Subject) -> Score:
    """Half the sum over classes of how far their shares among generated rows and data rows are apart."""
    return _of_both(subject, total_variation)


DENSITIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {gaussian_grid.NAME: gaussian_grid.log_density}  # data whose law is known, by name


def excess_nats(subject: Subject) -> Score:
    """How many more nats a row costs than under the density that the data were drawn from, row by row: an estimate of KL(data || model).

    Raises UsageError where that density is not known, or the model is none.
    """
    name = subject.beside.data.name
    if name not in DENSITIES:
        raise UsageError(f"the density of data {name!r} is not known, so no excess over it can be said; known is that of {', '.join(DENSITIES)}")
    rows = torch.cat([content(b[subject.field.name]).cpu() for b in seeded(subject.rows(), subject.seed)])
    return Score.of_rows(DENSITIES[name](rows.numpy()) - subject.likelihood.log_px, floor=0.0)


RULE = "as many generated rows as data rows; a mode is caught by one row: within 3 deviations on gaussian-grid (of 25), else by the judge's class"
METRICS.enter(
    Metric(
        "modes_caught", "modes that samples reach", "modes", Direction.HIGHER, RULE, "Srivastava et al. 2017, section 4",
        modes_caught, frozenset(), False, Group.MODES,
    ),
    Metric(
        "mode_balance", "imbalance of the modes", "nats", Direction.LOWER, f"KL to equal shares; of n fair draws about (modes - 1) / 2n; {RULE}",
        "Srivastava et al. 2017, section 4", mode_balance, frozenset(), False, Group.MODES,
    ),
    Metric("on_modes", "samples that lie on a mode", "share", Direction.HIGHER, RULE, "Lin et al. 2018, section 4", on_modes, frozenset(), False, Group.MODES),
    Metric(
        "class_histogram", "class histogram of samples to that of data", "share", Direction.LOWER,
        "total variation, both sides classified alike; of two fair sets of n about sqrt(classes / (pi n))", "Levin et al. 2009, proposition 4.2",
        class_histogram, frozenset(), False, Group.MODES,
    ),
    Metric(
        "excess_nats", "nats above the data's own density", "nats", Direction.LOWER, "row by row, against the density that the rows were drawn from",
        "Cover & Thomas 2006, equation 2.26", excess_nats, frozenset({Need.DENSITY, Need.SPLITS}), False, Group.DENSITY,
    ),
)  # fmt: skip
