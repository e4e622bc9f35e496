"""Rows in clusters."""

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClusterMixin

from vaestro.data.kinds import Array
from vaestro.estimators.base import VAEEstimator
from vaestro.estimators.readers import refusing
from vaestro.estimators.scoring import clustered

DRAWS = 16


class VAEClusterer(ClusterMixin, VAEEstimator):  # type: ignore[misc]
    """The clusters of a prior that is a mixture, p(c | x) = E_q(z|x)[p(c | z)]: what KMeans and GaussianMixture do, in the latents of a VAE.

    n_clusters: the keyword `components` of the recipe, which is `vade` (Jiang et al. 2017) unless told otherwise; any recipe whose prior is a mixture will
    do. The other parameters are those of VAEEstimator. Fitted: `labels_` are the clusters of the rows that it was fitted to, 0 being
    the largest and empty ones the last; `order_` are the components of the prior in that order.
    """

    _kept: ClassVar[dict[str, type]] = {"labels_": np.ndarray, "order_": np.ndarray}
    n_clusters: int
    labels_: NDArray[np.int64]
    order_: NDArray[np.int64]

    def __init__(  # noqa: PLR0913 (the parameters of an estimator; fit looks at them)
        self,
        n_clusters: Any = 8,
        *,
        recipe: Any = "vade",
        latents: Any = None,
        steps: Any = 2000,
        batch_size: Any = None,
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
        self.n_clusters = n_clusters

    def _keywords(self) -> dict[str, Any]:
        """What the parameters say of the recipe."""
        return {**super()._keywords(), "components": self.n_clusters}

    def fit(self, X: Any, y: Any = None) -> "VAEClusterer":
        """Train on rows X [n, columns]; y is not looked at. Raises ValueError for what does not fit, and for a recipe whose prior is no mixture."""
        held, _ = self._learnt(X)
        self._train(held)
        with refusing():
            found = self._memberships(torch.from_numpy(held)).argmax(1).numpy()
        self.order_ = np.argsort(-np.bincount(found, minlength=self.n_clusters), kind="stable")
        self.labels_ = self.predict(X)
        return self

    def predict_proba(self, X: Any) -> Array:
        """p(c | x) of every cluster, [n, n_clusters], by 16 draws of q(z | x)."""
        held = self._held(X)
        return self._say(self._memberships(held)[:, torch.from_numpy(self.order_)], X)

    def _memberships(self, held: torch.Tensor) -> torch.Tensor:
        found = clustered(self.run_, held, DRAWS, self._seed).to(torch.float64)
        return found / found.sum(1, keepdim=True)

    def predict(self, X: Any) -> NDArray[np.int64]:
        """The most probable cluster of every row, [n]."""
        return np.asarray(self.predict_proba(X).argmax(1), dtype=np.int64)
