"""Rows as classes: by a model that has classes, or by a probe that learns from labels, few or many, on the latents."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vaestro.core import content
from vaestro.errors import UsageError
from vaestro.evaluation.metrics.encodings import TRAINING, require_learners
from vaestro.evaluation.metrics.probes import NEIGHBOURS, few
from vaestro.evaluation.scope import device_of, evaluating
from vaestro.evaluation.sure import Sure, left_out, mean, shares, within
from vaestro.models import classify as open_classify
from vaestro.models import conditions_of
from vaestro.progress import tell
from vaestro.registry import Registry
from vaestro.training.finding import by_name
from vaestro.training.runs import Run
from vaestro.uses.embed import codes, levelled
from vaestro.uses.rows.frames import write_frame
from vaestro.uses.rows.given import readable
from vaestro.uses.rows.lots import LABEL, USUAL, Lot, Wish, lot

OWN = "own"  # the model's own classes
DRAWS = 10  # of a few labels, for the interval of what so many labels give
FOLDS = 5
BINS = 10  # of the calibration error
LEAST = 1e-12  # a probability that is scored as no less, so that one impossible row is no infinite loss


@torch.no_grad()
@by_name
def classify(run: Run, x: Tensor | np.ndarray) -> Float[Tensor, "b classes"]:
    """q(y | x), the probability of each class, [b, classes], for rows x [b, *shape] in unit values; raises UsageError for a model that has no classes."""
    probabilities: Tensor = open_classify(run.model, readable(run, x)).probs  # type: ignore[attr-defined]
    return probabilities


Predict: TypeAlias = Callable[[np.ndarray], np.ndarray]  # latents [n, latents] -> p(class), [n, classes that were labelled]
Probe: TypeAlias = Callable[[np.ndarray, np.ndarray, int], Predict]  # (latents, labels, seed): a classifier that learnt
CLASSIFIERS: Registry[Probe] = Registry("classifier")


@CLASSIFIERS.register
def linear(train: np.ndarray, labels: np.ndarray, seed: int) -> Predict:
    """Multinomial logistic regression with an L2 penalty of weight 1; one temperature, fitted on left-out folds of the labels, calibrates it."""
    from sklearn.linear_model import LogisticRegression

    def fit(rows: np.ndarray) -> Predict:
        made = LogisticRegression(max_iter=5000, tol=1e-3).fit(train[rows], labels[rows])

        def scores(z: np.ndarray) -> np.ndarray:
            found = np.asarray(made.decision_function(z))
            return np.stack([-found / 2, found / 2], 1) if found.ndim == 1 else found

        return scores

    return _tempered(fit, train, labels, seed)


@CLASSIFIERS.register
def knn(train: np.ndarray, labels: np.ndarray, seed: int) -> Predict:
    """The shares of the classes among the k nearest labelled rows, each class counted once more: (k_c + 1) / (k + classes).

    k is 10, or the mean number of labels of a class where that is less: with a label a class, the nearest one alone.
    """
    from sklearn.neighbors import KNeighborsClassifier

    number = len(np.unique(labels))
    k = min(NEIGHBOURS, len(train) // number)
    made = KNeighborsClassifier(k).fit(train, labels)
    return lambda z: np.asarray((made.predict_proba(z) * k + 1) / (k + number))


def _tempered(fit: Callable[[np.ndarray], Predict], train: np.ndarray, labels: np.ndarray, seed: int) -> Predict:
    """softmax(scores / T), T the temperature that scores rows best by folds that were left out (Guo et al. 2017, section 4.2); 1 with a label a class."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax, softmax
    from sklearn.model_selection import StratifiedKFold

    everything = fit(np.arange(len(labels)))
    _, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    folds, temperature = min(FOLDS, int(counts.min())), 1.0
    if folds > 1:
        left = np.zeros((len(labels), len(counts)))
        for learn, out in StratifiedKFold(folds, shuffle=True, random_state=seed).split(left, labels):
            left[out] = fit(learn)(train[out])

        def loss(log_t: float) -> float:
            return -float(np.take_along_axis(log_softmax(left / np.exp(log_t), 1), index[:, None], 1).mean())

        temperature = float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))
    return lambda z: np.asarray(softmax(everything(z) / temperature, 1))


