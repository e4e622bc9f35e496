"""Where the rate goes: KL(q(z | x) || p(z)) on average is what z tells of x, plus how far all posteriors together lie from the prior."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaestro.core import Batch, Draw, Site, Trace, normalised, sampling, scores, take, total
from vaestro.errors import NotFinite, UsageError
from vaestro.evaluation.metrics.base import METRICS, Direction, Group, Metric, Need, Score
from vaestro.evaluation.metrics.subject import AT_ONCE, Subject
from vaestro.evaluation.scope import count, device_of, evaluating, slice_rows, until
from vaestro.seeds import forked, mix, reseed

MOST = 5000  # rows, whose pairs are all looked at
MOST_DEEP = 300  # of a model of several latent sites, which runs anew for each pair


class Split(NamedTuple):
    """The rate in two parts, per row in nats, float64 [n]: their means are the estimates, and their spread holds the rows' part in the mixture too."""

    information: np.ndarray  # of I(x; z)
    aggregate: np.ndarray  # of KL(q(z) || p(z))


def mixture(own: Tensor, prior: Tensor, pairs: Tensor) -> Split:
    """The parts from log q(z_n | x_n) [n], log p(z_n) [n] and log q(z_n | x_m) [n, n], the aggregate posterior being the mixture over the same rows.

    log q(z_n) is estimated by log (1/N) sum_m q(z_n | x_m) (Hoffman & Johnson 2016, equation 14). Each row stands in the mixture for all draws: its
    influence there, sum_n q(z_n | x_m) / sum_m' q(z_n | x_m') - 1, is added to its own term, and is 0 on average.
    """
    of_all = pairs.double().logsumexp(1)
    influence = torch.zeros_like(of_all)
    for some, sums in zip(pairs.split(AT_ONCE), of_all.split(AT_ONCE), strict=True):
        influence += (some.double() - sums[:, None]).exp().sum(0)
    log_q, influence = of_all - np.log(len(pairs)), influence - 1
    return Split((own - log_q - influence).cpu().numpy(), (log_q - prior + influence).cpu().numpy())


def _refuse(subject: Subject, latents: dict[str, Draw]) -> None:
    if not latents:
        raise UsageError(f"{subject.name} has no posterior, so its latents tell nothing of a row; leave this metric out")
    for site, d in latents.items():
        if d.posterior is not None and not normalised(d.posterior):
            raise UsageError(f"the posterior of {site!r} of {subject.name} is a point, of which there is no density to average; leave this metric out")
        if not normalised(d.prior):
            raise UsageError(f"the prior of {site!r} of {subject.name} is no density, so there is no KL to it; leave this metric out")
        if d.posterior is not None and not scores(d.posterior):
            raise UsageError(f"the posterior of {site!r} of {subject.name} cannot score what another row drew, as a mixture of all rows asks; use kl")


