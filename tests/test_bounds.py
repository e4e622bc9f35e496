"""Bounds by brute force, by closed form and in their order; and the numbers where a formula divides by nothing."""

import math
from itertools import pairwise

import pytest
import torch
from torch.distributions import MultivariateNormal

from vaestro.core import Draw, Trace
from vaestro.data.schema import Binary
from vaestro.errors import UsageError
from vaestro.objectives import ciwae, elbo, iwae, mean_exp, miwae, reinforce, renyi, tvo, tvo_upper, vimco
from vaestro.objectives.thermodynamic import log_uniform
from vaestro.recipes import parse
from vaestro.testing import LinearGaussian, check_bound, toy_schema

ORDERS = (-math.inf, -3.0, -0.5, 0.0, 0.3, 0.999, 1 - 1e-6, 1.0, 1 + 1e-6, 1.001, 2.0, 7.0, math.inf)


@pytest.fixture(scope="module")
def world() -> LinearGaussian:
    return LinearGaussian()


def weighing(log_w: torch.Tensor) -> Trace:
    """A trace whose log weights [k, b] are these."""
    x = torch.zeros(log_w.shape[1])
    return Trace(x=Draw(x, torch.distributions.Normal(x, 1.0), None, log_w, 0.0, True))


@pytest.fixture
def log_w() -> torch.Tensor:
    return 4 * torch.randn(12, 3, dtype=torch.float64) - 80


