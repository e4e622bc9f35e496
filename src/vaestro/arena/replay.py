"""A row made again: trained from what its result recorded, scored anew, and compared."""

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from scipy import stats

from vaestro.arena.board import board, load
from vaestro.arena.challenge import Challenge, load_challenge
from vaestro.arena.entry import RUNS, Own, register
from vaestro.arena.folder import Arena, named, open_arena
from vaestro.arena.result import Cell, Result
from vaestro.arena.scoring import score
from vaestro.errors import UsageError, VaestroError
from vaestro.evaluation.intervals import JACKKNIFE_DF, LEVEL
from vaestro.evaluation.metrics import METRICS
from vaestro.evaluation.metrics.base import Group
from vaestro.progress import tell
from vaestro.recipes import Call, recorded
from vaestro.training import runs
from vaestro.training.budget import Budget
from vaestro.training.device import machine
from vaestro.training.files import file_sha256
from vaestro.training.record import Line
from vaestro.training.runs import ABOUT, Run, read_about
from vaestro.training.train import Plan

SAME = 1e-5  # relative: what other libraries may change in a number that has no interval


@dataclass(frozen=True)
class Again:
    """One metric, recorded and replayed; `low` and `high` are the recorded run's own 95 % interval, over rows or by resampling."""

    metric: str
    unit: str
    recorded: float
    replayed: float
    low: float
    high: float

    @property
    def within(self) -> bool:
        """Whether the replayed value lies in the interval, or is equal but for rounding."""
        return self.low <= self.replayed <= self.high or math.isclose(self.recorded, self.replayed, rel_tol=SAME)


@dataclass(frozen=True)
class Replay:
    """A run beside its replay."""

    id: str
    call: str
    seed: int
    steps: int
    equal: bool  # the weights, bit for bit
    same_machine: bool  # and versions and threads: then the weights should be equal
    scores: tuple[Again, ...]
    lost: tuple[str, ...]  # metrics that the replay has no value of

    @property
    def sound(self) -> bool:
        """Whether every score came again."""
        return not self.lost and all(s.within for s in self.scores)

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {**vars(self), "sound": self.sound, "scores": [{**vars(s), "within": s.within} for s in self.scores], "lost": list(self.lost)}


def replay(folder: Path | str, name: str | None = None, own: Path | str | None = None) -> list[Replay]:
    """Train runs of an arena again, from their recorded call, seed, threads, steps and data hash, and compare the weights and every score.

    `name` is a result's ID, or a call, which means all its seeds; by default the leader's. A replayed score is sound inside the recorded run's own 95 %
    interval: value -+ t x standard error over the same rows (or of the resampled set). What only a clock says is not compared. `own` is the user's file of an
    entry that came from one. Nothing is written into the arena.
    Raises UsageError for a name that is not there, a failed run or one that recorded too little, VaestroError where data or the user's file have changed.
    """
    arena = open_arena(folder)
    if name is None:
        ranked = board(folder).ranked
        if not ranked:
            raise UsageError(f"nothing is ranked in {folder} yet, so there is no leader to replay; name an entry or a result")
        name = ranked[0].call
    found = named(arena, name)
    place = replace(load_challenge(arena.challenge.where), rules=arena.challenge.rules)  # its data may lie in a folder of their own
    return [_replayed(arena, place, r, None if own is None else Path(own)) for r in found]


def _replayed(arena: Arena, challenge: Challenge, result: Result, own: Path | None) -> Replay:
    load(arena, arena.folder / "results" / f"{result.id}.json")  # of this version, tier and data, and unaltered
    if result.status == "failed":
        raise UsageError(f"{result.id} failed ({result.reason}), so there is nothing to replay; `vaestro arena run --retry` tries it again")
    data, threads, tier = challenge.open_data(), int(result.machine.get("threads", 1)), challenge.rules.tier(arena.tier)
    with tempfile.TemporaryDirectory() as place, _threads(threads):
        run = _trained(Plan(_call(result, own), data, _budget(arena, result), result.seed), Path(place) / result.id, challenge)
        same = machine() == result.machine
        report, _, _ = score(run, data, challenge, tier)
        equal = run.about["weights_sha256"] == result.weights_sha256
    compared = {n: c for n, c in result.metrics.items() if METRICS[n].group is not Group.COST}
    values = {n: s.value for n, s in report.scores.items() if math.isfinite(s.value)}
    again = tuple(_again(n, c, values[n], tier.rows) for n, c in compared.items() if n in values)
    lost = tuple(n for n in compared if n not in values and n in challenge.rules.measured(tier))
    return Replay(result.id, result.call, result.seed, run.about["done_steps"], equal, same, again, lost)


def _call(result: Result, own: Path | None) -> Call:
    """The recorded call; a user's file is executed for it, if it is the one that the result names."""
    if result.own is not None:
        if own is None:
            raise UsageError(f"{result.call} comes from {result.own.file}, which is code of yours; name the file with --from")
        if not own.is_file() or file_sha256(own) != result.own.sha256:
            raise VaestroError(f"{own} is not the file that {result.id} was made with (its hash differs); bring the old one back")
        register(Own(str(own.absolute()), result.own.function, result.own.sha256))
    return recorded(result.call.partition(":")[0], result.keywords)


def _budget(arena: Arena, result: Result) -> Budget:
    """The steps that were bought then, and the one at which the run met its deadline, if it did."""
    about = arena.folder / RUNS / result.id
    planned = result.planned
    if planned is None and (about / ABOUT).is_file():
        planned = read_about(about)["steps"]
    if planned is None and result.reason == "budget":
        planned = result.steps
    if planned is None or result.steps is None:
        raise UsageError(f"{result.id} does not say how many steps its schedules ran over, so it cannot be trained again; run the challenge anew")
    return Budget(max(planned, 1), stop=result.steps if result.reason.startswith("deadline") else None)


def _trained(plan: Plan, folder: Path, challenge: Challenge) -> Run:
    """The run trained again, telling how far it is."""
    total = plan.budget.steps or 1

    def watch(line: Line) -> None:
        tell(f"replaying {plan.call}, seed {plan.seed}", min(float(line.get("step", 0)) / total, 1.0))

    return runs.train(plan, folder, source=challenge.source, watch=watch)


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """So many threads of torch, and afterwards as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _again(name: str, cell: Cell, value: float, rows: int) -> Again:
    """A metric with the recorded run's interval."""
    half = (cell.error or 0.0) * float(stats.t.ppf(0.5 + LEVEL / 2, max(rows - 1, 1) if cell.per_row else JACKKNIFE_DF))
    return Again(name, cell.unit, cell.value, value, cell.value - half, cell.value + half)
