"""Sprites in pairs that share all but a few factors, drawn by code."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vaestro.data.cache import Progress
from vaestro.data.dsprites import FACTORS, SEED, SHAPES, TOTAL, Sprites, blocks, contents, draw, factors
from vaestro.data.kinds import Array
from vaestro.data.report import PrepareReport
from vaestro.data.schema import Category, Field, Integer, Schema
from vaestro.data.splits import NAMES
from vaestro.data.store import Dataset
from vaestro.data.writing import Writer, write_dataset
from vaestro.errors import UsageError

SIZES = np.array(list(FACTORS.values()), np.uint64)


def partners(rows: NDArray[np.int64], group: Array) -> NDArray[np.int64]:
    """For each picture number [n] another one that differs in k of the five factors, k evenly 1 to 4, which ones and their new values evenly, too.

    `group` [737280] says to which group a picture belongs; partners are of the same one: others are drawn again. From the raw stream of Philox, which is fixed
    by NumPy's promise, so the pairs never change. Locatello et al. 2020, section 5, draw k so, and values that may come out as they were.
    """
    stream = np.random.Philox(np.random.SeedSequence((SEED, 4)))
    found, waiting = rows.copy(), np.arange(len(rows))
    while len(waiting):
        raw = stream.random_raw(len(waiting) * 11).reshape(-1, 11)
        place = raw[:, 1:6].argsort(1, kind="stable").argsort(1, kind="stable").astype(np.uint64)
        changed = place < 1 + raw[:, :1] % np.uint64(4)
        step = np.where(changed, 1 + raw[:, 6:] % (SIZES - np.uint64(1)), 0).astype(np.int64)
        other = (factors(rows[waiting]) + step) % SIZES.astype(np.int64)
        number = np.ravel_multi_index(tuple(other.T), tuple(FACTORS.values()))
        right = group[number] == group[rows[waiting]]
        found[waiting[right]] = number[right]
        waiting = waiting[~right]
    return found


def groups() -> NDArray[np.int64]:
    """The split of each of the 737,280 pictures, 0 to 2, by its content alone: by chance, eight to one to one."""
    of = contents(np.arange(TOTAL))
    tenth = np.random.Philox(np.random.SeedSequence((SEED, 6))).random_raw(int(of.max()) + 1) % np.uint64(10)
    return np.maximum(tenth[of].astype(np.int64) - 7, 0)


@dataclass(frozen=True)
class SpritePairs(Sprites):
    """A named set of `pictures` pairs of sprites: `x` with its factors, and `x2`, whose factors are `factors2`, in the same order."""

    rule: str = (
        "Redrawn, so not DeepMind's file. The two of a pair differ in one to four of the five factors. Split by content, about 80 / 10 / 10: "
        "equal pictures stay together, in x and x2 alike."
    )

    def bring(self, path: Path | None, offline: bool, progress: Progress) -> Mapping[str, tuple[Array, Array]]:
        """The numbers [n] of the first and of the second pictures of each split; raises UsageError for a path, for there is nothing to read."""
        if path is not None:
            raise UsageError(f"{self.name} is drawn by code and not read from a path; leave the path out")
        group = groups()
        order = np.random.Philox(np.random.SeedSequence((SEED, 5))).random_raw(TOTAL)
        rows = np.sort(np.argsort(order, kind="stable")[: self.pictures]).astype(np.int64)
        others = partners(rows, group)
        return {split: (rows[group[rows] == i], others[group[rows] == i]) for i, split in enumerate(NAMES)}

    def build(self, raw: Mapping[str, tuple[Array, Array]], progress: Progress) -> Dataset:
        """Draws and stores the pictures in the cache, in blocks; raises VaestroError if the cache cannot be written."""
        columns = tuple(Field(name, Category(n, SHAPES if name == "shape" else ())) for name, n in FACTORS.items())
        second = (Field("x2", self.field.kind, self.field.shape), Field("factors2", Integer(max(FACTORS.values())), (len(FACTORS),)))
        schema = Schema(self.name, (self.field, *columns, *second), {s: len(rows) for s, (rows, _) in raw.items()}, self.version)

        def fill(writer: Writer) -> None:
            for split, (rows, others) in raw.items():
                for column, values in zip(columns, factors(rows).T, strict=True):
                    writer.append(split, column.name, values)
                writer.append(split, "factors2", factors(others))
                for name, numbers in {"x": rows, "x2": others}.items():
                    for done, block in blocks(numbers):
                        progress(f"drawing the {split} pictures {name} of {self.name}", done)
                        writer.append(split, name, draw(block))
                    progress(f"drawing the {split} pictures {name} of {self.name}", 1.0)

        return write_dataset(self.folder, schema, fill, PrepareReport(rule=f"{self.title}. {self.rule} Licence: {self.licence}."))


PAIRS = SpritePairs("dsprites-pairs", "Pairs of sprites that share one to four of five known factors", TOTAL // 20, "drawn by code; 300 MB to store")