@pytest.mark.parametrize("k", [1, 2, 3, 4, 6, 12])
def test_miwae_by_brute_force(log_w, k):
    expected = [-sum(math.log(sum(math.exp(w) for w in row[i : i + k]) / k) for i in range(0, 12, k)) / (12 // k) for row in log_w.T.tolist()]
    assert torch.allclose(miwae(k)(weighing(log_w)), torch.tensor(expected, dtype=torch.float64))


def test_miwae_is_the_elbo_and_the_importance_weighted_bound_at_its_ends(log_w):
    t = weighing(log_w)
    assert torch.allclose(miwae(1)(t), -log_w.mean(0))
    assert torch.equal(miwae(12)(t), iwae(t))
    assert miwae(1)(weighing(log_w[:1, :1])).shape == (1,)


def test_miwae_refuses_what_does_not_divide(log_w):
    with pytest.raises(UsageError, match="groups of 5 draws, and 12 do not divide"):
        miwae(5)(weighing(log_w))
    with pytest.raises(UsageError, match="k = 0 is none"):
        miwae(0)


def test_ciwae_is_its_convex_combination(log_w):
    t = weighing(log_w)
    for beta in (0.0, 0.05, 0.5, 1.0):
        assert torch.allclose(ciwae(beta)(t), -beta * log_w.mean(0) - (1 - beta) * mean_exp(log_w))
    assert torch.equal(ciwae(0.0)(t), iwae(t))
    impossible = log_w.index_fill(0, torch.tensor([2]), -math.inf)
    assert ciwae(0.0)(weighing(impossible)).isfinite().all()
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(UsageError, match=r"is not in \[0, 1\]"):
            ciwae(wrong)


@pytest.mark.parametrize("alpha", [-3.0, -0.5, 0.0, 0.3, 0.9, 2.0, 7.0])
def test_renyi_by_brute_force(log_w, alpha):
    expected = [-math.log(sum(math.exp(w) ** (1 - alpha) for w in row) / 12) / (1 - alpha) for row in (log_w + 80).T.tolist()]
    assert torch.allclose(renyi(alpha)(weighing(log_w)), torch.tensor(expected, dtype=torch.float64) + 80)


def test_renyi_holds_its_special_orders(log_w):
    t = weighing(log_w)
    assert torch.equal(renyi(1.0)(t), -log_w.mean(0))
    assert torch.equal(renyi(0.0)(t), iwae(t))
    assert torch.equal(renyi(-math.inf)(t), -log_w.max(0).values)
    assert torch.equal(renyi(math.inf)(t), -log_w.min(0).values)
    assert torch.allclose(renyi(-1e6)(t), renyi(-math.inf)(t), atol=1e-4)
    with pytest.raises(UsageError, match="NaN"):
        renyi(math.nan)


def test_renyi_falls_as_its_order_rises(log_w):
    values = [-renyi(a)(weighing(log_w)) for a in ORDERS]
    assert all((a >= b - 1e-9).all() for a, b in pairwise(values))
    assert all((a > b).all() for a, b in pairwise(values[:6]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rest", [1e-2, 1.01e-3, 0.99e-3, 1e-5, 1e-9, -1e-9, -1e-5, -0.99e-3, -1.01e-3])
def test_renyi_near_one_follows_its_series(log_w, dtype, rest):
    """L = mean + (1 - alpha) var / 2 + ...: also in single precision, where the usual formula is lost."""
    v = log_w / 8
    series = v.mean(0) + rest * v.var(0, correction=0) / 2 + rest**2 * (v - v.mean(0)).pow(3).mean(0) / 6
    leaf = v.to(dtype).requires_grad_()
    value = -renyi(1 - rest)(weighing(leaf))
    assert torch.allclose(value.double(), series, rtol=0, atol=2e-4 if dtype == torch.float32 else 1e-6)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    assert torch.allclose(gradient.double(), (rest * v).softmax(0), atol=2e-4 if dtype == torch.float32 else 1e-6)


def test_bounds_are_finite_at_extreme_weights():
    for log_w in (torch.tensor([[-1e5], [-2e5], [3.0]]), torch.tensor([[-4e4], [-4e4 - 1], [-4e4 + 1]]), torch.tensor([[1e6], [0.0], [-1e6]])):
        leaf = log_w.clone().requires_grad_()
        for bound in (miwae(1), miwae(3), ciwae(0.5), *map(renyi, ORDERS), tvo(5), tvo_upper(5)):
            value = bound(weighing(leaf))
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
            assert value.isfinite().all() and gradient.isfinite().all(), bound


def test_the_order_of_the_bounds_holds_draw_by_draw(world):
    """Jensen and the rise of the thermodynamic integrand hold for every set of draws; only the last step, to log p(x), is one of means."""
    x = world.evidence.sample((2000,))
    t = world.wrong({"x": x}, 12)
    assert torch.allclose(miwae(1)(t), -t.log_w.mean(0))
    chain = [-t.log_w.mean(0), miwae(3)(t), iwae(t)]
    assert all((low >= high - 1e-12).all() for low, high in pairwise(chain))
    for between in (ciwae(0.3), miwae(2), miwae(6), renyi(0.5), tvo(1), tvo(5), tvo(50, 0.01)):
        assert (between(t) <= chain[0] + 1e-12).all() and (between(t) >= chain[-1] - 1e-12).all()
    assert (tvo_upper(5)(t) <= iwae(t) + 1e-12).all()
    gap = world.evidence.log_prob(x) + iwae(t)
    assert gap.mean() > 2 * gap.std() / math.sqrt(2000)
    assert (world.elbo(x, 0.2, 2.0) + miwae(3)(t)).mean() < 0


CHECKED = (miwae(2), miwae(1), ciwae(0.3), ciwae(1.0), renyi(0.5), renyi(0.0), renyi(1.0), tvo(1), tvo(5), tvo(2, 0.3), vimco, reinforce(3.0))


@pytest.mark.parametrize("bound", CHECKED)
def test_bounds_pass_the_public_check(bound):
    check_bound(bound, 4, 8000)


def test_renyi_of_order_above_one_lies_below_the_elbo_and_of_one_below_zero_above_the_evidence(world):
    x = world.evidence.sample((1,))
    t = world.wrong({"x": x}, 100_000)
    exact = world.evidence.log_prob(x)
    assert -renyi(3.0)(t) < world.elbo(x, 0.2, 2.0) < -renyi(0.5)(t) < exact < -renyi(-0.5)(t)


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.75])
def test_renyi_converges_to_its_closed_form(world, alpha):
    """log p(x) - D_alpha(q || p(z | x)), the Renyi divergence of two Gaussians (Gil et al. 2013, table 2)."""
    x = world.evidence.sample((3,))
    q, p = world.wrong.posterior(x), world.right.posterior(x)
    mixed = alpha * p.covariance_matrix + (1 - alpha) * q.covariance_matrix
    gap = q.mean - p.mean
    logs = mixed.logdet() - (1 - alpha) * q.covariance_matrix.logdet() - alpha * p.covariance_matrix.logdet()
    divergence = alpha / 2 * (gap * torch.linalg.solve(mixed, gap)).sum(-1) - logs / (2 * (alpha - 1))
    assert torch.allclose(-renyi(alpha)(world.wrong({"x": x}, 200_000)), world.evidence.log_prob(x) - divergence, atol=0.02)


def test_temperatures_are_log_uniform():
    assert log_uniform(1, 0.1, torch.ones(())).tolist() == [0.0, 1.0]
    assert log_uniform(2, 0.3, torch.ones(())).tolist() == pytest.approx([0.0, 0.3, 1.0])
    assert log_uniform(4, 0.001, torch.ones((), dtype=torch.float64)).tolist() == pytest.approx([0.0, 0.001, 0.01, 0.1, 1.0])
    for wrong in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(UsageError, match="between 0 and 1"):
            tvo(3, wrong)
    with pytest.raises(UsageError, match="0 partitions"):
        tvo(0)


@pytest.mark.parametrize(("partitions", "first"), [(1, 0.5), (2, 0.3), (5, 0.08)])
def test_the_thermodynamic_sums_by_brute_force(log_w, partitions, first):
    betas = log_uniform(partitions, first, log_w).tolist()
    for objective, end in ((tvo, 0), (tvo_upper, 1)):
        expected = []
        for row in (log_w + 80).T.tolist():
            total = 0.0
            for i in range(partitions):
                v = [math.exp(betas[i + end] * w) for w in row]
                total += (betas[i + 1] - betas[i]) * sum(a * w for a, w in zip(v, row, strict=True)) / sum(v)
            expected.append(80 - total)
        assert torch.allclose(objective(partitions, first)(weighing(log_w)), torch.tensor(expected, dtype=torch.float64))


def test_one_partition_is_the_elbo(world):
    t = world.wrong({"x": world.evidence.sample((4,))}, 5)
    assert torch.allclose(tvo(1)(t), -t.log_w.mean(0))


def test_the_thermodynamic_sums_hold_the_evidence_between_them(world):
    """Exactly: on a linear-Gaussian model q^(1 - b) p^b is a Gaussian, whose mean of log w is known."""
    x = world.evidence.sample((1,))
    exact = world.evidence.log_prob(x)[0]
    q, p = world.wrong.posterior(x[0]), world.right.posterior(x[0])

    def integrand(b: float) -> torch.Tensor:
        precision = (1 - b) * q.precision_matrix + b * p.precision_matrix
        mean = torch.linalg.solve(precision, (1 - b) * q.precision_matrix @ q.mean + b * p.precision_matrix @ p.mean)
        z = MultivariateNormal(mean, precision_matrix=precision)
        return exact + torch.distributions.kl_divergence(z, q) - torch.distributions.kl_divergence(z, p)

    t = world.wrong({"x": x}, 60_000)
    previous = -elbo()(t)
    for partitions, first in ((1, 0.3), (2, 0.3), (5, 0.08), (200, 0.001)):
        betas = log_uniform(partitions, first, exact).tolist()
        low, high = (sum((b - a) * integrand(at) for a, b, at in zip(betas, betas[1:], nodes, strict=False)) for nodes in (betas[:-1], betas[1:]))
        assert low < exact < high
        if partitions < 10:
            assert torch.allclose(-tvo(partitions, first)(t), low, atol=0.03) and torch.allclose(-tvo_upper(partitions, first)(t), high, atol=0.03)
        assert low > previous - 0.02
        previous = low
    assert exact - low < 0.02


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("miwae:samples=10,groups=4", "10 samples do not divide into 4 groups"),
        ("piwae:samples=10,groups=4", "10 samples do not divide into 4 groups"),
        ("ciwae:beta=1.5", "beta should be less than or equal to 1"),
        ("renyi:alpha=nan", "alpha should be greater than or equal to -inf"),
        ("tvo:samples=1", "samples should be greater than or equal to 2"),
        ("tvo:first=1", "first should be less than 1"),
        ("tvo:law=gausian", "no law of latents called 'gausian'; did you mean gaussian"),
        ("vimco:samples=1", "samples should be greater than or equal to 2"),
        ("rws:samples=1", "take 2 samples or more, or sleep=1"),
        ("rws:sleep=2", "sleep should be less than or equal to 1"),
        ("reinforce:decay=1", "decay should be less than 1"),
    ],
)
def test_keywords_outside_their_range_are_refused_in_one_sentence(call, words):
    with pytest.raises(UsageError) as caught:
        parse(call).cook(toy_schema(Binary()))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("call", ["renyi:alpha=-inf", "renyi:alpha=inf,samples=3", "tvo:first=0.3,law=bernoulli", "rws:sleep=0.5,law=bernoulli"])
def test_calls_come_back_from_their_text(call):
    assert str(parse(str(parse(call)))) == str(parse(call)) == call


def test_validation_scores_a_bound():
    score = {call: parse(call).cook(toy_schema(Binary())).score for call in ("renyi:alpha=-1", "renyi:alpha=0.5", "piwae", "dreg", "rws", "vimco")}
    t = weighing(torch.randn(6, 3))
    for call in ("renyi:alpha=-1", "piwae", "dreg", "rws", "vimco"):
        torch.testing.assert_close(score[call](t), iwae(t))
    torch.testing.assert_close(score["renyi:alpha=0.5"](t), renyi(0.5)(t))
