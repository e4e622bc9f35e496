"""The plain VAE and the plain autoencoder."""

from vaestro.data.schema import Schema
from vaestro.families import Point, default_likelihood
from vaestro.networks import mlp
from vaestro.objectives import reconstruction
from vaestro.plays import alone
from vaestro.recipes.book import Count, Fraction, Recipe, Widths, recipe, solo
from vaestro.recipes.shared import Likely, Net, plain, warmed


@recipe(
    group="basic",
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
    return warmed(model, warm_up)


@recipe(
    group="basic",
    paper="Hinton & Salakhutdinov 2006, Reducing the Dimensionality of Data with Neural Networks",
    formula="max log p(x | z = f(x)), with q(z|x) a point: no KL, hence no likelihood",
    published="no density; its reconstruction error bounds from below what a VAE of the same size can reach",
    lacks={"density": "its posterior is a point, so it bounds no likelihood", "prior": "nothing makes its codes follow the prior that it draws from"},
)
def ae(schema: Schema, latents: Count = 40, network: Net = mlp, hidden: Widths | None = None, likelihood: Likely = default_likelihood) -> Recipe:
    """The plain autoencoder: reconstruction alone, nothing that makes its latents follow the prior."""
    return solo(plain(schema, latents, network, hidden, likelihood, Point()), alone(reconstruction()), reconstruction())
