"""Hamiltonian posteriors: volume, reversal, energy, exact bounds of linear-Gaussian models, brute force, and the learnt space against autograd."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal

import vaestro
from vaestro.conditional import Conditional
from vaestro.core import Seen, draw, prepare, replaying, run
from vaestro.data.schema import Binary, Integer
from vaestro.errors import UsageError, VaestroError
from vaestro.evaluation.likelihood import importance
from vaestro.evaluation.scope import evaluating
from vaestro.families import Bernoulli, Binned, Gaussian
from vaestro.models import VAE
from vaestro.models.hamiltonian import Bend, FlatSpace, HamiltonianVAE, LearntSpace
from vaestro.models.refined import exact, straight
from vaestro.networks import mlp
from vaestro.objectives import elbo
from vaestro.posteriors.hamiltonian import Curved, Flat, Leapfrog, leap
from vaestro.priors import StandardNormal
from vaestro.recipes import parse
from vaestro.testing import LinearGaussian, toy_batch, toy_schema
from vaestro.testing.linear import Law
from vaestro.training.export import export_onnx
from vaestro.uses.evaluate import Protocol

F64 = torch.float64
D = 3


def leapfrog(steps=3, size=0.1, heat=0.4, latents=D):
    return Leapfrog(latents, steps, size, heat).double()


def bent(rounds=25):
    """A space that is curved everywhere near the origin."""
    g = torch.Generator().manual_seed(4)
    centres = torch.randn(5, D, generator=g, dtype=F64)
    factors = torch.randn(5, D, D, generator=g, dtype=F64).tril() * 0.6
    return Curved(centres, factors, 1.3, 0.3, rounds)


def force(z):
    """Of a bent potential, -log p = sum z^4 / 4 + (z_1 z_2)^2 / 2: not a Gaussian, so that nothing is linear by luck."""
    with torch.enable_grad():
        at = z if z.requires_grad else z.detach().requires_grad_()
        log_p = -(at**4).sum() / 4 - (at[..., 0] * at[..., 1]).square().sum() / 2
        return torch.autograd.grad(log_p, at, create_graph=z.requires_grad)[0]


SPACES = {"flat": Flat(), "curved": bent()}
every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


def decoder(latents=2, spread=3.0):
    torch.manual_seed(5)
    q = Conditional(mlp((4,), (2 * latents,), (6,), nn.Tanh), Gaussian())
    p = Conditional(mlp((latents,), (4,), (6,), nn.Tanh), Bernoulli())
    with torch.no_grad():
        for w in p.parameters():
            w.mul_(spread)
    return StandardNormal((latents,)), q, p


def hamiltonian(steps=3, size=0.1, heat=0.4, latents=2, slope=exact):
    return HamiltonianVAE(decoder(latents), Leapfrog(latents, steps, size, heat), FlatSpace(), slope).double()


def bits(rows=5):
    return (torch.rand(rows, 4, dtype=F64) > 0.5).double()


@every_space
@pytest.mark.parametrize("heat", [1.0, 0.3])
def test_leaps_keep_volume_but_for_the_tempering(space, heat):
    flow, start = leapfrog(heat=heat), torch.randn(2 * D, dtype=F64) * 0.7
    jacobian = torch.autograd.functional.jacobian(lambda w: torch.cat(flow(w[:D], w[D:], force, space)), start)
    # the momentum given is N(0, G); that of the paper is it over sqrt(b_0), and from there the determinant is b_0^(D / 2): together 1
    assert torch.linalg.det(jacobian).item() == pytest.approx(1.0, abs=1e-8)
    begun = torch.autograd.functional.jacobian(lambda w: torch.cat(flow(w[:D], w[D:] * math.sqrt(heat), force, space)), start)
    assert torch.linalg.det(begun).item() == pytest.approx(heat ** (D / 2), rel=1e-6)


def test_a_clipped_kick_keeps_volume_too():
    start = torch.tensor([3.0, -2.5, 2.0, 0.1, 0.2, -0.3], dtype=F64)
    flow = leapfrog(size=0.3)
    assert (force(start[:D]) * 0.15).abs().max() > 1, "this start is steep"
    jacobian = torch.autograd.functional.jacobian(lambda w: torch.cat(flow(w[:D], w[D:], force, Flat())), start)
    assert torch.linalg.det(jacobian).item() == pytest.approx(1.0, abs=1e-9)


@every_space
def test_leaps_run_backwards_when_momenta_turn(space):
    z, r = torch.randn(6, D, dtype=F64) * 0.7, torch.randn(6, D, dtype=F64)
    flow = leapfrog(steps=4, heat=1.0)
    there = flow(z, r, force, space)
    back, turned = flow(there[0], -there[1], force, space)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-10)
    torch.testing.assert_close(-turned, r, rtol=0, atol=1e-10)
    assert (there[0] - z).abs().min() > 1e-3


@every_space
def test_the_error_of_the_energy_is_of_second_order(space):
    z, r = torch.randn(50, D, dtype=F64) * 0.7, torch.randn(50, D, dtype=F64)

    def energy(z, r):
        potential = (z**4).sum(-1) / 4 + (z[:, 0] * z[:, 1]).square() / 2
        return potential - space.momenta(z).log_prob(r)

    def error(size):
        at, momentum, pull = z, r, force(z)
        for _ in range(round(0.4 / size)):
            at, momentum, pull = leap(at, momentum, pull, torch.tensor(size, dtype=F64), (force, space))
        return (energy(at, momentum) - energy(z, r)).abs().mean().item()

    assert error(0.1) / error(0.05) == pytest.approx(4, rel=0.25)


def test_tempering_follows_its_schedule():
    flow = leapfrog(steps=4, heat=0.3)
    start = 1 / math.sqrt(0.3)
    expected = [1 / (start + (1 - start) * (k / 4) ** 2) for k in range(5)]
    torch.testing.assert_close(torch.stack(flow.scales()).detach(), torch.tensor(expected, dtype=F64), rtol=1e-6, atol=0)
    assert flow.scales()[0].item() ** 2 == pytest.approx(0.3, rel=1e-6) and flow.scales()[-1].item() == 1.0
    assert [s.item() for s in leapfrog(heat=1.0).scales()] == [1.0] * 4


def test_without_steps_it_is_the_vae():
    x = bits()
    model = hamiltonian(0)
    plain = VAE(model.prior, model.posterior, model.likelihood)
    torch.manual_seed(1)
    a = model({"x": x}, 3)
    torch.manual_seed(1)
    b = plain({"x": x}, 3)
    assert torch.equal(a.log_w, b.log_w) and torch.equal(elbo()(a), elbo()(b))
    for name in ("hamiltonian_vae", "riemannian_vae"):
        recipes = [parse(c).cook(toy_schema(Binary())) for c in (f"{name}:steps=0,latents=3,hidden=8", "vae:latents=3,hidden=8")]
        for (n, u), (m, v) in zip(*(r.parts.named_parameters() for r in recipes), strict=True):
            assert n == m and torch.equal(u, v)


def test_steps_of_no_size_are_the_vae():
    x, model = bits(), hamiltonian(4)
    with torch.no_grad():
        model.leapfrog.raw_size.fill_(-1000.0)
    trace = model({"x": x}, 3)
    assert trace["z"].value.shape == (3, 5, 2)
    torch.testing.assert_close(trace["z"].log_q, model.posterior(x).log_prob(trace["z"].value))


def linear_world(heat):
    """The linear-Gaussian model with a posterior that is off, and leaps that are too small to be cut."""
    world = LinearGaussian(noise=0.8)
    parts = (world.prior, Law(lambda x: MultivariateNormal(x @ world.W @ world.S / 0.64 + 0.2, 2.0 * world.S)), world.likelihood)
    return world, HamiltonianVAE(parts, leapfrog(3, 0.12, heat, 2), FlatSpace(), exact)


@pytest.mark.parametrize("heat", [1.0, 0.5])
def test_the_bound_of_a_linear_gaussian_model_is_its_closed_form(heat):
    """All is linear, so (z, r) is Gaussian and the bound log p(x) - KL(q(z, r) || p(z | x) N(r; 0, I))."""
    world, model = linear_world(heat)
    x = world.evidence.sample((1,))
    middle, spread = (x @ world.W @ world.S / 0.64)[0], 2.0 * world.S
    start = torch.cat([middle + 0.2, torch.zeros(2, dtype=F64)])
    push = model.force({"x": x})

    def move(w):
        z, r = model.leapfrog(w[None, :2], w[None, 2:], push, Flat())
        return torch.cat([z[0], r[0]])

    turn = torch.autograd.functional.jacobian(move, start)
    before = torch.block_diag(spread, torch.eye(2, dtype=F64))
    q = MultivariateNormal(move(start), turn @ before @ turn.T)
    p = MultivariateNormal(torch.cat([middle, torch.zeros(2, dtype=F64)]), torch.block_diag(world.S, torch.eye(2, dtype=F64)))
    closed = world.evidence.log_prob(x) - torch.distributions.kl_divergence(q, p)
    with torch.no_grad():
        log_w = model({"x": x}, 40_000).log_w[:, 0]
    assert abs(log_w.mean() - closed).item() < 5 * (log_w.std() / 200).item()
    assert world.elbo(x, 0.2, 2.0) < closed < world.evidence.log_prob(x), "here leaps tighten the bound"
    weights = (log_w - world.evidence.log_prob(x)).exp()
    assert abs(weights.mean() - 1).item() < 5 * (weights.std() / 200).item(), "the mean weight is p(x)"


def test_importance_sampling_finds_the_brute_force_likelihood():
    model, x = hamiltonian(3, 0.2, 0.5, latents=1), bits(6)
    grid = torch.linspace(-8, 8, 4001, dtype=F64).reshape(-1, 1, 1)
    exact_px = (model.likelihood(grid).log_prob(x) + model.prior().log_prob(grid)).logsumexp(0) + math.log(16 / 4000)
    found = importance(model, {"x": x}, 5000, 1)
    assert ((torch.from_numpy(found.log_px) - exact_px).abs() < 5 * torch.from_numpy(found.sampling_error) + 1e-3).all()
    assert (found.elbo <= found.log_px + 0.05).all()


def test_only_what_was_seen_pulls():
    model, x = hamiltonian(), bits(3)
    mask = torch.tensor([[True, False, True, True]] * 3)
    z = torch.randn(2, 3, 2, dtype=F64)
    found = model.force({"x": Seen(torch.where(mask, x, torch.nan), mask)})(z)
    at = z.clone().requires_grad_()
    each = model.likelihood(at).base_dist.log_prob(x)[..., mask[0]].sum() + model.prior().log_prob(at).sum()
    torch.testing.assert_close(found, torch.autograd.grad(each, at)[0])
    rows = model.force({"x": Seen(x, torch.tensor([True, False, True]))})(z)
    torch.testing.assert_close(rows[:, 1], -z[:, 1], msg="a row that was not seen is pulled by the prior alone")


def test_scores_are_the_same_in_and_out_of_inference():
    model, x = hamiltonian(), bits()
    torch.manual_seed(1)
    learning = model({"x": x}, 2)
    torch.manual_seed(1)
    with evaluating(model):
        found = model({"x": x}, 2)
    torch.testing.assert_close(found.log_w, learning.log_w.detach())
    assert learning.log_w.requires_grad and not found.log_w.requires_grad


def test_a_constant_slope_alters_the_gradient_and_not_the_value():
    x = bits()
    values, grads = [], []
    for slope in (exact, straight):
        model = hamiltonian(slope=slope)
        torch.manual_seed(1)
        loss = elbo()(model({"x": x})).sum()
        values.append(loss.item())
        grads.append(torch.autograd.grad(loss, list(model.likelihood.parameters()))[0])
    assert values[0] == values[1] and not torch.allclose(*grads)
    assert parse("hamiltonian_vae:latents=2,hidden=8").cook(toy_schema(Binary())).model.slope is exact
    coarse = parse("hamiltonian_vae:latents=2,hidden=8").cook(toy_schema(Integer(5))).model
    assert isinstance(coarse.likelihood.family, Binned) and coarse.slope is straight


def test_the_exact_slope_is_the_gradient_by_finite_differences():
    model, x = hamiltonian(2, 0.2, 0.5), bits(2)

    def loss():
        torch.manual_seed(1)
        return elbo()(model({"x": x})).sum()

    for name in ("leapfrog.raw_size", "leapfrog.raw_heat", "likelihood.net.body.1.weight", "posterior.net.body.1.weight"):
        w = model.get_parameter(name)
        (found,) = torch.autograd.grad(loss(), w)
        place, old = (0,) * w.dim(), w[(0,) * w.dim()].item()
        sides = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                w[place] = old + step
            sides.append(loss().item())
        with torch.no_grad():
            w[place] = old
        assert found[place].item() == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-4, abs=1e-6), name


def test_a_replay_is_refused_in_words():
    model, x = hamiltonian(), bits()
    trace = model({"x": x})
    with pytest.raises(UsageError, match="scores only what it draws"):
        run(model.program({"x": x}), replaying({n: d.value for n, d in trace.items()}))


@pytest.mark.parametrize("numbers", [(-1, 0.1, 0.5), (2, 0.0, 0.5), (2, 0.5, 0.5), (2, 0.1, 0.0), (2, 0.1, 1.5), (2, math.nan, 0.5)])
def test_numbers_outside_their_range_are_refused(numbers):
    with pytest.raises(UsageError, match=r"dynamics cannot have .*give 0 or more steps"):
        Leapfrog(2, *numbers)


def test_a_curved_space_has_the_derivatives_of_its_energy():
    space = bent()
    z, r = (torch.randn(4, D, dtype=F64, requires_grad=True) for _ in range(2))

    def energy(z, r):
        return (torch.einsum("bi,bij,bj->b", r, space.inverse(z), r) / 2 - torch.logdet(space.inverse(z)) / 2).sum()

    by_z, by_r = torch.autograd.grad(energy(z, r), (z, r))
    torch.testing.assert_close(space.bend(z, r), by_z)
    torch.testing.assert_close(space.velocity(z, r), by_r)
    one = z.detach()[0]
    by_hand = sum(f @ f.T * math.exp(-(one - c).square().sum() / 1.3**2) for c, f in zip(space.centres, torch.linalg.cholesky(space.squares), strict=True))
    torch.testing.assert_close(space.inverse(one), by_hand + 0.3 * torch.eye(D, dtype=F64))
    torch.testing.assert_close(space.momenta(one).covariance_matrix, torch.linalg.inv(space.inverse(one)))
    assert space.momenta(one * torch.nan).log_prob(one).isnan(), "what is not finite is told so, and raises nothing"
    assert space.bend(one * torch.nan, one).isnan().all()


def test_a_curved_space_without_bumps_is_the_flat_one():
    plain = Curved(torch.zeros(1, D, dtype=F64), torch.zeros(1, D, D, dtype=F64), 1.0, 1.0, 3)
    z, r = torch.randn(4, D, dtype=F64), torch.randn(4, D, dtype=F64)
    flow = leapfrog()
    for a, b in zip(flow(z, r, force, plain), flow(z, r, force, Flat()), strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(plain.momenta(z).log_prob(r), Flat().momenta(z).log_prob(r))


def curved_world(rounds=8, width=1.0):
    parts = decoder(2)
    torch.manual_seed(7)
    space = LearntSpace(parts[1], mlp((4,), (3,), (5,)), torch.rand(6, 4).round(), 2, Bend(width, 0.3, rounds))
    return HamiltonianVAE(parts, Leapfrog(2, 3, 0.1, 0.5), space, exact).double()


def test_the_mean_weight_in_a_learnt_space_is_the_likelihood():
    model, x = curved_world(), bits(4)
    axis = torch.linspace(-7, 7, 281, dtype=F64)
    grid = torch.cartesian_prod(axis, axis).unsqueeze(1)
    brute = (model.likelihood(grid).log_prob(x) + model.prior().log_prob(grid)).logsumexp(0) + 2 * math.log(14 / 280)
    with torch.no_grad():
        log_w = model({"x": x}, 5000).log_w
    weights = (log_w - brute).exp()
    assert ((weights.mean(0) - 1).abs() < 5 * weights.std(0) / math.sqrt(5000)).all()
    assert (log_w.mean(0) < brute).all()


def test_eight_rounds_keep_volume_to_a_millionth():
    """With the recipe's own numbers: what is left of the implicit equations after eight rounds is beyond float32."""
    space = curved_world(8, 0.8).space()
    flow = leapfrog(3, 0.02, 0.3, 2)
    for _ in range(5):
        start = torch.randn(4, dtype=F64)
        jacobian = torch.autograd.functional.jacobian(lambda w: torch.cat(flow(w[:2], w[2:], lambda z: -z, space)), start)
        assert torch.linalg.det(jacobian).item() == pytest.approx(1.0, abs=1e-6)


