"""Rows as they are scored for strangeness: from files, frames, arrays or data, by one score or by several weighed together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from vaestro.core import Batch
from vaestro.data.kinds import check, storage, survey
from vaestro.data.prepare.frames import is_frame
from vaestro.data.prepare.tables import rows_of_table
from vaestro.data.rows import Rows as Stored
from vaestro.data.rows import unit
from vaestro.data.schema import Table
from vaestro.data.store import Dataset
from vaestro.errors import UsageError
from vaestro.evaluation.likelihood import Rows
from vaestro.evaluation.metrics.subject import Subject
from vaestro.evaluation.outliers import strangeness
from vaestro.evaluation.scope import device_of
from vaestro.seeds import forked, mix
from vaestro.training.runs import Run
from vaestro.uses.evaluate import Protocol
from vaestro.uses.rows.inputs import Bring, exact, read
from vaestro.uses.rows.lots import require_same

AT_ONCE = 1000  # rows that are brought to the model together
Read: TypeAlias = tuple[Tensor, list[str]]  # rows in unit values [n, *shape], and what to know of them


def rows_of(run: Run, source: Any, bring: Bring = exact) -> Read:
    """The rows [n, *shape] that `source` means to a run, in unit values, and what to know of them.

    A path or several (.csv, .parquet, .npy, images), a frame or columns by name for a run on a table, an array in the units of the data, a tensor in unit
    values, or a data set, of which the test rows are taken. Raises UsageError for rows that do not fit the run, and for no rows.
    """
    field = run.field
    if isinstance(field.kind, Table) and (is_frame(source) or isinstance(source, dict)):
        packed, notes = rows_of_table(field, source)
        return torch.from_numpy(packed), notes
    x, notes = _brought(source, run, bring)
    if tuple(x.shape[1:]) != field.shape or x.dim() != 1 + len(field.shape):
        raise UsageError(f"the rows are shaped {tuple(x.shape)}, and {run.name} reads rows shaped {field.shape}: give [n, *that]")
    if not len(x):
        raise UsageError("there are no rows to look at; give at least one")
    return x, notes


@singledispatch
def _brought(source: object, run: Run, bring: Bring) -> Read:
    """Rows from one kind of source. Open."""
    raise UsageError(f"a {type(source).__name__} holds no rows for {run.name}; give a path, a frame, an array, a tensor or a data set")


@_brought.register(str)
@_brought.register(Path)
def _(source: str | Path, run: Run, bring: Bring) -> Read:
    return read([Path(source)], run.field, bring)


@_brought.register(list)
@_brought.register(tuple)
def _(source: Sequence[Any], run: Run, bring: Bring) -> Read:
    if not source or not all(isinstance(s, str | Path) for s in source):
        raise UsageError("a list of rows is a list of paths here; give one path or more, or an array")
    return read([Path(s) for s in source], run.field, bring)


@_brought.register
def _(source: np.ndarray, run: Run, bring: Bring) -> Read:
    field = run.field
    if isinstance(field.kind, Table):
        raise UsageError(f"an array has no names of columns, and {run.name} reads a table; give a .csv or .parquet file, a frame, or columns by name")
    if not source.size:
        raise UsageError("there are no rows to look at; give at least one")
    check(field, survey([source]))
    return unit(field.kind, torch.from_numpy(source.astype(storage(field.kind)))), []


@_brought.register
def _(source: Tensor, run: Run, bring: Bring) -> Read:
    bad = ~source.isfinite() if not isinstance(run.field.kind, Table) else source.isinf()
    if bad.any():
        row = int(bad.flatten(1).any(1).nonzero()[0]) if source.dim() > 1 else 0
        raise UsageError(f"row {row} holds a value that is not finite; correct it, or leave the row out")
    return source if source.is_floating_point() else source.float(), []


@_brought.register
def _(source: Dataset, run: Run, bring: Bring) -> Read:
    require_same(run, source)
    return rows_in(run, source, "test", None), []


def rows_in(run: Run, data: Dataset, split: str, index: np.ndarray | None) -> Tensor:
    """Rows of a split as a model reads them, those of `index` or all; rows that are stored as intensities are drawn once, by a stated seed."""
    held = Stored(data.split(split), data.schema, (run.field.name,))
    chosen = torch.arange(held.rows) if index is None else torch.from_numpy(index)
    parts = []
    with forked(torch.device("cpu")):
        for number, i in enumerate(chosen.split(AT_ONCE)):
            torch.manual_seed(mix(0, number, 21))
            parts.append(held.batch(i)[run.field.name])
    return torch.cat(parts)


def subject(run: Run, x: Tensor, protocol: Protocol) -> Subject:
    """Rows [n, *shape] in unit values, ready to be scored by a run; raises UsageError for a model that is told more than its rows."""
    name = run.field.name
    if tuple(run.recipe.fields) != (name,):
        told = ", ".join(f for f in run.recipe.fields if f != name)
        raise UsageError(f"{run.about['call']} is told {told} beside {name}, so a row alone cannot be scored; use a run that reads {name} alone")
    device = device_of(run.model)
    like = next((p.dtype for p in run.model.parameters() if p.is_floating_point()), x.dtype)

    def rows() -> Iterable[Batch]:
        return ({name: part.to(device, like)} for part in x.split(AT_ONCE))

    return Subject(run.model, rows, run.field, protocol.samples, protocol.seed, run.about["call"])


@dataclass(frozen=True)
class Scorer:
    """Strangeness by one registered score as it is, or by several: sum_i w_i asinh((s_i - centre_i) / scale_i); higher = stranger."""

    names: tuple[str, ...]
    weights: tuple[float, ...] = (1.0,)
    centres: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """What it is called."""
        return self.names[0] if len(self.names) == 1 else " + ".join(f"{w:.2g} {n}" for n, w in zip(self.names, self.weights, strict=True))

    def __call__(self, rows: Subject, usual: Subject) -> Rows:
        """The score of every row, [n]; raises UsageError for what the model cannot bear, VaestroError where a score is not a number."""
        each = np.stack([strangeness(name, rows, usual) for name in self.names], 1)
        return each[:, 0] if not self.centres else self.features(each) @ np.array(self.weights)

    def features(self, each: np.ndarray) -> np.ndarray:
        """Scores [n, k] brought to one scale, with far values drawn in: asinh((s - centre) / scale)."""
        return np.asarray(np.arcsinh((each - np.array(self.centres)) / np.array(self.scales)))
