"""Redrawn sprites: the very bits, the geometry, the factors, and splits that keep equal pictures together."""

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest

from vaestro.data import SOURCES, load, verify
from vaestro.data.dsprites import FACTORS, PATCH, SHAPES, TOTAL, Sprites, contents, draw, factors, patch, patches
from vaestro.data.schema import Binary, Category
from vaestro.data.store import HEADER
from vaestro.errors import UsageError

BITS = "6bc88c1956bf946ceec7ef5e4e9bc435d8c4a03d289c0aa42be6a713dab3f335"
STORED = "317e36442ce176cf9fcb8ef3bdf4b737a851ace991a2c38a39ee0d4daa99c727"
ROWS = "4c11354ccd0598d5932d5efdf7a0162f6a4a1f39589289e8215e6e41490cafd1"
TINY = Sprites("dsprites-tiny", "A few sprites", 600, "drawn by code")


def quiet(what: str, done: float) -> None:
    assert what and 0 <= done <= 1


def test_the_bits_never_change() -> None:
    assert hashlib.sha256(patches().tobytes()).hexdigest() == BITS


def test_every_combination_has_one_number() -> None:
    assert TOTAL == 737_280 == math.prod(FACTORS.values())
    rows = np.array([0, 1, 32, 1024, 40 * 1024, 6 * 40 * 1024, TOTAL - 1])
    assert factors(rows).tolist() == [[0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 1, 0], [0, 0, 1, 0, 0], [0, 1, 0, 0, 0], [1, 0, 0, 0, 0], [2, 5, 39, 31, 31]]


@pytest.mark.parametrize(("shape", "area"), [(0, 4 * 10.5**2), (1, math.pi * 15.5 * 8.5), (2, 3.66 * 11**2)])
def test_areas_are_those_of_the_shapes_and_grow_with_the_square_of_the_scale(shape: int, area: float) -> None:
    found = patches()[shape].sum((2, 3)).mean(1)
    np.testing.assert_allclose(found, [area * ((5 + s) / 10) ** 2 for s in range(6)], rtol=0.02)


def test_no_sprite_touches_the_edge_of_its_patch_or_leaves_the_picture() -> None:
    assert not patches()[..., [0, -1], :].any() and not patches()[..., [0, -1]].any()
    corners = np.array([k * 1024 + place for k in range(720) for place in (0, 31, 31 * 32, 31 * 32 + 31)])
    assert (draw(corners).sum((1, 2, 3)) == np.repeat(patches().reshape(720, -1).sum(1), 4)).all()


def test_orientation_turns_counter_clockwise_by_nine_degrees() -> None:
    """A quarter turn is ten steps, exactly; a heart points down at 0, and its middle axis turns."""
    for shape in range(3):
        for scale in (0, 3, 5):
            for o in (0, 4, 17):
                assert (patches()[shape, scale, o + 10] == np.rot90(patches()[shape, scale, o])).all()
    heart = patches()[2, 5]
    assert heart[0, -4 - PATCH // 4 :].sum() < heart[0, : PATCH // 4 + 4].sum()
    y, x = np.mgrid[:PATCH, :PATCH] - PATCH // 2
    for o in range(40):
        ellipse = patches()[1, 5, o]
        moments = np.cov(np.stack([x[ellipse > 0], -y[ellipse > 0]]))
        long = np.linalg.eigh(moments)[1][:, 1]
        turned = math.degrees(math.atan2(long[1], long[0])) - 9 * o
        assert abs((turned + 90) % 180 - 90) < 1.5


def test_column_and_row_move_by_a_pixel() -> None:
    kind = 2 * 6 * 40 * 1024 + 5 * 40 * 1024 + 7 * 1024
    here, right, down = draw(np.array([kind, kind + 32 * 3, kind + 5]))[:, 0]
    assert (np.roll(here, 3, 1) == right).all() and (np.roll(here, 5, 0) == down).all()


def test_symmetric_shapes_repeat_themselves() -> None:
    distinct = [[len({p.tobytes() for p in patches()[shape, scale]}) for scale in range(6)] for shape in range(3)]
    assert distinct == [[10] * 6, [20] * 6, [40] * 6]


def test_contents_are_equal_exactly_where_pictures_are() -> None:
    rows = np.random.default_rng(1).choice(TOTAL, 3000, replace=False)
    twins = rows // 1024 % 40 < 30
    rows = np.concatenate([rows, rows[twins] + 10 * 1024])  # a quarter turn further: equal for squares alone
    pictures = [p.tobytes() for p in draw(rows)]
    by_picture: dict[bytes, int] = {}
    for picture, number in zip(pictures, contents(rows).tolist(), strict=True):
        assert by_picture.setdefault(picture, number) == number
    assert len(set(by_picture.values())) == len(by_picture) < len(rows)


def test_a_small_set_is_stored_split_and_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path))
    data = TINY.build(TINY.bring(None, True, quiet), quiet)
    verify(data)
    assert data.schema["x"].kind == Binary() and data.schema["x"].shape == (1, 64, 64)
    assert {f.name: f.kind.n for f in data.schema if isinstance(f.kind, Category)} == FACTORS
    assert data.schema["shape"].kind == Category(3, SHAPES)
    assert sum(data.schema.rows.values()) == 600 and data.folder == tmp_path / "data" / "dsprites-tiny-1"
    for split in data.splits.values():
        for i in (0, split.rows - 1):
            shape, scale, orientation, column, row = (int(split.arrays[name][i]) for name in FACTORS)
            expected = np.zeros((64, 64), np.uint8)
            expected[row : row + PATCH, column : column + PATCH] = patch(shape, scale, orientation)
            assert (split.arrays["x"][i, 0] == expected).all()
    again = TINY.bring(None, False, quiet)
    assert all((again[s][0] == TINY.bring(None, True, quiet)[s][0]).all() for s in again)
    with pytest.raises(UsageError, match="drawn by code and not read from a path"):
        TINY.bring(tmp_path, False, quiet)


def test_equal_pictures_stay_together_and_every_factor_is_in_every_split() -> None:
    parts = SOURCES["dsprites"].bring(None, True, quiet)
    assert {s: len(rows) for s, (rows, _) in parts.items()} == {"train": 58_982, "validation": 7_373, "test": 7_373}
    kept = [set(contents(rows).tolist()) for rows, _ in parts.values()]
    assert not (kept[0] & kept[1] or kept[0] & kept[2] or kept[1] & kept[2])
    for rows, found in parts.values():
        assert (factors(rows) == found).all() and [len(np.unique(column)) for column in found.T] == list(FACTORS.values())
    rows = np.sort(np.concatenate([r for r, _ in parts.values()]))
    assert len(np.unique(rows)) == TOTAL // 10
    assert hashlib.sha256(rows.tobytes()).hexdigest() == ROWS


def test_the_stored_set_has_its_hash() -> None:
    if not (SOURCES["dsprites"].folder / HEADER).is_file():
        pytest.skip("dsprites is not in the cache; `vaestro data get dsprites` draws it")
    assert load("dsprites").sha256 == STORED
