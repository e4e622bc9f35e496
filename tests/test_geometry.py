"""The Poincare ball, shares and amounts: densities by quadrature and autograd, draws against their laws, and whole recipes against evidence on a grid."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Dirichlet, Distribution, Independent, Normal, kl_divergence
from torch.distributions import Gamma as TorchGamma

import vaestro
from vaestro.codes import numbered
from vaestro.core import centre, draw
from vaestro.data.schema import Binary
from vaestro.errors import UsageError
from vaestro.evaluation.likelihood import importance
from vaestro.families.gamma import DirichletDistribution, GammaDistribution, log_gamma_draw
from vaestro.families.hyperbolic import WrappedNormal, log_sinhc
from vaestro.families.sphere import log_surface
from vaestro.networks.ball import add, distance, from_origin, inside, step, steps_back, to_origin
from vaestro.networks.entrance import ENTRANCES, Gyroplanes, LogMap, Standardised
from vaestro.posteriors.geometric import Portions, Wrapped, check_room
from vaestro.priors.geometric import EvenDirichlet, EvenGamma, UniformDirections, WrappedAtOrigin
from vaestro.recipes import parse
from vaestro.testing import toy_batch, toy_schema

CURVATURES = (1e-6, 0.3, 1.0, 4.0)
each_curvature = pytest.mark.parametrize("c", CURVATURES)


def points(n: int, d: int, c: float, far: float = 2.0) -> Tensor:
    """Random points of the ball at a distance of about `far` from the origin."""
    return from_origin(far / max(1.0, math.sqrt(c)) * torch.randn(n, d, dtype=torch.float64), c)


def wrapped(d: int, c: float) -> WrappedNormal:
    """A wrapped normal off the origin, of another scale in each direction."""
    v = torch.linspace(0.9, -0.4, d, dtype=torch.float64)
    return WrappedNormal(from_origin(v, c), torch.linspace(0.5, 0.9, d, dtype=torch.float64), c)


def log_volume(z: Tensor, c: float) -> Tensor:
    """ln sqrt(det g) at z."""
    return z.shape[-1] * torch.log(2 / (1 - c * z.square().sum(-1)))


@each_curvature
@pytest.mark.parametrize("d", [1, 2, 5])
def test_the_maps_of_the_ball(c: float, d: int) -> None:
    x, y, v = points(20, d, c), points(20, d, c), torch.randn(20, d, dtype=torch.float64)
    torch.testing.assert_close(to_origin(from_origin(v, c), c), v)
    torch.testing.assert_close(add(-x, add(x, y, c), c), y, rtol=1e-6, atol=1e-7)  # left cancellation
    z = step(x, v, c)
    torch.testing.assert_close(distance(x, z, c).squeeze(-1), v.norm(dim=-1))
    torch.testing.assert_close(steps_back(x, z, c), v, rtol=1e-6, atol=1e-7)
    room = (1 - c * x.square().sum(-1)) * (1 - c * y.square().sum(-1))
    if c > 0.1:
        torch.testing.assert_close(distance(x, y, c).squeeze(-1), torch.acosh(1 + 2 * c * (x - y).square().sum(-1) / room) / math.sqrt(c))
    assert (inside(3 * y, c, 1.5).square().sum(-1) * c < 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ln_of_sinh_over_x(dtype: torch.dtype) -> None:
    x = torch.tensor([0.0, 1e-8, 1e-3, 0.0299, 0.0301, 1.0, 30.0, 1e4], dtype=torch.float64)
    exact = torch.where(x > 0, x + torch.log(-torch.expm1(-2 * x) / (2 * x)), 0.0)
    near = 1e-6 if dtype == torch.float32 else 1e-11
    torch.testing.assert_close(log_sinhc(x.to(dtype)).double(), exact, rtol=10 * near, atol=near)
    at = x.to(dtype).requires_grad_()
    (slope,) = torch.autograd.grad(log_sinhc(at).sum(), at)
    assert slope.isfinite().all() and slope[0] == 0.0


@each_curvature
@pytest.mark.parametrize("d", [1, 2, 4])
def test_the_density_is_the_change_of_variables_by_autograd(c: float, d: int) -> None:
    q = wrapped(d, c)
    for v in 0.8 * torch.randn(4, d, dtype=torch.float64):
        jacobian = torch.autograd.functional.jacobian(lambda v: step(q.loc, v, c), v)
        z = step(q.loc, v, c)
        exact = Normal(torch.zeros_like(q.scale), q.scale).log_prob(v).sum() - torch.linalg.slogdet(jacobian).logabsdet
        assert (q.log_prob(z) + log_volume(z, c)).item() == pytest.approx(exact.item(), abs=1e-7)


@each_curvature
def test_densities_integrate_to_one(c: float) -> None:
    edge = torch.linspace(-9, 9, 20_001, dtype=torch.float64).unsqueeze(-1)
    assert torch.trapezoid(wrapped(1, c).log_prob(from_origin(edge, c)).exp(), dx=18 / 20_000).item() == pytest.approx(1, abs=1e-7)  # length is length
    r, turn = torch.meshgrid((torch.arange(900) + 0.5) * 0.01, torch.arange(200) * math.pi / 100, indexing="ij")
    v = torch.stack([r * turn.cos(), r * turn.sin()], -1).double()
    ring = r.double().log() + log_sinhc(math.sqrt(c) * r.double())  # the ring at distance r is 2 pi sinh(sqrt(c) r) / sqrt(c) long
    assert ((wrapped(2, c).log_prob(from_origin(v, c)) + ring).exp().sum() * 0.01 * math.pi / 100).item() == pytest.approx(1, abs=1e-4)
    for d in (3, 10, 50):
        r = torch.linspace(1e-6, 20, 40_001, dtype=torch.float64)
        z = torch.zeros(len(r), d, dtype=torch.float64)
        z[:, 0] = r
        prior = WrappedNormal(torch.zeros(d, dtype=torch.float64), torch.ones(d, dtype=torch.float64), min(c, 1.0))
        sphere = log_surface(d) + (d - 1) * (r.log() + log_sinhc(math.sqrt(min(c, 1.0)) * r))
        assert torch.trapezoid((prior.log_prob(from_origin(z, min(c, 1.0))) + sphere).exp(), r).item() == pytest.approx(1, abs=1e-5)
    z, log_p = draw(WrappedNormal(torch.zeros(5, dtype=torch.float64), torch.full((5,), 1.2, dtype=torch.float64), c), (40_000,))
    weight = (wrapped(5, c).log_prob(z) - log_p).exp()  # of the prior's draws, whose density was just integrated
    assert abs(weight.mean() - 1) < 5 * weight.std() / 200


@pytest.mark.parametrize("d", [1, 3, 10])
def test_a_wrapped_normal_tends_to_the_gaussian_as_curvature_vanishes(d: int) -> None:
    c, loc, scale = 1e-8, torch.linspace(-1, 1, d, dtype=torch.float64), torch.linspace(0.3, 2, d, dtype=torch.float64)
    flat = Independent(Normal(loc, scale), 1)
    y = flat.sample((100,))
    torch.testing.assert_close(WrappedNormal(loc / 2, scale, c).log_prob(y / 2), flat.log_prob(y), rtol=1e-5, atol=1e-5)
    gaps = [(WrappedNormal(loc / 2, scale, c).log_prob(y / 2) - flat.log_prob(y)).abs().max() for c in (1e-2, 1e-4, 1e-6)]
    assert gaps[0] > 20 * gaps[1] > 400 * gaps[2]  # as c itself


@each_curvature
@pytest.mark.parametrize("d", [1, 2, 10])
def test_wrapped_draws_fit(c: float, d: int) -> None:
    q = wrapped(d, c)
    z, log_q = draw(q, (4000,))
    torch.testing.assert_close(q.log_prob(z), log_q, rtol=1e-6, atol=1e-6)
    v = steps_back(q.loc, z, c) / q.scale
    assert all(stats.kstest(v[:, i].numpy(), "norm").pvalue > 1e-5 for i in range(d))
    assert stats.kstest(v.square().sum(-1).numpy(), stats.chi2(d).cdf).pvalue > 1e-5
    assert ((torch.corrcoef(v.T).reshape(d, d) - torch.eye(d)).abs() < 5 / math.sqrt(4000)).all()
    assert torch.equal(centre(q), q.loc)


def test_gradients_of_wrapped_draws_against_finite_differences_on_a_line() -> None:
    c, grid = 1.0, torch.linspace(-12, 12, 20_001, dtype=torch.float64).unsqueeze(-1)

    def dist(h: Tensor) -> WrappedNormal:
        return WrappedNormal(from_origin(h[..., :1], c), h[..., 1:].exp(), c)

    def mean(h: Tensor) -> Tensor:
        z = from_origin(grid, c)
        return torch.trapezoid(dist(h).log_prob(z).exp() * (3 * z.squeeze(-1) + 1).tanh(), dx=24 / 20_000)

    h = torch.tensor([0.7, -0.3], dtype=torch.float64)
    exact = torch.stack([(mean(h + s) - mean(h - s)) / 2e-5 for s in torch.eye(2, dtype=torch.float64) * 1e-5])
    many = h.expand(40_000, -1).clone().requires_grad_()
    (each,) = torch.autograd.grad((3 * dist(many).rsample() + 1).tanh().sum(), many)
    assert ((each.mean(0) - exact).abs() < 5 * each.std(0) / 200 + 1e-6).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("c", [1e-6, 1.0, 50.0])
def test_nothing_breaks_at_the_rim(dtype: torch.dtype, c: float) -> None:
    prior = WrappedAtOrigin(3, c).to(dtype)()
    for size in (0.0, 1e-20, 1.0, 1e4, -1e4):
        h = (size * torch.ones(4, 6, dtype=dtype)).requires_grad_()
        q = Wrapped(3, c)(h)
        z, log_q = draw(q, (20,))
        assert z.dtype == log_q.dtype == dtype and (c * z.double().square().sum(-1) < 1).all()
        log_p = prior.log_prob(z)
        (gradient,) = torch.autograd.grad(log_p.sum() + log_q.sum() + to_origin(z, c).sum() + Gyroplanes(3, c).to(dtype)(z.reshape(-1, 3)).sum(), h)
        assert all(t.isfinite().all() for t in (log_p, log_q, gradient))
    assert prior.log_prob(torch.zeros(3, dtype=dtype)).isfinite()


def test_scores_in_single_precision_are_those_of_double_where_posteriors_may_lie() -> None:
    h = torch.cat([torch.full((1, 3), 1e3), torch.full((1, 3), -30.0)], -1)  # as far and as narrow as a posterior gets
    z, log_q = draw(Wrapped(3, 1.0)(h), (1000,))
    assert (Wrapped(3, 1.0)(h).log_prob(z) - log_q).abs().mean() < 0.1
    exact = WrappedNormal(torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64), 1.0).log_prob(z.double())
    torch.testing.assert_close(WrappedAtOrigin(3, 1.0)().log_prob(z).double(), exact, rtol=1e-5, atol=1e-4)


def test_gyroplanes_are_distances_to_planes_and_flat_ones_a_linear_layer() -> None:
    c = 1.3
    layer = Gyroplanes(2, c).double()
    z = points(5, 2, c, 0.8)
    unit = layer.normal / layer.normal.norm(dim=-1, keepdim=True)
    foot = (torch.tanh(math.sqrt(c) * layer.shift / 2) / math.sqrt(c)).unsqueeze(-1) * unit
    along = torch.stack([-unit[:, 1], unit[:, 0]], -1)
    walk = torch.linspace(-12, 12, 40_001, dtype=torch.float64).reshape(-1, 1, 1)
    plane = step(foot, walk * along, c)  # the geodesic through the foot, at right angles to the normal
    nearest = torch.stack([distance(p, plane, c).squeeze(-1).amin(0) for p in z])
    found = layer(z).abs() / layer.normal.norm(dim=-1)
    torch.testing.assert_close(found, nearest, rtol=1e-5, atol=1e-5)
    assert (layer(foot).diagonal().abs() < 1e-9).all()
    flat = Gyroplanes(2, 1e-10).double()
    foot = flat.shift.unsqueeze(-1) / 2 * flat.normal / flat.normal.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(flat(z), 2 * ((z.unsqueeze(1) - foot) * flat.normal).sum(-1), rtol=1e-6, atol=1e-7)


def test_entrances() -> None:
    for name, build in ENTRANCES.items():
        layer = build(3, 0.7)
        out = layer(points(4, 3, 0.7).float())
        assert out.shape == (4, layer.width), name
    assert isinstance(ENTRANCES["log_map"](2, 1.0), LogMap)
    assert torch.equal(Standardised(2, 1.0, 0.5)(torch.tensor([[1.0, 2.0]])), torch.tensor([[0.0, 2.0]]))


@pytest.mark.parametrize("a", [0.01, 0.3, 1.0, 8.0, 1e4])
def test_logs_of_gammas(a: float) -> None:
    many = torch.full((4000,), a, dtype=torch.float64, requires_grad=True)
    log_g = log_gamma_draw(many)
    assert stats.kstest(log_g.detach().numpy(), stats.loggamma(a).cdf).pvalue > 1e-5
    (each,) = torch.autograd.grad(log_g.sum(), many)
    exact = torch.polygamma(1, torch.tensor(a, dtype=torch.float64))  # d E[ln g] / da
    assert abs(each.mean() - exact) < 5 * each.std() / math.sqrt(4000) + 1e-3 * exact


def test_amounts_and_shares_are_torchs() -> None:
    a, b = 4 * torch.rand(5, 3, dtype=torch.float64) + 0.1, 4 * torch.rand(5, 3, dtype=torch.float64) + 0.1
    ours, theirs = DirichletDistribution(a), Dirichlet(a)
    z = theirs.sample((6,))
    torch.testing.assert_close(ours.log_prob(z), theirs.log_prob(z))
    torch.testing.assert_close(kl_divergence(ours, DirichletDistribution(b)), kl_divergence(theirs, Dirichlet(b)))
    torch.testing.assert_close(kl_divergence(ours, DirichletDistribution(b[0])), kl_divergence(theirs, Dirichlet(b[0].expand(5, 3))))
    amounts, other = GammaDistribution(a, b), TorchGamma(a, b)
    torch.testing.assert_close(amounts.log_prob(z), other.log_prob(z))
    torch.testing.assert_close(kl_divergence(amounts, GammaDistribution(b, a)), kl_divergence(other, TorchGamma(b, a)))
    for dist in (ours, amounts):
        assert type(dist.expand((2, 5) if dist is ours else (2, 5, 3))) is type(dist)


def test_shares_are_drawn_by_their_law_and_differentiate() -> None:
    a = torch.tensor([0.4, 1.3, 2.5], dtype=torch.float64)
    z = DirichletDistribution(a).sample((4000,))
    torch.testing.assert_close(z.sum(-1), torch.ones(4000, dtype=torch.float64))
    assert all(stats.kstest(z[:, i].numpy(), stats.beta(a[i], a.sum() - a[i]).cdf).pvalue > 1e-5 for i in range(3))
    x = torch.special.expit(torch.linspace(-60, 60, 40_001, dtype=torch.float64))  # of two shares the first is a beta
    pair = torch.stack([x, torch.special.expit(-torch.linspace(-60, 60, 40_001, dtype=torch.float64))], -1)

    def mean(a: Tensor) -> Tensor:
        return torch.trapezoid(DirichletDistribution(a).log_prob(pair).exp() * pair.prod(-1) * (5 * x).sin(), dx=120 / 40_000)

    a = torch.tensor([0.6, 1.7], dtype=torch.float64)
    exact = torch.stack([(mean(a + s) - mean(a - s)) / 2e-5 for s in torch.eye(2, dtype=torch.float64) * 1e-5])
    many = a.expand(40_000, -1).clone().requires_grad_()
    (each,) = torch.autograd.grad((5 * DirichletDistribution(many).rsample()[:, 0]).sin().sum(), many)
    assert ((each.mean(0) - exact).abs() < 5 * each.std(0) / 200 + 1e-4).all()


def test_sparse_and_dense_shares_stay_finite_in_single_precision() -> None:
    for size in (1e-3, 0.1, 1.0, 1e4, 1e6):
        a = torch.full((200, 40), size, requires_grad=True)
        z, log_q = draw(DirichletDistribution(a), ())
        amounts = Independent(GammaDistribution(a, a), 1)
        y, log_y = draw(amounts, ())
        (gradient,) = torch.autograd.grad(z.square().sum() + log_q.sum() + y.tanh().sum() + log_y.sum(), a)
        assert all(t.isfinite().all() for t in (z, log_q, y, log_y, gradient)) and (z > 0).all() and (y > 0).all()
        assert kl_divergence(DirichletDistribution(a), DirichletDistribution(torch.ones(40))).isfinite().all()
    h = torch.tensor([[-1e4, 1e4, 0.0]], requires_grad=True)
    z, log_q = draw(Portions(3)(h), (50,))
    assert z.isfinite().all() and torch.autograd.grad(log_q.sum(), h)[0].isfinite().all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Wrapped(2, 0.0), "curvature of a Poincare ball cannot be 0"),
        (lambda: Wrapped(2, math.nan), "curvature of a Poincare ball cannot be nan"),
        (lambda: check_room(400, 1.0, 1.0), "400 latents of scale 1 reach beyond the rim.*give a curvature of 0.39 at most, or fewer latents"),
        (lambda: Portions(1), "needs 2 latents or more, and got 1"),
        (lambda: EvenDirichlet(3, 0.0), "concentration of a prior cannot be 0"),
        (lambda: EvenGamma(3, 1.0, -1.0), "rate of a prior cannot be -1"),
        (lambda: WrappedAtOrigin(3, 1.0, math.inf), "scale of a prior cannot be inf"),
        (lambda: parse("poincare:curvature=0"), "curvature should be greater than 0"),
        (lambda: parse("poincare:curvature=40").cook(toy_schema(Binary())), "give a curvature of .* at most"),
        (lambda: parse("hyperspherical:law=vfm"), "no law of directions called 'vfm'; did you mean vmf"),
        (lambda: parse("hyperspherical:latents=1").cook(toy_schema(Binary())), "a sphere needs 2 latents or more"),
        (lambda: parse("dirichlet_vae:latents=1").cook(toy_schema(Binary())), "one share of a whole is the whole"),
        (lambda: parse("dirichlet_vae:concentration=0"), "concentration should be greater than 0"),
    ],
)
def test_what_has_no_meaning_is_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()


def circle() -> tuple[Tensor, Tensor]:
    a = torch.arange(2000, dtype=torch.float64) * 2 * math.pi / 2000
    return torch.stack([a.cos(), a.sin()], -1), torch.full((2000,), 2 * math.pi / 2000, dtype=torch.float64)


def halves() -> tuple[Tensor, Tensor]:
    u = torch.linspace(-40, 40, 8001, dtype=torch.float64)
    z = torch.stack([torch.special.expit(u), torch.special.expit(-u)], -1)
    return z, z.prod(-1) * 0.01


def amounts() -> tuple[Tensor, Tensor]:
    z = torch.linspace(-40, 5, 9001, dtype=torch.float64).exp().unsqueeze(-1)
    return z, z.squeeze(-1) * 0.005


GRIDS: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {  # latents and the weights that turn densities into masses
    "hyperspherical:latents=2": circle,
    "hyperspherical:latents=2,law=power_spherical": circle,
    "poincare:latents=1": lambda: (from_origin(torch.linspace(-12, 12, 6001, dtype=torch.float64).unsqueeze(-1), 1.0), torch.full((6001,), 0.004).double()),
    "poincare:latents=1,curvature=0.4,entrance=gyroplanes,scale=1.5": lambda: (
        from_origin(torch.linspace(-15, 15, 6001, dtype=torch.float64).unsqueeze(-1), 0.4),
        torch.full((6001,), 0.005).double(),
    ),
    "dirichlet_vae:latents=2,concentration=0.7": halves,
    "gamma_vae:latents=1,concentration=1.5,scale=0.5": amounts,
}


@pytest.mark.parametrize("call", GRIDS)
def test_bounds_of_recipes_meet_the_evidence_on_a_grid(call: str) -> None:
    model = parse(f"{call},hidden=8").cook(toy_schema(Binary())).model.double().eval()
    x = toy_batch(Binary(), 3)["x"].double()
    z, weight = GRIDS[call]()
    with torch.no_grad():
        log_px = model.likelihood(z.unsqueeze(1)).log_prob(x)
        log_p = model.prior().log_prob(z).unsqueeze(-1)
        log_q = model.posterior(x).log_prob(z.unsqueeze(1))
        assert (log_p.exp() * weight.unsqueeze(-1)).sum().item() == pytest.approx(1, abs=1e-5)
        torch.testing.assert_close((log_q.exp() * weight.unsqueeze(-1)).sum(0), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-4)
        evidence = (log_px + log_p + weight.log().unsqueeze(-1)).logsumexp(0)
        mass = log_q.exp() * weight.unsqueeze(-1)
        exact_kl = torch.where(mass > 0, mass * (log_q - log_p), 0.0).sum(0)
        trace = model({"x": x}, 8000)
        found = trace.log_w.logsumexp(0) - math.log(8000)
        relative = (trace.log_w - found).exp().std(0) / math.sqrt(8000)
        assert ((found - evidence).abs() < 5 * relative + 1e-4).all()
        kl = trace.kl if trace.kl.dim() == 1 else trace.kl.mean(0)
        error = (trace["z"].log_q - trace["z"].log_p).std(0) / math.sqrt(8000)
        assert ((kl - exact_kl).abs() < 5 * error + 1e-3).all()


@pytest.mark.parametrize("call", ["hyperspherical:latents=3", "poincare:latents=2", "dirichlet_vae:latents=3", "gamma_vae:latents=2"])
def test_a_run_comes_back_and_its_latents_stay_in_their_space(call: str, tmp_path) -> None:
    x = np.random.default_rng(0).integers(2, size=(30, 1, 4, 4)).astype(np.uint8)
    run = vaestro.train(f"{call},hidden=8,batch=10", {"x": x}, steps=4, out=tmp_path / "run", seed=1)
    again = vaestro.open_run(tmp_path / "run")
    assert torch.equal(vaestro.generate(run, 3, seed=5), vaestro.generate(again, 3, seed=5))
    rows = torch.from_numpy(x[:5]).float()
    z = vaestro.embed(again, rows)
    assert torch.equal(z, vaestro.embed(run, rows))
    support = run.model.prior().support
    assert support.check(z).all() and run.model.posterior(rows).support.check(z).all()
    assert np.array_equal(*(importance(r.model, {"x": rows}, 5, seed=3).log_px for r in (run, again)))
    with pytest.raises(UsageError, match="not exactly one prior over vectors or codes.*recipes that have one: .*vae"):
        vaestro.fit_prior(run, "gmm:components=2", out=tmp_path / "fitted")


@pytest.mark.parametrize("call", ["hyperspherical:latents=30", "poincare:latents=5", "dirichlet_vae:latents=30", "gamma_vae:latents=5"])
def test_what_the_monitor_looks_at_has_the_size_of_one(call: str) -> None:
    prior = parse(call).cook(toy_schema(Binary())).model.prior()
    z = prior.sample((5000,))
    seen = numbered(prior.expand((5000,)), z)
    assert seen.shape == z.shape and ((seen.var(0) - 1).abs() < 0.3).all()


def test_priors_have_no_weights_and_broadcast() -> None:
    for prior in (UniformDirections(3), WrappedAtOrigin(3, 1.0), EvenDirichlet(3, 0.5), EvenGamma(3)):
        dist: Distribution = prior()
        assert not list(prior.parameters()) and dist.batch_shape == () and dist.event_shape == (3,)
        z = dist.sample((4, 5))
        assert z.shape == (4, 5, 3) and z.dtype == torch.float32 and dist.log_prob(z).shape == (4, 5) and not prior.state_dict()
        assert prior.double()().sample().dtype == torch.float64
