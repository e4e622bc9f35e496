"""The classical rows: exact where they say so, laws that sum to one, against scikit-learn, scipy and brute force; and runs without steps."""

import itertools
import math
import zlib

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity, NearestNeighbors

import vaestro
from vaestro.core import Seen
from vaestro.data.schema import Binary, Field, Integer, Real, Schema
from vaestro.errors import UsageError, VaestroError
from vaestro.models.classical import CodeLength, Near, factors, png_coder, principal, zlib_coder
from vaestro.models.classical.common import log_total
from vaestro.models.classical.direct import Coder
from vaestro.recipes import parse
from vaestro.uses.cluster import clusters
from vaestro.uses.evaluate import Protocol
from vaestro.uses.rows.lots import Wish

DENSE = ("ppca:latents=2", "factor_analysis:latents=2", "mixture:components=3", "k_means:components=3", "kernel_density:rows=20", "marginals")


def fitted(call, rows, kind=None, held=None):
    """The model of a call, fitted to rows of a kind (real numbers unless told), in float64."""
    schema = Schema("toy", (Field("x", kind or Real(), tuple(rows.shape[1:])),), {"train": len(rows)})
    recipe = parse(call).cook(schema)
    recipe.parts.double().eval()
    torch.manual_seed(0)
    recipe.fit(recipe.parts, rows, rows if held is None else held)
    return recipe.model


