"""Other bounds than the ELBO, and other estimators of their gradients."""

import math
from collections.abc import Callable
from typing import Annotated, TypeAlias

from annotated_types import Ge, Gt, Lt
from torch import nn

from vaestro.data.schema import Schema
from vaestro.errors import UsageError
from vaestro.families import Bernoulli, default_likelihood
from vaestro.models import VAE
from vaestro.networks import mlp
from vaestro.objectives import ciwae as ciwae_bound
from vaestro.objectives import iwae as iwae_bound
from vaestro.objectives import miwae as miwae_bound
from vaestro.objectives import renyi as renyi_bound
from vaestro.objectives import tvo as tvo_bound
from vaestro.objectives import vimco as vimco_bound
from vaestro.plays import Baseline, alone, nvil, scored
from vaestro.plays import dreg as dreg_play
from vaestro.plays import piwae as piwae_play
from vaestro.plays import rws as rws_play
from vaestro.plays import stl as stl_play
from vaestro.priors import BernoulliPrior
from vaestro.recipes.book import Count, Fraction, Recipe, Widths, recipe, solo
from vaestro.recipes.shared import Likely, Net, decoder, encoder, plain, reader
from vaestro.registry import Registry

Several: TypeAlias = Annotated[int, Ge(2)]
Order: TypeAlias = Annotated[float, Ge(-math.inf)]  # any number, infinities too, but not NaN
Memory: TypeAlias = Annotated[float, Ge(0), Lt(1)]
Inside: TypeAlias = Annotated[float, Gt(0), Lt(1)]
Hidden: TypeAlias = Widths | None

LAWS: Registry[Callable[..., VAE]] = Registry("law of latents")
Law: TypeAlias = Annotated[Callable[..., VAE], LAWS]
LAWS.add("gaussian", plain)

APART = {"encoder": ("model.posterior",), "decoder": ("model.prior", "model.likelihood")}


@LAWS.register
def bernoulli(schema: Schema, latents: int, network: Net, hidden: Hidden, likelihood: Likely) -> VAE:
    """Bits as latents: q(z | x) and a learnt p(z) of independent Bernoullis."""
    x = schema["x"]
    return VAE(BernoulliPrior(latents), encoder(x, latents, network, hidden, Bernoulli()), decoder(x, latents, network, hidden, likelihood))


