"""The plain VAE with other weights on its KL, its rows or its scale, and with schedules of these."""

from typing import Annotated

from annotated_types import Gt, Le
from pydantic import FiniteFloat
from torch import nn

from vaestro.data.schema import Binary, Integer, Real, Schema
from vaestro.errors import UsageError
from vaestro.families import CommittedGaussian, default_likelihood
from vaestro.families.likelihoods import LIKELIHOODS
from vaestro.models import VAE
from vaestro.networks import mlp
from vaestro.objectives import capacity as held_at
from vaestro.objectives import elbo, free_bits, optimal_scale
from vaestro.plays import Multiplier, alone, annealed
from vaestro.plays import curriculum as easy_first
from vaestro.plays import geco as constrained
from vaestro.priors import CommittedChain
from vaestro.recipes.book import Count, Fraction, Positive, Recipe, Weight, Widths, recipe, solo
from vaestro.recipes.shared import Likely, Net, decoder, encoder, plain
from vaestro.schedules import cyclical as cycling
from vaestro.schedules import ramp

Share = Annotated[float, Gt(0), Le(1)]


@recipe(
    group="weights",
    paper="Burgess et al. 2018, Understanding disentangling in beta-VAE, eq. 8",
    formula="E_q[log p(x|z)] - gamma |KL(q(z|x) || p(z)) - C(t)|, with C(t) rising from 0 to `nats`",
    published="none on MNIST; on dSprites gamma = 1000, C from 0 to 25 nats, judged by eye (section 5)",
)
def capacity(
    schema: Schema,
    nats: Weight = 25.0,
    gamma: Weight = 10.0,
    until: Fraction = 0.5,
    latents: Count = 10,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """A VAE whose KL is held at a capacity that rises to `nats` a row over the share `until` of training."""
    play = annealed(lambda c: held_at(gamma, c), ramp(0.0, until, nats), term="capacity")
    return solo(plain(schema, latents, network, hidden, likelihood), play, settled=until)


@recipe(
    group="weights",
    paper="Fu et al. 2019, Cyclical Annealing Schedule, eq. 6 and 7",
    formula="E_q[log p(x|z)] - beta(t) KL(q(z|x) || p(z)), beta rising from 0 to 1 in each of `cycles` cycles, and 1 at the end",
    published="none: the paper's numbers are of text",
)
def cyclical(
    schema: Schema,
    cycles: Count = 4,
    rise: Fraction = 0.5,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """A VAE whose KL weight rises from 0 to 1 again and again: each rise starts from latents that are in use."""
    end = 1 - (1 - rise) / cycles if rise else 0.0  # of the last rise
    return solo(plain(schema, latents, network, hidden, likelihood), annealed(elbo, cycling(cycles, rise)), settled=end)


@recipe(
    group="weights",
    paper="Kingma et al. 2016, Improved Variational Inference with Inverse Autoregressive Flow, eq. 15",
    formula="E_q[log p(x|z)] - sum_j max(floor, E_batch[KL_j])",
    published="used for 79.10 nats on dynamic MNIST with IAF posteriors and a deep residual net",
)
def free_bits_vae(
    schema: Schema, floor: Weight = 0.05, latents: Count = 40, network: Net = mlp, hidden: Widths | None = None, likelihood: Likely = default_likelihood
) -> Recipe:
    """A VAE whose latent dimensions are not charged for their first `floor` nats: a remedy for posterior collapse."""
    return solo(plain(schema, latents, network, hidden, likelihood), alone(free_bits(floor)))


@recipe(
    group="weights",
    paper="Rezende & Viola 2018, Taming VAEs (GECO), algorithm 1",
    formula="min KL(q(z|x) || p(z)) such that -E_q[log p(x|z)] <= `tolerance` nats a value of x; the multiplier follows the constraint",
    published="none: the paper's constraints are squared errors, on other data",
)
def geco(
    schema: Schema,
    tolerance: FiniteFloat | None = None,
    speed: Positive = 0.05,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """The VAE of least KL whose reconstructions cost at most `tolerance` nats a value of x (0.1 on binary data, else 1): its KL weight finds itself."""
    x = schema["x"]
    allowed = (0.1 if isinstance(x.kind, Binary) else 1.0) if tolerance is None else tolerance
    parts = nn.ModuleDict({"model": plain(schema, latents, network, hidden, likelihood), "multiplier": Multiplier(allowed * x.size, speed / x.size)})
    return Recipe(parts, constrained())


@recipe(
    group="weights",
    paper="Rybkin et al. 2021, Simple and Effective VAE Training with Calibrated Decoders (sigma-VAE), section 3, the optimal sigma-VAE",
    formula="E_q[log N(x; mu(z), sigma*^2)] - KL(q(z|x) || p(z)), sigma*^2 = mean (x - mu(z))^2 of the batch; evaluation uses its running mean",
    published="none: the paper compares Frechet distances on SVHN, CelebA and video",
    fits=(Integer, Real),
)
def sigma_vae(schema: Schema, latents: Count = 40, network: Net = mlp, hidden: Widths | None = None) -> Recipe:
    """A VAE with a Gaussian likelihood of one scale that is set, not learnt: the best one for each batch, a stored one in evaluation."""
    return solo(plain(schema, latents, network, hidden, LIKELIHOODS["gaussian_tracked"]), alone(optimal_scale()))


@recipe(
    group="weights",
    paper="Razavi et al. 2019, Preventing Posterior Collapse with delta-VAEs, section 2, temporally correlated latents",
    formula="p(z) a chain z_t ~ N(a z_t-1, 1 - a^2), q(z|x) independent: KL >= 1/2 [(n - 2) ln(1 + a^2) - ln(1 - a^2)] = `nats`",
    published="none on MNIST; 2.83 bits per dimension on CIFAR-10 with an autoregressive decoder",
)
def delta_vae(
    schema: Schema,
    nats: Weight = 5.0,
    latents: Count = 40,
    width: Count = 1,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """A VAE that cannot collapse: its latents are steps of a chain, `width` side by side, so any independent posterior costs `nats` or more."""
    if latents % width:
        raise UsageError(f"delta_vae: {latents} latents do not divide into steps of width={width}; choose a width that divides latents")
    model = plain(schema, latents, network, hidden, likelihood)
    return solo(VAE(CommittedChain(latents // width, nats, width), model.posterior, model.likelihood), alone(elbo()))


@recipe(
    group="weights",
    paper="Razavi et al. 2019, Preventing Posterior Collapse with delta-VAEs, section 2, independent Gaussians",
    formula="p(z) = N(0, I), q(z|x) = N(m, s^2) with s below s_u, where sum (s_u^2 - 1) / 2 - ln s_u = `nats` is the least KL",
    published="none: the paper reports its chain only",
)
def delta_gaussian(
    schema: Schema, nats: Weight = 5.0, latents: Count = 40, network: Net = mlp, hidden: Widths | None = None, likelihood: Likely = default_likelihood
) -> Recipe:
    """A VAE that cannot collapse: its posterior's scales are bounded, so every row costs `nats` or more."""
    x, model = schema["x"], plain(schema, latents, network, hidden, likelihood)
    q = encoder(x, latents, network, hidden, CommittedGaussian(nats / latents))
    return solo(VAE(model.prior, q, decoder(x, latents, network, hidden, likelihood)), alone(elbo()))


@recipe(
    group="weights",
    paper="Kumar et al. 2010, Self-Paced Learning for Latent Variable Models, section 3; pacing as in Bengio et al. 2009, Curriculum Learning",
    formula="the mean ELBO of the easiest share s(t) of each batch, by the model's own loss; s rises from `start` to 1 and stays there",
    published="none for VAEs",
)
def curriculum(
    schema: Schema,
    start: Share = 0.5,
    until: Fraction = 0.3,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """A VAE that trains on the easy rows of each batch first, and on all of them after the share `until` of training."""
    return solo(plain(schema, latents, network, hidden, likelihood), easy_first(elbo(), ramp(start, until)), settled=until)
