"""Models without latents: independent numbers, and the lengths of compressed files as probabilities."""

import io
import math
import zlib
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from vaestro.core import Batch, Model, Program, Site
from vaestro.data.schema import Binary, Field, Integer, Kind, Shape, levels
from vaestro.errors import UsageError, VaestroError
from vaestro.families import Bernoulli
from vaestro.families.base import FLOOR, Sizes
from vaestro.families.categorical import Categorical
from vaestro.models.classical.common import choose, gaussian, scales

HEADER = b"\x89PNG\r\n\x1a\n"


class Direct(Model):
    """x ~ p(x), with no latent beside it; every draw of nothing scores the same, so numbers are computed once."""

    def __init__(self, law: nn.Module) -> None:
        super().__init__()
        self.law = law

    def program(self, batch: Batch | None = None) -> Program:
        """x ~ p(x)."""
        yield Site("x", self.law())


class Marginals(nn.Module):
    """Every number on its own: a Bernoulli on two levels, a free mass for each of more levels, a Gaussian on real numbers; nats.

    Shares have one more of each level than was counted (Laplace 1814), so none is 0.
    """

    floor: Tensor

    def __init__(self, field: Field) -> None:
        super().__init__()
        self.field, n = field, levels(field.kind)
        channels, *rest = field.shape or (1,)
        self.numbers = nn.Parameter(torch.zeros(channels * (1 if n == 2 else n or 2), *rest))
        self.register_buffer("floor", torch.tensor(FLOOR))

    def forward(self) -> Distribution:
        """The distribution, of batch shape ()."""
        n, dims = levels(self.field.kind), len(self.field.shape)
        if n == 2:
            return Bernoulli(dims)(self.numbers)
        if n:
            return Categorical(n, dims)(self.numbers)
        loc, noise = self.numbers.chunk(2)
        return gaussian(self.field.kind, loc.reshape(self.field.shape), noise.maximum(self.floor).reshape(self.field.shape), dims)


@torch.no_grad()
def fit_marginals(model: Direct, rows: Tensor, held: Tensor) -> None:
    """Count the levels of rows [n, *shape], or take their means and standard deviations, whose least value held-out rows choose."""
    law = model.law
    assert isinstance(law, Marginals)
    n, shape = levels(law.field.kind), law.numbers.shape
    if not n:
        law.numbers.copy_(torch.cat([rows.double().mean(0).flatten(), rows.double().std(0, correction=0).flatten()]).reshape(shape))
        choose(model, law.floor.fill_, scales(rows.flatten(1)), held)
        return
    level = (rows * (n - 1)).round()
    shares = torch.stack([((level == v).double().sum(0) + 1) / (len(rows) + n) for v in range(n)])
    found = shares[1].logit() if n == 2 else shares.log()
    law.numbers.copy_(found.reshape(shape))  # level by level along the channels, as the family reads them


class Coder(NamedTuple):
    """A compressor of one row of levels: bytes from numbers, and numbers from bytes."""

    name: str
    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes], np.ndarray]


Coding: TypeAlias = Callable[[Field], Coder]


