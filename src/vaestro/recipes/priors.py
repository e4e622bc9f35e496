"""The plain VAE with a prior that is learnt with the rest."""

from typing import Annotated

from vaestro.data.schema import Schema
from vaestro.families import default_likelihood
from vaestro.models import VAE, ExemplarVAE
from vaestro.networks import Build, mlp
from vaestro.plays import pretrained
from vaestro.priors import FullMixture, GaussianMixture, Prior, flow, maf, spline
from vaestro.priors import vamp as vamp_prior
from vaestro.priors.autoregressive import autoregressive
from vaestro.priors.exemplar import exemplar as exemplar_prior
from vaestro.priors.mixtures import COVARIANCES, Covariance
from vaestro.recipes.book import Count, Fraction, Recipe, Widths, recipe, solo
from vaestro.recipes.shared import Likely, Net, decoder, encoder, warmed

Sizes = tuple[int, Build, Widths | None]  # latents, network, hidden


def under(prior: Prior, schema: Schema, sizes: Sizes, likelihood: Likely, of: type[VAE] = VAE) -> VAE:
    """The plain VAE under `prior`, a function of the latents, the posterior and the field."""
    x, (latents, network, hidden) = schema["x"], sizes
    q = encoder(x, latents, network, hidden)
    return of(prior(latents, q, x), q, decoder(x, latents, network, hidden, likelihood))


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
    model = under(lambda n, q, x: vamp_prior(n, q, x, components), schema, (latents, network, hidden), likelihood)
    return warmed(model, warm_up)


@recipe(
    group="priors",
    paper="Dilokthanakul et al. 2016; Jiang et al. 2017 (VaDE), eq. 3",
    formula="p(z) = sum_k pi_k N(z; mu_k, diag sigma_k^2), learned with the rest",
    published="VampPrior paper, section 5: a mixture of 500 Gaussians lies between the standard normal and the VampPrior",
)
def gmm_prior(
    schema: Schema,
    components: Count = 10,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
    warm_up: Fraction = 0.0,
) -> Recipe:
    """A VAE whose prior is a learned mixture of Gaussians."""
    model = under(lambda n, q, x: GaussianMixture(n, components), schema, (latents, network, hidden), likelihood)
    return warmed(model, warm_up)


@recipe(
    group="priors",
    paper="Norouzi, Fleet & Norouzi 2020, Exemplar VAE, section 3",
    formula="p(z) = (1/N) sum_n N(z; mu(x_n), sigma^2 I), mu the encoder's mean; in training over the other rows of the batch",
    published="82.09 nats against 82.43 for Vamp, dynamic MNIST, 2x300 gated net, 40 latents, 5,000 importance samples",
)
def exemplar(
    schema: Schema,
    exemplars: Count = 500,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
    warm_up: Fraction = 0.0,
) -> Recipe:
    """A VAE whose prior is a mixture of Gaussians of one scale around the encodings of training rows."""
    model = under(lambda n, q, x: exemplar_prior(n, q, x, exemplars), schema, (latents, network, hidden), likelihood, ExemplarVAE)
    return warmed(model, warm_up)


@recipe(
    group="priors",
    paper="Dinh et al. 2017, Real NVP, eq. 7; as a learned prior Xu et al. 2019, On the Necessity and Effectiveness of Learning the Prior of VAE",
    formula="log p(z) = log N(f(z); 0, I) + log |det df/dz|, f of affine couplings",
    published="78.61 nats, dynamic MNIST, convolutional VAE of one latent vector, 1,000 importance samples (Xu et al. 2019)",
)
def flow_prior(
    schema: Schema,
    layers: Count = 6,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
    warm_up: Fraction = 0.0,
) -> Recipe:
    """A VAE whose prior is a normalising flow of affine couplings, learned with the rest."""
    model = under(lambda n, q, x: flow(n, q, x, layers), schema, (latents, network, hidden), likelihood)
    return warmed(model, warm_up)


@recipe(
    group="priors",
    paper="Papamakarios et al. 2017, Masked Autoregressive Flow, eq. 3; as a prior Chen et al. 2017, Variational Lossy Autoencoder, section 3.2",
    formula="log p(z) = log N(f(z); 0, I) + log |det df/dz|, f_i(z) = exp(a_i(z_<i)) z_i + b_i(z_<i)",
    published="none for this prior under a dense decoder; VLAE has 78.53 nats on dynamic MNIST with an autoregressive decoder too",
)
def maf_prior(
    schema: Schema,
    layers: Count = 3,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
    warm_up: Fraction = 0.0,
) -> Recipe:
    """A VAE whose prior is a masked autoregressive flow: one pass to train, `latents` passes a layer to sample."""
    model = under(lambda n, q, x: maf(n, q, x, layers), schema, (latents, network, hidden), likelihood)
    return warmed(model, warm_up)


@recipe(
    group="priors",
    paper="Durkan et al. 2019, Neural Spline Flows, eq. 4 to 8 and section 5.2",
    formula="log p(z) = log N(f(z); 0, I) + log |det df/dz|, f of couplings by rational-quadratic splines",
    published="none: the paper's VAEs on MNIST have spline flows as prior and posterior at once",
)
def spline_prior(
    schema: Schema,
    layers: Count = 4,
    bins: Count = 8,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
    warm_up: Fraction = 0.0,
) -> Recipe:
    """A VAE whose prior is a neural spline flow of couplings."""
    model = under(lambda n, q, x: spline(n, q, x, layers, bins), schema, (latents, network, hidden), likelihood)
    return warmed(model, warm_up)


@recipe(
    group="priors",
    paper="Germain et al. 2015, MADE, eq. 2, over latents with mixtures of Gaussians as in Uria et al. 2013, RNADE, eq. 3",
    formula="p(z) = prod_d sum_k w_k(z_<d) N(z_d; m_k(z_<d), s_k(z_<d)^2)",
    published="none: the papers model data, not latents",
)
def autoregressive_prior(
    schema: Schema,
    components: Count = 5,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
    warm_up: Fraction = 0.0,
) -> Recipe:
    """A VAE whose prior draws each latent from a mixture of Gaussians that depends on those before it."""
    model = under(lambda n, q, x: autoregressive(n, q, x, components), schema, (latents, network, hidden), likelihood)
    return warmed(model, warm_up)


@recipe(
    group="priors",
    paper="Jiang et al. 2017, Variational Deep Embedding, section 3; Dilokthanakul et al. 2016 (GMVAE)",
    formula="log p(x) >= E_q[log p(x|z) + log sum_c pi_c N(z; mu_c, Sigma_c) - log q(z|x)]; clusters by p(c|z); in the paper Sigma_c is diagonal",
    published="94.46 % of MNIST digits in the right one of 10 clusters (table 2), after pretraining a stacked autoencoder, which is not done here",
)
def vade(
    schema: Schema,
    components: Count = 10,
    latents: Count = 10,
    settle: Fraction = 0.3,
    covariance: Annotated[Covariance, COVARIANCES] = FullMixture,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """A VAE that clusters: for the share `settle` of training its mixture learns where a plain VAE puts the rows, then it is the prior."""
    model = under(lambda n, q, x: covariance(n, components), schema, (latents, network, hidden), likelihood)
    return solo(model, pretrained(settle), settled=settle)
