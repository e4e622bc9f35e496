"""New rows from the prior."""

import warnings
from collections.abc import Callable
from functools import singledispatch

import torch
from jaxtyping import Float
from torch import Tensor

from vaestro.core import Draw
from vaestro.data.schema import Field, Kind, Table
from vaestro.errors import Caveat, UsageError
from vaestro.models import conditions_of, dream
from vaestro.recipes import RECIPES
from vaestro.seeds import forked, mix
from vaestro.training.finding import by_name
from vaestro.training.runs import Run
from vaestro.uses.inference.completing import conditioned
from vaestro.uses.rows.given import Given, all_classes, of_columns, settle


def caveat(run: Run) -> str:
    """What should be known of draws of a run's prior, in one sentence: that no code follows it; nothing where all is well, as after a prior was fitted."""
    call = run.about["call"]
    name = call.partition(":")[0]
    reason = RECIPES[name].lacks.get("prior") if name in RECIPES else None
    if reason is None or any("prior" in stage for stage in run.about.get("stages", [])):
        return ""
    return f"{call}: {reason}, so these rows start where no data are; fit one to its codes first: vaestro fit-prior {run.name} gmm:components=10"


def _require(n: int) -> None:
    if n < 1:
        raise UsageError(f"n is {n}, and at least one row is drawn; give a whole number from 1 upwards")


def _warn(run: Run) -> None:
    if said := caveat(run):
        warnings.warn(said, Caveat, stacklevel=3)


def _dreams(run: Run, n: int, seed: int, given: Given | None, read: Callable[[Draw], Tensor], temperature: float = 1.0) -> Tensor:
    """What `read` sees in `n` dreams under a seed, torch's own generator left alone; it reads there, for a mean may draw too, where it is an estimate."""
    values = settle(run, n, all_classes(run, n, given))
    told = {name: values.pop(name) for name in conditions_of(run.model) if name in values}
    with forked():
        torch.manual_seed(mix(seed, 7))
        return read(dream(run.model, n, temperature, values, told or None)["x"])


@singledispatch
def dreamt(kind: Kind, x: Draw) -> Tensor:
    """What is shown of a dream of rows of this kind: the mean of p(x | z). Open."""
    mean: Tensor = x.prior.mean
    return mean.expand_as(x.value)  # a law without latents has one mean for all rows


@dreamt.register
def _(kind: Table, x: Draw) -> Tensor:
    return x.value  # a row of means is no row: half a category is none, and half a child neither


def is_drawn(field: Field) -> bool:
    """Whether `generate` shows whole samples of a field, because means of its rows are none."""
    return isinstance(field.kind, Table)


@by_name
def generate(run: Run, n: int = 16, seed: int = 0, given: Given | None = None, temperature: float = 1.0) -> Float[Tensor, "n ..."]:
    """The mean of p(x | z) at `n` draws z ~ p(z): [n, *shape] in unit values, as the field's pictures are usually shown; of a table, whole samples.

    `given` are values of fields that the model is told, or of sites beside x: `{"label": 7}`, a class by number or name, one value or n of them. A model that
    is told a class and is given none makes as many of each, in order; other conditions are those of training rows. Columns of a table may be given, too: the
    rest is drawn from p(rest | those), by importance resampling (`complete`). `temperature` multiplies the spread of the prior (`tempered`), in a hierarchy
    that of each level: below 1 rows are more usual and less different. Raises UsageError for what cannot be given, a temperature that is not positive, or
    one that has no meaning for the prior; warns with a Caveat where nothing ever made the codes of the model follow its prior, as in a plain autoencoder.
    """
    _require(n)
    _warn(run)
    columns, others = of_columns(run.field, given)
    return conditioned(run, n, columns, seed, _usual(others, temperature)) if columns else means(run, n, seed, given, temperature)


def _usual(others: Given, temperature: float) -> Given:
    if temperature != 1:
        raise UsageError("rows given some columns come from the posterior, which has no temperature; leave the temperature or the columns out")
    return others


def means(run: Run, n: int, seed: int = 0, given: Given | None = None, temperature: float = 1.0) -> Float[Tensor, "n ..."]:
    """`generate` without a warning, for those who compare models and know."""
    return _dreams(run, n, seed, given, lambda x: dreamt(run.field.kind, x), temperature)


@by_name
def sample(run: Run, n: int = 16, seed: int = 0, given: Given | None = None, temperature: float = 1.0) -> Float[Tensor, "n ..."]:
    """Whole samples x ~ p(x | z), z ~ p(z), with the likelihood's own noise: [n, *shape] in unit values. `given` and `temperature` as `generate` has them."""
    _require(n)
    _warn(run)
    columns, others = of_columns(run.field, given)
    if columns:
        return conditioned(run, n, columns, seed, _usual(others, temperature))
    return _dreams(run, n, seed, given, lambda x: x.value, temperature)
