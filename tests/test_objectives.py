"""Every bound against the closed forms of the linear-Gaussian model; the value that is reported is the bound."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from vaestro.models import VAE
from vaestro.objectives import elbo, free_bits, iwae, mean_exp, reconstruction
from vaestro.plays import Clock, alone, annealed
from vaestro.schedules import constant, cosine, cyclical, linear_decay, warm_up
from vaestro.testing import LinearGaussian, check_bound
from vaestro.testing.linear import Law


@pytest.fixture(scope="module")
def world() -> LinearGaussian:
    return LinearGaussian()


@pytest.fixture
def x(world):
    return world.evidence.sample((7,))


def test_with_the_true_posterior_every_weight_is_the_evidence(world, x):
    t = world.right({"x": x}, 4)
    assert torch.allclose(t.log_w, world.evidence.log_prob(x).expand(4, 7))
    assert torch.allclose(iwae(t), -world.evidence.log_prob(x))


def test_elbo_has_its_closed_form(world, x):
    values = -elbo()(world.wrong({"x": x}, 60_000))
    assert torch.allclose(values, world.elbo(x, 0.2, 2.0), atol=0.15)
    assert (values < world.evidence.log_prob(x)).all()


def test_beta_weighs_the_kl_alone(world, x):
    t = world.wrong({"x": x}, 5)
    assert torch.allclose(elbo(3.0)(t) - elbo(1.0)(t), 2 * t.kl)
    assert torch.equal(elbo(0.0)(t), reconstruction()(t))


def test_iwae_is_the_elbo_at_one_sample_and_rises_to_the_evidence(world, x):
    log_w = world.wrong({"x": x}, 8_000).log_w
    t = world.wrong({"x": x}, 1)
    assert torch.allclose(-iwae(t), t.log_w[0])
    bounds = [log_w.mean(), *(torch.stack([mean_exp(w) for w in log_w.chunk(8_000 // k)]).mean() for k in (2, 10, 100)), world.evidence.log_prob(x).mean()]
    assert bounds == sorted(bounds)
    assert bounds[-1] - bounds[-2] < 0.05


@pytest.mark.parametrize("samples", [1, 2, 8])
def test_iwae_passes_the_public_check_of_bounds(samples):
    check_bound(iwae, samples)


def test_the_public_check_of_bounds_catches_what_is_no_bound():
    for wrong in (lambda t: iwae(t) - 0.5, lambda t: -t.log_w.logsumexp(0), lambda t: -t.log_px.mean(0), lambda t: iwae(t) + 9.0):
        with pytest.raises(AssertionError):
            check_bound(wrong, 4, 2000)


def test_iwae_gradient_is_that_of_its_value():
    log_w = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    mean_exp(log_w).sum().backward()
    assert torch.allclose(log_w.grad, log_w.detach().softmax(0))
    assert torch.autograd.gradcheck(mean_exp, (log_w,))


def test_the_elbo_gradient_is_unbiased(world, x):
    """d ELBO / d shift = -S^-1 shift (the KL's), by many draws."""
    shift = torch.full((2,), 0.2, dtype=torch.float64, requires_grad=True)
    base = world.wrong.posterior.law
    model = VAE(world.prior, Law(lambda x: _moved(base(x), shift - 0.2)), world.likelihood)
    (-elbo()(model({"x": x[:1]}, 100_000))).sum().backward()
    assert torch.allclose(shift.grad, -torch.linalg.solve(world.S, shift.detach()), atol=0.35)


def _moved(d, by):
    return torch.distributions.MultivariateNormal(d.loc + by, d.covariance_matrix)


def _model(scale, prior=None):
    normal = Law(lambda: Independent(Normal(torch.zeros(3), 1.0), 1))
    q = Law(lambda x: Independent(Normal(x, scale), 1))
    return VAE(prior or normal, q, Law(lambda z: Independent(Normal(z, 1.0), 1)))


def test_free_bits_charges_each_dimension_at_least_the_floor():
    scale, x = torch.tensor([1.0, 0.1, 0.5]), torch.zeros(11, 3)
    t = _model(scale)({"x": x}, 2)
    each = -scale.log() + scale.square() / 2 - 0.5
    for floor in (0.0, 0.5, 5.0):
        expected = each.clamp(min=floor).sum() - t.log_px.mean(0)
        assert torch.allclose(free_bits(floor)(t), expected)
    assert torch.allclose(free_bits(0.0)(t), elbo()(t))


def test_free_bits_falls_back_on_whole_sites():
    mixture = Law(lambda: MixtureSameFamily(Categorical(logits=torch.zeros(2)), Independent(Normal(torch.randn(2, 3), 1.0), 1)))
    t = _model(torch.ones(3), mixture)({"x": torch.zeros(11, 3)}, 2)
    assert torch.allclose(free_bits(100.0)(t), 100.0 - t.log_px.mean(0))


def test_schedules_have_their_stated_values():
    assert [warm_up(0.2)(p) for p in (0, 0.1, 0.2, 1)] == [0, 0.5, 1, 1]
    assert [warm_up(0.0)(p) for p in (0, 1)] == [1, 1]
    assert [round(cyclical(2, 0.5)(p), 6) for p in (0, 0.125, 0.25, 0.49, 0.5, 0.625, 1)] == [0, 0.5, 1, 1, 0, 0.5, 1]
    assert [round(cosine()(p), 6) for p in (0, 0.5, 1)] == [1, 0.5, 0]
    assert [linear_decay(0.5)(p) for p in (0, 0.49, 0.75, 1)] == [1, 1, 0.5, 0]
    assert [linear_decay(1.0, 0.1)(p) for p in (0, 0.5, 1)] == [1, 1, 1], "what is held throughout never falls"
    assert constant(3.0)(0.7) == 3.0


def test_an_annealed_play_weighs_as_its_clock_says(world, x):
    parts = torch.nn.ModuleDict({"model": world.wrong})
    for step, weight in ((0, 0.0), (5, 0.5), (50, 1.0)):
        torch.manual_seed(1)
        (move,) = annealed(elbo, warm_up(0.1))(parts, {"x": x}, Clock(step, 100))
        torch.manual_seed(1)
        (plain,) = alone(elbo(weight))(parts, {"x": x}, Clock(step, 100))
        assert torch.equal(move.loss, plain.loss)
        assert move.terms["weight"] == weight
        assert math.isclose(float(move.terms["kl"]), float(move.trace.kl.mean()))


def test_a_linear_vae_trained_reaches_the_ppca_maximum():
    """The maximum likelihood of probabilistic PCA, with W and the noise learnt, is known in closed form."""
    torch.manual_seed(0)
    data = LinearGaussian(4, 2, 0.5).evidence.sample((400,))
    eigen = torch.linalg.eigvalsh(torch.cov(data.T, correction=0))
    noise = eigen[:2].mean()
    best = -0.5 * (4 * math.log(2 * math.pi) + eigen[2:].log().sum() + 2 * noise.log() + 4)
    W = torch.randn(4, 2, dtype=torch.float64).mul_(0.3).requires_grad_()
    A = torch.randn(2, 4, dtype=torch.float64).mul_(0.3).requires_grad_()
    log_s = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    log_noise = torch.zeros((), dtype=torch.float64, requires_grad=True)
    model = VAE(
        Law(lambda: Independent(Normal(torch.zeros(2, dtype=torch.float64), 1.0), 1)),
        Law(lambda x: Independent(Normal(x @ A.T, log_s.exp()), 1)),
        Law(lambda z: Independent(Normal(z @ W.T, log_noise.exp()), 1)),
    )
    optimizer = torch.optim.Adam([W, A, log_s, log_noise], 0.02)
    centred = data - data.mean(0)
    for step in range(1500):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 1500)
        optimizer.zero_grad()
        elbo()(model({"x": centred}, 4)).mean().backward()
        optimizer.step()
    with torch.no_grad():
        reached = -elbo()(model({"x": centred}, 400)).mean()
    assert abs(reached - best) < 0.02
