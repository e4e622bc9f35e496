"""Sprites with known factors, drawn by code after the description of dSprites (Matthey et al. 2017); not one of DeepMind's pictures is in them."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vaestro.data.cache import Progress, cache_folder
from vaestro.data.kinds import Array
from vaestro.data.report import PrepareReport
from vaestro.data.schema import Binary, Category, Field, Schema
from vaestro.data.splits import NAMES, split_rows
from vaestro.data.store import Dataset
from vaestro.data.writing import Writer, write_dataset
from vaestro.errors import UsageError

SHAPES = ("square", "ellipse", "heart")
FACTORS = {"shape": 3, "scale": 6, "orientation": 40, "column": 32, "row": 32}  # the last one runs fastest
SIDE, PATCH = 64, 33  # pixels; a patch at the last place ends at the edge
TOTAL = math.prod(FACTORS.values())
X = Field("x", Binary(), (1, SIDE, SIDE))
BLOCK = 4096  # pictures that are drawn and stored together
SEED = 20260101
HALF, LONG, SHORT, HEART = 10.5, 15.5, 8.5, 11.0  # pixels at scale 1: half a side, the two half axes, the unit of the heart


def inside(shape: str, u: Array, v: Array) -> Array:
    """Which points (u, v), in pixels at scale 1 with v upwards, lie in a shape that stands upright; sums, products and comparisons only."""
    if shape == "square":
        return np.asarray((np.abs(u) <= HALF) & (np.abs(v) <= HALF))
    if shape == "ellipse":
        return np.asarray(u * u * (SHORT * SHORT) + v * v * (LONG * LONG) <= LONG * LONG * SHORT * SHORT)
    a, b = u / HEART, v / HEART + 0.125  # its box is centred so
    round_part = a * a + b * b - 1
    return np.asarray(round_part * round_part * round_part <= a * a * b * b * b)


def patch(shape: int, scale: int, orientation: int) -> NDArray[np.uint8]:
    """One sprite [33, 33] about its middle: of scale 0.5 to 1 in steps of 0.1, turned by `orientation` times 9 degrees, counter-clockwise; no anti-aliasing.

    A pixel is 1 where its centre is inside. Sines are rounded to multiples of 1/1024, so the same bits are drawn on every machine.
    """
    angle = 2 * math.pi * orientation / FACTORS["orientation"]
    c, s = round(1024 * math.cos(angle)) / 1024, round(1024 * math.sin(angle)) / 1024
    steps = np.arange(PATCH) - PATCH // 2
    x, y = steps[None, :].astype(np.float64), -steps[:, None].astype(np.float64)
    size = (5 + scale) / 10
    u, v = (c * x + s * y) / size, (c * y - s * x) / size
    return inside(SHAPES[shape], u, v).astype(np.uint8)


@cache
def patches() -> NDArray[np.uint8]:
    """All sprites, [3, 6, 40, 33, 33]."""
    kinds = np.ndindex(3, 6, 40)
    return np.stack([patch(*kind) for kind in kinds]).reshape(3, 6, 40, PATCH, PATCH)


def factors(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The factors [n, 5] of pictures numbered 0 to 737,279."""
    return np.stack(np.unravel_index(rows, tuple(FACTORS.values())), 1)


def draw(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The pictures [n, 1, 64, 64] of these numbers, their values 0 and 1: the sprite's patch with its corner at (row, column)."""
    out = np.zeros((len(rows), 1, SIDE, SIDE), np.uint8)
    for picture, (shape, scale, orientation, column, row) in zip(out[:, 0], factors(rows), strict=True):
        picture[row : row + PATCH, column : column + PATCH] = patches()[shape, scale, orientation]
    return out


def contents(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number for each picture that two share where they are equal pixel by pixel, as a square and the square a quarter turn further are."""
    found: dict[bytes, int] = {}
    of_kind = []
    for sprite in patches().reshape(-1, PATCH, PATCH):
        down, right = (int(np.flatnonzero(sprite.any(axis))[0]) for axis in (1, 0))
        cut = sprite[down:, right:]
        cut = cut[: np.flatnonzero(cut.any(1))[-1] + 1, : np.flatnonzero(cut.any(0))[-1] + 1]
        number = found.setdefault(f"{cut.shape}".encode() + cut.tobytes(), len(found))
        of_kind.append((number, down, right))
    number, down, right = np.array(of_kind).T
    kind, column, row = rows // 1024, rows // 32 % 32, rows % 32
    return np.asarray((number[kind] * SIDE + down[kind] + row) * SIDE + right[kind] + column)


@dataclass(frozen=True)
class Sprites:
    """A named set of sprites: `pictures` of the 737,280, chosen once with a stated seed, split by content 80 / 10 / 10."""

    name: str
    title: str
    pictures: int
    fetched: str
    size: str = "0 MB"
    rule: str = "Redrawn, so not DeepMind's file and not comparable with it bit by bit. Split by content 80 / 10 / 10: equal pictures stay together."
    licence: str = "that of this package"
    version: str = "1"
    field: Field = X
    classes: tuple[str, ...] = SHAPES

    @property
    def folder(self) -> Path:
        """Where the cache keeps it."""
        return cache_folder() / "data" / f"{self.name}-{self.version}"

    def bring(self, path: Path | None, offline: bool, progress: Progress) -> Mapping[str, tuple[Array, Array]]:
        """The numbers [n] and the factors [n, 5] of the pictures of each split; raises UsageError for a path, for there is nothing to read."""
        if path is not None:
            raise UsageError(f"{self.name} is drawn by code and not read from a path; leave the path out")
        order = np.random.Philox(np.random.SeedSequence((SEED, 3))).random_raw(TOTAL)  # its raw stream is fixed by NumPy's promise
        rows = np.sort(np.argsort(order, kind="stable")[: self.pictures]).astype(np.int64)
        parts = split_rows(len(rows), contents(rows).tolist(), seed=0)
        return {split: (rows[parts[split]], factors(rows[parts[split]])) for split in NAMES}

    def build(self, raw: Mapping[str, tuple[Array, Array]], progress: Progress) -> Dataset:
        """Draws and stores the pictures in the cache, in blocks; raises VaestroError if the cache cannot be written."""
        columns = tuple(Field(name, Category(n, SHAPES if name == "shape" else ())) for name, n in FACTORS.items())
        schema = Schema(self.name, (self.field, *columns), {s: len(rows) for s, (rows, _) in raw.items()}, self.version)

        def fill(writer: Writer) -> None:
            for split, (rows, found) in raw.items():
                for column, values in zip(columns, found.T, strict=True):
                    writer.append(split, column.name, values)
                for done, block in blocks(rows):
                    progress(f"drawing the {split} pictures of {self.name}", done)
                    writer.append(split, "x", draw(block))
                progress(f"drawing the {split} pictures of {self.name}", 1.0)

        return write_dataset(self.folder, schema, fill, PrepareReport(rule=f"{self.title}. {self.rule} Licence: {self.licence}."))


def blocks(rows: Array) -> Iterator[tuple[float, Array]]:
    """Picture numbers in the blocks that are drawn together, each with the share that came before it."""
    for start in range(0, len(rows), BLOCK):
        yield start / len(rows), rows[start : start + BLOCK]


SPRITES = (
    Sprites("dsprites", "Sprites of 64x64 binary pixels with five known factors, a tenth of all combinations", TOTAL // 10, "drawn by code; 300 MB to store"),
    Sprites("dsprites-full", "Sprites of 64x64 binary pixels with five known factors, every combination once", TOTAL, "drawn by code; 3 GB to store"),
)
