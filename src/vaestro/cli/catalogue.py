"""Everything that has a name, in words: recipes with their keywords, data sets, challenges."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from vaestro.arena import CHALLENGES
from vaestro.cli.challenges import challenge_card, challenge_rows
from vaestro.data.sources import SOURCES
from vaestro.errors import UsageError, did_you_mean
from vaestro.recipes import RECIPES, Call, Entry, Training
from vaestro.recipes.rows import ours
from vaestro.registry import Registry
from vaestro.uses.sources import source_card, sources

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", type(None): "none"}
BOUNDS: tuple[tuple[type, str], ...] = ((Ge, "from {0.ge}"), (Gt, "above {0.gt}"), (Le, "up to {0.le}"), (Lt, "below {0.lt}"))


def in_words(annotation: Any) -> str:
    """What values a keyword takes: `a whole number, from 1`, `one of mlp, residual`, `widths such as 512x256, or none`."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        named = [m for m in args[1:] if isinstance(m, Registry)]
        if named:
            return f"one of {', '.join(named[0])}"
        limits = [text.format(m) for m in args[1:] for kind, text in BOUNDS if isinstance(m, kind)]
        return ", ".join([in_words(args[0]), " ".join(limits)] if limits else [in_words(args[0])])
    if origin in (Union, UnionType):
        return ", or ".join(in_words(a) for a in args)
    if origin is tuple:
        return "widths such as 512x256"
    return WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))


def keywords(entry: Entry) -> list[dict[str, str]]:
    """The recipe's own keywords: name, default and what values it takes."""
    hints = get_type_hints(entry.build, include_extras=True)
    parameters = list(inspect.signature(entry.build).parameters.values())[1:]
    given = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    texts = Call(entry, given, {}).to_json()
    return [{"name": p.name, "default": texts.get(p.name, "required"), "takes": in_words(hints.get(p.name, Any))} for p in parameters]


def training_keywords(entry: Entry) -> list[dict[str, str]]:
    """The keywords of training, which every call takes too; a recipe may set other defaults."""
    hints = get_type_hints(Training, include_extras=True)
    defaults = {f.name: f.default for f in dataclasses.fields(Training)}
    texts = Call(entry, {}, defaults).to_json()
    return [{"name": name, "default": texts[name], "takes": in_words(hints[name])} for name in defaults]


def recipe_row(entry: Entry) -> dict[str, Any]:
    """A recipe in a list."""
    return {"name": entry.name, "group": entry.group, "summary": entry.summary, "paper": entry.paper, "fits": [k.__name__ for k in entry.fits]}


def recipe_card(entry: Entry) -> dict[str, Any]:
    """All that is known of a recipe."""
    own = {"keywords": keywords(entry), "training": training_keywords(entry)}
    return {**recipe_row(entry), "formula": entry.formula, "published": entry.published, "ours": ours(entry.name), "lacks": dict(entry.lacks), **own}


def catalogue() -> dict[str, list[dict[str, Any]]]:
    """Everything that has a name, by what it is."""
    return {"recipes": [recipe_row(e) for e in RECIPES.values()], "data": sources(), "challenges": challenge_rows()}


def card(name: str) -> dict[str, Any]:
    """All that is known of a recipe, a data set or a challenge; `is` says which, and a second thing of that name stands under its own kind.

    Raises UsageError, with 'did you mean', for a stranger.
    """
    wanted = name.partition(":")[0]
    shelves: Iterable[tuple[str, Iterable[str], Callable[[str], dict[str, Any]]]] = (
        ("recipe", RECIPES, lambda n: recipe_card(RECIPES[n])),
        ("data", SOURCES, lambda n: source_card(SOURCES[n])),
        ("challenge", CHALLENGES, challenge_card),
    )
    found = [{"is": what, **make(wanted)} for what, names, make in shelves if wanted in names]
    if found:
        return found[0] | {other["is"]: other for other in found[1:]}
    every = sorted({n for _, names, _ in shelves for n in names})
    raise UsageError(f"there is no recipe, data set or challenge called {name!r}{did_you_mean(name, every)}")
