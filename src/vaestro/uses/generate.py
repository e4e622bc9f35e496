"""New rows from the prior."""

import torch
from jaxtyping import Float
from torch import Tensor

from vaestro.core import Trace
from vaestro.seeds import mix
from vaestro.training.runs import Run


def seeded_trace(run: Run, n: int, seed: int) -> Trace:
    """`n` dreams of the run's model under a seed, torch's own generator left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, 7))
        return run.model.generate(n)


def generate(run: Run, n: int = 16, seed: int = 0) -> Float[Tensor, "n ..."]:
    """The mean of p(x | z) at `n` draws z ~ p(z): [n, *shape] in unit values, as the field's pictures are usually shown."""
    mean: Tensor = seeded_trace(run, n, seed)["x"].prior.mean
    return mean


def sample(run: Run, n: int = 16, seed: int = 0) -> Float[Tensor, "n ..."]:
    """Whole samples x ~ p(x | z), z ~ p(z), with the likelihood's own noise: [n, *shape] in unit values."""
    return seeded_trace(run, n, seed)["x"].value
