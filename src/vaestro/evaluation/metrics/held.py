"""Where the scored rows come from: what a metric may read beside them and the model is never shown."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vaestro.core import Batch
from vaestro.data.kinds import Encoding
from vaestro.data.rows import Rows
from vaestro.data.schema import Category
from vaestro.data.store import Dataset
from vaestro.errors import UsageError
from vaestro.evaluation.judge import Features
from vaestro.evaluation.scope import fixed_rows

AT_ONCE = 250  # rows in a batch


@dataclass(frozen=True)
class Sought:
    """Whose features are asked for: what must be equal for two sets of them to be the same."""

    data: str
    data_sha256: str
    split: str
    field: str
    rows: int
    rows_sha256: str  # of their places in the split, int64
    drawn: str  # of rows that are drawn anew at every reading, by which seed and on which device; else empty


Read = Callable[[], Tensor]
Shelf = Callable[[Features, Sought, Read], Tensor]  # the features that are kept of these rows, or those that are read


@dataclass(frozen=True)
class Held:
    """A data set, and the rows `index` [n], ascending, of its split `split` that a model is scored on; `fields` are what the model reads of them."""

    data: Dataset
    split: str
    index: np.ndarray
    fields: tuple[str, ...] = ("x",)
    shelf: Shelf | None = None  # where features of rows are kept

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

    def sought(self, field: str, split: str | None, most: int | None, drawn: tuple[int, str]) -> Sought:
        """The chosen rows of a field by name; `drawn` are the seed and the device by which rows stored as intensities are drawn."""
        name, index = split or self.split, self.chosen(split, most)
        seed, device = drawn
        said = f"seed {seed} on {device}" if self.data.split(name).encodings[field] is Encoding.INTENSITY else ""
        places = hashlib.sha256(np.ascontiguousarray(index, dtype=np.int64).tobytes()).hexdigest()
        return Sought(self.data.name, self.data.sha256, name, field, len(index), places, said)

    def labels(self, split: str | None = None, most: int | None = None, field: str = "label") -> np.ndarray:
        """The classes of the chosen rows, whole numbers [n]; raises UsageError where the data have no such field of one category a row."""
        if field not in self.data.schema or not isinstance(self.data.schema[field].kind, Category) or self.data.schema[field].shape != ():
            raise UsageError(f"data {self.data.name!r} have no field {field!r} of one category a row; use data with labels")
        return np.asarray(self.data.split(split or self.split).arrays[field][self.chosen(split, most)], dtype=np.int64)
