"""Hierarchies of latents."""

from vaestro.conditional import Conditional
from vaestro.data.schema import Schema
from vaestro.families import Gaussian, default_likelihood
from vaestro.models import Step, TopDown
from vaestro.networks import mlp
from vaestro.objectives import elbo
from vaestro.plays import annealed
from vaestro.recipes.book import Count, Fraction, Recipe, recipe, solo
from vaestro.recipes.shared import Likely, Net, decoder, reader
from vaestro.schedules import warm_up as rising


@recipe(
    group="deep",
    paper="Soenderby et al. 2016, Ladder Variational Autoencoders, eq. 7; top-down inference as in Kingma et al. 2016, section 4",
    formula="log p(x) >= E_q[log p(x|z_1..L)] - sum_l E[KL(q(z_l | z_<l, x) || p(z_l | z_<l))]",
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
    return solo(model, annealed(elbo, rising(warm_up)))
