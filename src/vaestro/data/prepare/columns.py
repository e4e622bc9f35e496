"""One column of a table as numbers and back: how each kind of column is held, which values it refuses, and how it is written again."""

import re
from collections.abc import Mapping
from decimal import Decimal
from functools import singledispatch
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vaestro.data.kinds import MOST_COUNTED
from vaestro.data.schema import Aside, Column, Counted, Dated, Measured, Named, Ordered, Positive
from vaestro.errors import UsageError, did_you_mean

Series: TypeAlias = Any  # polars.Series; polars is imported where it is used
Numbers: TypeAlias = NDArray[np.float64]
OTHER = "other"
UNSEEN = ("", "?", "NA", "N/A", "NaN", "nan", "NULL", "null")  # how text says that an entry was not seen
EARLIEST, LATEST = -62_135_596_800.0, 253_402_300_799.0  # seconds since 1970 of the years 1 and 9999
LARGEST = 1e150  # beyond it squares overflow
WHOLE = ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
NUMERIC = re.compile(r"[+-]?(?:0|[1-9]\d*|(?=\.\d))(?:\.\d*)?(?:[eE][+-]?\d{1,9})?")  # with a leading zero it is a code
SHOWN = 6  # categories that a table of columns names


def cleaned(series: Series) -> Series:
    """Text without blanks at its ends, and null where it says that an entry was not seen; spans of time in seconds; other columns as they are."""
    import polars as pl

    if series.dtype in (pl.Categorical, pl.Null) or isinstance(series.dtype, pl.Enum):
        series = series.cast(pl.String)
    if isinstance(series.dtype, pl.Duration):
        return series.dt.total_microseconds() / 1e6
    if series.dtype != pl.String:
        return series.fill_nan(None) if series.dtype.is_float() else series
    bare = series.str.strip_chars()
    return bare.set(bare.is_in(UNSEEN), None)


def series_of(name: str, value: object) -> Series:
    """One value as a column of one row."""
    import polars as pl

    return pl.Series(name, [value], strict=False)


def numbers(name: str, series: Series) -> Numbers:
    """A column as float64, NaN where it was not seen; raises UsageError, with the row, for text, infinite values and values beyond 1e150."""
    import polars as pl

    found = cleaned(series)
    if found.dtype.is_temporal() or found.dtype.is_nested() or found.dtype == pl.Binary:
        raise UsageError(f"column {name!r} holds {found.dtype} values, and numbers are wanted; declare it a date, or bring it to numbers")
    cast = found.cast(pl.Float64, strict=False)
    _refuse(found, cast.is_null() & found.is_not_null(), f"column {name!r} holds numbers", "correct it, or declare the column category")
    values = np.asarray(cast.to_numpy(), np.float64)
    wrong = np.isinf(values) | (np.abs(np.nan_to_num(values)) > LARGEST)
    if wrong.any():
        row = int(wrong.argmax())
        raise UsageError(f"column {name!r} is {values[row]:g} in row {row}; remove it, or leave the entry empty if it was not seen")
    return values


def moments(series: Series, name: str) -> Numbers:
    """A column of dates as seconds since 1970 (UTC), NaN where it was not seen; raises UsageError for what is no date of the years 1 to 9999."""
    import polars as pl

    found = cleaned(series)
    read = found
    if found.dtype == pl.String:
        read = dates(found)
        _refuse(found, read.is_null() & found.is_not_null(), f"column {name!r} holds dates such as 2024-05-31", "correct it, or declare the column category")
    if read.dtype not in (pl.Date, pl.Datetime):
        raise UsageError(f"column {name!r} holds {found.dtype} values, and dates are wanted; write them as 2024-05-31, or declare the column real")
    micro = read.cast(pl.Datetime("us")).dt.epoch("us") if read.dtype == pl.Date else read.dt.epoch("us")
    values = np.asarray(micro.cast(pl.Float64).to_numpy(), np.float64) / 1e6
    wrong = (values < EARLIEST) | (values > LATEST)
    if wrong.any():
        raise UsageError(f"column {name!r} has a date outside the years 1 to 9999 in row {int(wrong.argmax())}; correct it, or leave the entry empty")
    return values


