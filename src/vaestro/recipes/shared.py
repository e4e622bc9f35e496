"""What most recipes are made of: an encoder and a decoder around one latent vector."""

from typing import Annotated, TypeAlias

from torch import nn

from vaestro.conditional import Conditional
from vaestro.core import Shape
from vaestro.data.schema import Field, Schema
from vaestro.families import LIKELIHOODS, Family, Gaussian, outputs
from vaestro.families.likelihoods import Likelihood
from vaestro.models import VAE
from vaestro.networks import NETWORKS, Build
from vaestro.networks.reading import reading
from vaestro.priors import StandardNormal
from vaestro.recipes.book import Widths

Net: TypeAlias = Annotated[Build, NETWORKS]
Likely: TypeAlias = Annotated[Likelihood, LIKELIHOODS]


def build(network: Build, inputs: Shape, outputs: Shape, hidden: Widths | None) -> nn.Module:
    """The network at these widths, or at its own default ones."""
    return network(inputs, outputs) if hidden is None else network(inputs, outputs, hidden)


def reader(field: Field, network: Build, outputs: Shape, hidden: Widths | None) -> nn.Module:
    """The network at these widths as one that reads rows of `field`: counts by their logarithms."""
    return reading(field.kind, build(network, field.shape, outputs, hidden))


def encoder(field: Field, latents: int, network: Build, hidden: Widths | None, family: Family | None = None) -> Conditional:
    """q(z | x): the network read by `family`, a Gaussian unless told otherwise."""
    family = family or Gaussian()
    return Conditional(reader(field, network, (family.params * latents,), hidden), family)


def decoder(field: Field, latents: int, network: Build, hidden: Widths | None, likelihood: Likelihood) -> Conditional:
    """p(x | z): the network's mirror image, read by the likelihood that fits the field."""
    family = likelihood(field)
    return Conditional(build(network, (latents,), outputs(family, field.shape), hidden and hidden[::-1]), family)


def plain(schema: Schema, latents: int, network: Build, hidden: Widths | None, likelihood: Likelihood) -> VAE:
    """The VAE that most recipes start from: a standard normal prior and a Gaussian posterior."""
    x = schema["x"]
    return VAE(StandardNormal((latents,)), encoder(x, latents, network, hidden), decoder(x, latents, network, hidden, likelihood))
