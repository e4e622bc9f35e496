"""The plain VAE, the plain autoencoder, and the plain VAE with another weight, bound or prior."""

from vaestro.data.schema import Schema
from vaestro.families import Point, default_likelihood
from vaestro.models import VAE
from vaestro.networks import mlp
from vaestro.objectives import elbo, free_bits, reconstruction
from vaestro.objectives import iwae as iwae_bound
from vaestro.plays import alone, annealed
from vaestro.priors import GaussianMixture, StandardNormal
from vaestro.priors import vamp as vamp_prior
from vaestro.recipes.book import Count, Fraction, Recipe, Weight, Widths, recipe, solo
from vaestro.recipes.shared import Likely, Net, decoder, encoder, plain
from vaestro.schedules import warm_up as rising


@recipe(
    group="classic",
    paper="Kingma & Welling 2014, Auto-Encoding Variational Bayes, eq. 3",
    formula="log p(x) >= E_q(z|x)[log p(x|z)] - KL(q(z|x) || p(z))",
    published="86.76 nats, dynamic MNIST, 784-200-200-50, 5,000 importance samples (Burda et al. 2016, table 1)",
)
def vae(
    schema: Schema,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
    warm_up: Fraction = 0.0,
) -> Recipe:
    """The variational autoencoder; `warm_up` is the share of training over which the KL's weight rises to 1."""
    model = plain(schema, latents, network, hidden, likelihood)
    return solo(model, annealed(elbo, rising(warm_up)))


@recipe(
    group="classic",
    paper="Hinton & Salakhutdinov 2006, Reducing the Dimensionality of Data with Neural Networks",
    formula="max log p(x | z = f(x)), with q(z|x) a point: no KL, hence no likelihood",
    published="no density; its reconstruction error bounds from below what a VAE of the same size can reach",
)
def ae(schema: Schema, latents: Count = 40, network: Net = mlp, hidden: Widths | None = None, likelihood: Likely = default_likelihood) -> Recipe:
    """The plain autoencoder: reconstruction alone, nothing that makes its latents follow the prior."""
    x = schema["x"]
    q = encoder(x, latents, network, hidden, Point())
    return solo(VAE(StandardNormal((latents,)), q, decoder(x, latents, network, hidden, likelihood)), alone(reconstruction()), reconstruction())


@recipe(
    group="disentangled",
    paper="Higgins et al. 2017, beta-VAE, eq. 4",
    formula="E_q[log p(x|z)] - beta KL(q(z|x) || p(z))",
    published="dSprites, beta = 4: DCI .1-.5, MIG .1-.25 (Locatello et al. 2019)",
)
def beta_vae(
    schema: Schema, beta: Weight = 4.0, latents: Count = 10, network: Net = mlp, hidden: Widths | None = None, likelihood: Likely = default_likelihood
) -> Recipe:
    """A VAE with another weight on the KL: above 1 for disentangled latents, below 1 for sharper reconstructions."""
    return solo(plain(schema, latents, network, hidden, likelihood), alone(elbo(beta)))


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
    group="bounds",
    paper="Burda et al. 2016, Importance Weighted Autoencoders, eq. 8",
    formula="log p(x) >= E[log (1/k) sum_k p(x, z_k) / q(z_k | x)]",
    published="84.78 nats with 50 samples, 85.54 with 5, dynamic MNIST, 784-200-200-50, 5,000 importance samples (table 1)",
)
def iwae(
    schema: Schema, samples: Count = 5, latents: Count = 40, network: Net = mlp, hidden: Widths | None = None, likelihood: Likely = default_likelihood
) -> Recipe:
    """A VAE trained on the tighter, importance-weighted bound of `samples` draws."""
    return solo(plain(schema, latents, network, hidden, likelihood), alone(iwae_bound, samples), iwae_bound, samples)


@recipe(
    group="priors",
    paper="Tomczak & Welling 2018, VAE with a VampPrior, eq. 9",
    formula="p(z) = (1/K) sum_k q(z | u_k), with learned pseudo-inputs u_k",
    published="82.43 nats against 84.45 for the standard normal, dynamic MNIST, 2x300 gated net, 40 latents, 5,000 importance samples",
)
def vamp(
    schema: Schema,
    components: Count = 500,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
    warm_up: Fraction = 0.0,
) -> Recipe:
    """A VAE whose prior is a mixture of its own posterior at learned pseudo-inputs."""
    x = schema["x"]
    q = encoder(x, latents, network, hidden)
    model = VAE(vamp_prior(latents, q, x, components), q, decoder(x, latents, network, hidden, likelihood))
    return solo(model, annealed(elbo, rising(warm_up)))


@recipe(
    group="priors",
    paper="Dilokthanakul et al. 2016; Jiang et al. 2017 (VaDE), eq. 3",
    formula="p(z) = sum_k pi_k N(z; mu_k, diag sigma_k^2), learned with the rest",
    published="VampPrior paper, section 5: a mixture of 500 Gaussians lies between the standard normal and the VampPrior",
)
def gmm_prior(
    schema: Schema, components: Count = 10, latents: Count = 40, network: Net = mlp, hidden: Widths | None = None, likelihood: Likely = default_likelihood
) -> Recipe:
    """A VAE whose prior is a learned mixture of Gaussians."""
    x = schema["x"]
    model = VAE(GaussianMixture(latents, components), encoder(x, latents, network, hidden), decoder(x, latents, network, hidden, likelihood))
    return solo(model, alone(elbo()))
