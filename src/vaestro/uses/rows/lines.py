"""Pictures in lines, with words beside them; and the rows, masks and noisy pictures that the commands on images read."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vaestro.data.prepare.pictures import Unreadable, open_picture
from vaestro.data.rows import Rows
from vaestro.data.schema import Binary, Category, Field, Integer, Real
from vaestro.errors import UsageError, VaestroError
from vaestro.evaluation.scope import fixed_rows
from vaestro.seeds import forked, mix
from vaestro.training.files import write_bytes
from vaestro.training.runs import Run
from vaestro.uses.generate import means
from vaestro.uses.rows.given import rows_of, texts
from vaestro.uses.rows.inputs import Bring, exact, read
from vaestro.uses.rows.pictures import GAP, enlargement, grid, require_writer, visible, write, write_png

MARGIN, LETTER = 8, 14  # pixels beside words, and the height of letters
PAPER, INK = (255, 255, 255), (0, 0, 0)
HOLE = 0.5  # what stands in a hole where a picture is shown with it


def write_lines(path: Path, field: Field, made: Tensor, first: Sequence[Tensor] = (), words: Sequence[str] = (), last: Sequence[Tensor] = ()) -> list[str]:
    """Rows made in lines [k, b, *shape] as a picture: for each of b those of `first` [b, *shape], its k, those of `last`; `words` stand before.

    As numbers, the rows that were made alone, line by line: [b * k, *shape]. Returns what to know of it; raises UsageError as `write` does.
    """
    if require_writer(path) is not write_png or len(field.shape) != 3:
        return write(path, field, made.transpose(0, 1).flatten(0, 1))
    lines = torch.cat([*(f.to(made)[None] for f in first), made, *(f.to(made)[None] for f in last)]).transpose(0, 1)
    images, notes = visible(field.kind, lines.flatten(0, 1))
    sheet = grid(images, lines.shape[1])
    file = io.BytesIO()
    (labelled(sheet, words, enlargement(*field.shape[1:]) * field.shape[1] + GAP) if words else sheet).save(file, "PNG", optimize=True)
    write_bytes(path, file.getvalue())
    return notes


def labelled(sheet: Image.Image, words: Sequence[str], tall: int) -> Image.Image:
    """A sheet of lines, `tall` pixels each, with words before every line."""
    font = ImageFont.load_default(size=LETTER)
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    wide = int(max(pen.textlength(word, font=font) for word in words)) + 2 * MARGIN
    whole = Image.new("RGB", (sheet.width + wide, sheet.height), PAPER)
    whole.paste(sheet.convert("RGB"), (wide, 0))
    pen = ImageDraw.Draw(whole)
    for number, word in enumerate(words):
        pen.text((wide - MARGIN, GAP + number * tall + (tall - GAP) // 2), word, fill=INK, font=font, anchor="rm")
    return whole


def held_rows(run: Run, most: int, split: str = "validation") -> tuple[Tensor, dict[str, np.ndarray]]:
    """Some fixed rows of the run's data, spread over a split, and their classes by field.

    Raises UsageError for a split that there is not, VaestroError where the data changed or are not to be had.
    """
    data = run.data()
    index = fixed_rows(data.split(split).rows, most)
    return _rows(run, split, index), {
        f.name: np.asarray(data.split(split).arrays[f.name][index.numpy()]).astype(np.int64)
        for f in data.schema
        if f.name != run.field.name and isinstance(f.kind, Category) and f.shape == ()
    }


def _rows(run: Run, split: str, index: Tensor) -> Tensor:
    data = run.data()
    with forked():
        torch.manual_seed(mix(0, 29))  # rows that are drawn anew at every reading are the same ones here
        rows: Tensor = Rows(data.split(split), data.schema, (run.field.name,)).batch(index)[run.field.name]
        return rows


def held_or_dreamt(run: Run, most: int) -> tuple[Tensor, list[str]]:
    """Validation rows of the run, or its own dreams where the data are not on this machine, and what to say of that."""
    try:
        return held_rows(run, most)[0], []
    except VaestroError as reason:
        return means(run, most), [f"the data of {run.name} are not to be had ({reason}), so its own samples stand for them"]


def labelled_rows(run: Run, wanted: Sequence[str], most: int, split: str = "train") -> Tensor:
    """At most `most` rows of a split whose fields have the values that texts such as `label=7` say, all of them; [n, *shape].

    Raises UsageError for a field that holds no classes, a class that there is not, and where no row has them all.
    """
    data = run.data()
    keep = np.ones(data.split(split).rows, bool)
    for name, value in texts(wanted).items():
        classes = [f.name for f in data.schema if isinstance(f.kind, Category) and f.shape == ()]
        if name not in classes:
            raise UsageError(f"{name!r} is no field of classes of {data.name!r}; it has {', '.join(classes) or 'none, so there are no attributes to add'}")
        field = data.schema[name]
        keep &= np.asarray(data.split(split).arrays[name]) == int(rows_of(field.kind, field, value, 1)[0])
    where = torch.from_numpy(np.flatnonzero(keep))
    if not len(where):
        raise UsageError(f"no {split} row has {', '.join(wanted)}; ask for fewer of them together")
    return _rows(run, split, where[fixed_rows(len(where), most)])


def read_noisy(paths: Sequence[Path], run: Run, bring: Bring = exact) -> tuple[Tensor, list[str]]:
    """Noisy rows [n, *shape] in unit values: images with all their grey, and numbers in .npy files that no clean row could have.

    Raises UsageError for a file that is missing or does not fit, VaestroError for one that cannot be read.
    """
    kind = run.field.kind
    top = kind.levels - 1 if isinstance(kind, Integer) else 1
    rows, notes = [], []
    for path in paths:
        numbers = path.suffix.lower() == ".npy"
        found, said = read([path], replace(run.field, kind=Real() if numbers else Integer(256) if isinstance(kind, Binary | Integer) else kind), bring)
        rows.append(found / top if numbers else found)
        notes += said
    return torch.cat(rows), notes


def box_mask(run: Run, text: str) -> Tensor:
    """A mask [*shape] that hides a box, from a text `row,column,height,width` in pixels; true where seen.

    Raises UsageError for a text that says no box, one that lies outside, and rows that are no pictures.
    """
    if len(run.field.shape) != 3:
        raise UsageError(f"the rows of {run.name} are shaped {run.field.shape} and are no pictures, so a box has no place in them; give a --mask of that shape")
    try:
        row, column, height, width = (int(v) for v in text.split(","))
    except ValueError:
        raise UsageError(f"{text!r} is no box; write --box ROW,COLUMN,HEIGHT,WIDTH in pixels, for example --box 0,14,28,14") from None
    _, tall, wide = run.field.shape
    if row < 0 or column < 0 or height < 1 or width < 1 or row + height > tall or column + width > wide:
        raise UsageError(f"the box {text} does not lie inside pictures of {tall}x{wide} (height x width); rows and columns count from 0")
    mask = torch.ones(run.field.shape, dtype=torch.bool)
    mask[:, row : row + height, column : column + width] = False
    return mask


def read_mask(run: Run, path: Path) -> Tensor:
    """A mask [*shape], true where seen, from an image of the size of the rows, white where it hides, or a .npy of booleans, true where it hides.

    Raises UsageError for another shape or another type, VaestroError for a file that cannot be read.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}; give an image that is white where the rows are to be completed")
    shape = run.field.shape
    try:
        if path.suffix.lower() == ".npy":
            hidden = np.load(path, allow_pickle=False)
            if hidden.dtype != np.bool_:
                raise UsageError(f"{path} holds {hidden.dtype}, and a mask is booleans, true where it hides; write it with numpy.save(path, mask.astype(bool))")
        else:
            hidden = np.asarray(open_picture(path.read_bytes()).image.convert("L")) > 127
    except (Unreadable, ValueError, OSError, EOFError) as reason:
        raise VaestroError(f"{path} cannot be read: {reason}; give another file") from None
    if hidden.shape not in (shape, shape[1:]):
        raise UsageError(f"the mask {path} is shaped {hidden.shape}, and the rows of {run.name} are {shape}; give one of that size")
    return ~torch.from_numpy(np.broadcast_to(hidden, shape).copy())


def with_hole(x: Tensor, seen: Tensor) -> Tensor:
    """Rows with grey where they are not seen."""
    return torch.where(seen, x, HOLE)


def hole(run: Run, mask: Path | None, box: str | None) -> Tensor:
    """What a mask or a box leaves to be seen, [*shape]; raises UsageError unless one of the two is given."""
    if (mask is None) == (box is None):
        raise UsageError("say what is to be completed: either --mask FILE, white where it is, or --box ROW,COLUMN,HEIGHT,WIDTH")
    return box_mask(run, box) if box is not None else read_mask(run, mask) if mask is not None else torch.ones(run.field.shape, dtype=torch.bool)
