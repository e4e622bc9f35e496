"""The whole idea on one screen: a model names its random variables, and one interpreter asks which values they take."""

from collections.abc import Callable, Generator, Iterable, Mapping
from functools import cached_property, singledispatch
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, kl_divergence

from vaestro.errors import UsageError

Shape: TypeAlias = tuple[int, ...]


class Site(NamedTuple):
    """One random variable: what the model says of it and, if it is latent, what the data say of it."""

    name: str
    prior: Distribution  # p(value | the sites before it)
    posterior: Distribution | None = None  # q(value | the sites before it, x)


class Seen(NamedTuple):
    """A value of which only a part was observed; the rest is drawn, and unseen places are never read (NaN is fine)."""

    value: Tensor
    mask: Tensor  # True where seen: [batch] for whole rows, or [batch, *event] for entries


Value: TypeAlias = Tensor | Seen
Batch: TypeAlias = Mapping[str, Value]
Program: TypeAlias = Generator[Site, Tensor, None]  # yields sites, receives their values


class Draw(NamedTuple):
    """A site and the value it took. log p(x, z) - log q(z | x) is the sum of `log_p - log_q` over the draws of a trace."""

    value: Tensor
    prior: Distribution
    posterior: Distribution | None
    log_p: Tensor | float  # nats; 0 where the value was only imagined (absent, and without a posterior)
    log_q: Tensor | float  # nats; kept from the draw, for not every q can score a stranger's; 0 where seen
    seen: Tensor | bool  # where the value was given

    @property
    def kl(self) -> Tensor:
        """KL(q || p) in nats: closed form where one is registered, else its one-sample estimate; 0 where seen."""
        assert self.posterior is not None, "only latent sites have a KL"
        closed = closed_kl(self.posterior, self.prior)
        kl = torch.as_tensor(self.log_q - self.log_p) if closed is None else closed
        return kl if isinstance(self.seen, bool) else torch.where(self.seen, 0.0, kl)

    @property
    def kl_of_dimensions(self) -> Tensor | None:
        """KL(q || p) of each latent dimension, [..., dimensions], in nats, 0 where seen; None where it does not split into dimensions."""
        q, p = self.posterior, self.prior
        if not (isinstance(q, Independent) and isinstance(p, Independent)):
            return None
        each = closed_kl(q.base_dist, p.base_dist)
        if each is None:
            return None
        if not isinstance(self.seen, bool):
            each = torch.where(self.seen[(...,) + (None,) * p.reinterpreted_batch_ndims], 0.0, each)
        return each.flatten(-p.reinterpreted_batch_ndims) if p.reinterpreted_batch_ndims else each.unsqueeze(-1)  # a dimension may be a vector: a one-hot code

    @property
    def kl_by_dimension(self) -> Tensor | None:
        """The mean over draws and rows of `kl_of_dimensions`, [dimensions]."""
        each = self.kl_of_dimensions
        return None if each is None else each.reshape(-1, each.shape[-1]).mean(0)


class Trace(dict[str, Draw]):
    """All that one run of a program leaves behind, by name, in the model's order; every number is in nats, shaped [k, b].

    A trace is read after its run is over, so its sums are computed once.
    """

    @property
    def latents(self) -> dict[str, Draw]:
        """The draws that have a posterior."""
        return {n: d for n, d in self.items() if d.posterior is not None}

    @cached_property
    def log_px(self) -> Tensor:
        """log p of all that was observed, given the latents drawn."""
        seen = [d.log_p if d.posterior is None else torch.where(torch.as_tensor(d.seen), d.log_p, 0.0) for d in self.values() if d.seen is not False]
        return total(seen)

    @cached_property
    def kl(self) -> Tensor:
        """The KLs of all latent sites, summed."""
        return total(d.kl for d in self.latents.values())

    @cached_property
    def log_w(self) -> Tensor:
        """log p(x, z) - log q(z | x): the one number every bound is made of."""
        return total(d.log_p - d.log_q for d in self.values())

    @cached_property
    def penalty(self) -> Tensor | float:
        """What `penalty` asks of the posteriors, summed."""
        return sum(penalty(d.posterior) for d in self.latents.values() if d.posterior is not None)

    @property
    def normalised(self) -> bool:
        """Whether every factor is a density, so that `log_w` bounds a likelihood."""
        return all(normalised(d.prior) and (d.posterior is None or normalised(d.posterior)) for d in self.values())


