"""Rows as tensors: exact values, exact frequencies, and an order that depends on seed and step alone."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import binom

from vaestro.data import Dataset, Encoding, Split, from_arrays
from vaestro.data import rows as rows_module
from vaestro.data.rows import Batches, Rows, binary_draw, order
from vaestro.data.schema import Binary, Category, Field, Integer, Real, Schema
from vaestro.errors import UsageError


def test_values_of_every_kind() -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "x": rng.integers(0, 256, (40, 1, 3, 5)).astype(np.uint8),
        "bits": rng.integers(0, 2, (40, 7)),
        "wide": rng.integers(0, 1000, (40, 2)),
        "real": rng.normal(size=(40, 4)),
        "label": np.arange(40) % 10,
    }
    kinds = {"wide": Integer(1000), "x": Integer(256), "real": Real(0.1), "label": Category(10)}
    data = from_arrays("toy", arrays, kinds)
    split = data.split("train")
    rows = Rows(split, data.schema, ("x", "bits", "wide", "real", "label"))
    index = torch.tensor([5, 0, 5, 31])
    batch = rows.batch(index)
    stored = {name: array[index.numpy()] for name, array in split.arrays.items()}
    assert (batch["x"].numpy() == (stored["x"].astype(np.float32) / np.float32(255))).all() and batch["x"].dtype == torch.float32
    assert (batch["wide"].numpy() == stored["wide"].astype(np.float32) / np.float32(999)).all()
    assert (batch["bits"].numpy() == stored["bits"]).all() and batch["bits"].dtype == torch.float32
    assert (batch["real"].numpy() == stored["real"]).all() and batch["label"].dtype == torch.int64
    assert batch["label"].tolist() == stored["label"].tolist()
    assert set(Rows(split, data.schema, ("x",)).batch(index)) == {"x"}, "a model is shown only the fields it declares"
    with pytest.raises(UsageError, match="no field 'lable'; did you mean label"):
        Rows(split, data.schema, ("lable",))


def test_a_stored_one_sixteenth_is_exact() -> None:
    data = from_arrays("digits", {"x": np.random.default_rng(0).integers(0, 17, (99, 9))}, {"x": Integer(17)})
    rows = Rows(data.split("train"), data.schema)
    got = rows.batch(torch.arange(rows.rows))["x"]
    assert set(got.flatten().tolist()) == {i / 16 for i in range(17)}


def test_binarisation_frequencies_are_exact() -> None:
    """Each of the 256 intensities within its exact binomial bounds (one in 10^9), and 0 and 255 without a single exception."""
    n = 60_000
    counts = torch.stack([binary_draw(torch.arange(256, dtype=torch.uint8).repeat(10_000, 1)).sum(0) for _ in range(n // 10_000)]).sum(0)
    assert counts[0] == 0 and counts[255] == n
    low, high = binom.interval(1 - 1e-9, n, np.arange(256) / 255)
    assert (counts.numpy() >= low).all() and (counts.numpy() <= high).all()


@pytest.mark.parametrize("uniform", [rows_module._uniform_on_cpu, rows_module._uniform_anywhere])
def test_u_is_uniform_on_255_values_and_never_255(uniform: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """x = (u < v): the counts of u itself, by chi-square, on a CPU and as on other devices; a byte clipped to 0..254 would fail by thousands."""
    n = 2_000_000
    u = uniform(torch.empty(n, dtype=torch.uint8))
    counts = torch.bincount(u.long(), minlength=256).double()
    chi2 = float(((counts[:255] - n / 255) ** 2).sum() / (n / 255))
    assert counts[255] == 0 and abs(chi2 - 254) < 6 * (2 * 254) ** 0.5
    assert abs(torch.corrcoef(torch.stack([u[:-1], u[1:]]).double())[0, 1]) < 6 / n**0.5


@pytest.mark.parametrize("n", [1, 7, 8, 9, 784])
def test_any_size_can_be_drawn(n: int) -> None:
    assert binary_draw(torch.full((n,), 255, dtype=torch.uint8)).tolist() == [1.0] * n


def test_draws_are_fresh_seeded_and_mean_the_intensities() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (30, 1, 8, 8)).astype(np.uint8)
    schema = Schema("toy", (Field("x", Binary(), (1, 8, 8)),), {"train": 30})
    rows = Rows(Split("train", {"x": grey}, {"x": Encoding.INTENSITY}), schema)
    index = torch.arange(30)
    torch.manual_seed(1)
    a, b = rows.batch(index)["x"], rows.batch(index)["x"]
    torch.manual_seed(1)
    assert (rows.batch(index)["x"] == a).all() and (a != b).any() and set(a.unique().tolist()) == {0.0, 1.0}
    mean = torch.stack([rows.batch(index)["x"] for _ in range(2000)]).mean(0)
    assert (mean - torch.from_numpy(grey) / 255).abs().max() < 6 * 0.5 / 2000**0.5


def test_the_global_generator_of_others_is_not_reset() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    order(100, 10, 0, 0)
    assert (torch.get_rng_state() == before).all()


def test_order_is_a_permutation_per_epoch() -> None:
    one = order(103, 10, seed=5, epoch=2)
    assert one.shape == (10, 10) and len(set(one.flatten().tolist())) == 100
    assert (order(103, 10, 5, 2) == one).all() and (order(103, 10, 5, 3) != one).any() and (order(103, 10, 6, 2) != one).any()
    assert (order(100, 10, 0, 0).flatten().sort().values == torch.arange(100)).all()


def test_batches_are_a_pure_function_of_seed_and_step() -> None:
    forward = Batches(57, 8, seed=4)
    steps = [forward.batch_index(s).tolist() for s in range(30)]
    assert forward.steps == 7 and forward.note == ""
    assert [Batches(57, 8, seed=4).batch_index(s).tolist() for s in (29, 3, 7, 0)] == [steps[29], steps[3], steps[7], steps[0]]
    assert all(len({r for b in steps[e * 7 : e * 7 + 7] for r in b}) == 56 for e in range(4)), "no row twice in an epoch"


def test_batch_larger_than_the_data_and_no_batch() -> None:
    batches = Batches(5, 128)
    assert batches.note == "the batch of 128 is larger than the data: each step reads all 5 rows" and batches.steps == 1
    assert sorted(batches.batch_index(3).tolist()) == [0, 1, 2, 3, 4]
    assert Batches(5, 5).note == "" and Batches(1, 1).batch_index(9).tolist() == [0]
    with pytest.raises(UsageError, match="a batch of 0 rows"):
        Batches(5, 0)


def test_no_copy_of_the_map() -> None:
    data = from_arrays("toy", {"x": np.random.default_rng(0).integers(0, 256, (50, 4)).astype(np.uint8)})
    split = data.split("train")
    rows = Rows(split, data.schema)
    before = rows.batch(torch.tensor([0]))["x"].clone()
    split.arrays["x"][0] ^= 255
    assert (rows.batch(torch.tensor([0]))["x"] - (1 - before)).abs().max() < 1e-6


def test_validation_rows_are_read_the_same_twice() -> None:
    data: Dataset = from_arrays("toy", {"x": np.random.default_rng(0).integers(0, 2, (50, 40))})
    rows = Rows(data.split("validation"), data.schema)
    assert (rows.batch(torch.arange(5))["x"] == rows.batch(torch.arange(5))["x"]).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_rows_on_a_gpu() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (500, 1, 8, 8)).astype(np.uint8)
    schema = Schema("toy", (Field("x", Binary(), (1, 8, 8)), Field("label", Category(10))), {"train": 500})
    arrays = {"x": grey, "label": (np.arange(500) % 10).astype(np.uint8)}
    rows = Rows(Split("train", arrays, {"x": Encoding.INTENSITY, "label": Encoding.VALUE}), schema, ("x", "label"), "cuda")
    index = Batches(500, 200, device="cuda").batch_index(1)
    batch = rows.batch(index)
    assert batch["x"].is_cuda and (batch["label"].cpu() == index.cpu() % 10).all()
    mean = torch.stack([rows.batch(index)["x"] for _ in range(2000)]).mean(0).cpu()
    assert (mean - torch.from_numpy(grey)[index.cpu()] / 255).abs().max() < 6 * 0.5 / 2000**0.5