def _group(samples: int, groups: int) -> int:
    """The draws in each of `groups` equal groups of `samples`; raises UsageError where they do not divide."""
    if samples % groups:
        raise UsageError(f"{samples} samples do not divide into {groups} groups; let groups divide samples, as in samples=64,groups=8")
    return samples // groups


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
    group="bounds",
    paper="Rainforth et al. 2018, Tighter Variational Bounds are Not Necessarily Better, section 6, MIWAE",
    formula="log p(x) >= (1/m) sum_i E[log (1/k) sum_j w_ij], m = groups, m k = samples",
    published="84.97 (0.10) nats with samples=64,groups=8, dynamic MNIST, 5,000 importance samples",
)
def miwae(
    schema: Schema,
    samples: Count = 16,
    groups: Count = 4,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Hidden = None,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """A VAE trained on the mean of `groups` importance-weighted bounds, which share `samples` draws: less noise for the encoder."""
    bound = miwae_bound(_group(samples, groups))
    return solo(plain(schema, latents, network, hidden, likelihood), alone(bound, samples), bound, samples)


@recipe(
    group="bounds",
    paper="Rainforth et al. 2018, Tighter Variational Bounds are Not Necessarily Better, section 6, CIWAE",
    formula="log p(x) >= E[beta (1/k) sum_i log w_i + (1 - beta) log (1/k) sum_i w_i]",
    published="84.57 (0.09) nats with samples=64,beta=0.05, dynamic MNIST, 5,000 importance samples",
)
def ciwae(
    schema: Schema,
    samples: Count = 16,
    beta: Fraction = 0.05,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Hidden = None,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """A VAE trained on `beta` parts ELBO and 1 - `beta` parts importance-weighted bound of the same draws."""
    bound = ciwae_bound(beta)
    return solo(plain(schema, latents, network, hidden, likelihood), alone(bound, samples), bound, samples)


@recipe(
    group="bounds",
    paper="Rainforth et al. 2018, Tighter Variational Bounds are Not Necessarily Better, section 6, PIWAE",
    formula="decoder: E[log (1/(m k)) sum_ij w_ij]; encoder: (1/m) sum_i E[log (1/k) sum_j w_ij], m = groups, m k = samples",
    published="84.46 (0.06) nats with samples=64,groups=8, dynamic MNIST, 5,000 importance samples",
)
def piwae(
    schema: Schema,
    samples: Count = 16,
    groups: Count = 4,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Hidden = None,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """A VAE whose decoder follows the importance-weighted bound of all `samples` and whose encoder the mean over `groups`: two players."""
    parts = nn.ModuleDict({"model": plain(schema, latents, network, hidden, likelihood)})
    return Recipe(parts, piwae_play(samples, _group(samples, groups)), APART, score=iwae_bound, samples=samples)


@recipe(
    group="bounds",
    paper="Li & Turner 2016, Renyi Divergence Variational Inference, the variational Renyi bound",
    formula="1 / (1 - alpha) log E_q[w^(1 - alpha)]: the ELBO at 1, the importance-weighted bound at 0, the largest weight at -inf",
    published="none on MNIST with this protocol: the paper's architectures and number of test samples differ",
)
def renyi(
    schema: Schema,
    alpha: Order = 0.5,
    samples: Count = 5,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Hidden = None,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """A VAE trained on the Renyi bound of order `alpha`; below 0 that bounds nothing, so validation scores the importance-weighted bound."""
    bound = renyi_bound(alpha)
    return solo(plain(schema, latents, network, hidden, likelihood), alone(bound, samples), bound if alpha >= 0 else iwae_bound, samples)


@recipe(
    group="bounds",
    paper="Masrani, Le & Wood 2019, The Thermodynamic Variational Objective, left Riemann sum",
    formula="log p(x) >= sum_i (b_i+1 - b_i) E_pi_b_i[log w], pi_b proportional to q^(1 - b) p^b, b from 0 by `first` to 1, log-uniform",
    published="none with this protocol: the paper reports curves for other architectures",
)
def tvo(
    schema: Schema,
    partitions: Count = 5,
    first: Inside = 0.08,
    samples: Several = 10,
    law: Law = plain,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Hidden = None,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """A VAE trained on the thermodynamic bound, by covariances, for Gaussian latents or bits."""
    bound = tvo_bound(partitions, first)
    return solo(law(schema, latents, network, hidden, likelihood), scored(bound, samples), bound, samples)


@recipe(
    group="bounds",
    paper="Roeder, Wu & Duvenaud 2017, Sticking the Landing, the path derivative",
    formula="d ELBO = E_q[d/dz (log p(x, z) - log q(z | x)) dz], without the score of q, whose mean is 0",
    published="none with this protocol: the paper reports static MNIST and Omniglot with other architectures",
)
def stl(schema: Schema, samples: Count = 1, latents: Count = 40, network: Net = mlp, hidden: Hidden = None, likelihood: Likely = default_likelihood) -> Recipe:
    """A VAE whose gradient loses its noise as the posterior becomes exact."""
    return solo(plain(schema, latents, network, hidden, likelihood), stl_play(samples))


@recipe(
    group="bounds",
    paper="Tucker et al. 2019, Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives; several sites as in Bauer & Mnih 2021",
    formula="d/d(encoder) E[log (1/k) sum_i w_i] = E[sum_i v_i^2 d log w_i / dz_i dz_i], v_i = w_i / sum_j w_j",
    published="none as a table: the paper reports curves of the training bound on dynamic MNIST",
)
def dreg(schema: Schema, samples: Count = 5, latents: Count = 40, network: Net = mlp, hidden: Hidden = None, likelihood: Likely = default_likelihood) -> Recipe:
    """An importance-weighted autoencoder whose encoder keeps a clear gradient with many `samples`."""
    return solo(plain(schema, latents, network, hidden, likelihood), dreg_play(samples), iwae_bound, samples)


@recipe(
    group="bounds",
    paper="Bornschein & Bengio 2015, Reweighted Wake-Sleep, algorithm 1; Le et al. 2019, Revisiting Reweighted Wake-Sleep",
    formula="decoder: E[log (1/k) sum_i w_i]; encoder: (1 - sleep) E[sum_i v_i log q(z_i | x)] + sleep E_p[log q(z | x)], v_i = w_i / sum_j w_j",
    published="none with this protocol: the papers train sigmoid belief networks of several layers",
)
def rws(
    schema: Schema,
    samples: Count = 5,
    sleep: Fraction = 0.0,
    law: Law = plain,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Hidden = None,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """Reweighted wake-sleep: the encoder learns from weighted draws, and with `sleep` from dreams, for Gaussian latents or bits: two players."""
    parts = nn.ModuleDict({"model": law(schema, latents, network, hidden, likelihood)})
    return Recipe(parts, rws_play(samples, sleep), APART, score=iwae_bound, samples=samples)


@recipe(
    group="bounds",
    paper="Mnih & Rezende 2016, Variational Inference for Monte Carlo Objectives, algorithm 1",
    formula="d E[log (1/k) sum_i w_i] = E[sum_j (L - L_-j) d log q(z_j | x) + v_j d log w_j], L_-j with w_j replaced by the others' geometric mean",
    published="none with this protocol: the paper trains sigmoid belief networks of three layers of 200 bits",
)
def vimco(
    schema: Schema,
    samples: Several = 5,
    law: Law = bernoulli,
    latents: Count = 200,
    network: Net = mlp,
    hidden: Hidden = None,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """An importance-weighted autoencoder with bits as latents: each draw's gradient is measured against the other draws."""
    return solo(law(schema, latents, network, hidden, likelihood), scored(vimco_bound, samples), vimco_bound, samples)


@recipe(
    group="bounds",
    paper="Mnih & Gregor 2014, Neural Variational Inference and Learning in Belief Networks, algorithm 1; Williams 1992",
    formula="d ELBO = E_q[d log p(x, z) + (log w - C(x) - c) d log q(z | x)], C learnt and c a running mean",
    published="none with this protocol: the paper trains sigmoid belief networks on static MNIST",
)
def reinforce(
    schema: Schema,
    samples: Count = 1,
    decay: Memory = 0.9,
    law: Law = bernoulli,
    latents: Count = 200,
    network: Net = mlp,
    hidden: Hidden = None,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """A VAE with bits as latents, its gradient measured against a learnt baseline: two players."""
    baseline = Baseline(reader(schema["x"], mlp, (1,), (100,)), decay)
    parts = nn.ModuleDict({"model": law(schema, latents, network, hidden, likelihood), "baseline": baseline})
    return Recipe(parts, nvil(samples), {"model": ("model",), "baseline": ("baseline",)}, samples=samples)
