"""Whether the classes of rows are clusters of their latents: k-means, judged by labels that it never sees."""

from functools import partial

import numpy as np

from vaestro.errors import UsageError
from vaestro.evaluation.metrics.base import METRICS, Direction, Group, Metric, Need, Score, jackknife
from vaestro.evaluation.metrics.encodings import TRAINING, classes, held_codes, training_codes
from vaestro.evaluation.metrics.subject import Subject

STARTS = 10
COLUMNS = ("cluster_nmi", "cluster_ari", "cluster_accuracy")


def matched(clusters: np.ndarray, labels: np.ndarray) -> float:
    """The share of rows [n] that the best one-to-one matching of clusters to classes gets right (Kuhn 1955; Yang et al. 2010)."""
    from scipy.optimize import linear_sum_assignment

    table = contingency(clusters, labels)
    return float(table[linear_sum_assignment(table, maximize=True)].sum() / len(labels))


def contingency(clusters: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many rows [n] are in cluster i and of class j, whole numbers."""
    table = np.zeros((int(clusters.max()) + 1, int(labels.max()) + 1), np.int64)
    np.add.at(table, (clusters, labels), 1)
    return table


def agreement(clusters: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """NMI (arithmetic mean of the entropies), adjusted Rand index and matched accuracy of clusters [n] and classes [n], [3]."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    return np.array([normalized_mutual_info_score(labels, clusters), adjusted_rand_score(labels, clusters), matched(clusters, labels)])


def clustered(train: np.ndarray, test: np.ndarray, number: int, seed: int) -> np.ndarray:
    """The nearest of `number` centres, which k-means (Lloyd 1982) finds in the training codes, best of ten starts, for each test code [n].

    Raises UsageError where there are fewer different training codes than centres.
    """
    from sklearn.cluster import KMeans

    different = len(np.unique(train, axis=0))
    if different < number:
        raise UsageError(f"{number} clusters need {number} different latents, and the training rows have {different}; the posterior has collapsed")
    return np.asarray(KMeans(number, n_init=STARTS, random_state=seed).fit(train).predict(test))


def clusters(subject: Subject) -> dict[str, Score]:
    """What k-means on the latents, with as many clusters as classes, says of the labels of the scored rows; errors leave out a tenth of these at a time.

    Raises UsageError for data without labels, or rows scored of one class only, which tell nothing.
    """
    number, labels = classes(subject), subject.beside.labels()
    if len(np.unique(labels)) < 2:
        raise UsageError("the rows scored are all of one class, so clusters cannot be compared with classes; score more rows")
    found = clustered(training_codes(subject), held_codes(subject), number, subject.seed)
    errors = jackknife(lambda kept, _: agreement(found[kept], labels[kept]), len(labels), len(labels), seed=subject.seed)
    return {name: Score(float(v), float(e)) for name, v, e in zip(COLUMNS, agreement(found, labels), errors, strict=True)}


def column(subject: Subject, name: str) -> Score:
    """One of the three numbers of `clusters`, which are made once."""
    return subject.once("clusters", lambda: clusters(subject))[name]


def _metric(name: str) -> Metric:
    title, source = {
        "cluster_nmi": ("clusters against classes, normalised mutual information", "Strehl & Ghosh 2002 (normalised by the arithmetic mean)"),
        "cluster_ari": ("clusters against classes, adjusted Rand index", "Hubert & Arabie 1985"),
        "cluster_accuracy": ("clusters against classes, best matching", "Yang et al. 2010"),
    }[name]
    protocol = f"k-means of posterior means, as many clusters as classes, {STARTS} starts on at most {TRAINING:,} training rows; scored rows go to the nearest"
    unit = "share of rows" if name == "cluster_accuracy" else "share"
    needs = frozenset({Need.LATENTS, Need.SPLITS})
    return Metric(name, title, unit, Direction.HIGHER, protocol, source, partial(column, name=name), needs, group=Group.LATENTS)


METRICS.enter(*map(_metric, COLUMNS))