class _Pairs:
    """The draws of some rows, and what the posterior of every row says of each."""

    def __init__(self, subject: Subject) -> None:
        self.subject, self.model = subject, subject.model
        first = self.model(slice_rows(subject.some(1), 0, 1), 1).latents
        _refuse(subject, first)
        self.names = list(first)
        self.rows = subject.some(MOST if len(first) == 1 else MOST_DEEP)
        self.parts = [slice_rows(self.rows, start, start + AT_ONCE) for start in range(0, count(self.rows), AT_ONCE)]

    def draw(self) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """A draw of each row's latents [n, *event], and its log q(z | x) and log p(z), float64 [n]."""
        kept: list[tuple[dict[str, Tensor], Tensor, Tensor]] = []
        for number, part in enumerate(self.parts):
            reseed(mix(self.subject.seed, number, 5), device_of(self.model))
            trace = self._up_to_latents(part)
            latents, wide = trace.latents.values(), (1, count(part))
            log_q, log_p = (total(terms).double().expand(wide)[0] for terms in ((d.log_q for d in latents), (d.log_p for d in latents)))
            kept.append(({n: trace[n].value[0] for n in self.names}, log_q, log_p))
        values = {n: torch.cat([v[n] for v, _, _ in kept]) for n in self.names}
        return values, torch.cat([q for _, q, _ in kept]), torch.cat([p for _, _, p in kept])

    def _up_to_latents(self, part: Batch) -> Trace:
        given = self._given(part)
        return until(self.model.program(part), sampling((1, count(part)), given), self.names[-1])

    def scored(self, values: dict[str, Tensor]) -> Tensor:
        """log q(z_n | x_m) [n, n], float32."""
        return torch.cat([torch.cat([*self._by(part, values)]) for part in self.parts], 1)

    def _by(self, part: Batch, values: dict[str, Tensor]) -> Iterator[Tensor]:
        """What the posteriors of the rows of `part` say of all draws, some draws at a time."""
        apart = {n: v[:, None] for n, v in values.items()}
        drawn = len(next(iter(values.values())))
        rows = count(part)
        single = None
        if len(self.names) == 1:  # the posterior is a function of the row alone, so it is made once
            reseed(mix(self.subject.seed, 6), device_of(self.model))
            single = self._up_to_latents(part)[self.names[0]].posterior
        for start in range(0, drawn, AT_ONCE):
            z = {n: v[start : start + AT_ONCE] for n, v in apart.items()}
            at_once = min(AT_ONCE, drawn - start)
            log_q = single.log_prob(z[self.names[0]]) if single is not None else self._replayed(part, z)
            yield log_q.expand(at_once, rows).float()

    def _replayed(self, part: Batch, z: dict[str, Tensor]) -> Tensor:
        """The same where later posteriors depend on earlier latents: the program runs for all pairs, up to its last latent."""
        given, lead = self._given(part), (len(next(iter(z.values()))), count(part))

        def choose(site: Site) -> Draw:
            if site.name not in z:
                return take(site, lead, given.get(site.name))
            v = z[site.name].expand(*lead, *site.prior.event_shape)
            assert site.posterior is not None, "a latent site has a posterior whenever there is a row"
            return Draw(v, site.prior, site.posterior, 0.0, site.posterior.log_prob(v), False)

        trace = until(self.model.program(part), choose, self.names[-1])
        return total(trace[n].log_q for n in self.names)

    def _given(self, part: Batch) -> Batch:
        return self.model.observations(part)


def split(subject: Subject) -> Split:
    """The two parts of a model's rate on at most 5,000 of the rows (300 for a model of several latent sites); computed once.

    Raises UsageError for a model without a posterior, or with one that is a point or cannot score what another row drew.
    """

    def make() -> Split:
        with forked(device_of(subject.model)), evaluating(subject.model):
            pairs = _Pairs(subject)
            values, own, prior = pairs.draw()
            found = mixture(own, prior, pairs.scored(values))
        if not np.isfinite(found.information).all():
            raise NotFinite(f"{subject.name} gives some draws of its own posterior no density; its weights are not finite: train it anew")
        return found

    return subject.once("split of the rate", make)


def mutual_information(subject: Subject) -> Score:
    """I(x; z) under q(z | x) and the rows, in nats, by E log q(z_n | x_n) / ((1/N) sum_m q(z_n | x_m)): a lower bound that cannot pass ln N."""
    return Score.of_rows(split(subject).information)


def aggregate_kl(subject: Subject) -> Score:
    """KL(q(z) || p(z)) of the aggregate posterior q(z) = E q(z | x) to the prior, in nats: the mean KL minus I(x; z), so an upper bound."""
    return Score.of_rows(split(subject).aggregate)


PAIRS = f"one draw a row against the mixture over all rows, at most {MOST:,} ({MOST_DEEP} with several latent sites)"
LATENTS = frozenset({Need.LATENTS})
METRICS.enter(
    Metric(
        "mutual_information", "what latents tell of a row", "nats", Direction.HIGHER, f"{PAIRS}; a lower bound, never above ln(rows), and too low near it",
        "Hoffman & Johnson 2016, equation 14; the bound: Poole et al. 2019, section 2.3", mutual_information, LATENTS, group=Group.DENSITY,
    ),
    Metric(
        "aggregate_kl", "KL of all posteriors together to the prior", "nats", Direction.LOWER, f"{PAIRS}; mean KL less `mutual_information`: an upper bound",
        "Hoffman & Johnson 2016, equation 14", aggregate_kl, LATENTS, group=Group.DENSITY,
    ),
)  # fmt: skip
