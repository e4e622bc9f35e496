"""Memory stays flat: of the likelihood in rows and samples, of training in the size of the data on disk."""

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import vaestro
from vaestro.data import write_dataset
from vaestro.data.schema import Binary, Field, Schema
from vaestro.data.writing import Writer
from vaestro.evaluation.likelihood import importance
from vaestro.recipes import parse

STATUS = Path("/proc/self/status")
pytestmark = pytest.mark.skipif(not (sys.platform == "linux" and "RssAnon" in STATUS.read_text()), reason="only Linux tells a process its anonymous memory")
IMAGE = Schema("image", (Field("x", Binary(), (1, 28, 28)),), {"train": 1})


def anonymous() -> float:
    """MB that this process holds for itself: mapped files are not among them."""
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith("RssAnon")) / 1024


@contextmanager
def growth() -> Iterator[list[float]]:
    """The samples of anonymous memory within the block, in MB above its start."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what earlier tests freed is kept by the process, and would hide what is taken now
    start, done = anonymous(), threading.Event()
    seen = [0.0]

    def look() -> None:
        while not done.wait(0.001):
            seen.append(anonymous() - start)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()
        seen.append(anonymous() - start)


def stream(rows: int) -> Iterator[dict[str, Tensor]]:
    for start in range(0, rows, 100):
        yield {"x": (torch.rand(min(100, rows - start), 1, 28, 28) < 0.13).float()}


def test_memory_is_seen_at_all() -> None:
    with growth() as seen:
        held = torch.ones(25_000_000)
    assert 90 < max(seen) < 110, "a tensor of 100 MB"
    assert len(held) == 25_000_000


@pytest.mark.parametrize(("rows", "samples"), [(3000, 50), (20, 7500)])
def test_the_likelihood_takes_the_same_memory_for_more_rows_and_more_samples(rows: int, samples: int) -> None:
    """All rows x samples x 784 numbers at once would be 470 MB for the decoder's output alone."""
    model = parse("vae:latents=4,hidden=16").cook(IMAGE).model
    importance(model, stream(200), 50)
    with growth() as seen:
        found = importance(model, stream(rows), samples)
    assert len(found.log_px) == rows
    assert max(seen) < 150


def test_training_takes_less_memory_than_its_data(tmp_path: Path) -> None:
    """Batches are gathered from the mapped file: 100 MB of data, read from end to end, leave no copy of themselves."""
    schema = Schema("noise", (Field("x", Binary(), (1, 64, 64)),), {"train": 24_000, "validation": 500, "test": 500})
    source = np.random.default_rng(0)

    def fill(writer: Writer) -> None:
        for split, count in schema.rows.items():
            for _ in range(0, count, 500):
                writer.append(split, "x", source.integers(0, 2, (500, 1, 64, 64), np.uint8))

    with growth() as writing:
        write_dataset(tmp_path / "data", schema, fill)
    vaestro.train("vae:latents=2,hidden=4,batch=32", source.integers(0, 2, (60, 1, 64, 64), np.uint8), steps=2, out=tmp_path / "warm")
    with growth() as seen:
        run = vaestro.train("vae:latents=2,hidden=4,batch=96", tmp_path / "data", steps=250, out=tmp_path / "run")
    assert (tmp_path / "data" / "train.x.npy").stat().st_size > 98e6
    assert run.about["done_steps"] == 24_000 // 96
    assert max(writing) < 40
    assert max(seen) < 70
