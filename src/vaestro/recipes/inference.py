"""VAEs whose inference gets more steps than one pass of an encoder."""

from typing import Annotated

from annotated_types import Ge
from torch import nn

from vaestro.data.schema import Integer, Schema
from vaestro.errors import UsageError
from vaestro.families import default_likelihood
from vaestro.models.refined import SLOPES, Ascent, SemiAmortised, Slope, exact, straight
from vaestro.networks import mlp
from vaestro.objectives import elbo
from vaestro.plays import Lead, alone
from vaestro.plays import lagging as catching_up
from vaestro.recipes.book import Count, Positive, Recipe, Widths, recipe, solo
from vaestro.recipes.shared import Likely, Net, plain


@recipe(
    group="inference",
    paper="He et al. 2019, Lagging Inference Networks and Posterior Collapse in Variational Autoencoders, algorithm 1",
    formula="the ELBO; `inner` moves of the encoder before each of the decoder, until I_q(x; z) of the training batches stops rising",
    published="89.05 nats on Omniglot with an autoregressive decoder",
)
def lagging(
    schema: Schema, inner: Count = 10, latents: Count = 40, network: Net = mlp, hidden: Widths | None = None, likelihood: Likely = default_likelihood
) -> Recipe:
    """A VAE of two players whose encoder moves `inner` times as often, for as long as that tells the latents more of the data."""
    parts = nn.ModuleDict({"model": plain(schema, latents, network, hidden, likelihood), "lead": Lead()})
    return Recipe(parts, catching_up(elbo(), inner), {"encoder": ("model.posterior",), "decoder": ("model.prior", "model.likelihood")})


@recipe(
    group="inference",
    paper="Kim et al. 2018, Semi-Amortized Variational Autoencoders, algorithm 1; gradients natural, and constant as in Marino et al. 2018 unless slope=exact",
    formula="q_0 = encoder(x), q_i+1 = q_i + size G(q_i)^-1 dELBO(q_i; x)/dq, q(z|x) = q_n: the ELBO, and every score, under the refined q",
    published="89.07 nats on Omniglot with an autoregressive decoder, 20 steps",
)
def semi_amortised(
    schema: Schema,
    steps: Annotated[int, Ge(0)] = 5,
    size: Positive = 0.1,
    slope: Annotated[Slope, SLOPES] = straight,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """A VAE whose encoder proposes and `steps` of gradient ascent on each row's bound refine, in training and in evaluation."""
    if slope is exact and isinstance(schema["x"].kind, Integer):
        raise UsageError("semi_amortised:slope=exact needs a likelihood that differentiates twice, and masses of bins do not at their ends; use slope=straight")
    model = plain(schema, latents, network, hidden, likelihood)
    return solo(SemiAmortised(model.prior, model.posterior, model.likelihood, Ascent(steps, size, slope)), alone(elbo()))
