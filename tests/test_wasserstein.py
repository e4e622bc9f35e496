"""Discrepancies against closed forms, SciPy and each other; the objectives, plays and recipes that match latents to their prior by them."""

import math

import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import nn
from torch.distributions import Independent, Normal

from vaestro.core import Model, Site
from vaestro.data.schema import Binary, Real
from vaestro.errors import UsageError
from vaestro.models import VAE
from vaestro.objectives import imq, mismatch, mmd, rbf, reconstruction, sliced_wasserstein
from vaestro.objectives.discrepancies import latents_and_dreams
from vaestro.plays import Clock
from vaestro.plays.regularised import Weighed, of_trace, regularised
from vaestro.plays.wasserstein import adversarial_latents
from vaestro.priors import StandardNormal
from vaestro.recipes import RECIPES, parse
from vaestro.testing import LinearGaussian, line, toy_batch, toy_schema
from vaestro.training.loop import Loop

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
    found = torch.stack([mmd(kernel)(torch.randn(n, 3), torch.randn(n, 3)) for _ in range(250)])
    assert abs(found.mean().item()) < 4 * found.std().item() / math.sqrt(250)
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


def first(play, model, batch, clock=Clock(0, 10)):
    return next(iter(play(nn.ModuleDict({"model": model}), batch, clock)))


@pytest.mark.parametrize(("rows", "k"), [(2, 1), (5, 3)])
def test_the_loss_is_the_reconstruction_and_a_weighted_mismatch(rows, k):
    world = LinearGaussian()
    batch = {"x": world.evidence.sample((rows,))}

    def loss(weight):
        torch.manual_seed(1)
        return first(regularised(reconstruction(), {"mismatch": Weighed(weight, of_trace(mismatch(mmd())))}, k), world.wrong, batch)

    torch.manual_seed(1)
    trace = world.wrong(batch, k)
    apart = mismatch(mmd())(trace)
    assert torch.equal(loss(0.0).loss, reconstruction()(trace)) and loss(0.0).loss.shape == (rows,)
    assert torch.allclose(loss(3.0).loss, reconstruction()(trace) + 3 * apart)
    assert torch.equal(loss(3.0).terms["mismatch"], apart)


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
        (lambda: adversarial_latents(-1.0), "weight of the critic cannot be -1.0"),
        (lambda: regularised(reconstruction(), {"mismatch": Weighed(-1.0, of_trace(mismatch(mmd())))}), "weight of the mismatch cannot be -1.0"),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            wrong()
        assert "\n" not in str(caught.value)


class Best(nn.Module):
    """The best critic of N(m, s^2) against N(0, 1): the log of their ratio, as logits."""

    event_dims = 1

    def forward(self, z):
        return Normal(0.0, 1.0).log_prob(z) - Normal(1.0, 0.5).log_prob(z)


class Aside(nn.Module):
    """A posterior N(1, 0.5^2) of every row."""

    def forward(self, x):
        return Independent(Normal(torch.ones(len(x), 1, dtype=F64), 0.5), 1)


class Nothing(nn.Module):
    """A likelihood that is the same whatever z."""

    def forward(self, z):
        return Independent(Normal(torch.zeros_like(z), 1.0), 1)


def test_at_the_best_critic_its_loss_is_the_jensen_shannon_divergence():
    """E softplus(-c) under p and E softplus(c) under q sum to 2 ln 2 - 2 JSD(p, q), the integral on a grid."""
    model = VAE(StandardNormal((1,)).double(), Aside(), Nothing())
    parts = nn.ModuleDict({"model": model, "critic": Best()})
    moves = list(adversarial_latents(2.0)(parts, {"x": torch.zeros(40_000, 1, dtype=F64)}, Clock(0, 10)))
    grid = line(-12, 12)
    p, q = (law.log_prob(grid.values).exp() for law in (Normal(0.0, 1.0), Normal(1.0, 0.5)))
    half = (p + q) / 2
    jsd = float((grid.weights * (torch.special.xlogy(p, p / half) + torch.special.xlogy(q, q / half))).sum()) / 2
    found = moves[2].loss
    assert [m.player for m in moves] == ["decoder", "encoder", "critic"]
    assert abs(found.mean().item() - (2 * math.log(2) - 2 * jsd)) < 4 * found.std().item() / 200
    fooled = float((grid.weights * q * torch.nn.functional.softplus(q.clamp(min=1e-300).log() - p.log())).sum())  # -log C under q
    assert moves[1].loss.mean().item() == pytest.approx(moves[0].loss.mean().item() + 2 * fooled, abs=0.05)


@pytest.mark.parametrize("name", ["wae_mmd", "swae", "aae"])
def test_latents_come_to_follow_the_prior(name):
    """The codes of a plain autoencoder stay where they are; these get the mean 0, the variances 1 and no correlation."""
    more, steps = {"aae": ("critic=64x64,learning_rate=0.003", 400)}.get(name, ("learning_rate=0.01", 150))
    recipe = parse(f"{name}:latents=2,hidden=32,likelihood=gaussian_fixed,{more}").cook(toy_schema(Real(), (4,)))
    torch.manual_seed(3)
    x = torch.randn(512, 2) @ torch.randn(2, 4) + 0.1 * torch.randn(512, 4) + 2

    def off():
        z = recipe.model({"x": x})["z"].value[0].detach()
        return float(z.mean(0).norm() + (z.T.cov() - torch.eye(2)).norm())

    before, loop = off(), Loop(recipe, 0, steps, torch.device("cpu"))
    for _ in range(steps):
        loop.step(lambda: {"x": x[torch.randperm(512)[:128]]})
    assert before > 5 and off() < 0.6


@pytest.mark.parametrize("name", ["wae_mmd", "swae"])
def test_batches_of_one_row_are_refused_before_anything_is_made(name):
    with pytest.raises(UsageError, match=f"{name} compares the rows of a batch with each other, and batch=1 has too few; give 2 or more"):
        parse(f"{name}:batch=1").cook(toy_schema(Binary()))
    parse(f"{name}:batch=2").cook(toy_schema(Binary()))
    assert RECIPES[name].rows == 2 and RECIPES["aae"].rows == 1


@pytest.mark.parametrize("wrong", ["wae_mmd:weight=0", "wae_mmd:weight=-1", "swae:projections=0", "aae:weight=-1", "aae:critic=0"])
def test_keywords_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError):
        parse(wrong)


def test_every_player_of_an_adversarial_autoencoder_sees_the_others_moved():
    """The loss of each player is computed after the moves before it: the critic is told of codes that the encoder has just changed."""
    recipe = parse("aae:latents=2,hidden=8,critic=8").cook(toy_schema(Binary()))
    batch, clock = toy_batch(Binary()), Clock(0, 10)
    moves = recipe.play(recipe.parts, batch, clock)
    next(moves), next(moves)
    with torch.no_grad():
        for p in recipe.model.posterior.parameters():
            p.zero_()
    torch.manual_seed(2)
    loss = next(moves).loss
    torch.manual_seed(2)
    critic, zeros = recipe.parts["critic"], torch.zeros(6, 2)
    softplus = torch.nn.functional.softplus
    assert torch.allclose(loss, softplus(-critic(torch.randn(1, 6, 2)[0]))[:, 0] + softplus(critic(zeros))[:, 0])
