"""Emoji as colour pictures of 64x64 pixels with categories, from the sheet that their package carries."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from vaestro.data.cache import Progress
from vaestro.data.fetch import Origin
from vaestro.data.kinds import Array
from vaestro.data.schema import Field, Integer
from vaestro.data.splits import NAMES, merge, row_keys, split_rows
from vaestro.errors import VaestroError

Raw = Mapping[str, tuple[Array, Array]]
NAME, SIDE, CELL = "emoji-64", 64, 66  # pixels of a picture, and of its place on the sheet, which has a border of one
FIELD = Field("x", Integer(256), (3, SIDE, SIDE))
SHEET, TABLE = "emoji-sheet-64.png", "emoji.json"
CLASSES = (
    "Activities", "Animals & Nature", "Component", "Flags", "Food & Drink", "Objects", "People & Body", "Smileys & Emotion", "Symbols", "Travel & Places",
)  # fmt: skip
EMOJI = Origin(
    "emoji-datasource-google",
    {
        TABLE: "1d602e65be88772bf8cc368ce16b855d719eeddbafe128d471b80203f494d29f",
        SHEET: "795a0c598d162c9a4aae23f2188c607b8c9bc1912cb7d84382459f8de91a3ae1",
    },
    package=("npm", "pack", "--ignore-scripts", "emoji-datasource-google@16.0.0"),
    inside={SHEET: "/img/google/sheets/64.png"},
)


def listed(table: bytes) -> list[tuple[str, int, int, int]]:
    """Of each emoji that the sheet shows, with those of other skin tones: the first code point (its subject), the class, and its place, column and row."""
    found = []
    try:
        for one in json.loads(table):
            for shown in (one, *one.get("skin_variations", {}).values()):
                if shown["has_img_google"]:
                    found.append((one["unified"].partition("-")[0], CLASSES.index(one["category"]), int(shown["sheet_x"]), int(shown["sheet_y"])))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise VaestroError(f"{TABLE} is not the table of emoji that was expected ({error}); fetch it again") from error
    return found


def pictures(sheet: bytes, places: list[tuple[int, int]]) -> Array:
    """The pictures at some places of the sheet, laid on white: uint8 [n, 3, 64, 64]."""
    from PIL import Image

    with Image.open(io.BytesIO(sheet)) as image:
        whole = image.convert("RGBA")
    white = Image.new("RGBA", whole.size, "white")
    white.alpha_composite(whole)
    flat = np.asarray(white.convert("RGB")).transpose(2, 0, 1)
    corners = ((CELL * x + 1, CELL * y + 1) for x, y in places)
    return np.stack([flat[:, top : top + SIDE, left : left + SIDE] for left, top in corners])


def emoji(origin: Origin = EMOJI) -> Callable[[Path | None, bool, Progress], Raw]:
    """Pictures [n, 3, 64, 64] and categories [n], split 80 / 10 / 10 by the first code point, so that no subject, in whatever skin, is in two splits.

    Equal pictures stay together too.
    """

    def bring(path: Path | None, offline: bool, progress: Progress) -> Raw:
        files = origin.bring(path, offline, progress)
        rows = listed(files[TABLE].read_bytes())
        x = pictures(files[SHEET].read_bytes(), [(column, row) for _, _, column, row in rows])
        labels = np.array([label for _, label, _, _ in rows], np.uint8)
        parts = split_rows(len(x), merge(row_keys([x]), [subject for subject, *_ in rows]), seed=0)
        return {split: (x[parts[split]], labels[parts[split]]) for split in NAMES}

    return bring
