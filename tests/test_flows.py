"""Flows: log-determinants against autograd, densities against integrals, samples against densities, and both ways of every map."""

import copy
import math
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaestro.core import Site, centre, draw, take
from vaestro.errors import UsageError
from vaestro.flows import Bijection, Chain, Flow, FlowDistribution, Inverse, Rescale, Univariate, affine, autoregressive, coupling, spline

MAPS = {"affine": affine, "spline": spline, "two bins": lambda: spline(2)}
KINDS = {"coupling": coupling, "autoregressive": autoregressive, "inverse autoregressive": lambda *a, **k: Inverse(autoregressive(*a, **k))}
MAKES = pytest.mark.parametrize("kind", KINDS)
UNIVARIATE = pytest.mark.parametrize("univariate", MAPS)


def moved(part: nn.Module, by: float = 0.2) -> nn.Module:
    """The part, in float64, with its numbers moved off where they start."""
    part.double()
    with torch.no_grad():
        for p in part.parameters():
            p.add_(by * torch.randn_like(p))
    return part


def bijection(kind: str, univariate: str, features: int, context: int = 0, layers: int = 3, by: float = 0.2) -> Bijection:
    torch.manual_seed(features)
    made = moved(KINDS[kind](features, MAPS[univariate](), layers, context=context, hidden=(12,)), by)
    assert isinstance(made, Bijection)
    return made


@MAKES
@UNIVARIATE
@pytest.mark.parametrize("features", [1, 2, 5])
@pytest.mark.parametrize("context", [0, 3])
def test_both_ways_and_the_jacobian(kind: str, univariate: str, features: int, context: int) -> None:
    f = bijection(kind, univariate, features, context)
    c = torch.randn(6, context, dtype=torch.float64) if context else None
    x = torch.randn(6, features, dtype=torch.float64) * 2
    u, ladj = f(x, c)
    back, again = f.inverse(u, c)
    torch.testing.assert_close(back, x, atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(again, ladj, atol=1e-7, rtol=1e-7)
    jacobian = torch.stack([torch.autograd.functional.jacobian(lambda v, i=i: f(v, None if c is None else c[i])[0], x[i]) for i in range(6)])
    torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, ladj, atol=1e-7, rtol=1e-7)