def total(terms: Iterable[Tensor | float]) -> Tensor:
    """The sum of some terms, without the addition of 0 that `sum` begins with: in autograd it costs twice. Nothing sums to 0."""
    first, *rest = [*terms] or [0.0]
    return torch.as_tensor(sum(rest, first))


Choose: TypeAlias = Callable[[Site], Draw]
Choosing: TypeAlias = Callable[[Shape, Mapping[str, Value]], Choose]  # of the leading axes and the values that stand


@singledispatch
def draw(dist: Distribution, shape: Shape) -> tuple[Tensor, Tensor]:
    """A sample, differentiable if `dist` can, and its log density. Open: a flow registers its one-pass way."""
    value = dist.rsample(torch.Size(shape)) if dist.has_rsample else dist.sample(torch.Size(shape))
    return value, dist.log_prob(value)


@singledispatch
def penalty(dist: Distribution) -> Tensor | float:
    """A loss that only training sees, such as a quantiser's commitment. Open; most distributions have none."""
    return 0.0


@singledispatch
def normalised(dist: Distribution) -> bool:
    """Whether `dist` is a density or a mass function. Open: a point of an autoencoder registers False."""
    return True


@normalised.register
def _(dist: Independent) -> bool:  # type: ignore[type-arg]
    return normalised(dist.base_dist)


@singledispatch
def scores(dist: Distribution) -> bool:
    """Whether `log_prob` can score a value that another drew, as replaying asks. Open: an inverse autoregressive flow registers False."""
    return True


def closed_kl(q: Distribution, p: Distribution) -> Tensor | None:
    """KL(q || p) in nats where a closed form is registered with torch, else None."""
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return None


@singledispatch
def centre(dist: Distribution) -> Tensor:
    """A differentiable middle of a distribution, as a picture of it. Open: the mean, unless a cheaper middle is registered."""
    mean: Tensor = dist.mean
    return mean


@centre.register
def _(dist: Independent) -> Tensor:  # type: ignore[type-arg]
    return centre(dist.base_dist)


def middle_of(dist: Distribution) -> Tensor | None:
    """`centre`, or None for a distribution that has none."""
    try:
        return centre(dist)
    except NotImplementedError:
        return None


@singledispatch
def prepare(part: nn.Module, data: Mapping[str, Tensor]) -> None:
    """A look at some training rows before the first step, such as pseudo-inputs or code books. Open; most parts need none."""


@singledispatch
def observe(part: nn.Module, trace: Trace) -> None:
    """A look at the trace after each step, such as a running average. Open; most parts need none."""


@singledispatch
def partial_log_prob(dist: Distribution, value: Tensor, mask: Tensor) -> Tensor:
    """log p of the entries of `value` where `mask` is true, the others integrated out. Open; raises UsageError for what scores whole events only."""
    raise UsageError(f"{type(dist).__name__} cannot score a part of an event; give whole rows, or say how with @partial_log_prob.register")


@partial_log_prob.register
def _(dist: Independent, value: Tensor, mask: Tensor) -> Tensor:  # type: ignore[type-arg]
    if dist.base_dist.event_shape:
        raise UsageError(f"{type(dist.base_dist).__name__} cannot score a part of an event; give whole rows")
    each = torch.where(mask, dist.base_dist.log_prob(value), 0.0)  # `value` is legal everywhere: unseen entries were drawn
    return each.flatten(-dist.reinterpreted_batch_ndims).sum(-1)


