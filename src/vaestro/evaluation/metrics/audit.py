"""Metrics that doubt what a model says of itself: whether its laws are laws, and whether it knows the test rows."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, OneHotCategorical, constraints

from vaestro.core import Batch, Draw, Model, Site, content, draw, normalised, run, take
from vaestro.data.schema import Kind, Table, levels
from vaestro.errors import UsageError
from vaestro.evaluation.likelihood import importance, standard_error
from vaestro.evaluation.mass import Mass, apart, of_columns, summed, verified, weighed
from vaestro.evaluation.metrics.base import METRICS, Direction, Group, Metric, Need, Report, Score
from vaestro.evaluation.metrics.subject import Subject
from vaestro.evaluation.peeking import peeks
from vaestro.evaluation.scope import count, device_of, each, evaluating, seeded, slice_rows
from vaestro.families.base import is_discrete, support_of
from vaestro.seeds import forked, mix

ROWS = 16  # that are audited
GRACE, SURE = 0.05, 5.0  # nats that rounding may claim, and standard errors that must lie above them, before nats are refused
SPLIT, FEW = 2000, 10  # validation rows at most, and importance samples: a bound tells two splits apart as well as many times the work would


class Claim(NamedTuple):
    """What one law of a model sums to: ln of its total, with its error; `gain` is how much of that the nats gain: 1, or -1 for a posterior."""

    what: str
    log: float
    error: float
    gain: int


def _of_data(dist: Distribution, kind: Kind, value: Tensor) -> tuple[float, float]:
    """`_total` of the law of data of this kind."""
    if isinstance(kind, Table) and not verified(dist):
        return _mean(of_columns(dist, kind.columns))
    return _total(dist, levels(kind), value)


def _mean(found: Mass) -> tuple[float, float]:
    return float(found.log.mean()), float(found.error.square().sum().sqrt() / len(found.error))


def _total(dist: Distribution, count: int, value: Tensor) -> tuple[float, float]:
    """ln of what a law sums to, and its error: exact for independent numbers, by draws for others."""
    if verified(dist):
        return 0.0, 0.0
    one_hot = isinstance(dist, Independent) and isinstance(dist.base_dist, OneHotCategorical)
    if isinstance(dist, Independent) and (count or one_hot or not is_discrete(dist)) and (one_hot or not dist.base_dist.event_shape):
        return float(summed(dist, count).mean() + apart(dist, value).mean()), 0.0
    return _mean(weighed(dist, count))


def _levels(dist: Distribution) -> int:
    """2 for bits, 0 for what else a latent may be."""
    base = dist.base_dist if isinstance(dist, Independent) else dist
    return 2 if support_of(base) is constraints.boolean else 0


def claims(subject: Subject) -> list[Claim]:
    """What each law of the model sums to, at 16 of the rows; raises UsageError for a model without a density, or laws that draws cannot tell of."""
    return subject.once("claims", lambda: list(_claims(subject)))


def _claims(subject: Subject) -> Iterator[Claim]:
    model, found = subject.model, list[Claim]()
    with forked(device_of(model)), evaluating(model):
        batch = slice_rows(next(iter(seeded(subject.rows(), subject.seed))), 0, ROWS)
        torch.manual_seed(mix(subject.seed, 17))
        rows = count(batch)

        def choose(site: Site) -> Draw:
            for law in (site.prior, site.posterior):
                if law is not None and not normalised(law):
                    raise UsageError(f"{subject.name} has no density, so there are no nats to audit: {site.name!r} is a point, or does not integrate to one")
            if site.name in batch and site.name in model.observed:
                x, its = content(batch[site.name]), site.name == subject.field.name
                told = _of_data(site.prior, subject.field.kind, x) if its else _total(site.prior, _levels(site.prior), x)
                found.append(Claim(f"p({site.name})", *told, 1))
                return Draw(x, site.prior, None, 0.0, 0.0, True)
            if site.posterior is None:
                return take(site, (rows,), None)
            q = site.posterior
            value, _ = draw(q, (rows,)[: 1 - len(q.batch_shape)])
            found.append(Claim(f"p({site.name})", *_total(site.prior, _levels(site.prior), value), 1))
            mass = weighed(q, _levels(q))
            found.append(Claim(f"q({site.name})", float(mass.log.mean()), float(mass.error.square().sum().sqrt() / len(mass.error)), -1))
            return Draw(value, site.prior, q, 0.0, 0.0, False)

        run(model.program(batch), choose)
    yield from found


def audit(subject: Subject) -> Score:
    """The nats a row that a model claims beyond what its laws sum to: sum of ln total of p's, less ln total of q's; 0 for an honest one."""
    found = claims(subject)
    return Score(sum(c.gain * c.log for c in found), math.sqrt(sum(c.error**2 for c in found)))


def lawless(subject: Subject) -> str:
    """Why the nats of a model are those of no law, in words: it reads the row that it scores, or it is scored otherwise than by its program."""
    model = subject.model
    if type(model).forward is not Model.forward:
        return f"{subject.name} has a forward of its own, and a model is scored by its program alone"
    with forked(device_of(model)), evaluating(model):
        site = peeks(model, slice_rows(next(iter(seeded(subject.rows(), subject.seed))), 0, ROWS))
    return f"reads the row that it scores: at the same latents, what it says of {site!r} is another for another row" if site else ""


def overclaimed(subject: Subject) -> str:
    """Why the nats of a model are not to be believed, in words; nothing where its audit holds, or cannot be made."""
    if reason := lawless(subject):
        return reason
    try:
        score, found = audit(subject), claims(subject)
    except UsageError:
        return ""
    if score.value <= GRACE + SURE * score.error:
        return ""
    worst = max(found, key=lambda c: c.gain * c.log)
    return f"overclaimed by {score.value:.1f} nats a row: exp(log {worst.what[0]}) of {worst.what[2:-1]!r} sums to e^{worst.log:.1f}, not to 1"


def hidden(subject: Subject) -> str:
    """Why the KL of a model, and its ELBO, are not to be believed, in words; nothing where the closed form agrees with log q - log p of the same draws."""
    gap = subject.likelihood.elbo - subject.likelihood.ladder[1]
    less = float(gap.mean())
    if not less > GRACE + SURE * standard_error(gap):
        return ""
    return f"overclaimed by {less:.1f} nats a row: the closed form of its KL says less than log q - log p of its own draws"


def believed(subject: Subject, report: Report) -> Report:
    """The report without the nats of a model whose laws are no laws, and without a KL that its own draws refute."""
    doubted = {n for n in ("elbo", "kl") if n in report.scores}
    if doubted and (reason := hidden(subject)):
        report = report.without(doubted, reason)
    barred = {n for n in report.scores if Need.DENSITY in METRICS[n].needs and n != "audit"}
    reason = overclaimed(subject) if barred else ""
    return report.without(barred, reason) if reason else report


def _beside(subject: Subject, split: str, most: int) -> Iterator[Batch]:
    device = device_of(subject.model)
    return ({n: each(v, lambda t: t.to(device)) for n, v in b.items()} for b in subject.beside.batches(split, most))


def split_gap(subject: Subject) -> Score:
    """(mean nats of validation rows - mean nats of the scored rows) / its standard error: above 0 where the scored rows are the easier ones.

    Both by the bound of few importance samples, the same number for both.

    Raises UsageError for a model without a density, and where the scored rows are not those of another split.
    """
    beside = subject.beside
    if beside.split == "validation":
        raise UsageError(f"{subject.name} was scored on the validation rows themselves; score the test split")
    few = max(k for k in subject.likelihood.ladder if k <= FEW)
    scored = -subject.likelihood.ladder[few]
    other = -importance(subject.model, _beside(subject, "validation", min(SPLIT, len(scored))), few, subject.seed, name=subject.name).log_px
    error = math.hypot(standard_error(scored), standard_error(other))
    if not error > 0:
        raise UsageError(f"{subject.name} gives all rows the same nats, or there is one row alone, so no gap can be told; score more rows")
    return Score(float(other.mean() - scored.mean()) / error, 1.0)


METRICS.enter(
    Metric(
        "audit", "nats claimed beyond what the laws sum to", "nats", Direction.LOWER,
        "16 rows; independent numbers by enumeration or quadrature, other laws and every posterior by their own draws, 2,000 at most",
        "importance sampling of a known total: Owen 2013, section 9.1", audit, frozenset({Need.DENSITY}), False, Group.HONESTY,
    ),
    Metric(
        "split_gap", "validation nats less test nats, in standard errors", "z", Direction.LOWER,
        "as many validation rows as scored, at most 2,000, by the bound of 10 samples; splits that differ in kind have a gap of their own: compare entries",
        "Welch 1947", split_gap, frozenset({Need.DENSITY, Need.SPLITS}), False, Group.HONESTY,
    ),
)  # fmt: skip
