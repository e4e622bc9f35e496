"""Probes, clusters and neighbourhoods of latents: known codes, scikit-learn's trustworthiness, brute force, and refusals."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from sklearn.manifold import trustworthiness
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from vaestro.core import Batch, Model, Program, Site, content
from vaestro.data import from_arrays
from vaestro.data.schema import Counted, Field, Measured, Named, Ordered, Positive, Real, Table
from vaestro.data.store import Dataset
from vaestro.errors import UsageError
from vaestro.evaluation.metrics import Subject, measure
from vaestro.evaluation.metrics.clustering import agreement, clustered, contingency, matched
from vaestro.evaluation.metrics.encodings import held_codes, held_values, training_codes
from vaestro.evaluation.metrics.held import Held
from vaestro.evaluation.metrics.neighbourhoods import intrusion, ranks
from vaestro.evaluation.metrics.probes import few, linear, nearest, standardised
from vaestro.evaluation.networks import TablePca
from vaestro.families.fields import Fields

RNG = np.random.default_rng(0)


class Identity(Model):
    """z has the mean x and x is around z: codes are the rows themselves, `scale` times as large."""

    def __init__(self, scale: float = 1.0, posterior: bool = True) -> None:
        super().__init__()
        self.scale, self.posterior = scale, posterior

    def program(self, batch: Batch | None = None) -> Program:
        q = Independent(Normal(content(batch["x"]) * self.scale, 0.1, validate_args=False), 1) if batch is not None and self.posterior else None
        z = yield Site("z", Independent(Normal(torch.zeros(2), torch.ones(2), validate_args=False), 1), q)
        yield Site("x", Independent(Normal(z, 1.0, validate_args=False), 1))


def blobs(n: int = 600, classes: int = 3, apart: float = 8.0, flip: float = 0.0) -> Dataset:
    labels = RNG.integers(classes, size=n)
    angle = labels * 2 * np.pi / classes
    x = apart * np.stack([np.cos(angle), np.sin(angle)], 1) + RNG.normal(size=(n, 2))
    wrong = RNG.random(n) < flip
    labels[wrong] = RNG.integers(classes, size=int(wrong.sum()))
    return from_arrays("blobs", {"x": x.astype(np.float32), "label": labels})


def subject(data: Dataset, model: Model | None = None, rows: int | None = None, **more: object) -> Subject:
    index = np.arange(data.split("test").rows)[:rows]
    held = Held(data, "test", index)

    def read() -> Iterator[Batch]:
        return held.batches()

    return Subject(model or Identity(), read, Field("x", Real(), (2,)), samples=5, held=held, **more)  # type: ignore[arg-type]


def test_training_codes_are_the_posterior_means_of_the_training_rows() -> None:
    data = blobs()
    of = subject(data, Identity(3.0))
    np.testing.assert_allclose(training_codes(of), 3 * data.split("train").arrays["x"], rtol=1e-6)
    assert len(training_codes(of, 50)) == 50
    chosen = of.beside.chosen("train", 50)
    np.testing.assert_allclose(training_codes(of, 50), 3 * data.split("train").arrays["x"][chosen], rtol=1e-6)
    np.testing.assert_allclose(held_codes(of), 3 * data.split("test").arrays["x"], rtol=1e-6)
    np.testing.assert_allclose(held_values(of), data.split("test").arrays["x"], rtol=1e-6)


class Rows(Model):
    """A law of rows of a table, and a posterior that says the first number of a row."""

    def __init__(self, law: nn.Module, h: Tensor) -> None:
        super().__init__()
        self.law, self.h = law, h

    def program(self, batch: Batch | None = None) -> Program:
        q = None if batch is None else Independent(Normal(content(batch["x"])[:, :1].nan_to_num(0.0), 1e-3), 1)
        yield Site("z", Independent(Normal(torch.zeros(1), 1.0), 1), q)
        yield Site("x", self.law(self.h))


def test_a_table_is_judged_by_draws_with_the_holes_of_its_rows() -> None:
    """Rows that the model drew itself, a third of their entries unseen, are told from its draws by chance only, and neighbours are those of what was seen."""
    table = Table((Measured("a", 1e4, 1e-3), Positive("b", 0.0, 1.0), Counted("c", 1.0, 1.0), Ordered("d", ("u", "v", "w")), Named("e", ("F", "M"))))
    law = Fields(table)
    torch.manual_seed(0)
    model = Rows(law, 0.5 * torch.randn(law.params))
    x = law(model.h).sample(torch.Size([600]))
    x = x.masked_fill(torch.rand(x.shape) < 1 / 3, torch.nan)
    of = Subject(model, lambda: [{"x": part} for part in x.split(130)], Field("x", table, (5,)), features={"pca64": TablePca(table, x)})
    pair = of.pair("pca64")
    assert pair.real.isfinite().all() and pair.fake.isfinite().all() and pair.fake.shape == pair.real.shape
    found = measure(["two_sample_pca64", "frechet_pca64", "energy", "trustworthiness", "continuity"], of).scores
    assert found["two_sample_pca64"].value == pytest.approx(0.5, abs=4 * found["two_sample_pca64"].error)
    assert abs(found["energy"].value) < 4 * found["energy"].error
    assert found["frechet_pca64"].value < 0.2
    assert np.isfinite(held_values(of)).all() and held_values(of).shape[1] > 5
    assert 0.4 < found["trustworthiness"].value < 1


class Echo(Model):
    """A law of rows of numbers whose middle is the row that was read, 0 where nothing was."""

    def __init__(self, law: nn.Module) -> None:
        super().__init__()
        self.law = law

    def program(self, batch: Batch | None = None) -> Program:
        x = torch.zeros(1, 2) if batch is None else content(batch["x"]).nan_to_num(0.0)
        yield Site("z", Independent(Normal(torch.zeros(1), 1.0), 1), None if batch is None else Independent(Normal(x[:, :1], 1.0), 1))
        yield Site("x", self.law(torch.cat([x, torch.zeros_like(x)], -1)))


def test_entries_that_were_not_seen_are_at_no_distance_from_what_is_said_of_them() -> None:
    table = Table((Measured("a", 0.0, 1.0), Measured("b", 5.0, 2.0)))
    torch.manual_seed(0)
    x = torch.randn(50, 2).masked_fill(torch.rand(50, 2) < 0.4, torch.nan)
    of = Subject(Echo(Fields(table)), lambda: [{"x": x}], Field("x", table, (2,)), features={"pca64": TablePca(table, x)})
    assert measure(["feature_distance_pca64"], of).scores["feature_distance_pca64"].value == pytest.approx(0.0, abs=1e-9)


def test_separate_classes_are_found_by_every_probe_and_by_clusters() -> None:
    of = subject(blobs())
    found = measure(["linear_probe", "knn_probe", "few_label_probe_10", "cluster_nmi", "cluster_ari", "cluster_accuracy"], of)
    assert not found.refused
    for name in found.scores:
        assert found.scores[name].value == 1.0 and found.scores[name].error == 0.0, name


def test_labels_that_are_noise_are_found_at_chance() -> None:
    data = blobs(3000, classes=4, flip=1.0)
    found = measure(["linear_probe", "knn_probe", "few_label_probe_100", "cluster_nmi", "cluster_ari", "cluster_accuracy"], subject(data)).scores
    for name in ("linear_probe", "knn_probe", "few_label_probe_100"):
        assert abs(found[name].value - 0.25) < 4 * found[name].error, name
    assert found["cluster_ari"].value == pytest.approx(0.0, abs=0.02) and found["cluster_nmi"].value < 0.03
    assert 0.25 <= found["cluster_accuracy"].value < 0.35  # matched on the rows themselves, so a little above chance


def test_known_error_rates_are_found() -> None:
    """A third of the labels are redrawn among three classes: the best possible accuracy is 1 - 2/9."""
    found = measure(["linear_probe", "knn_probe", "cluster_accuracy"], subject(blobs(6000, flip=1 / 3))).scores
    for score in found.values():
        assert abs(score.value - 7 / 9) < 4 * score.error and 0.01 < score.error < 0.03


def test_probes_do_not_mind_scale_shift_or_a_constant_latent() -> None:
    train, test = RNG.normal(size=(200, 3)), RNG.normal(size=(50, 3))
    labels = (train[:, 0] > 0).astype(int)
    usual, held = standardised(train, test)
    plain = linear(usual, labels, held)
    shifted = [np.concatenate([c * [1e-6, 1e6, -3.0] + 40, np.full((len(c), 1), 7.0)], 1) for c in (train, test)]
    a, b = standardised(*shifted)
    assert (linear(a, labels, b) == plain).all() and (a[:, 3] == 0).all() and (b[:, 3] == 0).all()


def test_a_probe_of_one_label_and_fewer_neighbours_than_asked() -> None:
    assert linear(np.ones((3, 1)), np.array([2, 2, 2]), np.zeros((4, 1))).tolist() == [2, 2, 2, 2]
    assert nearest(np.array([[0.0], [9.0], [10.0]]), np.array([0, 1, 1]), np.array([[0.1]])).tolist() == [1]  # all three vote
    assert nearest(np.array([[0.0], [9.0], [10.0]]), np.array([0, 1, 1]), np.array([[0.1]]), k=1).tolist() == [0]


@pytest.mark.parametrize("number", [3, 10, 11, 40])
def test_few_labels_are_spread_over_the_classes(number: int) -> None:
    labels = np.repeat([0, 1, 2], [5, 100, 30])
    chosen = few(labels, number, RNG)
    counts = np.bincount(labels[chosen], minlength=3)
    assert len(set(chosen.tolist())) == number and counts.sum() == number
    assert counts[0] == min(5, -(-number // 3)) or abs(counts[0] - number / 3) < 1
    assert abs(counts[1] - counts[2]) <= 1


def test_the_error_of_few_labels_counts_the_draws() -> None:
    """Fresh data and fresh labels spread by what the error says."""
    told = [measure(["few_label_probe_10"], subject(blobs(1500, apart=1.5), seed=i)).scores["few_label_probe_10"] for i in range(12)]
    spread = np.std([s.value for s in told], ddof=1)
    assert 0.4 < np.mean([s.error for s in told]) / spread < 2.5


def test_matching_against_every_permutation() -> None:
    clusters, labels = RNG.integers(4, size=60), RNG.integers(3, size=60)
    table = contingency(clusters, labels)
    best = max(sum(table[c, k] for c, k in zip(order, range(3), strict=True)) for order in itertools.permutations(range(4), 3))
    assert matched(clusters, labels) == best / 60 and table.sum() == 60
    names = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(agreement(names[clusters], labels), agreement(clusters, labels))  # names of clusters do not matter


def test_clusters_of_collapsed_latents_are_refused() -> None:
    with pytest.raises(UsageError, match="3 clusters need 3 different latents, and the training rows have 1"):
        clustered(np.zeros((20, 2)), np.zeros((5, 2)), 3, 0)
    found = measure(["cluster_nmi", "linear_probe"], subject(blobs(flip=1.0, apart=0.0), Identity(0.0)))
    assert "collapsed" in found.refused["cluster_nmi"] and found.scores["linear_probe"].value < 0.6


@pytest.mark.parametrize("k", [1, 5, 12])
def test_trustworthiness_and_continuity_against_scikit_learn(k: int) -> None:
    x = RNG.normal(size=(60, 6))
    z = np.tanh(x[:, :2]) + 0.1 * RNG.normal(size=(60, 2))
    true, shown = ranks(x), ranks(z)
    assert intrusion(true, shown, k).mean() == pytest.approx(trustworthiness(x, z, n_neighbors=k), abs=1e-12)
    assert intrusion(shown, true, k).mean() == pytest.approx(trustworthiness(z, x, n_neighbors=k), abs=1e-12)


def test_neighbourhoods_of_a_true_map_of_noise_and_of_too_few_rows() -> None:
    data = blobs(400)
    found = measure(["trustworthiness", "continuity"], subject(data)).scores
    assert [s.value for s in found.values()] == [1.0, 1.0] and found["continuity"].rows is not None
    x, z = RNG.normal(size=(500, 4)), RNG.normal(size=(500, 2))
    assert intrusion(ranks(x), ranks(z)).mean() == pytest.approx(0.5, abs=0.02)  # ranks at random
    refused = measure(["continuity"], subject(data, rows=24)).refused
    assert refused["continuity"] == "neighbourhoods of 12 need more than 24 rows, and there are 24; score more rows"


def test_what_cannot_be_probed_is_refused_in_words() -> None:
    one = from_arrays("one", {"x": RNG.normal(size=(90, 2)).astype(np.float32), "label": np.zeros(90, np.int64)})
    none = from_arrays("none", {"x": RNG.normal(size=(90, 2)).astype(np.float32)})
    names = ["linear_probe", "knn_probe", "few_label_probe_10", "cluster_accuracy"]
    assert all("no field 'label'" in r for r in measure(names, subject(none)).refused.values())
    assert all("one class" in r for r in measure(names, subject(one)).refused.values())
    assert all("posterior" in r for r in measure([*names, "continuity"], subject(blobs(), Identity(posterior=False))).refused.values())
    alone = Subject(Identity(), lambda: [{"x": torch.zeros(3, 2)}], Field("x", Real(), (2,)))
    assert all("no data set" in r for r in measure(names, alone).refused.values())
    refused = measure(["few_label_probe_10", "few_label_probe_1000"], subject(blobs(400, classes=12))).refused
    assert "10 labels makes no sense of 12 classes" in refused["few_label_probe_10"]
    assert "1000 labels makes no sense of 320 training rows" in refused["few_label_probe_1000"]


def test_latents_that_are_not_finite_are_an_error_in_words() -> None:
    for scale in (np.nan, np.inf):
        refused = measure(["linear_probe"], subject(blobs(90), Identity(scale))).refused
        assert "gives row 0 latents that are not finite" in refused["linear_probe"]


def test_one_row_can_be_probed() -> None:
    found = measure(["linear_probe", "knn_probe"], subject(blobs(), rows=1))
    assert found.scores["linear_probe"].value in (0.0, 1.0) and np.isnan(found.scores["linear_probe"].error)
    assert "one class" in measure(["cluster_nmi"], subject(blobs(), rows=1)).refused["cluster_nmi"]
