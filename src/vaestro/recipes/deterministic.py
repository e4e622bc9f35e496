"""Autoencoders that are kept from copying: by noise, by charges on their slopes or codes, by restraint of the decoder; and a second stage for codes."""

from collections.abc import Callable
from typing import Annotated, NamedTuple

from annotated_types import Gt, Lt
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from vaestro.conditional import Conditional
from vaestro.data.schema import Schema
from vaestro.errors import UsageError
from vaestro.families import Gaussian, SharedGaussian, default_likelihood
from vaestro.families.point import UnitPoint
from vaestro.models import VAE
from vaestro.models.two_stage import TwoStage
from vaestro.networks import mlp
from vaestro.objectives import elbo, reconstruction
from vaestro.objectives.regularisers import NORMS, Norm, absolute_codes, decoder_slope, hutchinson, rarely_on, squared_codes
from vaestro.plays import alone
from vaestro.plays.classes import stacked
from vaestro.plays.denoising import NOISES, Spoiler, denoising, masking
from vaestro.plays.regularised import Charge, Weighed, contractive, decay, of_trace, regularised, twice
from vaestro.priors import StandardNormal
from vaestro.recipes.book import Count, Recipe, Weight, Widths, recipe, solo
from vaestro.recipes.shared import Likely, Net, plain
from vaestro.recipes.wasserstein import NO_DENSITY, pointwise
from vaestro.registry import Registry

FREE = "nothing makes its codes follow the prior that it draws from"
LACKS = {**NO_DENSITY, "prior": FREE}
Inside = Annotated[float, Gt(0), Lt(1)]
DECODER = "likelihood.net"
ESTIMATED = NORMS["estimated"]


