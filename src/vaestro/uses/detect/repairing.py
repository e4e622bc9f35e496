"""The nearest plausible usual version of a strange row: what would have to be otherwise, the most telling change first."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from vaestro.core import Batch
from vaestro.data.prepare.columns import unpack
from vaestro.data.schema import Field, Table
from vaestro.errors import UsageError
from vaestro.evaluation.conformal import require_level
from vaestro.evaluation.likelihood import Rows
from vaestro.evaluation.metrics.subject import central, mean_of
from vaestro.evaluation.scope import device_of, evaluating
from vaestro.progress import tell
from vaestro.seeds import forked
from vaestro.uses.detect.calibrated import BLOCK, Detector
from vaestro.uses.detect.spoiling import Domain, domain

SINGLE = 64  # entries of a row up to which each is tried alone
PASSES = 20  # through the model, until an entry agrees with the others
PLAUSIBLE = 0.2  # the p-value that a repaired row shall have
AT_MOST = 5  # entries that are changed one by one
TRIED = 8  # of the changes of an entry, the best by one draw, that are compared under the same noise as the row itself
SHOWN = 5  # changes that a line holds
TELLING = (0.01, 0.05, 0.2)  # shares of calibration rows whose entry is further from its reconstruction than one that stays, tried in turn

Judge: TypeAlias = Callable[[Tensor], Rows]  # how strange versions [k, *shape] of a row are, all under one noise, [k]


class Change(NamedTuple):
    """One entry that was changed."""

    name: str  # of the column, or the place of the entry
    place: int  # in the flattened row
    before: Any
    after: Any
    gain: float  # how much less strange the row is for it, in the unit of the score; of a picture, how far the entry was from what the model expects


@dataclass(frozen=True)
class Repair:
    """A row, its nearest plausible version, and the changes, the most telling first."""

    row: int
    before: Tensor  # [*shape], unit values
    after: Tensor
    changes: tuple[Change, ...]
    score: tuple[float, float]  # before and after
    p: tuple[float, float]

    @property
    def text(self) -> str:
        """The changes in a line: `hour 3 -> 14; amount 900.0 -> 41.5`; of many the number, and the first."""
        if not self.changes:
            return "nothing: no version near it is less strange"
        few = "; ".join(f"{c.name} {_said(c.before)} -> {_said(c.after)}" for c in self.changes[:SHOWN])
        return few if len(self.changes) <= SHOWN else f"{len(self.changes)} entries: {few}; ..."

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        changes = [{"name": c.name, "before": _plain(c.before), "after": _plain(c.after), "gain": c.gain} for c in self.changes]
        return {"row": self.row, "p": list(self.p), "score": list(self.score), "changes": changes}


def repair(by: Detector, x: Tensor, rows: np.ndarray, plausible: float = PLAUSIBLE, at_most: int = AT_MOST) -> list[Repair]:
    """The nearest plausible version of each of the `rows` of `x` [n, *shape]: few entries changed, and a p-value of `plausible` where that can be had.

    Rows of up to 64 entries, and tables: every entry is replaced, one at a time, by what the model expects of it given the others (its likelihood's mean after
    passes through the posterior's mean, which is pseudo-Gibbs without noise: Rezende et al. 2014, appendix F; in a table it begins as not seen). The change
    after which the row is least strange stays, and so on until the row is plausible or `at_most` entries are changed.
    Larger rows: entries further from their reconstruction than all but 1 % of calibration rows have them are replaced together by it, again and again; so with
    5 and 20 %. Of these versions the least changed plausible one is taken, else the least strange.

    A row's score is the one that a detection of all of `x` gives it, and what a change is worth is told under one noise. Deterministic.
    Raises UsageError for a level outside (0, 1), a number of changes below 1, and a model without a posterior.
    """
    require_level(plausible, "the plausibility of a repair")
    if at_most < 1:
        raise UsageError(f"at most {at_most} entries may be changed, and a repair changes at least one; give a whole number from 1 upwards")
    able, field = domain(by.run.field.kind, by.held), by.run.field
    limit = by.threshold(plausible)
    single = isinstance(field.kind, Table) or field.size <= SINGLE
    usual = None if single else _tolerances(by, able)
    found, index = [], np.asarray(rows, dtype=np.int64)
    known = {int(first): by.score(x[first : first + BLOCK], int(first)) for first in np.unique(index // BLOCK * BLOCK)}
    for done, row in enumerate(index.tolist()):
        tell("repairing rows", done / max(len(rows), 1))
        one, own = x[row].to(by.held.dtype), float(known[row // BLOCK * BLOCK][row % BLOCK])
        judge = _judge(by, one, own)
        after, changes = _one_by_one(by, judge, one, able, limit, at_most) if usual is None else _together(by, judge, one, able, limit, usual)
        scores = np.array([own, judge(after[None])[0] if changes else own])
        p = by.p_values(scores)
        found.append(Repair(row, one, after, changes, (float(scores[0]), float(scores[1])), (float(p[0]), float(p[1]))))
    tell("repairing rows", 1.0)
    return found


def expected(by: Detector, x: Tensor) -> Tensor:
    """The likelihood's mean at the posterior's mean, [n, *shape]: what the model expects of each entry. Raises UsageError for a model without a posterior."""
    model, name = by.run.model, by.run.field.name
    device = device_of(model)
    parts = []
    with forked(device), evaluating(model):
        for block in x.split(500):
            torch.manual_seed(0)
            batch: Batch = {name: block.to(device)}
            trace = central(model, batch)
            if not trace.latents:
                raise UsageError(f"{by.run.about['call']} has no posterior, so it expects nothing of a given row; use a recipe such as vae")
            parts.append(mean_of(trace[name], by.run.name).expand(block.shape).cpu().to(x.dtype))
    return torch.cat(parts)


def _judge(by: Detector, one: Tensor, own: float) -> Judge:
    """Scores of versions of a row, each scored alone, so all under one noise, and moved by what the row itself is then off the score that it is known by."""
    alone = float(by.score(one[None])[0])
    off = own - alone if np.isfinite(own) and np.isfinite(alone) else 0.0
    return lambda versions: np.concatenate([by.score(v[None]) for v in versions]) + off


def _one_by_one(by: Detector, judge: Judge, one: Tensor, able: Domain, limit: float, at_most: int) -> tuple[Tensor, tuple[Change, ...]]:
    field, now, changes = by.run.field, one.clone(), list[Change]()
    left: list[int] = (~one.flatten().isnan()).nonzero()[:, 0].tolist()
    score = float(judge(now[None])[0])
    for _ in range(min(at_most, len(left))):
        tried = _each_entry(by, now, able, left)
        made = [_change(field, one, version, place, np.inf) for version, place in zip(tried, left, strict=True)]
        # of what stays as it is, noise alone would say that it is less strange
        other = np.array([i for i, c in enumerate(made) if c.before != c.after], dtype=np.int64)
        if not len(other):
            break
        few = other[by.score(tried[other]).argsort(kind="stable")[:TRIED]]
        scores = judge(tried[few])
        best, least = int(few[scores.argmin()]), float(scores.min())
        if not least < score:
            break
        changes.append(made[best]._replace(gain=score - least))
        now, score = tried[best], least
        left.pop(best)
        if score <= limit:
            break
    return now, tuple(changes)


def _each_entry(by: Detector, now: Tensor, able: Domain, left: list[int]) -> Tensor:
    """Versions of a row, in each of which one of the entries `left` is what the model expects of it given the others."""
    rows = torch.arange(len(left))
    place = torch.tensor(left)
    made = now.flatten().repeat(len(left), 1)
    middle = by.held.flatten(1).nanmedian(0).values
    made[rows, place] = float("nan") if isinstance(by.run.field.kind, Table) else middle[place]
    for _ in range(PASSES):
        back = expected(by, made.view(-1, *now.shape)).flatten(1)
        new = back[rows, place]
        settled = bool((new - made[rows, place]).abs().max() < 1e-4)  # NaN at the first pass of a table
        made[rows, place] = new
        if settled:
            break
    legal = able.snapped(made.view(-1, *now.shape)).flatten(1)
    made[rows, place] = legal[rows, place]
    return made.view(-1, *now.shape)


def _tolerances(by: Detector, able: Domain) -> list[Tensor]:
    """How far each entry may be from its reconstruction, [*shape]: all but a share of calibration rows are nearer, and at least half a step."""
    gaps = (by.held - expected(by, by.held)).abs().sort(0).values
    return [gaps[int((1 - share) * (len(gaps) - 1))].maximum(able.step / 2) for share in TELLING]


def _together(by: Detector, judge: Judge, one: Tensor, able: Domain, limit: float, usual: list[Tensor]) -> tuple[Tensor, tuple[Change, ...]]:
    versions = [one]
    for gap in usual:
        now = one
        for _ in range(PASSES):
            back = expected(by, now[None])[0]
            new = torch.where((one - back).abs() > gap, able.snapped(back), one)
            if torch.equal(new, now):
                break
            now = new
            versions.append(now)
    scores = by.score(torch.stack(versions))
    changed = np.array([float((v != one).sum()) for v in versions])
    fine = np.flatnonzero(scores <= limit)
    best = int(fine[changed[fine].argmin()]) if len(fine) else int(scores.argmin())
    after = versions[best]
    first, last = judge(torch.stack([one, after]))
    if not last < first:
        return one, ()
    far = (after - one).abs().flatten()
    places = far.argsort(descending=True)[: int((far > 0).sum())].tolist()
    return after, tuple(_change(by.run.field, one, after, p, float(far[p])) for p in places)


def _change(field: Field, before: Tensor, after: Tensor, place: int, gain: float) -> Change:
    a, b = float(before.flatten()[place]), float(after.flatten()[place])
    if isinstance(field.kind, Table):
        column = field.kind.columns[place]
        return Change(column.name, place, unpack(column, np.array([a]))[0], unpack(column, np.array([b]))[0], gain)
    where = tuple(int(i) for i in np.unravel_index(place, field.shape)) if field.shape else ()
    return Change(f"{field.name}[{', '.join(map(str, where))}]", place, a, b, gain)


def _said(value: Any) -> str:
    return "nothing" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
