"""Entries that cheat, each in a way of its own; none of them may look good on a board. `vaestro arena run digits --enter tests/my_cheats.py:copycat`."""

import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from vaestro.data import load
from vaestro.data.rows import Rows
from vaestro.families import default_likelihood
from vaestro.models.classical import Stored, by_kernel, fit_copies, fit_kernels, itself, kernel, to_nearest
from vaestro.networks import mlp
from vaestro.objectives import elbo
from vaestro.plays import alone
from vaestro.recipes import RECIPES
from vaestro.recipes.book import Recipe, solo
from vaestro.recipes.classical import at_once
from vaestro.recipes.shared import plain


def copycat(schema) -> Recipe:
    """Resamples training rows."""
    return at_once(Stored(schema["x"], schema.rows["train"], itself, to_nearest), fit_copies)


def collapsed(schema) -> Recipe:
    """A generator that knows five pictures."""
    return at_once(Stored(schema["x"], 5, itself, to_nearest), fit_copies)


def blurry(schema) -> Recipe:
    """One linear latent: a VAE that can only blur."""
    return RECIPES["ppca"].build(schema, latents=1)


class Low(Normal):
    """A normal law whose log density is 5 nats too low in all: a wrong scale of the importance weights."""

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) - 5 / value.shape[-1]


class Lowered(torch.nn.Module):
    """A posterior that understates its own density."""

    def __init__(self, posterior: torch.nn.Module) -> None:
        super().__init__()
        self.posterior = posterior

    def forward(self, x: Tensor) -> Independent:
        honest = self.posterior(x).base_dist
        return Independent(Low(honest.loc, honest.scale, validate_args=False), 1, validate_args=False)


def overclaimer(schema) -> Recipe:
    """Its posterior's log density is 5 nats too low, so that every bound is 5 nats too good."""
    model = plain(schema, 8, mlp, (32,), default_likelihood)
    model.posterior = Lowered(model.posterior)
    return solo(model, alone(elbo()))


class Loud(torch.nn.Module):
    """A likelihood that claims a little more than there is, for each pixel."""

    def __init__(self, likelihood: torch.nn.Module) -> None:
        super().__init__()
        self.likelihood = likelihood

    def forward(self, z: Tensor) -> Independent:
        return More(self.likelihood(z).base_dist, 3, validate_args=False)


class More(Independent):
    """Independent numbers whose joint log mass has 0.1 nats more for each of them."""

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) + 0.1 * self.event_shape.numel()


def loud(schema) -> Recipe:
    """Its likelihood is not normalised: 0.1 nats a pixel too many."""
    model = plain(schema, 8, mlp, (32,), default_likelihood)
    model.likelihood = Loud(model.likelihood)
    return solo(model, alone(elbo()))


def peeker(schema) -> Recipe:
    """Learns from the test rows."""

    def fit(model: Stored, rows: Tensor, held: Tensor) -> None:
        data = load(schema.name)
        test = Rows(data.split("test"), data.schema).batch(torch.arange(schema.rows["test"]))["x"]
        fit_kernels(model, torch.cat([test, rows]), held)

    return at_once(Stored(schema["x"], schema.rows["train"], kernel, by_kernel), fit)