@recipe(
    group="deterministic",
    paper="Vincent et al. 2008, Extracting and Composing Robust Features with Denoising Autoencoders, section 2.3",
    formula="max log p(x | z = f(x~)), x~ a spoilt x",
    published="none with a density or a reconstruction error: the paper reports errors of classifiers that start from it",
    lacks=LACKS,
)
def denoising_ae(
    schema: Schema,
    noise: Annotated[Spoiler, NOISES] = masking,
    strength: Weight = 0.25,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """An autoencoder that reads rows spoilt by `noise` and must restore the clean ones."""
    spoil = noise(schema["x"], strength)
    return solo(pointwise(schema, (latents, network, hidden), likelihood), denoising(reconstruction(), spoil), reconstruction())


@recipe(
    group="deterministic",
    paper="Im et al. 2017, Denoising Criterion for Variational Auto-Encoding Framework, section 3",
    formula="E over x~ of E_q(z|x~)[log p(x|z)] - KL(q(z|x~) || p(z))",
    published="none that is copied here: the paper's own tables compare noise levels on MNIST and Frey faces",
)
def denoising_vae(
    schema: Schema,
    noise: Annotated[Spoiler, NOISES] = masking,
    strength: Weight = 0.05,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """A VAE whose encoder reads rows spoilt by `noise` in training; validation and evaluation let it read the clean ones, as any VAE."""
    return solo(plain(schema, latents, network, hidden, likelihood), denoising(elbo(), noise(schema["x"], strength)))


@recipe(
    group="deterministic",
    paper="Rifai et al. 2011, Contractive Auto-Encoders, eq. 1; its decoder is tied to the encoder where this one is charged for its weights",
    formula="-log p(x | z = f(x)) + `weight` |df/dx|_F^2 + `decay` |theta_decoder|^2",
    published="none with a density or a reconstruction error: the paper reports errors of classifiers that start from it",
    lacks=LACKS,
)
def contractive_ae(
    schema: Schema,
    weight: Weight = 0.1,
    decay: Weight = 1e-3,
    jacobian: Annotated[Norm, NORMS] = ESTIMATED,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """An autoencoder whose codes change little where rows change little; `jacobian=exact` takes as many passes as there are latents, `estimated` one."""
    play = contractive(reconstruction(), jacobian, weight, small_decoder(decay))
    return solo(pointwise(schema, (latents, network, hidden), likelihood), play, reconstruction())


@recipe(
    group="deterministic",
    paper="Ng 2011, CS294A lecture notes, Sparse autoencoder, section 3; with an L1 norm, as the penalty of Olshausen & Field 1997",
    formula="-log p(x | z = f(x)) + `weight` sum_j KL(`target` || mean_b z_j) + `decay` |theta_decoder|^2, z in (0, 1); for `target=none` |z|_1 in its place",
    published="none: the notes show filters",
    lacks=LACKS,
)
def sparse_ae(
    schema: Schema,
    target: Inside | None = 0.05,
    weight: Weight = 1.0,
    decay: Weight = 1e-3,
    latents: Count = 100,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """An autoencoder whose latents, numbers in (0, 1), are each on for a share `target` of the rows; with `target=none` as seldom as their L1 norm says."""
    model = plain(schema, latents, network, hidden, likelihood, UnitPoint())
    sparsity = of_trace(absolute_codes if target is None else rarely_on(target))
    return solo(model, regularised(reconstruction(), {"sparsity": Weighed(weight, sparsity), **small_decoder(decay)}), reconstruction())


def small_decoder(weight: float) -> dict[str, Weighed]:
    """The charge for the decoder's weights: without it, small codes and a steep decoder would do as well as large codes, and pay nothing."""
    return {"decay": Weighed(weight, decay(DECODER))}


class Restraint(NamedTuple):
    """How a decoder is kept smooth: a change of its network, or a charge with its usual weight."""

    charge: Charge | None = None
    usual: float = 0.0
    change: Callable[[nn.Module], None] = lambda net: None


def unit_norms(net: nn.Module) -> None:
    """Divides the weight of every linear and convolutional layer by its largest singular value, followed by power iteration (Miyato et al. 2018, eq. 8)."""
    for layer in [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)]:
        spectral_norm(layer)


RESTRAINTS: Registry[Restraint] = Registry("restraint of a decoder")
RESTRAINTS.add("l2", Restraint(decay(DECODER), 1e-3))
RESTRAINTS.add("gradient", Restraint(twice(of_trace(decoder_slope(hutchinson()))), 1e-3))
RESTRAINTS.add("spectral", Restraint(change=unit_norms))


@recipe(
    group="deterministic",
    paper="Ghosh et al. 2020, From Variational to Deterministic Autoencoders, section 3",
    formula="-log p(x | z = f(x)) + `beta` |z|^2 / 2 + `weight` R, R the decoder's |theta|^2 (l2) or |dE[x|z]/dz|_F^2 (gradient); spectral: unit norms",
    published="Frechet distance 9.9 (l2) and 9.4 (gradient) on MNIST with a fitted mixture of 10 Gaussians; pythae's rerun 9.1 and 9.7: Inception features",
    lacks=LACKS,
)
def rae(
    schema: Schema,
    beta: Weight = 0.01,
    restraint: Annotated[Restraint, RESTRAINTS] = RESTRAINTS["l2"],
    weight: Weight | None = None,
    latents: Count = 16,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """An autoencoder with small codes and a smooth decoder, to whose codes a prior is fitted afterwards: `vaestro fit-prior RUN gmm:components=10`."""
    if restraint.charge is None and weight is not None:
        raise UsageError("rae: this restraint bounds the decoder and charges nothing, so it has no weight; leave weight out, or use l2 or gradient")
    model = pointwise(schema, (latents, network, hidden), likelihood)
    restraint.change(model.get_submodule(DECODER))
    charges = {"codes": Weighed(beta, of_trace(squared_codes))}
    if restraint.charge is not None:
        charges["restraint"] = Weighed(restraint.usual if weight is None else weight, restraint.charge)
    return solo(model, regularised(reconstruction(), charges), reconstruction())


@recipe(
    group="deterministic",
    paper="Dai & Wipf 2019, Diagnosing and Enhancing VAE Models, section 4",
    formula="first log p(x) >= E[log p(x|z)] - KL(q(z|x) || N(0, I)); then, that fixed, log p(z) >= E[log p(z|u)] - KL(q(u|z) || N(0, I)) on draws of q(z|x)",
    published="Frechet distance 12.6 on MNIST, 72.9 on CIFAR-10 and 44.4 on CelebA in the paper's own protocol: Inception features, convolutional nets",
)
def two_stage(
    schema: Schema,
    first: Inside = 0.7,
    upper: Count | None = None,
    width: Count = 300,
    latents: Count = 40,
    network: Net = mlp,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """A VAE, trained for the share `first` of the steps, then a second VAE of `upper` latents (none: as many) on its latents: two players."""
    top, layers = upper or latents, (width, width)
    q = Conditional(mlp((latents,), (2 * top,), layers), Gaussian())
    second = VAE(StandardNormal((top,)), q, Conditional(mlp((top,), (latents,), layers), SharedGaussian()))
    parts = nn.ModuleDict({"model": TwoStage(plain(schema, latents, network, hidden, likelihood), second)})
    return Recipe(parts, stacked(alone(elbo()), alone(elbo()), first), {"m1": ("model.m1",), "m2": ("model.m2",)}, settled=first)
