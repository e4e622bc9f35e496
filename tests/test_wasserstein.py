"""Discrepancies against closed forms, SciPy and each other; the objectives, plays and recipes that match latents to their prior by them."""

import math

import pytest
import torch
from scipy.stats import wasserstein_distance
from torch.distributions import Independent, Normal

from vaestro.core import Model, Site
from vaestro.errors import UsageError
from vaestro.objectives import imq, matched, mismatch, mmd, rbf, reconstruction, sliced_wasserstein
from vaestro.objectives.discrepancies import latents_and_dreams
from vaestro.testing import LinearGaussian

F64 = torch.float64


def by_hand(a, b, kernel):
    """The unbiased MMD by loops over pairs."""
    D = a.shape[1]
    k = lambda x, y: float(kernel((x - y).square().sum() / (2 * D)))  # noqa: E731
    n, m = len(a), len(b)
    within = lambda r: sum(k(r[i], r[j]) for i in range(len(r)) for j in range(len(r)) if i != j) / (len(r) * (len(r) - 1))  # noqa: E731
    return within(a) + within(b) - 2 * sum(k(x, y) for x in a for y in b) / (n * m)


@pytest.mark.parametrize("kernel", [imq(), imq((1.0,)), rbf(), rbf((0.3, 2.0))])
@pytest.mark.parametrize(("n", "m", "size"), [(2, 2, 1), (7, 5, 3), (4, 9, 40)])
def test_mmd_is_the_statistic_over_pairs(kernel, n, m, size):
    a, b = torch.randn(n, size, dtype=F64), torch.randn(m, size, dtype=F64) + 1
    assert mmd(kernel)(a, b).item() == pytest.approx(by_hand(a, b, kernel), abs=1e-12)


def test_mmd_of_gaussians_has_its_closed_form():
    """E k of two Gaussians under exp(-|a - b|^2 / h) is prod_d (1 + 2 v / h)^(-1/2) exp(-m^2 / (h + 2 v)), with v and m those of a - b."""
    D, s = 2, 0.7
    h = 2 * D * s
    mean, spread = torch.tensor([0.8, -0.5], dtype=F64), torch.tensor([0.6, 1.5], dtype=F64)

    def expected(mean, variance):
        return float(((1 + 2 * variance / h).rsqrt() * torch.exp(-mean.square() / (h + 2 * variance))).prod())

    one = torch.ones(D, dtype=F64)
    exact = expected(0 * mean, 2 * spread**2) + expected(0 * mean, 2 * one) - 2 * expected(mean, spread**2 + 1)
    found = torch.stack([mmd(rbf((s,)))(mean + spread * torch.randn(20, D, dtype=F64), torch.randn(30, D, dtype=F64)) for _ in range(400)])
    assert abs(found.mean().item() - exact) < 4 * found.std().item() / math.sqrt(400)


@pytest.mark.parametrize("kernel", [imq(), rbf()])
@pytest.mark.parametrize("n", [2, 10])
def test_mmd_of_one_law_is_zero_on_average_whatever_the_batch(kernel, n):
    found = torch.stack([mmd(kernel)(torch.randn(n, 3), torch.randn(n, 3)) for _ in range(500)])
    assert abs(found.mean().item()) < 4 * found.std().item() / math.sqrt(500)
    assert found.min() < 0, "an unbiased estimate of 0 is now and then negative"


def test_mmd_leaves_out_the_pairs_of_a_row_with_itself():
    """A kernel that is 1 at distance 0 and else 0 sees nothing of distinct rows; with the diagonal it would say 1/n + 1/m."""
    spike = lambda squares: (squares == 0).to(squares.dtype)  # noqa: E731
    assert mmd(spike)(torch.randn(4, 2), torch.randn(5, 2)).item() == 0


@pytest.mark.parametrize("discrepancy", [mmd(), mmd(rbf()), sliced_wasserstein(200)])
def test_a_discrepancy_grows_with_the_distance_and_its_gradient_draws_near(discrepancy):
    b = torch.randn(200, 3, dtype=F64)
    noise = torch.randn(200, 3, dtype=F64)
    near, far = discrepancy(noise + 0.5, b), discrepancy(noise + 2.0, b)
    assert far > near > discrepancy(noise, b)
    a = (noise + 1.5).requires_grad_()
    discrepancy(a, b).backward()
    assert torch.isfinite(a.grad).all() and bool((a.grad.mean(0) > 0).all())


@pytest.mark.parametrize("discrepancy", [mmd(), sliced_wasserstein(3)])
def test_discrepancies_of_extreme_and_equal_rows_are_finite(discrepancy):
    for rows in (torch.zeros(3, 2), torch.full((3, 2), 1e6), torch.tensor([[1e-9, 0.0], [0.0, 0.0], [1e4, -1e4]])):
        a = rows.clone().requires_grad_()
        found = discrepancy(a, torch.randn(3, 2))
        found.backward()
        assert found.isfinite() and a.grad.isfinite().all() and found.dtype == torch.float32


def test_mmd_is_exact_far_from_the_origin():
    """Squares by matrix products cancel: at 1e4 from the origin in single precision they would be off by whole units."""
    a, b = torch.randn(20, 3), torch.randn(20, 3)
    assert mmd()(a + 1024, b + 1024).item() == pytest.approx(mmd()(a, b).item(), abs=1e-4)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (6, 6), (6, 4), (5, 13), (1, 3)])
