"""Registered metrics on small models whose scores are known."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Independent, Normal, OneHotCategorical

from vaestro.core import Batch, Model, Program, Site, content
from vaestro.data.schema import Binary, Field, Integer, Real
from vaestro.errors import UsageError
from vaestro.evaluation.judge import Pca
from vaestro.evaluation.metrics import METRICS, Cost, Direction, Score, Subject, active, cross_entropy_floor, measure

SHAPE = (1, 6, 6)


def normal(mean: Tensor, scale: float | Tensor, event: int = 1) -> Independent:
    return Independent(Normal(mean, scale, validate_args=False), event)


class Half(Model):
    """z copies the first 3 of 36 numbers (two latents are dead); x is around `gain` times what q saw, so every score is known."""

    def __init__(self, gain: float = 0.5, noise: float = 0.1) -> None:
        super().__init__()
        self.gain, self.noise = gain, noise

    def program(self, batch: Batch | None = None) -> Program:
        q = None
        if batch is not None:
            flat = content(batch["x"]).flatten(1)
            q = normal(torch.cat([flat[:, :34], 0 * flat[:, 34:]], 1), 0.2)
        z = yield Site("z", normal(torch.zeros(36), torch.ones(36)), q)
        yield Site("x", normal((self.gain * z).unflatten(-1, SHAPE), self.noise, 3))


def subject(model: Model, x: Tensor, kind: Binary | Integer | Real = Real(1.0), **more: object) -> Subject:
    def rows() -> Iterator[Batch]:
        return ({"x": part} for part in x.split(7))

    return Subject(model, rows, Field("x", kind, tuple(x.shape[1:])), samples=20, **more)  # type: ignore[arg-type]


@pytest.fixture
def x() -> Tensor:
    return torch.randn(40, *SHAPE, generator=torch.Generator().manual_seed(5))


def test_reconstruction_goes_through_the_posterior_mean(x: Tensor) -> None:
    score = measure(["reconstruction_mse"], subject(Half(), x)).scores["reconstruction_mse"]
    seen = x.flatten(1).clone()
    seen[:, 34:] = 0
    expected = (x.flatten(1) - 0.5 * seen).square().mean(1).numpy()
    assert score.rows is not None
    np.testing.assert_allclose(score.rows, expected, rtol=1e-5)
    assert score.value == pytest.approx(expected.mean(), rel=1e-5)
    assert score.error == pytest.approx(expected.std(ddof=1) / math.sqrt(40), rel=1e-5)


def test_active_units_are_counted(x: Tensor) -> None:
    score = measure(["active_units"], subject(Half(), x)).scores["active_units"]
    assert (score.value, score.error) == (34, 0)
    means = np.array([[0.0, 0.0, 1.0], [0.19, 0.21, 1.0]])  # variances 0.009, 0.011, 0
    assert active(means).tolist() == [False, True, False]
    near = 0.1 * torch.randn(40, *SHAPE, generator=torch.Generator().manual_seed(5))  # every variance about the threshold
    unsure = measure(["active_units"], subject(Half(), near)).scores["active_units"]
    assert 5 < unsure.value < 30 and 1 < unsure.error < 5


def test_density_metrics_read_one_pass(x: Tensor) -> None:
    s = subject(Half(), x)
    scores = measure(["nll", "elbo", "kl", "cross_entropy", "bits_per_dim", "effective_samples", "bound_gap"], s).scores
    found = s.likelihood
    assert scores["nll"].value == pytest.approx(-found.log_px.mean())
    assert scores["elbo"].value == pytest.approx(-(scores["cross_entropy"].value + scores["kl"].value))
    flat = x.flatten(1).double()
    flat[:, 34:] = 0
    expected = 0.5 * (flat.square().sum(1) + 36 * (0.04 - 1 - math.log(0.04)))
    np.testing.assert_allclose(scores["kl"].rows, expected, rtol=1e-5)
    assert scores["bits_per_dim"].value == pytest.approx(scores["nll"].value / math.log(2) / 36)
    fine = subject(Half(), x, Real(1 / 256))
    assert measure(["bits_per_dim"], fine).scores["bits_per_dim"].value == pytest.approx(scores["bits_per_dim"].value + 8)
    assert 0 < scores["effective_samples"].value <= 1 and scores["bound_gap"].value > 0
    assert scores["cross_entropy"].floor is None
    refused = measure(["bits_per_dim", "nll"], subject(Half(), x, Real()))
    assert "without a step" in refused.refused["bits_per_dim"] and "nll" in refused.scores


def test_blur_is_the_ratio_of_high_power(x: Tensor) -> None:
    class Faint(Half):
        def program(self, batch: Batch | None = None) -> Program:
            z = yield Site("z", normal(torch.zeros(36), torch.ones(36)), None if batch is None else normal(content(batch["x"]).flatten(1), 0.2))
            yield Site("x", normal((self.gain * z).unflatten(-1, SHAPE), 0.1, 3))

    for gain in (0.5, 1.0, 2.0):
        score = measure(["blur"], subject(Faint(gain), x)).scores["blur"]
        assert score.value == pytest.approx(gain**2, rel=1e-5)
        assert score.error == pytest.approx(0, abs=1e-5)
    vectors = Subject(Half(), lambda: [{"x": x}], Field("x", Real(), (36,)))
    assert "pictures" in measure(["blur"], vectors).refused["blur"]
    assert "no power" in measure(["blur"], subject(Half(), 0 * x)).refused["blur"]


def test_set_metrics_of_a_model_that_is_right_and_of_one_that_collapsed() -> None:
    train = torch.randn(500, *SHAPE, generator=torch.Generator().manual_seed(1))
    x = torch.randn(400, *SHAPE, generator=torch.Generator().manual_seed(2))
    pca = {"pca64": Pca.fit(train, 4)}
    names = ["frechet_pca64", "kernel_pca64", "precision_pca64", "recall_pca64", "density_pca64", "coverage_pca64"]
    right = measure(names, subject(Half(1.0), x, features=pca)).scores
    poor = measure(names, subject(Half(0.05), x, features=pca)).scores
    assert right["frechet_pca64"].value < 0.15 < poor["frechet_pca64"].value
    assert poor["frechet_pca64"].value == pytest.approx(4 * 0.95**2, rel=0.2)  # each of four spreads shrinks by 0.95
    assert abs(right["kernel_pca64"].value) < 4 * right["kernel_pca64"].error + 0.02
    assert right["coverage_pca64"].value > 0.9 and right["density_pca64"].value == pytest.approx(1, abs=0.15)
    assert poor["recall_pca64"].value < 0.1 < 0.8 < poor["precision_pca64"].value
    assert all(0 <= s.error < 0.5 for s in right.values())
    assert "features" in measure(["frechet_judge"], subject(Half(), x)).refused["frechet_judge"]


def test_binary_data_are_compared_with_draws_and_others_with_means() -> None:
    class Coins(Model):
        def program(self, batch: Batch | None = None) -> Program:
            z = yield Site("z", normal(torch.zeros(1), torch.ones(1)), None if batch is None else normal(0 * content(batch["x"]).flatten(1)[:, :1], 1.0))
            yield Site("x", Independent(Bernoulli(logits=0 * z[..., None, None].expand(*z.shape[:-1], *SHAPE), validate_args=False), 3))

    x = torch.bernoulli(torch.full((60, *SHAPE), 0.5), generator=torch.Generator().manual_seed(0))
    pca = Pca.fit(x, 8)
    drawn = subject(Coins(), x, Binary(), features={"pca64": pca}).pair("pca64").fake
    faded = subject(Coins(), x, Integer(256), features={"pca64": pca}).pair("pca64").fake
    assert float(drawn.var(0).mean()) == pytest.approx(0.25, rel=0.3)
    assert float(faded.var(0).max()) < 1e-10
    score = measure(["cross_entropy"], subject(Coins(), x, Binary())).scores["cross_entropy"]
    assert (score.value, score.floor) == (pytest.approx(36 * math.log(2)), 0.0)


def test_scores_repeat_under_a_seed_and_leave_the_generator_alone(x: Tensor) -> None:
    pca = {"pca64": Pca.fit(x, 4)}
    names = ["nll", "reconstruction_mse", "active_units", "frechet_pca64", "density_pca64"]
    state = torch.get_rng_state()
    one, two = (measure(names, subject(Half(), x, features=pca, seed=3)).scores for _ in range(2))
    other = measure(names, subject(Half(), x, features=pca, seed=4)).scores
    assert torch.equal(torch.get_rng_state(), state)
    assert [(s.value, s.error) for s in one.values()] == [(s.value, s.error) for s in two.values()]
    assert one["frechet_pca64"].value != other["frechet_pca64"].value


def test_discrete_codes_are_drawn_because_their_mean_is_no_code(x: Tensor) -> None:
    class Codes(Model):
        def program(self, batch: Batch | None = None) -> Program:
            q = None if batch is None else OneHotCategorical(logits=100 * torch.nn.functional.one_hot(torch.arange(len(content(batch["x"]))) % 3, 3).float())
            z = yield Site("z", OneHotCategorical(logits=torch.zeros(3)), q)
            assert set(z.flatten().tolist()) <= {0.0, 1.0}
            yield Site("x", normal(z[..., :1, None, None].expand(*z.shape[:-1], *SHAPE), 1.0, 3))

    score = measure(["reconstruction_mse"], subject(Codes(), x)).scores["reconstruction_mse"]
    assert np.isfinite(score.value)


def test_a_likelihood_without_a_mean_is_refused(x: Tensor) -> None:
    class Mute(Normal):
        @property
        def mean(self) -> Tensor:
            raise NotImplementedError

    class Muted(Model):
        def program(self, batch: Batch | None = None) -> Program:
            z = yield Site("z", normal(torch.zeros(1), 1.0), None if batch is None else normal(torch.zeros(len(content(batch["x"])), 1), 1.0))
            yield Site("x", Independent(Mute(0 * z[..., None, None].expand(*z.shape[:-1], *SHAPE), 1.0), 3))

    report = measure(["reconstruction_mse", "nll"], subject(Muted(), x))
    assert "has no mean" in report.refused["reconstruction_mse"] and "nll" in report.scores


def test_costs_are_passed_on(x: Tensor) -> None:
    report = measure(["parameters", "seconds"], subject(Half(), x, cost=Cost(1234, 5.5, 100)))
    assert (report.scores["parameters"].value, report.scores["seconds"].value) == (1234, 5.5)
    assert "took to train" in measure(["steps"], subject(Half(), x)).refused["steps"]


def test_the_floor_of_binary_cross_entropy() -> None:
    v = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.5, 1.0], [0.25, 0.0, 1.0]])
    three = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    np.testing.assert_allclose(cross_entropy_floor(v), [0, 2 * math.log(2), three], rtol=1e-12)


def test_every_metric_says_what_it_is() -> None:
    for name, metric in METRICS.items():
        assert metric.name == name and metric.title and metric.unit and metric.protocol and metric.source
    with pytest.raises(UsageError, match="did you mean nll"):
        METRICS["nlll"]


def test_directions_turn_values_into_losses() -> None:
    assert Direction.LOWER.loss(2.0) == 2 and Direction.HIGHER.loss(2.0) == -2
    assert Direction.ONE.loss(0.5) == pytest.approx(Direction.ONE.loss(2.0)) and Direction.ONE.loss(1.0) == 0 and Direction.ONE.loss(0.0) == math.inf
    assert Score.of_rows(np.array([1.0])).value == 1 and math.isnan(Score.of_rows(np.array([1.0])).error)


def test_categorical_latents_have_no_useful_mean(x: Tensor) -> None:
    class Index(Model):
        def program(self, batch: Batch | None = None) -> Program:
            q = None if batch is None else Categorical(logits=torch.zeros(len(content(batch["x"])), 5))
            z = yield Site("z", Categorical(logits=torch.zeros(5)), q)
            yield Site("x", normal(z[..., None, None, None].expand(*z.shape, *SHAPE).float(), 1.0, 3))

    assert measure(["reconstruction_mse"], subject(Index(), x)).scores["reconstruction_mse"].value > 1
