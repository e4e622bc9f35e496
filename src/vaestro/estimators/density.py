"""The density of rows."""

from typing import Any

import numpy as np
import torch
from sklearn.base import DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from vaestro.data.kinds import Array
from vaestro.estimators.base import VAEEstimator
from vaestro.estimators.readers import Held, refusing, whole
from vaestro.estimators.scoring import log_density, require_density
from vaestro.uses.generate import sample

SAMPLES = 100


class Scored(VAEEstimator):
    """An estimator that says log p(x); `samples` is how many draws of the latents its estimate takes."""

    samples: int

    def __init__(  # noqa: PLR0913 (the parameters of an estimator; fit looks at them)
        self,
        recipe: Any = "vae",
        *,
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
            columns=columns,
            validation_fraction=validation_fraction,
            random_state=random_state,
            device=device,
        )
        self.samples = samples

    def _train_scored(self, held: Held) -> None:
        whole("samples", self.samples)
        self._require("density", "use a recipe such as vae or iwae")
        learnt = self._train(held)
        with refusing():
            require_density(self.run_, torch.from_numpy(learnt[:1]))

    def _log_density(self, held: torch.Tensor) -> Array:
        found: Array = log_density(self.run_, held, int(self.samples), self._seed).numpy()
        return found - self._reader.log_volume

    def score_samples(self, X: Any) -> Array:
        """log p(x) of every row, [n], float64, in nats and in X's own units, by importance sampling: a lower bound on average, tighter with more `samples`.

        Burda et al. 2016, equation 8. Minus infinity for a row so far away that its density is no number.
        """
        return self._log_density(self._held(X))


class VAEDensity(DensityMixin, Scored):  # type: ignore[misc]
    """The density of rows, log p(x) in nats, and new rows from it: what GaussianMixture and KernelDensity do, with a VAE.

    `samples` is how many draws of the latents score_samples takes; the other parameters and attributes are those of VAEEstimator.
    """

    def fit(self, X: Any, y: Any = None) -> "VAEDensity":
        """Train on rows X [n, columns]; y is not looked at. Raises ValueError for parameters and data that do not fit, and for a recipe without a density."""
        self._train_scored(self._learnt(X)[0])
        return self

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of log p(x) over the rows, in nats, as GaussianMixture has it; y is not looked at."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: Any = 1, random_state: Any = None) -> Any:
        """Whole new rows z ~ p(z), x ~ p(x | z), in X's own units: [n_samples, columns], or a frame of polars where a frame of mixed columns was read.

        Without a `random_state` the estimator's own seed is taken, so the rows are the same every time. Raises ValueError for a
        number that is not whole, or below one.
        """
        check_is_fitted(self)
        n_samples = whole("n_samples", n_samples)
        seed = self._seed if random_state is None else int(check_random_state(random_state).randint(2**31 - 1))
        return self._reader.unpack(sample(self.run_, n_samples, seed).cpu().numpy().astype(np.float64))
