"""Hierarchies of latents, and the deep network around one latent."""

from itertools import pairwise
from typing import Annotated, TypeAlias

from annotated_types import Ge
from torch import nn

from vaestro.conditional import Conditional
from vaestro.data.schema import Schema
from vaestro.errors import UsageError
from vaestro.families import Gaussian, default_likelihood
from vaestro.families.pairs import absolute, product
from vaestro.models import VAE, BottomUp, Climb, Plan, Regardless, Rung, Step, TopDown, residual_iaf, residual_normal, stairs, very_deep
from vaestro.models.bottom_up import kl_of_layers
from vaestro.networks import mlp
from vaestro.networks.blocks import ACTIVATIONS, Keep, stored
from vaestro.networks.residual import resnet
from vaestro.networks.spectral import Spectral
from vaestro.objectives import by_site, elbo, free_bits
from vaestro.objectives import iwae as iwae_bound
from vaestro.optimizers import adamax, adamw
from vaestro.plays import alone, annealed, priced, telling
from vaestro.priors import PRIORS, Prior, StandardNormal, standard_normal
from vaestro.recipes.book import Count, Fraction, Recipe, Training, Weight, Widths, recipe, solo
from vaestro.recipes.shared import Likely, Net, decoder, encoder, reader, warmed
from vaestro.schedules import warm_up as rising

Blocks: TypeAlias = tuple[Annotated[int, Ge(0)], ...]  # latent groups at each resolution, the smallest first
Kept: TypeAlias = Annotated[Keep, ACTIVATIONS]
TopPrior: TypeAlias = Annotated[Prior, PRIORS]
BOUND = "log p(x) >= E_q[log p(x|z_1..L)] - sum_l E[KL(q(z_l | z_<l, x) || p(z_l | z_<l))]"


def _check_layers(name: str, latents: Widths) -> None:
    if not latents:
        raise UsageError(f"{name} has no layer of latents; give one or more, such as latents=32x16")


@recipe(
    group="deep",
    paper="Soenderby et al. 2016, Ladder Variational Autoencoders, eq. 7; top-down inference as in Kingma et al. 2016, section 4",
    formula=BOUND,
    published="81.74 nats, dynamic MNIST, MLP of five layers, 5,000 importance samples (Soenderby et al. 2016, table 2)",
)
def top_down(
    schema: Schema,
    layers: Count = 2,
    latents: Count = 20,
    width: Count = 300,
    network: Net = mlp,
    likelihood: Likely = default_likelihood,
    warm_up: Fraction = 0.2,
) -> Recipe:
    """A ladder of `layers` groups of `latents`, prior and posterior walking down the same stairs of `width` numbers."""
    x, hidden = schema["x"], (width,)

    def step() -> Step:
        prior = Conditional(mlp((width,), (2 * latents,), hidden), Gaussian())
        posterior = Conditional(mlp((2 * width,), (2 * latents,), hidden), Gaussian())
        return Step(prior, posterior, mlp((width + latents,), (width,), hidden))

    encoder = reader(x, network, (width,), None)
    model = TopDown(encoder, [step() for _ in range(layers)], decoder(x, width, network, None, likelihood), width)
    return warmed(model, warm_up)