def dates(text: Series) -> Series:
    """Text as dates, or as dates with times where any has one; null where it is neither."""
    import polars as pl

    days = text.str.to_date("%Y-%m-%d", strict=False)
    if days.null_count() == text.null_count():
        return days
    times = [
        text.str.to_datetime(form, strict=False, time_unit="us") for form in ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M")
    ]
    return pl.select(pl.coalesce(times)).to_series().alias(text.name)


def texts(series: Series) -> Series:
    """A column as the text of its values: whole numbers without a point, true and false in small letters."""
    import polars as pl

    found = cleaned(series)
    if found.dtype.is_float() and bool((found.drop_nulls() == found.drop_nulls().round()).all()) and bool((found.drop_nulls().abs() < 2**53).all()):
        found = found.cast(pl.Int64)
    return found.cast(pl.String)


def _refuse(found: Series, wrong: Series, said: str, remedy: str) -> None:
    if wrong.any():
        row = int(wrong.arg_max() or 0)
        raise UsageError(f"{said}, and its row {row} is {found[row]!r}; {remedy}")


@singledispatch
def pack(column: Column, series: Series) -> Numbers:
    """A column as it is held, float64 [rows], NaN where it was not seen; raises UsageError, with the row, for values that it cannot hold. Open."""
    raise UsageError(f"a column of kind {type(column).__name__} cannot be packed; say how with @pack.register")


@singledispatch
def unpack(column: Column, held: Numbers) -> Series:
    """What `pack` made as values again, in the column's own units and type: the inverse of `pack` up to float32. Open."""
    raise UsageError(f"a column of kind {type(column).__name__} cannot be unpacked; say how with @unpack.register")


@pack.register
def _(column: Measured, series: Series) -> Numbers:
    return (numbers(column.name, series) - column.loc) / column.scale


@pack.register
def _(column: Positive, series: Series) -> Numbers:
    values = numbers(column.name, series)
    if (values <= 0).any():
        raise UsageError(f"column {column.name!r} is positive, and its row {int((values <= 0).argmax())} is {values[values <= 0][0]:g}; declare it real")
    return (np.log(values) - column.loc) / column.scale


@pack.register
def _(column: Dated, series: Series) -> Numbers:
    return (moments(series, column.name) - column.loc) / column.scale


@pack.register
def _(column: Counted, series: Series) -> Numbers:
    values = numbers(column.name, series)
    wrong = (values < 0) | (values > MOST_COUNTED) | (values != np.rint(values)) & ~np.isnan(values)
    if wrong.any():
        row = int(wrong.argmax())
        raise UsageError(f"column {column.name!r} holds counts 0 to {MOST_COUNTED}, and its row {row} is {values[row]:g}; declare it real")
    return values


@pack.register(Ordered)
@pack.register(Named)
def _(column: Ordered | Named, series: Series) -> Numbers:
    import polars as pl

    found = texts(series)
    places = _spelt(dict(zip(column.levels, range(len(column.levels)), strict=True)), found)
    index = found.replace_strict(places, default=None, return_dtype=pl.Float64)
    new = index.is_null() & found.is_not_null()
    if isinstance(column, Named) and column.other:
        index = index.set(new, float(len(column.levels) - 1))
    elif new.any():
        row = int(new.arg_max() or 0)
        say = did_you_mean(found[row], column.levels) if len(column.levels) <= 50 else f"; it has {len(column.levels)}"
        remedy = f"correct it, leave it empty, or train with {column.name}=open"
        raise UsageError(f"column {column.name!r} has no category {found[row]!r} (row {row}){say}; {remedy}")
    return np.asarray(index.to_numpy(), np.float64)


def _spelt(levels: Mapping[str, int], found: Series) -> dict[str, int]:
    """The places of levels, with the other spellings of them among the values found: a file says True for true, and 1.0 or +1 for 1."""
    numeric = {Decimal(level): place for level, place in levels.items() if NUMERIC.fullmatch(level)}  # float64 makes one of 2^53 and 2^53 + 1
    places = dict(levels)
    for word in set(found.drop_nulls().unique()) - levels.keys():
        if word.lower() in ("true", "false") and word.lower() in levels:
            places[word] = levels[word.lower()]
        elif NUMERIC.fullmatch(word) and Decimal(word) in numeric:
            places[word] = numeric[Decimal(word)]
    return places


def on_grid(column: Measured, values: Numbers) -> Numbers:
    """Values rounded to the column's step, if it has one."""
    if column.step is None:
        return values
    decimals = max(0, round(-np.log10(column.step)))
    rounded = np.rint(values / column.step) * column.step
    return np.round(rounded, decimals) if column.step < 1 else rounded


