"""Weights and schedules: identities with the ELBO, closed forms, constraints that are met, and floors under the KL that nothing passes."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from vaestro.conditional import Conditional
from vaestro.core import Draw, Model, Seen, Site, Trace, observe
from vaestro.data.schema import Binary, Integer, Real
from vaestro.errors import UsageError
from vaestro.families import Binned, CommittedGaussian, Gaussian, TrackedGaussian, best_scale, rescaled
from vaestro.families.committed import widest
from vaestro.models import VAE
from vaestro.networks import mlp
from vaestro.objectives import by_dimension, by_site, capacity, elbo, free_bits, optimal_scale, rate, reconstruction
from vaestro.plays import Clock, Multiplier, alone, annealed, curriculum, easiest, geco
from vaestro.priors import CommittedChain, GaussianChain
from vaestro.priors.chains import committed_rate
from vaestro.recipes import parse
from vaestro.schedules import constant, cyclical, ramp, warm_up
from vaestro.testing import LinearGaussian, check_prior, toy_batch, toy_schema
from vaestro.testing.linear import Law
from vaestro.training.loop import Loop, weights

F64 = torch.float64


@pytest.fixture(scope="module")
def world() -> LinearGaussian:
    return LinearGaussian()


class Two(Model):
    """Two latent sites, the second below the draws of the first, over [3] and [2]; x is [2]."""

    def program(self, batch=None):
        x = None if batch is None else batch["x"]
        x = x.value if isinstance(x, Seen) else x
        zero = torch.zeros(3, dtype=F64)
        scale = torch.tensor([1.0, 0.1, 0.5], dtype=F64)
        a = yield Site("a", Independent(Normal(zero, 1.0), 1), None if x is None else Independent(Normal(x[:, :1] * scale, scale), 1))
        b = yield Site("b", Independent(Normal(a[..., :2], 1.0), 1), None if x is None else Independent(Normal(x, 0.3), 1))
        yield Site("x", Independent(Normal(b, 1.0), 1))


def two(rows: int = 7, k: int = 3) -> Trace:
    return Two()({"x": torch.randn(rows, 2, dtype=F64)}, k)


def test_rate_is_the_kl_of_each_row_over_its_draws(world):
    x = world.evidence.sample((5,))
    t = world.wrong({"x": x}, 3)
    assert rate(t).shape == (5,)
    assert torch.allclose(rate(t), t.kl.expand(5))  # a closed form that does not depend on the draw
    t = two()
    assert torch.allclose(rate(t), sum(d.kl.expand(3, 7) for d in t.latents.values()).mean(0))


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("k", [1, 4])
def test_capacity_has_its_identities(rows, k):
    t = two(rows, k)
    assert torch.allclose(capacity(1.0, 0.0)(t), elbo()(t))
    assert torch.allclose(capacity(0.0, 3.0)(t), reconstruction()(t))
    kl = rate(t)
    assert torch.allclose(capacity(10.0, 2.0)(t), 10 * (kl - 2).abs() - t.log_px.mean(0))
    assert torch.allclose(capacity(1.0, float(kl.max()) + 1)(t), elbo()(t) + float(kl.max()) + 1 - 2 * kl)  # below the capacity the KL is rewarded


@pytest.mark.parametrize("target", [0.3, 2.5])
def test_capacity_holds_the_kl_where_it_is_told(target):
    """Where the ELBO pays for less than C as where it pays for more."""
    call = f"capacity:nats={target},gamma=5,until=0,latents=2,hidden=16,learning_rate=0.02,likelihood=gaussian_fixed"
    recipe, x = parse(call).cook(toy_schema(Real(), (4,))), torch.randn(64, 4)
    loop = Loop(recipe, 0, 200, torch.device("cpu"))
    for _ in range(200):
        loop.step(lambda: {"x": x})
    assert rate(recipe.model({"x": x})).mean().item() == pytest.approx(target, rel=0.1)


def test_free_bits_by_dimension_and_by_site_on_several_sites():
    t = two()
    a = torch.distributions.kl_divergence(t["a"].posterior.base_dist, t["a"].prior.base_dist).mean(0)
    b = torch.distributions.kl_divergence(t["b"].posterior.base_dist, t["b"].prior.base_dist).mean((0, 1))
    for floor in (0.0, 0.4, 3.0):
        each = torch.cat([a, b]).clamp(min=floor).sum()
        assert torch.allclose(free_bits(floor)(t).mean(), each - t.log_px.mean())
        sites = a.sum().clamp(min=floor) + b.sum().clamp(min=floor)
        assert torch.allclose(free_bits(floor, by_site)(t).mean(), sites - t.log_px.mean())
    for groups in (by_dimension, by_site):
        assert torch.allclose(free_bits(0.0, groups)(t), elbo()(t))  # row by row
        assert torch.allclose(free_bits(50.0, groups)(t), (5 if groups is by_dimension else 2) * 50.0 - t.log_px.mean(0))


def test_free_bits_take_the_maximum_of_the_mean_over_the_minibatch():
    """Rows with KL 0 and 2 average to 1: at a floor of 0.5 nothing is added, though row by row 0.25 would be."""
    q = Independent(Normal(torch.tensor([[0.0], [2.0]]), 1.0), 1)
    p = Independent(Normal(torch.zeros(1), 1.0), 1)
    z, x = q.rsample((4,)), torch.zeros(4, 2)
    t = Trace(z=Draw(z, p, q, p.log_prob(z), q.log_prob(z), False), x=Draw(x, p, None, x, 0.0, True))
    assert torch.allclose(free_bits(0.5)(t), torch.tensor([0.0, 2.0]))
    assert torch.allclose(free_bits(1.5)(t), torch.full((2,), 1.5))


def test_below_the_floor_no_gradient_pulls_the_posterior_to_the_prior():
    loc = torch.tensor([[0.1, 3.0]], requires_grad=True)
    q, p = Independent(Normal(loc, 1.0), 1), Independent(Normal(torch.zeros(2), 1.0), 1)
    t = Trace(z=Draw(loc, p, q, 0.0, 0.0, False), x=Draw(loc, p, None, torch.zeros(1, 1), 0.0, True))
    free_bits(0.5)(t).sum().backward()
    assert torch.equal(loc.grad, torch.tensor([[0.0, 3.0]]))


def test_rows_whose_latents_were_given_pay_no_kl_in_any_rule():
    x, given = torch.zeros(4, 2, dtype=F64), torch.tensor([True, True, False, False])
    batch = {"x": x}
    t = Two()(batch, 2, {"x": x, "a": Seen(torch.zeros(4, 3, dtype=F64), given)})
    free = kl_divergence(t["a"].posterior.base_dist, t["a"].prior.base_dist)[2:].sum(0) / 4
    assert torch.allclose(t["a"].kl_by_dimension, free)
    assert torch.equal(by_dimension(t["a"])[:2], torch.zeros(2, 3, dtype=F64))
    assert torch.allclose(by_site(t["a"]).mean(), free.sum())
    assert torch.allclose(free_bits(0.0)(t), elbo()(t))


def test_a_cycle_without_a_rise_and_a_ramp_without_a_slope():
    assert [cyclical(3, 0.0)(p) for p in (0, 0.3, 1)] == [1, 1, 1]
    assert cyclical(1, 1.0)(1.0) == 1.0 and cyclical(4, 1.0)(1.0) == 1.0
    assert [ramp(0.5, 0.2)(p) for p in (0, 0.1, 0.2, 1)] == [0.5, 0.75, 1, 1]
    assert [ramp(0.5, 0.0)(p) for p in (0, 1)] == [1, 1]
    assert all(ramp(0.0, 0.3, 7.0)(p / 20) == warm_up(0.3, 7.0)(p / 20) for p in range(21))
    rising = [cyclical(4, 0.5)(p / 1000) for p in range(1001)]
    assert rising.count(0.0) == 4 and rising[-1] == 1 and max(rising) == 1


def test_schedules_of_weights_and_capacities_reach_the_loss(world):
    parts, x = nn.ModuleDict({"model": world.wrong}), world.evidence.sample((5,))
    for step, expected in ((0, 0.0), (25, 5.0), (99, 10.0)):
        torch.manual_seed(1)
        (move,) = annealed(lambda c: capacity(2.0, c), ramp(0.0, 0.5, 10.0), term="capacity")(parts, {"x": x}, Clock(step, 100))
        torch.manual_seed(1)
        (plain,) = alone(capacity(2.0, expected))(parts, {"x": x}, Clock(step, 100))
        assert torch.equal(move.loss, plain.loss) and move.terms["capacity"] == expected


def trace_of(distortion: float) -> Trace:
    p = Independent(Normal(torch.zeros(1), 1.0), 1)
    return Trace(x=Draw(torch.zeros(2, 3, 1), p, None, torch.full((2, 3), -distortion), 0.0, True))


def test_the_multiplier_rises_while_violated_and_falls_while_there_is_slack():
    m = Multiplier(10.0, 0.1, 0.5)
    assert m() == 1 and not list(m.parameters())
    observe(m, trace_of(14.0))  # the running mean starts at the first constraint: 4
    assert m().item() == pytest.approx(math.exp(0.4))
    observe(m, trace_of(10.0))  # 2
    assert m().item() == pytest.approx(math.exp(0.6))
    observe(m, trace_of(2.0))  # -3
    assert m().item() == pytest.approx(math.exp(0.3))
    before = m().item()
    for broken in (math.nan, math.inf):
        observe(m, trace_of(broken))
        assert m().item() == before
    for _ in range(200):
        observe(m, trace_of(1e6))
    assert m().item() == pytest.approx(1e6, rel=1e-3)  # it stays finite
    with pytest.raises(UsageError, match="speed"):
        Multiplier(1.0, 0.0)


def test_the_constrained_loss_is_the_elbo_at_a_multiplier_of_one(world):
    parts, x = nn.ModuleDict({"model": world.wrong, "multiplier": Multiplier(3.0)}), world.evidence.sample((6,))
    for k in (1, 4):
        torch.manual_seed(1)
        (move,) = geco(k)(parts, {"x": x}, Clock(0, 1))
        torch.manual_seed(1)
        assert torch.allclose(move.loss, elbo()(world.wrong({"x": x}, k)) - 3.0)
    parts["multiplier"].log_value.fill_(math.log(2.0))
    torch.manual_seed(1)
    (move,) = geco(1)(parts, {"x": x}, Clock(0, 1))
    t = move.trace
    assert torch.allclose(move.loss, rate(t) + 2 * (-t.log_px.mean(0) - 3.0))


class Scalar(nn.Module):
    """q(z | x) = N(a x, s^2) or p(x | z) = N(w z, 1), of learnt numbers."""

    def __init__(self, slope: float, learnt_scale: bool) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))
        self.log_scale = nn.Parameter(torch.tensor(0.0), requires_grad=learnt_scale)

    def forward(self, x):
        return Independent(Normal(self.slope * x, self.log_scale.exp()), 1)


@pytest.mark.parametrize("error", [0.2, 0.6])
def test_geco_meets_its_constraint_and_finds_the_exact_multiplier(error):
    """x of variance v with p(x | z) = N(w z, 1): the least rate at squared error m is R = ln(v / m) / 2, D = m/2 + ln(2 pi)/2, so lambda = -dR/dD = 1 / m."""
    x = torch.randn(256, 1)
    x = x / x.std(correction=0)
    tolerance = error / 2 + math.log(2 * math.pi) / 2
    prior = Law(lambda: Independent(Normal(torch.zeros(1), 1.0), 1))
    model = VAE(prior, Scalar(0.5, True), Scalar(0.5, False))
    parts = nn.ModuleDict({"model": model, "multiplier": Multiplier(tolerance, 0.2, 0.5)})
    optimizer = torch.optim.Adam([p for p in parts.parameters() if p.requires_grad], 0.05)
    seen = []
    for step in range(500):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 500)
        (move,) = geco(8)(parts, {"x": x}, Clock(step, 500))
        optimizer.zero_grad()
        move.loss.mean().backward()
        optimizer.step()
        observe(parts["multiplier"], move.trace)
        seen.append((-move.trace.log_px.mean().item(), move.terms["multiplier"].item(), rate(move.trace).mean().item()))
    distortion, multiplier, nats = torch.tensor(seen[-100:]).mean(0).tolist()
    assert distortion == pytest.approx(tolerance, abs=0.01)
    assert multiplier == pytest.approx(1 / error, rel=0.05)
    assert nats == pytest.approx(-math.log(error) / 2, rel=0.05)


def test_optimal_scale_is_the_rmse_and_the_maximum_likelihood():
    loc, x = torch.randn(4, 6, 3, dtype=F64), torch.randn(6, 3, dtype=F64) * 2
    prior = Independent(Normal(loc, 0.7), 1)
    t = Trace(x=Draw(x.expand(4, 6, 3), prior, None, prior.log_prob(x), 0.0, True))
    sigma = best_scale(t["x"])
    assert torch.allclose(sigma, (x - loc).square().mean().sqrt())
    scores = {s: Normal(loc, s * sigma).log_prob(x).sum() for s in (0.98, 1.0, 1.02)}
    assert max(scores, key=scores.get) == 1.0
    found = optimal_scale()(t)
    assert torch.allclose(found, -Normal(loc, sigma).log_prob(x).sum(-1).mean(0))
    assert torch.allclose(found.mean(), 1.5 * torch.log(2 * math.pi * math.e * sigma**2))  # D/2 ln(2 pi e sigma^2)


def test_optimal_scale_has_the_gradient_of_its_value():
    """With the scale held constant the gradient is that of D/2 ln mean (x - loc)^2, in which it is not."""
    x = torch.randn(6, 3, dtype=F64)
    loc = torch.randn(2, 6, 3, dtype=F64, requires_grad=True)
    prior = Independent(Normal(loc, 0.7), 1)
    t = Trace(x=Draw(x.expand(2, 6, 3), prior, None, prior.log_prob(x), 0.0, True))
    (found,) = torch.autograd.grad(optimal_scale()(t).mean(), loc)
    (exact,) = torch.autograd.grad(1.5 * (x - loc).square().mean().log(), loc)
    assert torch.allclose(found, exact)


def tracked(scale: float = 1.0, family=None) -> VAE:
    family = family or TrackedGaussian(1, scale)
    prior = Law(lambda: Independent(Normal(torch.zeros(2), 1.0), 1))
    return VAE(prior, Conditional(mlp((3,), (4,), (5,)), Gaussian()), Conditional(mlp((2,), (3,), (5,)), family))


@pytest.mark.parametrize("binned", [False, True])
def test_with_the_scale_that_is_best_the_objective_is_the_elbo(binned):
    family = TrackedGaussian(1, 0.4)
    model = tracked(family=Binned(family, 256) if binned else family)
    batch = {"x": torch.randint(256, (9, 3)) / 255}
    torch.manual_seed(3)
    first = model(batch, 2)
    before = optimal_scale()(first)
    family.variance.copy_(best_scale(first["x"]).square())
    torch.manual_seed(3)
    assert torch.allclose(before, elbo()(model(batch, 2)), rtol=1e-5)
    assert (before.mean() < elbo()(first).mean()) or binned


def test_on_256_levels_the_rmse_is_the_best_scale_of_the_bins_too():
    loc = torch.rand(400, 1, dtype=F64)
    x = ((loc + 0.1 * torch.randn(400, 1, dtype=F64)).clamp(0.2, 0.8) * 255).round() / 255
    prior = Binned(TrackedGaussian(1), 256)(loc)
    t = Draw(x, prior, None, prior.log_prob(x), 0.0, True)
    scales = best_scale(t) * torch.linspace(0.8, 1.2, 81, dtype=F64)
    best = max(scales, key=lambda s: rescaled(prior, s).log_prob(x).sum())
    assert best.item() == pytest.approx(best_scale(t).item(), rel=0.01)


def test_the_scale_of_bins_does_not_run_away():
    """The end bins hold the tails: a location far below 0 is right for black pixels, and no error from which the scale may grow."""
    loc = torch.tensor([[-1e4, -0.1, 0.5, 1.2, 50.0]])
    x = torch.tensor([[0.0, 0.2, 0.4, 1.0, 1.0]])
    prior = Binned(TrackedGaussian(1), 6)(loc)
    t = Draw(x, prior, None, prior.log_prob(x), 0.0, True)
    assert best_scale(t).item() == pytest.approx(math.sqrt((0.2**2 + 0.1**2) / 5))
    recipe = parse("sigma_vae:latents=2,hidden=16,learning_rate=0.01").cook(toy_schema(Integer(5)))
    black = {"x": (toy_batch(Integer(5))["x"] > 0.9).float()}  # most pixels black, some white
    loop = Loop(recipe, 0, 60, torch.device("cpu"))
    scales = []
    for _ in range(60):
        loop.step(lambda: black)
        scales.append(recipe.model.likelihood.family.family.variance.sqrt().item())
    assert max(scales[10:]) < 0.5 and scales[-1] < scales[10]


def test_what_was_not_seen_has_no_part_in_the_scale():
    model, x = tracked(), torch.randn(4, 3)
    rows, entries = torch.tensor([True, False, True, False]), torch.rand(4, 3) > 0.5
    for mask in (rows, entries):
        wide = mask if mask.dim() == 2 else mask[:, None]
        t = model({"x": Seen(torch.where(wide, x, torch.nan), mask)}, 5)
        wide = wide.expand(5, 4, 3)
        error = (t["x"].value - t["x"].prior.mean)[wide].square().mean()
        assert torch.allclose(best_scale(t["x"]), error.sqrt())
        loss = optimal_scale()(t)
        expected = Normal(t["x"].prior.mean, error.sqrt()).log_prob(t["x"].value)
        expected = torch.where(wide, expected, 0.0).sum(-1).mean(0)
        assert torch.allclose(loss, rate(t) - expected, rtol=1e-4)
        loss.sum().backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())
        model.zero_grad()


def test_the_tracked_scale_is_a_running_mean_that_forgets():
    family = TrackedGaussian(1, 5.0, 0.75)
    loc = torch.zeros(1, 2, 3)
    errors = [1.0, 4.0, 2.0, 8.0, 8.0, 3.0]
    expected = []
    for n, e in enumerate(errors, 1):
        x = torch.full((2, 3), math.sqrt(e))
        prior = family(loc)
        observe(family, Trace(x=Draw(x, prior, None, prior.log_prob(x), 0.0, True)))
        last = expected[-1] if expected else 0.0
        expected.append(last + max(1 / n, 0.25) * (e - last))
        assert family.variance.item() == pytest.approx(expected[-1], rel=1e-5)
    before = family.variance.clone()
    for broken in (math.nan, math.inf):
        x = torch.full((2, 3), broken)
        observe(family, Trace(x=Draw(x, family(loc), None, 0.0, 0.0, True)))
        assert torch.equal(family.variance, before)
    observe(family, Trace())
    assert torch.equal(family.variance, before)
    with pytest.raises(UsageError, match="memory"):
        TrackedGaussian(1, memory=1.0)
    with pytest.raises(UsageError, match="scale 0"):
        TrackedGaussian(1, 0.0)


def test_a_likelihood_without_one_scale_is_refused():
    prior = Independent(torch.distributions.Laplace(torch.zeros(3), 1.0), 1)
    with pytest.raises(UsageError, match="gaussian_tracked"):
        optimal_scale()(Trace(x=Draw(torch.zeros(2, 3), prior, None, torch.zeros(1, 2), 0.0, True)))


def test_sigma_vae_trained_scores_with_the_scale_it_saved():
    recipe = parse("sigma_vae:latents=2,hidden=16,learning_rate=0.005").cook(toy_schema(Real(), (4,)))
    x = torch.randn(64, 4) * 0.3
    loop = Loop(recipe, 0, 200, torch.device("cpu"))
    for _ in range(200):
        loop.step(lambda: {"x": x})
    model = recipe.model.eval()
    t = model({"x": x}, 20)
    saved = dict(recipe.parts.named_buffers())["model.likelihood.family.variance"]
    error = (t["x"].value - t["x"].prior.mean).square().mean()
    assert saved.item() == pytest.approx(error.item(), rel=0.2)
    assert torch.allclose(t.log_px, Normal(t["x"].prior.mean, saved.sqrt()).log_prob(x).sum(-1), rtol=1e-4)
    alone_ = model({"x": x[:1]})["x"].prior
    assert torch.equal(alone_.stddev.unique(), t["x"].prior.stddev.unique())  # the rows beside it do not matter


@pytest.mark.parametrize("rate_", [0.0, 1e-4, 0.1, 1.0, 7.0])
def test_no_committed_gaussian_costs_less_than_its_rate(rate_):
    family = CommittedGaussian(rate_)
    h = torch.cat([torch.randn(4000, 2, dtype=F64) * 5, torch.tensor([[0.0, 40.0], [0.0, 1e6], [0.0, -1e6]], dtype=F64)])
    kl = kl_divergence(family(h).base_dist, Normal(torch.tensor(0.0, dtype=F64), 1.0)).flatten()
    assert kl.min() >= rate_ - 1e-12
    assert kl[-3].item() == pytest.approx(rate_, abs=1e-12)  # and the bound is reached


def test_rates_out_of_reach_are_refused():
    for wrong in (-1.0, 9.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="cannot commit"):
            CommittedGaussian(wrong)
    assert widest(0.0) == 1.0
    with pytest.raises(UsageError, match="one step"):
        CommittedChain(1, 0.5)
    for wrong in (-1.0, math.nan, 1e3):
        with pytest.raises(UsageError, match="cannot commit"):
            CommittedChain(4, wrong)
    with pytest.raises(UsageError, match="divide"):
        parse("delta_vae:latents=5,width=2").cook(toy_schema(Binary()))
    with pytest.raises(UsageError, match="one step"):
        parse("delta_vae:latents=1").cook(toy_schema(Binary()))


@pytest.mark.parametrize(("steps", "width"), [(1, 1), (2, 1), (5, 1), (4, 3)])
def test_the_chain_is_the_gaussian_with_geometric_correlations(steps, width):
    a = 0.6
    chain = GaussianChain(a, torch.zeros(steps * width, dtype=F64), width)
    lag = (torch.arange(steps)[:, None] - torch.arange(steps)).abs()
    covariance = torch.kron(a ** lag.to(F64), torch.eye(width, dtype=F64))
    exact = MultivariateNormal(torch.zeros(steps * width, dtype=F64), covariance)
    z = torch.randn(9, 2, steps * width, dtype=F64)
    assert torch.allclose(chain.log_prob(z), exact.log_prob(z))
    assert chain.expand((3,)).log_prob(z[0, 0]).shape == (3,) and chain.expand((3,)).rsample((2,)).shape == (2, 3, steps * width)
    drawn = chain.sample((40_000,))
    assert torch.allclose(drawn.T.cov(), covariance, atol=0.05)
    q = Independent(Normal(torch.randn(6, steps * width, dtype=F64), torch.rand(6, steps * width, dtype=F64) + 0.1), 1)
    wide = MultivariateNormal(q.mean, torch.diag_embed(q.variance))
    assert torch.allclose(kl_divergence(q, chain), kl_divergence(wide, exact))


@pytest.mark.parametrize(("steps", "width"), [(2, 1), (3, 1), (8, 2), (40, 1)])
def test_no_independent_posterior_costs_less_than_the_committed_rate(steps, width):
    for wanted in (0.0, 0.3, 4.0):
        chain = CommittedChain(steps, wanted, width).double()
        assert committed_rate(chain.correlation, steps, width) == pytest.approx(wanted, abs=1e-9)
        a = chain.correlation
        s = torch.full((steps, width), (1 - a**2) / (1 + a**2), dtype=F64)
        s[0] = s[-1] = 1 - a**2
        least = kl_divergence(Independent(Normal(torch.zeros(steps * width, dtype=F64), s.flatten().sqrt()), 1), chain())
        assert least.item() == pytest.approx(wanted, abs=1e-9)
        q = Independent(Normal(torch.randn(500, steps * width, dtype=F64) * 0.1, (0.3 * torch.randn(500, steps * width, dtype=F64)).exp()), 1)
        assert kl_divergence(q, chain()).min() >= wanted
        near = Independent(Normal(torch.zeros(1), (s.flatten() * (1 + 0.1 * torch.randn(500, steps * width, dtype=F64)).clamp(min=0.1)).sqrt()), 1)
        assert kl_divergence(near, chain()).min() >= wanted - 1e-12


def test_the_chain_keeps_the_contract_of_priors():
    check_prior(CommittedChain(3, 1.0))
    check_prior(CommittedChain(2, 0.7, 2))


@pytest.mark.parametrize("call", ["delta_vae:latents=4,nats=2.0,hidden=16", "delta_gaussian:latents=4,nats=2.0,hidden=16"])
def test_delta_vaes_do_not_collapse_where_a_vae_does(call):
    """On rows of pure noise nothing is worth telling: the plain VAE's KL goes to 0, and theirs to the rate and not below."""
    x = torch.randn(256, 4)
    nats = {}
    for text in ("vae:latents=4,hidden=16", call):
        recipe = parse(text + ",learning_rate=0.01,likelihood=gaussian_fixed").cook(toy_schema(Real(), (4,)))
        loop = Loop(recipe, 0, 200, torch.device("cpu"))
        for _ in range(200):
            loop.step(lambda: {"x": x})
        nats[text] = rate(recipe.model({"x": torch.randn(200, 4)}))
    assert nats["vae:latents=4,hidden=16"].mean() < 0.3
    assert nats[call].min() >= 2.0 - 1e-5
    assert nats[call].mean() < 3.5


