"""How far each latent keeps to one factor: the separated attribute predictability, modularity and explicitness."""

import warnings

import numpy as np
from scipy import stats

from vaestro.errors import UsageError
from vaestro.evaluation.discrimination import areas_of_rows
from vaestro.evaluation.metrics.base import METRICS, Direction, Group, Metric, Need, Score
from vaestro.evaluation.metrics.disentanglement import BINS, binned, gap
from vaestro.evaluation.metrics.encodings import require_learners
from vaestro.evaluation.metrics.factors import Made, gaps, halves, made
from vaestro.evaluation.metrics.interventions import scored
from vaestro.evaluation.metrics.probes import standardised
from vaestro.evaluation.metrics.reconstruction import active
from vaestro.evaluation.metrics.subject import Subject

EACH = 4  # rows of each value of a factor, at least


def determination(codes: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """R^2 of a straight line from each latent [n, latents] to the level [n], [latents]; 0 for a constant latent."""
    z, v = codes - codes.mean(0), levels - levels.mean()
    below = np.square(z).sum(0) * np.square(v).sum()
    return np.asarray(np.divide(np.square(z.T @ v), below, out=np.zeros(codes.shape[1]), where=below > 0))


def thresholds(found: Made, k: int, seed: int) -> np.ndarray:
    """The balanced accuracy of thresholds on each latent for factor k, [latents], adjusted so that chance is 0: a tree of as many leaves as classes.

    The thresholds are learnt on one half of the rows and judged on the other; below chance counts as 0, as does a factor that has one value alone in a half.
    """
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.tree import DecisionTreeClassifier

    train, test = (found.take(rows) for rows in halves(len(found.codes), seed))
    if not _varies(train, test)[k]:
        return np.zeros(found.codes.shape[1])
    values = []
    for z, other in zip(train.codes.T, test.codes.T, strict=True):
        tree = DecisionTreeClassifier(max_leaf_nodes=found.levels[k], class_weight="balanced", random_state=seed).fit(z[:, None], train.factors[:, k])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")  # a rare value may be in one half only
            values.append(max(0.0, balanced_accuracy_score(test.factors[:, k], tree.predict(other[:, None]), adjusted=True)))
    return np.array(values)


def _varies(*parts: Made) -> np.ndarray:
    """Which factors have two values or more in every part, bool [factors]."""
    return np.asarray(np.all([np.ptp(part.factors, 0) > 0 for part in parts], 0))


def separated(found: Made, seed: int = 0) -> float:
    """The mean over factors of S_(1) - S_(2), where S_i is how well latent i alone predicts the factor: R^2, or of classes `thresholds`."""
    found.require(EACH, "thresholds")
    columns = [thresholds(found, k, seed) if found.classes[k] else determination(found.codes, v) for k, v in enumerate(found.factors.T)]
    return float(gaps(np.stack(columns, 1)).mean())


def told(found: Made) -> np.ndarray:
    """I(z_i; v_k) of the active latents, [latents, factors], nats: `gap`'s, minus what chance adds; 0 where chance explains it.

    Independent columns have 2 n I ~ chi^2 with (bins - 1) (levels - 1) degrees of freedom (the G test), of mean that number: information below its 99.9 %
    quantile counts as none, and above it the mean is taken away (Miller 1955). Without this, latents of pure noise would look modular.
    """
    codes = found.codes[:, active(found.codes)]
    filled = np.array([len(np.unique(column)) for column in binned(codes).T], dtype=np.float64)
    freedom = np.outer(filled - 1, np.array(found.levels) - 1.0)
    twice = 2 * len(codes) * gap(codes, found.factors).information
    return np.where(twice > stats.chi2.isf(0.001, np.maximum(freedom, 1)), np.maximum(twice - freedom, 0), 0.0) / (2 * len(codes))


def modular(found: Made, seed: int = 0) -> float:
    """The mean over latents that tell of a factor of 1 - sum_(k != best) I(z_i; v_k)^2 / (max_k I(z_i; v_k)^2 (K - 1)), K factors, I by `told`.

    Raises UsageError where no latent tells anything of a factor.
    """
    squares = np.square(told(found))
    top = squares.max(1, initial=0.0)
    if not (top > 0).any():
        raise UsageError("no latent tells more of a factor than chance would, so none is modular or not; the posterior has collapsed, or more rows are needed")
    squares, top = squares[top > 0], top[top > 0]
    return float(np.mean(1 - (squares.sum(1) - top) / (top * (len(found.names) - 1))))


def explicit(found: Made, seed: int = 0) -> np.ndarray:
    """Numbers of the rows of one half, [n / 2], whose mean is the mean AUROC, over factors and values, of a softmax classifier's probability of the value.

    It is learnt on the other half from standardised latents. Values that the judged half, or the other, does not hold are left out, and so are factors that
    have one value alone in a half. Raises UsageError where none is left.
    """
    from sklearn.linear_model import LogisticRegression

    train, test = (found.take(rows) for rows in halves(len(found.codes), seed))
    varies, rows = _varies(train, test), []
    x, other = standardised(train.codes, test.codes)
    for levels, truth in zip(train.factors.T[varies], test.factors.T[varies], strict=True):
        learner = LogisticRegression(max_iter=5000, tol=1e-3).fit(x, levels)
        scores = learner.decision_function(other) if len(learner.classes_) > 2 else np.outer(learner.decision_function(other), [-1.0, 1.0])
        scores = scores - np.logaddexp.reduce(scores, 1, keepdims=True)  # log probabilities: their order is that of the probabilities, without ties at 0
        areas = [areas_of_rows(s, truth == c) for c, s in zip(learner.classes_, scores.T, strict=True) if 0 < (truth == c).sum() < len(truth)]
        rows += [np.mean(areas, 0)] if areas else []
    if not rows:
        raise UsageError(f"no values of the factors {', '.join(found.names)} are in both halves of the rows, so nothing can be told; score more rows")
    return np.asarray(np.mean(rows, 0))


def sap(subject: Subject) -> Score:
    """`separated` of the posterior means of the scored rows."""
    require_learners()
    return scored(subject, separated)


def modularity(subject: Subject) -> Score:
    """`modular` of the posterior means of the scored rows."""
    return scored(subject, modular)


def explicitness(subject: Subject) -> Score:
    """`explicit` of the posterior means of the scored rows; its error is that of the rows judged."""
    require_learners()
    found = made(subject)
    found.require(EACH, "a classifier for each factor")
    score = Score.of_rows(explicit(found, subject.seed))
    return Score(score.value, score.error)


RIDGEWAY = "Ridgeway & Mozer 2018, section 3"
METRICS.enter(
    Metric(
        "sap", "separated attribute predictability", "share", Direction.HIGHER,
        "one posterior mean alone: R^2, and for factors with named classes the balanced accuracy of thresholds on held-out rows, adjusted so that chance is 0",
        "Kumar et al. 2018, section 3", sap, frozenset({Need.LATENTS, Need.FACTORS}), group=Group.FACTORS,
    ),
    Metric(
        "modularity", "latents that tell of one factor", "share", Direction.HIGHER,
        f"posterior means that move with the data, in {BINS} bins of equal width; information as chance leaves it (G test)", RIDGEWAY,
        modularity, frozenset({Need.LATENTS, Need.FACTORS}), group=Group.FACTORS,
    ),
    Metric(
        "explicitness", "factors told by a linear classifier", "AUROC", Direction.HIGHER,
        "softmax regression on posterior means, learnt on one half of the rows scored and judged on the other; chance is 0.5", RIDGEWAY,
        explicitness, frozenset({Need.LATENTS, Need.FACTORS}), group=Group.FACTORS,
    ),
)  # fmt: skip
