"""The board: a pure function of result files and the challenge's rules; equal files give equal bytes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vaestro.arena import result as results
from vaestro.arena.challenge import Published, Rules
from vaestro.arena.folder import Arena, open_arena
from vaestro.arena.removal import removed
from vaestro.arena.result import LARGEST, Cell, Result
from vaestro.errors import UsageError, VaestroError
from vaestro.evaluation import intervals
from vaestro.evaluation.metrics import METRICS, Direction
from vaestro.training.files import write_json

FORMAT = 1
DIGITS = 6  # significant ones in the JSON, so that another machine's rounding does not show
State = Literal["ranked", "unranked", "disqualified", "incomplete", "failed"]
ORDER: tuple[State, ...] = ("ranked", "unranked", "disqualified", "incomplete", "failed")


@dataclass(frozen=True)
class Entry:
    """What is known of one run: its result and the scores of its rows."""

    result: Result
    rows: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Column:
    """A metric as the board heads it."""

    name: str
    title: str
    unit: str
    direction: str
    protocol: str


@dataclass(frozen=True)
class Value:
    """A mean over the runs of one recipe; `low` and `high` are its 95 % interval, none where no error is known."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Line:
    """One recipe's line."""

    call: str
    state: State
    rank: int | None  # 1 + the entries that are significantly better
    rank_low: int | None
    rank_high: int | None
    values: Mapping[str, Value]
    none: Mapping[str, str]  # why a cell is empty
    seeds: tuple[int, ...]  # of the runs that the line stands on
    ids: tuple[str, ...]
    reasons: tuple[str, ...]  # why it is disqualified, if it is, and of the runs that failed


