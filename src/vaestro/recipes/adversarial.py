"""Hybrids with adversaries: plays of several players."""

from torch import Tensor, nn

from vaestro.core import Shape
from vaestro.data.schema import Binary, Integer, Schema
from vaestro.errors import UsageError
from vaestro.families import default_likelihood
from vaestro.networks import convolutional
from vaestro.plays import vae_gan as vae_gan_play
from vaestro.recipes.book import Count, Recipe, Training, Weight, Widths, recipe
from vaestro.recipes.shared import Likely, Net, plain
from vaestro.schedules import RATES


class Critic(nn.Module):
    """A convolutional judge of images that also returns its features: [n, C, H, W] to ([n, features], [n] logits)."""

    def __init__(self, inputs: Shape, hidden: Widths, features: int) -> None:
        super().__init__()
        self.body, self.head = convolutional(inputs, (features,), hidden), nn.Linear(features, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The features in which a reconstruction is compared, and the logit of being real."""
        features = self.body(x)
        return features, self.head(nn.functional.silu(features))[..., 0]


@recipe(
    group="adversarial",
    paper="Larsen et al. 2016, Autoencoding beyond pixels using a learned similarity metric, algorithm 1",
    formula="encoder: KL + |f(x) - f(x~)|^2 / 2; decoder: gamma |f(x) - f(x~)|^2 / 2 - log D(x~) - log D(x_p); critic: tells real from made",
    published="none on MNIST; on CelebA attributes of its samples match better than a VAE's (table 1)",
    fits=(Binary, Integer),
)
def vae_gan(
    schema: Schema, gamma: Weight = 1.0, latents: Count = 40, network: Net = convolutional, hidden: Widths = (32, 64), likelihood: Likely = default_likelihood
) -> Recipe:
    """A VAE that reconstructs in the features of a critic, which also judges its samples: three players."""
    x = schema["x"]
    if len(x.shape) != 3:
        raise UsageError(f"vae_gan needs images, and the rows of {schema.name!r} are shaped {x.shape}; use vae or ae for vectors")
    model = plain(schema, latents, network, hidden, likelihood)
    parts = nn.ModuleDict({"model": model, "critic": Critic(x.shape, hidden, 64)})
    players = {"encoder": ("model.posterior",), "decoder": ("model.prior", "model.likelihood"), "critic": ("critic",)}
    return Recipe(parts, vae_gan_play(gamma), players, Training(learning_rate=3e-4, rate=RATES["constant"]))
