"""Rows of a table completed by a model: draws of what was not seen, given what was."""

from typing import NamedTuple

import torch
from torch import Tensor

from vaestro.core import Batch, Trace
from vaestro.data.prepare.columns import again, cleaned
from vaestro.data.prepare.frames import Frame
from vaestro.data.prepare.tables import FARTHEST, require_table
from vaestro.data.schema import Table
from vaestro.errors import UsageError
from vaestro.evaluation.scope import device_of, evaluating
from vaestro.families.fields import FieldsDistribution
from vaestro.progress import tell
from vaestro.seeds import forked, mix
from vaestro.training.runs import Run, title
from vaestro.uses.rows.given import Given, settle

AT_ONCE = 4_000_000  # numbers of the likelihood that are held at a time
SAMPLES = 500  # importance samples of the latents of a row


class Completed(NamedTuple):
    """Rows with nothing unseen: `rows` [draws, n, columns] as the table holds them, and the effective number of each row's importance samples [n]."""

    rows: Tensor
    effective: Tensor


def complete_entries(run: Run, x: Tensor, draws: int = 10, samples: int = SAMPLES, seed: int = 0, given: Given | None = None) -> Completed:
    """`draws` completions of every row of `x` [n, columns], NaN where an entry was not seen: x_unseen ~ p(x_unseen | x_seen), by importance resampling.

    z_1 .. z_K ~ q(z | x_seen) with w_k = p(x_seen | z_k) p(z_k) / q(z_k | x_seen), K = `samples`; every draw takes one z_k with probability w_k / sum w, then
    x_unseen ~ p(x | z_k) (Mattei & Frellsen 2019, MIWAE, section 3.2). Exact as K grows; where `effective` = (sum w)^2 / sum w^2 is small, take more samples,
    or train with entries hidden (denoising_vae). What was seen stays as it was. The same seed gives the same draws.

    Raises UsageError for a run that is not of a table, has no density or no posterior, and for numbers below 1.
    """
    table = require_table(run.field)
    for what, number in (("draws", draws), ("samples", samples)):
        if number < 1:
            raise UsageError(f"{what} is {number}, and a completion needs at least 1; give a whole number from 1 upwards")
    if x.dim() != 2 or x.shape[1] != len(table.columns):
        raise UsageError(f"rows shaped {tuple(x.shape)} are none of this table, which has {len(table.columns)} columns; read them with rows_of_table")
    told, device = settle(run, len(x), given), device_of(run.model)
    parts: list[Completed] = []
    with forked(device), evaluating(run.model):
        step = _rows_at_once(run, x[:1].to(device), {n: v[:1] for n, v in told.items()}, samples)
        for number, start in enumerate(range(0, len(x), step)):
            torch.manual_seed(mix(seed, number, 17))
            rows = x[start : start + step].to(device)
            trace = run.model({"x": rows, **{n: v[start : start + step] for n, v in told.items()}}, samples)
            parts.append(_chosen(trace, rows, draws))
            tell("completing rows", min(1.0, (start + step) / len(x)))
    return Completed(torch.cat([p.rows for p in parts], 1).cpu(), torch.cat([p.effective for p in parts]).cpu())


def _rows_at_once(run: Run, x: Tensor, told: Batch, samples: int) -> int:
    """How many rows fit; raises UsageError for a model that cannot complete."""
    torch.manual_seed(0)
    trace = run.model({"x": x, **told}, 1)
    if not trace.latents:
        raise UsageError(f"{title(run.about)} has no posterior, so what was seen tells it nothing of the rest; use a recipe such as vae")
    if not trace.normalised:
        raise UsageError(f"{title(run.about)} has no density, so its latents cannot be weighed by what was seen; use a recipe such as vae or iwae")
    said = trace["x"].prior
    if not isinstance(said, FieldsDistribution):
        raise UsageError(f"the likelihood of {title(run.about)} is {type(said).__name__}, which draws no single columns; use likelihood=fields")
    return max(1, AT_ONCE // (samples * said.h.shape[-1]))


def _chosen(trace: Trace, x: Tensor, draws: int) -> Completed:
    log_w, said = trace.log_w.double(), trace["x"].prior
    assert isinstance(said, FieldsDistribution), "was looked at"
    weights = log_w.softmax(0)
    if not bool(weights.isfinite().all()):
        raise UsageError("some rows are so far from all that training showed that no draw of their latents has a weight; correct them, or leave them out")
    picked = torch.multinomial(weights.T, draws, replacement=True).T  # [draws, n]
    h = said.h.expand(*log_w.shape, said.h.shape[-1])
    drawn = FieldsDistribution(said.family, h[picked, torch.arange(len(x), device=x.device)]).sample()
    return Completed(torch.where(x.isnan(), drawn, x), 1 / weights.square().sum(0))


def others_filled(table: Table, frame: Frame) -> tuple[Frame, list[str]]:
    """A frame in which the gaps of columns of one value hold it, and what to know of columns that no model sees: those filled so, and those that keep gaps."""
    import polars as pl

    known = {a.name: a for a in table.aside if a.reason == "constant" and a.value is not None}
    made, notes, left = [], [], []
    for name in (c for c in frame.columns if c not in table.names):
        series = frame[name]
        gaps = cleaned(series).is_null()
        if name in known and gaps.any():
            value = again(known[name], frame.height)
            value = value if series.dtype == pl.Null else value.cast(series.dtype, strict=False)
            series = pl.select(pl.when(gaps).then(value).otherwise(series).alias(name)).to_series()
            made.append(series)
            gaps, before = cleaned(series).is_null(), int(gaps.sum())
            notes += [] if gaps.any() else [f"column {name!r} has one value, {known[name].value}; gaps filled with it: {before}"]
        left += [f"{name!r} ({int(gaps.sum())})"] if gaps.any() else []
    if left:
        notes.append(f"the gaps of columns that are not modelled stay: {', '.join(left)}")
    return frame.with_columns(made), notes


def conditioned(run: Run, n: int, columns: dict[str, object], seed: int = 0, given: Given | None = None) -> Tensor:
    """`n` rows [n, columns] drawn given the values of some columns, in the table's own units; raises UsageError for a value that a column cannot hold."""
    import numpy as np

    from vaestro.data.prepare.columns import pack, series_of

    table = require_table(run.field)
    row = np.full(len(table.columns), np.nan, np.float32)
    for name, value in columns.items():
        row[table.names.index(table[name].name)] = np.clip(pack(table[name], series_of(name, value))[0], -FARTHEST, FARTHEST)
    if np.isnan(row[[table.names.index(name) for name in columns]]).any():
        raise UsageError("a column that is given needs a value; leave it out where it is not known")
    made = complete_entries(run, torch.from_numpy(row)[None], n, max(SAMPLES * 4, 2 * n), seed, given)
    return made.rows[:, 0]