def take(site: Site, lead: Shape, given: Value | None) -> Draw:
    """What a site becomes: given values are scored under p, latents are drawn from q, the rest is imagined from p.

    A site draws only what its own batch shape still lacks of `lead`, so x is encoded once however many samples are taken.
    """
    p, q = site.prior, site.posterior
    if isinstance(given, Tensor):
        return Draw(given, p, None, p.log_prob(given), 0.0, True)
    source = p if q is None else q
    value, log_q = draw(source, lead[: len(lead) - len(source.batch_shape)])
    if value.shape[: len(lead)] != torch.Size(lead):
        raise ValueError(f"site {site.name!r} drew {tuple(value.shape)}; the batch shape of its distribution must be the end of {tuple(lead)}")
    if given is None:
        return Draw(value, p, None, 0.0, 0.0, False) if q is None else Draw(value, p, q, p.log_prob(value), log_q, False)
    event = len(p.event_shape)
    if given.mask.dim() == given.value.dim() - event:
        value = torch.where(given.mask[(...,) + (None,) * event], given.value, value)
        log_p = p.log_prob(value)
        if q is None:
            return Draw(value, p, None, torch.where(given.mask, log_p, 0.0), 0.0, given.mask)
        return Draw(value, p, q, log_p, torch.where(given.mask, 0.0, log_q), given.mask)
    if q is not None:
        raise TypeError(f"site {site.name!r} has a posterior, so it is given by whole rows: its mask must be [batch], not one of entries")
    value = torch.where(given.mask, given.value, value)
    return Draw(value, p, None, partial_log_prob(p, value, given.mask), 0.0, given.mask)


def sampling(lead: Shape, given: Mapping[str, Value]) -> Choose:
    """Answers every site by `take`: given values stand, the rest are drawn."""
    return lambda site: take(site, lead, given.get(site.name))


def replaying(values: Mapping[str, Tensor]) -> Choose:
    """Answers every site with a stored value, scored on both sides: for the estimators that score one draw twice."""

    def choose(site: Site) -> Draw:
        v = values[site.name]
        log_q = 0.0 if site.posterior is None else site.posterior.log_prob(v)
        return Draw(v, site.prior, site.posterior, site.prior.log_prob(v), log_q, site.posterior is None)

    return choose


def run(program: Program, choose: Choose) -> Trace:
    """The only interpreter: asks `choose` what each site becomes and records it."""
    trace = Trace()
    try:
        site = next(program)
        while True:
            trace[site.name] = choose(site)
            site = program.send(trace[site.name].value)
    except StopIteration:
        return trace


def content(value: Value) -> Tensor:
    """What an encoder may read of a value: all of it, or zeros in the places that were not seen."""
    if isinstance(value, Tensor):
        return value
    mask = value.mask[(...,) + (None,) * (value.value.dim() - value.mask.dim())]
    return torch.where(mask, value.value, 0.0)


class Model(nn.Module):
    """Subclasses write `program`; training, generation, scoring and imputation follow."""

    observed: tuple[str, ...] = ("x",)  # the sites that are data

    def program(self, batch: Batch | None = None) -> Program:
        """The model as a generator of sites; without a batch it describes what it would dream up."""
        raise TypeError(f"{type(self).__name__} has no program; write one that yields Site(name, prior, posterior)")

    def observations(self, batch: Batch) -> dict[str, Value]:
        """The values of the batch that the model observes; the others are its conditions."""
        return {n: batch[n] for n in self.observed if n in batch}

    def forward(self, batch: Batch, k: int = 1, given: Batch | None = None, choosing: Choosing = sampling) -> Trace:
        """`k` draws of the latents for each of the b rows of `batch`: every number is shaped [k, b].

        `given` are the values that stand; by default the observed fields of the batch. `choosing` answers the sites; by default by drawing what is not given.
        """
        given = self.observations(batch) if given is None else given
        first = next(iter(batch.values()))
        lead = (k, len(first if isinstance(first, Tensor) else first.value))
        trace = run(self.program(batch), choosing(lead, given))
        if trace.latents:
            return trace
        once = {n: d.log_p for n, d in trace.items() if isinstance(d.log_p, Tensor) and d.log_p.dim() < 2}  # no draw made them k numbers
        return Trace({n: d._replace(log_p=once[n].expand(lead)) if n in once else d for n, d in trace.items()})

    @torch.no_grad()
    def generate(self, n: int, given: Batch | None = None, conditions: Batch | None = None) -> Trace:
        """`n` dreams of the model: every value is shaped [n, *event]. Conditions are read by the program, not yielded."""
        return run(self.program(conditions), sampling((n,), given or {}))