@recipe(
    group="deep",
    paper="Soenderby et al. 2016, Ladder Variational Autoencoders, eq. 14 to 19",
    formula=f"{BOUND}, q(z_l | z_<l, x) the normalised product of p(z_l | z_(l-1)) and a Gaussian that x says",
    published="81.74 nats, dynamic MNIST, five layers of 64 to 4 latents with batch norm, 5,000 importance samples; there is no batch norm here",
)
def ladder_vae(
    schema: Schema,
    latents: Widths = (64, 32, 16, 8, 4),
    hidden: Widths | None = None,
    network: Net = mlp,
    likelihood: Likely = default_likelihood,
    warm_up: Fraction = 0.2,
) -> Recipe:
    """A ladder of latents, the lowest layer first: each is drawn between what the one above expects and what x says. `hidden`: a width a layer."""
    _check_layers("ladder_vae", latents)
    x, widths = schema["x"], tuple(max(64, 8 * n) for n in latents) if hidden is None else hidden
    if len(widths) != len(latents):
        raise UsageError(f"ladder_vae has {len(latents)} layers of latents and {len(widths)} widths in hidden; give one width for each layer, the lowest first")

    def rung(i: int) -> Rung:
        seen = Conditional(mlp((widths[i],), (2 * latents[i],), ()), Gaussian())
        if i == len(latents) - 1:
            return Rung(Regardless(StandardNormal((latents[i],))), seen, absolute)
        return Rung(Conditional(mlp((latents[i + 1],), (2 * latents[i],), (widths[i],)), Gaussian()), seen, product)

    nets = [reader(x, network, widths[:1], None), *(mlp((a,), (b,), (b,)) for a, b in pairwise(widths))]
    climb = Climb([nn.Sequential(net, nn.SiLU()) for net in nets], [1] * len(latents))
    rungs = [rung(i) for i in reversed(range(len(latents)))]
    model = TopDown(climb, rungs, decoder(x, latents[0], network, None, likelihood), None)
    return warmed(model, warm_up)


@recipe(
    group="deep",
    paper="Burda et al. 2016, Importance Weighted Autoencoders, section 5 (two stochastic layers), eq. 8",
    formula="log p(x) >= E[log (1/k) sum_k w_k], w = p(z_L) .. p(z_1|z_2) p(x|z_1) / (q(z_1|x) q(z_2|z_1) ..)",
    published="85.33 nats with 1 sample, 82.90 with 50, dynamic MNIST, layers of 100 and 50, 5,000 importance samples (table 1)",
)
def bottom_up(
    schema: Schema,
    latents: Widths = (100, 50),
    samples: Count = 1,
    hidden: Widths | None = (200, 200),
    upper: Widths = (100, 100),
    network: Net = mlp,
    likelihood: Likely = default_likelihood,
) -> Recipe:
    """Layers of latents whose posterior climbs from x, the lowest layer first; `hidden` between x and the lowest, `upper` between layers; k = `samples`."""
    _check_layers("bottom_up", latents)
    x = schema["x"]
    up = [encoder(x, latents[0], network, hidden), *(Conditional(mlp((a,), (2 * b,), upper), Gaussian()) for a, b in pairwise(latents))]
    down = [Conditional(mlp((b,), (2 * a,), upper), Gaussian()) for a, b in pairwise(latents)]
    model = BottomUp(StandardNormal(latents[-1:]), down, up, decoder(x, latents[0], network, hidden, likelihood), latents)
    return solo(model, telling(alone(iwae_bound, samples), kl_of_layers), iwae_bound, samples)


@recipe(
    group="deep",
    paper="He et al. 2016, Identity Mappings in Deep Residual Networks, eq. 3, as encoder and decoder; with a prior of Xu et al. 2019",
    formula="log p(x) >= E_q(z|x)[log p(x|z)] - KL(q(z|x) || p(z)), p(z) as `prior` says",
    published="78.49 nats, dynamic MNIST, with a Real NVP prior; static: 79.84 with, 82.95 without; 40 latents, 1,000 importance samples (Xu et al. 2019)",
)
def resnet_vae(
    schema: Schema,
    latents: Count = 40,
    prior: TopPrior = standard_normal,
    hidden: Widths = (32, 64),
    depth: Count = 2,
    likelihood: Likely = default_likelihood,
    warm_up: Fraction = 0.0,
) -> Recipe:
    """A VAE of one latent vector between deep residual networks, `depth` blocks at each resolution, under any prior: `prior=flow`."""
    x, network = schema["x"], resnet(depth)
    if len(x.shape) != 3:
        raise UsageError(f"resnet_vae needs images, and the rows of {schema.name!r} are shaped {x.shape}; use vae or flow_prior for vectors")
    q = encoder(x, latents, network, hidden)
    model = VAE(prior(latents, q, x), q, decoder(x, latents, network, hidden, likelihood))
    return warmed(model, warm_up)


