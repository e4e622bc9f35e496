"""New rows from the prior."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from vaestro.core import Draw
from vaestro.seeds import mix
from vaestro.training.runs import Run


def _dreams(run: Run, n: int, seed: int, read: Callable[[Draw], Tensor]) -> Tensor:
    """What `read` sees in `n` dreams of the run's model under a seed, torch's own generator left alone; a mean may draw too, where it is an estimate."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, 7))
        return read(run.model.generate(n)["x"])


def generate(run: Run, n: int = 16, seed: int = 0) -> Float[Tensor, "n ..."]:
    """The mean of p(x | z) at `n` draws z ~ p(z): [n, *shape] in unit values, as the field's pictures are usually shown."""
    return _dreams(run, n, seed, lambda x: x.prior.mean)


def sample(run: Run, n: int = 16, seed: int = 0) -> Float[Tensor, "n ..."]:
    """Whole samples x ~ p(x | z), z ~ p(z), with the likelihood's own noise: [n, *shape] in unit values."""
    return _dreams(run, n, seed, lambda x: x.value)