def test_the_easiest_rows_are_kept_and_weigh_one_on_average():
    losses = torch.tensor([5.0, 1.0, 3.0, 9.0, 3.0])
    assert torch.equal(easiest(losses, 0.4), torch.tensor([0.0, 2.5, 2.5, 0.0, 0.0]))  # the first of two equals
    assert torch.equal(easiest(losses, 1.0), torch.ones(5))
    for share in (1e-9, 0.2, 0.21, 0.6, 0.99):
        w = easiest(losses, share)
        assert w.mean() == pytest.approx(1.0) and int((w > 0).sum()) == max(1, math.ceil(share * 5))
    assert torch.equal(easiest(losses[:1], 0.1), torch.ones(1))


def test_curriculum_at_full_share_is_the_elbo_and_before_it_that_of_the_easy_rows(world):
    parts, x = nn.ModuleDict({"model": world.wrong}), world.evidence.sample((10,))
    torch.manual_seed(1)
    (plain,) = alone(elbo(), 2)(parts, {"x": x}, Clock(0, 10))
    torch.manual_seed(1)
    (full,) = curriculum(elbo(), constant(1.0), 2)(parts, {"x": x}, Clock(0, 10))
    assert torch.equal(plain.loss, full.loss)
    torch.manual_seed(1)
    (easy,) = curriculum(elbo(), ramp(0.3, 0.5), 2)(parts, {"x": x}, Clock(0, 10))
    assert easy.loss.mean().item() == pytest.approx(plain.loss.sort().values[:3].mean().item())
    torch.manual_seed(1)
    (late,) = curriculum(elbo(), ramp(0.3, 0.5), 2)(parts, {"x": x}, Clock(5, 10))
    assert torch.equal(late.loss, plain.loss)


