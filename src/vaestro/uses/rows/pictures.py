"""Rows as files: pictures in a grid as PNG, numbers as .npy or .csv; always whole or absent."""

import io
import math
from collections.abc import Callable
from functools import singledispatch
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vaestro.data.prepare.tables import require_table, unpacked
from vaestro.data.schema import Count, Field, Integer, Kind, Real, Table
from vaestro.errors import UsageError, did_you_mean
from vaestro.training.files import write_bytes
from vaestro.uses.rows.frames import require_place, write_frame

SMALL = 64  # the side below which pictures are enlarged to be seen
LARGEST = 4  # times
GAP = 2  # pixels between pictures
PAPER = 255  # the colour of the gaps


def enlargement(height: int, width: int) -> int:
    """How many times a picture is enlarged: 1 to 4, so that its longer side comes near 64 pixels."""
    return max(1, min(LARGEST, SMALL // max(height, width)))


def grid(images: Tensor, columns: int | None = None) -> Image.Image:
    """Pictures [n, C, H, W] in [0, 1], row by row, `columns` side by side (about as many as rows if left out), small ones enlarged by whole pixels.

    One channel is grey, two are red and green, three are red, green and blue; values outside [0, 1] are cut off and NaN is black.
    Raises UsageError for another shape, another number of channels, or no pictures.
    """
    if images.dim() != 4 or images.shape[1] not in (1, 2, 3):
        raise UsageError(f"rows shaped {tuple(images.shape[1:])} are no pictures of 1, 2 or 3 channels; write them as numbers with -o rows.csv or -o rows.npy")
    n, channels, height, width = images.shape
    if not n:
        raise UsageError("there are no pictures to show; ask for at least one")
    columns = min(n, columns or math.ceil(math.sqrt(n)))
    times = enlargement(height, width)
    cells = _pixels(images).repeat(times, 1).repeat(times, 2)
    tall, wide = height * times + GAP, width * times + GAP
    sheet = np.full((math.ceil(n / columns) * tall + GAP, columns * wide + GAP, cells.shape[-1]), PAPER, np.uint8)
    for i, cell in enumerate(cells):
        top, left = i // columns * tall + GAP, i % columns * wide + GAP
        sheet[top : top + tall - GAP, left : left + wide - GAP] = cell
    return Image.fromarray(sheet[..., 0] if channels == 1 else sheet)


def _pixels(images: Tensor) -> np.ndarray:
    """[n, H, W, 1 or 3] of uint8, rounded to the nearest level."""
    unit = images.detach().cpu().double().nan_to_num(0.0).clamp(0, 1)
    if unit.shape[1] == 2:
        unit = torch.cat([unit, torch.zeros_like(unit[:, :1])], 1)
    return np.asarray((unit * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())


def beside(left: Tensor, right: Tensor) -> Tensor:
    """Pictures in pairs, [2n, C, H, W]: the first of `left`, the first of `right`, the second of `left`, ..."""
    return torch.stack([left, right], 1).flatten(0, 1)


@singledispatch
def visible(kind: Kind, images: Tensor) -> tuple[Tensor, list[str]]:
    """Rows of a kind as they are drawn, in [0, 1], and what to say of it. Open."""
    return images, []


@visible.register(Count)
@visible.register(Real)
def _(kind: Count | Real, images: Tensor) -> tuple[Tensor, list[str]]:
    low, high = float(images.min()), float(images.max())
    return (images - low) / ((high - low) or 1.0), [f"values from {low:.4g} (black) to {high:.4g} (white)"]


@singledispatch
def stored(kind: Kind, rows: Tensor) -> Tensor:
    """Rows in the units that a model reads as numbers in those of the data, float64: the inverse of `unit`. Open."""
    return rows.detach().cpu().double()


@stored.register
def _(kind: Integer, rows: Tensor) -> Tensor:
    return rows.detach().cpu().double() * (kind.levels - 1)


Writer = Callable[[Path, Field, Tensor, int | None], list[str]]


def _no_pictures(field: Field) -> UsageError:
    other = "rows.parquet" if isinstance(field.kind, Table) else "rows.npy"
    return UsageError(f"the rows of this run are shaped {field.shape} and are no pictures; write them as numbers with -o rows.csv or -o {other}")


def write_png(path: Path, field: Field, rows: Tensor, columns: int | None) -> list[str]:
    """A grid of pictures; `columns` pictures side by side."""
    if len(field.shape) != 3:
        raise _no_pictures(field)
    images, notes = visible(field.kind, rows)
    file = io.BytesIO()
    grid(images, columns).save(file, "PNG", optimize=True)
    write_bytes(path, file.getvalue())
    return notes


def write_folder(path: Path, field: Field, rows: Tensor, columns: int | None) -> list[str]:
    """A new folder with a PNG for each row in its own size: 0000.png, 0001.png, ...; raises UsageError for rows that are no pictures."""
    if len(field.shape) != 3 or field.shape[0] not in (1, 2, 3):
        raise _no_pictures(field)
    images, notes = visible(field.kind, rows)
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write into {path}: {error.strerror}; choose another folder") from None
    digits = max(4, len(str(len(rows) - 1)))
    for number, cell in enumerate(_pixels(images)):
        file = io.BytesIO()
        Image.fromarray(cell[..., 0] if cell.shape[-1] == 1 else cell).save(file, "PNG", optimize=True)
        write_bytes(path / f"{number:0{digits}}.png", file.getvalue())
    return notes


def write_npy(path: Path, field: Field, rows: Tensor, columns: int | None) -> list[str]:
    """An array [n, *shape] of float32 in the units of the data, for `numpy.load`; raises UsageError for tables, whose columns have names and types."""
    if isinstance(field.kind, Table):
        raise UsageError(f"cannot write {path}: columns with names and types are no array; write -o rows.csv or -o rows.parquet")
    file = io.BytesIO()
    np.save(file, stored(field.kind, rows).float().numpy(), allow_pickle=False)
    write_bytes(path, file.getvalue())
    return []


def write_csv(path: Path, field: Field, rows: Tensor, columns: int | None) -> list[str]:
    """A line for each row: a table's own columns, else its numbers in the units of the data and in C order under the names x0, x1, ..."""
    if isinstance(field.kind, Table):
        write_frame(path, unpacked(field.kind, rows.detach().cpu().numpy()))
        return []
    flat = stored(field.kind, rows).flatten(1).numpy()
    file = io.StringIO()
    np.savetxt(file, flat, fmt="%.7g", delimiter=",", header=",".join(f"{field.name}{i}" for i in range(flat.shape[1])), comments="")
    write_bytes(path, file.getvalue().encode())
    return []


def write_parquet(path: Path, field: Field, rows: Tensor, columns: int | None) -> list[str]:
    """The rows of a table under their own names, in their own types; raises UsageError for other data."""
    write_frame(path, unpacked(require_table(field), rows.detach().cpu().numpy()))
    return []


WRITERS: dict[str, Writer] = {".png": write_png, ".npy": write_npy, ".csv": write_csv, ".parquet": write_parquet}


def require_writer(path: Path, *read: Path) -> Writer:
    """What writes files with the ending of `path`, or of none a new folder of pictures.

    Raises UsageError for an unknown ending, a missing folder, a folder that is not empty, and a file that is `read`.
    """
    ending = path.suffix.lower()
    if ending not in WRITERS and ending:
        raise UsageError(f"cannot write {path}: its ending {ending!r} is unknown{did_you_mean(ending, WRITERS)}")
    if not ending and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"cannot make the folder {path}: it is there already, and what is in it stays as it is; choose another")
    if ending or not path.exists():
        require_place(path, *read)
    return WRITERS.get(ending, write_folder)


def write(path: Path, field: Field, rows: Tensor, columns: int | None = None) -> list[str]:
    """Rows [n, *shape] of a field to a file whose ending says how; returns what to know of it."""
    return require_writer(path)(path, field, rows, columns)


def write_pairs(path: Path, field: Field, originals: Tensor, reconstructions: Tensor) -> list[str]:
    """Originals beside reconstructions in a picture, at most four pairs a line; as numbers, the reconstructions alone."""
    if require_writer(path) is not write_png:
        return write(path, field, reconstructions)
    return write(path, field, beside(originals, reconstructions), 2 * min(4, math.ceil(math.sqrt(len(originals)))))
