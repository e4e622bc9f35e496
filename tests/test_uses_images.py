"""Uses on pictures against closed forms: in a linear-Gaussian model every law that they draw from is known."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, MultivariateNormal, Normal, OneHotCategorical

import vaestro
from linear_pictures import GAIN, LATENTS, NOISE, POSTERIOR, SHAPE, M, W, linear_run
from vaestro.errors import UsageError
from vaestro.families.binned import BinnedDistribution
from vaestro.families.logistic import LogisticDistribution
from vaestro.models import tempered
from vaestro.priors.mixtures import DiagonalMixture
from vaestro.testing import toy_schema
from vaestro.training.runs import Run
from vaestro.uses.complete import Completions, complete, diverse, nearest, padded
from vaestro.uses.denoise import denoise
from vaestro.uses.explain import explain, links, matched
from vaestro.uses.inference.noises import CORRUPTIONS, blurred, gaussian, heard, noise_of
from vaestro.uses.inference.posterior_draws import REFINEMENTS, Effort
from vaestro.uses.inference.spread import faded
from vaestro.uses.interpolate import PATHS, energy, interpolate
from vaestro.uses.traverse import traverse
from vaestro.uses.vary import vary

X = torch.tensor([0.8, -0.6, 1.1, 0.2, 0.0, 0.9]).reshape(1, *SHAPE)
COVARIANCE = W @ W.T + NOISE**2 * torch.eye(6)
SEEN = torch.tensor([1, 1, 0, 0, 1, 1]).bool()
MASK = SEEN.reshape(SHAPE)
N = 4000


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return linear_run(tmp_path_factory.mktemp("exact"))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same model with an encoder that is far too unsure."""
    return linear_run(tmp_path_factory.mktemp("wide"), 0.6)


def decode(z: torch.Tensor) -> torch.Tensor:
    return (z @ W.T + M).reshape(*z.shape[:-1], *SHAPE)


def centre(x: torch.Tensor) -> torch.Tensor:
    return (x.flatten(1) - M) @ GAIN.T


def near(draws: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor, effective: float) -> None:
    """Draws [n, d] have this mean and this variance, within five standard errors."""
    assert ((draws.mean(0) - mean).abs() < 5 * (variance / effective).sqrt() + 1e-6).all()
    assert ((draws.var(0) / variance - 1).abs() < 5 * math.sqrt(2 / effective)).all()


def test_no_noise_reconstructs_and_one_draws_the_posterior(run: Run) -> None:
    torch.testing.assert_close(vary(run, X, 3, 0.0), decode(centre(X)).expand(3, 1, *SHAPE), atol=1e-5, rtol=1e-5)
    for s in (0.5, 1.0):
        z_variance = POSTERIOR.diagonal() * s**2
        near(vary(run, X, N, s).flatten(1), decode(centre(X)).flatten(), W.square() @ z_variance, N)


@pytest.mark.parametrize("s", [1.5, 4.0])
def test_above_one_the_data_weigh_less(run: Run, s: float) -> None:
    """q^(1/s^2) p^(1 - 1/s^2), latent by latent: precisions 1/(s^2 v) + 1 - 1/s^2."""
    precision = 1 / (s**2 * POSTERIOR.diagonal()) + 1 - 1 / s**2
    mean = centre(X)[0] / (s**2 * POSTERIOR.diagonal()) / precision
    near(vary(run, X, N, s, seed=3).flatten(1), decode(mean).flatten(), W.square() @ (1 / precision), N)


@pytest.mark.parametrize("s", [math.inf, 1e4])
def test_endless_noise_is_the_prior(run: Run, s: float) -> None:
    near(vary(run, X, N, s).flatten(1), M, W.square().sum(1), N)


def test_fading_is_the_posterior_of_noisier_data() -> None:
    """Where q is p(z | x) of a Gaussian likelihood of noise v, q at s is that of noise s^2 v."""
    for s in (1.0, 2.0, 7.0):
        w, v, x = 1.7, 0.3, 0.8
        of = [Normal(torch.tensor(w * x / (w**2 + n)), torch.tensor(math.sqrt(n / (w**2 + n)))) for n in (v, s**2 * v)]
        law = faded(of[0], Normal(torch.tensor(0.0), torch.tensor(1.0)), s)
        assert law is not None
        torch.testing.assert_close(torch.stack([law.mean, law.stddev]), torch.stack([of[1].mean, of[1].stddev]))