@dataclass(frozen=True)
class Board:
    """The lines in their order, with all that a reader must know of them."""

    challenge: str
    version: str
    title: str
    tier: str
    label: str
    headline: str
    rule: str
    rows: int
    these_runs_only: bool
    detectable: float | None  # in the headline's unit
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    better: tuple[tuple[str, str], ...]  # pairs of ranked calls, the first significantly better
    published: tuple[Published, ...]

    @property
    def ranked(self) -> tuple[Line, ...]:
        """The lines that have a rank."""
        return tuple(line for line in self.lines if line.state == "ranked")

    def column(self, name: str) -> Column:
        """A column by its metric's name."""
        return next(c for c in self.columns if c.name == name)

    def to_json(self) -> dict[str, Any]:
        """The board as JSON, numbers to six digits."""
        published = [p.model_dump() for p in self.published]
        return dict(_rounded({"format": FORMAT, **{k: v for k, v in vars(self).items() if k != "published"}})) | {"published": published}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {str(k): _rounded(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_rounded(v) for v in value]
    return _rounded(asdict(value)) if isinstance(value, Column | Line | Value) else value


def board(folder: Path | str) -> Board:
    """The board of an arena's folder.

    Raises UsageError where there are no results, VaestroError for one that is malformed, altered, given twice, or of another challenge, version, tier or data.
    """
    arena = open_arena(folder)
    return make(arena.challenge.rules, arena.tier, [load(arena, path) for path in arena.results], removed(arena.folder))


def load(arena: Arena, path: Path) -> Entry:
    """One result with its rows, checked against the arena's challenge."""
    found = results.read(path)
    rules, about = arena.challenge.rules, found.challenge
    due = {"name": rules.name, "version": rules.version, "tier": arena.tier, "data": rules.data.sha256, "sha256": rules.sha256(arena.tier)}
    words = {"name": "challenge", "version": "version", "tier": "tier", "data": "data hash", "sha256": "hash of the rules"}
    for key, value in due.items():
        if getattr(about, key) != value:
            raise VaestroError(f"{path} is of another {words[key]} ({getattr(about, key)!r}, and the board's is {value!r}); move it to an arena of its own")
    if beyond := rules.tier(arena.tier).excess(found.steps, found.seconds, found.parameters):
        raise VaestroError(f"{path}: {beyond}; delete it and run the challenge again")
    rows = results.arrays(path.parent, found, "rows")
    lacking = [n for n, c in found.metrics.items() if c.per_row and n not in rows]
    if lacking:
        raise VaestroError(f"{path} says that it has the rows of {lacking[0]}, and its rows file has not; delete it and run the challenge again")
    for name, cell in found.metrics.items():
        wrong = _unlike(name, cell) or (_forged(cell, rows[name]) if cell.per_row else "")
        if wrong:
            raise VaestroError(f"{path}: {wrong}; delete it and run the challenge again")
    return Entry(found, {n: r for n, r in rows.items() if n in found.metrics and found.metrics[n].per_row})


def _unlike(name: str, cell: Cell) -> str:
    """Why a cell is not of the metric that this version measures under its name, if it is not."""
    if name not in METRICS or (cell.unit, cell.direction) == (METRICS[name].unit, METRICS[name].direction.value):
        return ""
    known = METRICS[name]
    return f"its {name} is in {cell.unit or 'no unit'} ({cell.direction}), and this version measures it in {known.unit or 'no unit'} ({known.direction.value})"


def _forged(cell: Cell, rows: np.ndarray) -> str:
    """Why rows are not those of a cell, if they are not: they are numbers, and their mean is its value."""
    if rows.ndim != 1 or not len(rows) or rows.dtype.kind not in "fiu":
        return f"the rows of its {cell.title} are {rows.dtype} values shaped {rows.shape}, and one number for each row is wanted"
    astray = ~(np.abs(rows) <= LARGEST)
    if astray.any():
        return f"row {int(astray.argmax())} of its {cell.title} is not finite, or too large to be compared"
    mean = float(rows.mean(dtype=np.float64))
    close = 1e-6 * max(abs(cell.value), float(rows.std(dtype=np.float64)))
    return "" if abs(mean - cell.value) <= close else f"its {cell.title} is {cell.value:g}, and its rows have the mean {mean:g}"


def make(rules: Rules, tier: str, entries: Sequence[Entry], out: Mapping[str, str] | None = None) -> Board:
    """The board of these results; `out` are the calls that are disqualified, each with its reason: they stay visible, and nobody is compared with them.

    Raises as `board` does.
    """
    out = out or {}
    settings = rules.tier(tier)
    if not entries:
        raise UsageError(f"there are no results of challenge {rules.name!r}, tier {tier!r} yet; run it first")
    groups = grouped(entries, settings.seeds)
    standing = [e for e in entries if e.result.call not in out]
    _require_same_rows(standing, rules.headline.metric)
    complete = {call: runs for call, runs in groups.items() if call not in out and _complete(runs, settings.seeds, rules.headline.metric)}
    found = _ranks(list(complete.values()), rules.headline.metric)
    places = {call: (int(found.rank[i]), int(found.low[i]), int(found.high[i])) for i, call in enumerate(complete)} if found else {}
    names = rules.measured(settings)
    lines = [_line(call, runs, names, len(settings.seeds), places.get(call) or out.get(call)) for call, runs in groups.items()]
    loss = _loss(rules.headline.metric)
    lines.sort(key=lambda x: (ORDER.index(x.state), x.rank or 0, loss(x.values[rules.headline.metric].mean) if x.state == "ranked" else 0.0, x.call))
    calls = list(complete)
    better = tuple((calls[i], calls[j]) for i, j in zip(*np.nonzero(found.better), strict=True)) if found else ()
    smallest = found.detectable if found and math.isfinite(found.detectable) else None
    columns = tuple(_column(name, entries) for name in names)
    rows = max((len(r) for e in standing for r in e.rows.values()), default=settings.rows)
    return Board(
        rules.name, rules.version, rules.title, tier, settings.label, rules.headline.metric, rules.headline.rule, rows,
        len(settings.seeds) < intervals.SEEDS_FOR_A_RECIPE, smallest, columns, tuple(lines), tuple(sorted(better)), rules.published,
    )  # fmt: skip


def _column(name: str, entries: Sequence[Entry]) -> Column:
    """A column under the protocol that its cells were made under, whatever this version would do; where they were made under several, each is named."""
    m = METRICS[name]
    held = sorted({e.result.metrics[name].protocol for e in entries if name in e.result.metrics})
    return Column(m.name, m.title, m.unit, m.direction.value, " | ".join(held) or m.protocol)


def grouped(entries: Sequence[Entry], seeds: Sequence[int]) -> dict[str, list[Entry]]:
    """The runs of each call, by seed; raises VaestroError for two of one seed, or a foreign seed."""
    groups: dict[str, dict[int, Entry]] = {}
    for entry in sorted(entries, key=lambda e: (e.result.call, e.result.seed, e.result.id)):
        found = entry.result
        if found.seed not in seeds:
            raise VaestroError(f"result {found.id} has seed {found.seed}, which is none of the tier's seeds {', '.join(map(str, seeds))}; take it out")
        if found.seed in groups.setdefault(found.call, {}):
            first = groups[found.call][found.seed].result.id
            raise VaestroError(f"{found.call!r} with seed {found.seed} has two results ({first} and {found.id}); keep one of them")
        groups[found.call][found.seed] = entry
    return {call: list(runs.values()) for call, runs in groups.items()}


def _require_same_rows(entries: Sequence[Entry], metric: str) -> None:
    """Raises VaestroError for runs whose `metric` was scored on unlike numbers of rows; others may look at fewer of some models than of others."""
    sizes = {len(e.rows[metric]): e.result.id for e in entries if metric in e.rows}
    if len(sizes) > 1:
        names, numbers = " and ".join(sorted(sizes.values())[:2]), ", ".join(map(str, sorted(sizes)))
        raise VaestroError(f"results {names} were scored on unlike numbers of rows ({numbers}); score them on the same rows, or disqualify one")


def _done(runs: Sequence[Entry]) -> list[Entry]:
    return [e for e in runs if e.result.status == "done"]


def _complete(runs: Sequence[Entry], seeds: Sequence[int], metric: str) -> bool:
    """Whether all runs have a value that can be compared: a ratio of nought is infinitely far from one."""
    held = [e.result.metrics[metric].value for e in _done(runs) if metric in e.result.metrics]
    return len(held) == len(seeds) and all(math.isfinite(_loss(metric)(value)) for value in held)


def _loss(metric: str) -> Any:
    return METRICS[metric].direction.loss


def _ranks(groups: Sequence[Sequence[Entry]], metric: str) -> intervals.Ranks | None:
    """Ranks by paired differences of losses."""
    return intervals.ranks(differences(groups, metric)) if groups else None


def differences(groups: Sequence[Sequence[Entry]], metric: str) -> intervals.Estimate:
    """The paired differences of the losses of some recipes' runs, [i, j] = i - j: on the same seeds, and on the same rows where it is a mean over as many.

    A loss is the metric itself where lower is better, its negative where higher is, and |ln value| or |value| where nearer to one or to zero is.
    """
    direction = METRICS[metric].direction
    by_row = all(e.result.metrics[metric].per_row for runs in groups for e in runs)
    sizes = {len(e.rows[metric]) for runs in groups for e in runs} if by_row else set()
    if len(sizes) == 1 and min(sizes) > 1 and direction in (Direction.LOWER, Direction.HIGHER):
        sign = 1.0 if direction is Direction.LOWER else -1.0
        return intervals.pairwise(sign * np.array([[e.rows[metric] for e in runs] for runs in groups]))
    held = [[e.result.metrics[metric] for e in runs] for runs in groups]
    losses = np.array([[direction.loss(c.value) for c in cells] for cells in held])
    scale = np.array([[1 / abs(c.value) if direction is Direction.ONE else 1.0 for c in cells] for cells in held])  # of |ln v|
    errors = np.array([[math.nan if c.error is None else c.error for c in cells] for cells in held]) * scale
    return intervals.pairwise_values(losses, errors)


def _line(call: str, runs: Sequence[Entry], names: Sequence[str], seeds: int, place: tuple[int, int, int] | str | None) -> Line:
    """A line with its place, or why it is disqualified, or neither."""
    done = _done(runs)
    values, none = {}, {}
    for name in names:
        held = [(e, e.result.metrics[name]) for e in done if name in e.result.metrics]
        if held and len(held) == len(done):
            values[name] = _value(name, held)
        else:
            none[name] = next((e.result.refused[name] for e in done if name in e.result.refused), "no run was finished" if not done else "it was not measured")
    out = isinstance(place, str)
    rank, low, high = (None, None, None) if place is None or isinstance(place, str) else place
    state: State = "disqualified" if out else "ranked" if place else "failed" if not done else "incomplete" if len(done) < seeds else "unranked"
    reasons = (*([place] if isinstance(place, str) else []), *(f"seed {e.result.seed}: {e.result.reason}" for e in runs if e.result.status == "failed"))
    return Line(call, state, rank, low, high, values, none, tuple(e.result.seed for e in done), tuple(e.result.id for e in runs), reasons)


def _value(name: str, held: Sequence[tuple[Entry, Cell]]) -> Value:
    """The mean over seeds with its interval: crossed with rows where there are rows, and as many of them for every seed."""
    sizes = {len(e.rows[name]) if c.per_row else 0 for e, c in held}
    if len(sizes) == 1 and min(sizes) > 1:
        found = intervals.of_recipe(np.array([e.rows[name] for e, _ in held]))
    elif all(c.error is not None for _, c in held):
        found = intervals.of_values(np.array([c.value for _, c in held]), np.array([c.error for _, c in held]))
    else:
        return Value(float(np.mean([c.value for _, c in held])), None, None)
    return Value(found.mean, found.low, found.high) if found.error > 0 else Value(found.mean, None, None)


def write_board(folder: Path | str) -> Path:
    """Write `board.json` into an arena's folder, atomically."""
    path = Path(folder) / "board.json"
    write_json(path, board(folder).to_json())
    return path
