"""One picture of any mode, as eight bits of grey or colour."""

import hashlib
import io
import warnings
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vaestro.data.kinds import Array
from vaestro.data.memory import as_array
from vaestro.data.schema import Shape
from vaestro.errors import UsageError

OPENED = {  # format of Pillow -> usual endings; none of these runs another program
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "TGA": (".tga",),
    "ICO": (".ico",),
    "ICNS": (".icns",),
    "JPEG2000": (".jp2", ".j2k"),
    "AVIF": (".avif",),
    "PCX": (".pcx",),
    "SGI": (".sgi",),
    "QOI": (".qoi",),
}
ENDINGS = frozenset(ending for endings in OPENED.values() for ending in endings)
SIXTEEN = "of 16 bits per value, scaled to 8 bits (value >> 8)"
THIRTY_TWO = "of 32 bits per value, none above 255, and were taken as 8 bits"
ALPHA = "transparent, laid over white"
FRAMES = "of several frames, of which the first was used"
WHITE = (255, 255, 255, 255)
SIXTEEN_AS_32 = ("PNG", "PPM")  # formats without 32-bit values, whose 16-bit ones Pillow may hold in 32
ORIENTATION = 0x0112  # the EXIF tag
TURNED = "turned upright as their EXIF orientation says"


class Unreadable(Exception):
    """A file that is no readable picture; its text is the reason."""


class Picture(NamedTuple):
    """A picture of mode L or RGB, and what was done to it."""

    image: Image.Image
    done: tuple[str, ...]

    @property
    def colour(self) -> bool:
        """Whether any pixel is not grey."""
        if self.image.mode == "L":
            return False
        pixels = np.asarray(self.image)
        return bool((pixels != pixels[..., :1]).any())

    @property
    def bits(self) -> bool:
        """Whether every pixel is black or white."""
        pixels = np.asarray(self.image)
        return bool(((pixels == 0) | (pixels == 255)).all()) and not self.colour

    @property
    def digest(self) -> bytes:
        """A hash that is equal for pictures with equal pixels, whatever file they came in."""
        return hashlib.sha256(repr(self.image.size).encode() + self.image.convert("RGB").tobytes()).digest()[:16]


def open_picture(data: bytes) -> Picture:
    """The picture in a file's bytes, upright, in eight bits of grey (L) or colour (RGB); raises Unreadable with the reason.

    Transparent pictures are laid over white. 16-bit values are shifted right by 8, and those that lie in 32 bits too, unless none is above 255.
    Pillow's MAX_IMAGE_PIXELS is a limit here, not a warning.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata, of which nothing is used
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_formats()) as image:
                image.load()
                return eight_bits(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unreadable(f"it has more than {Image.MAX_IMAGE_PIXELS} pixels, the limit of Image.MAX_IMAGE_PIXELS") from error
    except UnidentifiedImageError as error:
        raise Unreadable("it is empty" if not data else "it is no picture in a known format") from error
    except Unreadable:
        raise
    except Exception as error:  # broken files make decoders raise whatever they like; one bad file must never stop the others
        raise Unreadable(str(error) or type(error).__name__) from error


@cache
def _formats() -> tuple[str, ...]:
    """The formats of OPENED that this build of Pillow knows."""
    Image.init()
    return tuple(name for name in OPENED if name in Image.OPEN)


def eight_bits(image: Image.Image) -> Picture:
    """An open image of any mode as L or RGB; raises Unreadable for 32-bit integers and floating values, whose range is unknown."""
    done = [FRAMES] if getattr(image, "n_frames", 1) > 1 else []
    upright = ImageOps.exif_transpose(image)
    if image.getexif().get(ORIENTATION, 1) in range(2, 9):
        done.append(TURNED)
    mode = image.mode
    if mode.startswith("I"):
        values = _whole(upright)
        if mode == "I" and image.format not in SIXTEEN_AS_32 and values.max() <= 255:
            return Picture(Image.fromarray(values.astype(np.uint8)), (*done, THIRTY_TWO))
        return Picture(Image.fromarray((values >> 8).astype(np.uint8)), (*done, SIXTEEN))
    if mode == "F":
        raise Unreadable("it holds floating values, whose range is unknown; convert it to 8 or 16 bits")
    grey = mode in ("1", "L", "LA", "La")
    if mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        colour = upright.convert("RGBA")
        done += [ALPHA] if colour.getchannel("A").getextrema() != (255, 255) else []
        upright = Image.alpha_composite(Image.new("RGBA", colour.size, WHITE), colour)
    return Picture(upright.convert("L" if grey else "RGB"), tuple(done))


def _whole(image: Image.Image) -> Array:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise Unreadable("it holds 32-bit integers; convert it to 8 or 16 bits")
    return values


def fitted(image: Image.Image, shape: Shape) -> Array:
    """The picture as uint8 of `shape` = (channels, H, W): cut at its centre to that aspect, then resized with Lanczos's filter."""
    channels, height, width = shape
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    return np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)


@as_array.register
def _(value: Image.Image) -> Array:
    """A picture in a list or a torch data set."""
    try:
        return np.asarray(eight_bits(value).image)
    except Unreadable as error:
        raise UsageError(f"a picture cannot be read: {error}") from error
