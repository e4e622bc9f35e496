"""Gaps of a table filled in: several completed tables, an estimate with its interval for every cell, and pooled means."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaestro.data.prepare.columns import pack, texts, unpack
from vaestro.data.prepare.frames import Frame, frame_of
from vaestro.data.prepare.inferring import typed
from vaestro.data.prepare.tables import require_table, rows_of_table
from vaestro.data.schema import Column, Dated, Measured, Named
from vaestro.errors import UsageError
from vaestro.evaluation.rubin import Pooled, pool
from vaestro.training.finding import by_name
from vaestro.training.runs import Run
from vaestro.uses.inference.completing import SAMPLES, complete_entries, others_filled
from vaestro.uses.rows.frames import free
from vaestro.uses.rows.given import Given

ENOUGH = 200  # draws from which a cell's interval is read
FEW = 10.0  # effective samples below which a row is told of
LEVEL = 0.95


@dataclass(frozen=True)
class Imputation:
    """What filling in gave: `tables` are completed frames, `cells` a frame with a row for every gap, `pooled` the means of columns by Rubin's rules."""

    tables: tuple[Frame, ...]
    cells: Frame
    pooled: dict[str, Pooled]
    notes: tuple[str, ...]

    def long(self) -> Frame:
        """All completed tables below each other, with their number in the column `draw` (`draw_` where the table has one of that name)."""
        import polars as pl

        name = free("draw", self.tables[0].columns)
        if len(self.tables) == 1:
            return self.tables[0]
        return pl.concat([t.select(pl.lit(i, dtype=pl.Int64).alias(name), pl.all()) for i, t in enumerate(self.tables, 1)])

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {"draws": len(self.tables), "gaps": len(self.cells), "pooled": {n: p.to_json() for n, p in self.pooled.items()}, "notes": list(self.notes)}


@by_name
def impute(run: Run, source: Any, draws: int = 10, samples: int = SAMPLES, seed: int = 0, given: Given | None = None) -> Imputation:
    """Fill the gaps of a table `draws` times by x_unseen ~ p(x_unseen | x_seen) of a trained model, and say how sure each cell is.

    `source` is a path, a frame or a mapping with the columns of training. A cell's estimate is the median of 200 draws or more, of a category the most
    frequent one with its share; its interval holds 95 % of them. A gap in a column of one value is filled with it; gaps of other columns that the run does
    not model stay, and `notes` name them. Means of columns of numbers are pooled over the completed tables (`pool`). Draws carry the
    uncertainty of the latents and of the columns given them, not that of the weights, which are one estimate: intervals of pooled means are somewhat short
    on small training sets. Raises UsageError as `complete` and `rows_of_table` do.
    """
    table, frame = require_table(run.field), frame_of(source)
    rows, notes = rows_of_table(run.field, frame)
    frame, others = others_filled(table, frame)
    many = max(draws, ENOUGH)
    gaps = np.isnan(rows)
    holed = np.flatnonzero(gaps.any(1))
    if draws < 1:
        raise UsageError(f"draws is {draws}, and at least one completed table is made; give a whole number from 1 upwards")
    made = np.zeros((many, 0, rows.shape[1]), np.float32)
    if len(holed):
        told = None if given is None else {n: _of(v, holed, len(rows)) for n, v in given.items()}
        done = complete_entries(run, torch.from_numpy(rows[holed]), many, max(samples, many), seed, told)
        made = done.rows.numpy()
        poor = int((done.effective < FEW).sum())
        if poor:
            notes.append(f"{poor} of {len(holed)} rows rest on fewer than {FEW:g} effective samples; raise samples, or train denoising_vae")
    elif not others:
        notes.append("the table has no gaps")
    notes += others
    columns = [(i, c) for i, c in enumerate(table.columns)]
    filled = tuple(_filled(frame, columns, gaps, holed, made[d]) for d in range(draws))
    return Imputation(filled, _cells(columns, gaps, holed, made), _pooled(filled, columns, gaps), tuple(notes))


