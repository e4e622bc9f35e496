"""What is measured: a trained model and the rows to score it on; what several metrics read is computed once."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as part
from functools import cached_property, singledispatch
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from vaestro.codes import numbered
from vaestro.core import Batch, Choose, Draw, Model, Site, Trace, content, draw, middle_of, run, take
from vaestro.data.schema import Binary, Count, Field, Kind, Table
from vaestro.errors import UsageError
from vaestro.evaluation.judge import Features
from vaestro.evaluation.likelihood import Likelihood, Rows, importance
from vaestro.evaluation.metrics.held import Held
from vaestro.evaluation.metrics.spectrum import high_power
from vaestro.evaluation.scope import chunked, count, device_of, each, evaluating, fixed_rows, no_rows, seeded, slice_rows
from vaestro.families.base import is_discrete
from vaestro.progress import tell
from vaestro.seeds import forked, mix, reseed

T = TypeVar("T")
AT_ONCE = 250  # rows that are reconstructed or generated together


@dataclass(frozen=True)
class Cost:
    """What a model took to make."""

    parameters: int
    seconds: float
    steps: int
    memory: int | None = None  # the most bytes that the training process held at once, where that was recorded


class Pair(NamedTuple):
    """The features of data rows [n, d] and of as many generated rows [n, d]."""

    real: Tensor
    fake: Tensor


@dataclass(frozen=True)
class Reconstructions:
    """What a pass of every row through the model leaves: numbers per row, float64."""

    squared_error: Rows  # mean over the row's numbers that were seen of (x - x')^2, unit values
    means: np.ndarray  # [n, latents]: posterior means (or draws), sites side by side
    high_data: Rows  # power at high frequencies; empty where the field is no picture
    high_reconstruction: Rows


class Way(NamedTuple):
    """Rows on their way through the posterior's mean and back."""

    row: Tensor  # [n, *shape]
    back: Tensor  # the likelihood's mean, [n, *shape]
    codes: Tensor  # posterior means (or draws) [n, latents], float64


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
        return importance(self.model, self._told("importance samples"), self.samples, self.seed, name=self.name)

    def _told(self, what: str) -> Iterator[Batch]:
        """The rows, and to whoever watches how many of them were asked for, where their number is known."""
        done = 0
        for batch in self.rows():
            if self.held is not None:
                tell(what, done / max(len(self.held.index), 1))
            done += count(batch)
            yield batch
        tell(what, 1.0)

    @cached_property
    def reconstructions(self) -> Reconstructions:
        """Every row through the posterior's mean and back."""

        def read(way: Way) -> tuple[Tensor, ...]:
            seen = ~way.row.isnan()  # of a table, an entry that was not seen has no error
            gap = torch.where(seen, way.row.double() - way.back.double(), 0.0)
            error = gap.square().flatten(1).sum(1) / seen.flatten(1).sum(1).clamp(min=1)
            powers = [high_power(v) if is_picture(self.field) else error.new_zeros(0) for v in (way.row, way.back)]
            return error, way.codes, *powers

        return Reconstructions(*self.through(read))

    def through(self, read: Callable[[Way], tuple[Tensor, ...]]) -> tuple[np.ndarray, ...]:
        """What `read` says of every row and its reconstruction, some at a time: each of its tensors [rows, ...] side by side, float64.

        Raises UsageError for a model without a posterior and where there are no rows.
        """
        parts = []
        with forked(device_of(self.model)), evaluating(self.model):
            for number, (batch, real) in enumerate(chunked(seeded(self.rows(), self.seed), AT_ONCE)):
                reseed(mix(self.seed, number, 2), device_of(self.model))
                parts.append([v.double().cpu().numpy() for v in read(self._way(batch, real))])
        if not parts:
            raise UsageError(f"there are no rows to reconstruct with {self.name}; give at least one batch with a row")
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    def _way(self, batch: Batch, real: int) -> Way:
        trace = central(self.model, batch)
        if not trace.latents:
            raise UsageError(f"{self.name} has no posterior, so it reconstructs nothing")
        x = content(batch[self.field.name])[:real]
        back = mean_of(trace[self.field.name], self.name).expand(len(content(batch[self.field.name])), *x.shape[1:])[:real]
        codes = torch.cat([numbered(d.posterior, d.value) for d in trace.latents.values() if d.posterior is not None], 1)[:real].double()
        return Way(x, back, codes)

    def some(self, most: int) -> Batch:
        """At most `most` of the rows in one batch: one fixed choice, spread over all; raises UsageError where there are none."""
        with forked(device_of(self.model)):
            batches = [b for b in seeded(self.rows(), self.seed) if count(b)]
        if not batches:
            raise no_rows(self.name)
        rows = next(iter(chunked(batches, sum(map(count, batches)))))[0]
        index = fixed_rows(count(rows), most)
        return {n: each(v, lambda t: t[index.to(t.device)]) for n, v in rows.items()}

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
        return self.once(f"features {name}", lambda: self.pair_by(self.network(name)))

    def network(self, name: str) -> Features:
        """A feature network by name; raises UsageError where it is missing."""
        if name not in self.features:
            raise UsageError(f"features called {name!r} were not given, and {self.name} was to be judged by them; give Subject(features={{{name!r}: ...}})")
        return self.features[name]

    def pair_by(self, network: Features) -> Pair:
        """Features of every data row and of as many generated rows by this network."""
        real = self.of_rows(network)
        return Pair(real, self._generated(network, len(real)))

    def of_rows(self, network: Features, split: str | None = None, most: int | None = None) -> Tensor:
        """Features by this network of the rows that are scored, or of at most `most` fixed ones of another split; from the shelf where some are kept."""
        device = device_of(self.model)

        def read() -> Tensor:
            with forked(device):
                rows = self.rows() if split is None else self.beside.batches(split, most)
                return torch.cat([network.features(content(b[self.field.name]).cpu()) for b in seeded(rows, self.seed)])

        if self.held is None or self.held.shelf is None:
            return read()
        drawn = (self.seed, device.type if split is None else "cpu")
        return self.held.shelf(network, self.held.sought(self.field.name, split, most, drawn), read)

    def _generated(self, network: Features, n: int) -> Tensor:
        parts = []
        with forked(device_of(self.model)), evaluating(self.model):
            for number in range(-(-n // AT_ONCE)):
                torch.manual_seed(mix(self.seed, number, 3))
                made = shown(self.field, self.model.generate(AT_ONCE)[self.field.name]).detach().cpu()  # a mean may be a parameter itself
                if self._unseen is not None:
                    holes = self._unseen[number * AT_ONCE : (number + 1) * AT_ONCE]
                    made = made[: len(holes)].masked_fill(holes, torch.nan)
                parts.append(network.features(made))
        return torch.cat(parts)[:n]

    @cached_property
    def _unseen(self) -> Tensor | None:
        """Where entries of the scored rows of a table were not seen, [n, columns]: made rows get the same holes, which must not tell them apart."""
        if not isinstance(self.field.kind, Table):
            return None
        with forked(device_of(self.model)):
            return torch.cat([content(b[self.field.name]).isnan().cpu() for b in seeded(self.rows(), self.seed)])


def is_picture(field: Field) -> bool:
    """Whether rows of the field are [C, H, W]."""
    return len(field.shape) == 3


def mean_or_draw(dist: Distribution) -> Tensor:
    """The centre of a continuous distribution that has one: its mean, or of a flow the image of its base's mean.

    Else one draw (such as the codes of a quantiser, whose mean is no code).
    """
    middle = None if is_discrete(dist) else middle_of(dist)
    return draw(dist, ())[0] if middle is None else middle


def mean_of(drawn: Draw, name: str) -> Tensor:
    """The mean of a site's distribution; raises UsageError where it has none."""
    try:
        return drawn.prior.mean
    except NotImplementedError:
        kind = type(drawn.prior).__name__
        raise UsageError(f"the likelihood of {name} ({kind}) has no mean, so nothing can be compared with the data; give it one") from None


def central(model: Model, batch: Batch) -> Trace:
    """A run in which every latent takes its posterior's mean, or a draw where there is none; observed fields are given. Numbers are shaped [b]."""
    return run(model.program(batch), centring(model, batch))


def centring(model: Model, batch: Batch) -> Choose:
    """Answers every latent site by its posterior's mean, or a draw where there is none; observed fields are given."""
    given = model.observations(batch)
    rows = len(content(next(iter(batch.values()))))

    def choose(site: Site) -> Draw:
        if site.posterior is None or site.name in given:
            return take(site, (rows,), given.get(site.name))
        value = mean_or_draw(site.posterior).expand(rows, *site.posterior.event_shape)
        return Draw(value, site.prior, site.posterior, 0.0, 0.0, False)

    return choose


@singledispatch
def as_shown(kind: Kind, dreamt: Draw) -> Tensor:
    """What a generated row looks like beside data of this kind: the likelihood's mean, for its noise is no part of the picture. Open."""
    return dreamt.prior.mean.expand_as(dreamt.value)


@as_shown.register(Binary)
@as_shown.register(Count)
@as_shown.register(Table)
def _(kind: Binary | Count | Table, dreamt: Draw) -> Tensor:
    return dreamt.value  # such data are draws themselves, and grey or broken means would be told from them at a glance


def shown(field: Field, dreamt: Draw) -> Tensor:
    """The generated rows of a field [n, *shape], as set metrics see them."""
    return as_shown(field.kind, dreamt).reshape(-1, *field.shape)
