"""An energy as a prior of latents: the base where it says nothing, recovered densities, its normaliser by quadrature, samples that fit, and what is refused."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal

import vaestro
from vaestro.core import draw
from vaestro.data.schema import Binary, Field
from vaestro.errors import UsageError, VaestroError
from vaestro.priors import Energy, StandardNormal, UniformCodes
from vaestro.priors.fitted import FITTED, Latents, fit, lesson
from vaestro.testing import check_prior
from vaestro.training.runs import Run
from vaestro.training.stages import USUAL, Effort, descend, log_density
from vaestro.uses.evaluate import Protocol

FIELD = Field("x", Binary(), (1, 8, 8))
F64 = torch.float64
FAST = replace(USUAL, learning_rate=5e-3, patience=None)


def wild(latents=2, draws=50_000, size=2.0):
    """An energy that says something at random, its normaliser measured."""
    torch.manual_seed(1)
    prior = Energy(latents, (16,), 4, draws, 50)
    with torch.no_grad():
        for parameter in prior.net.parameters():
            parameter.normal_(std=size / 3)
        prior.start(torch.randn(200, latents) * 2 + 1)
    prior.settle()
    return prior.eval()


class Quadratic(nn.Module):
    """E(u) = u' A u / 2 - b' u [n, 1]: on the base, a Gaussian of precision I + A, whose Z is in closed form."""

    def __init__(self, A, b):
        super().__init__()
        self.A, self.b = A, b

    def forward(self, u):
        return ((u @ self.A * u).sum(-1) / 2 - u @ self.b).unsqueeze(-1)


def quadratic(draws=50_000):
    prior = Energy(2, (4,), 4, draws, 50).double().eval()
    prior.net = Quadratic(torch.tensor([[1.0, 0.3], [0.3, -0.2]], dtype=F64), torch.tensor([0.5, -0.4], dtype=F64))
    precision = torch.eye(2, dtype=F64) + prior.net.A
    mean = torch.linalg.solve(precision, prior.net.b)
    return prior, MultivariateNormal(mean, precision_matrix=precision), float((prior.net.b @ mean - torch.logdet(precision)) / 2)


def fitted(rows, held, steps=400, hidden=(32, 32), draws=50_000):
    torch.manual_seed(0)
    prior = Energy(rows.shape[1], hidden, 4, draws, 50)
    told = fit(prior, rows, held, lambda part: descend(part, rows, held, (Effort(steps, 0, FAST), lambda line: None)))
    return prior.eval(), told


def test_without_an_energy_it_is_the_base():
    prior = Energy(3, (8,), 4, 5000, 50)
    z = torch.randn(4, 7, 3) * 3
    torch.testing.assert_close(prior().log_prob(z), Independent(Normal(torch.zeros(3), 1.0), 1).log_prob(z))
    prior.start(5 + 2 * torch.randn(500, 3))
    torch.testing.assert_close(prior().log_prob(z), Independent(Normal(prior.loc, prior.scale), 1).log_prob(z))
    assert prior.settle() == pytest.approx(5000) and abs(prior.log_z) < 1e-5 and prior.error < 1e-4
    assert prior.candidates == 50


def test_the_normaliser_and_its_error_against_a_closed_form():
    prior, exact, log_z = quadratic()
    effective = prior.settle()
    assert abs(prior.log_z - log_z) < 4 * prior.error
    assert 0.001 < prior.error < 0.02
    z = torch.randn(50, 2, dtype=F64)
    torch.testing.assert_close(prior().log_prob(z) + prior.log_z - log_z, exact.log_prob(z))
    assert prior.error.item() == pytest.approx(math.sqrt(1 / effective - 1 / 50_000), rel=1e-6)
    few = [quadratic(400)[0] for _ in range(300)]
    found = []
    for prior in few:  # other draws than the stored ones, to see the error and the side that the estimate errs to
        log_w = -prior.energy(prior.base(400))
        found.append(log_w.logsumexp(0) - math.log(400))
        prior.settle()
    found = torch.stack(found)
    assert found.std() == pytest.approx(float(few[0].error), rel=0.25)
    assert found.exp().mean().log() == pytest.approx(log_z, abs=4 * float(few[0].error) / math.sqrt(300))


def test_the_normaliser_of_a_network_against_quadrature():
    prior = wild().double()
    axis = torch.linspace(-8, 8, 401, dtype=F64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        log_z = (-prior.energy(grid) + Normal(0.0, 1.0).log_prob(grid).sum(-1)).logsumexp(0) + 2 * math.log(16 / 400)
    assert abs(prior.log_z - log_z) < 4 * prior.error
    assert abs(log_z) > 0.2, "else there was nothing to measure"


def test_settling_repeats_itself_and_leaves_the_generator_alone():
    prior = wild()
    torch.manual_seed(3)
    expected = torch.randn(2)
    torch.manual_seed(3)
    before = prior.log_z.clone()
    prior.settle()
    assert torch.equal(torch.randn(2), expected) and torch.equal(prior.log_z, before)


def test_it_passes_the_public_check_of_priors():
    check_prior(wild())


def test_samples_have_the_moments_and_the_places_of_the_density():
    prior, exact, _ = quadratic()
    prior.settle()
    torch.manual_seed(0)
    drawn = prior().sample((6000,))
    assert drawn.shape == (6000, 2)
    error = exact.variance.sqrt() / math.sqrt(6000)
    assert ((drawn.mean(0) - exact.mean).abs() < 5 * error + 0.02).all()
    torch.testing.assert_close(drawn.T.cov(), exact.covariance_matrix, rtol=0.08, atol=0.05)
    assert len(drawn.unique(dim=0)) == 6000, "no draw stands in two rows"


def test_one_dimension_by_histogram_and_in_blocks(monkeypatch):
    prior = wild(1, size=4.0).double()
    torch.manual_seed(0)
    cells = torch.linspace(-9, 11, 101, dtype=F64)
    with torch.no_grad():
        density = prior().log_prob(((cells[1:] + cells[:-1]) / 2).unsqueeze(-1)).exp() * 0.2
    assert density.sum().item() == pytest.approx(1.0, abs=0.03)
    shares = torch.histogram(prior().sample((8000,))[:, 0], cells).hist / 8000
    assert (shares - density).abs().sum() < 0.12
    monkeypatch.setattr("vaestro.priors.energy.AT_ONCE", 2 * prior.candidates // 3)  # no more than a part of the candidates of one draw at a time
    shares = torch.histogram(prior().sample((1000,))[:, 0], cells).hist / 1000
    assert (shares - density).abs().sum() < 0.35
    assert prior().sample((0,)).shape == (0, 1)


def test_the_lesson_is_that_of_noise_contrast_and_least_at_the_log_ratio():
    prior, exact, log_z = quadratic()
    z = exact.sample((4000,))
    torch.manual_seed(0)
    noise = torch.randn(16_000, 2, dtype=F64)
    torch.manual_seed(0)
    found = lesson(prior.train(), z)

    def classified(ratio):
        return -torch.log(ratio(z) / (ratio(z) + 4)), -torch.log(4 / (ratio(noise) + 4)).mean() * 4

    mine, beside = classified(lambda u: (-prior.energy(u)).exp())
    torch.testing.assert_close(found, mine + beside)
    losses = {}
    for shift in (-0.3, 0.0, 0.3):
        mine, beside = classified(lambda u, s=shift: (-prior.energy(u) - log_z + s).exp())
        losses[shift] = float(mine.mean() + beside)
    assert losses[0.0] < min(losses[-0.3], losses[0.3]), "the best classifier has Z = 1"


@pytest.mark.parametrize("latents", [1, 2])
def test_a_known_mixture_is_recovered(latents):
    torch.manual_seed(0)
    means = torch.tensor([[-1.5], [1.0]]).expand(2, latents)
    exact = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.tensor([0.3, 0.7])), Independent(Normal(means, torch.tensor([[0.4], [0.6]]).expand(2, latents)), 1)
    )
    rows, held = exact.sample((6000,)), exact.sample((2000,))
    prior, told = fitted(rows, held)
    assert told["steps"] == 400 and abs(told["log_z"]) < 0.1 and told["standard_error"] < 0.02, "noise contrast leaves Z near 1"
    entropy = exact.log_prob(held).mean().item()
    base = Independent(Normal(prior.loc, prior.scale), 1).log_prob(held).mean().item()
    found = log_density(prior, held)
    assert base + 0.8 * (entropy - base) < found < entropy + 0.03
    axis = torch.linspace(-3, 3, 61)
    grid = axis.unsqueeze(-1) if latents == 1 else torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        gap = (prior().log_prob(grid) - exact.log_prob(grid))[exact.log_prob(grid) > -4]
    assert gap.abs().mean() < 0.25


def test_a_ring_is_learnt_better_than_by_a_gaussian_and_never_too_well():
    torch.manual_seed(0)

    def ring(n):
        angle = torch.rand(n) * 2 * math.pi
        return torch.stack([angle.cos(), angle.sin()], 1) * 3 + 0.3 * torch.randn(n, 2)

    rows, held = ring(3000), ring(1000)
    prior, told = fitted(rows, held, 600)
    gaussian = Normal(rows.mean(0), rows.std(0)).log_prob(held).sum(-1).mean()
    true = -(1 + math.log(2 * math.pi * 0.09)) / 2 - math.log(2 * math.pi * 3)  # of the radius, about, and of the angle
    found = log_density(prior, held)
    assert gaussian + 0.5 < found < true + 0.05
    radius = prior().sample((1000,)).norm(dim=-1)
    assert ((radius > 2) & (radius < 4)).float().mean() > 0.95
    assert told["effective_draws"] > 5000


def test_a_normaliser_that_draws_do_not_tell_is_refused():
    torch.manual_seed(0)
    rows = torch.randn(600, 1) + 0.05 * torch.randn(600, 12)  # a line in twelve dimensions
    with pytest.raises(VaestroError, match=r"cannot be told: of 2,000 draws of its base .* give draws=\d+ or more, or fit another prior, such as flow"):
        fitted(rows[:300], rows[300:], 200, draws=2000)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return vaestro.train("vae:latents=4,hidden=32", "digits-dynamic", steps=200, out=tmp_path_factory.mktemp("energy") / "first")


def test_a_run_with_an_energy_is_used_as_any_other(first, tmp_path):
    new = vaestro.fit_prior(first, "energy:hidden=32,draws=20000,learning_rate=5e-3", out=tmp_path / "new", steps=200)
    (stage,) = new.about["stages"]
    assert stage["log_density"]["after"] > stage["log_density"]["before"]
    assert stage["standard_error"] < 0.07 and stage["draws"] == 20_000
    again = vaestro.open_run(tmp_path / "new")
    assert torch.equal(again.model.prior.log_z, new.model.prior.log_z)
    rows = Protocol(rows=40, samples=20)
    assert vaestro.evaluate(again, rows).scores["nll"]["value"] == vaestro.evaluate(new, rows).scores["nll"]["value"]
    assert torch.equal(vaestro.generate(again, 4, seed=1), vaestro.generate(new, 4, seed=1))
    z, log_p = draw(again.model.prior(), (3, 2))
    torch.testing.assert_close(again.model.prior().log_prob(z), log_p)


@pytest.mark.parametrize("call", ["hidden=0", "noise=0", "draws=0"])
def test_numbers_outside_their_range_are_refused(call, first, tmp_path):
    with pytest.raises(UsageError, match="greater than or equal to 1"):
        vaestro.fit_prior(first, f"energy:{call}", out=tmp_path / "new")
    wrong = {"hidden": (8,), "noise": 1, "draws": 10} | ({"hidden": (0,)} if call.startswith("hidden") else {call.partition("=")[0]: 0})
    with pytest.raises(UsageError, match="give one or more"):
        Energy(2, *wrong.values(), 50)


def test_it_is_no_prior_over_codes_and_takes_events_of_any_shape():
    with pytest.raises(UsageError, match="priors over codes"):
        FITTED["energy"](Latents((4,), UniformCodes((4,), 3), nn.Identity(), FIELD))
    prior = FITTED["energy"](Latents((2, 3), StandardNormal((2, 3)), nn.Identity(), FIELD), hidden=(4,), draws=100)
    assert prior.eval()().sample(torch.Size((5,))).shape == (5, 2, 3)
    assert prior().log_prob(torch.randn(7, 5, 2, 3)).shape == (7, 5)