class CodeLength(Distribution):
    """log p(x) = -8 ln 2 times the bytes that a coder writes for x, in nats: the length of a file that was decoded again and compared.

    No file is the beginning of another, for each says where it ends. So 2^-bits summed over all x is at most 1 (Kraft 1949): less mass than a likelihood may
    give, hence -log p is an honest upper bound. Nothing can be drawn. Raises VaestroError where a file does not decode to its row.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.unit_interval

    def __init__(self, coder: Coder, kind: Kind, shape: Shape) -> None:
        self.coder, self.top, self.shape = coder, levels(kind) - 1, shape
        super().__init__(torch.Size(), torch.Size(shape), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Minus the length of each row's file, in nats: [*lead]."""
        flat = (value.detach().reshape(-1, *self.shape) * self.top).round().long().cpu().numpy()
        found = torch.tensor([self.verified(np.asarray(row)) for row in flat], dtype=value.dtype, device=value.device)
        return -8 * math.log(2) * found.reshape(value.shape[: value.dim() - len(self.shape)])

    def verified(self, row: np.ndarray) -> int:
        """The bytes of one row's file, which was decoded and compared."""
        if row.min(initial=0) < 0 or row.max(initial=0) > self.top:
            raise VaestroError(f"{self.coder.name}: a value lies outside of the levels 0 to {self.top}; score data of these levels")
        written = self.coder.encode(row)
        if not np.array_equal(self.coder.decode(written), row):
            raise VaestroError(f"{self.coder.name}: a file did not decode to the row it was made of; its length counts for nothing")
        return len(written)

    def sample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Raises UsageError: a compressor has no law to draw from."""
        raise UsageError(f"{self.coder.name} is a compressor, and makes no rows; its code lengths alone can be compared")

    @property
    def mean(self) -> Tensor:
        """Raises UsageError: there is none."""
        raise UsageError(f"{self.coder.name} is a compressor, and has no mean; its code lengths alone can be compared")


class Coded(nn.Module):
    """The lengths of a coder as a law of rows."""

    def __init__(self, field: Field, coding: Coding) -> None:
        super().__init__()
        self.field, self.coder = field, coding(field)

    def forward(self) -> Distribution:
        """The distribution, of batch shape ()."""
        return CodeLength(self.coder, self.field.kind, self.field.shape)


def nothing_to_fit(model: Model, rows: Tensor, held: Tensor) -> None:
    """A compressor is the same whatever the rows."""


def zlib_coder(field: Field) -> Coder:
    """zlib at level 9 (RFC 1950) on the row's numbers in order: eight to a byte where they are binary, else a byte each, or two above 256 levels."""
    binary, shape = levels(field.kind) == 2, field.shape
    kind = np.dtype("<u1" if levels(field.kind) <= 256 else "<u2" if levels(field.kind) <= 65536 else "<u4")

    def encode(row: np.ndarray) -> bytes:
        return zlib.compress((np.packbits(row.astype(bool)) if binary else row.astype(kind)).tobytes(), 9)

    def decode(written: bytes) -> np.ndarray:
        plain = zlib.decompress(written)
        numbers = np.unpackbits(np.frombuffer(plain, np.uint8))[: field.size] if binary else np.frombuffer(plain, kind)
        return numbers.astype(np.int64).reshape(shape)

    return Coder("zlib", encode, decode)


def chunks(file: bytes) -> list[tuple[bytes, bytes]]:
    """The chunks of a PNG file, name and content."""
    found, at = [], len(HEADER)
    while at < len(file):
        size = int.from_bytes(file[at : at + 4], "big")
        found.append((file[at + 4 : at + 8], file[at + 8 : at + 8 + size]))
        at += 12 + size
    return found


def _file(parts: list[tuple[bytes, bytes]]) -> bytes:
    return HEADER + b"".join(len(c).to_bytes(4, "big") + n + c + zlib.crc32(n + c).to_bytes(4, "big") for n, c in parts)


def png_coder(field: Field) -> Coder:
    """PNG (ISO 15948) as Pillow writes it, optimised: the content of the IDAT chunks alone, for all else follows from the shape of the data.

    Three channels make a colour picture, others stand one below the other as grey ones; binary data take a bit a pixel. Raises UsageError where rows are
    no pictures [C, H, W], or have more than 256 levels.
    """
    from PIL import Image

    if len(field.shape) != 3 or levels(field.kind) > 256:
        raise UsageError(f"png needs pictures [C, H, W] of at most 256 levels, and field {field.name!r} is {field.kind} {field.shape}; use zlib")
    c, h, w = field.shape
    colour, binary = c == 3, levels(field.kind) == 2

    def picture(row: np.ndarray) -> Image.Image:
        plane = row.transpose(1, 2, 0) if colour else row.reshape(c * h, w)
        return Image.fromarray((plane * (255 if binary else 1)).astype(np.uint8)).convert("1" if binary and not colour else "RGB" if colour else "L")

    def written(row: np.ndarray) -> list[tuple[bytes, bytes]]:
        file = io.BytesIO()
        picture(row).save(file, "PNG", optimize=True)
        return chunks(file.getvalue())

    blank = [(n, d) for n, d in written(np.zeros(field.shape, np.int64)) if n == b"IHDR"]

    def encode(row: np.ndarray) -> bytes:
        return b"".join(d for n, d in written(row) if n == b"IDAT")

    def decode(data: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(_file([*blank, (b"IDAT", data), (b"IEND", b"")]))) as image:
            plane = np.asarray(image.convert("RGB" if colour else "L"), np.int64) // (255 if binary else 1)
        return plane.transpose(2, 0, 1) if colour else plane.reshape(c, h, w)

    return Coder("png", encode, decode)


FITS: tuple[type[Kind], ...] = (Binary, Integer)  # what files hold
