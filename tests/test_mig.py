"""The mutual information gap: perfect, entangled and empty codes, SciPy's and scikit-learn's entropies, its error, and the metric on a model."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import mutual_info_score
from torch import Tensor
from torch.distributions import Independent, Normal

import vaestro
from vaestro.core import Batch, Model, Program, Site, content
from vaestro.data import from_arrays
from vaestro.data.dsprites import TOTAL, factors
from vaestro.data.schema import Field, Real
from vaestro.errors import UsageError
from vaestro.evaluation.metrics import Subject, measure
from vaestro.evaluation.metrics.disentanglement import binned, entropy, gap, known_factors
from vaestro.uses.evaluate import Protocol

LEVELS = (3, 6, 5)
GRID = np.stack(np.meshgrid(*(np.arange(n) for n in LEVELS), indexing="ij"), -1).reshape(-1, 3)  # every combination once
RNG = np.random.default_rng(0)


def test_a_perfect_code_has_a_gap_of_1() -> None:
    np.testing.assert_allclose(gap(GRID[:, [2, 0, 1]] * [-1.0, 7.0, 0.01], GRID).each, 1.0)
    twice = np.concatenate([GRID, np.full((len(GRID), 2), 3.0)], 1)
    np.testing.assert_allclose(gap(twice, GRID).each, 1.0)  # latents that are switched off do not matter


def test_an_entangled_or_doubled_or_empty_code_has_a_gap_of_0() -> None:
    np.testing.assert_allclose(gap(np.concatenate([GRID, GRID], 1), GRID).each, 0.0)
    np.testing.assert_allclose(gap(np.zeros((len(GRID), 4)), GRID).each, 0.0)
    two = np.stack(np.meshgrid(np.arange(9), np.arange(9), indexing="ij"), -1).reshape(-1, 2)
    turned = np.stack([two[:, 0] + two[:, 1], two[:, 0] - two[:, 1]], 1)  # both latents tell as much of both
    np.testing.assert_allclose(gap(turned, two).each, 0.0, atol=1e-12)


def test_one_latent_gaps_to_nothing() -> None:
    found = gap(GRID[:, :1].astype(float), GRID)
    np.testing.assert_allclose(found.each, [1.0, 0.0, 0.0], atol=1e-12)


def test_twenty_bins_cannot_tell_forty_levels() -> None:
    levels = np.arange(40).repeat(5)[:, None]
    np.testing.assert_allclose(gap(levels.astype(float), levels).each, math.log(20) / math.log(40))
    np.testing.assert_allclose(gap(levels.astype(float), levels, bins=40).each, 1.0)


def test_the_best_gap_on_sprites_is_the_one_that_the_docs_state() -> None:
    made = factors(np.arange(0, TOTAL, 7))  # 7 divides none of the counts, so every factor stays even
    assert gap(made.astype(float), made).each.mean() == pytest.approx(0.902, abs=2e-3)


def test_against_scipy_and_scikit_learn() -> None:
    factors = np.stack([RNG.integers(n, size=500) for n in (2, 7, 40)], 1)
    codes = factors @ RNG.normal(size=(3, 4)) + RNG.normal(size=(500, 4))
    found = gap(codes, factors)
    for j, column in enumerate(codes.T):
        edges = np.histogram(column, 20)[1]
        numbers = np.digitize(column, edges[:-1])  # as disentanglement_lib does
        for k, factor in enumerate(factors.T):
            assert found.information[j, k] == pytest.approx(mutual_info_score(numbers, factor), abs=1e-9)
            table = np.histogram2d(column, factor, bins=(20, np.arange(factor.max() + 2)))[0]
            parts = [scipy_entropy(table.sum(1)), scipy_entropy(table.sum(0)), scipy_entropy(table.ravel())]
            assert found.information[j, k] == pytest.approx(parts[0] + parts[1] - parts[2], abs=1e-9)
            assert found.entropy[k] == pytest.approx(parts[1], abs=1e-12)
    ranked = np.sort(found.information, 0)
    np.testing.assert_allclose(found.each, (ranked[-1] - ranked[-2]) / found.entropy)


def test_bins_cover_the_range_of_each_latent() -> None:
    codes = np.array([[0.0, 5.0, 1.0], [1.0, 5.0, 1e300], [0.5, 5.0, 0.0]])
    assert binned(codes, 4).tolist() == [[0, 0, 0], [3, 0, 3], [2, 0, 0]]
    assert entropy(np.array([0, 3, 0])) == 0 and entropy(np.array([2, 2])) == pytest.approx(math.log(2))


def test_what_is_no_question_is_refused() -> None:
    for codes, known, bins in ((GRID[:0], GRID[:0], 20), (GRID[:3], GRID[:2], 20), (GRID, GRID, 1)):
        with pytest.raises(UsageError, match="two bins or more"):
            gap(codes.astype(float), known, bins)


class Copy(Model):
    """z has the mean `turn` x and x is around z."""

    def __init__(self, turn: Tensor) -> None:
        super().__init__()
        self.turn = turn

    def program(self, batch: Batch | None = None) -> Program:
        q = None if batch is None else Independent(Normal(content(batch["x"]) @ self.turn, 0.1, validate_args=False), 1)
        z = yield Site("z", Independent(Normal(torch.zeros(3), torch.ones(3), validate_args=False), 1), q)
        yield Site("x", Independent(Normal(z, 1.0, validate_args=False), 1))


def subject(model: Model, made: np.ndarray, **more: dict[str, np.ndarray]) -> Subject:
    x = torch.from_numpy(made).float()

    def rows() -> Iterator[Batch]:
        return ({"x": part} for part in x.split(7))

    return Subject(model, rows, Field("x", Real(1.0), (3,)), samples=5, **more)  # type: ignore[arg-type]


def test_the_metric_reads_posterior_means_and_has_an_error() -> None:
    factors = np.stack([RNG.integers(n, size=400) for n in LEVELS], 1)
    named = {name: factors[:, k] for k, name in enumerate("abc")}
    plain = measure(["mig"], subject(Copy(torch.eye(3)), factors, factors=named)).scores["mig"]
    assert plain.value == pytest.approx(gap(factors.astype(float), factors).each.mean())
    assert 0.8 < plain.value < 1 and 0 < plain.error < 0.1 and plain.rows is None
    turned = measure(["mig"], subject(Copy(torch.linalg.qr(torch.randn(3, 3))[0]), factors, factors=named)).scores["mig"]
    assert turned.value < 0.5
    again = measure(["mig"], subject(Copy(torch.eye(3)), factors, factors=named)).scores["mig"]
    assert (again.value, again.error) == (plain.value, plain.error)


def test_the_error_is_that_of_other_rows() -> None:
    """The jackknife's error against the spread over fresh sets of rows."""
    turn = torch.tensor([[1.0, 0.6, 0.0], [0.0, 1.0, 0.5], [0.2, 0.0, 1.0]])
    scores = []
    for _ in range(12):
        factors = np.stack([RNG.integers(n, size=600) for n in LEVELS], 1)
        scores.append(measure(["mig"], subject(Copy(turn), factors, factors={name: factors[:, k] for k, name in enumerate("abc")})).scores["mig"])
    spread, told = np.std([s.value for s in scores], ddof=1), np.mean([s.error for s in scores])
    assert 0.4 < told / spread < 2.5


