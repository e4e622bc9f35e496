"""Rows as latents, and back."""

from typing import Any

import numpy as np
import torch
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted

from vaestro.data.kinds import Array
from vaestro.estimators.base import VAEEstimator
from vaestro.estimators.readers import Refused, refusing
from vaestro.estimators.scoring import decoded, embedded


class VAETransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, VAEEstimator):  # type: ignore[misc]
    """Rows as the means of their latents, E_q(z|x)[z], and latents as rows, the mean of p(x | z): what PCA does, with a VAE.

    Parameters and attributes are those of VAEEstimator; two latents unless told otherwise. Any recipe with a posterior will do.
    """

    def __init__(  # noqa: PLR0913 (the parameters of an estimator; fit looks at them)
        self,
        recipe: Any = "vae",
        *,
        latents: Any = 2,
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

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn may expect: float32 stays float32."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def fit(self, X: Any, y: Any = None) -> "VAETransformer":
        """Train on rows X [n, columns]; y is not looked at. Raises ValueError for parameters and data that do not fit, and for a recipe without latents."""
        held, _ = self._learnt(X)
        self._require("reconstruction", "use a recipe such as vae")
        learnt = self._train(held)
        with refusing():
            embedded(self.run_, torch.from_numpy(learnt[:1]))
        return self

    def transform(self, X: Any) -> Array:
        """The posterior means of all latent groups, [n, latents]: `vaestro.embed` of the rows."""
        held = self._held(X)
        return self._say(embedded(self.run_, held), X)

    def inverse_transform(self, X: Any) -> Any:
        """The mean of p(x | z) for latents X [n, latents], in the units of the rows: [n, columns], or a frame of polars if rows were mixed columns.

        Raises ValueError for another number of latents, UsageError for latents that are no numbers.
        """
        check_is_fitted(self)
        Z = check_array(X, dtype=(np.float64, np.float32))
        if Z.shape[1] != self._n_features_out:
            raise Refused(f"X has {Z.shape[1]} latents, and VAETransformer has {self._n_features_out}; give latents as transform made them")
        rows = self._reader.unpack(decoded(self.run_, torch.from_numpy(Z.astype(np.float32))).numpy())
        return rows.astype(Z.dtype) if isinstance(rows, np.ndarray) else rows

    @property
    def _n_features_out(self) -> int:
        return int(embedded(self.run_, torch.zeros(1, self.run_.field.size)).shape[1])
