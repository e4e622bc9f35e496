"""Everything that has a name, in words: recipes with their keywords, parts, measures, data sets, challenges."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from vaestro.arena import CHALLENGES
from vaestro.cli.challenges import challenge_card, challenge_rows, is_challenge
from vaestro.data.listing import source_card, sources
from vaestro.data.sources import SOURCES
from vaestro.errors import UsageError, did_you_mean
from vaestro.evaluation.metrics import METRICS
from vaestro.recipes import RECIPES, Call, Entry, Training
from vaestro.recipes.rows import ours
from vaestro.registry import Registry
from vaestro.training.stages import book

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


def parts() -> dict[str, list[dict[str, Any]]]:
    """Every part that a keyword of some recipe or of training takes, by its name: what it is, the keyword, what it says of itself, and the recipes."""
    takers: dict[tuple[str, str], tuple[Registry[Any], list[str]]] = {}
    for recipe, key, annotation in _annotations():
        for registry in [m for m in get_args(annotation) if isinstance(m, Registry)]:
            takers.setdefault((registry.what, key), (registry, []))[1].append(recipe)
    found: dict[str, list[dict[str, Any]]] = {}
    for (what, key), (registry, recipes) in takers.items():
        for name in registry:
            found.setdefault(name, []).append({"what": what, "keyword": key, "summary": _said(registry[name]), "recipes": recipes})
    return found


def _annotations() -> Iterator[tuple[str, str, Any]]:
    """The recipe, name and annotation of every keyword; training stands for all recipes."""
    for entry in RECIPES.values():
        yield from ((entry.name, key, hint) for key, hint in get_type_hints(entry.build, include_extras=True).items())
    yield from (("every recipe", key, hint) for key, hint in get_type_hints(Training, include_extras=True).items())


def _said(part: Any) -> str:
    text = inspect.getdoc(part) if callable(part) else None
    return text.partition("\n")[0] if text else ""


def metric_card(name: str) -> dict[str, Any]:
    """What a measure is, how it is taken and where it is from."""
    found = METRICS[name]
    return {"name": name, "summary": found.title, "unit": found.unit, "direction": found.direction.value, "protocol": found.protocol, "source": found.source}


def catalogue(group: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """Everything that has a name, by what it is, the basic recipes first; or one group of recipes, or `recipes`, `data` or `challenges` alone.

    Raises UsageError, with 'did you mean', for an unknown group.
    """
    groups = sorted({e.group for e in RECIPES.values()}, key=lambda g: (g != "basic", g))
    if group is not None and group not in (known := [*groups, "recipes", "data", "challenges"]):
        raise UsageError(f"there is no group called {group!r}{did_you_mean(group, known)}")
    rows = [recipe_row(e) for g in groups for e in RECIPES.values() if e.group == g and group in (None, g, "recipes")]
    found = {"recipes": rows, "data": sources(), "challenges": challenge_rows()}
    return {what: rows for what, rows in found.items() if group is None or group == what or (what == "recipes" and group in groups)}


def card(name: str) -> dict[str, Any]:
    """All that is known of a recipe, a part, a prior to fit, a measure, data or a challenge, one's own by its path; `is` says which.

    A second thing of that name stands under its own kind. Raises UsageError, with 'did you mean', for a stranger.
    """
    wanted = name.partition(":")[0]
    named, fitted = parts(), book()
    shelves: Iterable[tuple[str, Iterable[str], Callable[[str], dict[str, Any]]]] = (
        ("recipe", RECIPES, lambda n: recipe_card(RECIPES[n])),
        ("data", SOURCES, lambda n: source_card(SOURCES[n])),
        ("challenge", CHALLENGES, challenge_card),
        ("part", named, lambda n: {"name": n, "meanings": named[n]}),
        ("prior", fitted, lambda n: {"name": n, "summary": fitted[n].summary, "keywords": keywords(fitted[n])}),
        ("metric", METRICS, metric_card),
    )
    found = [{"is": what, **make(wanted)} for what, names, make in shelves if wanted in names]
    if found:
        return found[0] | {other["is"]: other for other in found[1:]}
    if is_challenge(name):
        return {"is": "challenge", **challenge_card(name)}
    every = sorted({n for _, names, _ in shelves for n in names})
    raise UsageError(f"there is no recipe, part, data set or challenge called {name!r}{did_you_mean(name, every)}")
