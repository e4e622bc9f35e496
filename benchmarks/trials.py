"""Small trials for the introductory claims: one setting with one seed, trained and measured, in one JSON file each."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vaestro
from vaestro.data.loading import load
from vaestro.data.schema import Schema
from vaestro.data.store import Dataset, Split
from vaestro.evaluation.likelihood import standard_error
from vaestro.evaluation.metrics import METRICS, high_power, measure
from vaestro.evaluation.networks import Networks
from vaestro.evaluation.networks import Setting as Features
from vaestro.training.files import read_json, write_json
from vaestro.uses.evaluate import Protocol
from vaestro.uses.generate import means
from vaestro.uses.panel import scored

MEASURES = ("nll", "frechet_pca64", "recall_pca64", "precision_pca64", "two_sample_pca64", "energy", "codes_used")
SHARPNESS = "sharpness"  # measured here alone: power of samples at high spatial frequencies over that of data
DIGITS = 4  # decimals of a row's nats that are kept


@dataclass(frozen=True)
class Setting:
    """What is trained: a call on data, with so many steps, on so many training rows (all, where none is said), at so many pixels a side."""

    call: str
    data: str = "digits"
    steps: int = 1500
    rows: int | None = None
    side: int | None = None
    scored: int = 500

    def identity(self, seed: int) -> str:
        """The name of its file with a seed."""
        text = json.dumps([asdict(self), seed])
        return f"{self.call.partition(':')[0]}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def fewer(data: Dataset, rows: int) -> Dataset:
    """The same data with the first `rows` of a fixed shuffle of the training rows."""
    train = data.split("train")
    kept = np.sort(np.random.default_rng(0).permutation(train.rows)[:rows])
    arrays = {name: np.asarray(array[kept]) for name, array in train.arrays.items()}
    splits = {**data.splits, "train": Split("train", arrays, train.encodings)}
    return Dataset(replace(data.schema, rows={**data.schema.rows, "train": len(kept)}), splits)


def resized(data: Dataset, side: int) -> Dataset:
    """Pictures of levels resized to `side` x `side` by the mean over the area."""
    x = data.schema["x"]

    def smaller(array: Any) -> np.ndarray:
        images = torch.from_numpy(np.array(array)).float()
        return torch.nn.functional.interpolate(images, (side, side), mode="area").round().to(torch.uint8).numpy()

    splits = {n: Split(n, {**s.arrays, "x": smaller(s.arrays["x"])}, s.encodings) for n, s in data.splits.items()}
    fields = tuple(replace(f, shape=(x.shape[0], side, side)) if f.name == "x" else f for f in data.schema)
    return Dataset(Schema(f"{data.name}-{side}", fields, data.schema.rows, data.schema.version), splits)


def data_of(setting: Setting) -> Dataset:
    """The rows that a setting reads."""
    data = load(setting.data)
    data = data if setting.side is None else resized(data, setting.side)
    return data if setting.rows is None else fewer(data, setting.rows)


def sharpness(samples: torch.Tensor, rows: torch.Tensor) -> tuple[float, float]:
    """Mean power of samples [n, C, H, W] at 0.25 cycles a pixel and above over that of rows, with its standard error by the delta method."""
    made, real = high_power(samples).numpy(), high_power(rows).numpy()
    ratio = float(made.mean() / real.mean())
    return ratio, ratio * float(np.hypot(standard_error(made) / made.mean(), standard_error(real) / real.mean()))


def trial(setting: Setting, seed: int, out: Path) -> dict[str, Any]:
    """Train and measure, or read what was measured before; a stopped trial starts again."""
    path = out / f"{setting.identity(seed)}.json"
    if path.exists():
        return dict(read_json(path))
    data, work = data_of(setting), Path(tempfile.mkdtemp(prefix="trial-"))
    try:
        run = vaestro.train(setting.call, data, steps=setting.steps, seed=seed, out=work / "run")
        found = measured(run, data, setting)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    kept = {"setting": asdict(setting), "seed": seed, "data_sha256": data.sha256, "seconds": round(run.about["seconds"], 1), **found}
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, kept)
    return kept


def measured(run: Any, data: Dataset, setting: Setting) -> Mapping[str, Any]:
    """Every measure that the run can bear: value and standard error, and of nats the rows."""
    subject = replace(scored(run, data, Protocol(rows=setting.scored, samples=100)), features=Networks(Features(data, "")))
    report = measure([m for m in MEASURES if m in METRICS], subject)
    values = {n: {"value": s.value, "error": s.error} for n, s in report.scores.items()}
    if len(run.field.shape) == 3:
        rows = torch.cat([b["x"] for b in subject.rows()])
        value, error = sharpness(means(run, len(rows)).cpu().float(), rows.cpu().float())
        values[SHARPNESS] = {"value": value, "error": error}
    nats = report.scores["nll"].rows if "nll" in report.scores else None
    return {"values": values, "refused": report.refused, "rows": {} if nats is None else {"nll": [round(float(v), DIGITS) for v in nats]}}
