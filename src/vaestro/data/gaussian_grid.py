"""Twenty-five narrow Gaussians on a 5 x 5 grid of the plane: data whose every mode and whose exact density are known."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vaestro.data.cache import Progress
from vaestro.data.kinds import Array
from vaestro.data.schema import Field, Real
from vaestro.errors import UsageError

NAME = "gaussian-grid"
SIDE, GAP, DEVIATION = 5, 2.0, 0.05  # modes a side, between neighbours, of each mode: as in Srivastava et al. 2017 and Lin et al. 2018
MODES = SIDE * SIDE
CLASSES = tuple(map(str, range(MODES)))
STEP = 2.0**-12  # what coordinates are rounded to, so that the last bits of a machine's logarithm do not show
ROWS = {"train": 50_000, "validation": 10_000, "test": 10_000}
FIELD = Field("x", Real(STEP), (2,))
SEED = 20260102


def centres() -> NDArray[np.float64]:
    """The means of the modes, [25, 2]: (-4, -4), (-4, -2), ..., (4, 4)."""
    line = GAP * (np.arange(SIDE) - SIDE // 2)
    return np.stack(np.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)


def drawn(rows: int, seed: tuple[int, ...]) -> tuple[Array, Array]:
    """Points [rows, 2] in float32 and the modes they come from [rows], by Box and Muller's transform of the raw stream of Philox."""
    words = np.random.Philox(np.random.SeedSequence(seed)).random_raw(3 * rows).reshape(3, rows)
    mode = (words[0] % np.uint64(MODES)).astype(np.int64)
    u, v = ((words[1:] >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius, angle = np.sqrt(-2 * np.log(u)), 2 * np.pi * v
    points = centres()[mode] + DEVIATION * radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    return (np.rint(points / STEP) * STEP).astype(np.float32), mode


def bring(path: Path | None, offline: bool, progress: Progress) -> Mapping[str, tuple[Array, Array]]:
    """Points and modes of each split; raises UsageError for a path, for there is nothing to read."""
    if path is not None:
        raise UsageError(f"{NAME} is drawn by code and not read from a path; leave the path out")
    return {split: drawn(rows, (SEED, number)) for number, (split, rows) in enumerate(ROWS.items())}


def log_density(x: Array) -> NDArray[np.float64]:
    """log p(x) of points [n, 2] in nats, [n]: log (1/25) sum_k N(x; c_k, 0.05^2 I); minus infinity is never reached before float64 ends."""
    squares = np.square(np.asarray(x, np.float64)[:, None] - centres()).sum(-1) / (2 * DEVIATION**2)
    least = squares.min(1)
    return np.asarray(np.log(np.exp(least[:, None] - squares).mean(1)) - least - np.log(2 * np.pi * DEVIATION**2))


def entropy() -> float:
    """The differential entropy of a row in nats, log 25 + log(2 pi e 0.05^2): modes are forty deviations apart, so that none overlap."""
    return float(np.log(MODES) + np.log(2 * np.pi * np.e * DEVIATION**2))


def modes(x: Array, deviations: float = 3.0) -> NDArray[np.int64]:
    """The mode that each point [n, 2] belongs to, [n]: that of the nearest centre if it is within so many deviations, else -1 (NaN too)."""
    away = np.sqrt(np.square(np.asarray(x, np.float64)[:, None] - centres()).sum(-1))
    nearest = np.where(np.isnan(away), np.inf, away).argmin(1)
    close = away[np.arange(len(away)), nearest] <= deviations * DEVIATION
    return np.where(close, nearest, -1).astype(np.int64)
