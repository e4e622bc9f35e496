"""What a search may change: the range of each keyword, from its annotated type and its default."""

import dataclasses
import inspect
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from vaestro.data.schema import Schema
from vaestro.errors import UsageError, did_you_mean
from vaestro.recipes import Call, Training, parse

WIDTHS = ("none", "128", "256", "512", "256x256", "512x512")  # of hidden layers; none is the recipe's own choice
COUNTS = ("latents",)  # whole numbers that are searched unasked; others are structure, such as classes
RATE = "learning_rate"
INWARD = 0.02


@dataclass(frozen=True)
class Whole:
    """Whole numbers from `low` to `high`, on the scale of logarithms."""

    low: int
    high: int


@dataclass(frozen=True)
class Real:
    """Numbers from `low` to `high`; on the scale of logarithms if `low` is positive and nothing bounds them above."""

    low: float
    high: float
    log: bool


@dataclass(frozen=True)
class OneOf:
    """Some values, as a call writes them."""

    values: tuple[str, ...]


Range: TypeAlias = Whole | Real | OneOf
Ranges: TypeAlias = dict[str, Range]


def ranges(call: Call, schema: Schema, over: Iterable[str] | None = None) -> Ranges:
    """The keywords that a search of `call` changes, each with its range; what the call names itself stays as it is.

    By default the learning rate, latents, hidden widths, and every weight, fraction or other real number of the recipe; `over` names others, or fewer.
    A positive number or a count d runs from d/8 to 8 d (a learning rate from a tenth to tenfold, latents over a factor of 4), a fraction over its bounds,
    hidden widths over six choices. Raises UsageError for a name that is no keyword, has no range, or is fixed by the call, and where nothing is left.
    """
    every = _every(call, schema)
    fixed = {k for k, v in call.keywords.items() if v != inspect.signature(call.entry.build).parameters[k].default} | call.training.keys()
    if over is None:
        usual = [k for k, r in every.items() if k not in fixed and (k in (RATE, "hidden", *COUNTS) or isinstance(r, Real)) and not _of_training(k)]
        wanted = [RATE, *usual] if RATE not in fixed else usual
    else:
        wanted = list(dict.fromkeys(over))
    for name in wanted:
        if name not in every:
            known = {**call.keywords, **{f.name: None for f in dataclasses.fields(Training)}}
            reason = "has no range to search" if name in known else "is no keyword"
            raise UsageError(f"{name!r} {reason} of {call.entry.name}{did_you_mean(name, every)}; those with a range are {', '.join(every)}")
        if name in fixed:
            raise UsageError(f"{name} is fixed by the call {call}; leave it out there to search it")
    if not wanted:
        raise UsageError(f"{call} fixes every keyword that could be searched; leave some of them out")
    return {name: every[name] for name in wanted}


def _of_training(name: str) -> bool:
    return name in {f.name for f in dataclasses.fields(Training)}


def _every(call: Call, schema: Schema) -> Ranges:
    """All keywords that have a range, by their annotated types and defaults."""
    training = call.cook(schema).training
    hints = {**get_type_hints(Training, include_extras=True), **get_type_hints(call.entry.build, include_extras=True)}
    values = {**call.keywords, **{f.name: getattr(training, f.name) for f in dataclasses.fields(Training)}}
    found = {name: _range(name, value, hints.get(name, Any)) for name, value in values.items()}
    return {name: r for name, r in found.items() if r is not None}


def _range(name: str, value: Any, annotation: Any) -> Range | None:
    if name == "hidden" and (value is None or isinstance(value, tuple)):
        own = "none" if value is None else "x".join(map(str, value))
        return OneOf(tuple(dict.fromkeys((own, *(WIDTHS if value is None else WIDTHS[1:])))))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    low, high = _bounds(annotation)
    if isinstance(value, int) and int in _types(annotation):
        if value < 1:
            return None
        factor = 4 if name in COUNTS else 8
        least = 1 if low == -math.inf else max(1, math.ceil(low))
        return Whole(max(least, value // factor), max(1, value * factor if high == math.inf else min(value * factor, math.floor(high))))
    return _real(name, float(value), low, high)


def _real(name: str, value: float, low: float, high: float) -> Real | None:
    if high < float("inf"):
        inward = INWARD * (high - low)  # a bound may be excluded, and is seldom worth a trial
        return Real(min(low + inward, value), max(value, high - inward), False) if low > -float("inf") else None
    factor = 10 if name == RATE else 8
    return Real(max(low, value / factor), value * factor, True) if value > 0 else Real(0.0, 1.0, False) if value == 0 else None


def _types(annotation: Any) -> set[Any]:
    """The plain types inside an annotation."""
    return {annotation} | {t for a in get_args(annotation) for t in _types(a)} if get_args(annotation) else {annotation}


def _bounds(annotation: Any) -> tuple[float, float]:
    """The least and greatest value that an annotation states, the excluded ones among them."""
    low, high = -float("inf"), float("inf")
    for part in _annotated(annotation):
        for m in get_args(part)[1:]:
            low = float(m.ge) if isinstance(m, Ge) else float(m.gt) if isinstance(m, Gt) else low  # type: ignore[arg-type]
            high = float(m.le) if isinstance(m, Le) else float(m.lt) if isinstance(m, Lt) else high  # type: ignore[arg-type]
    return low, high


def _annotated(annotation: Any) -> list[Any]:
    own = [annotation] if get_origin(annotation) is Annotated else []
    return own + [part for a in get_args(annotation) for part in _annotated(a)]


def merged(call: Call, values: Mapping[str, Any]) -> Call:
    """The call with these values in place of its own, numbers to three digits, checked as any call is."""
    name, _, rest = str(call).partition(":")
    said = dict(piece.split("=", 1) for piece in rest.split(",") if piece)
    told = {k: f"{v:.3g}" if isinstance(v, float) else str(v) for k, v in values.items()}
    return parse(f"{name}:" + ",".join(f"{k}={v}" for k, v in (said | told).items()))


def defaults(call: Call, space: Ranges, schema: Schema) -> dict[str, Any]:
    """The call's own values of the keywords that are searched."""
    values = call.keywords | vars(call.cook(schema).training)
    return {name: r.values[0] if isinstance(r, OneOf) else values[name] for name, r in space.items()}
