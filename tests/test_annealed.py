"""Annealing on models whose log p(x) is known: unbiased weights, bounds that close from both sides, and refusals in words."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, OneHotCategorical

from vaestro.core import Batch, Model, Program, Site
from vaestro.data.schema import Binary, Field
from vaestro.errors import UsageError
from vaestro.evaluation.annealed import Plan, annealed, sandwiched, temperatures
from vaestro.evaluation.metrics import METRICS, Subject, measure
from vaestro.families.sphere import PowerSpherical
from vaestro.testing.linear import LinearGaussian

GENTLE = LinearGaussian(3, 2, 0.8)


def rows(n: int, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return GENTLE.evidence.sample((n,))


def test_temperatures_rise_from_nothing_to_all() -> None:
    betas = temperatures(7)
    assert (len(betas), betas[0], betas[-1]) == (8, 0, 1)
    assert bool((betas.diff() > 0).all())
    torch.testing.assert_close(betas + betas.flip(0), torch.ones(8, dtype=torch.float64))


def test_the_mean_weight_is_the_evidence() -> None:
    x = rows(4)
    found = annealed(GENTLE.wrong, {"x": x}, Plan(3, 4000, 2))  # three coarse steps: only right weights and moves average to p(x)
    exact = GENTLE.evidence.log_prob(x).numpy()
    np.testing.assert_allclose(found.log_px, exact, atol=0.12)
    assert 0.3 < found.accepted <= 1


def test_one_temperature_is_importance_sampling_from_the_prior() -> None:
    """Without a law between, a weight is p(x | z) at a draw of the prior."""
    x = rows(3)
    found = annealed(GENTLE.wrong, {"x": x}, Plan(1, 20_000, 1))
    np.testing.assert_allclose(found.log_px, GENTLE.evidence.log_prob(x).numpy(), atol=0.15)


def test_the_lower_bound_rises_to_the_truth() -> None:
    x = rows(12)
    exact = GENTLE.evidence.log_prob(x).numpy()
    short, long = (annealed(GENTLE.wrong, {"x": x}, Plan(t, 4, 3)).log_px - exact for t in (3, 24))
    assert short.mean() < long.mean() + 0.01
    assert short.mean() < -0.1
    assert abs(long.mean()) < 0.25


def test_the_bounds_close_from_both_sides() -> None:
    gaps = []
    for t in (3, 24):
        found = sandwiched(GENTLE.wrong, {"x": rows(12)}, Plan(t, 4, 3))
        assert found.upper is not None
        exact = GENTLE.evidence.log_prob(found.drawn["x"]).numpy()
        slack = 3 * (found.upper - exact).std() / math.sqrt(12)
        assert (found.upper - exact).mean() > -slack and (exact - found.log_px).mean() > -slack
        gaps.append((found.upper - found.log_px).mean())
    assert gaps[0] > 2 * gaps[1]
    assert -0.05 < gaps[1] < 0.5


def test_simulated_rows_are_the_models_own() -> None:
    found = sandwiched(GENTLE.wrong, {"x": torch.zeros(600, 3, dtype=torch.float64)}, Plan(1, 1, 1))
    torch.testing.assert_close(found.drawn["x"].T.cov(), GENTLE.evidence.covariance_matrix, atol=0.35, rtol=0.15)


def test_the_same_seed_gives_the_same_and_the_global_generator_is_left_alone() -> None:
    x = rows(3)
    torch.manual_seed(5)
    first = annealed(GENTLE.wrong, {"x": x}, Plan(4, 2, 2), seed=3)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    np.testing.assert_array_equal(first.log_px, annealed(GENTLE.right, {"x": x}, Plan(4, 2, 2), seed=3).log_px)  # no posterior has a part in it
    assert not np.array_equal(first.log_px, annealed(GENTLE.wrong, {"x": x}, Plan(4, 2, 2), seed=4).log_px)


class Two(Model):
    """z1 ~ N(0, 1), z2 ~ N(z1, 1), x ~ N(z1 + z2, 1): x is normal with variance 1 + 5."""

    def __init__(self, prior: type | None = None) -> None:
        super().__init__()
        self.other = prior

    def program(self, batch: Batch | None = None) -> Program:
        first = Independent(Normal(torch.zeros(1), 1.0), 1)
        if self.other is not None:
            first = OneHotCategorical(logits=torch.zeros(4)) if self.other is OneHotCategorical else PowerSpherical(torch.tensor([1.0, 0.0]), torch.tensor(2.0))
        z1 = yield Site("z1", first)
        z2 = yield Site("z2", Independent(Normal(z1[..., :1], 1.0), 1))
        yield Site("x", Independent(Normal(z1[..., :1] + z2, 1.0), 1))


def test_latents_that_depend_on_latents() -> None:
    x = 6**0.5 * torch.randn(5, 1, generator=torch.Generator().manual_seed(1))
    found = annealed(Two(), {"x": x}, Plan(20, 100, 4))
    np.testing.assert_allclose(found.log_px, Normal(0.0, 6**0.5).log_prob(x)[:, 0].numpy(), atol=0.2)


@pytest.mark.parametrize(("prior", "words"), [(OneHotCategorical, "are discrete"), (PowerSpherical, "do not fill a space of real numbers")])
def test_latents_without_room_to_move_are_refused(prior: type, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        annealed(Two(prior), {"x": torch.zeros(2, 1)}, Plan(2, 1, 1))


def test_bad_plans_are_refused() -> None:
    with pytest.raises(UsageError, match="chains is 0"):
        annealed(GENTLE.wrong, {"x": rows(1)}, Plan(2, 0, 1))


def test_as_metrics_they_are_dear_and_take_a_hundred_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    from vaestro.evaluation.metrics import annealing

    monkeypatch.setattr(annealing, "PLAN", Plan(12, 2, 3))
    assert METRICS["ais"].dear and METRICS["bdmc_gap"].dear
    x = rows(130)
    subject = Subject(GENTLE.wrong, lambda: [{"x": x}], Field("x", Binary(), (3,)))
    scores = measure(["ais", "bdmc_gap"], subject).scores
    assert scores["ais"].rows is not None and len(scores["ais"].rows) == 100
    assert scores["ais"].value == pytest.approx(-float(GENTLE.evidence.log_prob(subject.some(100)["x"]).mean()), abs=0.3)
    assert -0.05 < scores["bdmc_gap"].value < 1.5