def test_a_learnt_space_stands_on_encoded_rows_of_the_data():
    model = curved_world()
    data = {"x": bits(20)}
    prepare(model.space, data)
    rows = {tuple(r.tolist()) for r in data["x"]}
    assert {tuple(r.tolist()) for r in model.space.rows} <= rows
    metric = model.space()
    torch.testing.assert_close(metric.centres, model.posterior(model.space.rows).mean)
    numbers = model.space.net(model.space.rows)
    scale = numbers[:, [0, 2]].sigmoid()
    by_hand = torch.stack([torch.stack([scale[:, 0], torch.zeros(6, dtype=F64)], 1), torch.stack([numbers[:, 1].tanh(), scale[:, 1]], 1)], 1)
    torch.testing.assert_close(metric.squares, by_hand @ by_hand.mT / 6)
    prepare(model.space, {"x": bits(2)})
    assert len(model.space.rows) == 6, "few rows are taken several times"


def test_a_learnt_space_refuses_what_it_cannot_be():
    parts = decoder(2)
    net, rows = mlp((4,), (3,), (5,)), torch.rand(6, 4)
    for bend in (Bend(0.0), Bend(floor=0.0), Bend(rounds=0)):
        with pytest.raises(UsageError, match="positive numbers"):
            LearntSpace(parts[1], net, rows, 2, bend)
    with pytest.raises(UsageError, match="positive numbers"):
        LearntSpace(parts[1], net, rows[:0], 2, Bend())
    full = LearntSpace(Law(lambda x: MultivariateNormal(torch.zeros(len(x), 2), torch.eye(2))), net, rows, 2, Bend())
    with pytest.raises(UsageError, match="family Gaussian"):
        full()


