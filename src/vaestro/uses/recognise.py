"""Rows recognised as the nearest known class, or as unknown at a stated rate of false rejections; few shots of classes never seen."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from vaestro.errors import UsageError
from vaestro.evaluation.conformal import needed, ranked
from vaestro.evaluation.metrics.encodings import require_learners
from vaestro.evaluation.sure import Sure, mean, room, share, within
from vaestro.progress import tell
from vaestro.registry import Registry
from vaestro.training.finding import by_name
from vaestro.training.runs import Run
from vaestro.uses.classify import require_untold
from vaestro.uses.embed import codes
from vaestro.uses.rows.frames import write_frame
from vaestro.uses.rows.lots import USUAL, Lot, Wish, lot

UNKNOWN = "unknown"

Distances: TypeAlias = Callable[[np.ndarray], np.ndarray]  # latents [n, latents] -> distance to every class, [n, classes]
Measure: TypeAlias = Callable[[np.ndarray, np.ndarray], Distances]  # (latents of known rows, their classes 0 .. c - 1)
MEASURES: Registry[Measure] = Registry("distance to classes")


def centres(known: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The mean of the latents of each class, [classes, latents]."""
    number = int(labels.max()) + 1
    sums = np.zeros((number, known.shape[1]))
    np.add.at(sums, labels, known)
    return np.asarray(sums / np.bincount(labels, minlength=number)[:, None])


@MEASURES.register
def euclidean(known: np.ndarray, labels: np.ndarray) -> Distances:
    """The Euclidean distance to the mean of a class, ||z - m_c|| (prototypes: Snell et al. 2017, eq. 1)."""
    from scipy.spatial.distance import cdist

    middle = centres(known, labels)
    return lambda z: np.asarray(cdist(z, middle))


@MEASURES.register
def mahalanobis(known: np.ndarray, labels: np.ndarray) -> Distances:
    """sqrt((z - m_c)' S^-1 (z - m_c)), S the covariance within classes, shared by all and shrunk (Lee et al. 2018, eq. 2; Ledoit & Wolf 2004)."""
    from scipy.linalg import solve_triangular
    from scipy.spatial.distance import cdist
    from sklearn.covariance import ledoit_wolf

    middle = centres(known, labels)
    free = len(known) - len(middle)
    if free < 1:
        raise UsageError("every class has a single known row, so nothing is known of how rows vary within one; choose --by euclidean, or give more shots")
    within = known - middle[labels]
    scale = np.sqrt(np.square(within).sum(0) / free)
    scale = np.where(scale > 0, scale, scale.max() or 1.0)  # a latent that never varies within a class says as much as the one that varies most
    covariance = ledoit_wolf(within / scale, assume_centered=True)[0] * len(known) / free
    root = np.linalg.cholesky(covariance + 1e-9 * np.eye(len(covariance)))

    def whiten(z: np.ndarray) -> np.ndarray:
        return np.asarray(solve_triangular(root, (z / scale).T, lower=True).T)

    return lambda z: np.asarray(cdist(whiten(z), whiten(middle)))


class Recognising(NamedTuple):
    """By which distance (`MEASURES`), from how many rows of a class (`shots`; half of them if left out), how many known rows may be rejected, and a seed."""

    by: str = "euclidean"
    shots: int | None = None
    reject: float = 0.05
    seed: int = 0


USUAL_WAY = Recognising()


@dataclass(frozen=True)
class Recognised:
    """The nearest class of each query, its distance, its p-value of being of any known class, and whether that is too small: `unknown`."""

    run: str
    rows: Lot
    how: Recognising
    classes: tuple[str, ...]
    nearest: np.ndarray  # [n], index in `classes`
    distance: np.ndarray
    p: np.ndarray
    calibration: int  # rows of known classes that p-values come from
    accuracy: Sure | None = None  # of queries of known classes: the nearest class is theirs, whether or not it was rejected
    rejected: Sure | None = None  # share of queries of known classes that were called unknown, wrongly
    caught: Sure | None = None  # share of queries of other classes that were called unknown, rightly
    notes: tuple[str, ...] = ()

    @property
    def unknown(self) -> np.ndarray:
        """Which queries are called unknown, [n]."""
        return np.asarray(self.p <= self.how.reject)

    @property
    def said(self) -> list[str]:
        """The name of the class of each query, or `unknown`."""
        return [UNKNOWN if strange else self.classes[i] for i, strange in zip(self.nearest, self.unknown, strict=True)]

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        about = {"run": self.run, "queries": self.rows.size, "data": self.rows.name, "known": list(self.classes), **self.how._asdict()}
        numbers = {"accuracy": self.accuracy, "rejected": self.rejected, "caught": self.caught}
        said = {"calibration_rows": self.calibration, "unknown": int(self.unknown.sum()), "notes": list(self.notes)}
        return {**about, **said, **{n: None if s is None else s._asdict() for n, s in numbers.items()}}

    @property
    def lines(self) -> list[str]:
        """What was found, in words."""
        able = "" if self.calibration >= needed(self.how.reject) else ", as too few rows calibrate for any to be"
        said = [f"{self.rows.size:,} queries, {len(self.classes)} known classes, {int(self.unknown.sum()):,} unknown{able}"]
        if self.accuracy is not None and self.rejected is not None and self.caught is not None:
            known = [f"nearest class right {self.accuracy}", f"called unknown {self.rejected}, at most {self.how.reject:g} by design"]
            said += [f"Of queries of known classes: {'; '.join(known)}"] if self.accuracy.value == self.accuracy.value else []
            said += [f"Of queries of other classes: called unknown {self.caught}"] if self.caught.value == self.caught.value else []
        return [f"{line}." for line in said]

    def write(self, path: Path) -> None:
        """row, file where known, said, nearest, distance, p, and label where known, as .csv or .parquet."""
        nearest = [self.classes[i] for i in self.nearest]
        write_frame(path, self.rows.table({"said": self.said, "nearest": nearest, "distance": self.distance, "p": self.p}))


