"""What a model makes of given rows."""

import torch
from jaxtyping import Float
from torch import Tensor

from vaestro.seeds import mix
from vaestro.training.monitor import posterior_means
from vaestro.training.runs import Run


@torch.no_grad()
def reconstruct(run: Run, x: Float[Tensor, "b ..."], seed: int = 0) -> Float[Tensor, "b ..."]:
    """The mean of p(x | z) at one draw z ~ q(z | x) a row: [b, *shape] to the same, in unit values."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, 8))
        mean: Tensor = run.model({"x": x})["x"].prior.mean  # a mean may draw too, where it is an estimate
    return mean[0]


@torch.no_grad()
def embed(run: Run, x: Float[Tensor, "b ..."]) -> Float[Tensor, "b latents"]:
    """The posterior means of all latent groups, [b, latents]: a map of the rows that is the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        means = posterior_means(run.model({"x": x}))
    return torch.cat(list(means.values()), -1)
