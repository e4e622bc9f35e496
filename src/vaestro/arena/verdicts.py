"""Which entry is best for which job, how sure that is, what it cannot do, and when a classical row wins: from a board's numbers alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vaestro.arena.board import Board, Entry, Line, Value, differences
from vaestro.arena.words import DESCRIBING
from vaestro.evaluation import intervals
from vaestro.evaluation.metrics import METRICS
from vaestro.evaluation.metrics.base import Group
from vaestro.recipes import RECIPES

COPIES = 0.1  # share of samples that are copies of training rows, above which an entry makes nothing new
SUSPECT = 5.0  # standard errors by which a gap between splits may exceed that of the others
ALIKE = 1.5  # the greatest ratio of training times that counts as equal budgets


class Job(NamedTuple):
    """Something a model is used for, and the metrics that can decide it, the first of them that a board has."""

    name: str
    what: str
    metrics: tuple[str, ...]


JOBS = (
    Job("density", "telling how likely a row is", ("nll", "bits_per_dim", "ais", "excess_nats")),
    Job("samples", "making new rows", ("fid", "frechet_judge", "fd_effnetlite0", "frechet_pca64", "modes_caught", "energy")),
    Job("reconstruction", "giving a row back from its code", ("reconstruction_mse", "psnr", "cross_entropy")),
    Job("representation", "codes that know what a row is", ("linear_probe", "knn_probe", "mig", "dci_disentanglement", "cluster_nmi", "mutual_information")),
)
COST = Job("cost", "the least expense among the entries that nothing beats by the headline", ("seconds", "parameters", "steps"))


@dataclass(frozen=True)
class Standing:
    """The entries that have a number of one metric and all their runs, best mean first, and which are significantly better than which."""

    metric: str
    lines: tuple[Line, ...]
    better: frozenset[tuple[str, str]] | None  # pairs of calls, the first better; None where an error is unknown

    @property
    def best(self) -> Line:
        """The best mean; of equal ones the first of the board."""
        return self.lines[0]

    def value(self, line: Line) -> Value:
        """The number of a line."""
        return line.values[self.metric]

    def over(self, line: Line) -> tuple[str, ...]:
        """The calls that a line is significantly better than, best first."""
        return () if self.better is None else tuple(x.call for x in self.lines if (line.call, x.call) in self.better)

    def above(self, line: Line) -> tuple[str, ...]:
        """The calls that are significantly better than a line, best first."""
        return () if self.better is None else tuple(x.call for x in self.lines if (x.call, line.call) in self.better)

    def level(self, line: Line) -> tuple[str, ...]:
        """The calls that are not told apart from a line, best first."""
        known = {line.call, *self.over(line), *self.above(line)}
        return () if self.better is None else tuple(x.call for x in self.lines if x.call not in known)


@dataclass(frozen=True)
class Verdict:
    """The answer for one job: its standing, and who was left out of it with the reason."""

    job: Job
    standing: Standing
    left_out: Mapping[str, str]


def is_classical(call: str) -> bool:
    """Whether an entry is a classical row."""
    name = call.partition(":")[0]
    return name in RECIPES and RECIPES[name].group == "classical"


def standing(made: Board, entries: Sequence[Entry], metric: str, out: Mapping[str, str] | None = None) -> Standing | None:
    """Who stands where by one metric, paired and corrected by Holm over its pairs; None where fewer than two entries have a number.

    Entries that are disqualified, unfinished or in `out` are left out, as are values without a loss (a ratio of nought where one is best).
    """
    loss = METRICS[metric].direction.loss
    able = [x for x in made.lines if x.state in ("ranked", "unranked") and metric in x.values and x.call not in (out or {})]
    able = sorted((x for x in able if math.isfinite(loss(x.values[metric].mean))), key=lambda x: loss(x.values[metric].mean))
    if len(able) < 2:
        return None
    runs = {x.call: sorted((e for e in entries if e.result.call == x.call), key=lambda e: e.result.seed) for x in able}
    if not can_test(metric, list(runs.values())):
        return Standing(metric, tuple(able), None)
    found = intervals.ranks(differences(list(runs.values()), metric))
    pairs = [(a.call, b.call) for i, a in enumerate(able) for j, b in enumerate(able) if found.better[i, j]]
    return Standing(metric, tuple(able), frozenset(pairs))


def can_test(metric: str, groups: Sequence[Sequence[Entry]]) -> bool:
    """Whether differences can be tested: every error is known, and not all are nought while too few seeds show a spread; counts and timings are not."""
    cells = [e.result.metrics[metric] for runs in groups for e in runs]
    known = all(c.error is not None and math.isfinite(METRICS[metric].direction.loss(c.value)) for c in cells)
    spread = any(c.error for c in cells) or len(groups[0]) >= intervals.SEEDS_FOR_A_RECIPE
    return known and spread and METRICS[metric].group is not Group.COST


def copies(made: Board) -> dict[str, str]:
    """The entries whose samples are training rows again, each with its share."""
    found = {}
    for line in made.lines:
        for name in (n for n in line.values if n.startswith("copied_")):
            value = line.values[name]
            if (value.mean if value.low is None else value.low) > COPIES:
                found[line.call] = f"{value.mean:.0%} of its samples are copies of training rows"
    return found


def verdicts(made: Board, entries: Sequence[Entry]) -> tuple[Verdict, ...]:
    """A verdict for each job that the board can decide; a headline that belongs to a job decides it."""
    names, found = [c.name for c in made.columns], []
    for job in JOBS:
        out = copies(made) if job.name == "samples" else {}
        wanted = sorted((m for m in job.metrics if m in names), key=lambda m: m != made.headline)
        placed = next((s for s in (standing(made, entries, m, out) for m in wanted) if s), None)
        if placed:
            found.append(Verdict(job, placed, out))
    return tuple(found)


def criteria(made: Board, entries: Sequence[Entry]) -> tuple[Standing, ...]:
    """The standing by every column that judges, in the board's order."""
    found = (standing(made, entries, c.name) for c in made.columns if c.name not in (*DESCRIBING, "split_gap"))
    return tuple(s for s in found if s)