def test_classes_fade_from_the_likeliest_to_the_prior() -> None:
    q, p = Categorical(probs=torch.tensor([0.5, 0.3, 0.2])), Categorical(probs=torch.tensor([0.1, 0.1, 0.8]))
    sharp, wide = faded(q, p, 0.5), faded(q, p, 2.0)
    assert sharp is not None and wide is not None
    torch.testing.assert_close(sharp.probs, q.probs**4 / (q.probs**4).sum())  # type: ignore[attr-defined]
    mixed = q.probs**0.25 * p.probs**0.75
    torch.testing.assert_close(wide.probs, mixed / mixed.sum())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "law",
    [
        Normal(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 3.0])),
        Independent(Normal(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 3.0])), 1),
        MultivariateNormal(torch.tensor([1.0, 2.0]), torch.tensor([[2.0, 0.5], [0.5, 1.0]])),
        DiagonalMixture(torch.zeros(1), torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 3.0]])),
    ],
)
def test_a_temperature_scales_the_spread_about_the_same_mean(law: Distribution) -> None:
    cold = tempered(law, 0.3)
    torch.testing.assert_close(cold.mean, law.mean)
    torch.testing.assert_close(cold.variance, 0.09 * law.variance)


def test_a_temperature_divides_logits_and_is_refused_where_it_has_no_meaning() -> None:
    logits = torch.tensor([0.0, 1.0, -2.0])
    torch.testing.assert_close(tempered(OneHotCategorical(logits=logits), 0.5).mean, (logits * 2).softmax(0))
    torch.testing.assert_close(tempered(Bernoulli(logits=logits), 2.0).mean, (logits / 2).sigmoid())
    with pytest.raises(UsageError, match="a temperature has no meaning for the law Dirichlet"):
        tempered(torch.distributions.Dirichlet(torch.ones(3)), 0.5)


def test_generated_rows_have_the_temperature(run: Run) -> None:
    near(vaestro.generate(run, N, temperature=0.4).flatten(1), M, 0.16 * W.square().sum(1), N)
    torch.testing.assert_close(vaestro.generate(run, 5, temperature=1.0), vaestro.generate(run, 5))
    near(vaestro.sample(run, N, temperature=2.0).flatten(1), M, 4 * W.square().sum(1) + NOISE**2, N)
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(UsageError, match="temperature"):
            vaestro.generate(run, 2, temperature=wrong)


def test_ways_end_at_the_reconstructions(run: Run) -> None:
    a, b = torch.cat([X, 2 * X]), torch.cat([-X, X.roll(1, -1)])
    back = [vary(run, x, 1, 0.0)[0] for x in (a, b)]
    for path in PATHS.values():
        way = interpolate(run, a, b, 5, path)
        assert way.shape == (5, 2, *SHAPE)
        torch.testing.assert_close(way[0], back[0], atol=1e-6, rtol=0)
        torch.testing.assert_close(way[-1], back[1], atol=1e-6, rtol=0)
    straight = interpolate(run, a, b, 5)
    torch.testing.assert_close(straight[2], (back[0] + back[1]) / 2, atol=1e-5, rtol=0)


def test_a_spherical_way_keeps_the_norm_and_turns_evenly() -> None:
    a, b = torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([[0.0, 3.0, 0.0]])
    way = PATHS["spherical"](a, b, 7, lambda z: z.sum(-1))
    torch.testing.assert_close(way.norm(dim=-1), torch.full((7, 1), 3.0))
    torch.testing.assert_close((way[:-1] * way[1:]).sum(-1) / 9, torch.full((6, 1), math.cos(math.pi / 12)))
    same = PATHS["spherical"](a, a, 3, lambda z: z.sum(-1))
    torch.testing.assert_close(same, a.expand(3, 1, 3))