@MAKES
@UNIVARIATE
def test_every_feature_and_the_context_reach_every_feature(kind: str, univariate: str) -> None:
    f = bijection(kind, univariate, 5, 2, 7)
    x, c = torch.randn(5, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    assert bool((torch.autograd.functional.jacobian(lambda v: f(v, c)[0], x).abs() > 0).all())
    assert bool((torch.autograd.functional.jacobian(lambda v: f(x, v)[0], c).abs() > 0).all())


@MAKES
@UNIVARIATE
def test_the_density_integrates_to_one_and_samples_fit_it(kind: str, univariate: str) -> None:
    dist = Flow((2,), bijection(kind, univariate, 2, by=0.1)).double()()
    line = torch.linspace(-14, 14, 351, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    with torch.no_grad():
        mass = dist.log_prob(grid).exp() * (line[1] - line[0]) ** 2
        assert mass.sum().item() == pytest.approx(1, abs=2e-3)
        n = 8_000
        value = dist.sample(torch.Size((n,)))
    for statistic in (lambda v: v.tanh(), lambda v: (v[:, 0] * v[:, 1]).tanh().unsqueeze(1), lambda v: (v > 0.3).double()):
        exact, found = (statistic(grid) * mass.unsqueeze(1)).sum(0), statistic(value)
        assert bool(((found.mean(0) - exact).abs() <= 5 * found.std(0) / math.sqrt(n) + 2e-3).all())


@MAKES
@UNIVARIATE
def test_a_flow_starts_near_its_base_and_with_numbers_of_zero_is_it(kind: str, univariate: str) -> None:
    flow = Flow((4,), KINDS[kind](4, MAPS[univariate](), 3, hidden=(12,)))
    z = torch.randn(50, 4)
    base = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
    assert (flow().log_prob(z) - base).abs().max() < 0.5
    with torch.no_grad():
        for p in flow.parameters():
            p.zero_()
    torch.testing.assert_close(flow().log_prob(z), base, atol=1e-5, rtol=1e-5)


@MAKES
@UNIVARIATE
def test_drawing_scores_in_one_pass(kind: str, univariate: str) -> None:
    flow = Flow((3, 2), bijection(kind, univariate, 6)).double()
    for shape in ((), (1,), (4, 3)):
        value, log_p = draw(flow(), shape)
        assert value.shape == (*shape, 3, 2) and log_p.shape == shape
        torch.testing.assert_close(flow().log_prob(value), log_p, atol=1e-7, rtol=1e-7)
    assert flow().rsample(torch.Size((2,))).requires_grad
    assert centre(flow()).shape == (3, 2) and flow().support.event_dim == 2


@MAKES
def test_contexts_give_the_batch_shape_that_take_needs(kind: str) -> None:
    flow = Flow((3,), bijection(kind, "affine", 3, 5)).double()
    a, b = torch.randn(7, 2, dtype=torch.float64), torch.randn(4, 7, 3, dtype=torch.float64)
    assert flow(a, b).batch_shape == (4, 7) and flow(a[0], b[0, 0]).batch_shape == ()
    site = Site("z", Flow((3,), bijection(kind, "spline", 3)).double()(), flow(a, b[0]))
    one = take(site, (6, 7), None)
    assert one.value.shape == (6, 7, 3) and torch.as_tensor(one.log_p).shape == torch.as_tensor(one.log_q).shape == one.kl.shape == (6, 7)
    dist = flow(a, b)
    z = torch.randn(3, dtype=torch.float64)
    each = torch.stack([torch.stack([flow(a[j], b[i, j]).log_prob(z) for j in range(7)]) for i in range(4)])
    torch.testing.assert_close(dist.log_prob(z), each)
    torch.testing.assert_close(flow(a, b[0]).expand(torch.Size((2, 7))).log_prob(z), flow(a, b[0]).log_prob(z).expand(2, 7))


def test_a_base_of_its_own_may_be_pushed_through() -> None:
    f = bijection("coupling", "affine", 2)
    base = torch.distributions.MultivariateNormal(torch.ones(5, 2, dtype=torch.float64), torch.eye(2, dtype=torch.float64) * 0.3)
    pushed = FlowDistribution(base, Inverse(f))  # x = f(u)
    x, log_p = draw(pushed, (3,))
    u, ladj = f.inverse(x)
    torch.testing.assert_close(log_p, base.log_prob(u) - ladj)  # `ladj` is that of f at u
    assert pushed.batch_shape == (5,) and centre(pushed).shape == (5, 2)


@MAKES
@UNIVARIATE
def test_extreme_numbers_stay_finite_in_float32(kind: str, univariate: str) -> None:
    flow = Flow((3,), KINDS[kind](3, MAPS[univariate](), 2, hidden=(12,)))
    for size in (1.0, 30.0):
        with torch.no_grad():
            for p in flow.parameters():
                p.copy_(size * torch.randn_like(p).clamp(-1, 1) if p.dim() > 1 else p)
        value, log_p = draw(flow(), (200,))
        far = flow().log_prob(torch.cat([value.detach(), torch.full((1, 3), 100.0), torch.zeros(1, 3)]))
        assert value.dtype == log_p.dtype == torch.float32
        assert all(bool(t.isfinite().all()) for t in (value, log_p, far))
        grads = torch.autograd.grad(far.sum() + log_p.sum(), list(flow.parameters()))
        assert size > 1 or all(bool(g.isfinite().all()) for g in grads)


def test_a_spline_in_float32_inverts_however_steep() -> None:
    univariate = spline()
    x, h = torch.randn(50_000, 1) * 3, torch.randn(50_000, 1, univariate.numbers) * 100
    u, ladj = univariate.forward(x, h)
    back, again = univariate.inverse(u, h)
    assert all(bool(t.isfinite().all()) for t in (u, ladj, back, again)) and u.dtype == torch.float32
    assert (univariate.forward(back, h)[0] - u).abs().max() < 1e-2


def test_rescale_standardises_rows() -> None:
    rows = torch.randn(500, 3) * torch.tensor([0.1, 1.0, 0.0]) + torch.tensor([5.0, -2.0, 7.0])
    rescale = Rescale(3)
    rescale.start(rows)
    u, ladj = rescale(rows)
    torch.testing.assert_close(u.mean(0), torch.zeros(3), atol=1e-3, rtol=0.0)
    torch.testing.assert_close(u.std(0, correction=0), torch.tensor([1.0, 1.0, 0.0]), atol=1e-3, rtol=0.0)
    assert ladj.shape == (500,) and ladj[0].item() == pytest.approx(-rescale.log_scale.sum().item())
    rescale.start(rows[:1])
    assert rescale(rows)[0].isfinite().all()


def test_a_flow_comes_back_from_its_weights_and_copies() -> None:
    one, two = (Flow((3,), autoregressive(3, affine(), 2, hidden=(8,))) for _ in range(2))
    z = torch.randn(4, 3)
    two.load_state_dict(one.state_dict())
    assert torch.equal(one().log_prob(z), two().log_prob(z)) and torch.equal(copy.deepcopy(one)().log_prob(z), one().log_prob(z))
    assert one().log_prob(z).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert one().log_prob(z).dtype == torch.float32


def test_importing_zuko_leaves_torchs_validation_alone() -> None:
    affine()
    assert "zuko" in sys.modules and isinstance(Distribution.__dict__["arg_constraints"], property)
    with pytest.raises(ValueError, match="scale"):
        torch.distributions.Normal(0.0, -1.0, validate_args=True)


def test_without_zuko_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zuko", None)
    for build in (affine, spline):
        with pytest.raises(UsageError, match=r"pip install 'vaestro\[flows\]'"):
            build()


def test_bad_flows_are_refused() -> None:
    with pytest.raises(UsageError, match="two or more"):
        spline(1)
    for make in (coupling, autoregressive):
        with pytest.raises(UsageError, match="one or more"):
            make(3, affine(), 0)
    with pytest.raises(TypeError, match="write inverse"):
        Bijection().inverse(torch.zeros(1, 2))
    with pytest.raises(TypeError, match="write forward"):
        Bijection()(torch.zeros(1, 2))


def test_a_map_of_ones_own_is_a_univariate() -> None:
    """The open seam: any torch transform of one number, built from free numbers."""

    def shift(b: Tensor) -> torch.distributions.Transform:
        return torch.distributions.AffineTransform(b, 1.0)

    affine()  # gives torch's transforms the method that returns both value and log-determinant
    f = moved(Chain([coupling(3, Univariate(shift, ((),)), 2, hidden=(4,))]))
    x = torch.randn(5, 3, dtype=torch.float64)
    u, ladj = f(x)
    torch.testing.assert_close(f.inverse(u)[0], x)
    torch.testing.assert_close(ladj, -f.links[0].links[0].log_scale.sum().expand(5))
