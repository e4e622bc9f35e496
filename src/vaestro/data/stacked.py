"""Three digits as the colour channels of one picture: a thousand classes, whose number a generator must find by itself."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from vaestro.data.cache import Progress
from vaestro.data.kinds import Array
from vaestro.data.schema import Field, Integer

Raw = Mapping[str, tuple[Array, Array]]
NAME = "stacked-mnist"
CHANNELS = 3
CLASSES = tuple(f"{n:03d}" for n in range(1000))  # red, green, blue
FIELD = Field("x", Integer(256), (CHANNELS, 28, 28))
SEED = 20260103


def triples(rows: int, of: int, seed: tuple[int, ...]) -> Array:
    """Which of `of` digits are the channels of each picture, [rows, 3], from the raw stream of Philox; one digit may be drawn often."""
    words = np.random.Philox(np.random.SeedSequence(seed)).random_raw(CHANNELS * rows)
    return (words % np.uint64(of)).astype(np.int64).reshape(rows, CHANNELS)


def stacked(bring: Callable[[Path | None, bool, Progress], Raw]) -> Callable[[Path | None, bool, Progress], Raw]:
    """From the digits of each split as many pictures as it has digits: [n, 3, 28, 28] and the classes 100 red + 10 green + blue, [n].

    Channels are drawn within a split, so no digit of the test pictures was in a training picture (after Metz et al. 2017).
    """

    def found(path: Path | None, offline: bool, progress: Progress) -> Raw:
        parts = {}
        for number, (split, (images, labels)) in enumerate(bring(path, offline, progress).items()):
            chosen = triples(len(images), len(images), (SEED, number))
            parts[split] = (images[chosen, 0], labels[chosen].astype(np.int64) @ np.array([100, 10, 1]))
        return parts

    return found
