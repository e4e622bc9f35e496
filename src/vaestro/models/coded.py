"""The program of every quantiser: a grid of codes, then the data."""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from vaestro.codes import Code, Quantiser, straight_through
from vaestro.conditional import Conditional
from vaestro.core import Batch, Model, Program, Site, prepare
from vaestro.models.base import data_of

LOOK = 100  # rows that are encoded at once


class Coded(Model):
    """p(z) p(x | e(z)) with z whole numbers on a grid, e(z) their vectors, and q(z | x) all on the codes nearest to what the encoder says.

    log p(x) >= log p(x | e(z)) + log p(z) is a true bound, for q is a mass function without entropy: under a uniform prior its KL is n log K nats for n codes
    out of K (van den Oord et al. 2017, section 3.1). `posterior` ends in a `Quantiser`; the likelihood reads the vectors [*lead, D, *grid], whose gradient
    goes straight through to the encoder.
    """

    def __init__(self, prior: nn.Module, posterior: Conditional, likelihood: nn.Module) -> None:
        super().__init__()
        self.prior, self.posterior, self.likelihood = prior, posterior, likelihood

    @property
    def quantiser(self) -> Quantiser:
        """The family that the posterior ends in."""
        return cast(Quantiser, self.posterior.family)

    def program(self, batch: Batch | None = None) -> Program:
        """z ~ p(z), then x ~ p(x | e(z))."""
        x = data_of(batch)
        q = None if x is None else self.posterior(x)
        z = yield Site("z", self.prior(), q)
        e = self.quantiser.vectors(z)
        yield Site("x", self.likelihood(straight_through(e, q.h) if isinstance(q, Code) else e))


@prepare.register(Coded)
@torch.no_grad()
def _(part: Coded, data: Mapping[str, Tensor]) -> None:
    part.quantiser.start(torch.cat([part.posterior(x).h for x in data["x"].split(LOOK)]))
