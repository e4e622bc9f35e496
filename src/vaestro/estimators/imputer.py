"""Gaps filled in."""

import warnings
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from vaestro.data.kinds import Array
from vaestro.data.prepare.frames import Frame, frame_of
from vaestro.data.prepare.tables import require_table
from vaestro.data.schema import Named, Ordered
from vaestro.errors import Caveat
from vaestro.estimators.base import VAEEstimator
from vaestro.estimators.readers import Mixed, Refused, like, refusing, whole
from vaestro.uses.inference.completing import SAMPLES, complete_entries, others_filled


class VAEImputer(OneToOneFeatureMixin, TransformerMixin, VAEEstimator):  # type: ignore[misc]
    """Gaps, NaN in an array or null in a frame, filled from p(x_unseen | x_seen): what IterativeImputer does, with a VAE, trained on incomplete rows exactly.

    draws: how many completions the estimate of `transform` is made from. samples: importance samples of the latents of a row (Mattei & Frellsen 2019, MIWAE,
    section 3.2). The other parameters are those of VAEEstimator; the recipe must model tables (`vae`, `iwae`, `denoising_vae`, ...).
    """

    _gaps: ClassVar[bool] = True
    draws: int
    samples: int

    def __init__(  # noqa: PLR0913 (the parameters of an estimator; fit looks at them)
        self,
        recipe: Any = "denoising_vae",
        *,
        draws: Any = 100,
        samples: Any = SAMPLES,
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
        self.draws = draws
        self.samples = samples

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn may expect: float32 stays float32."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def fit(self, X: Any, y: Any = None) -> "VAEImputer":
        """Train on rows X [n, columns] with gaps; y is not looked at. Raises ValueError for what does not fit, such as an array's column without an entry."""
        for name, number in (("draws", self.draws), ("samples", self.samples)):
            whole(name, number)
        held, _ = self._learnt(X)
        if not len(held):
            raise Refused("no row of X has an entry that was seen; give rows with values")
        self._require("density", "use a recipe such as vae or denoising_vae")
        learnt = self._train(held)
        with refusing():
            complete_entries(self.run_, torch.from_numpy(learnt[:1]), 1, 1)
        return self

    def transform(self, X: Any) -> Any:
        """X with its gaps filled in; entries that were seen stay as they are.

        An array [n, columns] by the mean of the draws. A frame of mixed columns, in the library that it came in, by their median, a category or ordered
        level by the most frequent one, a column of one value by that; other columns that are not modelled, such as ids, keep their gaps, which a Caveat says.
        """
        return self._filled(X, [self._drawn(X, int(self.draws), self._seed)])[0]

    def draw(self, X: Any, draws: Any = 10, random_state: Any = None) -> list[Any]:
        """Several completed versions of X, each one draw of x_unseen ~ p(x_unseen | x_seen): for estimates that are pooled (`vaestro.evaluation.rubin.pool`).

        Without a `random_state` the estimator's own seed is taken. Raises ValueError for a number of draws that is not whole, or below one.
        """
        check_is_fitted(self)
        draws = whole("draws", draws)
        seed = self._seed if random_state is None else int(check_random_state(random_state).randint(2**31 - 1))
        made = self._drawn(X, draws, seed)
        return self._filled(X, [one[None] for one in made])

    def _drawn(self, X: Any, draws: int, seed: int) -> Array:
        """Completions [draws, n, columns] of the rows of X as they are held; rows without gaps are repeated."""
        held = self._held(X)
        made = held.expand(draws, *held.shape).clone()
        gaps = held.isnan().any(1)
        if gaps.any():
            made[:, gaps] = complete_entries(self.run_, held[gaps], draws, int(self.samples), seed).rows.float()
        found: Array = made.numpy()
        return found

    def _filled(self, X: Any, every: list[Array]) -> list[Any]:
        """X with its gaps filled in by the estimates from each of several sets of completions [draws, n, columns]."""
        X = self._checked(X, False)
        if isinstance(self._reader, Mixed):
            table, before = require_table(self._reader.field), frame_of(X)
            frame, notes = others_filled(table, before)
            gaps = np.isnan(self._reader.pack(X))
            full = [_frame_filled(frame, gaps, self._reader, made) for made in every]
            left = [f"{n!r} ({k})" for n in table.names if (k := max(f[n].null_count() for f in full))]
            notes += [f"some gaps stay, for what they are filled with is no value of the column's type: {', '.join(left)}"] if left else []
            if notes:
                warnings.warn("; ".join(notes), Caveat, stacklevel=3)
            return [like(X, one, before) for one in full]
        return [np.where(np.isnan(X), self._reader.unpack(made.astype(np.float64).mean(0)), X).astype(X.dtype) for made in every]


def _frame_filled(frame: Frame, gaps: NDArray[np.bool_], reader: Mixed, made: Array) -> Frame:
    """A frame of polars with its gaps filled in by the medians of completions, of categories and levels by the most frequent one."""
    import polars as pl

    table = require_table(reader.field)
    columns = zip(table.columns, made.transpose(2, 0, 1), strict=True)
    estimate = np.stack([_most_frequent(draws) if isinstance(c, Named | Ordered) else np.quantile(draws, 0.5, 0, method="lower") for c, draws in columns], 1)
    new = reader.unpack(estimate)
    filled = [
        pl.select(pl.when(pl.Series(gaps[:, i])).then(_cast(new[name], frame[name].dtype)).otherwise(frame[name]).alias(name)).to_series()
        for i, name in enumerate(table.names)
    ]
    return frame.with_columns(filled)


def _cast(series: Any, dtype: Any) -> Any:
    """A column of polars in another type, null where that cannot hold a value; spans of time are read from seconds."""
    import polars as pl

    if dtype == pl.Duration:
        return (series * 1e6).round().cast(pl.Int64).cast(pl.Duration("us")).cast(dtype)
    if series.dtype == pl.String and dtype.is_temporal():
        return series.str.strptime(dtype, strict=False)
    return series.cast(dtype, strict=False)


def _most_frequent(draws: Array) -> Array:
    """The most frequent level of every row, for draws [draws, n]; the lowest of equals."""
    levels = np.unique(draws)
    counts = np.stack([(draws == level).sum(0) for level in levels])
    found: Array = levels[counts.argmax(0)]
    return found
