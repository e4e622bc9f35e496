"""Autoencoders whose latents are brought to their prior as a whole: the aggregate posterior, not that of each row, follows p(z)."""

from torch import nn

from vaestro.data.schema import Schema
from vaestro.families import Point, default_likelihood
from vaestro.families.likelihoods import Likelihood
from vaestro.models import VAE
from vaestro.networks import Build, mlp
from vaestro.objectives import mismatch, mmd, reconstruction, sliced_wasserstein
from vaestro.objectives.discrepancies import Discrepancy
from vaestro.optimizers import adam_half
from vaestro.plays.regularised import Weighed, of_trace, regularised
from vaestro.plays.wasserstein import adversarial_latents
from vaestro.recipes.book import Count, Positive, Recipe, Training, Widths, recipe, solo
from vaestro.recipes.shared import Likely, Net, plain
from vaestro.schedules import RATES

NO_DENSITY = {"density": "its posterior is a point, so it bounds no likelihood"}
Sizes = tuple[int, Build, Widths | None]  # latents, network, hidden


def pointwise(schema: Schema, sizes: Sizes, likelihood: Likelihood) -> VAE:
    """A VAE whose posterior is a point: an autoencoder."""
    return plain(schema, *sizes, likelihood, Point())


def matching(model: VAE, discrepancy: Discrepancy, weight: float) -> Recipe:
    """The model trained on its reconstruction and the weighed discrepancy of its latents from the prior; validation scores the reconstruction."""
    return solo(model, regularised(reconstruction(), {"mismatch": Weighed(weight, of_trace(mismatch(discrepancy)))}), reconstruction())


@recipe(
    group="wasserstein",
    paper="Tolstikhin et al. 2018, Wasserstein Auto-Encoders, eq. 4 and algorithm 2 (WAE-MMD)",
    formula="-log p(x | z = f(x)) + `weight` MMD_k(q(z), p(z)), unbiased, k(a, b) = sum_s 2 D s / (2 D s + |a - b|^2)",
    published="Frechet distance 20.42 on MNIST (Ghosh et al. 2020, table 1), 55 on CelebA (pythae's rerun: 56.5): Inception features, convolutional nets",
    lacks=NO_DENSITY,
    rows=2,
)
def wae_mmd(
    schema: Schema, weight: Positive = 100.0, latents: Count = 8, network: Net = mlp, hidden: Widths | None = None, likelihood: Likely = default_likelihood
) -> Recipe:
    """An autoencoder whose latents, all rows of a batch together, are brought to the prior by their maximum mean discrepancy."""
    return matching(pointwise(schema, (latents, network, hidden), likelihood), mmd(), weight)


@recipe(
    group="wasserstein",
    paper="Kolouri et al. 2019, Sliced-Wasserstein Auto-Encoders, algorithm 1",
    formula="-log p(x | z = f(x)) + `weight` mean over directions u of W_2^2(u . z, u . z_p), z_p ~ p(z)",
    published="none with a protocol to compare with: the paper shows MNIST and CelebA samples",
    lacks=NO_DENSITY,
    rows=2,
)
def swae(
    schema: Schema,
    weight: Positive = 100.0,
    projections: Count = 50,
    latents: Count = 8,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """An autoencoder whose latents are brought to the prior by sorting them along `projections` random directions."""
    return matching(pointwise(schema, (latents, network, hidden), likelihood), sliced_wasserstein(projections), weight)


@recipe(
    group="wasserstein",
    paper="Makhzani et al. 2016, Adversarial Autoencoders, section 2; Tolstikhin et al. 2018, algorithm 1 (WAE-GAN)",
    formula="encoder: -log p(x|z) - `weight` log C(z); decoder: -log p(x|z); critic C: tells draws of p(z) from encoded rows",
    published="Frechet distance 42 on CelebA (Tolstikhin et al. 2018; pythae's rerun: 43.3): Inception features, convolutional nets",
    lacks=NO_DENSITY,
)
def aae(
    schema: Schema,
    weight: Positive = 10.0,
    critic: Widths = (300, 300),
    latents: Count = 8,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """An autoencoder whose encoder learns to deceive a critic that tells encoded rows from draws of the prior: three players."""
    parts = nn.ModuleDict({"model": pointwise(schema, (latents, network, hidden), likelihood), "critic": mlp((latents,), (1,), critic)})
    players = {"encoder": ("model.posterior",), "decoder": ("model.likelihood",), "critic": ("critic",)}
    return Recipe(parts, adversarial_latents(weight), players, Training(optimizer=adam_half, learning_rate=1e-3, rate=RATES["constant"]), reconstruction())
