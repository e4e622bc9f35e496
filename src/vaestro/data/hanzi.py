"""Chinese characters drawn from their strokes, each in several writings and in one split only: for recognising classes that no training saw."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np

from vaestro.data.cache import Progress
from vaestro.data.fetch import Origin
from vaestro.data.kinds import Array
from vaestro.data.prepare.files import members
from vaestro.data.schema import Binary, Field
from vaestro.data.splits import NAMES, split_rows
from vaestro.errors import VaestroError

Raw = Mapping[str, tuple[Array, Array]]
Stroke = Array  # the corners of a polygon, float64 [n, 2], from 0 to 1 across and down

NAME, SIDE, FINE = "hanzi", 28, 4  # pixels of a picture, and how many times finer it is drawn
FIELD = Field("x", Binary(), (1, SIDE, SIDE))
SEED, WRITINGS, CHARACTERS = 20260101, 20, 1000
CLASSES = tuple(f"character {i}" for i in range(CHARACTERS))
INK = 0.4  # of a pixel's area that makes it black
ARCHIVE = "hanzi-writer-data-2.0.1.tgz"
HANZI = Origin(
    "hanzi-writer-data",
    {ARCHIVE: "72baf3d82b114e60d6e40ea05f24d2262a05cd39d544e2f322ba2fceb7beff15"},
    package=("npm", "pack", "--ignore-scripts", "hanzi-writer-data@2.0.1"),
)
CURVES = {"M": 1, "L": 1, "Q": 2, "C": 3, "Z": 0}  # points that each command of a path takes
STEPS = 6  # corners that a curve is drawn with


def outline(path: str) -> Stroke:
    """The corners of one closed SVG path of absolute M, L, Q, C and Z, in units of its 1,024 squares, y downwards from 900; raises ValueError for others."""
    corners: list[Array] = []
    for command, numbers in re.findall(r"([A-Za-z])([^A-Za-z]*)", path):
        if command not in CURVES:
            raise ValueError(f"a path with the command {command!r}")
        points = np.array(numbers.split(), dtype=np.float64).reshape(-1, 2)
        if len(points) != CURVES[command]:
            raise ValueError(f"{command} with {len(points)} points")
        if len(points) < 2:
            corners += list(points)
            continue
        t = np.linspace(0, 1, STEPS + 1)[1:, None]
        held = [np.broadcast_to(p, (STEPS, 2)) for p in (corners[-1], *points)]
        while len(held) > 1:  # de Casteljau
            held = [(1 - t) * a + t * b for a, b in pairwise(held)]
        corners += list(held[0])
    found = np.array(corners)
    return np.stack([found[:, 0], 900 - found[:, 1]], 1) / 1024


def written(strokes: list[Stroke], random: Array) -> list[Stroke]:
    """One writing: every stroke moved by up to 0.02, turned by up to 4 degrees and sized by 5 %, and the whole turned, sheared, sized and moved.

    `random` are numbers in [-1, 1], six for the whole and four for each stroke; zeros leave the character as it is.
    """
    turn, shear, wide, tall = random[:4] * (0.14, 0.15, 0.12, 0.12)
    whole = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ np.array([[1 + wide, shear], [0, 1 + tall]]) * 0.9 ** bool(random.any())
    made = []
    for stroke, own in zip(strokes, random[6:].reshape(-1, 4), strict=True):
        middle, angle = stroke.mean(0), 0.07 * own[2]
        turned = (stroke - middle) @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) * (1 + 0.05 * own[3])
        made.append((turned + middle + 0.02 * own[:2] - 0.5) @ whole.T + 0.5 + 0.04 * random[4:6])
    return made


def drawn(strokes: list[Stroke]) -> Array:
    """Polygons as a black and white picture [1, 28, 28] of uint8: 1 where at least 0.4 of a pixel is covered."""
    from PIL import Image, ImageDraw

    side = SIDE * FINE
    sheet = Image.new("L", (side, side), 0)
    pen = ImageDraw.Draw(sheet)
    for stroke in strokes:
        pen.polygon([tuple(corner) for corner in (stroke * side - 0.5).tolist()], fill=1)
    cover = np.asarray(sheet, dtype=np.float64).reshape(SIDE, FINE, SIDE, FINE).mean((1, 3))
    return np.asarray((cover >= INK)[None], dtype=np.uint8)


def writings(strokes: list[Stroke], number: int) -> Array:
    """The 20 writings of character `number`, uint8 [20, 1, 28, 28], from the raw stream of Philox, which never changes."""
    need = 6 + 4 * len(strokes)
    raw = np.random.Philox(np.random.SeedSequence((SEED, number))).random_raw(WRITINGS * need)
    random = (raw >> np.uint64(11)) / 2.0**52 - 1.0
    return np.stack([drawn(written(strokes, one)) for one in random.reshape(WRITINGS, need)])


def characters(archive: Path) -> list[list[Stroke]]:
    """The strokes of the first 1,000 characters by the sha256 of their name, in this order, which no meaning or frequency decides."""
    found = {}
    for member in members(archive):
        name = PurePosixPath(member.name)
        if name.suffix == ".json" and len(name.stem) == 1:
            found[hashlib.sha256(name.stem.encode()).digest()] = member.read()
    try:
        return [[outline(path) for path in json.loads(found[key])["strokes"]] for key in sorted(found)[:CHARACTERS]]
    except (ValueError, KeyError, TypeError) as error:
        raise VaestroError(f"{archive} does not hold the strokes that were expected ({error}); fetch it again") from error


def hanzi(origin: Origin = HANZI) -> Callable[[Path | None, bool, Progress], Raw]:
    """Pictures [n, 1, 28, 28] and which character each is [n], all writings of a character in one split, 80 / 10 / 10."""

    def bring(path: Path | None, offline: bool, progress: Progress) -> Raw:
        every = characters(origin.bring(path, offline, progress)[ARCHIVE])
        parts = []
        for number, strokes in enumerate(every):
            progress("writing characters", number / len(every))
            parts.append(writings(strokes, number))
        progress("writing characters", 1.0)
        rows = split_rows(len(every), [number.to_bytes(4, "big") for number in range(len(every))], seed=0)
        return {s: (np.concatenate([parts[i] for i in rows[s]]), np.repeat(np.asarray(rows[s]), WRITINGS)) for s in NAMES}

    return bring
