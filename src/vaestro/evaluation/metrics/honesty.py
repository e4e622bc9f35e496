"""Metrics of memorisation: copies among the samples, and training rows that the scores betray."""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaestro.errors import UsageError
from vaestro.evaluation.likelihood import importance
from vaestro.evaluation.metrics.base import METRICS, Direction, Group, Metric, Need, Score, jackknife
from vaestro.evaluation.metrics.memorisation import celled, copied, copy_ratio, copying_z, nearest, recognised, recognised_error, shared_cells
from vaestro.evaluation.metrics.subject import Subject
from vaestro.evaluation.scope import device_of, each
from vaestro.models.classical.clusters import k_means
from vaestro.seeds import forked

TRAIN = "train"
FAKE, HELD, LEARNT = 2000, 10_000, 60_000  # rows at most: generated, held out, of the training split
SCORED, SAMPLES = 5000, 10  # rows a side whose membership is guessed, and importance samples of each
CELLS, A_CELL = 50, 40  # clusters of training rows at most, and generated or unseen rows that there must be for each
GROUPS = 10  # of unseen rows, left out in turn
LEAST = 100  # strangers, so that one in a hundred is a row


class Sides(NamedTuple):
    """Features whose distances tell of copies: of generated rows, of training rows, and of rows of all other splits, for none of them was learnt."""

    fake: Tensor
    train: Tensor
    held: Tensor


def sides(subject: Subject, features: str) -> Sides:
    """At most 2,000 generated, 60,000 training and 10,000 unseen rows through a network, once."""

    def looked() -> Sides:
        network = subject.network(features)
        others = [s for s in subject.beside.data.splits if s != TRAIN]
        held = torch.cat([subject.of_rows(network, s, HELD // len(others)) for s in others])
        return Sides(subject.pair(features).fake[:FAKE], subject.of_rows(network, TRAIN, LEARNT), held)

    return subject.once(f"sides {features}", looked)


class Places(NamedTuple):
    """How far generated and unseen rows lie from others: squared distances of features to the nearest."""

    fake_to_train: Tensor
    held_to_train: Tensor
    fake_to_held: Tensor  # to each of ten random groups of the unseen rows, [n, 10]
    held: tuple[int, ...]  # rows of each of these groups
    train: int  # training rows


def places(subject: Subject, features: str) -> Places:
    """The distances between the `sides`, measured once a network."""

    def measured() -> Places:
        fake, train, held = sides(subject, features)
        groups = held[torch.from_numpy(np.random.default_rng(subject.seed).permutation(len(held)))].tensor_split(min(GROUPS, len(held)))
        to_held = torch.stack([nearest(fake, group) for group in groups], 1)
        return Places(nearest(fake, train), nearest(held, train), to_held, tuple(map(len, groups)), len(train))

    return subject.once(f"places {features}", measured)


def copy_distance(subject: Subject, features: str) -> Score:
    """The median distance of generated rows to the training rows over that of held-out rows."""
    known = places(subject, features)
    fake, held = known.fake_to_train, known.held_to_train
    value = copy_ratio(fake, held)
    if np.isnan(value):
        raise UsageError(f"half of the held-out rows are copies of training rows, so nothing can be told of copies by {subject.name}; see `vaestro data check`")
    errors = jackknife(lambda i, j: np.array([copy_ratio(fake[torch.from_numpy(j)], held[torch.from_numpy(i)])]), len(held), len(fake), seed=subject.seed)
    return Score(value, float(errors[0]))


def copies(subject: Subject, features: str) -> Score:
    """The share of generated rows that are copies of training rows."""
    known = places(subject, features)

    def share(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        kept, rows = torch.from_numpy(i), torch.from_numpy(j)
        to_held = known.fake_to_held[rows][:, kept].min(1).values
        return np.array([copied(known.fake_to_train[rows], to_held, known.train, sum(known.held[g] for g in i))])

    groups, fake = len(known.held), len(known.fake_to_train)
    error = jackknife(share, groups, fake, groups, subject.seed)[0] if groups == GROUPS else np.nan
    return Score(float(share(np.arange(groups), np.arange(fake))[0]), float(error))


def cellwise(subject: Subject, features: str) -> Score:
    """The cell-wise test of copying, its cells the clusters of the training rows."""
    fake, train, held = sides(subject, features)
    number = min(CELLS, len(train), max(1, min(len(fake), len(held)) // A_CELL))
    with forked(torch.device("cpu")):
        torch.manual_seed(subject.seed)
        means, _ = k_means(train, number)
    ours, theirs = (celled(rows, train, means) for rows in (fake, held))
    cells = shared_cells(ours, theirs)

    def z(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        return np.array([copying_z(ours.kept(torch.from_numpy(j)), theirs.kept(torch.from_numpy(i)), cells)])

    error = jackknife(z, len(held), len(fake), seed=subject.seed)[0]
    return Score(copying_z(ours, theirs, cells), float(error))


def membership(subject: Subject) -> Score:
    """The share of training rows that their likelihood gives away where one in a hundred held-out rows is taken for one.

    Raises UsageError for a model without a density, rows scored of the training split, or fewer than 100 rows a side.
    """
    beside = subject.beside
    if beside.split == TRAIN:
        raise UsageError(f"{subject.name} was scored on training rows, so there are no strangers to compare members with; score the test split")
    most = min(SCORED, len(beside.chosen()), beside.data.split(TRAIN).rows)
    if most < LEAST:
        raise UsageError(f"membership at one false alarm in a hundred needs at least {LEAST} rows a side, and there are {most}; score more rows")
    device = device_of(subject.model)

    def scores(split: str) -> np.ndarray:
        rows = ({n: each(v, lambda t: t.to(device)) for n, v in b.items()} for b in beside.batches(split, most))
        return importance(subject.model, rows, SAMPLES, subject.seed, name=subject.name).log_px

    members, strangers = scores(TRAIN), scores(beside.split)
    return Score(recognised(members, strangers), recognised_error(members, strangers, seed=subject.seed))


COPIES = (
    "2,000 generated rows at most, by features; training rows: at most 60,000; held out: at most 10,000 of the other splits, which count as draws of one law"
)
for name in ("judge", "pca64"):
    add = partial(Metric, needs=frozenset({Need.FEATURES, Need.SPLITS}), group=Group.HONESTY)
    METRICS.enter(
        add(
            f"copy_ratio_{name}", f"distance to training rows, over that of unseen rows ({name})", "ratio", Direction.ONE, f"medians; {COPIES}",
            "after Meehan et al. 2020, section 3", partial(copy_distance, features=name),
        ),
        add(
            f"copied_{name}", f"samples that are copies ({name})", "share", Direction.LOWER, f"nearer to a training row than chance; {COPIES}",
            "after Meehan et al. 2020, section 3", partial(copies, features=name),
        ),
        add(
            f"copying_z_{name}", f"cell-wise test of copying: below 0 copies, above 0 misses ({name})", "z", Direction.ZERO,
            f"Z-scored Mann-Whitney of distances to training rows, by at most {CELLS} k-means cells with 20 rows a side; it grows with rows; {COPIES}",
            "Meehan et al. 2020, section 4", partial(cellwise, features=name),
        ),
    )  # fmt: skip

METRICS.enter(
    Metric(
        "membership", "training rows given away by their likelihood", "share", Direction.LOWER,
        "true positives at 1 % false positives, which is 0.01 by chance; 10 importance samples; as many rows of either side, at most 5,000",
        "Carlini et al. 2022, section 4", membership, frozenset({Need.DENSITY, Need.SPLITS}), False, Group.HONESTY,
    ),
)  # fmt: skip
