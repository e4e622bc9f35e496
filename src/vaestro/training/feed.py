"""What a training step reads: rows of the data, and for semi-supervised recipes the labels of a few of them."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaestro.core import Seen
from vaestro.data.rows import Batches, Rows, order, unit
from vaestro.data.schema import Category, Schema
from vaestro.data.store import Dataset, Split
from vaestro.errors import UsageError
from vaestro.plays.classes import SHARE
from vaestro.recipes import Recipe
from vaestro.recipes.book import Told
from vaestro.seeds import mix

LABELLED = 4  # one row of a batch in so many has a label


def feed(data: Dataset, recipe: Recipe, seed: int, device: torch.device) -> tuple["Rows | ToldRows", Batches]:
    """The training rows as the recipe reads them, and which of them each step reads: both functions of the data, the recipe and the seed alone."""
    split, batch = data.split("train"), recipe.training.batch
    if recipe.told is None:
        return Rows(split, data.schema, (*recipe.fields, *recipe.beside), device), Batches(split.rows, batch, seed, device)
    known = labelled(split, data.schema, recipe.told, seed)
    rows = ToldRows(split, data.schema, recipe, known, device)
    if len(known) == split.rows:
        return rows, Batches(split.rows, batch, seed, device)
    pools = Pools(split.rows, known, batch, seed, device)
    rows.share = pools.share
    return rows, pools


def labelled(split: Split, schema: Schema, told: Told, seed: int) -> NDArray[np.int64]:
    """The rows whose label is read, ascending; raises UsageError where there are none, or not as many as asked for.

    Rows are looked at in an order that depends on the seed alone, and taken while their class lacks some: `rows / n` of each of the n classes, one more
    of the first ones where that does not divide; a class that is too small is made up for by the next rows. No row after the last one taken is looked at.
    """
    rows = np.arange(split.rows) if told.where is None else np.flatnonzero(np.asarray(split.arrays[told.where]))
    if len(rows) < (told.rows or 1):
        raise UsageError(f"{told.rows or 1} labels were asked for, and {len(rows)} training rows of {schema.name!r} have one; ask for fewer, or labels=none")
    if told.rows is None or told.rows == len(rows):
        return rows
    kind, column = schema[told.field].kind, split.arrays[told.field]
    classes = kind.n if isinstance(kind, Category) else 1
    due = {c: told.rows // classes + (c < told.rows % classes) for c in range(classes)}
    left = told.rows
    taken, passed = [], []
    for row in rows[order(len(rows), len(rows), seed, 0)[0].numpy()]:
        if not left:
            break
        label = int(column[row]) if classes > 1 else 0
        if due[label]:
            due[label], left = due[label] - 1, left - 1
            taken.append(row)
        else:
            passed.append(row)
    return np.sort(np.array([*taken, *passed[:left]], np.int64))


class ToldRows:
    """Rows with one more field, of which only the known rows were ever read: a `Seen` with a mask of rows, its other values zero."""

    def __init__(self, split: Split, schema: Schema, recipe: Recipe, known: NDArray[np.int64], device: torch.device) -> None:
        assert recipe.told is not None, "rows without labels are plain Rows"
        self.plain, field = Rows(split, schema, recipe.fields, device), schema[recipe.told.field]
        self.rows, self.field = split.rows, field.name
        mask = torch.zeros(split.rows, dtype=torch.bool)
        mask[torch.from_numpy(known)] = True
        read = unit(field.kind, torch.from_numpy(np.asarray(split.arrays[field.name][known])))
        values = torch.zeros(split.rows, *field.shape, dtype=read.dtype)
        values[mask] = read
        self.values, self.mask = values.to(device), mask.to(device)
        self.share: Tensor | None = None  # how much a row without and one with a label counts, where the latter come more often than they occur

    def batch(self, index: Tensor) -> dict[str, Tensor | Seen]:
        """The rows `index`, as Rows gives them, with the label where it is known, and how much each row counts."""
        at = index.to(self.mask.device)
        mask = self.mask[at]
        shares = {} if self.share is None else {SHARE: self.share[mask.long()]}
        return {**self.plain.batch(index), self.field: Seen(self.values[at], mask), **shares}


class Pools(Batches):
    """Batches of which a quarter are labelled rows and the others unlabelled ones, each drawn in its own order.

    `share` [2] is how much an unlabelled and a labelled row counts, so that the weighted mean over a batch is an unbiased one over all rows.
    A batch has two rows at least.
    """

    def __init__(self, rows: int, known: NDArray[np.int64], batch: int, seed: int, device: torch.device) -> None:
        super().__init__(rows, max(batch, 2), seed, device)
        self.note = self.note or ("a batch of 1 was asked for: each step reads a row with a label and one without" if batch < 2 else "")
        sizes = (rows - len(known), len(known))
        few = min(sizes[1], max(1, self.batch // LABELLED))
        takes = (min(sizes[0], self.batch - few), few)
        self.pools = tuple(torch.from_numpy(p).to(device) for p in (np.setdiff1d(np.arange(rows), known), known))
        self.each = tuple(Batches(size, take, mix(seed, i), device) for i, (size, take) in enumerate(zip(sizes, takes, strict=True)))
        self.share = torch.tensor([size / rows * sum(takes) / take for size, take in zip(sizes, takes, strict=True)], device=device)

    def batch_index(self, step: int) -> Tensor:
        """The rows of step 0, 1, ..., the unlabelled ones first."""
        return torch.cat([pool[each.batch_index(step)] for pool, each in zip(self.pools, self.each, strict=True)])
