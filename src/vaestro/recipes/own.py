"""A recipe from your own modules: no registry, no subclass."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vaestro.conditional import Conditional
from vaestro.core import Model, Shape
from vaestro.data.schema import Schema, Table
from vaestro.errors import UsageError
from vaestro.families import Gaussian, outputs
from vaestro.families.likelihoods import Likelihood, default_likelihood
from vaestro.models import VAE
from vaestro.objectives import elbo
from vaestro.plays import alone
from vaestro.priors import StandardNormal
from vaestro.recipes.book import Recipe, solo


class Shaped(nn.Module):
    """A stranger's module, its output reshaped to what a family reads."""

    def __init__(self, module: nn.Module, event_dims: int, outputs: Shape) -> None:
        super().__init__()
        self.module, self.event_dims, self.outputs = module, event_dims, outputs

    def forward(self, x: Tensor) -> Tensor:
        """[n, *inputs] to [n, *outputs]; raises UsageError where the numbers do not fill the outputs."""
        h: Tensor = self.module(x)
        if h[0].numel() != torch.Size(self.outputs).numel():
            name = type(self.module).__name__
            raise UsageError(f"{name} returns {h[0].numel()} numbers a row where {self.outputs} are needed; change its last layer, or the likelihood")
        return h.reshape(len(h), *self.outputs)


class Gapped(Shaped):
    """A stranger's encoder of rows of a table: what was not seen is NaN there, and is read as 0, which of a measured column is its mean."""

    def forward(self, x: Tensor) -> Tensor:
        """[n, columns] to [n, *outputs], as `Shaped`."""
        return super().forward(torch.where(x.isnan(), 0.0, x))


def from_modules(encoder: nn.Module, decoder: nn.Module, likelihood: Likelihood = default_likelihood) -> Callable[[Schema], Recipe]:
    """A recipe of your own encoder and decoder: a plain VAE trained on the ELBO.

    `encoder` maps x [n, *shape] to [n, 2 * latents] (means, then the numbers behind the scales); `decoder` maps z [n, latents] to the numbers that
    `likelihood` reads: as many channels as the data for binary data, twice that for grey or real data. The modules are copied, and start from their weights.
    Of a table the encoder reads each row as it is held, a gap as 0 and a category as its number.
    """

    def own(schema: Schema) -> Recipe:
        x = schema["x"]
        numbers = _tried("encoder", encoder, torch.zeros(2, *x.shape))
        if numbers.dim() != 2 or numbers.shape[1] % 2:
            raise UsageError(f"the encoder returns {tuple(numbers.shape[1:])} a row, and a Gaussian posterior needs 2 * latents numbers; change its last layer")
        latents, family = numbers.shape[1] // 2, likelihood(x)
        reads = Gapped if isinstance(x.kind, Table) else Shaped
        q = Conditional(reads(copy.deepcopy(encoder), len(x.shape), (2 * latents,)), Gaussian())
        p = Conditional(Shaped(copy.deepcopy(decoder), 1, outputs(family, x.shape)), family)
        _tried("decoder", decoder, torch.zeros(2, latents))
        return solo(VAE(StandardNormal((latents,)), q, p), alone(elbo()))

    return own


def _tried(what: str, module: nn.Module, rows: Tensor) -> Tensor:
    """What a copy of a module makes of some rows, for a run moves running statistics; raises UsageError where it is none, or cannot read them."""
    if not isinstance(module, nn.Module):
        raise UsageError(f"the {what} is a {type(module).__name__}, and a torch module is wanted; give (encoder, decoder), two modules")
    try:
        with torch.no_grad():
            found: Tensor = copy.deepcopy(module)(rows)
    except RuntimeError as error:
        said = str(error).partition("\n")[0]
        raise UsageError(f"the {what} cannot read rows shaped {tuple(rows.shape[1:])} ({said}); change its first layer") from None
    return found


def from_model(model: Model) -> Callable[[Schema], Recipe]:
    """A recipe of your own model, trained on the ELBO; the model is copied, and starts from its weights."""

    def own(schema: Schema) -> Recipe:
        return solo(copy.deepcopy(model), alone(elbo()))

    return own
