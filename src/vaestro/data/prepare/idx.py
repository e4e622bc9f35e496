"""IDX files, the format of MNIST: a header of sizes, then the numbers; plain or compressed with gzip."""

import gzip
import io
import math
import struct
import zlib
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np

from vaestro.data.kinds import Array
from vaestro.errors import VaestroError

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
Bytes: TypeAlias = io.BufferedIOBase | IO[bytes]  # by inheritance or by protocol: the files of archives are only the first
GZIP = b"\x1f\x8b"


def read_idx(path: Path) -> Array:
    """The array in an IDX file, or VaestroError if its size is not what its header says."""
    try:
        with path.open("rb") as file:
            return parse_idx(unpacked(file), str(path))
    except OSError as error:
        raise VaestroError(f"{path} cannot be read ({error.strerror or error}); check the file and its permissions") from error


def unpacked(file: Bytes) -> Bytes:
    """`file` itself, or the content if it is compressed with gzip."""
    start = file.read(2)
    file.seek(0)
    return gzip.open(file, "rb") if start == GZIP else file


def parse_idx(file: Bytes, name: str) -> Array:
    """The array in an open IDX file, in native byte order; `name` is how errors call it.

    No more is read than the header promises, so a small file cannot unpack into a large one. Raises VaestroError for a foreign, short or long file.
    """
    try:
        start = file.read(4)
        if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in TYPES or not start[3]:
            raise VaestroError(f"{name} is not an IDX file, for its first bytes are {start!r}; give one such as train-images-idx3-ubyte")
        sizes = file.read(4 * start[3])
        if len(sizes) < 4 * start[3]:
            raise VaestroError(f"{name} ends within its header; fetch it again")
        shape = struct.unpack(f">{start[3]}I", sizes)
        dtype = np.dtype(TYPES[start[2]])
        due = math.prod(shape) * dtype.itemsize
        data = _read(file, due + 1)
    except (EOFError, OSError, ValueError, zlib.error) as error:
        raise VaestroError(f"{name} is broken ({error}); fetch it again") from error
    if len(data) != due:
        much = "more" if len(data) > due else f"{len(data)}"
        raise VaestroError(f"{name} has {much} bytes of numbers where its header {shape} promises {due}; fetch it again")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _read(file: Bytes, most: int) -> bytes:
    """At most `most` bytes, read in pieces so that a header with absurd sizes takes no memory."""
    out = io.BytesIO()
    while out.tell() < most and (piece := file.read(min(2**22, most - out.tell()))):
        out.write(piece)
    return out.getvalue()