class Probing(NamedTuple):
    """By which classifier (`CLASSIFIERS`, or `own`, the model's own classes: the default where there are some, else `linear`), from how many labels."""

    by: str | None = None
    labels: int | None = None  # in all, as equally many of each class as that goes; all of at most 10,000 training rows if left out
    draws: int = DRAWS
    seed: int = 0


USUAL_WAY = Probing()


@dataclass(frozen=True)
class Classified:
    """Rows with the probability of each class [n, classes]; where the rows have labels, accuracy, log loss in nats and calibration error, with intervals."""

    run: str
    rows: Lot
    by: str
    labels: int | None  # that the classifier learnt from; none for the model's own
    classes: tuple[str, ...]
    probabilities: np.ndarray
    accuracy: Sure | None = None
    log_loss: Sure | None = None
    calibration_error: Sure | None = None
    notes: tuple[str, ...] = ()

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class of each row, [n]."""
        return np.asarray(self.probabilities.argmax(1))

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        about = {"run": self.run, "rows": self.rows.size, "data": self.rows.name, "by": self.by, "labels": self.labels, "classes": list(self.classes)}
        numbers = {"accuracy": self.accuracy, "log_loss": self.log_loss, "calibration_error": self.calibration_error}
        return {**about, **{n: None if s is None else s._asdict() for n, s in numbers.items()}, "notes": list(self.notes)}

    @property
    def lines(self) -> list[str]:
        """What was found, in words."""
        learnt = "the model's own classes" if self.labels is None else f"{self.by} on latents, {self.labels:,} labels"
        said = [f"{self.rows.size:,} {self.rows.name} by {learnt}"]
        if self.accuracy is not None:
            said.append(f"Accuracy {self.accuracy}; log loss {self.log_loss} nats; calibration error {self.calibration_error}")
        return [f"{line}." for line in said]

    def write(self, path: Path) -> None:
        """row, file where known, predicted, p_CLASS for each class, and label where known, as .csv or .parquet."""
        probabilities = {f"p_{name}": self.probabilities[:, i] for i, name in enumerate(self.classes)}
        write_frame(path, self.rows.table({"predicted": [self.classes[i] for i in self.predicted], **probabilities}))


@by_name
def classified(run: Run, rows: Any = None, how: Probing = USUAL_WAY, wish: Wish = USUAL) -> Classified:
    """Rows with their classes: by the model's own q(y | x), or by a probe that learns `how.labels` labels of training rows on posterior means.

    Few labels are spread over the classes; the accuracy, where the rows have labels, is over ten draws of them and its interval counts draws and rows as
    crossed, while the probabilities are those of the first draw, calibrated on its own labels alone. Calibration error: the mean over ten bins of
    |accuracy - confidence|, by rows (Guo et al. 2017, eq. 3), its interval by a jackknife. Raises UsageError for training data without labels or of one class,
    fewer labels than classes or more than training rows, latents that do not vary, and a number of labels for a model's own classes.
    """
    of = lot(run, rows, wish)
    by = how.by or (OWN if has_classes(run) else "linear")
    if by == OWN:
        return _by_itself(run, of, how)
    probe = CLASSIFIERS[by]
    require_learners()
    require_untold(run)
    if how.draws < 1:
        raise UsageError(f"draws is {how.draws}, and labels are drawn at least once; give a whole number from 1 upwards")
    train = lot(run, None, Wish("train", TRAINING))
    labels = require_labels(train, how.labels)
    known = codes(run, train)
    z, held = levelled(known, codes(run, of))
    if not known.std(0).any():
        raise UsageError(f"all latents of {run.name} are equal, so they tell no classes apart; the posterior has collapsed: `vaestro diagnose {run.name}`")
    rng, found = np.random.default_rng(how.seed), []
    draws = 1 if how.labels is None or of.labels is None else how.draws
    for i in range(draws):
        tell("draws of labels", i / draws)
        chosen = np.arange(len(labels)) if how.labels is None else few(labels, how.labels, rng)
        p = np.zeros((of.size, len(train.classes)))
        p[:, np.unique(labels[chosen])] = probe(z[chosen], labels[chosen], how.seed)(held)
        found.append(p)
    tell("draws of labels", 1.0)
    return _scored(run, of, by, len(labels) if how.labels is None else how.labels, train.classes, found)


def has_classes(run: Run) -> bool:
    """Whether the model has classes of its own, as M2 does."""
    try:
        with evaluating(run.model):
            first = next(lot(run, None, Wish("train", 1)).batches())
            open_classify(run.model, torch.as_tensor(content(first[run.field.name])).to(device_of(run.model)))
    except UsageError:
        return False
    return True


def require_untold(run: Run) -> None:
    """Raises UsageError for a model that is told the label: its latents are those of a row whose class is known already."""
    if LABEL in conditions_of(run.model):
        raise UsageError(f"{run.about['call']} is told the label, so its latents cannot find it; use a model of x alone, such as vae, or m2")


def require_labels(train: Lot, number: int | None = None) -> np.ndarray:
    """The labels of training rows; raises UsageError where there are none, all are of one class, or `number` of them are too few or too many."""
    labels = train.labelled()
    known = len(np.unique(labels))
    if known < 2:
        raise UsageError(f"the {train.name} are all of one class, so nothing tells classes apart; use data with two classes or more")
    if number is not None and not known <= number <= len(labels):
        reason = f"fewer than the {known} classes, so some would never be seen" if number < known else f"more than the {len(labels)} training rows"
        raise UsageError(f"{number} labels are {reason}; give {known} to {len(labels)}")
    return labels


def _by_itself(run: Run, of: Lot, how: Probing) -> Classified:
    if how.labels is not None:
        raise UsageError(f"{run.about['call']} learnt its own labels when it was trained; leave --labels out, or choose --by linear")
    parts, device = [], device_of(run.model)
    with evaluating(run.model):
        for batch in of.batches():
            parts.append(classify(run, torch.as_tensor(content(batch[run.field.name])).to(device)).double().cpu().numpy())
            tell("classes of rows", sum(map(len, parts)) / of.size)
    told = run.recipe.told
    kind: Any = run.schema[told.field if told is not None else "label"].kind
    return _scored(run, of, OWN, None, kind.names or tuple(map(str, range(kind.n))), [np.concatenate(parts)])


def _scored(run: Run, of: Lot, by: str, labels: int | None, classes: tuple[str, ...], found: list[np.ndarray]) -> Classified:
    """The first of `found`, and how right all of them are."""
    told = (run.name, of, by, labels, classes, found[0])
    if of.labels is None:
        return Classified(*told, notes=of.notes)
    names = of.classes or classes
    truth = np.array([classes.index(c) if c in classes else -1 for c in names], dtype=np.int64)[of.labels]
    strange = sorted({names[i] for i in np.unique(of.labels[truth < 0])})
    notes = [f"rows of the classes {', '.join(strange)} count as wrong, for the run never saw such a label"] if strange else []
    right = np.stack([p.argmax(1) == truth for p in found])
    sure, given = found[0].max(1), np.take_along_axis(found[0], truth.clip(0)[:, None], 1)[:, 0] * (truth >= 0)

    def error(kept: np.ndarray) -> np.ndarray:
        cell = np.minimum((sure[kept] * BINS).astype(int), BINS - 1)
        apart = [abs(right[0, kept][cell == b].sum() - sure[kept][cell == b].sum()) for b in range(BINS)]
        return np.array([sum(apart) / len(kept)])

    calibration = within(left_out(error, len(truth))[0])
    return Classified(*told, shares(right), mean(-np.log(given.clip(LEAST))), calibration, (*of.notes, *notes))
