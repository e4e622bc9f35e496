"""Keywords searched by successive halving on validation rows; test rows are never read."""

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from vaestro.data import load
from vaestro.errors import UsageError, VaestroError
from vaestro.evaluation.intervals import Interval, of_recipe, of_values
from vaestro.recipes import Call, parse
from vaestro.recipes.files import bring
from vaestro.seeds import mix
from vaestro.training.budget import Budget
from vaestro.training.files import file_sha256, locked, read_json, write_json
from vaestro.training.process import cores
from vaestro.uses.search.attempt import Attempt, Outcome, done_by
from vaestro.uses.search.space import OneOf, Ranges, Real, Whole, defaults, merged, ranges

FILE, TRIALS = "search.json", "trials"
BRACKETS, FRUITLESS = 3, 2  # most brackets, and how many in a row may find nothing better
RUNGS = ((9, 1), (3, 3), (1, 9))  # calls, and units of training of each: a third goes on, three times as long
SEEDS = 3  # of a call that reached the last rung, the default among them
UNITS = SEEDS * RUNGS[-1][1] + BRACKETS * (sum(n * units for n, units in RUNGS) + (SEEDS - 1) * RUNGS[-1][1])
SHARE = 0.85  # of the seconds go to training; the rest to starting, scoring and noise
LEAST = 0.25  # seconds of training that a unit must have


@dataclass(frozen=True)
class Searching:
    """How a search goes about it."""

    over: tuple[str, ...] | None = None  # the keywords; by default those that `space.ranges` says
    jobs: int = 1
    seed: int = 0
    own: Path | None = None  # the user's file of recipes


@dataclass(frozen=True)
class Tried:
    """A call with its scores at the last rung that it reached."""

    call: str
    units: int  # of training; nine at the last rung
    values: tuple[float, ...]  # one a seed
    failed: str = ""


@dataclass(frozen=True)
class Found:
    """What a search came to; intervals are over seeds and validation rows, and optimistic, for these rows chose the call."""

    best: str
    metric: str
    unit: str
    interval: Interval | None  # of the best call
    gain: Interval | None  # of the default's score minus the best one's, on the same seeds and rows; none where the default is best or failed
    ended: str
    over: tuple[str, ...]
    tried: tuple[Tried, ...]  # the best first
    folder: Path

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {**asdict(self), "folder": str(self.folder)}


Finals: TypeAlias = list[Outcome]  # of one call, one a seed


