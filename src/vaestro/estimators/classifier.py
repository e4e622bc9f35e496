"""Rows in classes that are known for some of them."""

import inspect
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite, check_consistent_length, column_or_1d

from vaestro.api import to_call
from vaestro.data.kinds import Array
from vaestro.estimators.base import Labels, VAEEstimator
from vaestro.estimators.readers import Refused, refusing
from vaestro.estimators.scoring import classified
from vaestro.recipes import Call

UNLABELLED = -1


class VAEClassifier(ClassifierMixin, VAEEstimator):  # type: ignore[misc]
    """A semi-supervised classifier: it learns q(y | x) from the rows whose class is known, and p(x) from all; -1 in y, as in scikit-learn, is an unknown class.

    The recipe is `m2` (Kingma et al. 2014) unless told otherwise, with small networks and labels that weigh much (`alpha`), for log p(x) of many columns
    outweighs them; `m1_m2` is the other one with classes. y says which labels there are, so the keywords `labels`, `label` and `known` are set by it.
    The other parameters are those of VAEEstimator. Fitted: `classes_`.
    """

    _kept: ClassVar[dict[str, type]] = {"classes_": np.ndarray}
    classes_: NDArray[Any]

    def __init__(  # noqa: PLR0913 (the parameters of an estimator; fit looks at them)
        self,
        recipe: Any = "m2:alpha=10,hidden=128,width=128",
        *,
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

    def _keywords(self) -> dict[str, Any]:
        """What the parameters say of the recipe."""
        return {**super()._keywords(), "label": "label", "labels": None, "known": "known"}

    def _call(self) -> Call:
        """The recipe with what the parameters say of it; raises Refused for one that learns no classes from some labels."""
        with refusing():
            entry = to_call(self.recipe).entry
        if not {"label", "labels", "known"} <= inspect.signature(entry.build).parameters.keys():
            raise Refused(f"recipe {entry.name!r} does not learn classes from the rows whose class is known; use m2 or m1_m2")
        return super()._call()

    def fit(self, X: Any, y: Any) -> "VAEClassifier":
        """Train on rows X [n, columns] of classes y [n], of which -1 is unknown. Raises ValueError for what does not fit, and for fewer than two classes."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None; give a class for every row, -1 where it is unknown")
        y = column_or_1d(y, warn=True)
        assert_all_finite(y, input_name="y")
        known = _known(y)
        check_classification_targets(y[known] if known.any() else y)
        held, seen = self._learnt(X)
        check_consistent_length(seen, y)
        y, known = y[seen], known[seen]
        self.classes_, index = np.unique(y[known], return_inverse=True)
        if len(self.classes_) < 2:
            raise Refused(
                f"y has {len(self.classes_)} class among the rows whose class is known, and a classifier tells two apart or more; -1 is an unknown class"
            )
        labels = np.zeros(len(y), np.int64)
        labels[known] = index
        self._train(held, Labels(labels, known, tuple(map(str, self.classes_))))
        return self

    def predict_proba(self, X: Any) -> Array:
        """q(y | x), the probability of every class in the order of `classes_`, [n, classes]: `vaestro.classify` of the rows."""
        held = self._held(X)
        found = classified(self.run_, held).to(torch.float64)
        return self._say(found / found.sum(1, keepdim=True), X)

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of every row, [n]."""
        best = self.predict_proba(X).argmax(1)
        return np.asarray(self.classes_[best])


def _known(y: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a class is known: everywhere but where y is the number -1."""
    if y.dtype.kind in "US":
        return np.ones(len(y), dtype=bool)
    return np.array([v != UNLABELLED for v in y.tolist()], dtype=bool)
