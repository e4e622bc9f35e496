"""Disentanglement, completeness and informativeness of latents: whose work it is that a forest finds each factor."""

from functools import partial
from typing import NamedTuple

import numpy as np

from vaestro.evaluation.metrics.base import METRICS, Direction, Group, Metric, Need, Score, jackknife
from vaestro.evaluation.metrics.encodings import require_learners
from vaestro.evaluation.metrics.factors import Made, halves, made
from vaestro.evaluation.metrics.subject import Subject

TREES, LEAF, GROUPS = 20, 5, 5
EACH = 10  # rows of each value of a factor, at least
MOST = 5000  # rows
COLUMNS = ("dci_disentanglement", "dci_completeness", "dci_informativeness")


class Importances(NamedTuple):
    """What a forest needs of each latent to find each factor, and how often it finds it."""

    table: np.ndarray  # [latents, factors], not negative; each column sums to 1, or is 0 where no latent helps
    right: np.ndarray  # [rows of the other half, factors], bool

    @property
    def disentanglement(self) -> float:
        """sum_i rho_i (1 - H_K(P_i)): P_i is latent i's importance for each of K factors as shares, H_K their entropy to base K, rho_i its share of all."""
        weight = self.table.sum(1)
        return float((weight * (1 - spread(self.table)) / weight.sum()).sum()) if weight.any() else 0.0

    @property
    def completeness(self) -> float:
        """The mean over factors of 1 - H_D(P_j), with the shares of D latents; a factor that none helps to find counts 0."""
        return float(((1 - spread(self.table.T)) * (self.table.sum(0) > 0)).mean())


def spread(weights: np.ndarray) -> np.ndarray:
    """The entropy of each row of weights [n, m] as shares, to base m: 0 for one holder, 1 for all alike; of a single column 0, of no weight 1."""
    total = weights.sum(1, keepdims=True)
    p = np.divide(weights, total, out=np.full_like(weights, 1 / weights.shape[1]), where=total > 0)
    logs = np.log(p, out=np.zeros_like(p), where=p > 0)
    return np.asarray(-(p * logs).sum(1) / max(np.log(weights.shape[1]), 1e-300))


def importances(found: Made, seed: int = 0) -> Importances:
    """A forest for each factor, learnt on one half of the rows: its impurity importances, and on the other half whether it is right.

    Every split looks at every latent, so that a latent which tells nothing is not needed; leaves hold five rows at least, so that noise is not learnt by heart.
    """
    from sklearn.ensemble import RandomForestClassifier

    train, test = (found.take(rows) for rows in halves(len(found.codes), seed))
    table, right = [], []
    for levels, truth in zip(train.factors.T, test.factors.T, strict=True):
        forest = RandomForestClassifier(TREES, min_samples_leaf=LEAF, max_features=None, random_state=seed).fit(train.codes, levels)
        table.append(forest.feature_importances_)
        right.append(forest.predict(test.codes) == truth)
    return Importances(np.stack(table, 1), np.stack(right, 1))


def dci(subject: Subject) -> dict[str, Score]:
    """The three numbers; the first two with the error of leaving out a fifth of the rows at a time, the third with that of its rows."""
    require_learners()
    found = made(subject).take(np.arange(min(MOST, len(subject.reconstructions.means))))
    found.require(EACH, "a forest for each factor")
    whole = importances(found, subject.seed)

    def without(kept: np.ndarray, _: np.ndarray) -> np.ndarray:
        part = importances(found.take(kept), subject.seed)
        return np.array([part.disentanglement, part.completeness])

    errors = jackknife(without, len(found.codes), len(found.codes), GROUPS, subject.seed)
    told = Score.of_rows(whole.right.mean(1))
    values = (Score(whole.disentanglement, float(errors[0])), Score(whole.completeness, float(errors[1])), Score(told.value, told.error))
    return dict(zip(COLUMNS, values, strict=True))


def column(subject: Subject, name: str) -> Score:
    """One of the three numbers of `dci`, which are made once."""
    return subject.once("dci", lambda: dci(subject))[name]


HOW = f"importances of random forests ({TREES} trees) on posterior means, learnt on one half of at most {MOST:,} rows scored"
for name, title, unit, protocol in (
    ("dci_disentanglement", "latents that serve one factor", "share", HOW),
    ("dci_completeness", "factors that one latent serves", "share", HOW),
    ("dci_informativeness", "factors found from the latents", "share of rows", f"{HOW}; how often they are right on the other half, mean over factors"),
):
    METRICS.enter(
        Metric(
            name, title, unit, Direction.HIGHER, protocol, "Eastwood & Williams 2018, section 2 (random forest)", partial(column, name=name),
            frozenset({Need.LATENTS, Need.FACTORS}), group=Group.FACTORS,
        ),
    )  # fmt: skip
