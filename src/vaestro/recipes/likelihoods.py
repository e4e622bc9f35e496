"""Decoders that do more than predict each number by itself."""

from typing import Annotated

from vaestro.data.schema import Field, Schema
from vaestro.errors import UsageError
from vaestro.families import default_likelihood
from vaestro.families.pixels import Pixels
from vaestro.models import VAE
from vaestro.networks import convolutional
from vaestro.priors import PRIORS, Prior, standard_normal
from vaestro.recipes.book import NUMBERS, Count, Fraction, Recipe, Widths, recipe
from vaestro.recipes.shared import Likely, Net, decoder, encoder, warmed


@recipe(
    group="likelihoods",
    paper="Gulrajani et al. 2017, PixelVAE, section 3; Chen et al. 2017, Variational Lossy Autoencoder, section 3.1",
    formula="log p(x) >= E_q(z|x)[sum_i log p(x_i | x_<i, z)] - KL(q(z|x) || p(z))",
    published="79.03 nats, static MNIST (VLAE, Chen et al. 2017, table 1, with a flow prior); 78.45 dynamic, PixelHVAE with a VampPrior of two levels",
    fits=NUMBERS,
)
def pixel_vae(
    schema: Schema,
    latents: Count = 40,
    network: Net = convolutional,
    hidden: Widths | None = None,
    masked: Widths = (32, 32, 32, 32),
    kernel: Count = 5,
    likelihood: Likely = default_likelihood,
    prior: Annotated[Prior, PRIORS] = standard_normal,
    warm_up: Fraction = 0.2,
) -> Recipe:
    """A VAE whose decoder draws a picture pixel by pixel: z says what it shows, layers of `masked` channels and a small `kernel` draw its strokes."""
    x = schema["x"]
    if len(x.shape) == 3 and min(x.shape[1:]) < 2:
        raise UsageError(f"pixel_vae needs pictures of 2x2 pixels or more, whose pixels have neighbours, and these are {x.shape[1]}x{x.shape[2]}; use vae")

    def pixels(field: Field) -> Pixels:
        return Pixels(likelihood(field), field.shape, hidden=masked, kernel=kernel)

    px, qz = decoder(x, latents, network, hidden, pixels), encoder(x, latents, network, hidden)
    return warmed(VAE(prior(latents, qz, x), qz, px), warm_up)
