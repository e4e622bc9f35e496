"""New rows from the prior."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from vaestro.core import Draw
from vaestro.models import conditions_of
from vaestro.seeds import mix
from vaestro.training.runs import Run
from vaestro.uses.given import Given, all_classes, settle


def _dreams(run: Run, n: int, seed: int, given: Given | None, read: Callable[[Draw], Tensor]) -> Tensor:
    """What `read` sees in `n` dreams under a seed, torch's own generator left alone; it reads there, for a mean may draw too, where it is an estimate."""
    values = settle(run, n, all_classes(run, n, given))
    told = {name: values.pop(name) for name in conditions_of(run.model) if name in values}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, 7))
        return read(run.model.generate(n, values, told or None)["x"])


def generate(run: Run, n: int = 16, seed: int = 0, given: Given | None = None) -> Float[Tensor, "n ..."]:
    """The mean of p(x | z) at `n` draws z ~ p(z): [n, *shape] in unit values, as the field's pictures are usually shown.

    `given` are values of fields that the model is told, or of sites beside x: `{"label": 7}`, a class by number or name, one value or n of them. A model that
    is told a class and is given none makes as many of each, in order; other conditions are those of training rows. Raises UsageError for what cannot be given.
    """
    return _dreams(run, n, seed, given, lambda x: x.prior.mean)


def sample(run: Run, n: int = 16, seed: int = 0, given: Given | None = None) -> Float[Tensor, "n ..."]:
    """Whole samples x ~ p(x | z), z ~ p(z), with the likelihood's own noise: [n, *shape] in unit values. `given` as `generate` has it."""
    return _dreams(run, n, seed, given, lambda x: x.value)
