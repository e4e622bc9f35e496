"""Probes: how well the latents of rows tell their labels to a simple classifier that learns from training rows."""

from functools import partial

import numpy as np

from vaestro.errors import UsageError
from vaestro.evaluation.intervals import recipe
from vaestro.evaluation.metrics.base import METRICS, Direction, Group, Metric, Need, Score
from vaestro.evaluation.metrics.encodings import TRAINING, classes, held_codes, training_codes
from vaestro.evaluation.metrics.subject import Subject

NEIGHBOURS = 10
FEW = (10, 100, 1000)
DRAWS = 10  # of a few labels


def standardised(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with the means taken away and the standard deviations divided out that the training codes have; a constant latent is 0."""
    middle, spread = train.mean(0), train.std(0)
    varies = spread > 1e-12 * np.maximum(1.0, np.abs(middle))
    scale = np.where(varies, spread, 1.0)
    return (train - middle) / scale * varies, (test - middle) / scale * varies


def linear(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """The class that multinomial logistic regression, with an L2 penalty of weight 1, gives each test code [n]; a single class is given to all."""
    if len(np.unique(labels)) < 2:
        return np.full(len(test), labels[0])
    from sklearn.linear_model import LogisticRegression

    return np.asarray(LogisticRegression(max_iter=5000, tol=1e-3).fit(train, labels).predict(test))


def nearest(train: np.ndarray, labels: np.ndarray, test: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """The commonest class among the `k` nearest training codes of each test code [n]; all of them where there are fewer."""
    from sklearn.neighbors import KNeighborsClassifier

    return np.asarray(KNeighborsClassifier(min(k, len(train))).fit(train, labels).predict(test))


def few(labels: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Which rows to label, [number]: equally many of each class as far as that goes, at random within it."""
    shuffled = rng.permutation(len(labels))
    place = np.empty(len(labels), np.int64)  # the how-manieth of its class each row is
    for c in np.unique(labels):
        of_class = shuffled[labels[shuffled] == c]
        place[of_class] = np.arange(len(of_class))
    return np.asarray(shuffled[np.argsort(place[shuffled], kind="stable")][:number])


def right(subject: Subject, said: np.ndarray) -> Score:
    """The share of scored rows whose label is what was said."""
    return Score.of_rows((said == subject.beside.labels()).astype(np.float64))


def linear_probe(subject: Subject) -> Score:
    """The share of scored rows whose label a linear classifier finds from standardised latents."""
    classes(subject)
    train, test = standardised(training_codes(subject), held_codes(subject))
    return right(subject, linear(train, subject.beside.labels("train", TRAINING), test))


def knn_probe(subject: Subject) -> Score:
    """The share of scored rows whose label the 10 nearest training rows, by the Euclidean distance of latents, agree on by majority."""
    classes(subject)
    return right(subject, nearest(training_codes(subject), subject.beside.labels("train", TRAINING), held_codes(subject)))


def few_label_probe(subject: Subject, number: int) -> Score:
    """`linear_probe` with `number` labels in all, as equally many of each class as that goes: the mean of ten draws of them.

    Latents are standardised by all training rows, which takes no labels. The error counts draws and rows as crossed (`intervals.recipe`).
    Raises UsageError where there are fewer labels than classes, or fewer rows than labels.
    """
    known, labels = classes(subject), subject.beside.labels("train", TRAINING)
    if not known <= number <= len(labels):
        reason = f"{known} classes" if number < known else f"{len(labels)} training rows"
        raise UsageError(f"a probe of {number} labels makes no sense of {reason}; leave it out")
    train, test = standardised(training_codes(subject), held_codes(subject))
    rng, truth, found = np.random.default_rng(subject.seed), subject.beside.labels(), []
    for _ in range(DRAWS):
        chosen = few(labels, number, rng)
        found.append(linear(train[chosen], labels[chosen], test) == truth)
    told = recipe(np.array(found, dtype=np.float64))
    return Score(float(told.mean), float(told.error))


LEARNT = f"learnt from the labels of at most {TRAINING:,} training rows, scored on the rows scored"
NEEDS = frozenset({Need.LATENTS, Need.SPLITS})

METRICS.enter(
    Metric(
        "linear_probe", "linear probe", "share of rows", Direction.HIGHER, f"logistic regression on standardised posterior means; {LEARNT}",
        "Alain & Bengio 2017, section 3", linear_probe, NEEDS, group=Group.LATENTS,
    ),
    Metric(
        "knn_probe", "nearest-neighbour probe", "share of rows", Direction.HIGHER,
        f"majority of the {NEIGHBOURS} nearest posterior means, Euclidean; {LEARNT}", "Cover & Hart 1967", knn_probe, NEEDS, group=Group.LATENTS,
    ),
    *(
        Metric(
            f"few_label_probe_{number}", f"linear probe of {number:,} labels", "share of rows", Direction.HIGHER,
            f"`linear_probe` with {number:,} labels in all, spread over the classes; mean of {DRAWS} draws of them", "Kingma et al. 2014, section 4.1 (task)",
            partial(few_label_probe, number=number), NEEDS, group=Group.LATENTS,
        )
        for number in FEW
    ),
)  # fmt: skip
