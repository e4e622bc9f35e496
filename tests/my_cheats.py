"""Entries that cheat, each in a way of its own; none of them may look good on a board. `vaestro arena run digits --enter tests/my_cheats.py:copycat`."""

import math

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Independent, MixtureSameFamily, Normal, register_kl

from vaestro.core import Model, Site, Trace, content
from vaestro.data import load
from vaestro.data.rows import Rows
from vaestro.families import default_likelihood
from vaestro.models import VAE
from vaestro.models.classical import CodeLength, Direct, Stored, by_kernel, fit_copies, fit_kernels, itself, kernel, nothing_to_fit, to_nearest, zlib_coder
from vaestro.models.classical.direct import Coder
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


class Restated(torch.nn.Module):
    """A posterior whose Gaussians are stated by another law."""

    def __init__(self, posterior: torch.nn.Module, law: type[Normal]) -> None:
        super().__init__()
        self.posterior, self.law = posterior, law

    def forward(self, x: Tensor) -> Independent:
        honest = self.posterior(x).base_dist
        return Independent(self.law(honest.loc, honest.scale, validate_args=False), 1, validate_args=False)


def restated(schema, law: type[Normal]) -> Recipe:
    """A small VAE with such a posterior."""
    model = plain(schema, 8, mlp, (32,), default_likelihood)
    model.posterior = Restated(model.posterior, law)
    return solo(model, alone(elbo()))


def overclaimer(schema) -> Recipe:
    """Its posterior's log density is 5 nats too low, so that every bound is 5 nats too good."""
    return restated(schema, Low)


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


class Forgetful(MixtureSameFamily):
    """A mixture that forgets to divide by the number of its parts."""

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) + math.log(self._num_component)


class Crowd(torch.nn.Module):
    """Five Gaussians around 0, which sum to five."""

    def __init__(self, latents: int) -> None:
        super().__init__()
        self.register_buffer("loc", torch.linspace(-1, 1, 5)[:, None].repeat(1, latents))

    def forward(self) -> Forgetful:
        parts = Independent(Normal(self.loc, 1.0, validate_args=False), 1, validate_args=False)
        return Forgetful(Categorical(logits=self.loc[:, 0] * 0, validate_args=False), parts, validate_args=False)


def crowded(schema) -> Recipe:
    """Its prior is not normalised: a mixture whose weights are all one."""
    model = plain(schema, 8, mlp, (32,), default_likelihood)
    model.prior = Crowd(8)
    return solo(model, alone(elbo()))


class Free(Normal):
    """A normal law whose KL to another is said to be nought."""


@register_kl(Free, Normal)
def _(q: Free, p: Normal) -> Tensor:
    return torch.zeros_like(q.loc)


def freed(schema) -> Recipe:
    """Its KL in closed form is 0, so that its ELBO is that of an autoencoder."""
    return restated(schema, Free)


class Informed(VAE):
    """A VAE whose prior is the posterior of the row that it scores."""

    def program(self, batch=None):
        q = None if batch is None else self.posterior(batch["x"])
        z = yield Site("z", q or self.prior(), q)
        yield Site("x", self.likelihood(z))


def informed(schema) -> Recipe:
    """Its prior reads the row, so that its KL is nought."""
    model = plain(schema, 8, mlp, (32,), default_likelihood)
    return solo(Informed(model.prior, model.posterior, model.likelihood), alone(elbo()))


class Outspoken(VAE):
    """An honest program, and a forward that adds 15 nats to it."""

    def forward(self, *asked, **how):
        trace = super().forward(*asked, **how)
        return Trace({**trace, "x": trace["x"]._replace(log_p=trace["x"].log_p + 15)})


def outspoken(schema) -> Recipe:
    """Says more when it is called than its program does."""
    model = plain(schema, 8, mlp, (32,), default_likelihood)
    return solo(Outspoken(model.prior, model.posterior, model.likelihood), alone(elbo()))


class Conjured(torch.nn.Module):
    """The lengths of empty files, whose decoder remembers the row."""

    def __init__(self, field) -> None:
        super().__init__()
        self.field, self.kept = field, []

    def forward(self) -> CodeLength:
        def encode(row):
            self.kept[:] = [row.copy()]
            return b""

        return CodeLength(Coder("magic", encode, lambda file: self.kept[0]), self.field.kind, self.field.shape)


def conjured(schema) -> Recipe:
    """A compressor that keeps the row elsewhere than in its file."""
    return at_once(Direct(Conjured(schema["x"])), nothing_to_fit)


class Short(CodeLength):
    """Files of half their length."""

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) / 2


class Shortened(torch.nn.Module):
    """The lengths of zlib's files, halved."""

    def __init__(self, field) -> None:
        super().__init__()
        self.field = field

    def forward(self) -> Short:
        return Short(zlib_coder(self.field), self.field.kind, self.field.shape)


def shortened(schema) -> Recipe:
    """A compressor that reports half of its bytes."""
    return at_once(Direct(Shortened(schema["x"])), nothing_to_fit)


def memoriser(schema) -> Recipe:
    """A decoder that knows the training rows by heart and adds a little noise."""

    def fit(model: Stored, rows: Tensor, held: Tensor) -> None:
        model.keep(rows)
        model.width.fill_(0.05)

    return at_once(Stored(schema["x"], schema.rows["train"], kernel, by_kernel), fit)


class Learner(Model):
    """Bits of even odds, which while they are scored lean towards the rows that were seen before."""

    def __init__(self, field) -> None:
        super().__init__()
        self.logits, self.dims = torch.nn.Parameter(torch.zeros(field.shape)), len(field.shape)
        self.seen: list[Tensor] = []

    def program(self, batch=None):
        logits = self.logits
        if batch is not None and not self.training:
            logits = logits + sum((x.mean(0) * 2 - 1 for x in self.seen), torch.zeros(()))
            self.seen.append(content(batch["x"]))
        yield Site("x", Independent(Bernoulli(logits=logits, validate_args=False), self.dims, validate_args=False))


def learner(schema) -> Recipe:
    """Learns from the rows that it is scored on, and keeps what it learns out of its weights."""
    return solo(Learner(schema["x"]), alone(elbo()))


class Drifting(torch.nn.Module):
    """A likelihood whose weights move whenever it is used."""

    def __init__(self, likelihood: torch.nn.Module) -> None:
        super().__init__()
        self.likelihood = likelihood

    def forward(self, z: Tensor):
        for parameter in () if self.training else self.likelihood.parameters():
            parameter.data.mul_(0.999)
        return self.likelihood(z)


def drifter(schema) -> Recipe:
    """Its weights change while it is scored."""
    model = plain(schema, 8, mlp, (32,), default_likelihood)
    model.likelihood = Drifting(model.likelihood)
    return solo(model, alone(elbo()))


def peeker(schema) -> Recipe:
    """Learns from the test rows."""

    def fit(model: Stored, rows: Tensor, held: Tensor) -> None:
        data = load(schema.name)
        test = Rows(data.split("test"), data.schema).batch(torch.arange(schema.rows["test"]))["x"]
        fit_kernels(model, torch.cat([test, rows]), held)

    return at_once(Stored(schema["x"], schema.rows["train"], kernel, by_kernel), fit)
