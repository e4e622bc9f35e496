"""What is measured: a trained model and the rows to score it on; what several metrics read is computed once."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as part
from functools import cached_property, singledispatch
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from vaestro.codes import numbered
from vaestro.core import Batch, Draw, Model, Site, Trace, centre, content, draw, run, take
from vaestro.data.schema import Binary, Count, Field, Kind
from vaestro.errors import UsageError
from vaestro.evaluation.judge import Features
from vaestro.evaluation.likelihood import Likelihood, Rows, importance
from vaestro.evaluation.metrics.held import Held
from vaestro.evaluation.metrics.spectrum import high_power
from vaestro.evaluation.scope import chunked, count, device_of, evaluating, forked, seeded, slice_rows
from vaestro.families.base import is_discrete
from vaestro.seeds import mix

T = TypeVar("T")
AT_ONCE = 250  # rows that are reconstructed or generated together


@dataclass(frozen=True)
class Cost:
    """What a model took to make."""

    parameters: int
    seconds: float
    steps: int


class Pair(NamedTuple):
    """The features of data rows [n, d] and of as many generated rows [n, d]."""

    real: Tensor
    fake: Tensor


@dataclass(frozen=True)
class Reconstructions:
    """What a pass of every row through the model leaves: numbers per row, float64."""

    squared_error: Rows  # mean over the row's numbers of (x - x')^2, unit values
    means: np.ndarray  # [n, latents]: posterior means (or draws), sites side by side
    high_data: Rows  # power at high frequencies; empty where the field is no picture
    high_reconstruction: Rows


@dataclass(frozen=True)
class Subject:
    """A model, the rows to score (`rows()` reads them anew each time) and the observed field that is judged."""

    model: Model
    rows: Callable[[], Iterable[Batch]]
    field: Field
    samples: int = 100
    seed: int = 0
    name: str = "the model"
    features: Mapping[str, Features] = part(default_factory=dict)
    cost: Cost | None = None
    answers: Callable[[], Iterable[Batch]] | None = None  # the same rows with their labels, which the model is not shown
    factors: Mapping[str, np.ndarray] = part(default_factory=dict)  # of the same rows, whole numbers [n] each, which the model is not shown
    held: Held | None = None  # where the rows come from: other splits and labels, for the metrics that compare with them

    @property
    def beside(self) -> Held:
        """Where the rows come from; raises UsageError where that was not said."""
        if self.held is None:
            raise UsageError(f"{self.name} was scored on rows of no data set, so there are no other splits or labels to compare with; give Subject(held=...)")
        return self.held

    @cached_property
    def encodes(self) -> bool:
        """Whether the model has a posterior, so that rows have latents and reconstructions."""
        with forked(device_of(self.model)), evaluating(self.model):
            first = next((b for b in self.rows() if count(b)), None)
            return first is not None and bool(central(self.model, slice_rows(first, 0, 1)).latents)

    @cached_property
    def likelihood(self) -> Likelihood:
        """The importance-sampled likelihood of all rows; raises UsageError for what is not a density."""
        return importance(self.model, self.rows(), self.samples, self.seed, name=self.name)

    @cached_property
    def reconstructions(self) -> Reconstructions:
        """Every row through the posterior's mean and back."""
        parts = []
        with forked(device_of(self.model)), evaluating(self.model):
            for number, (batch, real) in enumerate(chunked(seeded(self.rows(), self.seed), AT_ONCE)):
                torch.manual_seed(mix(self.seed, number, 2))
                parts.append(self._reconstruct(batch, real))
        if not parts:
            raise UsageError(f"there are no rows to reconstruct with {self.name}; give at least one batch with a row")
        return Reconstructions(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _reconstruct(self, batch: Batch, real: int) -> tuple[np.ndarray, ...]:
        trace = central(self.model, batch)
        if not trace.latents:
            raise UsageError(f"{self.name} has no posterior, so it reconstructs nothing")
        x = content(batch[self.field.name])[:real]
        mean = mean_of(trace[self.field.name], self.name).expand(len(content(batch[self.field.name])), *x.shape[1:])[:real]
        error = (x.double() - mean.double()).square().flatten(1).mean(1)
        codes = torch.cat([numbered(d.posterior, d.value) for d in trace.latents.values() if d.posterior is not None], 1)[:real].double()
        powers = [high_power(v) if is_picture(self.field) else error.new_zeros(0) for v in (x, mean)]
        return tuple(v.cpu().numpy() for v in (error, codes, *powers))

    @cached_property
    def _known(self) -> dict[str, Any]:
        return {}

    def once(self, key: str, make: Callable[[], T]) -> T:
        """What `make` gives, made at the first asking and kept under `key`."""
        if key not in self._known:
            self._known[key] = make()
        found: T = self._known[key]
        return found

    def pair(self, name: str) -> Pair:
        """Features of every data row and of as many generated rows, by the name of the feature network; raises UsageError where that is missing."""
        if name not in self.features:
            raise UsageError(f"features called {name!r} were not given, and {self.name} was to be judged by them; give Subject(features={{{name!r}: ...}})")
        return self.once(f"features {name}", lambda: self.pair_by(self.features[name]))

    def pair_by(self, network: Features) -> Pair:
        """Features of every data row and of as many generated rows by this network."""
        with forked(device_of(self.model)):
            real = torch.cat([network.features(content(b[self.field.name]).cpu()) for b in seeded(self.rows(), self.seed)])
        return Pair(real, self._generated(network, len(real)))

    def _generated(self, network: Features, n: int) -> Tensor:
        parts = []
        with forked(device_of(self.model)), evaluating(self.model):
            for number in range(-(-n // AT_ONCE)):
                torch.manual_seed(mix(self.seed, number, 3))
                parts.append(network.features(shown(self.field, self.model.generate(AT_ONCE)[self.field.name]).cpu()))
        return torch.cat(parts)[:n]


def is_picture(field: Field) -> bool:
    """Whether rows of the field are [C, H, W]."""
    return len(field.shape) == 3


def mean_or_draw(dist: Distribution) -> Tensor:
    """The centre of a continuous distribution that has one: its mean, or of a flow the image of its base's mean.

    Else one draw (such as the codes of a quantiser, whose mean is no code).
    """
    if is_discrete(dist):
        return draw(dist, ())[0]
    try:
        return centre(dist)
    except NotImplementedError:
        return draw(dist, ())[0]


def mean_of(drawn: Draw, name: str) -> Tensor:
    """The mean of a site's distribution; raises UsageError where it has none."""
    try:
        return drawn.prior.mean
    except NotImplementedError:
        kind = type(drawn.prior).__name__
        raise UsageError(f"the likelihood of {name} ({kind}) has no mean, so nothing can be compared with the data; give it one") from None


def central(model: Model, batch: Batch) -> Trace:
    """A run in which every latent takes its posterior's mean, or a draw where there is none; observed fields are given. Numbers are shaped [b]."""
    given = {n: batch[n] for n in model.observed if n in batch}
    rows = len(content(next(iter(batch.values()))))

    def choose(site: Site) -> Draw:
        if site.posterior is None or site.name in given:
            return take(site, (rows,), given.get(site.name))
        value = mean_or_draw(site.posterior).expand(rows, *site.posterior.event_shape)
        return Draw(value, site.prior, site.posterior, 0.0, 0.0, False)

    return run(model.program(batch), choose)


@singledispatch
def as_shown(kind: Kind, dreamt: Draw) -> Tensor:
    """What a generated row looks like beside data of this kind: the likelihood's mean, for its noise is no part of the picture. Open."""
    return dreamt.prior.mean.expand_as(dreamt.value)


@as_shown.register(Binary)
@as_shown.register(Count)
def _(kind: Binary | Count, dreamt: Draw) -> Tensor:
    return dreamt.value  # such data are draws themselves, and grey or broken means would be told from them at a glance


def shown(field: Field, dreamt: Draw) -> Tensor:
    """The generated rows of a field [n, *shape], as set metrics see them."""
    return as_shown(field.kind, dreamt).reshape(-1, *field.shape)
