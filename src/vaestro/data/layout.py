"""How the rows of an array lie: images in any of the usual orders become [channels, height, width]."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vaestro.data.kinds import Array
from vaestro.data.schema import Shape
from vaestro.errors import UsageError

CHANNELS = (1, 3, 4)  # grey, RGB, RGBA


class Layout(NamedTuple):
    """The shape of a stored row, how a block of rows is brought to it, and what to tell the user."""

    shape: Shape
    apply: Callable[[Array], Array]
    notes: tuple[str, ...] = ()


def layout(name: str, array: Array) -> Layout:
    """The layout of the rows of `array`: [n] and [n, D] stay (x: [n, 1]), [n, H, W] is grey, [n, H, W, C] and [n, C, H, W] are told apart by C = 1, 3, 4.

    Where both readings or neither fit, a note says which was taken: the square image if only one is square, else channels first. Four channels of uint8 are
    RGBA and are laid over white. More axes stay as they are. Raises UsageError for rows without entries.
    """
    if 0 in array.shape[1:]:
        raise UsageError(f"the rows of {name!r} have shape {array.shape[1:]}, which holds no numbers")
    if array.ndim == 1 and name == "x":
        return Layout((1,), lambda block: block[:, None])
    if array.ndim == 3:
        return Layout((1, *array.shape[1:]), lambda block: block[:, None])
    return _image(name, array) if array.ndim == 4 else Layout(array.shape[1:], lambda block: block)


def _image(name: str, array: Array) -> Layout:
    _, a, b, c = array.shape
    first, last = a in CHANNELS, c in CHANNELS
    turned = last and (not first or a == b != c)
    shape, turn = ((c, a, b), _channels_first) if turned else ((a, b, c), _same)
    notes = (f"{name!r} has rows of shape {(a, b, c)}, read as {shape[0]} channels of {shape[1]}x{shape[2]}",) if first == last else ()
    if shape[0] != 4 or array.dtype != np.uint8:
        return Layout(shape, turn, notes)
    return Layout((3, *shape[1:]), lambda block: over_white(turn(block)), (*notes, f"{name!r} has an alpha channel and was laid over white"))


def _same(block: Array) -> Array:
    return block


def _channels_first(block: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(block, -1, 1))


def over_white(block: Array) -> Array:
    """RGBA [n, 4, H, W] of uint8 over a white ground: (colour * alpha + 255 * (255 - alpha)) / 255, rounded; [n, 3, H, W]."""
    colour, alpha = block[:, :3].astype(np.uint16), block[:, 3:].astype(np.uint16)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