def correlated(n=400, d=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    w = torch.randn(d, 2, generator=g, dtype=torch.float64)
    noise = torch.linspace(0.3, 0.9, d, dtype=torch.float64)
    return torch.randn(n, 2, generator=g, dtype=torch.float64) @ w.T + torch.randn(n, d, generator=g, dtype=torch.float64) * noise + 3


def every(levels, d):
    """All rows of d levels, in unit values."""
    return torch.tensor(list(itertools.product(range(levels), repeat=d)), dtype=torch.float64) / (levels - 1)


@torch.no_grad()
def log_p(model, x, k=3):
    """log p(x, z) - log q(z | x) of k draws, [k, b]."""
    torch.manual_seed(1)
    return model({"x": x}, k).log_w


def covariance(model):
    return (model.loadings @ model.loadings.T + torch.diag(model.scale.square())).detach().numpy()


def test_principal_components_are_those_of_scikit_learn_and_the_likelihood_is_exact():
    x = correlated()
    model = fitted("ppca:latents=2", x)
    theirs = PCA(2).fit(x.numpy())
    np.testing.assert_allclose(covariance(model), theirs.get_covariance() * (len(x) - 1) / len(x), atol=1e-4)
    exact = multivariate_normal(x.mean(0).numpy(), covariance(model)).logpdf(x[:9].numpy())
    np.testing.assert_allclose(log_p(model, x[:9]), np.tile(exact, (3, 1)), atol=1e-8)


def test_fewer_rows_than_numbers_give_the_same_components():
    x = correlated(5, 8)
    x = x - x.mean(0)
    w, psi = principal(x, 2)
    values, vectors = np.linalg.eigh((x.T @ x / len(x)).numpy())
    rest = values[:-2].mean()
    np.testing.assert_allclose(psi, rest, atol=1e-10)
    np.testing.assert_allclose(w @ w.T, vectors[:, -2:] * (values[-2:] - rest) @ vectors[:, -2:].T, atol=1e-10)


def test_factor_analysis_reaches_the_likelihood_of_scikit_learn():
    x = correlated(600)
    model = fitted("factor_analysis:latents=2", x)
    theirs = FactorAnalysis(2, svd_method="lapack", tol=1e-10, max_iter=5000).fit(x.numpy())
    exact = multivariate_normal(x.mean(0).numpy(), covariance(model)).logpdf(x.numpy())
    assert exact.mean() == pytest.approx(theirs.score(x.numpy()), abs=1e-3)
    np.testing.assert_allclose(log_p(model, x[:9], 1)[0], exact[:9], atol=1e-8)
    np.testing.assert_allclose(covariance(model), theirs.get_covariance(), atol=0.03)


def test_wide_rows_and_tall_ones_give_the_same_factors():
    x = correlated(40, 6) - correlated(40, 6).mean(0)
    wide = torch.cat([x, torch.zeros(40, 60)], 1).double() + 0.1 * torch.randn(40, 66, generator=torch.Generator().manual_seed(0)).double()
    assert all(bool(t.isfinite().all()) for t in factors(wide - wide.mean(0), 3))


@pytest.mark.parametrize("call", ["ppca:latents=2", "factor_analysis:latents=2"])
def test_what_was_not_seen_is_integrated_out(call):
    x, model = correlated(), None
    model = fitted(call, x)
    mask = torch.rand(7, 6, generator=torch.Generator().manual_seed(0)) < 0.6
    found = log_p(model, Seen(torch.where(mask, x[:7], torch.nan), mask))
    mean, cov = model.mean.detach().numpy(), covariance(model)
    for row in range(7):
        kept = mask[row].numpy()
        exact = multivariate_normal(mean[kept], cov[np.ix_(kept, kept)]).logpdf(x[row].numpy()[kept]) if kept.any() else 0.0
        np.testing.assert_allclose(found[:, row], exact, atol=1e-8)


@pytest.mark.parametrize("kind", [Binary(), Integer(4)])
def test_linear_models_of_levels_are_masses_of_boxes(kind):
    levels = kind.levels
    torch.manual_seed(0)
    rows = every(levels, 3)[torch.randint(levels**3, (60,))]
    model = fitted("ppca:latents=1", rows, kind)
    z = torch.linspace(-8, 8, 1001, dtype=torch.float64)
    weight = torch.from_numpy(norm.pdf(z.numpy())) * (z[1] - z[0])
    with torch.no_grad():
        grid = model.likelihood(z.unsqueeze(1).unsqueeze(1)).log_prob(every(levels, 3))  # [z, x]
    exact = (grid.exp() * weight[:, None]).sum(0)
    assert float(exact.sum()) == pytest.approx(1, abs=1e-6)
    estimate = log_p(model, every(levels, 3), 5000).logsumexp(0) - math.log(5000)
    torch.testing.assert_close(estimate, exact.log(), atol=0.1, rtol=0)


@pytest.mark.parametrize("call", ["mixture:components=3", "kernel_density:rows=20", "marginals"])
@pytest.mark.parametrize("kind", [Binary(), Integer(4)])
def test_masses_sum_to_one(call, kind):
    torch.manual_seed(0)
    grid = every(kind.levels, 4)
    rows = grid[torch.randint(len(grid), (40,))]
    model = fitted(call, rows, kind)
    found = log_p(model, grid)
    assert float(found[0].exp().sum()) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(found[0], found[1])  # whatever was drawn
    mask = torch.tensor([[True, False, True, False]]).expand(kind.levels**2, -1)
    part = every(kind.levels, 2)
    some = log_p(model, Seen(torch.stack([part[:, 0], part[:, 0] * torch.nan, part[:, 1], part[:, 0] * torch.nan], 1), mask))[0]
    assert float(some.exp().sum()) == pytest.approx(1, abs=1e-6)


def test_k_means_bounds_the_mixture_of_its_clusters_and_reconstructs_by_the_nearest():
    x = torch.cat([torch.randn(50, 2, dtype=torch.float64) * 0.1 + c for c in (0, 5, 9)])
    model = fitted("k_means:components=3", x)
    means = model.loc.detach()
    assert sorted(means[:, 0].round().tolist()) == [0, 5, 9]
    each = torch.from_numpy(norm.logpdf(x[:, None].numpy(), means.numpy(), model.noise.detach().numpy())).sum(2) + model.prior.logits.log_softmax(0).detach()
    near = torch.cdist(x, means).argmin(1)
    torch.testing.assert_close(log_p(model, x)[0], each.gather(1, near[:, None])[:, 0], atol=1e-6, rtol=0)
    assert bool((log_p(model, x)[0] <= each.logsumexp(1) + 1e-9).all())


def test_a_gaussian_mixture_scores_as_scikit_learn_does():
    x = torch.cat([torch.randn(100, 3, dtype=torch.float64) * s + c for s, c in ((0.3, 0), (1.0, 6))])
    model = fitted("mixture:components=2", x)
    theirs = GaussianMixture(2, covariance_type="diag", random_state=0).fit(x.numpy())
    np.testing.assert_allclose(log_p(model, x)[0], theirs.score_samples(x.numpy()), atol=0.02)


def test_a_mixture_of_bernoullis_finds_what_it_was_drawn_from():
    torch.manual_seed(0)
    p = torch.tensor([[0.9] * 8 + [0.1] * 8, [0.1] * 8 + [0.9] * 8])
    rows = torch.bernoulli(p[torch.arange(400) % 2]).double()
    model = fitted("mixture:components=2", rows, Binary())
    found = model.loc.sigmoid().detach()
    torch.testing.assert_close(found[found[:, 0].argsort(descending=True)], p.double(), atol=0.08, rtol=0)
    truth = torch.distributions.Bernoulli(p.double())
    exact = (truth.log_prob(rows[:, None]).sum(2)).logsumexp(1) - math.log(2)
    assert float((log_p(model, rows)[0] - exact).mean()) == pytest.approx(0, abs=0.1)


def test_mixtures_of_rows_say_which_component_a_row_is_of(tmp_path):
    run = vaestro.train("mixture:components=4", "digits-dynamic", seconds=30, out=tmp_path / "mixture")
    x = torch.rand(9, 1, 8, 8).round()
    found = vaestro.cluster(run, x)
    each = torch.eye(4)
    with torch.no_grad():
        joint = run.model.component(each).log_prob(x.unsqueeze(1)) + run.model.prior.logits.log_softmax(0)
    torch.testing.assert_close(found, joint.softmax(1), rtol=1e-3, atol=1e-5)
    assert torch.equal(found, vaestro.cluster(run, x, draws=1, seed=5)), "nothing is drawn"
    assert torch.equal(found, vaestro.cluster(run, x.double().numpy()))
    with pytest.raises(UsageError, match=r"rows shaped \(9, 64\)"):
        vaestro.cluster(run, x.flatten(1))
    hard = vaestro.train("k_means:components=4", "digits-dynamic", seconds=30, out=tmp_path / "k_means")
    gap = (x.flatten(1)[:, None] - hard.model.loc.sigmoid()).square().sum(2)
    assert torch.equal(vaestro.cluster(hard, x).argmax(1), gap.argmin(1)) and (vaestro.cluster(hard, x).amax(1) == 1).all()
    told = clusters(run, wish=Wish("test", 50))
    assert told.by == "prior" and told.number == 4 and len(told.cluster) == 50 and "nmi" in told.agreement


def test_kernels_on_real_numbers_are_those_of_scikit_learn():
    x, held = correlated(60, 3), correlated(40, 3, 1)
    model = fitted("kernel_density:rows=60", x, held=held)
    widths = np.linspace(0.05, 3, 60)
    best = max(widths, key=lambda w: KernelDensity(bandwidth=w).fit(x.numpy()).score(held.numpy()))
    assert float(model.width) == pytest.approx(best, rel=0.3)
    theirs = KernelDensity(bandwidth=float(model.width)).fit(x.numpy())
    np.testing.assert_allclose(log_p(model, held)[0], theirs.score_samples(held.numpy()), atol=1e-6)


def test_near_draws_what_it_says_and_its_mean_is_exact():
    loc, width = torch.tensor([0.0, 0.5, 0.9]).double(), torch.tensor(0.2).double()
    dist = Near(loc, width, 5, log_total(loc, width, 5))
    masses = torch.stack([dist.log_prob(torch.full((3,), v / 4).double()) for v in range(5)]).exp()
    torch.testing.assert_close(masses.sum(0), torch.ones(3).double())
    torch.testing.assert_close(dist.mean, (masses * torch.arange(5)[:, None] / 4).sum(0))
    torch.manual_seed(0)
    drawn = dist.sample((20_000,))
    for v in range(5):
        torch.testing.assert_close((drawn - v / 4).abs().lt(1e-6).double().mean(0), masses[v], atol=0.015, rtol=0)


def test_the_copier_hands_out_training_rows_and_the_nearest_of_them():
    x, other = correlated(30, 4), correlated(9, 4, 1)
    model = fitted("copier:rows=30", x)
    torch.manual_seed(0)
    made = model.generate(50)["x"].value
    assert bool((made[:, None] == x).all(-1).any(1).all())
    _, index = NearestNeighbors(n_neighbors=1).fit(x.numpy()).kneighbors(other.numpy())
    torch.testing.assert_close(model({"x": other})["x"].prior.mean[0], x[index[:, 0]])
    assert not model({"x": other}).normalised


def test_independent_numbers_are_counted():
    rows = torch.tensor([[0, 1], [0, 1], [1, 1], [0, 0.5]]).double()
    model = fitted("marginals", rows, Integer(3))
    shares = torch.tensor([[4, 1, 2], [1, 2, 4]]).double() / 7
    torch.testing.assert_close(log_p(model, torch.tensor([[0.5, 0.0]]).double())[0], shares[0, 1].log()[None] + shares[1, 0].log())
    assert log_p(model, rows).shape == (3, 4)


@pytest.mark.parametrize("coding", [zlib_coder, png_coder])
def test_code_lengths_are_verified_and_sum_to_no_more_than_one(coding):
    field = Field("x", Binary(), (1, 3, 3))
    law = CodeLength(coding(field), field.kind, field.shape)
    found = law.log_prob(every(2, 9).reshape(-1, 1, 3, 3))
    assert bool(found.isfinite().all()) and float(found.exp().sum()) <= 1
    with pytest.raises(UsageError, match="makes no rows"):
        law.sample()


@pytest.mark.parametrize(("coding", "kind", "shape"), [
    (zlib_coder, Integer(1000), (7,)), (zlib_coder, Integer(100_000), (7,)), (zlib_coder, Integer(17), (1, 8, 8)), (zlib_coder, Binary(), ()),
    (png_coder, Integer(17), (1, 8, 8)), (png_coder, Integer(256), (3, 5, 7)), (png_coder, Binary(), (3, 5, 7)), (png_coder, Integer(4), (2, 5, 7)),
])  # fmt: skip
def test_files_come_back(coding, kind, shape):
    field = Field("x", kind, shape)
    coder, row = coding(field), np.asarray(np.random.default_rng(0).integers(kind.levels, size=shape))
    assert np.array_equal(coder.decode(coder.encode(row)), row)
    length = float(CodeLength(coder, kind, shape).log_prob(torch.from_numpy(np.asarray(row / (kind.levels - 1)))[None])[0])
    assert length == pytest.approx(-8 * math.log(2) * len(coder.encode(row)), rel=1e-6)


def test_lengths_are_those_of_the_library_and_a_coder_that_loses_is_caught():
    row = np.arange(64).reshape(1, 8, 8) % 17
    assert zlib_coder(Field("x", Integer(17), (1, 8, 8))).encode(row) == zlib.compress(row.astype(np.uint8).tobytes(), 9)
    lossy = CodeLength(Coder("lossy", lambda r: b"", lambda b: np.zeros((2,), np.int64)), Binary(), (2,))
    with pytest.raises(VaestroError, match="did not decode"):
        lossy.log_prob(torch.ones(1, 2))
    with pytest.raises(VaestroError, match="outside of the levels"):
        lossy.log_prob(torch.full((1, 2), 2.0))
    for field in (Field("x", Integer(1000), (1, 4, 4)), Field("x", Binary(), (4,))):
        with pytest.raises(UsageError, match="use zlib"):
            png_coder(field)


@pytest.mark.parametrize("call", DENSE)
@pytest.mark.parametrize("rows", [
    np.full((1, 5), 3.0, np.float32), np.full((20, 5), 3.0, np.float32), np.tile(np.array([[1e6, -1e6, 0, 1, 2]], np.float32), (20, 1)),
], ids=["one row", "constant", "huge"])  # fmt: skip
def test_odd_rows_are_fitted_with_finite_numbers(call, rows):
    model = fitted(call, torch.from_numpy(rows).double())
    assert bool(log_p(model, torch.from_numpy(rows).double()).isfinite().all())


def test_more_latents_than_numbers_are_refused():
    with pytest.raises(UsageError, match="choose latents below 6"):
        fitted("ppca:latents=6", correlated())


@pytest.mark.parametrize("call", [*DENSE, "copier:rows=20", "png", "zlib"])
def test_a_run_without_steps_is_a_run(call, tmp_path):
    run = vaestro.train(call, "digits-dynamic", steps=5, out=tmp_path / "run", seed=1)
    assert run.about["status"] == "done" and run.about["done_steps"] == run.about["steps"] == 0
    assert "at once" in run.about["ended"] and run.about["seconds"] >= 0 and math.isfinite(run.about["validation"])
    assert [line["step"] for line in run.log()] == [0]
    again = vaestro.open_run(tmp_path / "run")
    scores = [vaestro.evaluate(r, Protocol(rows=20, samples=5)).scores for r in (run, again)]
    assert scores[0] == scores[1]
    with pytest.raises(UsageError, match="is finished"):
        vaestro.resume(tmp_path / "run")
    same = vaestro.train(call, "digits-dynamic", steps=5, out=tmp_path / "same", seed=1)
    assert same.about["weights_sha256"] == run.about["weights_sha256"]


def test_a_fit_that_takes_longer_than_it_may_is_refused(tmp_path):
    with pytest.raises(VaestroError, match="the fit took"):
        vaestro.train("mixture", "digits-dynamic", seconds=1e-4, out=tmp_path / "run")
