"""Rows in clusters: those of a prior that is a mixture, or those that are found among the latents."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vaestro.core import content
from vaestro.data.prepare.frames import require_polars
from vaestro.errors import UsageError
from vaestro.evaluation.metrics.clustering import agreement, matched
from vaestro.evaluation.metrics.encodings import TRAINING, require_learners
from vaestro.evaluation.scope import device_of
from vaestro.evaluation.sure import Sure, left_out, mean, within
from vaestro.models.base import memberships
from vaestro.priors import responsibilities
from vaestro.progress import tell
from vaestro.registry import Registry
from vaestro.seeds import forked, mix
from vaestro.training.finding import by_name
from vaestro.training.runs import Run, title
from vaestro.training.stages import require_slot
from vaestro.uses.classify import require_untold
from vaestro.uses.embed import codes, levelled
from vaestro.uses.rows.frames import require_frame_writer, write_frame
from vaestro.uses.rows.given import readable
from vaestro.uses.rows.lots import USUAL, Lot, Wish, lot

NUMBERS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30)  # of clusters, that are tried
SMALLEST = 100  # HDBSCAN: a cluster has at least one in so many of the training rows, and 5
FIRM = 1e-3  # added to the variances of latents whose mean variance is 1, so that no part of a mixture shrinks to a point


@torch.no_grad()
@by_name
def cluster(run: Run, x: Tensor | np.ndarray, draws: int = 16, seed: int = 0) -> Float[Tensor, "b components"]:
    """p(c | x) = E_q(z|x)[p(c | z)] of every component c of the prior, [b, components], by `draws` draws: a row's cluster is its largest.

    Jiang et al. 2017 (VaDE), section 3. Rows are in unit values. Any prior that is a mixture has clusters: of `vade` and `gmm_prior`, of a Vamp or exemplar
    prior (one for each pseudo-input or exemplar), or one that was fitted later. A model that is itself a mixture of rows, `mixture` or `k_means`, says p(c | x)
    without draws. Raises UsageError for other priors and for models without one prior slot.
    """
    device, x = device_of(run.model), readable(run, x)
    own = memberships(run.model, {"x": x})
    if own is not None:
        return own
    site = require_slot(run.model, title(run.about), run.schema)
    with forked(device):
        torch.manual_seed(mix(seed, 13))
        drawn = run.model({"x": x}, draws)[site]
    return responsibilities(drawn.prior, drawn.value).mean(0)


Codes: TypeAlias = np.ndarray  # latents of mean variance 1, float64 [n, latents]
Belong: TypeAlias = Callable[[Codes], np.ndarray]  # how much each row belongs to each cluster, [n, clusters]: p(c | z), or 0 everywhere for noise


class Setting(NamedTuple):
    """What clusters are found in: training latents, validation latents that judge their number, that number if it is said, and a seed."""

    train: Codes
    held: Codes
    number: int | None
    seed: int


class Found(NamedTuple):
    """Clusters: their number, who belongs to them, and the held-out log-likelihood of each number that was tried, nats a row."""

    number: int
    belong: Belong
    tried: dict[int, Sure] = {}


Finder: TypeAlias = Callable[[Setting], Found]
CLUSTERINGS: Registry[Finder] = Registry("way to cluster")


class Mixture(NamedTuple):
    """A fitted mixture: p(c | z) and log p(z) of latents."""

    belong: Belong
    log_prob: Belong


def _best(setting: Setting, fit: Callable[[int], Mixture]) -> Found:
    """The smallest number of clusters whose held-out likelihood is not surely below that of the best, by the paired interval of their difference."""
    if setting.number is not None:
        return Found(setting.number, fit(setting.number).belong)
    different = len(np.unique(setting.train, axis=0))
    fits, scores = {}, {}
    for i, number in enumerate(n for n in NUMBERS if 2 * n <= different or n == 1):
        tell("numbers of clusters", i / len(NUMBERS))
        fits[number] = fit(number)
        scores[number] = fits[number].log_prob(setting.held)
    tell("numbers of clusters", 1.0)
    top = max(scores, key=lambda n: float(scores[n].mean()))
    kept = next(n for n in scores if n == top or mean(scores[n] - scores[top]).high >= 0)
    return Found(kept, fits[kept].belong, {n: mean(s) for n, s in scores.items()})


@CLUSTERINGS.register
def gmm(setting: Setting) -> Found:
    """A mixture of Gaussians with full covariances by EM (Dempster et al. 1977), the best of three starts from k-means."""
    from sklearn.mixture import GaussianMixture

    def fit(number: int) -> Mixture:
        made = GaussianMixture(number, n_init=3, reg_covar=FIRM, random_state=setting.seed, max_iter=200, tol=1e-3).fit(setting.train)
        return Mixture(made.predict_proba, made.score_samples)

    return _best(setting, fit)


@CLUSTERINGS.register
def kmeans(setting: Setting) -> Found:
    """k-means (Lloyd 1982), the best of ten starts; read as a mixture of round Gaussians of one variance, which gives probabilities and a likelihood."""
    from scipy.spatial.distance import cdist
    from scipy.special import logsumexp
    from sklearn.cluster import KMeans

    def fit(number: int) -> Mixture:
        made = KMeans(number, n_init=10, random_state=setting.seed).fit(setting.train)
        weights = np.bincount(made.labels_, minlength=number) / len(setting.train)
        d = setting.train.shape[1]
        variance = made.inertia_ / (len(setting.train) * d) + FIRM

        def joint(z: Codes) -> np.ndarray:
            apart = cdist(z, made.cluster_centers_, "sqeuclidean")
            return np.asarray(np.log(weights) - 0.5 * (apart / variance + d * np.log(2 * np.pi * variance)))

        return Mixture(lambda z: np.exp(joint(z) - logsumexp(joint(z), 1, keepdims=True)), lambda z: np.asarray(logsumexp(joint(z), 1)))

    return _best(setting, fit)


@CLUSTERINGS.register
def hdbscan(setting: Setting) -> Found:
    """HDBSCAN (Campello et al. 2013), which finds the number itself and leaves rows out as noise; other rows go with their nearest training row."""
    from sklearn.cluster import HDBSCAN
    from sklearn.neighbors import NearestNeighbors

    if setting.number is not None:
        raise UsageError("hdbscan finds the number of clusters itself; leave --number out, or choose gmm or kmeans")
    made = HDBSCAN(min_cluster_size=max(5, len(setting.train) // SMALLEST), copy=True).fit(setting.train)
    near = NearestNeighbors(n_neighbors=1).fit(setting.train)
    number = int(made.labels_.max()) + 1

    def belong(z: Codes) -> np.ndarray:
        of = near.kneighbors(z, return_distance=False)[:, 0]
        found = np.zeros((len(z), number))
        inside = np.flatnonzero(made.labels_[of] >= 0)
        found[inside, made.labels_[of][inside]] = made.probabilities_[of][inside]
        return found

    return Found(number, belong)


@dataclass(frozen=True)
class Clustered:
    """Rows in clusters: `cluster` [n], -1 for none, and its `probability` [n]; with labels, how far the two agree, each number with its interval."""

    run: str
    rows: Lot
    by: str
    number: int
    cluster: np.ndarray
    probability: np.ndarray
    tried: dict[int, Sure] = field(default_factory=dict)
    agreement: dict[str, Sure] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        sizes = {str(c): int((self.cluster == c).sum()) for c in range(-1, self.number)}
        about = {"run": self.run, "rows": self.rows.size, "data": self.rows.name, "by": self.by, "clusters": self.number, "sizes": sizes}
        tried = {str(n): s._asdict() for n, s in self.tried.items()}
        return {**about, "held_out_log_likelihood": tried, "agreement": {n: s._asdict() for n, s in self.agreement.items()}, "notes": list(self.notes)}

    @property
    def lines(self) -> list[str]:
        """What was found, in words."""
        sizes = ", ".join(f"{int((self.cluster == c).sum()):,}" for c in range(self.number))
        said = [f"{self.number} clusters by {self.by} in {self.rows.size:,} {self.rows.name}, of {sizes or 'no'} rows"]
        if noise := int((self.cluster < 0).sum()):
            said.append(f"{noise:,} rows are in no cluster")
        if self.tried:
            best = max(self.tried.values(), key=lambda s: s.value)
            said.append(f"Held-out log-likelihood in nats a row: {self.tried[self.number]} with {self.number}; best of {len(self.tried)} numbers tried: {best}")
        said += [f"Agreement with labels, {name}: {sure}" for name, sure in self.agreement.items()]
        return [f"{line}." for line in said]

    def write(self, path: Path) -> None:
        """row, file where known, cluster, probability, and label where known, as .csv or .parquet."""
        write_frame(path, self.rows.table({"cluster": self.cluster, "probability": self.probability}))


def has_clusters(run: Run) -> bool:
    """Whether the prior of a run is a mixture in a slot of its own."""
    try:
        first = next(lot(run, None, Wish("train", 1)).batches())
        cluster(run, torch.as_tensor(content(first[run.field.name])), 1)
    except UsageError:
        return False
    return True


def require_table_writer(path: Path, *read: Path) -> None:
    """Raises UsageError where rows of names and numbers cannot be written to `path`, or it is a file that is `read`."""
    require_polars()
    require_frame_writer(path, *read)


@by_name
def clusters(run: Run, rows: Any = None, by: str | None = None, number: int | None = None, wish: Wish = USUAL, seed: int = 0) -> Clustered:
    """Rows in clusters, by the name of a way in `CLUSTERINGS`, or `prior`: the mixture that the run's prior is, and the default where it is one, else `gmm`.

    The others are found among the posterior means of at most 10,000 training rows, without a label; their number, unless it is said, is the
    smallest whose likelihood on validation rows is not surely below the best one's. Where the rows have labels: NMI, adjusted Rand index, and the accuracy of
    the best matching of clusters to classes (noise counts as wrong), with the intervals of a jackknife. Raises UsageError for an unknown way, a number below 1
    or above that of different latents, latents that do not vary, and where `lot` does.
    """
    require_learners()
    require_untold(run)
    if number is not None and number < 1:
        raise UsageError(f"number is {number}, and there is at least one cluster; give a whole number from 1 upwards")
    of = lot(run, rows, wish)
    by = by or ("prior" if has_clusters(run) else "gmm")
    found, belong = _of_prior(run, of, number, seed) if by == "prior" else _of_latents(run, of, CLUSTERINGS[by], number, seed)
    best = belong.max(1, initial=0.0)
    index = np.where(best > 0, belong.argmax(1) if found.number else -1, -1)
    notes = [*of.notes, *(["no cluster was found: the latents look like one cloud"] if not found.number else [])]
    told = _agreement(index, of.labels) if of.labels is not None else {}
    return Clustered(run.name, of, by, found.number, index, np.where(best > 0, best, 1.0), found.tried, told, tuple(notes))


def _of_prior(run: Run, of: Lot, number: int | None, seed: int) -> tuple[Found, np.ndarray]:
    if number is not None:
        raise UsageError("the clusters of a prior are its components, whose number the training chose; leave --number out, or choose gmm or kmeans")
    parts = []
    for batch in of.batches():
        parts.append(cluster(run, torch.as_tensor(content(batch[run.field.name])), seed=seed).double().cpu().numpy())
        tell("clusters of rows", sum(map(len, parts)) / of.size)
    belong = np.concatenate(parts)
    return Found(belong.shape[1], lambda z: z), belong


def _of_latents(run: Run, of: Lot, finder: Finder, number: int | None, seed: int) -> tuple[Found, np.ndarray]:
    training = codes(run, lot(run, None, Wish("train", TRAINING)))
    validation = codes(run, lot(run, None, Wish("validation", TRAINING)))
    different = len(np.unique(training, axis=0))
    if different < max(2, number or 0):
        rest = "the posterior has collapsed" if different < 2 else "ask for fewer"
        raise UsageError(f"{number or 2} clusters need as many different latents, and the training rows have {different}; {rest}")
    train, held = levelled(training, validation)
    found = finder(Setting(train, held, number, seed))
    return found, np.asarray(found.belong(levelled(training, codes(run, of))[1])).reshape(of.size, found.number)


def _agreement(index: np.ndarray, labels: np.ndarray) -> dict[str, Sure]:
    """NMI, ARI and matched accuracy; nothing where all labels are equal, for then they tell nothing."""
    if len(np.unique(labels)) < 2:
        return {}

    def statistic(kept: np.ndarray) -> np.ndarray:
        inside = kept[index[kept] >= 0]
        right = matched(index[inside], labels[inside]) * len(inside) / len(kept) if len(inside) else 0.0
        return np.array([*agreement(index[kept] + 1, labels[kept])[:2], right])

    nmi, ari, accuracy = left_out(statistic, len(labels))
    return {"nmi": within(nmi), "ari": Sure(ari.value, ari.low, min(1.0, ari.high)), "accuracy": within(accuracy)}
