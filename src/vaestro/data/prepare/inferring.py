"""Which kind of column a column is: as its user declared it, or as its values look."""

from collections.abc import Callable

import numpy as np

from vaestro.data.kinds import MOST_COUNTED
from vaestro.data.prepare.columns import OTHER, WHOLE, Numbers, Series, cleaned, dates, moments, numbers, texts
from vaestro.data.schema import Aside, Column, Counted, Dated, Measured, Named, Ordered, Positive
from vaestro.errors import UsageError
from vaestro.registry import Registry

FEW, MANY = 10, 255  # whole numbers of so few values are ordered levels; more categories than these are drawn together as one
UNIQUE = 20  # rows from which on a column of nothing but different words is taken for an id
SKEWED = 2.0  # the skewness above which positive numbers are taken by their logarithms
STRAY = 0.05  # the share of entries that may be slips in a column of numbers or dates
FINEST = 4  # decimals that are looked for
DAY = r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}(?:[ T].*)?"
WRITTEN = rf"^(?:[+-]?\d[\d.,]*\s*%|[+-]?\d+,\d+|[+-]?[$€£]\s*\d[\d.,]*|[+-]?\d{{1,3}}(?:[,' ]\d{{3}})+(?:\.\d+)?|{DAY})$"  # as people do
LABELS = ("label", "target", "class", "y")

Make = Callable[[str, Series], Column | Aside]
DECLARED: Registry[Make] = Registry("kind of column")


def typed(series: Series) -> Series:
    """Text that is nothing but numbers, truths or dates as such; numbers with a leading zero stay text, for they are codes."""
    import polars as pl

    text = cleaned(series)
    if text.dtype != pl.String or text.null_count() == len(text):
        return text
    if set(text.drop_nulls().str.to_lowercase().unique()) <= {"true", "false"}:
        return text.str.to_lowercase() == "true"
    if not text.str.contains(r"^[+-]?0\d").any():
        for kind in (pl.Int64, pl.UInt64, pl.Float64):
            cast = text.cast(kind, strict=False)
            if cast.null_count() == text.null_count():
                return cast
    moment = dates(text)
    return moment if moment.null_count() == text.null_count() else text


def stray(name: str, series: Series) -> str:
    """A note on a column of words of which all but at most one in twenty are numbers or dates, the rest perhaps slips of the pen, or are written like such."""
    import polars as pl

    if series.dtype != pl.String:
        return ""
    seen = cleaned(series)
    here = seen.is_not_null()
    unread = {"numbers": here & seen.cast(pl.Float64, strict=False).is_null(), "dates": here & dates(seen).is_null()}
    for what, wrong in unread.items():
        if 0 < wrong.sum() <= STRAY * here.sum():
            row = int(wrong.arg_max() or 0)
            rest = f"but for {wrong.sum()}, such as {seen[row]!r} in row {row}"
            return f"column {name!r} holds {what} {rest}, and is read as words for that; correct it, or leave it empty where it was not seen"
    odd = seen.filter(unread["numbers"] & unread["dates"])
    if len(odd) and seen.drop_nulls().str.contains(WRITTEN).mean() >= 1 - STRAY:
        return f"column {name!r} is read as words, such as {odd[0]!r}; if these are numbers or dates, write them as 1234.5 or 2024-05-31"
    return ""


def infer(name: str, series: Series) -> Column | Aside:
    """The kind of a column by its values, which `typed` has read; everything that is not sure can be declared otherwise."""
    import polars as pl

    if series.dtype.is_nested() or series.dtype == pl.Object:
        return Aside(name, "skip", None, str(series.dtype))
    seen = series.drop_nulls()
    different = seen.n_unique() if len(seen) else 0
    if different < 2:
        return constant(name, series)
    if name.lower() in LABELS and different <= MANY and series.null_count() == 0 and not series.dtype.is_float() and not series.dtype.is_temporal():
        return Aside(name, "label", None, str(series.dtype))
    if series.dtype == pl.Boolean:
        return category(name, series)
    if series.dtype in (pl.Date, pl.Datetime):
        return date(name, series)
    if series.dtype == pl.String or not series.dtype.is_numeric():
        return Aside(name, "id", None, "String") if different == len(seen) and different > UNIQUE else (open_ if different > MANY else category)(name, series)
    return _number(name, series, different)


def _number(name: str, series: Series, different: int) -> Column | Aside:
    values = numbers(name, series)
    values = values[~np.isnan(values)]
    whole = bool((values == np.rint(values)).all())
    counted_up = whole and different == len(values) > UNIQUE and values.max() - values.min() == len(values) - 1
    if counted_up:
        return Aside(name, "id", None, str(series.dtype))
    if whole and different == 2:
        return category(name, series)
    if whole and different <= FEW and values.min() >= 0:
        return ordered(name, series)
    if whole and values.min() >= 0 and values.max() <= MOST_COUNTED and values.min() <= values.mean() / 10 and values.var() >= values.mean():
        return count(name, series)
    return positive(name, series) if values.min() > 0 and _skew(values) > SKEWED and abs(_skew(np.log(values))) < SKEWED else real(name, series)