@unpack.register
def _(column: Measured, held: Numbers) -> Series:
    return _series(column, on_grid(column, held.astype(np.float64) * column.scale + column.loc))


@unpack.register
def _(column: Positive, held: Numbers) -> Series:
    with np.errstate(over="ignore"):
        values = np.exp(held.astype(np.float64) * column.scale + column.loc)
    least = column.step or np.finfo(np.float64).tiny
    return _series(column, np.clip(on_grid(column, np.minimum(values, LARGEST)), least, None))


@unpack.register
def _(column: Dated, held: Numbers) -> Series:
    import polars as pl

    seconds = np.clip(on_grid(column, held.astype(np.float64) * column.scale + column.loc), EARLIEST, LATEST)
    micro = pl.Series(column.name, seconds * 1e6, nan_to_null=True).round().cast(pl.Int64)
    moment = micro.cast(pl.Datetime("us"))
    return moment.cast(pl.Date) if column.dtype == "Date" else moment


@unpack.register
def _(column: Counted, held: Numbers) -> Series:
    return _series(column, held.astype(np.float64))


@unpack.register(Ordered)
@unpack.register(Named)
def _(column: Ordered | Named, held: Numbers) -> Series:
    import polars as pl

    index = pl.Series(column.name, held.astype(np.float64), nan_to_null=True).round().cast(pl.Int64).clip(0, len(column.levels) - 1)
    words = index.replace_strict(dict(enumerate(column.levels)), return_dtype=pl.String, default=None)
    return words if isinstance(column, Named) and column.other else _valued(words, column.dtype)


def _series(column: Measured | Counted, values: Numbers) -> Series:
    import polars as pl

    series = pl.Series(column.name, values, nan_to_null=True)
    if column.dtype not in WHOLE:
        return series
    low, high = (0.0, 2.0**64 - 2**11) if column.dtype == "UInt64" else (-(2.0**63), 2.0**63 - 2**10)  # the largest that float64 holds
    return series.clip(low, high).cast(pl.UInt64 if column.dtype == "UInt64" else pl.Int64)


def _valued(words: Series, dtype: str) -> Series:
    """Text as values of the type that polars calls `dtype`: numbers of 64 bits, truths, else the text itself."""
    import polars as pl

    types = dict.fromkeys(WHOLE, pl.Int64) | {"UInt64": pl.UInt64, "Float64": pl.Float64, "Float32": pl.Float64}
    return words == "true" if dtype == "Boolean" else words.cast(types.get(dtype, pl.String), strict=False)


def again(aside: Aside, rows: int) -> Series:
    """A column of one value, `rows` times."""
    import polars as pl

    words = pl.Series(aside.name, [aside.value] * rows, dtype=pl.String)
    return words.str.to_date(strict=False) if aside.dtype == "Date" else _valued(words, aside.dtype)


@singledispatch
def word(column: Column | Aside) -> str:
    """The word that declares a column of this kind. Open."""
    words = {Measured: "real", Positive: "positive", Dated: "date", Counted: "count", Ordered: "ordered"}
    return next((said for kind, said in words.items() if type(column) is kind), type(column).__name__.lower())


@word.register
def _(column: Named) -> str:
    return "open" if column.other else "category"


@word.register
def _(column: Aside) -> str:
    return column.reason


@singledispatch
def extent(column: Column | Aside, held: Numbers) -> str:
    """The range or the levels of a column, from how its values are held. Open."""
    seen = held[~np.isnan(held)]
    if not len(seen):
        return ""
    ends = unpack(column, np.array([seen.min(), seen.max()]))  # type: ignore[arg-type]
    step = getattr(column, "step", None)
    low, high = (f"{v:.6g}" if isinstance(v, float) else str(v) for v in ends)
    return f"{low} to {high}" + (f", in steps of {step:g}" if step and not isinstance(column, Dated) and step != 1 else "")


@extent.register(Ordered)
@extent.register(Named)
def _(column: Ordered | Named, held: Numbers) -> str:
    more = f", ... ({len(column.levels)} levels)" if len(column.levels) > SHOWN else ""
    return (" < " if isinstance(column, Ordered) else ", ").join(column.levels[:SHOWN]) + more


@extent.register
def _(column: Aside, held: Numbers) -> str:
    return column.value or ""
