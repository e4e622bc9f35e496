"""Richer posteriors: VAEs whose q(z | x) is more than a diagonal Gaussian."""

from vaestro import posteriors
from vaestro.data.schema import Schema
from vaestro.families import default_likelihood
from vaestro.networks import mlp
from vaestro.recipes.book import Count, Fraction, Recipe, Widths, recipe
from vaestro.recipes.shared import Likely, Net, around, warmed

FLOW_BOUND = "log p(x) >= E_q(z_0|x)[log p(x, z_K) - log q(z_0|x) + sum_k ln |det dz_k/dz_(k-1)|]"


@recipe(
    group="posteriors",
    paper="Kingma & Welling 2019, An Introduction to Variational Autoencoders, section 2.5.1",
    formula="q(z|x) = N(loc(x), L(x) L(x)^T), L lower triangular with a positive diagonal",
    published="none: the monograph gives the parametrisation and no number",
)
def full_covariance(
    schema: Schema, latents: Count = 40, network: Net = mlp, hidden: Widths | None = None, likelihood: Likely = default_likelihood, warm_up: Fraction = 0.0
) -> Recipe:
    """A VAE whose posterior is a Gaussian with a full covariance, by its Cholesky factor."""
    q = posteriors.full_covariance(schema["x"], latents, network, hidden)
    return warmed(around(q, schema["x"], latents, network, hidden, likelihood), warm_up)


@recipe(
    group="posteriors",
    paper="Rezende & Mohamed 2015, Variational Inference with Normalizing Flows, eq. 10 to 15 and appendix A.1",
    formula=f"{FLOW_BOUND}, z_k = z_(k-1) + u^ tanh(w.z_(k-1) + b)",
    published="85.1 nats with 80 flows and 87.5 with 10, against 89.9 without, binarised MNIST, the paper's bound (table 2)",
)
def planar(
    schema: Schema,
    flows: Count = 10,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
    warm_up: Fraction = 0.0,
) -> Recipe:
    """A VAE whose posterior is a Gaussian pushed apart or together across `flows` planes that the encoder chooses."""
    q = posteriors.planar(schema["x"], latents, network, hidden, flows)
    return warmed(around(q, schema["x"], latents, network, hidden, likelihood), warm_up)


@recipe(
    group="posteriors",
    paper="Rezende & Mohamed 2015, Variational Inference with Normalizing Flows, eq. 14 and appendix A.2",
    formula=f"{FLOW_BOUND}, z_k = z_(k-1) + beta (z_(k-1) - a) / (alpha + |z_(k-1) - a|)",
    published="none: the paper's VAEs are planar; radial flows appear in its pictures",
)
def radial(
    schema: Schema,
    flows: Count = 10,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
    warm_up: Fraction = 0.0,
) -> Recipe:
    """A VAE whose posterior is a Gaussian pushed away from or towards `flows` points that the encoder chooses."""
    q = posteriors.radial(schema["x"], latents, network, hidden, flows)
    return warmed(around(q, schema["x"], latents, network, hidden, likelihood), warm_up)


@recipe(
    group="posteriors",
    paper="Tomczak & Welling 2016, Improving Variational Auto-Encoders using Householder Flow, section 3",
    formula="z = H_K ... H_1 z_0, H_k = I - 2 v_k v_k^T / |v_k|^2: q(z|x) = N(H loc, H diag(scale^2) H^T)",
    published="none that could be checked against the paper's table",
)
def householder(
    schema: Schema,
    flows: Count = 10,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
    warm_up: Fraction = 0.0,
) -> Recipe:
    """A VAE whose posterior is a diagonal Gaussian turned by `flows` reflections that the encoder chooses."""
    q = posteriors.householder(schema["x"], latents, network, hidden, flows)
    return warmed(around(q, schema["x"], latents, network, hidden, likelihood), warm_up)


@recipe(
    group="posteriors",
    paper="Kingma et al. 2016, Improved Variational Inference with Inverse Autoregressive Flow, algorithm 1",
    formula=f"{FLOW_BOUND}, z_k = sigma_k z_(k-1) + (1 - sigma_k) m_k, m_k and sigma_k of z_(k-1) by masked networks that read x",
    published="79.10 nats, dynamic MNIST, a deep convolutional model with IAF posteriors; not this shallow one",
)
def iaf(
    schema: Schema,
    flows: Count = 4,
    width: Count = 200,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
    warm_up: Fraction = 0.0,
) -> Recipe:
    """A VAE whose posterior is a Gaussian through `flows` inverse autoregressive steps of `width` units; it scores only what it draws."""
    q = posteriors.inverse_autoregressive(schema["x"], latents, network, hidden, flows, width)
    return warmed(around(q, schema["x"], latents, network, hidden, likelihood), warm_up)


@recipe(
    group="posteriors",
    paper="Papamakarios et al. 2017, Masked Autoregressive Flow for Density Estimation, eq. 3 to 5",
    formula="log q(z|x) = log N(u; 0, I) + ln |det du/dz|, u_i = (z_i - mu_i) exp(-alpha_i), mu_i and alpha_i of z_<i and x",
    published="none as a posterior: the paper estimates densities",
)
def maf_posterior(
    schema: Schema,
    flows: Count = 2,
    latents: Count = 16,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
    warm_up: Fraction = 0.0,
) -> Recipe:
    """A VAE whose posterior is a masked autoregressive flow: any value is scored in one pass, a draw takes `latents` passes a step."""
    q = posteriors.masked_autoregressive(schema["x"], latents, network, hidden, flows)
    return warmed(around(q, schema["x"], latents, network, hidden, likelihood), warm_up)


@recipe(
    group="posteriors",
    paper="Durkan et al. 2019, Neural Spline Flows, eq. 4 to 8 and section 5.2",
    formula="log q(z|x) = log N(u; 0, I) + ln |det du/dz|, u of z by couplings of rational-quadratic splines that read x",
    published="none: the paper's VAEs have a spline prior as well as a spline posterior",
)
def spline_posterior(
    schema: Schema,
    flows: Count = 4,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
    warm_up: Fraction = 0.0,
) -> Recipe:
    """A VAE whose posterior is a Gaussian bent by `flows` couplings of monotonic splines: fast to draw and to score."""
    q = posteriors.spline(schema["x"], latents, network, hidden, flows)
    return warmed(around(q, schema["x"], latents, network, hidden, likelihood), warm_up)
