"""The conditional VAE: everything it says is given what it is told."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional as F

from vaestro.conditional import Conditional, through
from vaestro.core import Batch, Model, Program, Site, Trace
from vaestro.families import Gaussian
from vaestro.models.base import data_of
from vaestro.models.conditions import Memory, conditions_of, told
from vaestro.networks import mlp
from vaestro.priors import StandardNormal
from vaestro.registry import Registry

PRIOR_WIDTH = 100


class Joined(nn.Module):
    """q(z | x, c): x is read once by `features`, and joined with codes by `head`; so a code may have more leading axes than x."""

    def __init__(self, features: nn.Module, head: Conditional) -> None:
        super().__init__()
        self.features, self.head = features, head

    def forward(self, x: Tensor, *codes: Tensor) -> Distribution:
        """The distribution given x [*lead, *shape] and codes [*lead, width]."""
        return self.head(F.silu(through(self.features, x)), *codes)  # type: ignore[no-any-return]


class Regardless(nn.Module):
    """A prior that is told nothing, where one is called with what there is to tell."""

    def __init__(self, prior: nn.Module) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, *codes: Tensor) -> Distribution:
        """The prior, whatever the codes."""
        dist: Distribution = self.prior()
        return dist


CONDITIONAL_PRIORS: Registry[Any] = Registry("prior given a condition")  # (latents, width of the code) -> module of the code


@CONDITIONAL_PRIORS.register
def independent(latents: int, width: int) -> nn.Module:
    """p(z | c) = N(0, I): the latents tell what the condition does not."""
    return Regardless(StandardNormal((latents,)))


@CONDITIONAL_PRIORS.register
def learned(latents: int, width: int) -> nn.Module:
    """p(z | c) = N(mu(c), diag sigma(c)^2), by a dense network of 100 hidden units (Sohn et al. 2015, section 4.1)."""
    return Conditional(mlp((width,), (2 * latents,), (PRIOR_WIDTH,)), Gaussian())


class CVAE(Model):
    """p(z | c) p(x | z, c) and q(z | x, c), with c the field `condition` of the batch, which is read and never charged (Sohn et al. 2015, eq. 5).

    `code` turns the condition into numbers; `prior` is a module of these, `posterior` of x and these, `likelihood` of z and these.
    """

    def __init__(self, memory: Memory, code: nn.Module, prior: nn.Module, posterior: nn.Module, likelihood: nn.Module) -> None:
        super().__init__()
        self.memory, self.code = memory, code
        self.prior, self.posterior, self.likelihood = prior, posterior, likelihood

    @property
    def condition(self) -> str:
        """The field that the model is told."""
        return self.memory.name

    def program(self, batch: Batch | None = None) -> Program:
        """z ~ p(z | c), then x ~ p(x | z, c); raises UsageError where the batch does not say c."""
        c = self.code(told(batch, self.condition))
        x = data_of(batch)
        z = yield Site("z", self.prior(c), None if x is None else self.posterior(x, c))
        yield Site("x", self.likelihood(z, c))

    @torch.no_grad()
    def generate(self, n: int, given: Batch | None = None, conditions: Batch | None = None) -> Trace:
        """`n` dreams, [n, *event]; without `conditions` they are told those of training rows, so that they are draws of the model's p(x)."""
        return super().generate(n, given, {self.condition: self.memory(n)} if conditions is None else conditions)


@conditions_of.register
def _(model: CVAE) -> tuple[str, ...]:
    return (model.condition,)
