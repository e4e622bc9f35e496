"""VAEs that also mind how their reconstructions look."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, TypeAlias

from torch import nn

from vaestro.data.schema import Binary, Integer, Schema
from vaestro.errors import UsageError
from vaestro.families import default_likelihood
from vaestro.families.perceptual import FeatureDistance, FocalFrequency, MsSsim
from vaestro.networks import convolutional
from vaestro.networks.judge import JudgeMaps, load
from vaestro.plays.perceptual import beside
from vaestro.recipes.book import Count, Positive, Recipe, Widths, recipe, solo
from vaestro.recipes.shared import Likely, Net, plain
from vaestro.registry import Registry

Far: TypeAlias = Callable[[Schema], nn.Module]  # the data to a module of two pictures
DISTANCES: Registry[Far] = Registry("distance")


@DISTANCES.register
def ms_ssim(schema: Schema) -> nn.Module:
    """C H W (1 - MS-SSIM): contrast and structure at several scales (Wang et al. 2003, eq. 7)."""
    return MsSsim()


@DISTANCES.register
def focal_frequency(schema: Schema) -> nn.Module:
    """The squared error of each frequency, the worst ones weighing most (Jiang et al. 2021)."""
    return FocalFrequency()


@DISTANCES.register
def features(schema: Schema) -> nn.Module:
    """The squared error in the layers of the judge network of the data (Johnson et al. 2016, eq. 2); raises UsageError for data without one."""
    return FeatureDistance(JudgeMaps(load(schema.name)))


@recipe(
    group="perceptual",
    paper="Snell et al. 2017 (MS-SSIM of Wang et al. 2003, eq. 7); Hou et al. 2017 (features, Johnson et al. 2016, eq. 2); Jiang et al. 2021, section 3.3",
    formula="E_q[log p(x|z)] - KL(q(z|x) || p(z)) - weight E_q[d(x, x'(z))], x' the centre of p(x|z)",
    published="none on MNIST; people prefer reconstructions trained by MS-SSIM to those by squared error (Snell et al. 2017)",
    fits=(Binary, Integer),
)
def perceptual_vae(
    schema: Schema,
    distance: Annotated[Far, DISTANCES] = ms_ssim,
    weight: Positive = 1.0,
    latents: Count = 40,
    network: Net = convolutional,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """A VAE that also minds how its reconstructions look; its density, and the bound that is reported, stay those of a VAE."""
    x = schema["x"]
    if len(x.shape) != 3:
        raise UsageError(f"perceptual_vae needs images, and the rows of {schema.name!r} are shaped {x.shape}; use vae for vectors")
    made = solo(plain(schema, latents, network, hidden, likelihood), beside(weight))
    return replace(made, parts=nn.ModuleDict({"model": made.model, "distance": distance(schema)}))