@pytest.mark.parametrize("name", ["hamiltonian_vae:latents=1,hidden=8", "riemannian_vae:latents=1,hidden=8,centres=1"])
def test_one_latent_one_row_and_huge_values_stay_finite(name):
    recipe = parse(name).cook(toy_schema(Binary(), (5,)))
    one = recipe.model(toy_batch(Binary(), 1, (5,)))
    assert one.log_w.shape == (1, 1) and one.log_w.isfinite().all()
    q = Independent(Normal(torch.tensor([[1e3]]), torch.tensor([[1.0]])), 1)
    z, log_q = draw(recipe.model.moved(q, toy_batch(Binary(), 1, (5,))), (4,))
    assert z.isfinite().all() and log_q.isfinite().all()


def test_a_run_is_used_as_any_other(tmp_path):
    run = vaestro.train("hamiltonian_vae:latents=4,hidden=16,steps=2", "digits-dynamic", steps=30, out=tmp_path / "run")
    again = vaestro.open_run(tmp_path / "run")
    rows = Protocol(rows=20, samples=10)
    assert vaestro.evaluate(run, rows).scores["nll"]["value"] == vaestro.evaluate(again, rows).scores["nll"]["value"]
    x = torch.zeros(2, 1, 8, 8)
    assert vaestro.embed(run, x).shape == (2, 4) and torch.equal(vaestro.embed(run, x), vaestro.embed(again, x))
    second = vaestro.fit_prior(run, "gmm:components=2", out=tmp_path / "second")
    assert vaestro.generate(second, 3).shape == (3, 1, 8, 8)
    with pytest.raises(VaestroError, match="by gradients, which no file can hold"):
        export_onnx(run, tmp_path / "model.onnx")