@by_name
def recognise(run: Run, gallery: Any, query: Any, how: Recognising = USUAL_WAY, wish: Wish = USUAL) -> Recognised:
    """Each query's nearest class of those in the gallery, by its posterior mean, or `unknown`.

    `shots` rows of each class of the gallery, chosen at random, or half of them, make the classes; the others calibrate: a query is unknown where its conformal
    p-value is at most `reject`, so that of queries of known classes that come as the gallery did, at most that share is rejected. Classes need not have been
    seen in training. Where the queries have labels: accuracy, false rejections and unknowns caught, with exact intervals.
    Raises UsageError for an unknown distance, a rate outside (0, 1), a gallery without labels or classes, and where `lot` does.
    """
    measure = MEASURES[how.by]
    require_learners()
    require_untold(run)
    if not 0 < how.reject < 1:
        raise UsageError(f"the rate of false rejections is {how.reject:g}; give one above 0 and below 1")
    known, of = lot(run, gallery, wish), lot(run, query, wish)
    labels = known.labelled()
    z, asked = codes(run, known), codes(run, of)
    kept, rest = halves(labels, how.shots, how.seed)
    present, index = np.unique(labels[kept], return_inverse=True)
    away = measure(z[kept], index)
    calibration, found = away(z[rest]).min(1) if len(rest) else np.zeros(0), away(asked)
    classes = tuple(known.classes[i] if known.classes else str(i) for i in present)
    near, p = found.argmin(1), ranked(calibration, found.min(1))
    notes = [*known.notes, *of.notes, *_told(len(rest), how.reject)]
    made = Recognised(run.name, of, how, classes, near, found.min(1), p, len(rest), notes=tuple(dict.fromkeys(notes)))
    return made if of.labels is None else _judged(made)


def _told(m: int, reject: float) -> list[str]:
    if m >= needed(reject):
        return []
    return [f"{m} rows of the gallery are left to calibrate, so nothing is ever called unknown at a rate of {reject:g}, which takes {needed(reject):,}"]


def halves(labels: np.ndarray, shots: int | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which rows make the classes, and which calibrate: `shots` of each class, or half of it, rounded up, at random; the others.

    Raises UsageError for fewer than one shot, or a class with fewer rows.
    """
    if shots is not None and shots < 1:
        raise UsageError(f"shots is {shots}, and a class is known by at least one row; give a whole number from 1 upwards")
    rng, kept = np.random.default_rng(seed), []
    for c, count in zip(*np.unique(labels, return_counts=True), strict=True):
        if shots is not None and count < shots:
            raise UsageError(f"a class of the gallery has {count} rows, fewer than the {shots} shots that were asked for; ask for fewer, or add rows")
        kept.append(rng.permutation(np.flatnonzero(labels == c))[: shots or (count + 1) // 2])
    inside = np.sort(np.concatenate(kept))
    return inside, np.setdiff1d(np.arange(len(labels)), inside)


def _judged(made: Recognised) -> Recognised:
    of = made.rows
    names = np.array(of.classes if of.classes else [str(i) for i in range(int(of.labelled().max()) + 1)])[of.labelled()]
    inside = np.isin(names, made.classes)
    right = np.array(made.classes)[made.nearest] == names
    return replace(made, accuracy=share(right[inside]), rejected=share(made.unknown[inside]), caught=share(made.unknown[~inside]))


class Episodes(NamedTuple):
    """A few-shot task: `ways` classes, `shots` known rows and `queries` unknown rows of each, so many times, under a seed."""

    ways: int = 20
    shots: int = 1
    queries: int = 5
    times: int = 200
    seed: int = 0


def few_shot(z: np.ndarray, labels: np.ndarray, task: Episodes, by: str = "euclidean") -> Sure:
    """The share of queries whose nearest class of `ways` is theirs, the mean of many episodes with its t-interval over them.

    `z` are latents [n, latents] of rows of classes that no training saw. Each episode draws classes and rows anew (Vinyals et al. 2016, section 4.1).
    Raises UsageError where there are fewer classes than ways with shots + queries rows.
    """
    measure, rng = MEASURES[by], np.random.default_rng(task.seed)
    of = {int(c): np.flatnonzero(labels == c) for c in np.unique(labels)}
    able = [c for c, rows in of.items() if len(rows) >= task.shots + task.queries]
    if len(able) < task.ways or min(task.ways, task.shots, task.queries, task.times) < 1:
        raise UsageError(f"{task} needs {task.ways} classes with {task.shots + task.queries} rows each, and there are {len(able)}; ask for fewer")
    right = []
    for i in range(task.times):
        chosen = rng.choice(able, task.ways, replace=False)
        rows = np.stack([rng.permutation(of[c])[: task.shots + task.queries] for c in chosen])
        away = measure(z[rows[:, : task.shots].ravel()], np.repeat(np.arange(task.ways), task.shots))
        asked = z[rows[:, task.shots :].ravel()]
        right.append(float((away(asked).argmin(1) == np.repeat(np.arange(task.ways), task.queries)).mean()))
        if i % 20 == 0:
            tell("episodes", i / task.times)
    tell("episodes", 1.0)
    return within(room(mean(np.array(right)), task.times))