@dataclass
class Search:
    """The state of a search in its folder: all that is stored are finished attempts, and what is asked next is a function of them."""

    call: Call
    data: str
    unit: Budget  # of training
    space: Ranges
    how: Searching
    folder: Path
    began: float  # by the wall
    table: dict[str, Tried] = field(default_factory=dict)

    def attempts(self, calls: Sequence[str], units: int, seeds: Sequence[int]) -> list[Attempt]:
        """What trains these calls with each of the seeds for so many units."""
        steps = None if self.unit.steps is None else self.unit.steps * units
        seconds = None if self.unit.seconds is None else self.unit.seconds * units
        own, threads = "" if self.how.own is None else str(self.how.own), max(1, cores() // self.how.jobs)
        places = {(c, s): hashlib.sha256(json.dumps([c, s, units]).encode()).hexdigest()[:12] for c in calls for s in seeds}
        folder, fixed = self.folder / TRIALS, 1 if steps else threads
        return [Attempt(c, self.data, s, seconds, steps, str(folder / f"{self.call.entry.name}-{name}"), fixed, own) for (c, s), name in places.items()]

    def rung(self, calls: Sequence[str], units: int, seeds: Sequence[int], what: str) -> dict[str, Finals]:
        """The outcomes of calls at a rung, by call."""
        jobs = self.attempts(calls, units, seeds)
        found = done_by(jobs, self.how.jobs, what)
        finals: dict[str, Finals] = {c: [o for j, o in zip(jobs, found, strict=True) if j.call == c] for c in calls}
        for c, outcomes in finals.items():
            failed = next((o.failed for o in outcomes if o.failed), "")
            if c not in self.table or self.table[c].units <= units:  # a call may be proposed again
                self.table[c] = Tried(c, units, () if failed else tuple(o.value for o in outcomes), failed)
        return {c: o for c, o in finals.items() if not any(x.failed for x in o)}

    def seeds(self, count: int) -> list[int]:
        """The first seeds."""
        return [self.how.seed + i for i in range(count)]


def search(recipe: str, data: str, budget: Budget, out: Path | str, how: Searching | None = None) -> Found:
    """Search a recipe's keywords by successive halving on validation rows, and return the best call with all that was tried.

    Brackets of nine calls (Optuna's tree of Parzen estimators proposes them, knowing all that was tried) train for one unit; the best third goes on for three,
    the best of these for nine units with three seeds, each time anew, so that every schedule ends (Jamieson & Talwalkar 2016, section 3). Scores are bits per
    dimension, else nats, of up to 1,000 validation rows by 32 importance samples; of a model without a density its own validation loss. The search stops
    with its budget, or when two brackets in a row have found nothing that the paired 95 % interval over seeds and rows tells apart from the best so far.
    `budget` is of all processes: seconds of the wall, or steps. `data` is a name or a path. Stopped and called again with the same request it goes on.
    Raises UsageError for a budget that is too small, keywords that cannot be searched, another search in the folder, a missing Optuna.
    """
    how = how or Searching()
    bring(how.own)
    if how.jobs < 1:
        raise UsageError(f"jobs is {how.jobs}, and at least 1 process is needed")
    call, held = parse(recipe), load(data)
    space = ranges(call, held.schema, how.over)
    _optuna()
    unit = unit_of(budget, how.jobs)
    folder = Path(out)
    try:
        (folder / TRIALS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VaestroError(f"cannot make the folder {folder}: {error.strerror}; choose another with --out") from None
    with locked(folder):
        asked = {"format": 1, "call": str(call), "data": held.sha256, "budget": {"steps": budget.steps, "seconds": budget.seconds}, "seed": how.seed}
        asked["own file"] = None if how.own is None else file_sha256(how.own.expanduser())
        kept = _header(folder, asked | {"over": list(space), "unit": {"steps": unit.steps, "seconds": unit.seconds}})
        state = Search(call, data, Budget(kept["unit"]["steps"], kept["unit"]["seconds"]), space, how, folder, time.monotonic())
        return _searched(state, budget)


def unit_of(budget: Budget, jobs: int) -> Budget:
    """The training that a call has at the first rung; raises UsageError where the budget is too small to be divided so."""
    if budget.steps is not None:
        if budget.steps < UNITS:
            raise UsageError(f"{budget.steps} steps are too few for a search, which divides them into {UNITS} parts; give some thousands")
        return Budget(steps=budget.steps // UNITS)
    assert budget.seconds is not None
    seconds = SHARE * budget.seconds * jobs / UNITS
    if seconds < LEAST:
        raise UsageError(f"{budget.seconds:g} seconds are too few for a search; give at least {math.ceil(LEAST * UNITS / SHARE / jobs)} of them")
    return Budget(seconds=seconds)


def _header(folder: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the folder's search was asked for; a new folder is told, another request is refused."""
    path = folder / FILE
    if not path.is_file():
        write_json(path, asked)
    kept = read_json(path)
    differ = [k for k in asked if k != "unit" and kept.get(k) != asked[k]]  # more processes would buy longer units, and these are settled
    if differ:
        raise UsageError(f"{folder} holds another search ({differ[0]} is {kept.get(differ[0])!r}, now {asked[differ[0]]!r}); choose another folder with --out")
    return kept


def _searched(state: Search, budget: Budget) -> Found:
    """Brackets until the budget or the interval ends them."""
    default = str(state.call)
    best, fruitless, ended = default, 0, f"all {BRACKETS} brackets are done"
    finals = state.rung([default], RUNGS[-1][1], state.seeds(SEEDS), "the call as it is")
    first, study = finals.get(default), _study(state, finals.get(default))
    for number in range(BRACKETS):
        if budget.seconds is not None and time.monotonic() - state.began > budget.seconds * (1 - 0.5 / BRACKETS):
            ended = "the budget is spent"
            break
        won = bracket(state, study, f"bracket {number + 1} of {BRACKETS}")
        new = next(iter(won), "")
        gain = difference(finals[best], won[new]) if new and best in finals else None
        fruitless = 0 if new and (gain is None or gain.low > 0) else fruitless + 1
        if new and (gain is None or gain.mean > 0):
            best, finals = new, finals | won
        if fruitless == FRUITLESS:
            ended = f"{FRUITLESS} brackets in a row found nothing that the interval tells apart from the best: more cannot help at this length"
            break
    if best not in finals:
        raise VaestroError(f"every call failed, the first with: {state.table[default].failed}; mend the recipe, or search other keywords with --over")
    won_over = difference(first, finals[best]) if first and best != default else None
    of = finals[best][0]
    tried = sorted(state.table.values(), key=lambda t: (t.call != best, bool(t.failed), -t.units, np.mean(t.values) if t.values else 0.0))
    found = Found(best, of.metric, of.unit, interval(finals[best]), won_over, ended, tuple(state.space), tuple(tried), state.folder)
    write_json(state.folder / "found.json", found.to_json())
    return found


def bracket(state: Search, study: Any, what: str) -> dict[str, Finals]:
    """One round of halving: the winner with its outcomes for every seed; nothing where all failed."""
    optuna = _optuna()
    study.sampler = optuna.samplers.TPESampler(seed=mix(state.how.seed, len(study.trials)) % 2**32)  # so that a resumed search asks the same
    trials = [study.ask(_distributions(state.space)) for _ in range(RUNGS[0][0])]
    calls = [str(merged(state.call, t.params)) for t in trials]
    alive, final = list(dict.fromkeys(calls)), dict[str, Finals]()
    for number, (count, units) in enumerate(RUNGS):
        last = number == len(RUNGS) - 1
        final = state.rung(alive[:count], units, state.seeds(SEEDS if last else 1), f"{what}, rung {number + 1} of {len(RUNGS)}")
        alive = sorted(final, key=lambda c: float(np.mean([o.value for o in final[c]])))
        for t, c in zip(trials, calls, strict=True):
            if c in final:
                t.report(float(np.mean([o.value for o in final[c]])), units)
    for t, c in zip(trials, calls, strict=True):
        lost = optuna.trial.TrialState.FAIL if state.table[c].failed else optuna.trial.TrialState.PRUNED
        study.tell(t, float(np.mean(state.table[c].values))) if c in final else study.tell(t, state=lost)
    return final


def difference(first: Finals, other: Finals) -> Interval | None:
    """The first's score minus the other's, paired by seed, and by row where both have rows; none where they were scored by unlike measures."""
    if first[0].metric != other[0].metric:
        return None
    rows = {len(o.rows) for o in (*first, *other)}
    if len(rows) == 1 and min(rows) > 1:
        return of_recipe(np.array([a.rows for a in first]) - np.array([b.rows for b in other]))
    return of_values(np.array([a.value - b.value for a, b in zip(first, other, strict=True)]), np.zeros(len(first)))


def interval(finals: Finals) -> Interval:
    """A call's score over its seeds, and its rows where it has them."""
    if min(len(o.rows) for o in finals) > 1:
        return of_recipe(np.array([o.rows for o in finals]))
    return of_values(np.array([o.value for o in finals]), np.zeros(len(finals)))


def _optuna() -> Any:
    """The library that proposes keywords; raises UsageError where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise UsageError("a search needs Optuna; install it with: pip install 'vaestro[search]'") from None
    return optuna


def _study(state: Search, first: Finals | None) -> Any:
    """A study in memory that knows what the call as it is came to."""
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    if first is not None:
        params, value = defaults(state.call, state.space, load(state.data).schema), float(np.mean([o.value for o in first]))
        study.add_trial(optuna.trial.create_trial(params=params, distributions=_distributions(state.space), value=value))
    return study


def _distributions(space: Ranges) -> dict[str, Any]:
    """The ranges in Optuna's words."""
    optuna = _optuna()
    makers = {
        Whole: lambda r: optuna.distributions.IntDistribution(r.low, r.high, log=True),
        Real: lambda r: optuna.distributions.FloatDistribution(r.low, r.high, log=r.log),
        OneOf: lambda r: optuna.distributions.CategoricalDistribution(r.values),
    }
    return {name: makers[type(r)](r) for name, r in space.items()}
