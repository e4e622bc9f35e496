"""The likelihood, corrected by how simple a row is anyway: a smooth row is likely under every model."""

import bz2
import io
import zlib
from functools import singledispatch

import numpy as np

from vaestro.core import content
from vaestro.data.schema import Binary, Count, Field, Integer, Kind, Real
from vaestro.errors import UsageError
from vaestro.evaluation.likelihood import Rows
from vaestro.evaluation.metrics.subject import Subject
from vaestro.evaluation.outliers.base import OUTLIER_SCORES, OutlierScore
from vaestro.evaluation.outliers.contexts import adaptive_bits
from vaestro.evaluation.scope import device_of, seeded
from vaestro.seeds import forked

BYTE = 256


@singledispatch
def whole(kind: Kind, values: np.ndarray) -> np.ndarray:
    """Values as models read them, as the whole numbers that are stored, losslessly, in the smallest type. Open."""
    raise UsageError(f"rows of kind {type(kind).__name__} are not whole numbers, so no lossless code says how simple they are; leave this score out")


@whole.register
def _(kind: Binary, values: np.ndarray) -> np.ndarray:
    return (values > 0.5).astype(np.uint8)


@whole.register
def _(kind: Integer, values: np.ndarray) -> np.ndarray:
    return np.rint(values.astype(np.float64) * max(1, kind.levels - 1)).astype(np.uint8 if kind.levels <= BYTE else np.int32)


@whole.register
def _(kind: Count, values: np.ndarray) -> np.ndarray:
    return values.astype(np.int32)


@whole.register
def _(kind: Real, values: np.ndarray) -> np.ndarray:
    if kind.step is None:
        raise UsageError(
            "real numbers without a step have no lossless code, so nothing says how simple a row is; declare Real(step=...), or leave this score out"
        )
    return np.rint(values.astype(np.float64) / kind.step).astype(np.int64)


def png(row: np.ndarray, field: Field) -> int:
    """The bytes of a row's pixels [C, H, W] as PNG, of one bit each where they are binary."""
    from PIL import Image

    image = Image.fromarray(row[0] if len(row) == 1 else np.moveaxis(row, 0, 2))
    if isinstance(field.kind, Binary) and len(row) == 1:
        image = Image.fromarray(row[0] * 255).convert("1")
    held = io.BytesIO()
    image.save(held, "PNG", optimize=True)
    return len(held.getvalue())


def bits(row: np.ndarray, field: Field) -> int:
    """The bits of the shortest of the codes of one row of whole numbers: zlib and bz2 at their strongest, and PNG of grey or colour pictures."""
    raw = np.packbits(row) if isinstance(field.kind, Binary) else row
    lengths = [len(zlib.compress(raw.tobytes(), 9)), len(bz2.compress(raw.tobytes(), 9))]
    if len(field.shape) == 3 and field.shape[0] in (1, 3) and row.dtype == np.uint8:
        lengths.append(png(row, field))
    return 8 * min(lengths)


def lengths(stored: np.ndarray, field: Field) -> Rows:
    """The bits of each of the rows [n, *shape] of whole numbers by the shortest of their codes: those of `bits`, and of binary pictures `adaptive_bits`."""
    generic = np.array([bits(row, field) for row in stored], dtype=np.float64)
    return np.minimum(generic, adaptive_bits(stored)) if isinstance(field.kind, Binary) and len(field.shape) == 3 else generic


def complexity(rows: Subject, usual: Subject) -> Rows:
    """-log2 p(x) - L(x), bits: p(x) by importance sampling, as the mass of the row, and L the length of its shortest generic code (Serra et al. 2020, eq. 1).

    Raises UsageError for rows that are not whole numbers, such as real ones without a step.
    """
    field = rows.field
    stored = []
    with forked(device_of(rows.model)):
        for batch in seeded(rows.rows(), rows.seed):
            stored.append(lengths(whole(field.kind, content(batch[field.name]).cpu().numpy()), field))
    at = field.bits_per_dim(0.0)
    mass = field.size * (at - rows.likelihood.log_px * (field.bits_per_dim(1.0) - at))
    return np.asarray(mass - np.concatenate(stored))


OUTLIER_SCORES.enter(
    OutlierScore(
        "complexity", "negative log-likelihood beyond the row's own complexity", "bits",
        "importance samples as in `nll`; minus the shortest of PNG, zlib, bz2 and, of binary pictures, an adaptive code in contexts",
        "Serra et al. 2020, equation 1", complexity,
    ),
)  # fmt: skip
