"""How values of each kind are stored, which values are legal, and which kind an array holds when nobody says."""

from collections.abc import Iterable, Iterator
from enum import Enum
from functools import singledispatch
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vaestro.data.schema import Binary, Category, Count, Field, Integer, Kind, Real, Table
from vaestro.errors import UsageError

Array: TypeAlias = NDArray[Any]
BLOCK = 2**24  # bytes read at a time where a pass over all rows is made
MOST_LEVELS = 2**16  # whole numbers beyond this are treated as counts
MOST_COUNTED = 2**24  # and beyond this as real numbers of step 1, for float32 holds no larger whole number exactly
BRIGHTEST = 255  # of eight bits


class Encoding(Enum):
    """What a stored number stands for."""

    VALUE = "value"  # itself
    INTENSITY = "intensity"  # 0..255, and each reading draws a new binary value with P(x = 1) = number / 255


@singledispatch
def storage(kind: Kind) -> np.dtype[Any]:
    """The one type in which values of `kind` are stored: the smallest that torch can index. Open."""
    raise UsageError(f"values of kind {type(kind).__name__} cannot be stored; say how with @storage.register")


@storage.register
def _(kind: Binary) -> np.dtype[Any]:
    return np.dtype(np.uint8)


@storage.register(Real)
@storage.register(Table)
def _(kind: Real | Table) -> np.dtype[Any]:
    return np.dtype(np.float32)


@storage.register
def _(kind: Count) -> np.dtype[Any]:
    return np.dtype(np.int32)


@storage.register(Integer)
def _(kind: Integer) -> np.dtype[Any]:
    return _smallest(kind.levels)


@storage.register
def _(kind: Category) -> np.dtype[Any]:
    return _smallest(kind.n)


def _smallest(values: int) -> np.dtype[Any]:
    return np.dtype(np.uint8 if values <= 256 else np.int16 if values <= 2**15 else np.int32)


@singledispatch
def highest(kind: Kind) -> float:
    """The largest legal value of a discrete kind, whose smallest is 0; infinite for Real. Open."""
    return float("inf")


@highest.register
def _(kind: Binary) -> float:
    return 1


@highest.register(Integer)
def _(kind: Integer) -> float:
    return kind.levels - 1


@highest.register
def _(kind: Count) -> float:
    return MOST_COUNTED


@highest.register
def _(kind: Category) -> float:
    return kind.n - 1


class Survey(NamedTuple):
    """What one pass over an array found; two surveys join with `join`."""

    low: float
    high: float
    whole: bool  # every finite value is a whole number
    bits: bool  # every value is 0 or 1
    bad: int  # rows with NaN or infinite entries
    first: int  # the first such row, or -1
    rows: int
    ends: bool  # every value is 0 or 255


def blocks(array: Array) -> Iterator[tuple[int, Array]]:
    """The rows of `array` in blocks of some megabytes, with the number of the first row of each."""
    step = max(1, BLOCK // max(1, array[:1].nbytes))
    for start in range(0, len(array), step):
        yield start, array[start : start + step]


def survey(pieces: Iterable[Array]) -> Survey:
    """One pass over arrays that follow one another; memory is that of one piece. Complex or text entries raise UsageError."""
    found = Survey(np.inf, -np.inf, True, True, 0, -1, 0, True)
    for piece in pieces:
        found = join(found, _look(piece))
    return found


def _look(block: Array) -> Survey:
    if block.dtype.kind not in "buif":
        raise UsageError(f"an array of type {block.dtype} has no numbers to model; give booleans, whole numbers or real numbers")
    if block.dtype.kind != "f":
        return _extent(block, block, 0, -1)
    finite = np.isfinite(block)
    if finite.all():
        return _extent(block, block, 0, -1)
    wrong = ~finite.reshape(len(block), -1).all(1)
    return _extent(block, block[finite], int(wrong.sum()), int(wrong.argmax()))


def _extent(block: Array, good: Array, bad: int, first: int) -> Survey:
    if good.size == 0:
        return Survey(np.inf, -np.inf, True, True, bad, first, len(block), True)
    low, high = (float(v) if good.dtype.kind == "f" else v.item() for v in (good.min(), good.max()))  # a long double's item is one again
    whole = good.dtype.kind != "f" or bool((good == np.rint(good)).all())
    ends = low == 0 and high == BRIGHTEST and bool(((good == 0) | (good == BRIGHTEST)).all())
    return Survey(low, high, whole, whole and low >= 0 and high <= 1, bad, first, len(block), ends)


def join(a: Survey, b: Survey) -> Survey:
    """The survey of the rows of `a` followed by those of `b`."""
    first = a.first if a.first >= 0 else a.rows + b.first if b.first >= 0 else -1
    both = (a.whole and b.whole, a.bits and b.bits, a.bad + b.bad)
    return Survey(min(a.low, b.low), max(a.high, b.high), *both, first, a.rows + b.rows, a.ends and b.ends)


def check(field: Field, found: Survey, part: str = "") -> None:
    """Refuses values that are not legal for the field's kind: raises UsageError naming the field, the values and the remedy; `part` names the split."""
    what = f"field {field.name!r}" + (f" of the {part} rows" if part else "")
    if isinstance(field.kind, Table):
        return  # NaN says that an entry was not seen; values were looked at, column by column, when the table was packed
    if found.bad:
        rows = "1 row" if found.bad == 1 else f"{found.bad} rows"
        raise UsageError(f"{what} holds NaN or infinite values in {rows}, the first is row {found.first}; remove or fill those rows")
    top, kind = highest(field.kind), type(field.kind).__name__
    if found.low > found.high or top == np.inf:
        return
    if not found.whole:
        raise UsageError(f"{what} is declared {kind} but holds fractions; give whole numbers 0 to {top:g}, or declare it Real")
    if found.low < 0 or found.high > top:
        raise UsageError(f"{what} is {kind} with values 0 to {top:g} but holds {found.low:g} to {found.high:g}; correct the values or the declaration")


def infer(found: Survey, dtype: np.dtype[Any]) -> tuple[Kind, tuple[str, ...]]:
    """The kind that values found in an array of type `dtype` have when nobody says, with notes for the user.

    Only 0 and 1: Binary. uint8: Integer(256). Other whole-number types: Integer(max + 1), Count if there are
    more than 65,536 values, or Real(step=1) if there are negative or very large ones. Floating types: Real.
    """
    values = f"{found.low:g} to {found.high:g}"
    if found.bits:
        return Binary(), ()
    if dtype == np.uint8:
        only = "only the values 0 and 255, read as Integer(256); divide by 255 if they are meant to be Binary"
        return Integer(256), (only,) * found.ends
    if dtype.kind in "iu" and found.low >= 0 and found.high < MOST_LEVELS:
        wide = (f"whole numbers from {values} are read as Integer({found.high + 1:g}); if they are counts without a top, declare Count()",)
        return Integer(int(found.high) + 1), wide * (found.high > BRIGHTEST)
    if dtype.kind in "iu" and found.low >= 0 and found.high <= MOST_COUNTED:
        return Count(), (f"whole numbers from {values} are read as Count",)
    if dtype.kind in "iu":
        return Real(1.0), (f"whole numbers from {values} are read as Real(step=1)",)
    image_like = found.low >= 0 and (found.high <= 1 or (found.whole and found.high <= BRIGHTEST))
    advice = (
        f"a floating array with {'whole' if found.whole else 'all'} values in {values} is read as Real; grey or colour images should come as uint8 (0 to 255)"
    )
    return Real(), (advice,) * image_like
