"""A model with a vector of numbers and some classes as latents."""

from torch import Tensor, nn
from torch.distributions import Distribution

from vaestro.codes import OneHotCodes
from vaestro.conditional import through
from vaestro.core import Batch, Model, Program, Site
from vaestro.families import Gaussian
from vaestro.models.base import data_of
from vaestro.priors import StandardNormal, UniformOneHot


class Mixed(Model):
    """p(z) p(c) p(x | z, c) with z ~ N(0, I) and c some one-hot classes, all alike; q(z | x) q(c | x) from one encoder (Dupont 2018).

    `encoder` maps x to 2 `latents` + `variables` * K numbers for K codes; `likelihood` is a module of z and the classes, [variables * K] numbers.
    """

    def __init__(self, latents: int, variables: int, codes: OneHotCodes, encoder: nn.Module, likelihood: nn.Module) -> None:
        super().__init__()
        self.numbers, self.variables, self.family = 2 * latents, variables, Gaussian()
        self.encoder, self.codes, self.likelihood = encoder, codes, likelihood
        self.prior, self.classes = StandardNormal((latents,)), UniformOneHot((variables,), codes.params)

    def inferred(self, x: Tensor) -> tuple[Distribution, Distribution]:
        """q(z | x) and q(c | x)."""
        h = through(self.encoder, x)
        logits = h[..., self.numbers :].unflatten(-1, (self.codes.params, self.variables))
        return self.family(h[..., : self.numbers]), self.codes(logits)

    def program(self, batch: Batch | None = None) -> Program:
        """z ~ p(z) and c ~ p(c), then x ~ p(x | z, c)."""
        x = data_of(batch)
        q, r = (None, None) if x is None else self.inferred(x)
        z = yield Site("z", self.prior(), q)
        c = yield Site("c", self.classes(), r)
        yield Site("x", self.likelihood(z, c.flatten(-2)))
