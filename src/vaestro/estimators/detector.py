"""Rows that do not belong."""

import math
import warnings
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import OutlierMixin

from vaestro.data.kinds import Array
from vaestro.errors import Caveat
from vaestro.estimators.density import SAMPLES, Scored
from vaestro.estimators.readers import share
from vaestro.evaluation.conformal import needed, ranked


class VAEDetector(OutlierMixin, Scored):  # type: ignore[misc]
    """Rows of low density, at an alarm rate that holds: of rows like those of training, a share of at most `level` is flagged on average.

    A share `calibration` of the rows is kept from training and scored by log p(x). A row is flagged, predict -1, where its conformal p-value
    p = (1 + #{calibration scores <= its own}) / (m + 1) is at most `level`; for exchangeable rows P(p <= level) <= level, whatever the model is
    (Vovk et al. 2005; Bates et al. 2023, section 2.1). That is a rate over calibration sets: given one set of m rows it is Beta distributed.

    Fitted: `offset_` is the score below which a row is flagged; `calibration_scores_` are the m scores, ascending. The other parameters are those of
    VAEDensity. With m < 1 / level - 1 nothing can be flagged, which is said as a Caveat.
    """

    _kept: ClassVar[dict[str, type]] = {"offset_": float, "calibration_scores_": np.ndarray}
    level: float
    calibration: float
    offset_: float
    calibration_scores_: NDArray[np.float64]

    def __init__(  # noqa: PLR0913 (the parameters of an estimator; fit looks at them)
        self,
        recipe: Any = "vae",
        *,
        level: Any = 0.05,
        calibration: Any = 0.25,
        latents: Any = None,
        steps: Any = 2000,
        batch_size: Any = None,
        samples: Any = SAMPLES,
        columns: Any = None,
        validation_fraction: Any = 0.1,
        random_state: Any = None,
        device: Any = None,
    ) -> None:
        super().__init__(
            recipe,
            latents=latents,
            steps=steps,
            batch_size=batch_size,
            samples=samples,
            columns=columns,
            validation_fraction=validation_fraction,
            random_state=random_state,
            device=device,
        )
        self.level = level
        self.calibration = calibration

    def fit(self, X: Any, y: Any = None) -> "VAEDetector":
        """Train on some of the rows X [n, columns] and calibrate on the others; y is not looked at. Raises ValueError for what does not fit."""
        for name, value in (("level", self.level), ("calibration", self.calibration)):
            share(name, value)
        held, _ = self._learnt(X)
        order = np.random.default_rng([self._seed, 2]).permutation(len(held))
        m = min(round(self.calibration * len(held)), len(held) - 1)
        self._train_scored(held[np.sort(order[m:])])
        self.calibration_scores_ = np.sort(self._log_density(torch.from_numpy(held[order[:m]]))) if m else np.zeros(0)
        place = math.floor(self.level * (m + 1) + 1e-9)  # 0.05 * 20 is a little less than 1
        self.offset_ = float(self.calibration_scores_[place - 1]) if place else -math.inf
        if not place:
            warnings.warn(
                f"{m} calibration rows are too few for level {self.level:g}, so nothing will be flagged; give {needed(self.level)} or more",
                Caveat,
                stacklevel=2,
            )
        return self

    def p_values(self, X: Any) -> Array:
        """(1 + #{calibration scores <= log p(x)}) / (m + 1) of every row, [n]: how usual it is among rows that training did not see."""
        return ranked(-self.calibration_scores_, -self.score_samples(X))

    def decision_function(self, X: Any) -> Array:
        """score_samples - offset_, [n], in nats: below 0 where a row is flagged."""
        scores = self.score_samples(X)
        return np.asarray(np.where(scores == self.offset_, 0.0, scores - self.offset_))  # infinity less infinity is no number

    def predict(self, X: Any) -> NDArray[np.int64]:
        """-1 for rows that are flagged and 1 for the others, [n]."""
        return np.where(self.decision_function(X) < 0, -1, 1)
