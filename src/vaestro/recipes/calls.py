"""Calls such as `iwae:samples=50,latents=40`: a recipe's name in the shell, the run folder, the checkpoint and on the board."""

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping
from numbers import Integral, Number, Real
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError

from vaestro.data.schema import Schema
from vaestro.errors import UsageError, did_you_mean
from vaestro.recipes.book import RECIPES, Entry, Recipe, Training, entry_of, require_fit
from vaestro.registry import Registry
from vaestro.seeds import forked

TRAINING = tuple(f.name for f in dataclasses.fields(Training))
CONSTANTS = {"true": True, "false": False, "none": None}
EMPTY = "()"  # the text of no widths at all


class Call(NamedTuple):
    """A recipe and its keywords, every one of them resolved."""

    entry: Entry
    keywords: dict[str, Any]  # the recipe's own
    training: dict[str, Any]  # those of `Training` that the call names

    def __str__(self) -> str:
        """The shortest text that `parse` turns back into this call, unless a word from Python is empty or holds a comma."""
        signature = inspect.signature(self.entry.build).parameters
        said = {k: v for k, v in self.keywords.items() if v != signature[k].default} | self.training
        return self.entry.name + (":" + ",".join(f"{k}={_text(v, _annotation(self.entry, k))}" for k, v in said.items()) if said else "")

    def to_json(self) -> dict[str, Any]:
        """Every resolved keyword as text, for run.json."""
        return {k: _text(v, _annotation(self.entry, k)) for k, v in (self.keywords | self.training).items()}

    def resolved(self, training: Training) -> "Call":
        """The call with every keyword of training named, as a recipe settled them: what a run records, for defaults may change."""
        return self._replace(training={f.name: getattr(training, f.name) for f in dataclasses.fields(training)})

    def cook(self, schema: Schema, seed: int = 0) -> Recipe:
        """The recipe for these data, its weights drawn from `seed`; raises UsageError where it does not fit them, or its run could not be opened again."""
        _require_text(self)
        require_fit(self.entry, schema)
        with forked():
            torch.manual_seed(seed)
            try:
                made: Any = self.entry.build(schema, **self.keywords)
            except RuntimeError as error:
                if "memory" not in str(error):
                    raise
                raise UsageError(f"{self} needs more memory than this machine has; choose smaller numbers for latents, hidden or components") from None
        if not isinstance(made, Recipe):
            found = "nothing" if made is None else f"a {type(made).__name__}"
            raise UsageError(f"the function {self.entry.name!r} returns {found}, and a recipe is wanted; return a vaestro.Recipe, such as solo(model, play)")
        settled = dataclasses.replace(made, training=dataclasses.replace(made.training, **self.training))
        if settled.training.batch < self.entry.rows:
            few, least = settled.training.batch, self.entry.rows
            raise UsageError(f"{self.entry.name} compares the rows of a batch with each other, and batch={few} has too few; give {least} or more")
        return settled


def parse(text: str, book: Mapping[str, Entry] = RECIPES) -> Call:
    """`NAME:key=value,...` to a call of what `book` lists, of recipes unless told. A value is a number, true, false, none, 32x64, () or the name of a part.

    Raises UsageError, with 'did you mean', on an unknown recipe, keyword or part and on a value of a wrong type or range.
    """
    name, _, rest = text.partition(":")
    pairs = [piece.partition("=") for piece in rest.split(",") if piece]
    for key, equals, value in pairs:
        if not (key and equals and value):
            raise UsageError(f"{text!r} is not a call: write NAME:key=value,key=value, for example iwae:samples=50,latents=40")
    keys = [key for key, _, _ in pairs]
    twice = {k for k in keys if keys.count(k) > 1}
    if twice:
        raise UsageError(f"{text!r} gives {', '.join(sorted(twice))} twice; give each keyword once")
    return _call_in_words(book[name], {key: value for key, _, value in pairs})


def recorded(name: str, keywords: Mapping[str, str]) -> Call:
    """The call that a run recorded, every keyword as it was then. Raises UsageError for a recipe that is not in the book."""
    if name not in RECIPES:
        hint = did_you_mean(name, RECIPES)
        raise UsageError(
            f"the run is of recipe {name!r}, which is not in the book{hint}; name its file with --from, or give it in Python: open_run(folder, recipe)"
        )
    return _call_in_words(RECIPES[name], keywords)


def _call_in_words(entry: Entry, keywords: Mapping[str, str]) -> Call:
    return call_of(entry, {key: _value(text, _annotation(entry, key)) for key, text in keywords.items()})