@recipe(
    group="deep",
    paper="Kingma et al. 2016, Improved Variational Inference with Inverse Autoregressive Flow, section 4, algorithm 1, eq. 15",
    formula="-E_q[log p(x|z)] + sum_l max(floor, E[KL(q(z_l | z_<l, x) || p(z_l | z_<l))]), q a Gaussian through `flows` inverse autoregressive steps",
    published="79.10 nats, dynamic MNIST; 3.11 bits per dimension, CIFAR-10",
)
def resnet_vae_iaf(
    schema: Schema,
    blocks: Blocks = (1, 2, 2, 0),
    width: Count = 64,
    latents: Count = 16,
    flows: Count = 1,
    floor: Weight = 0.25,
    likelihood: Likely = default_likelihood,
    activations: Kept = stored,
) -> Recipe:
    """A hierarchy of maps with inverse autoregressive posteriors; `blocks` latent groups at each resolution, each charged `floor` nats at least."""
    plan = Plan(blocks, width, latents)
    model = stairs(schema["x"], plan, residual_iaf(plan, flows, activations), likelihood)
    return Recipe(nn.ModuleDict({"model": model}), alone(free_bits(floor, by_site)), training=Training(optimizer=adamax, ema=0.999))


@recipe(
    group="deep",
    paper="Vahdat & Kautz 2020, NVAE, sections 3.1 and 3.2",
    formula=f"{BOUND}, q = N(m_p + dm, (s_p ds)^2); minus `spectral` times the sum of the layers' largest singular values",
    published="78.01 nats, dynamic MNIST, 1,000 importance samples; 2.91 bits per dimension, CIFAR-10; with batch norm, which is not used here",
)
def nvae(
    schema: Schema,
    blocks: Blocks = (2, 2, 2, 0),
    width: Count = 64,
    latents: Count = 16,
    spectral: Weight = 0.01,
    likelihood: Likely = default_likelihood,
    warm_up: Fraction = 0.3,
    activations: Kept = stored,
) -> Recipe:
    """A hierarchy of maps in the manner of NVAE: depthwise convolutions, residual normals, a price on the layers' spectral norms; group norm throughout."""
    plan = Plan(blocks, width, latents)
    model = stairs(schema["x"], plan, residual_normal(plan, activations), likelihood)
    parts = nn.ModuleDict({"model": model, "spectral": Spectral(model)})
    play = priced(annealed(elbo, rising(warm_up)), spectral, "spectral")
    return Recipe(parts, play, training=Training(optimizer=adamax, ema=0.999), settled=warm_up)


@recipe(
    group="deep",
    paper="Child 2021, Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images, section 3 and figure 3",
    formula=BOUND,
    published="2.87 bits per dimension, CIFAR-10, 45 layers, two GPUs for under a week; none on MNIST",
)
def vdvae(
    schema: Schema,
    blocks: Blocks = (2, 2, 2, 0),
    width: Count = 64,
    latents: Count = 16,
    likelihood: Likely = default_likelihood,
    activations: Kept = stored,
) -> Recipe:
    """A very deep hierarchy of maps: `blocks` latent groups at each resolution, the smallest first, on images of any size."""
    x, plan = schema["x"], Plan(blocks, width, latents)
    model = stairs(x, plan, very_deep(plan, activations), likelihood)
    clip, skip = 200.0 * x.size, 400.0 * x.size  # the paper's code counts nats per number of x, we per row
    training = Training(optimizer=adamw, learning_rate=1e-3, ema=0.999, clip=clip, skip=skip)
    return Recipe(nn.ModuleDict({"model": model}), alone(elbo()), training=training)
