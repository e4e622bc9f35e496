"""The four introductory listings as they were meant; docs/listings.md tells where each of the originals slips."""

import math
from dataclasses import replace

from torch import nn

from vaestro.conditional import Conditional
from vaestro.core import Shape
from vaestro.data.schema import Binary, Field, Schema
from vaestro.errors import UsageError
from vaestro.families import LIKELIHOODS, Gaussian, outputs
from vaestro.models import VAE
from vaestro.networks.convolutional import Enlarged
from vaestro.objectives import elbo
from vaestro.plays import alone
from vaestro.priors import StandardNormal
from vaestro.recipes.book import NUMBERS, Count, Recipe, Training, Weight, recipe, solo
from vaestro.schedules import RATES

PLAIN = Training(learning_rate=1e-3, rate=RATES["constant"])  # Adam as the listings use it


class Layers(nn.Sequential):
    """Layers in a row, as the listings write them; `event_dims` is the number of axes of one input."""

    def __init__(self, event_dims: int, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.event_dims = event_dims


def images(name: str, schema: Schema) -> Field:
    """The field x, which these listings need to be images."""
    x = schema["x"]
    if len(x.shape) != 3:
        raise UsageError(f"{name} needs images, and the rows of {schema.name!r} are shaped {x.shape}; use vae, which takes any shape")
    return x


def fill(width: int, shape: Shape) -> list[nn.Module]:
    """A linear layer from `width` numbers to a whole `shape`."""
    return [nn.Linear(width, math.prod(shape)), nn.Unflatten(-1, shape)]


def assemble(latents: int, encoder: nn.Module, likelihood: Conditional, beta: float = 1.0) -> Recipe:
    """The listing's VAE, with a standard normal prior and a diagonal Gaussian posterior, trained on the ELBO."""
    model = VAE(StandardNormal((latents,)), Conditional(encoder, Gaussian()), likelihood)
    return replace(solo(model, alone(elbo(beta))), training=PLAIN)


@recipe(
    group="listings",
    paper="introductory listing 1; Kingma & Welling 2014, eq. 3",
    formula="E_q[log Bernoulli(x | sigmoid(W z + b))] - KL(q(z|x) || N(0, I))",
    published="none: the listing names no loss, optimiser or latent size",
    fits=(Binary,),
)
def listing_dense(schema: Schema, latents: Count = 16) -> Recipe:
    """One linear layer each way, no hidden layer: flattened pixels to mean and variance, latents to Bernoulli pixels."""
    x = images("listing_dense", schema)
    family = LIKELIHOODS["bernoulli"](x)
    encoder = Layers(3, nn.Flatten(-3), nn.Linear(x.size, 2 * latents))
    decoder = Layers(1, *fill(latents, outputs(family, x.shape)))
    return assemble(latents, encoder, Conditional(decoder, family))


@recipe(
    group="listings",
    paper="introductory listing 2; Higgins et al. 2017, eq. 4",
    formula="E_q[log N(x; mu(z), sigma(z)^2)] - beta KL(q(z|x) || N(0, I)); on pixels, the mass of their bin",
    published="none",
    fits=NUMBERS,
)
def listing_conv(schema: Schema, latents: Count = 16, beta: Weight = 1.0) -> Recipe:
    """Unpadded 3x3 convolutions of 32 and 64 filters, dense 128; a Gaussian likelihood with a learned variance for each pixel."""
    x = images("listing_conv", schema)
    channels, height, width = x.shape
    if min(height, width) < 5:
        raise UsageError(f"listing_conv needs images of 5x5 or larger for its two unpadded 3x3 convolutions, and these are {height}x{width}")
    family = LIKELIHOODS["gaussian"](x)
    flat = 64 * (height - 4) * (width - 4)
    encoder = Layers(
        3, nn.Conv2d(channels, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Flatten(-3), nn.Linear(flat, 128), nn.ReLU(), nn.Linear(128, 2 * latents)
    )
    decoder = Layers(1, nn.Linear(latents, 128), nn.ReLU(), *fill(128, outputs(family, x.shape)))
    return assemble(latents, encoder, Conditional(decoder, family), beta)


@recipe(
    group="listings",
    paper="introductory listing 3; Kingma & Welling 2014, eq. 3",
    formula="E_q[log Bernoulli(x | z)] - KL(q(z|x) || N(0, I)), pixels and latents both summed",
    published="none",
    fits=(Binary,),
)
def listing_mnist(schema: Schema, latents: Count = 20) -> Recipe:
    """Strided convolutions of 32 and 64 filters, dense 16; back through dense layers and resized convolutions to Bernoulli pixels."""
    x = images("listing_mnist", schema)
    family = LIKELIHOODS["bernoulli"](x)
    channels, height, width = x.shape
    half = (math.ceil(height / 2), math.ceil(width / 2))
    small = (64, math.ceil(half[0] / 2), math.ceil(half[1] / 2))
    down = [nn.Conv2d(channels, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(-3)]
    encoder = Layers(3, *down, nn.Linear(math.prod(small), 16), nn.ReLU(), nn.Linear(16, 2 * latents))
    up = [Enlarged(nn.Conv2d(64, 64, 3, padding=1), half), nn.ReLU(), Enlarged(nn.Conv2d(64, 32, 3, padding=1), (height, width)), nn.ReLU()]
    decoder = Layers(1, nn.Linear(latents, 16), nn.ReLU(), *fill(16, small), nn.ReLU(), *up, nn.Conv2d(32, family.params * channels, 3, padding=1))
    return assemble(latents, encoder, Conditional(decoder, family))


@recipe(
    group="listings",
    paper="introductory listing 4; squared error as the Gaussian that it is: Rybkin et al. 2021 (sigma-VAE), section 3",
    formula="E_q[log N(x; mu(z), 1)] - beta KL(q(z|x) || N(0, I)); on pixels, the mass of their bin",
    published="none; about 12 principal directions of grey MNIST exceed unit variance, so most of the 256 latents must collapse",
    fits=NUMBERS,
)
def listing_mse(schema: Schema, latents: Count = 256, beta: Weight = 1.0) -> Recipe:
    """Dense 128 each way and squared error, a Gaussian of fixed scale 1 around a sigmoid mean: the control for posterior collapse."""
    x = images("listing_mse", schema)
    family = LIKELIHOODS["gaussian_fixed"](x)
    encoder = Layers(3, nn.Flatten(-3), nn.Linear(x.size, 128), nn.ReLU(), nn.Linear(128, 2 * latents))
    decoder = Layers(1, nn.Linear(latents, 128), nn.ReLU(), *fill(128, outputs(family, x.shape)), nn.Sigmoid())
    recipe = assemble(latents, encoder, Conditional(decoder, family), beta)
    return replace(recipe, training=replace(PLAIN, batch=32))