def _of(value: Any, rows: np.ndarray, total: int) -> Any:
    """The given values of some rows: one value for all stays."""
    return [value[i] for i in rows] if isinstance(value, list | tuple | np.ndarray | torch.Tensor) and len(value) == total else value


def _filled(frame: Frame, columns: list[tuple[int, Column]], gaps: np.ndarray, holed: np.ndarray, rows: np.ndarray) -> Frame:
    """The frame with its gaps filled, in the types of the table; every entry that was seen keeps its value."""
    import polars as pl

    held = np.full(gaps.shape, np.nan, np.float32)
    held[holed] = rows
    made = []
    for i, column in columns:
        own = _own(column, frame[column.name])
        new = unpack(column, held[:, i].astype(np.float64)).cast(own.dtype, strict=False)
        made.append(pl.select(pl.when(pl.Series(gaps[:, i])).then(new).otherwise(own).alias(column.name)).to_series())
    return frame.with_columns(made)


def _own(column: Column, series: Any) -> Any:
    """A column's own values, in the type in which the table writes them; numbers and times finer than its steps stay as fine."""
    import polars as pl

    wanted = unpack(column, np.array([0.0])).dtype
    if isinstance(column, Named) and str(wanted) == "String":
        return texts(series)
    own = typed(series)
    if own.dtype == wanted or (isinstance(column, Dated) and own.dtype == pl.Datetime):
        return own
    if isinstance(column, Measured) and own.dtype.is_numeric() and (own.dtype.is_float() or wanted.is_float()):
        return own.cast(pl.Float64)
    return unpack(column, pack(column, series)).cast(wanted)


def _cells(columns: list[tuple[int, Column]], gaps: np.ndarray, holed: np.ndarray, made: np.ndarray) -> Frame:
    """A row for every gap: row, column, estimate, low, high, and of a category the share of draws that agree."""
    import polars as pl

    parts = []
    for i, column in columns:
        where = np.flatnonzero(gaps[holed, i])
        if not len(where):
            continue
        drawn = made[:, where, i].astype(np.float64)
        if isinstance(column, Named):
            counts = np.stack([(drawn == level).mean(0) for level in range(len(column.levels))])
            best, share = counts.argmax(0).astype(np.float64), counts.max(0)
            low = high = np.full(len(where), np.nan)
        else:
            tail = (1 - LEVEL) / 2
            low, best, high = np.quantile(drawn, [tail, 0.5, 1 - tail], axis=0)
            share = np.full(len(where), np.nan)
        said = {n: unpack(column, v).cast(pl.String) for n, v in (("estimate", best), ("low", low), ("high", high))}
        parts.append(pl.DataFrame({"row": holed[where], "column": [column.name] * len(where), **said, "share": pl.Series(share, nan_to_null=True)}))
    empty = {"row": pl.Int64, "column": pl.String, "estimate": pl.String, "low": pl.String, "high": pl.String, "share": pl.Float64}
    return pl.concat(parts).sort("row", maintain_order=True) if parts else pl.DataFrame(schema=empty)


def _pooled(tables: tuple[Frame, ...], columns: list[tuple[int, Column]], gaps: np.ndarray) -> dict[str, Pooled]:
    """The mean of every column of numbers that has gaps, over the completed tables; nothing for one draw or one row."""
    found = {}
    for i, column in columns:
        if gaps[:, i].any() and len(tables) > 1 and len(gaps) > 1 and tables[0][column.name].dtype.is_numeric():
            values = [t[column.name].cast(float).to_numpy() for t in tables]
            found[column.name] = pool([float(v.mean()) for v in values], [float(v.var(ddof=1)) / len(v) for v in values], LEVEL)
    return found


def beside(path: Path) -> Path:
    """Where the estimates of single cells are written: NAME-cells beside NAME."""
    return path.with_name(f"{path.stem}-cells{path.suffix}")
