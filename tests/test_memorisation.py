"""A copier is caught, a healthy model is not: by its samples and by its scores."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from vaestro.core import Model, Site
from vaestro.data import from_arrays
from vaestro.data.store import Dataset
from vaestro.evaluation.metrics import Subject, measure
from vaestro.evaluation.metrics.held import Held
from vaestro.evaluation.networks import Networks, Setting

NAMES = ("copied_pca64", "copy_ratio_pca64", "membership")
WIDTH = 6


@pytest.fixture(scope="module")
def data() -> Dataset:
    rng = np.random.default_rng(0)
    parts = {s: {"x": rng.normal(size=(n, WIDTH)).astype(np.float32)} for s, n in (("train", 1500), ("validation", 500), ("test", 600))}
    return from_arrays("cloud", parts["train"], test=parts["test"], validation=parts["validation"])


class Kernel(Model):
    """A mixture of narrow Gaussians about some rows: the nearer their width is to 0, the more it is a copier. It has no latents."""

    def __init__(self, rows: Tensor, deviation: float) -> None:
        super().__init__()
        self.rows, self.deviation = rows, deviation

    def program(self, batch=None):
        each = Independent(Normal(self.rows, self.deviation), 1)
        yield Site("x", MixtureSameFamily(Categorical(torch.ones(len(self.rows))), each))

    def generate(self, n, given=None, conditions=None):
        trace = super().generate(n, given, conditions)
        value = trace["x"].value
        return {"x": trace["x"]._replace(prior=Independent(Normal(value, 1.0), 1))}


def measured(model: Model, data: Dataset, rows: int = 600, split: str = "test"):
    held = Held(data, split, np.arange(rows))
    return measure(NAMES, Subject(model, lambda: held.batches(), data.schema["x"], 1, 0, "the model", Networks(Setting(data)), held=held))


def test_a_copier_is_caught(data: Dataset) -> None:
    rows = torch.from_numpy(np.array(data.split("train").arrays["x"]))
    found = measured(Kernel(rows, 0.01), data).scores
    assert found["copied_pca64"].value > 0.95 and found["copied_pca64"].error < 0.05
    assert found["copy_ratio_pca64"].value < 0.05 and found["membership"].value > 0.9


def test_the_true_law_is_not_called_a_copier(data: Dataset) -> None:
    found = measured(Kernel(torch.zeros(1, WIDTH), 1.0), data).scores
    assert abs(found["copied_pca64"].value) < 4 * found["copied_pca64"].error < 0.6
    assert found["copy_ratio_pca64"].value == pytest.approx(1, abs=4 * found["copy_ratio_pca64"].error)
    assert found["membership"].value < 0.01 + 4 * max(found["membership"].error, 0.005)


def test_half_a_copier_is_half_a_copier(data: Dataset) -> None:
    rows = torch.from_numpy(np.array(data.split("train").arrays["x"]))

    class Half(Kernel):
        def generate(self, n, given=None, conditions=None):
            fresh, old = torch.randn(n, WIDTH), self.rows[torch.randint(len(self.rows), (n,))]
            value = torch.where(torch.rand(n, 1) < 0.5, fresh, old)
            return {"x": super().generate(n)["x"]._replace(value=value, prior=Independent(Normal(value, 1.0), 1))}

    found = measured(Half(rows, 0.1), data).scores["copied_pca64"]
    assert found.value == pytest.approx(0.5, abs=4 * found.error)


def test_what_cannot_be_judged_is_refused_in_words(data: Dataset) -> None:
    model = Kernel(torch.zeros(1, WIDTH), 1.0)
    assert "at least 100 rows a side, and there are 99" in measured(model, data, 99).refused["membership"]
    assert "scored on training rows" in measured(model, data, 200, "train").refused["membership"]
    lone = measure(NAMES, Subject(model, lambda: [{"x": torch.zeros(5, WIDTH)}], data.schema["x"], 1))
    assert set(lone.refused) == set(NAMES)


def test_doubles_between_the_splits_leave_nothing_to_tell() -> None:
    x = np.random.default_rng(0).normal(size=(40, WIDTH)).astype(np.float32)
    data = from_arrays("doubles", {"x": x}, test={"x": x}, validation={"x": x})
    report = measured(Kernel(torch.zeros(1, WIDTH), 1.0), data, 40)
    assert "copies of training rows" in report.refused["copy_ratio_pca64"]
