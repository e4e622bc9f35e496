"""Rows as codes: the latents of every row, group by group, streamed into a file."""

import csv
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from vaestro.codes import numbered
from vaestro.core import Batch, Choose, Draw, Model, content, sampling
from vaestro.data.prepare.frames import require_polars
from vaestro.errors import UsageError, did_you_mean
from vaestro.evaluation.metrics.encodings import finite
from vaestro.evaluation.metrics.subject import central, centring
from vaestro.evaluation.scope import chunked, device_of, each, evaluating, seeded, slice_rows, until
from vaestro.families.base import is_discrete
from vaestro.progress import tell
from vaestro.registry import Registry
from vaestro.seeds import forked, mix
from vaestro.training.files import whole
from vaestro.training.finding import by_name
from vaestro.training.runs import Run
from vaestro.uses.reconstruct import codes_of, require_latents
from vaestro.uses.rows.frames import require_place
from vaestro.uses.rows.given import Given, settle
from vaestro.uses.rows.lots import AT_ONCE, USUAL, Lot, Wish, lot

Groups: TypeAlias = dict[str, np.ndarray]  # codes of some rows by latent site, float32 [rows, numbers]
Reading: TypeAlias = Callable[[Model, Batch], Choose]
READINGS: Registry[Reading] = Registry("reading of the posterior")
PIECE = 50_000  # rows of a piece of a Parquet file


@READINGS.register
def means(model: Model, batch: Batch) -> Choose:
    """Every latent takes its posterior's mean, below others given theirs; of classes the probabilities. No randomness where every posterior has a mean."""
    return centring(model, batch)


@READINGS.register
def samples(model: Model, batch: Batch) -> Choose:
    """Every latent takes one draw from its posterior, under the seed."""
    rows = len(content(next(iter(batch.values()))))
    return sampling((rows,), model.observations(batch))


def grouped(run: Run, rows: Any = None, reading: Reading = means, seed: int = 0, given: Given | None = None) -> Iterator[Groups]:
    """The codes of rows in their order, some rows at a time: float32 [rows, numbers] of each latent site, in the model's order.

    `rows` is whatever `lot` reads. Rows are encoded in chunks of one shape under a seed of each chunk's own, so that the same rows give the same codes. A model
    that is told something needs it in `given`, unless the data have it. Raises UsageError for a model without a posterior and for no rows.
    """
    of, device = lot(run, rows), device_of(run.model)
    told = settle(run, of.size, given)
    last, done = "", 0

    def batches() -> Iterator[Batch]:
        start = 0
        for batch in of.batches():
            stop = start + len(content(batch[run.field.name]))
            yield {**batch, **{n: v[start:stop] for n, v in told.items()}}
            start = stop

    with forked(device), evaluating(run.model):
        for number, (held, real) in enumerate(chunked(seeded(batches(), seed), AT_ONCE)):
            batch = {n: each(v, lambda t: t.to(device)) for n, v in held.items()}
            last = last or _last(run, slice_rows(batch, 0, 1))
            torch.manual_seed(mix(seed, number, 19))
            trace = until(run.model.program(batch), reading(run.model, batch), last)
            rows = len(content(batch[run.field.name]))
            found = codes_of(trace, rows) if reading is means else {n: _drawn(d, rows) for n, d in trace.latents.items()}
            yield {n: np.asarray(v[:real].float().cpu().numpy()) for n, v in found.items()}
            done += real
            tell("embedding rows", done / max(of.size, 1))
    if not done:
        raise UsageError(f"{of.name} holds no rows; give at least one")


def _last(run: Run, batch: Batch) -> str:
    trace = central(run.model, batch)
    require_latents(run, trace)
    return list(trace.latents)[-1]


def _drawn(drawn: Draw, rows: int) -> Tensor:
    """The value that a site took, as numbers [rows, numbers]."""
    assert drawn.posterior is not None
    found = numbered(drawn.posterior, drawn.value) if is_discrete(drawn.posterior) else drawn.value
    return found.reshape(found.shape[0], -1).expand(rows, -1)


def codes(run: Run, rows: Any = None, seed: int = 0, given: Given | None = None) -> np.ndarray:
    """The posterior means of all latent groups side by side, float64 [n, latents]; raises VaestroError where one is not a finite number."""
    parts = [np.concatenate(list(g.values()), 1) for g in grouped(run, rows, seed=seed, given=given)]
    return finite(np.concatenate(parts).astype(np.float64), run.about["call"])