def test_in_one_dimension_sliced_wasserstein_is_scipys(n, m):
    a, b = torch.randn(n, 1, dtype=F64), 0.5 * torch.randn(m, 1, dtype=F64) + 1
    found = sliced_wasserstein(3, power=1)(a, b).item()
    assert found == pytest.approx(wasserstein_distance(a[:, 0].numpy(), b[:, 0].numpy()), abs=1e-12)


def test_sliced_wasserstein_of_gaussians_has_its_closed_form():
    """In one dimension W_2^2 of N(m, s^2) and N(0, 1) is m^2 + (s - 1)^2; of a shift by m in D dimensions the mean over directions is |m|^2 / D."""
    t = (torch.arange(5_000, dtype=F64) + 0.5) / 5_000
    quantiles = Normal(0.0, 1.0).icdf(t).unsqueeze(1)
    assert sliced_wasserstein(1)(0.7 + 1.8 * quantiles, quantiles).item() == pytest.approx(0.7**2 + 0.8**2, rel=1e-3)
    a, shift = torch.randn(50, 3, dtype=F64), torch.tensor([1.0, -2.0, 0.5], dtype=F64)
    torch.manual_seed(0)
    assert sliced_wasserstein(50_000)(a + shift, a).item() == pytest.approx(float(shift.square().sum()) / 3, rel=0.01)
    assert sliced_wasserstein(5)(a[torch.randperm(50)], a).item() == 0


def test_unequal_samples_count_by_their_share():
    a, b = torch.randn(6, 2, dtype=F64), torch.randn(4, 2, dtype=F64)
    torch.manual_seed(1)
    found = sliced_wasserstein(7)(a, b)
    torch.manual_seed(1)
    assert torch.allclose(found, sliced_wasserstein(7)(a.repeat_interleave(2, 0), b.repeat_interleave(3, 0)))


class Sites(Model):
    """Two latent sites of other shapes, [2] and [1, 3]; with `ladder`, the prior of the second depends on the first."""

    def __init__(self, ladder: bool = False) -> None:
        super().__init__()
        self.ladder = ladder

    def program(self, batch=None):
        x = None if batch is None else batch["x"]
        normal = lambda loc, event: Independent(Normal(loc, torch.ones((), dtype=F64)), event)  # noqa: E731
        a = yield Site("a", normal(torch.zeros(2, dtype=F64), 1), None if x is None else normal(x, 1))
        loc = a.sum(-1)[..., None, None].expand(*a.shape[:-1], 1, 3) if self.ladder else torch.zeros(1, 3, dtype=F64)
        b = yield Site("b", normal(loc, 2), None if x is None else normal(x.sum(-1)[:, None, None].expand(-1, 1, 3), 2))
        yield Site("x", normal(a + b.sum((-1, -2)).unsqueeze(-1), 1))


@pytest.mark.parametrize("k", [1, 3])
def test_several_sites_are_compared_side_by_side(k):
    trace = Sites()({"x": torch.randn(6, 2, dtype=F64)}, k)
    z, dreams = latents_and_dreams(trace)
    assert z.shape == dreams.shape == (k, 6, 5)
    assert torch.equal(z, torch.cat([trace["a"].value, trace["b"].value.flatten(2)], -1))
    torch.manual_seed(3)
    found = mismatch(mmd())(trace)
    torch.manual_seed(3)
    _, dreams = latents_and_dreams(trace)
    assert torch.allclose(found, sum(mmd()(z[i], dreams[i]) for i in range(k)) / k)


def test_a_prior_that_depends_on_other_latents_is_refused():
    with pytest.raises(UsageError, match="the prior of 'b' depends on other latents"):
        mismatch(mmd())(Sites(ladder=True)({"x": torch.randn(4, 2, dtype=F64)}))


@pytest.mark.parametrize(("rows", "k"), [(2, 1), (5, 3)])
def test_matched_is_the_reconstruction_and_a_weighted_mismatch(rows, k):
    world = LinearGaussian()
    trace = world.wrong({"x": world.evidence.sample((rows,))}, k)
    assert torch.equal(matched(mmd(), 0.0)(trace), reconstruction()(trace))
    torch.manual_seed(1)
    found = matched(mmd(), 3.0)(trace)
    torch.manual_seed(1)
    assert found.shape == (rows,)
    assert torch.allclose(found, reconstruction()(trace) + 3 * mismatch(mmd())(trace))


def test_the_aggregate_of_the_true_posterior_matches_the_prior():
    """Over draws of p(x), q(z) = p(z) for the true posterior: the mean mismatch is 0, and of a wrong one above."""
    world = LinearGaussian()
    measure = mismatch(mmd())
    x = world.evidence.sample((100, 16))
    right, wrong = (torch.stack([measure(m({"x": rows})) for rows in x]) for m in (world.right, world.model(1.0, 1.0)))
    assert abs(right.mean()) < 4 * right.std() / math.sqrt(100)
    assert wrong.mean() > 0.3


def test_what_cannot_be_measured_is_refused_in_one_sentence():
    for wrong, words in (
        (lambda: mmd()(torch.zeros(1, 2), torch.zeros(3, 2)), "pairs of rows"),
        (lambda: imq(()), "scales"),
        (lambda: rbf((1.0, 0.0)), "scales"),
        (lambda: sliced_wasserstein(0), "0 directions"),
        (lambda: sliced_wasserstein(5, 0.5), "power 0.5"),
        (lambda: matched(mmd(), -1.0), "drive the latents away"),
        (lambda: matched(mmd(), math.nan), "drive the latents away"),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            wrong()
        assert "\n" not in str(caught.value)