def test_the_metric_refuses_what_has_no_factors() -> None:
    assert "no factors" in measure(["mig"], subject(Copy(torch.eye(3)), GRID)).refused["mig"]
    constant = {"a": np.zeros(len(GRID), np.int64)}
    assert "no factor varies" in measure(["mig"], subject(Copy(torch.eye(3)), GRID, factors=constant)).refused["mig"]


def test_evaluate_scores_data_with_two_factors_or_more(tmp_path: Path) -> None:
    factors = GRID.repeat(3, 0)
    x = np.concatenate([factors / [2.0, 5.0, 4.0], RNG.normal(size=(len(factors), 1))], 1).astype(np.float32)
    for names in (("shape", "place", "size"), ("label",)):
        data = from_arrays("made", {"x": x, **{name: factors[:, k] for k, name in enumerate(names)}})
        index = np.arange(5)
        found = known_factors(data.split("test"), data.schema, index)
        assert set(found) == (set(names) if len(names) > 1 else set())
        run = vaestro.train("beta_vae:latents=3,hidden=8", data, steps=3, out=tmp_path / names[0])
        scored = vaestro.evaluate(run, Protocol(samples=2))
        assert ("mig" in scored.scores) == (len(names) > 1)
    assert scored.scores["nll"]["value"] is not None
