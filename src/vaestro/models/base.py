"""The plain VAE, the program of most recipes."""

from functools import singledispatch

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaestro.core import Batch, Model, Program, Site, content, draw


def data_of(batch: Batch | None) -> Tensor | None:
    """The field `x` of a batch if it has one: what an encoder reads, with zeros where it was not seen."""
    return None if batch is None or "x" not in batch else content(batch["x"])


@singledispatch
def memberships(model: nn.Module, batch: Batch) -> Tensor | None:
    """p(c | x) of the clusters c of each row, [b, clusters], where the model is itself a mixture of rows; nothing for others. Open."""
    return None


class VAE(Model):
    """p(z) p(x | z) and q(z | x), the plain case (Kingma & Welling 2014).

    `prior` is a module without arguments, `posterior` and `likelihood` are modules of x and z; all three return distributions.
    """

    def __init__(self, prior: nn.Module, posterior: nn.Module, likelihood: nn.Module) -> None:
        super().__init__()
        self.prior, self.posterior, self.likelihood = prior, posterior, likelihood

    def program(self, batch: Batch | None = None) -> Program:
        """z ~ p(z), then x ~ p(x | z)."""
        x = data_of(batch)
        z = yield Site("z", self.prior(), None if x is None else self.posterior(x))
        yield Site("x", self.likelihood(z))

    def generate_x(self, n: int) -> Distribution:
        """p(x | z) at `n` draws of the prior, with gradients to the decoder: what a critic is shown."""
        with torch.no_grad():
            z, _ = draw(self.prior(), (n,))  # torch's own Normal.sample reads the least scale, so a step would wait for the device
        likelihood: Distribution = self.likelihood(z)
        return likelihood