class Thrift(NamedTuple):
    """What good numbers cost: the metric of cost, the cheapest entry of all, and those worth more, each better than all cheaper ones before it."""

    metric: str
    front: tuple[Line, ...]
    unbeaten: Line  # the cheapest of those that nothing beats, nor leads by more than the board would find


def thrift(made: Board) -> Thrift | None:
    """The entries worth their cost, cheapest first: each significantly better by the headline than every cheaper one that is worth its own.

    Cost is training time; where the rules give all trained entries the same, it is their parameters, and entries without any are left out: they keep the
    training rows themselves. None where the board has no such column, or no two ranks.
    """
    name = next((m for m in _costs(made) if all(m in x.values for x in made.ranked)), None)
    if name is None:
        return None
    cheap = sorted((x for x in made.ranked if name != "parameters" or x.values[name].mean > 0), key=lambda x: (x.values[name].mean, x.rank))
    good = _good(made, cheap)
    if len(cheap) < 2 or not good:
        return None
    front: list[Line] = []
    for line in cheap:
        if all((line.call, x.call) in made.better for x in front):
            front.append(line)
    return Thrift(name, tuple(front), good[0])


def _good(made: Board, lines: Sequence[Line]) -> list[Line]:
    """Those that may be the best, in their order: nothing beats them, and no mean is better by more than the board would find; seeds all over beat nothing."""
    losses = {x.call: METRICS[made.headline].direction.loss(x.values[made.headline].mean) for x in made.ranked}
    reach = min(losses.values(), default=0.0) + (math.inf if made.detectable is None else made.detectable)
    return [x for x in lines if x.rank_low == 1 and losses[x.call] <= reach]


def _costs(made: Board) -> list[str]:
    """The columns of cost that the board has, the telling one first."""
    found = [m for m in COST.metrics if any(c.name == m for c in made.columns)]
    times = [x.values["seconds"].mean for x in made.ranked if "seconds" in x.values and not is_classical(x.call)]
    equal = bool(times) and max(times) <= ALIKE * min(times)
    return sorted(found, key=lambda m: m == "seconds") if equal else found


def suspects(made: Board) -> tuple[str, ...]:
    """The entries whose validation rows score worse than test rows by far more than those of the others: a sign that test rows were learnt."""
    gaps = {x.call: x.values["split_gap"].mean for x in made.lines if "split_gap" in x.values and x.state == "ranked"}
    found = []
    for call, gap in gaps.items():
        others = sorted(g for c, g in gaps.items() if c != call)
        if len(others) > 1 and gap > others[len(others) // 2] + SUSPECT:
            found.append(call)
    return tuple(found)
