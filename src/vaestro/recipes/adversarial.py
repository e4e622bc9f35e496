"""Models with adversaries: plays of several players."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from vaestro.core import Shape
from vaestro.data.schema import Binary, Integer, Schema
from vaestro.errors import UsageError
from vaestro.families import Family, Gaussian, Point, default_likelihood, generated
from vaestro.models import Implicit
from vaestro.networks import by_shape, convolutional, mlp
from vaestro.objectives.likeness import energy, squared_error
from vaestro.optimizers import adam_half
from vaestro.plays import vae_gan as vae_gan_play
from vaestro.plays.adversarial import bigan as bigan_play
from vaestro.plays.adversarial import gan as gan_play
from vaestro.plays.introspective import Betas, soft_intro
from vaestro.priors import StandardNormal
from vaestro.recipes.book import NUMBERS, Count, Positive, Recipe, Training, Weight, Widths, recipe
from vaestro.recipes.shared import Likely, Net, build, decoder, plain
from vaestro.schedules import RATES

GAME = Training(adam_half, learning_rate=1e-3, rate=RATES["constant"], batch=64, ema=0.999)  # a game ends nowhere in particular: its average is judged


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


@recipe(
    group="adversarial",
    paper="Goodfellow et al. 2014, Generative Adversarial Nets, eq. 1 and section 3 (the loss that does not saturate); R1: Mescheder et al. 2018, eq. 9",
    formula="critic: -log D(x) - log(1 - D(G(z))) + penalty/2 |grad D(x)|^2; generator: -log D(G(z)), z ~ p(z)",
    published="none in nats: the paper's 225 +- 2 on MNIST (table 1) is a Parzen-window estimate, which ranks models wrongly (Theis et al. 2016)",
    fits=NUMBERS,
    lacks={"density": "its generator makes points, so no row has a density", "reconstruction": "it has no posterior, so no row has latents"},
)
def gan(schema: Schema, latents: Count = 64, network: Net = by_shape, hidden: Widths | None = None, penalty: Weight = 1.0) -> Recipe:
    """A generative adversarial network, which VAEs are compared with: it samples, and that is all. `penalty` holds the critic's slope at the data (R1)."""
    x = schema["x"]
    model = Implicit(StandardNormal((latents,)), decoder(x, latents, network, hidden, generated))
    parts = nn.ModuleDict({"model": model, "critic": build(network, x.shape, (1,), hidden)})
    players = {"critic": ("critic",), "generator": ("model",)}
    return Recipe(parts, gan_play(penalty), players, GAME, energy, unit="unit values of energy distance")


class PairCritic(nn.Module):
    """A judge of pairs: the features of x beside z, then dense layers; ([n, *shape], [n, latents]) to [n] logits."""

    def __init__(self, body: nn.Module, features: int, latents: int) -> None:
        super().__init__()
        self.body, self.head = body, mlp((features + latents,), (1,), (features, features))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """The logit of being (x, E(x)), not (G(z), z)."""
        logits: Tensor = self.head(torch.cat([nn.functional.silu(self.body(x)), z], -1))[..., 0]
        return logits


def paired(schema: Schema, family: Family, latents: int, network: Net, hidden: Widths | None, penalty: float) -> Recipe:
    """An encoder that ends in `family` and a generator against a critic of pairs."""
    x, features = schema["x"], 128
    model = plain(schema, latents, network, hidden, generated, family)
    critic = PairCritic(build(network, x.shape, (features,), hidden), features, latents)
    parts, players = nn.ModuleDict({"model": model, "critic": critic}), {"critic": ("critic",), "model": ("model",)}
    return Recipe(parts, bigan_play(penalty), players, GAME, squared_error, unit="squared unit values a row")


@recipe(
    group="adversarial",
    paper="Donahue et al. 2017, Adversarial Feature Learning, eq. 2 to 4",
    formula="critic: -log D(x, E(x)) - log(1 - D(G(z), z)) + penalty/2 R1; encoder and generator: -log(1 - D(x, E(x))) - log D(G(z), z)",
    published="none in nats; by nearest neighbours its codes tell MNIST's digits nearly as well as an autoencoder's (section 4)",
    fits=NUMBERS,
    lacks={"density": "its generator makes points, so no row has a density"},
)
def bigan(schema: Schema, latents: Count = 50, network: Net = by_shape, hidden: Widths | None = None, penalty: Weight = 1.0) -> Recipe:
    """A GAN with an encoder: the critic sees pairs of a row and a code, so that the encoder must invert the generator. Nothing compares pixels."""
    return paired(schema, Point(), latents, network, hidden, penalty)


@recipe(
    group="adversarial",
    paper="Dumoulin et al. 2017, Adversarially Learned Inference, eq. 2",
    formula="as bigan, with z ~ q(z|x) in place of E(x)",
    published="none on MNIST, and none in nats",
    fits=NUMBERS,
    lacks={"density": "its generator makes points, so no row has a density"},
)
def ali(schema: Schema, latents: Count = 50, network: Net = by_shape, hidden: Widths | None = None, penalty: Weight = 1.0) -> Recipe:
    """A BiGAN whose encoder draws from a Gaussian q(z|x)."""
    return paired(schema, Gaussian(), latents, network, hidden, penalty)


@recipe(
    group="adversarial",
    paper="Daniel & Tamar 2021, Soft-IntroVAE, eq. 3 and algorithm 1",
    formula="encoder: s (rec L(x) + kl KL(x)) + adversary/2 E exp(-2s (rec L(x') + neg KL(x'))); decoder: s (rec L(x) + adversary E kl KL(x')); s = 1/dims",
    published="none on MNIST; on CelebA-HQ and FFHQ at 256 x 256 Frechet distances below those of earlier VAEs",
    fits=NUMBERS,
)
def soft_intro_vae(
    schema: Schema,
    rec: Positive = 1.0,
    kl: Positive = 1.0,
    neg: Weight = 256.0,
    adversary: Weight = 1.0,
    latents: Count = 32,
    network: Net = by_shape,
    hidden: Widths | None = None,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """A VAE whose encoder tells what the decoder made by its bound, with no critic beside it; without an `adversary` (0) it is a VAE of two players."""
    model = plain(schema, latents, network, hidden, likelihood)
    play = soft_intro(schema["x"].size, Betas(rec, kl, neg), adversary)
    players = {"encoder": ("model.posterior",), "decoder": ("model.prior", "model.likelihood")}
    return Recipe(nn.ModuleDict({"model": model}), play, players, replace(GAME, optimizer=Training().optimizer, ema=0.0, batch=128))
