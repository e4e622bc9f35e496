"""The rows that every board compares with: fitted at once from the training rows, without a step of training."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from torch import Tensor, nn

from vaestro.core import Model
from vaestro.data.schema import Schema
from vaestro.models.classical import (
    Clusters,
    Coded,
    Direct,
    Linear,
    Marginals,
    Stored,
    by_kernel,
    by_share,
    factors,
    fit_copies,
    fit_k_means,
    fit_kernels,
    fit_marginals,
    fit_mixture,
    itself,
    kernel,
    nearest,
    nothing_to_fit,
    png_coder,
    principal,
    to_nearest,
    zlib_coder,
)
from vaestro.models.classical.direct import FITS
from vaestro.objectives import elbo
from vaestro.objectives.likeness import squared_error
from vaestro.plays import still
from vaestro.recipes.book import NUMBERS, Count, Recipe, recipe

M = TypeVar("M", bound=Model)
FILES = {"samples": "a compressor makes no rows", "reconstruction": "it has no posterior, so no row has latents"}


def at_once(model: M, fit: Callable[[M, Tensor, Tensor], None]) -> Recipe:
    """A recipe whose model `fit` makes from rows to learn from and held-out ones; its numbers count as parameters, and nobody moves them."""

    def fitted(parts: nn.ModuleDict, rows: Tensor, held: Tensor) -> None:
        fit(parts["model"], rows, held)  # type: ignore[arg-type]

    players = {"model": ("model",)} if any(True for _ in model.parameters()) else {}
    return Recipe(nn.ModuleDict({"model": model}), still, players, score=elbo(), fit=fitted)


@recipe(
    group="classical",
    paper="Tipping & Bishop 1999, Probabilistic Principal Component Analysis, eqs 7 and 8",
    formula="x = W z + mean + noise, z ~ N(0, I), noise ~ N(0, s^2 I): x ~ N(mean, W W^T + s^2 I); on levels, the mass of the box around x",
    published="none in nats on pictures",
    fits=NUMBERS,
)
def ppca(schema: Schema, latents: Count = 40) -> Recipe:
    """Probabilistic PCA: `latents` linear latents and one scale of noise, in closed form; the posterior is exact on real numbers."""
    return at_once(Linear(schema["x"], latents, principal), Linear.fit)


@recipe(
    group="classical",
    paper="Rubin & Thayer 1982, EM Algorithms for ML Factor Analysis; Bishop 2006, eqs 12.66 to 12.69",
    formula="x = W z + mean + noise, z ~ N(0, I), noise ~ N(0, diag psi): x ~ N(mean, W W^T + diag psi); on levels, the mass of the box around x",
    published="none in nats on pictures",
    fits=NUMBERS,
)
def factor_analysis(schema: Schema, latents: Count = 40) -> Recipe:
    """Factor analysis: `latents` linear latents, and noise of a scale of its own for every number; the posterior is exact on real numbers."""
    return at_once(Linear(schema["x"], latents, factors), Linear.fit)


@recipe(
    group="classical",
    paper="Dempster, Laird & Rubin 1977, Maximum Likelihood from Incomplete Data via the EM Algorithm; Bishop 2006, sections 9.2 and 9.3.3",
    formula="p(x) = sum_c p(c) prod_d p(x_d | c): Bernoullis on binary data, Gaussians on real numbers, the masses of their bins on levels",
    published="none under our protocol",
    fits=NUMBERS,
)
def mixture(schema: Schema, components: Count = 50) -> Recipe:
    """A mixture of at most `components` laws of independent numbers, by expectation maximisation; its posterior, and so its likelihood, is exact."""
    return at_once(Clusters(schema["x"], min(components, schema.rows["train"]), by_share), fit_mixture)


@recipe(
    group="classical",
    paper="Lloyd 1982, Least Squares Quantization in PCM; Bishop 2006, section 9.1",
    formula="c(x) = argmin_c |x - mean_c|^2; -log p(x) <= -log p(c(x)) - log p(x | c(x)), p(x | c) a Gaussian of one scale for all, on binary data Bernoullis",
    published="none in nats",
    fits=NUMBERS,
)
def k_means(schema: Schema, components: Count = 50) -> Recipe:
    """K-means: each row is the mean of its cluster; with the clusters' shares and one scale that bounds a likelihood, from the nearest cluster alone."""
    return at_once(Clusters(schema["x"], min(components, schema.rows["train"]), nearest), fit_k_means)


@recipe(
    group="classical",
    paper="Parzen 1962, On Estimation of a Probability Density Function and Mode; on binary data the kernel of Aitchison & Aitken 1976",
    formula="p(x) = 1/N sum_n prod_d exp(-(x_d - x_nd)^2 / 2 h^2) / Z(x_nd), Z an integral, or a sum over the levels",
    published="none of ours: the Parzen estimates of samples that papers report rank models wrongly (Theis et al. 2016)",
    fits=NUMBERS,
)
def kernel_density(schema: Schema, rows: Count = 5000) -> Recipe:
    """A kernel around each of at most `rows` training rows, as wide as validation rows like it best; the likelihood is exact."""
    return at_once(Stored(schema["x"], min(rows, schema.rows["train"]), kernel, by_kernel), fit_kernels)


@recipe(
    group="classical",
    paper="Cover & Hart 1967, Nearest Neighbor Pattern Classification",
    formula="x = x_n, n one of N stored training rows; a row's reconstruction is its nearest neighbour among them",
    published="none: it shows what copying looks like in each column",
    fits=NUMBERS,
    lacks={"density": "it makes stored rows and no others, so no new row has a density"},
)
def copier(schema: Schema, rows: Count = 5000) -> Recipe:
    """Hands out at most `rows` training rows as its own samples, and the nearest of them as a reconstruction."""
    found = at_once(Stored(schema["x"], min(rows, schema.rows["train"]), itself, to_nearest), fit_copies)
    return replace(found, score=squared_error, unit="unit values squared of its nearest rows")


@recipe(
    group="classical",
    paper="Laplace 1814 (the rule of succession)",
    formula="p(x) = prod_d p(x_d): shares of levels, each counted once more than it occurred; a Gaussian on real numbers",
    published="none under our protocol",
    fits=NUMBERS,
    lacks={"reconstruction": "it has no posterior, so no row has latents"},
)
def marginals(schema: Schema) -> Recipe:
    """Every number on its own, whatever the others are: what any model should beat."""
    return at_once(Direct(Marginals(schema["x"])), fit_marginals)


@recipe(
    group="classical",
    paper="ISO/IEC 15948:2004, Portable Network Graphics; Kraft 1949",
    formula="-log p(x) = 8 ln 2 bytes(x) nats: the length of the compressed pixels, decoded again and compared",
    published="none under our protocol",
    fits=FITS,
    lacks=FILES,
)
def png(schema: Schema) -> Recipe:
    """The length of a PNG file of each row, without its fixed header: a verified number, and an upper bound, for files waste codes."""
    return at_once(Direct(Coded(schema["x"], png_coder)), nothing_to_fit)


@recipe(
    group="classical",
    paper="Deutsch & Gailly 1996, RFC 1950; Ziv & Lempel 1977",
    formula="-log p(x) = 8 ln 2 bytes(x) nats: the length of the compressed row, decoded again and compared",
    published="none under our protocol",
    fits=FITS,
    lacks=FILES,
)
def zlib(schema: Schema) -> Recipe:
    """The length of each row's numbers as zlib packs them: a verified number, and an upper bound, for files waste codes."""
    return at_once(Direct(Coded(schema["x"], zlib_coder)), nothing_to_fit)
