"""Dynamics and levels: posteriors that are moved by the gradient of log p(x, z), in a flat space or in one that is learnt; codes on several grids."""

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import nn

from vaestro.codes import VectorQuantiser
from vaestro.codes.levels import LevelQuantiser
from vaestro.data.schema import Field, Real, Schema
from vaestro.families import default_likelihood
from vaestro.families.binned import Binned
from vaestro.models import VAE
from vaestro.models.hamiltonian import Bend, FlatSpace, HamiltonianVAE, LearntSpace
from vaestro.models.levels import grids, levelled
from vaestro.models.refined import exact, straight
from vaestro.networks import Build, mlp
from vaestro.objectives import elbo
from vaestro.plays import alone
from vaestro.posteriors.hamiltonian import LONGEST, Leapfrog
from vaestro.recipes.book import Count, Positive, Recipe, Weight, Widths, recipe, solo
from vaestro.recipes.discrete import Decay, Several, Share, book
from vaestro.recipes.shared import Likely, Net, plain, reader

Steps = Annotated[int, Ge(0)]
Size = Annotated[float, Gt(0), Lt(LONGEST)]
Heat = Annotated[float, Gt(0), Le(1)]


def moved(model: VAE, leapfrog: Leapfrog, space: nn.Module) -> HamiltonianVAE:
    """The VAE with dynamics; forces are differentiated, but not those of masses of bins, which do not differentiate twice at their ends."""
    slope = straight if isinstance(model.likelihood.family, Binned) else exact
    return HamiltonianVAE((model.prior, model.posterior, model.likelihood), leapfrog, space, slope)


def learnt(field: Field, model: VAE, centres: int, sizes: tuple[int, Build, Widths | None], bend: Bend) -> LearntSpace:
    """The space around the encodings of `centres` rows, its triangles from a network like the encoder's."""
    latents, network, hidden = sizes
    net = reader(field, network, (latents * (latents + 1) // 2,), hidden)
    rows = torch.randn(centres, *field.shape) if isinstance(field.kind, Real) else torch.rand(centres, *field.shape)
    return LearntSpace(model.posterior, net, rows, latents, bend)


@recipe(
    group="dynamics",
    paper="Caterini, Doucet & Sejdinovic 2018, Hamiltonian Variational Auto-Encoder, algorithm 1",
    formula="E[log p(x, z_K) + log N(r_K; 0, I) - log q(z_0|x) - log N(r_0; 0, I / b_0)] + D log(b_0) / 2, (z_K, r_K) from (z_0, r_0) by K tempered leaps",
    published="none that is copied here: the paper's are of a convolutional network on static MNIST",
)
def hamiltonian_vae(
    schema: Schema,
    steps: Steps = 3,
    size: Size = 0.05,
    tempering: Heat = 0.3,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """A VAE whose draws are moved by `steps` leaps of Hamiltonian dynamics; their `size` and `tempering` (1: none) are where learning starts."""
    model = plain(schema, latents, network, hidden, likelihood)
    return solo(moved(model, Leapfrog(latents, steps, size, tempering), FlatSpace()), alone(elbo()))


@recipe(
    group="dynamics",
    paper="Chadebec, Mantoux & Allassonniere 2020, Geometry-Aware Hamiltonian Variational Auto-Encoder; Chadebec et al. 2022, Data Augmentation in High "
    "Dimensional Low Sample Size Setting Using a Geometry-Based Variational Autoencoder",
    formula="the bound of hamiltonian_vae with momenta N(0, G(z)), G(z)^-1 = sum_i L_i L_i' exp(-|z - c_i|^2 / width^2) + floor I, c_i the encodings of rows",
    published="none that is copied here: the papers' are of few rows, or of other networks",
)
def riemannian_vae(
    schema: Schema,
    steps: Steps = 3,
    size: Size = 0.02,
    tempering: Heat = 0.3,
    centres: Count = 100,
    width: Positive = 0.8,
    floor: Positive = 0.1,
    rounds: Count = 8,
    latents: Count = 10,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """A Hamiltonian VAE in a space whose metric is learnt around the encodings of `centres` rows: leaps follow the data. For few latents."""
    model = plain(schema, latents, network, hidden, likelihood)
    space = learnt(schema["x"], model, centres, (latents, network, hidden), Bend(width, floor, rounds)) if steps else FlatSpace()
    return solo(moved(model, Leapfrog(latents, steps, size, tempering), space), alone(elbo()))


@recipe(
    group="dynamics",
    paper="Razavi, van den Oord & Vinyals 2019, Generating Diverse High-Fidelity Images with VQ-VAE-2, algorithm 1",
    formula="log p(x) >= log p(x | e_1..L) - n log K over the n places of all levels, each level's codes nearest to what x and the levels above say",
    published="none on these data: its paper reports Frechet distances and classifiers of ImageNet at 256 pixels",
)
def vq_vae_2(
    schema: Schema,
    levels: Count = 2,
    codes: Several = 512,
    dimension: Count = 64,
    commitment: Weight = 0.25,
    decay: Decay | None = 0.99,
    revive: Share = 0.03,
    hidden: Widths = (32, 64, 64),
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """A VQ-VAE with codes on `levels` grids, each half of the next: the top says what a picture shows, the lowest its strokes; a halving for each width."""
    x = schema["x"]
    quantisers = [VectorQuantiser([book(codes, dimension, decay, revive)], grid, commitment) for grid in grids(x, hidden, levels)]
    return solo(levelled(x, LevelQuantiser(quantisers), hidden, likelihood), alone(elbo()))
