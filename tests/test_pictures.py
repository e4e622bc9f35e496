"""Grids, enlargement and files of numbers, pixel by pixel."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vaestro.data.schema import Binary, Field, Integer, Real
from vaestro.errors import UsageError, VaestroError
from vaestro.uses.rows.inputs import exact, fitting, read
from vaestro.uses.rows.pictures import GAP, LARGEST, beside, enlargement, grid, write, write_pairs


def picture(path: Path) -> np.ndarray:
    """The pixels of a file."""
    with Image.open(path) as image:
        return np.asarray(image)


def cell(sheet: np.ndarray, row: int, column: int, size: tuple[int, int]) -> np.ndarray:
    """One picture of a sheet."""
    top, left = row * (size[0] + GAP) + GAP, column * (size[1] + GAP) + GAP
    return sheet[top : top + size[0], left : left + size[1]]


@pytest.mark.parametrize(("side", "times"), [(1, 4), (8, 4), (16, 4), (17, 3), (28, 2), (32, 2), (33, 1), (64, 1), (100, 1)])
def test_small_pictures_are_enlarged(side: int, times: int) -> None:
    assert enlargement(side, 1) == enlargement(1, side) == times


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 100, 37), (1, 3, 5)])
def test_grid_holds_every_pixel(shape: tuple[int, int, int]) -> None:
    images = torch.rand(5, *shape)
    sheet = np.asarray(grid(images, 2))
    times = enlargement(*shape[1:])
    size = (shape[1] * times, shape[2] * times)
    assert sheet.shape[:2] == (3 * (size[0] + GAP) + GAP, 2 * (size[1] + GAP) + GAP)
    due = (images.double() * 255).round().to(torch.uint8).numpy().transpose(0, 2, 3, 1)
    for i in range(5):
        shown = cell(sheet, i // 2, i % 2, size).reshape(*size, shape[0])
        np.testing.assert_array_equal(shown[::times, ::times], due[i])
        np.testing.assert_array_equal(shown[times - 1 :: times, times - 1 :: times], due[i])
    assert (cell(sheet, 2, 1, size) == 255).all(), "an empty place is paper"
    assert (sheet[:GAP] == 255).all()


def test_two_channels_are_red_and_green() -> None:
    sheet = np.asarray(grid(torch.tensor([0.2, 0.6]).view(1, 2, 1, 1)))
    assert sheet[GAP, GAP].tolist() == [51, 153, 0]


def test_values_outside_are_cut_and_nan_is_black() -> None:
    sheet = np.asarray(grid(torch.tensor([-1.0, 2.0, float("nan"), 0.5]).view(1, 1, 2, 2)))
    assert sheet[GAP::LARGEST, GAP::LARGEST][:2, :2].tolist() == [[0, 255], [0, 128]]


@pytest.mark.parametrize("shape", [(0, 1, 2, 2), (2, 4, 2, 2), (2, 5), (2, 2, 2)])
def test_no_pictures_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="pictures"):
        grid(torch.zeros(shape))


def test_pairs_stand_side_by_side() -> None:
    a, b = torch.arange(3.0).view(3, 1, 1, 1), torch.arange(10.0, 13.0).view(3, 1, 1, 1)
    assert beside(a, b).flatten().tolist() == [0, 10, 1, 11, 2, 12]


def test_numbers_survive_as_npy_and_csv(tmp_path: Path) -> None:
    rows = torch.randn(4, 3)
    field = Field("x", Real(), (3,))
    write(tmp_path / "a.npy", field, rows)
    write(tmp_path / "a.csv", field, rows)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), rows.numpy())
    np.testing.assert_allclose(np.loadtxt(tmp_path / "a.csv", delimiter=",", skiprows=1), rows.numpy(), rtol=1e-6)
    assert (tmp_path / "a.csv").read_text().startswith("x0,x1,x2\n")
    with pytest.raises(UsageError, match=r"no pictures; write them as numbers with -o rows.csv or -o rows.npy"):
        write(tmp_path / "a.png", field, rows)
    with pytest.raises(UsageError, match=r"its ending '\.pgn' is unknown; did you mean \.png"):
        write(tmp_path / "a.pgn", field, rows)
    with pytest.raises(UsageError, match="there is no folder"):
        write(tmp_path / "b" / "a.png", field, rows)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "a.npy"]


def test_real_pictures_are_stretched_and_it_is_said(tmp_path: Path) -> None:
    notes = write(tmp_path / "a.png", Field("x", Real(), (1, 1, 2)), torch.tensor([[[[-3.0, 5.0]]]]))
    assert notes == ["values from -3 (black) to 5 (white)"]
    pixels = picture(tmp_path / "a.png")
    assert {0, 255} == set(pixels[GAP:-GAP, GAP:-GAP].flatten().tolist())


def test_a_constant_real_picture_is_black(tmp_path: Path) -> None:
    write(tmp_path / "a.png", Field("x", Real(), (1, 1, 1)), torch.full((1, 1, 1, 1), 7.0))
    assert picture(tmp_path / "a.png")[GAP, GAP] == 0


def test_pairs_on_a_line_are_at_most_four(tmp_path: Path) -> None:
    x = torch.arange(17).view(17, 1, 1, 1).expand(17, 1, 64, 64) / 255
    write_pairs(tmp_path / "a.png", Field("x", Integer(256), (1, 64, 64)), x, x + 100 / 255)
    found, step = picture(tmp_path / "a.png"), 64 + GAP
    assert found.shape == (5 * step + GAP, 8 * step + GAP)
    assert all((found[n // 4 * step + GAP + 32, [(2 * (n % 4) + side) * step + GAP + 32 for side in (0, 1)]] == [n, n + 100]).all() for n in range(17))


def saved(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def test_images_become_unit_values(tmp_path: Path) -> None:
    pixels = np.arange(6).reshape(2, 3) * 51
    path = saved(tmp_path / "a.png", pixels)
    rows, notes = read([path], Field("x", Integer(256), (1, 2, 3)))
    np.testing.assert_allclose(rows[0, 0], pixels / 255)
    assert notes == []
    rows, notes = read([path], Field("x", Integer(17), (1, 2, 3)))
    np.testing.assert_allclose(rows[0, 0] * 16, np.rint(pixels * 16 / 255), atol=1e-5)
    assert notes == ["pixels were rounded to the run's 17 levels"]
    rows, notes = read([path, path], Field("x", Binary(), (1, 2, 3)))
    np.testing.assert_array_equal(rows[1, 0], [[0, 0, 0], [1, 1, 1]])
    assert notes == ["the run's data are binary, so pixels above 127 were taken as 1 and the others as 0"]


def test_what_does_not_fit_is_refused_with_the_size(tmp_path: Path) -> None:
    grey = saved(tmp_path / "grey.png", np.full((4, 6), 200))
    colour = saved(tmp_path / "colour.png", np.stack([np.full((2, 3), v) for v in (200, 10, 10)], -1))
    field = Field("x", Integer(256), (1, 2, 3))
    with pytest.raises(UsageError, match=r"grey.png is 4x6 \(height x width\), grey, and the run takes 2x3, grey; --resize brings it to that$"):
        read([grey], field, exact)
    with pytest.raises(UsageError, match=r"colour.png is 2x3 \(height x width\), colour, and the run takes 2x3, grey; --resize"):
        read([colour], field, exact)
    np.testing.assert_allclose(read([grey], field, fitting)[0], 200 / 255)
    assert read([grey], Field("x", Integer(256), (3, 4, 6)))[0].shape == (1, 3, 4, 6), "grey fits colour as it is"
    with pytest.raises(UsageError, match="pixels have no meaning for Real data"):
        read([grey], Field("x", Real(), (1, 4, 6)))
    with pytest.raises(UsageError, match="no grey or colour pictures; give them in a .npy file"):
        read([grey], Field("x", Real(), (4,)))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(VaestroError, match="broken.png cannot be read: it is no picture"):
        read([tmp_path / "broken.png"], field)


def test_arrays_are_read_as_stored_values(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.array([[0, 16], [4, 8]], np.uint8)[None])
    field = Field("x", Integer(17), (1, 2, 2))
    np.testing.assert_allclose(read([tmp_path / "one.npy"], field)[0], [[[[0, 1], [0.25, 0.5]]]])
    np.save(tmp_path / "many.npy", np.full((3, 1, 2, 2), 17))
    with pytest.raises(UsageError, match="Integer with values 0 to 16"):
        read([tmp_path / "many.npy"], field)
    np.save(tmp_path / "nan.npy", np.full((2, 3), np.nan))
    with pytest.raises(UsageError, match="NaN"):
        read([tmp_path / "nan.npy"], Field("x", Real(), (3,)))
    with pytest.raises(UsageError, match=r"holds an array shaped \(2, 3\), and the run takes rows shaped \(4,\)"):
        read([tmp_path / "nan.npy"], Field("x", Real(), (4,)))
    (tmp_path / "text.npy").write_text("text")
    with pytest.raises(VaestroError, match="is not an array file"):
        read([tmp_path / "text.npy"], field)