def test_the_way_along_the_density_is_the_cheapest_there_is() -> None:
    """Against Dijkstra on a grid, for a prior with a valley between two points: it goes around, and costs no more than the grid's way."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import dijkstra

    ring = DiagonalMixture(
        torch.zeros(8), 2 * torch.stack([torch.tensor([math.cos(t), math.sin(t)]) for t in np.arange(8) * math.pi / 4]), torch.full((8, 2), 0.5)
    )
    a, b = torch.tensor([[-2.0, 0.2]]), torch.tensor([[2.0, 0.2]])
    way = PATHS["density"](a, b, 9, ring.log_prob)
    assert float(way[4, 0].norm()) > 1.5, "through the ring, not across the hole"

    def length(z: torch.Tensor) -> float:
        return float(((z[1:] - z[:-1]).norm(dim=-1) * (-ring.log_prob((z[1:] + z[:-1]) / 2) / 2).exp()).sum())

    fine = PATHS["density"](a, b, 401, ring.log_prob)[:, 0]
    side = np.arange(-3, 3.01, 0.1)
    points = torch.tensor(np.stack(np.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2), dtype=torch.float32)
    n, pairs = len(side), []
    for dx, dy in ((1, 0), (0, 1), (1, 1), (1, -1), (2, 1), (1, 2), (2, -1), (1, -2)):
        i, j = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
        ok = (i + dx < n) & (j + dy >= 0) & (j + dy < n)
        pairs.append(np.stack([(i * n + j)[ok], ((i + dx) * n + j + dy)[ok]]))
    s, t = np.concatenate(pairs, 1)
    cost = (points[s] - points[t]).norm(dim=-1) * (-ring.log_prob((points[s] + points[t]) / 2) / 2).exp()
    graph = coo_matrix((cost.numpy(), (s, t)), (n * n, n * n))
    start, stop = (int((points - end).norm(dim=-1).argmin()) for end in (a, b))
    best = dijkstra(graph, directed=False, indices=start)[stop]
    assert length(fine) < best * 1.02
    straight = torch.lerp(a, b, torch.linspace(0, 1, 401)[:, None])
    assert length(fine) < 0.5 * length(straight)
    assert float(energy(way, ring.log_prob, torch.zeros(1))) > 0


def test_a_traversal_moves_one_latent_at_a_time_over_the_prior(run: Run) -> None:
    found = traverse(run, X, steps=5)
    variance, mean = POSTERIOR.diagonal(), centre(X)[0]
    kl = (variance + mean.square() - 1 - variance.log()) / 2
    order = kl.argsort(descending=True)
    assert found.kl is not None and found.labels == tuple(f"z {i}" for i in order.tolist())
    torch.testing.assert_close(found.kl, kl[order], atol=1e-3, rtol=1e-3)
    assert (found.values[:, [0, -1]] - torch.tensor([-2.054, 2.054])).abs().max() < 0.25, "2 % and 98 % of N(0, 1)"
    for line, j in enumerate(order.tolist()):
        z = mean.expand(5, LATENTS).clone()
        z[:, j] = found.values[line]
        torch.testing.assert_close(found.pictures[line], decode(z), atol=1e-5, rtol=0)
    rows = torch.randn(200, *SHAPE)
    over = traverse(run, X, steps=2, most=1, rows=rows)
    codes = centre(rows)[:, int(over.labels[0][2:])].double()
    torch.testing.assert_close(over.values[0].double(), torch.quantile(codes, torch.tensor([0.02, 0.98]).double()), atol=1e-3, rtol=0)


def test_an_attribute_is_the_direction_that_made_it(run: Run) -> None:
    """Rows with the attribute have z shifted by d; the posterior shrinks it by GAIN W, and arithmetic adds just that."""
    z, e, d = torch.randn(3000, LATENTS), NOISE * torch.randn(3000, 6), torch.tensor([1.0, -2.0])
    without, having = (((s @ W.T) + M + e).reshape(-1, *SHAPE) for s in (z, z + d))
    direction = vaestro.attribute(run, having, without)
    torch.testing.assert_close(direction, GAIN @ W @ d, atol=1e-4, rtol=0)
    made = vaestro.arithmetic(run, X, direction, torch.tensor([0.0, 1.0, -2.0]))
    for i, s in enumerate((0.0, 1.0, -2.0)):
        torch.testing.assert_close(made[i], decode(centre(X) + s * GAIN @ W @ d), atol=1e-4, rtol=0)
    with pytest.raises(UsageError, match="direction of"):
        vaestro.arithmetic(run, X, torch.ones(3), torch.ones(1))


def test_an_explanation_has_the_exact_maps(run: Run) -> None:
    rows = torch.randn(400, *SHAPE)
    found = explain(run, rows)
    scale = centre(rows).std(0, correction=0)
    for latent in found.latents:
        j = int(latent.label[2:])
        torch.testing.assert_close(latent.map, (scale[j] * W[:, j].abs()).reshape(SHAPE), atol=1e-4, rtol=1e-3)
        assert latent.effect == pytest.approx(float(latent.map.mean()), rel=1e-4) and latent.links == () and latent.stability is None
    assert explain(run, rows[:1]).rows == 1


def test_links_are_mutual_information_with_an_interval_that_covers() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(4, size=3000)
    codes = np.stack([label + 0.01 * rng.normal(size=3000), rng.normal(size=3000)], 1)
    told, alone = (row[0] for row in links(codes, {"label": label}))
    assert told.nats == pytest.approx(math.log(4), abs=0.02) and told.entropy == pytest.approx(math.log(4), abs=0.01)
    assert alone.low == 0 and alone.nats < 0.01
    truth = math.log(2) + 0.2 * math.log(0.2) + 0.8 * math.log(0.8)  # of a bit that is wrong one time in five
    covered = 0
    for _ in range(40):
        bit = rng.integers(2, size=600)
        channel = np.where(rng.random(600) < 0.2, 1 - bit, bit)[:, None].astype(float)
        found = links(channel, {"bit": bit})[0][0]
        covered += found.low <= truth <= found.high
    assert covered >= 33, "95 % of 40 is 38, and fewer than 33 come once in a thousand"
    with pytest.raises(UsageError, match="2 rows or more"):
        links(codes[:1], {"label": label[:1]})


def test_matching_finds_turned_and_permuted_latents() -> None:
    codes = np.random.default_rng(1).normal(size=(500, 4))
    other = np.stack([-2 * codes[:, 2], codes[:, 0] + 7, codes[:, 3] * 0], 1)
    found = matched(codes, other)
    np.testing.assert_allclose(found[[0, 2]], 1.0, atol=1e-12)
    assert found[[1, 3]].max() < 0.15
    np.testing.assert_array_equal(matched(np.ones((5, 2)), codes[:5]), 0)


def test_stability_is_measured_over_runs(run: Run) -> None:
    rows = torch.randn(300, *SHAPE)
    same = explain([run, run, run], rows)
    assert same.runs == 3 and all(z.stability == pytest.approx((1.0, 1.0, 1.0)) for z in same.latents)


def conditional() -> tuple[torch.Tensor, torch.Tensor]:
    """The exact mean and covariance of what is not seen of X."""
    gain = COVARIANCE[~SEEN][:, SEEN] @ torch.linalg.inv(COVARIANCE[SEEN][:, SEEN])
    return M[~SEEN] + gain @ (X.flatten() - M)[SEEN], COVARIANCE[~SEEN][:, ~SEEN] - gain @ COVARIANCE[SEEN][:, ~SEEN]


@pytest.mark.parametrize("name", REFINEMENTS)
def test_completions_have_the_exact_conditional(wide: Run, name: str) -> None:
    holed = torch.where(MASK, X, math.nan)
    samples = 40_000 if name == "none" else 4
    moves = {"gibbs": 120, "langevin": 150, "hamiltonian": 24, "none": 0}[name]
    n = 1500
    found = complete(wide, holed, MASK, Effort(samples, n, moves), REFINEMENTS[name])
    assert torch.equal(found.rows[:, 0][:, MASK], X[0][MASK].expand(n, -1)) and torch.equal(found.mean[0][MASK], X[0][MASK])
    mean, covariance = conditional()
    near(found.rows[:, 0].flatten(1)[:, ~SEEN], mean, covariance.diagonal(), n if name != "none" else min(n, float(found.effective)))
    np.testing.assert_allclose(np.cov(found.rows[:, 0].flatten(1)[:, ~SEEN].T), covariance, atol=0.12)
    assert stats.kstest(found.rows[:, 0].flatten(1)[:, 2].numpy(), stats.norm(float(mean[0]), float(covariance[0, 0].sqrt())).cdf).pvalue > 1e-3
    assert math.isnan(found.accepted) if name == "none" else 0.05 < found.accepted <= 1


def test_too_few_samples_would_be_seen(wide: Run) -> None:
    """The proof can fail: with four importance samples and no moves the spread is far off."""
    found = complete(wide, X, MASK, Effort(4, 1500, 0), REFINEMENTS["none"])
    assert np.abs(np.cov(found.rows[:, 0].flatten(1)[:, ~SEEN].T) - conditional()[1].numpy()).max() > 0.12


def test_many_rows_with_masks_of_their_own(wide: Run) -> None:
    rows, masks = torch.randn(5, *SHAPE), torch.rand(5, *SHAPE) > 0.4
    masks[:, 0, 0, 0], masks[:, 0, 1, 2] = True, False
    found = complete(wide, rows, masks, Effort(32, 4, 3))
    assert found.rows.shape == found.means.shape == (4, 5, *SHAPE) and found.effective.shape == (5,)
    assert torch.equal(found.rows[:, masks], rows[masks].expand(4, -1))
    again = complete(wide, rows, masks, Effort(32, 4, 3))
    assert torch.equal(found.rows, again.rows)
    assert not torch.equal(found.rows, complete(wide, rows, masks, Effort(32, 4, 3), seed=1).rows)


def test_diverse_completions_have_the_shares_of_their_groups() -> None:
    means = torch.cat([torch.zeros(30, 1, 2) + 0.01 * torch.randn(30, 1, 2), torch.ones(10, 1, 2)])
    found = diverse(Completions(means, means, torch.ones(1), 1.0), 0, 2)
    assert found.probability.tolist() == [0.75, 0.25] and found.error[0] == pytest.approx(math.sqrt(0.75 * 0.25 / 40))
    torch.testing.assert_close(found.pictures.round(), torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    one = diverse(Completions(means[30:], means[30:], torch.ones(1), 1.0), 0, 6)
    assert one.probability.tolist() == [1.0] and padded([one, found], 3).shape == (3, 2, 2)
    with pytest.raises(UsageError, match="row 4"):
        diverse(Completions(means, means, torch.ones(1), 1.0), 4)


def test_holes_take_the_nearest_seen_numbers() -> None:
    x = torch.tensor([[1.0, 9.0, 9.0, 4.0]]).reshape(1, 1, 1, 4)
    assert nearest(x, torch.tensor([True, False, False, True]).reshape(1, 1, 1, 4)).flatten().tolist() == [1, 1, 4, 4]


@pytest.mark.parametrize("scale", [0.2, 1.0])
def test_denoising_is_the_posterior_mean(wide: Run, scale: float) -> None:
    found = denoise(wide, X, gaussian(scale), Effort(400, 800, 30))
    whole = COVARIANCE + scale**2 * torch.eye(6)
    mean = M + COVARIANCE @ torch.linalg.inv(whole) @ (X.flatten() - M)
    covariance = torch.linalg.inv(precision_of(scale))
    clean_by_z = W * scale**2 / (NOISE**2 + scale**2)
    spread = (clean_by_z @ covariance @ clean_by_z.T).diagonal()
    assert ((found.rows.flatten() - mean).abs() < 6 * (spread / 800).sqrt() + 1e-5).all()
    torch.testing.assert_close(found.spread.flatten(), spread.sqrt(), atol=0.01, rtol=0.15)


def precision_of(scale: float) -> torch.Tensor:
    """Of z given a noisy row."""
    return torch.eye(LATENTS) + W.T @ W / (NOISE**2 + scale**2)


def test_bits_in_gaussian_noise_are_enumerated() -> None:
    logits, noisy, scale = torch.tensor([-1.0, 0.3, 4.0]), torch.tensor([0.7, -0.2, 3.0]), 0.5
    each = blurred(Bernoulli(logits=logits), noisy, scale)
    p = logits.sigmoid()
    on, off = (Normal(v, scale).log_prob(noisy).exp() for v in (1.0, 0.0))
    torch.testing.assert_close(each.log_p, (p * on + (1 - p) * off).log())
    torch.testing.assert_close(each.clean, p * on / (p * on + (1 - p) * off))


@pytest.mark.parametrize("levels", [2, 5, 256])
@pytest.mark.parametrize("family", [Normal, LogisticDistribution])
def test_levels_in_gaussian_noise_are_those_of_all_levels(family: type, levels: int) -> None:
    """Against a sum over every level, for middles inside and far outside of [0, 1]."""
    law = BinnedDistribution(family(torch.tensor([0.3, 0.6, -0.5, 1.4]), torch.tensor([0.1, 0.05, 0.3, 0.2])), levels)
    noisy, scale = torch.tensor([0.5, 0.4, 0.3, 0.2]), 0.2
    values = (torch.arange(float(levels)) / (levels - 1))[:, None]
    joint = (law.log_prob(values.expand(levels, 4)) + Normal(values, scale).log_prob(noisy)).exp()
    each = blurred(law, noisy, scale)
    tight = 0.15 if family is Normal and levels == 5 else 6e-3 if levels == 256 else 1e-4  # a Gaussian's levels are taken as finely spaced
    torch.testing.assert_close(each.log_p, joint.sum(0).log(), atol=tight, rtol=0)
    torch.testing.assert_close(each.clean, (values * joint).sum(0) / joint.sum(0), atol=tight, rtol=0)


@pytest.mark.parametrize("name", ["salt_and_pepper", "masking"])
def test_replaced_numbers_are_told_by_chance(name: str) -> None:
    law = Independent(BinnedDistribution(Normal(torch.full((5,), 0.4), torch.full((5,), 0.3)), 4), 1)
    noise = CORRUPTIONS[name](0.2)
    values = [0.0, 1.0] if name == "salt_and_pepper" else [0.0]
    levels = torch.arange(4.0) / 3
    p = law.base_dist.log_prob(levels[:, None].expand(4, 5))[:, 0].exp()
    noisy = torch.tensor([0.0, 1 / 3, 2 / 3, 1.0, 0.0])
    table = 0.8 * torch.eye(4) + 0.2 * torch.stack([sum((levels == v).float() for v in values)] * 4) / len(values)  # type: ignore[arg-type]
    each = heard(law, noise, noisy)
    where = (noisy * 3).round().long()
    marginal = (p[:, None] * table).sum(0)
    torch.testing.assert_close(each.log_p, marginal[where].log().sum(), atol=1e-4, rtol=0)
    torch.testing.assert_close(each.clean, ((levels * p)[:, None] * table).sum(0)[where] / marginal[where], atol=1e-3, rtol=0)
    spoilt = noise.spoil(torch.full((20_000,), 1 / 3))
    assert float((spoilt != 1 / 3).float().mean()) == pytest.approx(0.2, abs=0.015)


def test_under_a_density_an_end_value_was_replaced() -> None:
    each = CORRUPTIONS["salt_and_pepper"](0.1).through(Normal(torch.tensor([0.5]), torch.tensor([0.2])), torch.tensor([1.0]))
    assert float(each.clean) == pytest.approx(0.5) and float(each.log_p) == pytest.approx(math.log(0.05))


@pytest.mark.parametrize(
    ("text", "says"), [("gausian=0.3", "did you mean gaussian"), ("gaussian", "no strength"), ("gaussian=0", "positive"), ("masking=1", "share")]
)
def test_noises_that_are_none_are_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        noise_of(text)


def test_what_cannot_be_is_refused_in_words(run: Run) -> None:
    for wrong, says in [
        (lambda: vary(run, X, 0), "whole number"),
        (lambda: vary(run, X, 2, -1.0), "no scale"),
        (lambda: vary(run, X, 2, math.nan), "no scale"),
        (lambda: vary(run, X[:, :, :1], 2), "takes"),
        (lambda: vary(run, X * math.nan, 2), "NaN"),
        (lambda: interpolate(run, X, X, 1), "steps=2"),
        (lambda: interpolate(run, X, torch.cat([X, X])), "as many ends"),
        (lambda: traverse(run, X, steps=0), "1 or more"),
        (lambda: complete(run, X, MASK[0]), "mask is shaped"),
        (lambda: complete(run, X, torch.ones_like(MASK)), "nothing to complete"),
        (lambda: complete(run, X, torch.zeros_like(MASK)), "hides all"),
        (lambda: complete(run, X, MASK, Effort(0)), "samples is 0"),
        (lambda: denoise(run, X, gaussian(0.1), refine=REFINEMENTS["gibbs"]), "holes alone"),
        (lambda: explain([], X), "needs a run"),
    ]:  # fmt: skip
        with pytest.raises(UsageError, match=says):
            wrong()


def bare(run: Run, call: str, latents: str = "latents=3") -> Run:
    """The run with an untrained model of another recipe in its place."""
    from vaestro.recipes import parse

    recipe = parse(f"{call}:{latents}" if latents else call).cook(run.schema, 1)
    recipe.parts.eval()
    return replace(run, recipe=recipe, about={**run.about, "call": call})


def test_models_that_cannot_say_so(tmp_path: Path) -> None:
    from vaestro.data.schema import Binary

    run = replace(linear_run(tmp_path), schema=toy_schema(Binary(), (1, 4, 3)))
    x = torch.rand(2, 1, 4, 3).round()
    mask = torch.ones(1, 4, 3, dtype=torch.bool)
    mask[0, 0] = False
    few = Effort(8, 3, 2)
    for call, latents, wrong, says in [
        ("gan", "latents=3", lambda r: vary(r, x), "no posterior"),
        ("ae", "latents=3", lambda r: complete(r, x, mask, few), "no density"),
        ("ae", "latents=3", lambda r: denoise(r, x, gaussian(0.2), few), "no density"),
        ("pixel_vae", "latents=3", lambda r: complete(r, x, mask, few), "whole pictures only"),
        ("pixel_vae", "latents=3", lambda r: denoise(r, x, gaussian(0.2), few), "independently"),
        ("vq_vae", "", lambda r: interpolate(r, x, x), "classes or codes"),
        ("hyperspherical", "latents=3", lambda r: traverse(r, x), "no vectors of any real"),
        ("hyperspherical", "latents=3", lambda r: vary(r, x, 2, 0.5), "no law between"),
        ("hyperspherical", "latents=3", lambda r: complete(r, x, mask, few), "fill no space"),
    ]:
        with pytest.raises(UsageError, match=says):
            wrong(bare(run, call, latents))


@pytest.mark.parametrize(
    "call", ["top_down", "bottom_up", "ladder_vae", "vamp", "iaf", "m2:labels=4", "categorical_vae", "full_covariance", "flow_prior", "joint_vae"]
)
def test_many_recipes_can(tmp_path: Path, call: str) -> None:
    """Several sites, mixtures and flows: no noise reconstructs, ends meet, seen numbers stay."""
    from vaestro.data.schema import Binary

    run = bare(replace(linear_run(tmp_path), schema=toy_schema(Binary(), (1, 4, 3))), call, "")
    x = torch.rand(2, 1, 4, 3).round()
    mask = torch.rand(1, 4, 3) > 0.3
    mask[0, 0, 0], mask[0, 3, 2] = True, False
    assert vary(run, x, 3, 1.0).shape == (3, 2, 1, 4, 3) and vary(run, x, 2, math.inf).isfinite().all()
    done = complete(run, x, mask, Effort(16, 4, 2), REFINEMENTS["none"])
    assert torch.equal(done.rows[:, :, mask], x[:, mask].expand(4, -1, -1)) and done.means.isfinite().all()


def test_a_model_that_is_told_something_is_told_it(tmp_path: Path) -> None:
    from vaestro.data.schema import Binary

    run = bare(replace(linear_run(tmp_path), schema=toy_schema(Binary(), (1, 4, 3))), "cvae", "")
    x, few, told = torch.rand(9, 1, 4, 3).round(), Effort(8, 3, 2), {"label": [0, 1, 0, 1, 0, 1, 0, 1, 0]}
    mask = torch.rand(1, 4, 3) > 0.4
    mask[0, 0, 0], mask[0, 3, 2] = True, False
    done = complete(run, x, mask, few, given=told)
    assert done.means.isfinite().all() and denoise(run, x, gaussian(0.3), few, given=told).rows.isfinite().all()
    assert not torch.equal(done.means, complete(run, x, mask, few, given={"label": 1}).means)
    with pytest.raises(UsageError, match="is told 'label'"):
        complete(run, x, mask, few)
    first, other = (traverse(run, x, 3, 99, given={"label": labels}) for labels in (told["label"], [0, *[1] * 8]))  # the first row's class is what counts
    order = [first.labels.index(name) for name in other.labels]
    torch.testing.assert_close(first.pictures[order], other.pictures)


def test_rows_too_far_to_be_cleaned_are_named(tmp_path: Path) -> None:
    from vaestro.data.schema import Integer

    run = bare(replace(linear_run(tmp_path), schema=toy_schema(Integer(17), (1, 4, 3))), "vae", "latents=3")
    x = torch.rand(3, 1, 4, 3)
    x[1] *= 1e20
    with pytest.raises(UsageError, match="row 1 is so far from all that the model knows that its clean version is no number"):
        denoise(run, x, gaussian(0.1), Effort(8, 3, 2), REFINEMENTS["none"])


def test_rows_in_parts_are_told_their_own_conditions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vaestro.data.schema import Binary
    from vaestro.uses import complete as completing
    from vaestro.uses import denoise as denoising

    run = bare(replace(linear_run(tmp_path), schema=toy_schema(Binary(), (1, 4, 3))), "cvae", "")
    monkeypatch.setattr(denoising, "AT_ONCE", 100)
    heard = {denoising: [], completing: []}
    for module, name in ((denoising, "_denoised"), (completing, "_completed")):
        whole, at = getattr(module, name), {denoising: 3, completing: 2}[module]
        monkeypatch.setattr(module, name, lambda *a, whole=whole, at=at, module=module: heard[module].append(a[at]["label"].tolist()) or whole(*a))
    x, few, told = torch.rand(5, 1, 4, 3).round(), Effort(4, 2, 2), {"label": [0, 1, 0, 1, 1]}
    denoise(run, x, gaussian(0.3), few, given=told)
    complete(run, x, torch.arange(12).reshape(1, 4, 3) % 2 == 0, few, given=told)
    assert all(len(parts) > 1 and sum(parts, []) == told["label"] for parts in heard.values())  # noqa: RUF017 (two short lists)


def test_completion_takes_arrays_and_refuses_what_is_no_mask(run: Run) -> None:
    few = Effort(16, 4, 2)
    same = [complete(run, rows, mask, few).rows for rows, mask in ((X, MASK), (X.numpy(), MASK.numpy()), (X.double(), MASK))]
    assert torch.equal(same[0], same[1]) and torch.equal(same[0], same[2])
    for rows, mask, says in ((X.flatten(1), MASK, "rows shaped"), (X[..., :2], MASK, "rows shaped"), (X, MASK.to(torch.uint8), "give booleans")):
        with pytest.raises(UsageError, match=says):
            complete(run, rows, mask, few)


def test_a_model_of_another_precision_takes_the_rows(run: Run) -> None:
    from copy import deepcopy

    exact = replace(run, recipe=replace(run.recipe, parts=deepcopy(run.recipe.parts).double()))
    torch.testing.assert_close(vary(exact, X, 2, 0.0).float(), vary(run, X, 2, 0.0))
    found = complete(exact, X, MASK, Effort(16, 4, 3))
    assert torch.equal(found.rows[..., MASK].float(), X[..., MASK].expand(4, 1, -1))