@pytest.mark.parametrize("name", ["capacity", "cyclical", "free_bits_vae", "geco", "sigma_vae", "delta_vae", "delta_gaussian", "curriculum"])
def test_they_resume_exactly_and_take_single_rows_and_single_latents(name):
    schema = toy_schema(Integer(5))
    call = f"{name}:hidden=8,latents=4,ema=0.9,batch=6" + {"delta_vae": ",nats=0.5", "delta_gaussian": ",nats=0.5"}.get(name, "")
    batches = [toy_batch(Integer(5)) for _ in range(7)]
    loops = [Loop(parse(call).cook(schema), 3, 8, torch.device("cpu")) for _ in range(2)]
    for batch in batches[:4]:
        loops[0].step(lambda batch=batch: batch)
    loops[1].load({n: t.clone() for n, t in loops[0].state().items()})
    for loop in loops:
        for batch in batches[4:]:
            loop.step(lambda batch=batch: batch)
    a, b = (loop.state() for loop in loops)
    assert a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)
    least = 2 if name == "delta_vae" else 1
    small = Loop(parse(f"{name}:hidden=8,latents={least},{'nats=0.5,' if 'delta' in name else ''}batch=1").cook(schema), 0, 2, torch.device("cpu"))
    for _ in range(2):
        small.step(lambda: {"x": batches[0]["x"][:1]})
    assert int(small.skipped) == 0 and all(w.isfinite().all() for w in weights(small.parts).values())
    assert small.recipe.model.generate(2)["x"].value.shape == (2, 1, 8, 8)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("capacity:gamma=-1", "gamma should be greater than or equal to 0"),
        ("cyclical:cycles=0", "cycles should be greater than or equal to 1"),
        ("cyclical:rise=1.5", "rise should be less than or equal to 1"),
        ("geco:speed=0", "speed should be greater than 0"),
        ("geco:tolerance=inf", "tolerance should be a finite number"),
        ("curriculum:start=0", "start should be greater than 0"),
        ("delta_vae:nats=-2", "nats should be greater than or equal to 0"),
        ("sigma_vae:likelihood=gaussian", "no keyword 'likelihood'"),
    ],
)
def test_keywords_out_of_range_are_refused(text, words):
    with pytest.raises(UsageError, match=words):
        parse(text)
