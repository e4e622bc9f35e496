"""The book of recipes: a recipe is a function from a schema and keywords to parts, a play and its players."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple, TypeAlias

import torch
from annotated_types import Ge, Gt, Le, Lt
from pydantic import FiniteFloat
from torch import Tensor, nn

from vaestro.core import Model
from vaestro.data.schema import Binary, Integer, Kind, Real, Schema, Table
from vaestro.data.schema import Count as Counted
from vaestro.errors import UsageError
from vaestro.objectives import Objective, elbo
from vaestro.optimizers import OPTIMIZERS, PRECISIONS, Optimizer, adam
from vaestro.plays import Play
from vaestro.registry import Registry
from vaestro.schedules import RATES, Schedule

Count: TypeAlias = Annotated[int, Ge(1)]
Weight: TypeAlias = Annotated[FiniteFloat, Ge(0)]
Positive: TypeAlias = Annotated[FiniteFloat, Gt(0)]
Fraction: TypeAlias = Annotated[float, Ge(0), Le(1)]
Widths: TypeAlias = tuple[Count, ...]


@dataclass(frozen=True)
class Training:
    """How a recipe likes to be trained. Every field is also a keyword of every recipe's call: `vae:batch=64,ema=0.999`."""

    optimizer: Annotated[Optimizer, OPTIMIZERS] = adam
    learning_rate: Positive = 2e-3
    rate: Annotated[Schedule, RATES] = RATES["cosine"]
    batch: Count = 128
    clip: Positive | None = None  # the largest gradient norm of a player
    skip: Positive | None = None  # a gradient norm above this one moves nothing
    ema: Annotated[float, Ge(0), Lt(1)] = 0.0  # decay of the averaged weights, which are the ones evaluated
    patience: Count | None = None  # validations without a better score before training stops
    precision: Annotated[torch.dtype, PRECISIONS] = torch.float32


NATS = "nats a row"
Fit: TypeAlias = Callable[[nn.ModuleDict, Tensor, Tensor], None]  # parts, and rows of x [n, *shape] in unit values: to learn from, and held out


class Told(NamedTuple):
    """A field that training rows alone show, and of them only some: the labels of a semi-supervised model."""

    field: str
    rows: int | None = None  # how many training rows show it, evenly over its classes; all of them if left out
    where: str | None = None  # a field that is 1 where it is known; everywhere if left out


@dataclass(frozen=True)
class Recipe:
    """What a recipe serves: modules, the play on them, and who owns which parameters."""

    parts: nn.ModuleDict  # "model" is the Model; critics stand beside it, so that a checkpoint holds them
    play: Play
    players: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"model": ("model",)})  # name: prefixes of parameters
    training: Training = field(default_factory=Training)
    score: Objective = field(default_factory=elbo)  # what validation reports: nats per row
    samples: int = 1  # draws that the score takes
    fields: tuple[str, ...] = ("x",)  # the only fields of the data that the model is shown
    told: Told | None = None  # what training rows show it beside these, and no other rows
    beside: tuple[str, ...] = ()  # more fields that training rows alone show it, every one of them: the other row of a pair
    unit: str = NATS  # of the score
    fit: Fit | None = None  # makes the parts at once, so that no step is taken; none for what is trained
    settled: float = 0.0  # the share of training before which the score does not tell where it leads, as in a warm-up: patience begins after it

    @property
    def model(self) -> Model:
        """The part that is the model."""
        model = self.parts["model"]
        assert isinstance(model, Model)
        return model


def solo(model: Model, play: Play, score: Objective | None = None, samples: int = 1, settled: float = 0.0) -> Recipe:
    """A recipe of one player; validation scores the ELBO unless told another bound."""
    return Recipe(nn.ModuleDict({"model": model}), play, score=score or elbo(), samples=samples, settled=settled)


class Entry(NamedTuple):
    """A recipe in the book: the function and what is said of it."""

    name: str
    build: Callable[..., Recipe]
    group: str
    paper: str
    formula: str
    published: str  # the published number it answers to, with its protocol
    fits: tuple[type[Kind], ...]
    lacks: Mapping[str, str] = {}  # what it cannot do, by name ("density"), with the reason
    rows: int = 1  # that a batch must have, where rows are compared with each other
    what: str = "recipe"  # as errors call it

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (self.build.__doc__ or "a recipe without a docstring").strip().splitlines()[0]


RECIPES: Registry[Entry] = Registry("recipe")
ANY: tuple[type[Kind], ...] = (Binary, Integer, Counted, Real, Table)
NEAR = 6  # recipes that a refusal names
NUMBERS: tuple[type[Kind], ...] = (Binary, Integer, Real)  # what Gaussians and their like describe, as masses or densities


def recipe(
    build: Callable[..., Recipe] | None = None,
    /,
    *,
    group: str = "own",
    paper: str = "",
    formula: str = "",
    published: str = "none",
    fits: tuple[type[Kind], ...] = ANY,
    lacks: Mapping[str, str] | None = None,
    rows: int = 1,
) -> Callable[..., Any]:
    """A decorator that puts a function `f(schema, **keywords) -> Recipe` into the book under its own name, with or without these words about it."""

    def add(build: Callable[..., Recipe]) -> Callable[..., Recipe]:
        name = _name_of(build)
        RECIPES.add(name, Entry(name, build, group, paper, formula, published, fits, lacks or {}, rows))
        return build

    return add if build is None else add(build)


def entry_of(build: Callable[..., Recipe]) -> Entry:
    """The book's entry for a function, or a plain one for a function that nobody registered. Raises UsageError for what has no name."""
    known = [e for e in RECIPES.values() if e.build is build]
    return known[0] if known else Entry(_name_of(build), build, "own", "", "", "none", ANY)


def _name_of(build: Callable[..., Recipe]) -> str:
    """A function's name; raises UsageError for what is called like a function and is none, such as a `functools.partial`."""
    name = getattr(build, "__name__", None)
    if name is None:
        raise UsageError(f"a recipe is a function, and this is a {type(build).__name__}, which has no name; write a function f(schema, ...) that calls it")
    return str(name)


def require_fit(entry: Entry, schema: Schema) -> None:
    """Raises UsageError where the recipe does not fit the kind of field `x`, naming some that do: those of its group, then the basic ones."""
    kind = type(schema["x"].kind)
    if kind not in entry.fits:
        able = sorted((e for e in RECIPES.values() if kind in e.fits), key=lambda e: (e.group != entry.group, e.group != "basic"))
        near = ", ".join(e.name for e in able[:NEAR])
        wants = " or ".join(k.__name__ for k in entry.fits)
        rest = f"; `vaestro list` shows {len(able) - NEAR} more" if len(able) > NEAR else ""
        raise UsageError(f"recipe {entry.name!r} fits {wants} data, but {schema.name!r} holds {kind.__name__} values; recipes that fit it: {near}{rest}")
