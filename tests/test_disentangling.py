"""The KL taken apart, covariances, critics and capacities: against enumeration of batches, NumPy, closed forms and each other."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal

from vaestro.codes import OneHotCodes
from vaestro.core import Model, Seen, Site, replaying, run
from vaestro.data import load
from vaestro.data.rows import Batches, Rows
from vaestro.data.schema import Binary, Field, Integer, Real, Schema
from vaestro.errors import UsageError
from vaestro.models import VAE, Mixed
from vaestro.objectives import beta_tc, capacities, capacity, decomposition, dip, elbo, info, mmd, rbf, reconstruction, stratified, weighted
from vaestro.objectives.disentangling import covariance, latents, marginals, means
from vaestro.plays import Clock, factor
from vaestro.plays.disentangling import dimensions, shuffled, told_apart
from vaestro.recipes import parse
from vaestro.testing import LinearGaussian, toy_batch, toy_schema
from vaestro.testing.linear import Law
from vaestro.training.loop import Loop

F64 = torch.float64


def diagonal(loc, scale):
    return Independent(Normal(loc, scale, validate_args=False), 1, validate_args=False)


def rows_of(n=5, size=3):
    """Posterior means and scales of n rows, as x [n, 2 * size]."""
    r = torch.Generator().manual_seed(4)
    return torch.cat([torch.randn(n, size, generator=r, dtype=F64), 0.3 + torch.rand(n, size, generator=r, dtype=F64)], 1)


class Told(Model):
    """z has the posterior that x spells out; x is around z, said twice."""

    def __init__(self, size=3, law=diagonal):
        super().__init__()
        self.size, self.law = size, law

    def program(self, batch=None):
        x = None if batch is None else batch["x"]
        prior = diagonal(torch.zeros(self.size, dtype=F64), torch.ones(self.size, dtype=F64))
        z = yield Site("z", prior, None if x is None else self.law(x[..., : self.size], x[..., self.size :]))
        yield Site("x", diagonal(torch.cat([z, z], -1), torch.ones(2 * self.size, dtype=F64)))


class Two(Model):
    """The same latents as two sites of one and of two dimensions."""

    def program(self, batch=None):
        x = None if batch is None else batch["x"]
        z = []
        for name, a, b in (("u", 0, 1), ("v", 1, 3)):
            q = None if x is None else diagonal(x[:, a:b], x[:, 3 + a : 3 + b])
            z.append((yield Site(name, diagonal(torch.zeros(b - a, dtype=F64), torch.ones(b - a, dtype=F64)), q)))
        yield Site("x", diagonal(torch.cat([*z, *z], -1), torch.ones(6, dtype=F64)))


def exact_logs(z, x, size=3):
    """log q(z) and sum_j log q(z_j) of z [..., D], q(z) the mean over all rows of x."""
    each = Normal(x[:, :size], x[:, size:]).log_prob(z.unsqueeze(-2))
    return each.sum(-1).logsumexp(-1) - math.log(len(x)), (each.logsumexp(-2) - math.log(len(x))).sum(-1)


# The KL taken apart.


@pytest.mark.parametrize("estimator", [weighted, stratified])
@pytest.mark.parametrize(("k", "rows", "size"), [(1, 5, 3), (4, 5, 3), (3, 1, 3), (2, 4, 1)])
def test_the_three_parts_sum_to_the_kl_of_each_draw(estimator, k, rows, size):
    trace = Told(size)({"x": rows_of(rows, size)}, k)
    parts = decomposition(trace, estimator(50))
    assert all(p.shape == (k, rows) for p in parts)
    torch.testing.assert_close(sum(parts), trace["z"].log_q - trace["z"].log_p)


def test_on_the_whole_data_the_stratified_parts_are_exact():
    x = rows_of()
    trace = Told()({"x": x}, 3)
    log_qz, log_product = exact_logs(trace["z"].value, x)
    parts = decomposition(trace, stratified(len(x)))
    torch.testing.assert_close(parts.information, trace["z"].log_q - log_qz)
    torch.testing.assert_close(parts.correlation, log_qz - log_product)
    torch.testing.assert_close(parts.dimensions, log_product - trace["z"].log_p)


def every_batch(rows, b):
    """Every batch of b different rows, in every order."""
    return list(itertools.permutations(range(rows), b))


@pytest.mark.parametrize("b", [2, 3, 4, 5])
def test_stratified_sampling_is_unbiased_over_all_batches_for_the_joint_and_for_each_dimension(b):
    """Fix row 0 and a draw of its posterior; the mean over every batch that row 0 is in of the estimate of q(z), not of its log, is q(z)."""
    x, N = rows_of(), 5
    z = x[0, :3] + 0.7 * x[0, 3:]
    each = Normal(x[:, :3], x[:, 3:]).log_prob(z)  # [N, D]
    joint, single = [], []
    for batch in (p for p in every_batch(N, b) if p[0] == 0):
        log_q = each[list(batch)]
        weights = stratified(N)(torch.zeros(1, b, b, dtype=F64))[0]
        joint.append((log_q.sum(-1) + weights).logsumexp(0).exp())
        single.append((log_q + weights.unsqueeze(-1)).logsumexp(0).exp())
    torch.testing.assert_close(torch.stack(joint).mean(), each.sum(-1).exp().mean())
    torch.testing.assert_close(torch.stack(single).mean(0), each.exp().mean(0))


@pytest.mark.parametrize("b", [2, 3, 5])
def test_every_row_has_the_weight_1_over_n_on_average(b):
    N, total = 5, torch.zeros(5, dtype=F64)
    batches = [p for p in every_batch(N, b) if p[-1] == 2]  # the draw's own row stands last: weights follow the row, not the column
    for batch in batches:
        total[list(batch)] += stratified(N)(torch.zeros(b, b, dtype=F64))[b - 1].exp()
    torch.testing.assert_close(total / len(batches), torch.full((N,), 1 / N, dtype=F64))
    torch.testing.assert_close(stratified(N)(torch.zeros(b, b, dtype=F64)).logsumexp(1), torch.zeros(b, dtype=F64))


def test_it_is_the_papers_estimate_averaged_over_which_row_has_the_odd_weight():
    N, b = 9, 4
    M = b - 1
    z, own = torch.rand(b, dtype=F64).log(), 1
    others = [j for j in range(b) if j != own]
    paper = [z[own].exp() / N + sum(z[j].exp() for j in others if j != odd) / M + (N - M) / (N * M) * z[odd].exp() for odd in others]
    ours = (z + stratified(N)(torch.zeros(b, b, dtype=F64))[own]).logsumexp(0).exp()
    torch.testing.assert_close(ours, torch.stack(paper).mean())


def test_weighted_sampling_is_equation_3_and_too_small_on_average():
    x, N, b = rows_of(), 5, 3
    model, gaps = Told(), []
    for batch in itertools.permutations(range(N), b):
        trace = model({"x": x[list(batch)]}, 4)
        log_qz, _ = exact_logs(trace["z"].value, x[list(batch)])
        parts = decomposition(trace, weighted(N))
        torch.testing.assert_close(trace["z"].log_q - parts.information, log_qz + math.log(b) - math.log(N * b))
        gaps.append((trace["z"].log_q - parts.information - exact_logs(trace["z"].value, x)[0]).mean())
    assert torch.stack(gaps).mean() < -0.3
    trace = model({"x": x[:1]}, 2)
    torch.testing.assert_close(decomposition(trace, weighted(N)).correlation, torch.full((2, 1), 2 * math.log(N), dtype=F64))


def test_the_estimated_total_correlation_is_that_of_a_correlated_aggregate():
    """Rows on a line: q(z) = N(0, R) with R = [[1, c], [c, 1]], whose total correlation is -1/2 ln(1 - c^2)."""
    c, n = 0.8, 3000
    mean = torch.randn(n, 1, dtype=F64).expand(n, 2) * math.sqrt(c)
    x = torch.cat([mean, torch.full((n, 2), math.sqrt(1 - c), dtype=F64)], 1)
    found = decomposition(Told(2)({"x": x}), stratified(n)).correlation
    assert abs(found.mean().item() + 0.5 * math.log(1 - c**2)) < 5 * found.std().item() / math.sqrt(n)


def test_beta_tc_at_weights_of_1_is_the_elbo_to_the_bit():
    for model, x in ((Told(), rows_of()), (LinearGaussian().wrong, LinearGaussian().evidence.sample((6,)))):
        trace = model({"x": x}, 3)
        for estimator in (weighted, stratified):
            assert torch.equal(beta_tc(1.0, estimator(100))(trace), elbo()(trace))


@pytest.mark.parametrize("estimator", [weighted, stratified])
def test_beta_tc_weighs_each_part(estimator):
    trace = Told()({"x": rows_of()}, 3)
    parts, plain = decomposition(trace, estimator(40)), elbo()(trace)
    torch.testing.assert_close(beta_tc(6.0, estimator(40))(trace) - plain, 5 * parts.correlation.mean(0))
    torch.testing.assert_close(beta_tc(1.0, estimator(40), alpha=0.0)(trace) - plain, -parts.information.mean(0))
    torch.testing.assert_close(
        beta_tc(2.0, estimator(40), 0.5, 3.0)(trace) - plain, (parts.correlation - 0.5 * parts.information + 2 * parts.dimensions).mean(0)
    )
    with pytest.raises(UsageError, match="correlation cannot be -1"):
        beta_tc(-1.0, estimator(40))


def test_equal_weights_above_1_are_a_beta_vae_on_average():
    """alpha = beta = gamma = 4: the parts sum to the KL of the draw, whose mean is the closed form."""
    trace = Told()({"x": rows_of()}, 20_000)
    torch.testing.assert_close(beta_tc(4.0, stratified(9), 4.0, 4.0)(trace), elbo(4.0)(trace), atol=0.15, rtol=0)


def test_the_gradient_of_the_total_correlation_falls_to_the_posterior_and_moves_it_down():
    x = rows_of(64)
    x[:, 1] = x[:, 0]
    x.requires_grad_()
    torch.manual_seed(1)
    before = decomposition(Told()({"x": x}), stratified(64)).correlation.mean()
    (slope,) = torch.autograd.grad(before, x)
    torch.manual_seed(1)
    assert decomposition(Told()({"x": x - 0.5 * slope}), stratified(64)).correlation.mean() < before - 1e-3
    assert torch.isfinite(slope).all()


def test_sites_stand_side_by_side():
    x = rows_of()
    torch.manual_seed(3)
    two = Two()({"x": x}, 2)
    one = decomposition_of(torch.cat([two["u"].value, two["v"].value], -1), x)
    for a, b in zip(decomposition(two, stratified(20)), one, strict=True):
        torch.testing.assert_close(a, b)


def decomposition_of(z, x):
    """The parts of given values under the one-site model."""
    return decomposition(run(Told().program({"x": x}), replaying({"z": z, "x": x})), stratified(20))


def test_a_full_gaussian_has_its_marginals():
    L = torch.randn(4, 3, 3, dtype=F64).tril() + 2 * torch.eye(3, dtype=F64)
    q = MultivariateNormal(torch.randn(4, 3, dtype=F64), scale_tril=L, validate_args=False)
    C = L @ L.mT
    torch.testing.assert_close(marginals(q).stddev.square(), C.diagonal(dim1=-2, dim2=-1))
    torch.testing.assert_close(covariance(q), C)
    world = LinearGaussian()
    trace = world.wrong({"x": world.evidence.sample((6,))}, 3)
    torch.testing.assert_close(sum(decomposition(trace, stratified(100))), trace["z"].log_q - trace["z"].log_p)


@pytest.mark.parametrize("size", [1e-4, 1e3])
def test_extreme_posteriors_have_finite_parts_and_gradients(size):
    x = rows_of(6).float()
    x[:, 3:] = size
    x.requires_grad_()
    model = VAE(
        Law(lambda: diagonal(torch.zeros(3), torch.ones(3))),
        Law(lambda x: diagonal(x[:, :3], x[:, 3:])),
        Law(lambda z: diagonal(torch.cat([z, z], -1), torch.ones(6))),
    )
    for estimator in (weighted, stratified):
        loss = beta_tc(6.0, estimator(10**6))(model({"x": x})).sum()
        assert loss.isfinite() and torch.autograd.grad(loss, x)[0].isfinite().all()


def test_a_batch_that_is_all_the_data_and_one_that_is_larger():
    for rows, b in ((5, 5), (1, 1), (3, 5)):
        assert stratified(rows)(torch.zeros(b, b, dtype=F64)).logsumexp(1).abs().max() < 1e-12
    with pytest.raises(UsageError, match="there are 0"):
        stratified(0)


def test_what_has_no_parts_is_refused_in_words():
    def partly(law):
        return Told(3, law)({"x": rows_of()})

    with pytest.raises(UsageError, match="no densities of their own"):
        decomposition(partly(lambda m, s: torch.distributions.TransformedDistribution(diagonal(m, s), [])), stratified(9))
    recipe = parse("ae:latents=3,hidden=8").cook(toy_schema(Binary()))
    with pytest.raises(UsageError, match="no density"):
        decomposition(recipe.model(toy_batch(Binary())), stratified(9))
    ladder = parse("top_down:latents=3,width=8").cook(toy_schema(Binary()))
    with pytest.raises(UsageError, match="depends on other latents"):
        decomposition(ladder.model(toy_batch(Binary())), stratified(9))
    x = rows_of()
    seen = {"x": x, "z": Seen(torch.zeros(5, 3, dtype=F64), torch.arange(5) < 2)}
    with pytest.raises(UsageError, match="seen in part"):
        decomposition(Told()({"x": x}, given=seen), stratified(9))


# Covariances.


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_covariances_are_numpys(rows):
    x = rows_of(rows)
    trace, mu = Told()({"x": x}, 2), x[:, :3].numpy()
    expected = np.cov(mu, rowvar=False, bias=True) if rows > 1 else np.zeros((3, 3))
    np.testing.assert_allclose(means(trace).numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(latents(trace).numpy(), expected + np.diag((x[:, 3:] ** 2).mean(0).numpy()), atol=1e-12)


def test_the_covariance_of_latents_is_that_of_their_draws():
    trace = Told()({"x": rows_of()}, 40_000)
    z = trace["z"].value.reshape(-1, 3)
    np.testing.assert_allclose(latents(trace).numpy(), np.cov(z.numpy(), rowvar=False), atol=0.03)
    torch.testing.assert_close(latents(Two()({"x": rows_of()})), latents(trace))


@pytest.mark.parametrize("inferred", [means, latents])
def test_dip_charges_off_and_on_the_diagonal(inferred):
    trace = Told()({"x": rows_of()}, 3)
    C = inferred(trace).numpy()
    charge = 2 * sum(C[i, j] ** 2 for i in range(3) for j in range(3) if i != j) + 5 * sum((C[i, i] - 1) ** 2 for i in range(3))
    torch.testing.assert_close(dip(inferred, 2.0, 5.0)(trace), elbo()(trace) + charge)
    assert torch.equal(dip(inferred, 0.0, 0.0)(trace), elbo()(trace))
    with pytest.raises(UsageError, match="would reward"):
        dip(inferred, -1.0, 0.0)


def test_covariances_need_means_that_depend_on_x_alone():
    with pytest.raises(UsageError, match="without a mean"):
        means(parse("maf_posterior:latents=3,hidden=8").cook(toy_schema(Binary())).model(toy_batch(Binary())))
    with pytest.raises(UsageError, match="no means over rows"):
        latents(parse("top_down:latents=3,width=8").cook(toy_schema(Binary())).model(toy_batch(Binary())))


# InfoVAE.


def test_info_is_the_elbo_and_the_mmd_vae_at_its_ends():
    trace = Told()({"x": rows_of()}, 3)
    measure = mmd(rbf())
    assert torch.equal(info(0.0, 1.0, measure)(trace), elbo()(trace))
    torch.manual_seed(5)
    dreams = torch.randn(3, 5, 3, dtype=F64)
    apart = torch.stack([measure(a, b) for a, b in zip(trace["z"].value, dreams, strict=True)]).mean()
    torch.manual_seed(5)
    torch.testing.assert_close(info(1.0, 7.0, measure)(trace), reconstruction()(trace) + 7 * apart)
    torch.manual_seed(5)
    torch.testing.assert_close(info(0.25, 2.0, measure)(trace), elbo(0.75)(trace) + 1.25 * apart)
    for alpha, scaling in ((1.5, 1.0), (0.5, 0.2)):
        with pytest.raises(UsageError, match="reward a distance"):
            info(alpha, scaling, measure)


# FactorVAE.


def test_shuffled_dimensions_keep_their_values_and_lose_each_other():
    z = torch.randn(2000, 1, 1, dtype=F64).expand(2000, 3, 2).clone()
    z[..., 1] += 1
    out = shuffled(z)
    for d in range(3):
        torch.testing.assert_close(out[:, d].sort(0).values, z[:, d].sort(0).values)
        torch.testing.assert_close(out[:, d, 1] - out[:, d, 0], torch.ones(2000, dtype=F64))  # a dimension that is a vector stays whole
    assert np.abs(np.corrcoef(out[..., 0].T.numpy()) - np.eye(3)).max() < 0.1
    assert shuffled(torch.ones(1, 2, 1)).shape == (1, 2, 1)


class Quadratic(nn.Module):
    """a + b'z + z'Cz: the best critic of Gaussians is one of these."""

    def __init__(self, size):
        super().__init__()
        self.a, self.C = nn.Parameter(torch.zeros(1, dtype=F64)), nn.Parameter(torch.zeros(size, size, dtype=F64))

    def forward(self, z):
        return (self.a + ((z @ self.C) * z).sum(-1)).unsqueeze(-1)


def test_the_best_critic_reads_the_total_correlation_of_a_gaussian():
    """TC = -1/2 ln det R. The critic's loss is least at log q(z) - sum_j log q(z_j), and there its mean logit is TC."""
    R = torch.tensor([[1.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 1.0]], dtype=F64)
    exact = -0.5 * R.logdet().item()
    z = MultivariateNormal(torch.zeros(3, dtype=F64), R).sample((2, 40_000))
    best = Quadratic(3)
    with torch.no_grad():
        best.a.fill_(exact)
        best.C.copy_((torch.eye(3, dtype=F64) - torch.linalg.inv(R)) / 2)
    logits = best(z[0])
    assert abs(logits.mean().item() - exact) < 5 * logits.std().item() / 200
    critic = Quadratic(3)
    optimizer = torch.optim.LBFGS(critic.parameters(), max_iter=30, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        torch.manual_seed(1)  # one shuffle for all steps
        loss = told_apart(critic, [z[0].unsqueeze(-1)], [z[1].unsqueeze(-1)]).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert critic(z[0]).mean().item() == pytest.approx(exact, abs=0.03)
    torch.testing.assert_close(critic.C.detach() + critic.C.detach().T, 2 * best.C.detach(), atol=0.08, rtol=0)


@pytest.mark.parametrize("rows", [1, 2, 5, 8])
@pytest.mark.parametrize("k", [1, 3])
def test_factor_moves_the_model_on_the_critics_mean_logit_and_the_critic_on_halves(rows, k):
    parts = nn.ModuleDict({"model": Told(), "critic": Quadratic(3)})
    torch.manual_seed(0)
    with torch.no_grad():
        parts["critic"].C.normal_()
    torch.manual_seed(2)
    trace = parts["model"]({"x": rows_of(rows)}, k)
    torch.manual_seed(2)
    model, critic = list(factor(3.0, k)(parts, {"x": rows_of(rows)}, Clock(0, 1)))
    correlation = parts["critic"](trace["z"].value)[..., 0].mean(0)
    torch.testing.assert_close(model.loss, elbo()(trace) + 3 * correlation)
    torch.testing.assert_close(model.terms["correlation"], correlation.mean().detach())
    assert (model.player, critic.player) == ("model", "critic")
    assert critic.loss.shape == ((rows + 1) // 2,)
    assert critic.loss.mean() > 0
    with pytest.raises(UsageError, match="cannot be -1"):
        factor(-1.0)


@pytest.mark.parametrize("rows", [1, 2, 5, 8])
def test_the_critic_learns_from_one_half_as_it_is_and_the_other_shuffled(rows):
    parts, batch, half = nn.ModuleDict({"model": Told(), "critic": Quadratic(3)}), {"x": rows_of(rows)}, (rows + 1) // 2
    with torch.no_grad():
        parts["critic"].C.normal_()
    moves = factor(3.0)(parts, batch, Clock(0, 1))
    next(moves)
    batch["x"][:, :3] += 9.0  # as if the model had moved: the critic is shown new draws
    torch.manual_seed(7)
    loss = next(moves).loss
    torch.manual_seed(7)
    z = parts["model"](batch)["z"].value[0].unsqueeze(-1)
    torch.testing.assert_close(loss, told_apart(parts["critic"], [z[:half]], [z[-half:]]))
    assert z.min() > 3


def test_factor_shuffles_classes_whole():
    recipe = parse("joint_vae:latents=2,variables=3,classes=4,hidden=8").cook(toy_schema(Binary()))
    trace = recipe.model(toy_batch(Binary()), 2)
    assert dimensions(trace["z"]).shape == (2, 6, 2, 1)
    assert dimensions(trace["c"]).shape == (2, 6, 3, 4)


# JointVAE.


def test_capacities_hold_each_site():
    trace = Two()({"x": rows_of()}, 3)
    u, v = (trace[n].kl for n in "uv")
    expected = reconstruction()(trace) + 4 * ((u - 1.5).abs() + (v - 0.5).abs())
    torch.testing.assert_close(capacities(4.0, {"u": 1.5, "v": 0.5})(trace), expected)
    torch.testing.assert_close(capacities(1.0, {"u": 0.0, "v": 0.0})(trace), elbo()(trace))
    one = Told()({"x": rows_of()}, 3)
    torch.testing.assert_close(capacities(4.0, {"z": 2.0})(one), capacity(4.0, 2.0)(one))
    with pytest.raises(UsageError, match="the latents are u, v"):
        capacities(1.0, {"u": 1.0})(trace)


def test_joint_vae_scores_what_enumeration_of_its_classes_scores():
    """At evaluation the classes are hard: E_q(c)[log p(x | z, c)] - KL(q(c) || p(c)) over every class, for the same z."""
    torch.manual_seed(0)
    codes, encoder = OneHotCodes(3, 1), nn.Linear(4, 2 * 2 + 3)
    encoder.event_dims = 1
    model = Mixed(2, 1, codes, encoder, Law(lambda z, c: diagonal(torch.cat([z, c[..., :2]], -1), torch.ones(4)))).eval()
    x = torch.randn(3, 4)
    trace = model({"x": x}, 60_000)
    q = trace["c"].posterior.base_dist.probs[:, 0]
    torch.testing.assert_close(trace["c"].kl, (q * (3 * q).log()).sum(-1))
    z = trace["z"].value
    each = [diagonal(torch.cat([z, torch.eye(3)[c, :2].expand(*z.shape[:2], 2)], -1), torch.ones(4)).log_prob(x) for c in range(3)]
    exact = sum(q[:, c] * each[c].mean(0) for c in range(3))
    torch.testing.assert_close(trace.log_px.mean(0), exact, atol=0.05, rtol=0)
    assert trace.normalised and not model.train()({"x": x}).normalised


def test_joint_vae_refuses_more_than_its_classes_can_tell():
    with pytest.raises(UsageError, match=r"tell 2\.303 nats at most"):
        parse("joint_vae:class_nats=2.4").cook(toy_schema(Binary()))
    recipe = parse("joint_vae:latents=2,hidden=8,until=0.0,nats=3.0,gamma=2.0").cook(toy_schema(Binary()))
    batch = toy_batch(Binary())
    torch.manual_seed(1)
    (move,) = recipe.play(recipe.parts, batch, Clock(0, 10))
    torch.manual_seed(1)
    t = recipe.model(batch)
    torch.testing.assert_close(move.loss, (2 * ((t["z"].kl - 3).abs() + (t["c"].kl - math.log(10)).abs()) - t.log_px).mean(0))


# The recipes.


def test_the_size_of_the_data_comes_from_the_schema():
    batch = toy_batch(Binary())
    losses = []
    for rows in (10, 10**6):
        schema = Schema("sized", (Field("x", Binary(), (1, 8, 8)),), {"train": rows})
        recipe = parse("beta_tc_vae:latents=3,hidden=8,beta=3.0").cook(schema)
        torch.manual_seed(1)
        trace = recipe.model(batch)
        torch.manual_seed(1)
        (move,) = recipe.play(recipe.parts, batch, Clock(0, 1))
        torch.testing.assert_close(move.loss, beta_tc(3.0, stratified(rows))(trace))
        losses.append(move.loss)
    assert not torch.allclose(*losses)
    with pytest.raises(UsageError, match="does not say how many training rows"):
        parse("beta_tc_vae").cook(Schema("bare", (Field("x", Binary(), (4,)),)))


@pytest.mark.parametrize("name", ["beta_tc_vae", "factor_vae", "dip_vae", "info_vae", "mmd_vae"])
def test_recipes_that_compare_rows_refuse_a_batch_of_one(name):
    with pytest.raises(UsageError, match="2 or more"):
        parse(f"{name}:batch=1").cook(toy_schema(Integer(5)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("beta_tc_vae:beta=-1", "greater than or equal to 0"),
        ("beta_tc_vae:estimator=mss", "no estimator of the aggregate posterior called 'mss'"),
        ("dip_vae:covariance=iii", "no covariance of inferred latents"),
        ("info_vae:alpha=1.5", "less than or equal to 1"),
        ("joint_vae:classes=1", "greater than or equal to 2"),
        ("factor_vae:gamma=-2", "greater than or equal to 0"),
    ],
)
def test_keywords_outside_their_range_are_refused(text, words):
    with pytest.raises(UsageError, match=words):
        parse(text)


def test_info_vae_and_mmd_vae_meet():
    schema, batch = toy_schema(Real()), toy_batch(Real())
    found = []
    for text in ("mmd_vae:latents=2,hidden=8,scaling=9.0", "info_vae:latents=2,hidden=8,scaling=9.0,alpha=1.0"):
        recipe = parse(text).cook(schema)
        torch.manual_seed(1)
        (move,) = recipe.play(recipe.parts, batch, Clock(0, 1))
        found.append(move.loss)
    assert torch.equal(*found)
    with pytest.raises(UsageError, match="reward a distance"):
        parse("info_vae:alpha=0.5,scaling=0.1").cook(schema)


@pytest.mark.slow
def test_some_hundred_steps_show_what_each_method_claims():
    """On digits, against a VAE of the same steps: less total correlation, smaller covariances, more information."""
    data = load("digits-dynamic")
    rows, steps = Rows(data.split("train"), data.schema), 600
    batches = Batches(rows.rows, 128, 0)

    def trained(text):
        recipe = parse(f"{text},latents=6,hidden=64").cook(data.schema)
        loop = Loop(recipe, 0, steps, torch.device("cpu"))
        for n in range(steps):
            loop.step(lambda n=n: rows.batch(batches.batch_index(n)))
        torch.manual_seed(0)
        with torch.no_grad():
            trace = recipe.model({"x": rows.batch(torch.arange(rows.rows))["x"]})
            c = latents(trace)
            parts = {n: p.mean().item() for n, p in decomposition(trace, stratified(rows.rows))._asdict().items()}
        return {**parts, "covariances": (c - c.diag().diag()).square().sum().item()}

    plain = trained("vae:warm_up=0.0")
    assert trained("beta_tc_vae:beta=10.0,estimator=weighted")["correlation"] < 0.5 * plain["correlation"]
    assert trained("beta_tc_vae:beta=10.0")["correlation"] < 0.9 * plain["correlation"]
    assert trained("factor_vae:gamma=10.0")["correlation"] < 0.6 * plain["correlation"]
    assert trained("dip_vae:off_diagonal=10.0")["covariances"] < 0.3 * plain["covariances"]
    assert trained("info_vae:alpha=0.5")["information"] > plain["information"] + 0.3
    assert trained("mmd_vae:scaling=50.0")["information"] > plain["information"] + 1.0
