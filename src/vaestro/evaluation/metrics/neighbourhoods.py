"""Whether neighbours stay neighbours: trustworthiness and continuity of the latents as a map of the rows."""

from functools import partial

import numpy as np

from vaestro.errors import UsageError
from vaestro.evaluation.metrics.base import METRICS, Direction, Group, Metric, Need, Score
from vaestro.evaluation.metrics.encodings import held_codes, held_values
from vaestro.evaluation.metrics.subject import Subject

NEIGHBOURS = 12
MOST = 2000  # rows, whose ranks are quadratic


def ranks(rows: np.ndarray) -> np.ndarray:
    """Each row's ranking of the others by Euclidean distance, [n, n]: entry (i, j) is 1 where j is nearest to i; 0 on the diagonal."""
    from scipy.spatial.distance import cdist

    d = cdist(rows, rows)
    np.fill_diagonal(d, -1.0)
    order = np.argsort(d, 1, kind="stable")
    found = np.empty_like(order)
    np.put_along_axis(found, order, np.arange(len(rows))[None].repeat(len(rows), 0), 1)
    return found


def intrusion(true: np.ndarray, shown: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """1 - 2 / (k (2n - 3k - 1)) sum over the k neighbours in `shown` of max(0, true rank - k), for each row [n].

    The mean is the trustworthiness of `shown` (Venna & Kaski 2001); with the two changed over, its continuity. Both are matrices of `ranks`.
    Raises UsageError unless there are more than 2k rows.
    """
    n = len(true)
    if n <= 2 * k:
        raise UsageError(f"neighbourhoods of {k} need more than {2 * k} rows, and there are {n}; score more rows")
    neighbour = (shown >= 1) & (shown <= k)
    return np.asarray(1 - 2 / (k * (2 * n - 3 * k - 1)) * (np.maximum(true - k, 0) * neighbour).sum(1, dtype=np.float64))


def maps(subject: Subject) -> dict[str, Score]:
    """Trustworthiness and continuity of the posterior means of the scored rows, at most 2,000."""
    codes, values = held_codes(subject)[:MOST], held_values(subject)[:MOST]
    seen, known = ranks(codes), ranks(values)
    return {"trustworthiness": Score.of_rows(intrusion(known, seen)), "continuity": Score.of_rows(intrusion(seen, known))}


def column(subject: Subject, name: str) -> Score:
    """One of the two numbers of `maps`, which are made once."""
    return subject.once("maps", lambda: maps(subject))[name]


WORDS = f"{NEIGHBOURS} neighbours, Euclidean, of posterior means and of the rows' own numbers; the first {MOST:,} rows scored at most"

for name, title in (
    ("trustworthiness", "neighbours in the latents that are neighbours in the data"),
    ("continuity", "neighbours in the data that stay neighbours in the latents"),
):
    METRICS.enter(
        Metric(
            name, title, "share", Direction.HIGHER, WORDS, "Venna & Kaski 2001", partial(column, name=name), frozenset({Need.LATENTS}),
            group=Group.LATENTS,
        ),
    )  # fmt: skip
