"""New rows from the prior."""

import torch
from jaxtyping import Float
from torch import Tensor

from vaestro.core import Trace
from vaestro.models import conditions_of
from vaestro.seeds import mix
from vaestro.training.runs import Run
from vaestro.uses.given import Given, all_classes, settle


def seeded_trace(run: Run, n: int, seed: int, given: Given | None = None) -> Trace:
    """`n` dreams of the run's model under a seed, torch's own generator left alone. `given` as `generate` has it."""
    values = settle(run, n, all_classes(run, n, given))
    told = {name: values.pop(name) for name in conditions_of(run.model) if name in values}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, 7))
        return run.model.generate(n, values, told or None)


def generate(run: Run, n: int = 16, seed: int = 0, given: Given | None = None) -> Float[Tensor, "n ..."]:
    """The mean of p(x | z) at `n` draws z ~ p(z): [n, *shape] in unit values, as the field's pictures are usually shown.

    `given` are values of fields that the model is told, or of sites beside x: `{"label": 7}`, a class by number or name, one value or n of them. A model that
    is told a class and is given none makes as many of each, in order; other conditions are those of training rows. Raises UsageError for what cannot be given.
    """
    mean: Tensor = seeded_trace(run, n, seed, given)["x"].prior.mean
    return mean


def sample(run: Run, n: int = 16, seed: int = 0, given: Given | None = None) -> Float[Tensor, "n ..."]:
    """Whole samples x ~ p(x | z), z ~ p(z), with the likelihood's own noise: [n, *shape] in unit values. `given` as `generate` has it."""
    return seeded_trace(run, n, seed, given)["x"].value