def call_of(recipe: Entry | Callable[..., Recipe], keywords: Mapping[str, Any]) -> Call:
    """The call of a recipe function with Python values as keywords, checked like a parsed one."""
    entry = recipe if isinstance(recipe, Entry) else entry_of(recipe)
    own = list(inspect.signature(entry.build).parameters)[1:]
    taken = [key for key in own if key in TRAINING]
    if taken:
        raise UsageError(f"{entry.what} {entry.name!r} has a keyword called {taken[0]!r}, which every recipe has for its training; rename it")
    for key in keywords:
        if key not in own and key not in TRAINING:
            raise UsageError(f"{entry.what} {entry.name!r} has no keyword {key!r}{did_you_mean(key, [*own, *TRAINING])}")
    given = {k: _checked(entry, k, v) for k, v in keywords.items()}
    defaults = {k: inspect.signature(entry.build).parameters[k].default for k in own}
    lacking = [k for k, v in defaults.items() if v is inspect.Parameter.empty and k not in given]
    if lacking:
        raise UsageError(f"{entry.what} {entry.name!r} needs {', '.join(lacking)}: say {entry.name}:{lacking[0]}=...")
    return Call(entry, defaults | {k: v for k, v in given.items() if k in own}, {k: v for k, v in given.items() if k not in own})


def _annotation(entry: Entry, key: str) -> Any:
    hints = get_type_hints(entry.build, include_extras=True)
    return hints.get(key, get_type_hints(Training, include_extras=True).get(key, Any))


def _registry(annotation: Any) -> Registry[Any] | None:
    if get_origin(annotation) is Annotated:
        return next((m for m in get_args(annotation)[1:] if isinstance(m, Registry)), None)
    return None


def _checked(entry: Entry, key: str, value: Any) -> Any:
    annotation = _annotation(entry, key)
    registry = _registry(annotation)
    if registry is not None:
        return _part(entry, key, value, registry)
    if isinstance(value, Number):
        value = plain(value)
    if isinstance(value, int) and not isinstance(value, bool) and "tuple" in str(annotation):
        value = (value,)
    try:
        return TypeAdapter(annotation).validate_python(value, strict=True)
    except ValidationError as error:
        found = error.errors()[0]
        reason = "takes widths such as 512x256" if found["type"] == "tuple_type" else found["msg"].removeprefix("Input ")
        raise UsageError(f"{entry.name}: {key} {reason}, and got {_text(value, annotation)}") from None


def plain(value: Number) -> Any:
    """A number of NumPy as Python's own: searches over `np.arange` give such."""
    if isinstance(value, bool):
        return value
    return int(value) if isinstance(value, Integral) else float(value) if isinstance(value, Real) else value


def _part(entry: Entry, key: str, value: Any, registry: Registry[Any]) -> Any:
    """A part by its name, or itself; numbers and the like are no parts."""
    if isinstance(value, str):
        return registry[value]
    if value is None or isinstance(value, int | float) or type(value) is tuple:
        raise UsageError(f"{entry.name}: {key} takes the name of a {registry.what}, and got {_text(value, Any)}; known are {', '.join(registry)}")
    return value


def _require_text(call: Call) -> None:
    """Raises UsageError for a value that its text does not give back, so that a run could not be opened again. Parts, and recipes out of the book, are code."""
    entry = call.entry
    if entry.name not in RECIPES or RECIPES[entry.name].build is not entry.build:
        return
    for key, value in call.keywords.items():
        annotation = _annotation(entry, key)
        text, registry = _text(value, annotation), _registry(annotation)
        if (registry is None or text in registry) and not _gives_back(entry, key, text, value):
            raise UsageError(
                f"{entry.what} {entry.name!r} cannot be opened again with {key}={value!r}, for the text {text!r} is not read as that; "
                "give a number, a word, true, false, none or a tuple of whole numbers, annotated as what it is"
            )


def _gives_back(entry: Entry, key: str, text: str, value: Any) -> bool:
    try:
        found = _checked(entry, key, _value(text, _annotation(entry, key)))
    except UsageError:
        return False
    return found is value or (isinstance(value, str | tuple | Number) and (found == value or repr(found) == repr(value)))  # NaN is not equal to itself


def _kinds(annotation: Any) -> set[Any]:
    """The types of which a keyword may be one."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return {kind for each in get_args(annotation) for kind in _kinds(each)}
    return {annotation}


def _value(text: str, annotation: Any) -> Any:
    """What the text of a keyword means; a word stays as it is written where nothing but a word is taken."""
    kinds = _kinds(annotation)
    if str in kinds and kinds <= {str, NoneType}:
        return None if NoneType in kinds and text.lower() == "none" else text
    if text in ("", EMPTY):
        return ()
    if text.lower() in CONSTANTS:
        return CONSTANTS[text.lower()]
    if re.fullmatch(r"\d+(x\d+)+", text):
        return tuple(int(n) for n in text.split("x"))
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def _text(value: Any, annotation: Any) -> str:
    registry = _registry(annotation)
    if registry is not None:
        try:
            return registry.name_of(value)
        except KeyError:
            return getattr(value, "__name__", type(value).__name__)
    if isinstance(value, tuple):
        return "x".join(str(v) for v in value) or EMPTY
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
