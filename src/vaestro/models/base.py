"""Programs that several recipes share: the plain VAE and the top-down hierarchy."""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaestro.conditional import through
from vaestro.core import Batch, Model, Program, Site, content, draw


def data_of(batch: Batch | None) -> Tensor | None:
    """The field `x` of a batch if it has one: what an encoder reads, with zeros where it was not seen."""
    return None if batch is None or "x" not in batch else content(batch["x"])


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


class Step(nn.Module):
    """One latent group of a top-down hierarchy: p(z | above), q(z | above, x), and how z changes the state."""

    def __init__(self, prior: nn.Module, posterior: nn.Module, merge: nn.Module) -> None:
        super().__init__()
        self.prior, self.posterior, self.merge = prior, posterior, merge


class TopDown(Model):
    """A ladder: prior and posterior walk down the same stairs, and each step sees all that was drawn above it.

    p(z_1) p(z_2 | z_1) ... p(x | z_1..L) with q(z_l | z_<l, x) (Soenderby et al. 2016; Kingma et al. 2016, section 4).
    """

    def __init__(self, encoder: nn.Module, steps: Sequence[Step], likelihood: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder, self.steps, self.likelihood = encoder, nn.ModuleList(steps), likelihood
        self.top = nn.Parameter(0.1 * torch.randn(width))  # from zeros, what reads it would start without a gradient

    def program(self, batch: Batch | None = None) -> Program:
        """z1, z2, ... from the top, then x."""
        x = data_of(batch)
        seen = None if x is None else self.encoder(x)
        state: Tensor = self.top
        steps = cast(Iterable[Step], self.steps)  # a ModuleList forgets the class of its parts
        for i, step in enumerate(steps):
            z = yield Site(f"z{i + 1}", step.prior(state), None if seen is None else step.posterior(state, seen))
            state = state + through(step.merge, state, z)
        yield Site("x", self.likelihood(state))
