"""Where the scored rows come from: what a metric may read beside them and the model is never shown."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from vaestro.core import Batch
from vaestro.data.rows import Rows
from vaestro.data.schema import Category
from vaestro.data.store import Dataset
from vaestro.errors import UsageError
from vaestro.evaluation.scope import fixed_rows

__all__ = ["AT_ONCE", "Held", "fixed_rows"]

AT_ONCE = 250  # rows in a batch


@dataclass(frozen=True)
class Held:
    """A data set, and the rows `index` [n], ascending, of its split `split` that a model is scored on; `fields` are what the model reads of them."""

    data: Dataset
    split: str
    index: np.ndarray
    fields: tuple[str, ...] = ("x",)

    def chosen(self, split: str | None = None, most: int | None = None) -> np.ndarray:
        """The rows of a split, ascending: those that are scored where `split` is none, else at most `most` fixed ones."""
        if split is None:
            return self.index
        rows = self.data.split(split).rows
        return fixed_rows(rows, rows if most is None else most).numpy()

    def batches(self, split: str | None = None, most: int | None = None) -> Iterator[Batch]:
        """The chosen rows in batches, as models read them; rows stored as intensities are drawn from torch's generator, so read them in a seeded scope."""
        rows = Rows(self.data.split(split or self.split), self.data.schema, self.fields)
        return (rows.batch(i) for i in torch.from_numpy(self.chosen(split, most)).split(AT_ONCE))

    def labels(self, split: str | None = None, most: int | None = None, field: str = "label") -> np.ndarray:
        """The classes of the chosen rows, whole numbers [n]; raises UsageError where the data have no such field of one category a row."""
        if field not in self.data.schema or not isinstance(self.data.schema[field].kind, Category) or self.data.schema[field].shape != ():
            raise UsageError(f"data {self.data.name!r} have no field {field!r} of one category a row; use data with labels")
        return np.asarray(self.data.split(split or self.split).arrays[field][self.chosen(split, most)], dtype=np.int64)