def levelled(train: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both less the mean of the training codes and divided by one number, their root mean variance: so that idle latents stay as small as they are."""
    middle, scale = train.mean(0), float(np.sqrt(train.var(0).mean())) or 1.0
    return (train - middle) / scale, (other - middle) / scale


@dataclass(frozen=True)
class Embedded:
    """What was written: rows, and the columns of each latent group as (first, one past the last)."""

    path: Path
    rows: int
    columns: dict[str, tuple[int, int]]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {"out": str(self.path), "rows": self.rows, "columns": {n: list(c) for n, c in self.columns.items()}, "notes": list(self.notes)}


@dataclass(frozen=True)
class Codes:
    """Which codes are wanted: how posteriors are read, one latent group or all of them, and the seed of the draws."""

    reading: Reading = means
    group: str | None = None
    seed: int = 0


MEANS = Codes()
Chunks: TypeAlias = Iterable[Groups]


@by_name
def write_codes(run: Run, path: Path | str, rows: Any = None, wish: Wish = USUAL, wanted: Codes = MEANS, given: Given | None = None) -> Embedded:
    """The codes of rows, streamed into a file that is whole or absent; memory does not grow with the number of rows, but for their labels and names.

    A .npy file holds float32 [rows, numbers], groups side by side; .csv and .parquet have columns GROUP_0, GROUP_1, ..., beside `row`, and `file` and `label`
    where they are known. `rows` is whatever `lot` reads. Raises UsageError for another ending, a missing folder, the file that is read, an unknown group, and
    as `grouped` does.
    """
    path = Path(path)
    writer = require_writer(path, *([Path(rows).expanduser()] if isinstance(rows, Path | str) else []))
    of, only = lot(run, rows, wish), wanted.group
    chunks = grouped(run, of, wanted.reading, wanted.seed, given)
    first = next(chunks)
    if only is not None and only not in first:
        raise UsageError(f"{run.about['call']} has no latents called {only!r}{did_you_mean(only, first)}; its groups are {', '.join(first)}")
    names = list(first) if only is None else [only]

    def chosen() -> Iterator[Groups]:
        yield {n: first[n] for n in names}
        for chunk in chunks:
            yield {n: chunk[n] for n in names}

    with whole(path) as temporary:
        writer(temporary, of, chosen(), {n: first[n].shape[1] for n in names})
    ends = np.cumsum([0, *(first[n].shape[1] for n in names)]).tolist()
    return Embedded(path, of.size, dict(zip(names, pairwise(ends), strict=True)), of.notes)


def _npy(path: Path, of: Lot, chunks: Chunks, sizes: Mapping[str, int]) -> None:
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (of.size, sum(sizes.values()))})
        for chunk in chunks:
            file.write(np.concatenate(list(chunk.values()), 1).astype("<f4").tobytes())


def _beside(of: Lot, start: int, stop: int) -> dict[str, list[Any]]:
    """What is known of rows beside their codes."""
    found: dict[str, list[Any]] = {"row": list(range(start, stop))}
    if of.files:
        found["file"] = list(of.files[start:stop])
    if of.labels is not None:
        found["label"] = [of.classes[i] if of.classes else int(i) for i in of.labels[start:stop]]
    return found


def _csv(path: Path, of: Lot, chunks: Chunks, sizes: Mapping[str, int]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows, start = csv.writer(file, lineterminator="\n"), 0
        rows.writerow([*_beside(of, 0, 0), *(f"{n}_{i}" for n, size in sizes.items() for i in range(size))])
        for chunk in chunks:
            flat = np.concatenate(list(chunk.values()), 1)
            beside = _beside(of, start, start + len(flat))
            rows.writerows([*said, *(f"{v:.9g}" for v in row)] for *said, row in zip(*beside.values(), flat.tolist(), strict=True))
            start += len(flat)


def _parquet(path: Path, of: Lot, chunks: Chunks, sizes: Mapping[str, int]) -> None:
    """Pieces first, then one file of them, row group by row group: never all rows at once."""
    import polars as pl

    names = [f"{n}_{i}" for n, size in sizes.items() for i in range(size)]
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        held: list[np.ndarray] = []
        start = number = 0

        def keep() -> None:
            nonlocal start, number
            flat = np.concatenate(held)
            frame = pl.DataFrame({**_beside(of, start, start + len(flat)), **dict(zip(names, flat.T, strict=True))})
            frame.write_parquet(Path(folder) / f"{number:08}.parquet")
            start, number = start + len(flat), number + 1
            held.clear()

        for chunk in chunks:
            held.append(np.concatenate(list(chunk.values()), 1))
            if sum(map(len, held)) >= PIECE:
                keep()
        if held:
            keep()
        pl.scan_parquet(sorted(Path(folder).glob("*.parquet"))).sink_parquet(path)


Write: TypeAlias = Callable[[Path, Lot, Chunks, Mapping[str, int]], None]
WRITERS: dict[str, Write] = {".npy": _npy, ".csv": _csv, ".parquet": _parquet}


def require_writer(path: Path, *read: Path) -> Write:
    """What writes codes to a file with this ending; raises UsageError for an unknown ending, a missing folder or library, and a file that is `read`."""
    ending = path.suffix.lower()
    if ending not in WRITERS:
        raise UsageError(f"cannot write {path}: its ending {ending!r} is unknown{did_you_mean(ending, WRITERS)}; codes are written as .npy, .csv or .parquet")
    require_place(path, *read)
    if ending == ".parquet":
        require_polars()
    return WRITERS[ending]
