"""An alarm for a stream that is no longer what it was: a conformal test martingale, which needs no model of the change."""

import bisect
import math
from dataclasses import dataclass, field

import numpy as np

from vaestro.errors import UsageError
from vaestro.evaluation.likelihood import Rows

BETS = np.array([-1.0, 0.0, 1.0])  # slopes of 1 + slope (p - 1/2)
JUMP = 0.01  # the share of capital that is spread over all bets anew before each row
HELD = 1024  # scores that wait in a short list before they are merged into the long one


class Ranks:
    """Scores in order, which grows; a number is ranked among them in the logarithm of their count."""

    def __init__(self, first: np.ndarray) -> None:
        self.long, self.short = np.sort(np.asarray(first, dtype=np.float64)), list[float]()

    def __len__(self) -> int:
        return len(self.long) + len(self.short)

    def above(self, score: float) -> tuple[int, int]:
        """How many are greater, and how many are equal."""
        low = int(np.searchsorted(self.long, score, "left")) + bisect.bisect_left(self.short, score)
        high = int(np.searchsorted(self.long, score, "right")) + bisect.bisect_right(self.short, score)
        return len(self) - high, high - low

    def add(self, score: float) -> None:
        """One more."""
        bisect.insort(self.short, score)
        if len(self.short) >= HELD:
            self.long, self.short = np.sort(np.concatenate([self.long, self.short]), kind="stable"), []


@dataclass
class Drift:
    """The simple jumper, a martingale on smoothed conformal p-values of a stream (Vovk, Petej et al. 2021, "Retrain or not retrain", algorithm 1).

    Each row's p = (#{greater} + u (#{equal} + 1)) / (n + 1), u uniform, is its rank among the n rows before it (calibration rows first). If all rows are
    exchangeable these are independent and uniform, so the capital, which starts at 1 and bets 1 + e (p - 1/2), e in {-1, 0, 1}, is a martingale:
    P(it ever reaches c) <= 1 / c (Ville 1939). `threshold` is c. Rows become stranger (small p) or suspiciously usual (large p): both win.
    Raises UsageError for a threshold of at most 1, no calibration scores, and scores that are not numbers.
    """

    calibration: np.ndarray
    threshold: float = 100.0
    seed: int = 0
    rows: int = 0  # seen so far
    alarm: int | None = None  # the first row at which the capital reached the threshold
    _ranks: Ranks = field(init=False, repr=False)
    _capital: np.ndarray = field(init=False, repr=False)
    _log: float = field(default=0.0, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.threshold > 1:
            raise UsageError(f"the threshold of the drift alarm is {self.threshold:g}, and it must be above 1: a false alarm has a chance of at most 1 / it")
        if not len(self.calibration) or np.isnan(self.calibration).any():
            raise UsageError("drift is told from calibration scores, and there are none, or some are not numbers; give rows that are known to be usual")
        self._ranks, self._capital = Ranks(self.calibration), np.full(len(BETS), 1 / len(BETS))
        self._random = np.random.default_rng(self.seed)

    def push(self, scores: np.ndarray) -> Rows:
        """The natural logarithm of the capital after each of the next rows, [m]; rows pushed together or one by one give the same."""
        scores = np.asarray(scores, dtype=np.float64).reshape(-1)
        if np.isnan(scores).any():
            raise UsageError(f"score {int(np.isnan(scores).argmax())} of the stream is not a number, so it has no rank; mend that row, or leave it out")
        found = np.empty(len(scores))
        for i, score in enumerate(scores.tolist()):
            found[i] = self._bet(self._smoothed(score))
            if self.alarm is None and found[i] >= math.log(self.threshold):
                self.alarm = self.rows
            self.rows += 1
        return found

    def _smoothed(self, score: float) -> float:
        greater, equal = self._ranks.above(score)
        p = (greater + float(self._random.random()) * (equal + 1)) / (len(self._ranks) + 1)
        self._ranks.add(score)
        return p

    def _bet(self, p: float) -> float:
        capital = ((1 - JUMP) * self._capital + JUMP / len(BETS) * self._capital.sum()) * (1 + BETS * (p - 0.5))
        total = float(capital.sum())
        self._capital = capital / total  # shares alone are kept, so that no stream is too long for floating point
        self._log += math.log(total)
        return self._log