def _skew(values: Numbers) -> float:
    away = values / np.abs(values).max()
    away = away - away.mean()
    spread = away.std()
    return 0.0 if spread == 0 else float((away**3).mean() / spread**3)


def _step(values: Numbers) -> float | None:
    """The finest decimal that all values are multiples of, if it is one of 1, 0.1, ..., 0.0001; what is small beside their spread is rounding."""
    spread = float(values.std())
    for decimals in range(FINEST + 1):
        shifted = values * 10**decimals
        if np.abs(values).max() < 2**40 and (np.abs(shifted - np.rint(shifted)) <= 1e-6 * min(1.0, spread * 10**decimals)).all():
            return float(10.0**-decimals)
    return None


def _scale(values: Numbers) -> tuple[float, float]:
    spread = float(values.std())
    return float(values.mean()), spread if spread > 0 else 1.0


def _seen(name: str, values: Numbers) -> Numbers:
    seen = values[~np.isnan(values)]
    if not len(seen):
        raise UsageError(f"column {name!r} has no entry that was seen, so nothing can be learnt of it; declare it skip")
    return seen


def _dtype(series: Series, whole: bool) -> str:
    said = str(series.dtype)
    return said if said in WHOLE or not whole else "Int64"


@DECLARED.register
def real(name: str, series: Series) -> Column:
    """Real numbers, with the step that they were written with, if it is one of 1, 0.1, ..., 0.0001."""
    seen = _seen(name, numbers(name, series))
    step = _step(seen)
    return Measured(name, *_scale(seen), step, _dtype(series, step == 1))


@DECLARED.register
def positive(name: str, series: Series) -> Column:
    """Numbers above 0 of very different sizes, by their logarithms."""
    seen = _seen(name, numbers(name, series))
    if seen.min() <= 0:
        raise UsageError(f"column {name!r} is declared positive and holds {seen.min():g}; declare it real or count")
    step = _step(seen)
    return Positive(name, *_scale(np.log(seen)), step, _dtype(series, step == 1))


@DECLARED.register
def count(name: str, series: Series) -> Column:
    """Whole numbers from 0 upwards, without a top."""
    seen = _seen(name, numbers(name, series))
    if seen.min() < 0 or seen.max() > MOST_COUNTED or not (seen == np.rint(seen)).all():
        raise UsageError(f"column {name!r} is declared count and holds {seen.min():g} to {seen.max():g}; counts are whole numbers 0 to {MOST_COUNTED}")
    return Counted(name, *_scale(np.log1p(seen)), _dtype(series, True), float(seen.max()))


@DECLARED.register
def ordered(name: str, series: Series) -> Column:
    """Levels in their order: that of numbers, of words that of the alphabet."""
    return Ordered(name, _levels(name, series), str(series.dtype))


@DECLARED.register
def category(name: str, series: Series) -> Column:
    """Categories; a new one is refused later."""
    return Named(name, _levels(name, series), str(series.dtype))


def _levels(name: str, series: Series) -> tuple[str, ...]:
    seen = cleaned(series).drop_nulls()
    levels = tuple(dict.fromkeys(texts(seen.unique().sort())))
    if len(levels) < 2:
        raise UsageError(f"column {name!r} has {len(levels)} level, so nothing can be learnt of it; declare it constant or skip")
    return levels


def open_(name: str, series: Series) -> Column:
    """Categories, the 255 most frequent ones, and `other` for every further one and for new ones."""
    seen = texts(series).drop_nulls()
    if not len(seen):
        raise UsageError(f"column {name!r} has no entry that was seen, so nothing can be learnt of it; declare it skip")
    counted = seen.value_counts().sort(by=["count", seen.name], descending=[True, False])
    kept = sorted(v for v in counted[seen.name][:MANY] if v != OTHER)
    return Named(name, (*kept, OTHER), "String", True)


DECLARED.add("open", open_)


@DECLARED.register
def date(name: str, series: Series) -> Column:
    """Dates, or dates with times, in seconds since 1970."""
    seen = _seen(name, moments(series, name))
    day = 86400.0
    step = day if (seen % day == 0).all() else 1.0 if (seen == np.rint(seen)).all() else None
    return Dated(name, *_scale(seen), step, "Date" if step == day else "Datetime")


@DECLARED.register
def constant(name: str, series: Series) -> Aside:
    """One value, which is written again and not modelled."""
    seen = texts(series).drop_nulls()
    if len(seen) and seen.n_unique() > 1:
        raise UsageError(f"column {name!r} is declared constant and holds {seen.n_unique()} values; declare it skip")
    return Aside(name, "constant", seen[0] if len(seen) else None, str(series.dtype))


def _aside(reason: str) -> Make:
    def make(name: str, series: Series) -> Aside:
        return Aside(name, reason, None, str(series.dtype))

    return make


for _reason in ("id", "skip", "label"):
    DECLARED.add(_reason, _aside(_reason))
