"""The priors of the zoo against brute force: mixtures written out, integrals, conditionals, and what training and sampling share."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal, kl_divergence

import vaestro
from vaestro.conditional import Conditional
from vaestro.core import Model, prepare
from vaestro.data.rows import Rows
from vaestro.data.schema import Binary, Field, Real
from vaestro.errors import UsageError
from vaestro.families import Bernoulli, Gaussian
from vaestro.models import ExemplarVAE
from vaestro.networks import mlp
from vaestro.plays import Clock, pretrained
from vaestro.plays.pretraining import follow, spread_out
from vaestro.priors import PRIORS, Autoregressive, DiagonalMixture, Exemplar, FullMixture, GaussianMixture, LeaveOneOut, Vamp, responsibilities
from vaestro.priors.fitted import Reshaped
from vaestro.priors.mixtures import COVARIANCES, Covariance
from vaestro.recipes import parse
from vaestro.testing import toy_batch, toy_schema
from vaestro.training.loop import Loop

LEARNT = ("vamp", "gmm_prior", "exemplar", "flow_prior", "maf_prior", "spline_prior", "autoregressive_prior", "vade")
TINY = {"vamp": "components=5,", "exemplar": "exemplars=5,", "maf_prior": "layers=2,", "spline_prior": "bins=3,"}


def posterior(latents: int = 3) -> Conditional:
    return Conditional(mlp((1, 2, 2), (2 * latents,), (5,)), Gaussian()).double()


def rows(n: int) -> Tensor:
    return (torch.rand(n, 1, 2, 2) > 0.5).double()


def gaussian(z: Tensor, loc: Tensor, scale: float) -> Tensor:
    """log N(z; loc, scale^2 I), written out."""
    d = z.shape[-1]
    return -((z - loc) ** 2).sum(-1) / (2 * scale**2) - d * math.log(scale) - d * math.log(2 * math.pi) / 2


def test_the_exemplar_prior_is_the_mixture_over_its_rows() -> None:
    q, x, z = posterior(), rows(6), torch.randn(4, 2, 3, dtype=torch.float64)
    prior = Exemplar(q, x).double()
    with torch.no_grad():
        prior.log_scale.fill_(math.log(0.7))
    each = torch.stack([gaussian(z, q(row).mean, 0.7 + 1e-4) for row in x])
    torch.testing.assert_close(prior().log_prob(z), each.logsumexp(0) - math.log(6))


def test_in_training_a_row_is_not_its_own_exemplar() -> None:
    q, x = posterior(), rows(5)
    prior = Exemplar(q, x).double()
    z = torch.randn(7, 5, 3, dtype=torch.float64)
    found = prior(q(x))
    assert isinstance(found, LeaveOneOut) and found.batch_shape == (5,)
    scale, means = float(prior.scale.detach()), q(x).mean
    for i in range(5):
        each = torch.stack([gaussian(z[:, i], means[j], scale) for j in range(5) if j != i])
        torch.testing.assert_close(found.log_prob(z)[:, i], each.logsumexp(0) - math.log(4))
    means = means.detach().requires_grad_()
    (reach,) = torch.autograd.grad(LeaveOneOut(means, prior.scale).log_prob(z)[:, 2].sum(), means)
    assert bool((reach[2].abs() < 1e-12).all()) and bool((reach[[0, 1, 3, 4]].abs().sum(1) > 1e-6).all())


def test_leave_one_out_samples_come_from_the_others() -> None:
    loc = torch.arange(4.0).unsqueeze(1) * 100
    z = LeaveOneOut(loc, torch.tensor(0.1)).sample(torch.Size((500,)))
    from_row = (z.squeeze(-1) / 100).round().long()
    assert z.shape == (500, 4, 1)
    assert all(set(from_row[:, i].tolist()) == {0, 1, 2, 3} - {i} for i in range(4))


def test_leave_one_out_is_exact_far_from_the_origin_in_float32() -> None:
    loc = torch.randn(6, 4, dtype=torch.float64) * 1e-2 + 50
    z, scale = loc + 1e-3, torch.tensor(1e-2)
    single = LeaveOneOut(loc.float(), scale).log_prob(z.float())
    double = LeaveOneOut(loc.float().double(), scale.double()).log_prob(z.float().double())
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-4)


def test_an_exemplar_vae_learns_from_the_batch_and_scores_from_what_it_saved() -> None:
    model = parse("exemplar:exemplars=4,latents=3,hidden=8").cook(toy_schema(Binary())).model
    assert isinstance(model, ExemplarVAE)
    batch = toy_batch(Binary(), 6)
    assert model.train()(batch)["z"].prior.batch_shape == (6,)
    assert model({"x": batch["x"][:1]})["z"].prior.batch_shape == ()  # one row has no others
    assert model.eval()(batch)["z"].prior.batch_shape == ()
    assert model.generate(5)["z"].value.shape == (5, 3)


def test_exemplars_are_taken_from_the_data_and_saved() -> None:
    q = posterior()
    prior = Exemplar(q, rows(5)).double()
    data = torch.arange(40.0, dtype=torch.float64).reshape(10, 1, 2, 2)
    prepare(prior, {"x": data})
    assert {tuple(r.flatten().tolist()) for r in prior.rows} <= {tuple(r.flatten().tolist()) for r in data}
    assert prior.rows.flatten(1).unique(dim=0).shape[0] == 5
    assert sorted(prior.state_dict()) == ["log_scale", "rows"]  # the posterior's weights are the model's
    prepare(prior, {"x": data[:2]})
    assert prior.rows.shape == (5, 1, 2, 2)


def test_a_vamp_prior_of_fixed_scale_is_an_exemplar_prior_on_its_pseudo_inputs() -> None:
    q, pseudo = posterior(), rows(6)
    prior, z = Exemplar(q, pseudo).double(), torch.randn(9, 3, dtype=torch.float64)

    class Fixed(torch.nn.Module):
        """The same posterior with the exemplars' one scale."""

        def forward(self, x: Tensor) -> Independent:
            loc = q(x).mean
            return Independent(Normal(loc, prior.scale.expand_as(loc)), 1)

    torch.testing.assert_close(Vamp(Fixed(), pseudo)().log_prob(z), prior().log_prob(z))


def test_autoregressive_density_is_the_product_of_its_conditionals() -> None:
    torch.manual_seed(0)
    prior = Autoregressive(3, 2, (8,)).double()
    with torch.no_grad():
        for p in prior.parameters():
            p.add_(0.3 * torch.randn_like(p))
    dist, z = prior(), torch.randn(5, 3, dtype=torch.float64)
    total = torch.zeros(5, dtype=torch.float64)
    for d in range(3):
        hidden = z.clone()
        hidden[:, d:] = 1e3 * torch.randn(5, 3 - d, dtype=torch.float64)  # what comes later must not matter
        logits, loc, s = prior.net(hidden)[:, d].chunk(3, -1)
        spread, scale = torch.tensor([-1 / 3, 1 / 3], dtype=torch.float64), torch.nn.functional.softplus(s + math.log(math.e - 1)) + 1e-4
        total += (logits.log_softmax(-1) + Normal(loc + spread, scale).log_prob(z[:, d : d + 1])).logsumexp(-1)
    torch.testing.assert_close(dist.log_prob(z), total)
    assert dist.expand(torch.Size((2, 5))).log_prob(z).shape == (2, 5) and dist.expand(torch.Size((2,))).sample().shape == (2, 3)


def test_autoregressive_density_integrates_to_one_and_samples_fit_it() -> None:
    torch.manual_seed(1)
    prior = Autoregressive(2, 3, (8,)).double()
    line = torch.linspace(-12, 12, 481, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    with torch.no_grad():
        for p in prior.parameters():
            p.add_(0.3 * torch.randn_like(p))
        mass = prior().log_prob(grid).exp() * (line[1] - line[0]) ** 2
        z = prior().sample(torch.Size((20_000,)))
    assert mass.sum().item() == pytest.approx(1, abs=1e-4)
    for statistic in (lambda v: v.tanh(), lambda v: (v[:, :1] * v[:, 1:]).tanh()):
        exact = (statistic(grid) * mass.unsqueeze(1)).sum(0)
        assert bool(((statistic(z).mean(0) - exact).abs() <= 5 * statistic(z).std(0) / math.sqrt(len(z)) + 1e-3).all())


def test_a_full_mixture_is_torchs_and_of_a_diagonal_triangle_the_diagonal_one() -> None:
    torch.manual_seed(0)
    full, diagonal, z = FullMixture(4, 3).double(), GaussianMixture(4, 3).double(), torch.randn(6, 4, dtype=torch.float64)
    with torch.no_grad():
        full.logits.copy_(diagonal.logits.copy_(torch.randn(3)))
        full.loc.copy_(diagonal.loc)
        diagonal.raw_scale.copy_(torch.randn(3, 4))
        full.raw_scale.copy_(diagonal.raw_scale.diag_embed() + torch.ones(4, 4).triu(1))  # the upper triangle is not read
    torch.testing.assert_close(full().log_prob(z), diagonal().log_prob(z))
    with torch.no_grad():
        full.raw_scale.add_(torch.randn(3, 4, 4))
    mixture = full()
    assert isinstance(mixture, MixtureSameFamily)
    covariance = mixture.component_distribution.covariance_matrix
    each = torch.stack([MultivariateNormal(full.loc[k], covariance[k]).log_prob(z) for k in range(3)])
    torch.testing.assert_close(mixture.log_prob(z), (each + full.logits.log_softmax(0).unsqueeze(1)).logsumexp(0))


@pytest.mark.parametrize("kind", [GaussianMixture, FullMixture])
def test_clusters_are_those_of_bayes_rule(kind: type[GaussianMixture] | type[FullMixture]) -> None:
    torch.manual_seed(0)
    prior = kind(2, 3).double()
    with torch.no_grad():
        prior.logits.copy_(torch.tensor([0.0, 1.0, -1.0]))
    z = torch.randn(2, 5, 2, dtype=torch.float64)
    joint = torch.stack([prior.logits.log_softmax(0)[k] + gaussian(z, prior.loc[k], 1 + 1e-4) for k in range(3)], -1)
    torch.testing.assert_close(responsibilities(prior(), z), joint.exp() / joint.exp().sum(-1, keepdim=True), rtol=1e-3, atol=1e-4)
    reshaped = Reshaped(prior, (1, 2))
    torch.testing.assert_close(responsibilities(reshaped(), z.unsqueeze(-2)), responsibilities(prior(), z))
    with pytest.raises(UsageError, match="no clusters; train vade"):
        responsibilities(Independent(Normal(torch.zeros(2), 1.0), 1), z)


def test_marginalising_the_class_is_never_looser_than_keeping_it() -> None:
    """VaDE's own bound, with q(c|x) = p(c|z), is E_q(z)[log p(z, c) - log q(c)] summed over c: with the exact p(c|z) it is log p(z)."""
    torch.manual_seed(0)
    prior = GaussianMixture(3, 4).double()()
    assert isinstance(prior, DiagonalMixture)
    z = torch.randn(50, 3, dtype=torch.float64)
    joint, q = prior.joint(z), responsibilities(prior, z)
    torch.testing.assert_close((q * (joint - q.log())).sum(-1), prior.log_prob(z))
    other = Categorical(logits=torch.randn(50, 4, dtype=torch.float64)).probs
    assert bool(((other * (joint - other.log())).sum(-1) <= prior.log_prob(z) + 1e-12).all())


def test_while_it_settles_the_prior_follows_and_does_not_pull() -> None:
    schema, batch = toy_schema(Binary()), toy_batch(Binary())
    recipe = parse("vade:components=3,latents=2,hidden=8").cook(schema)
    model, play = recipe.model, pretrained(0.5)
    before = {n: p.clone() for n, p in model.get_submodule("prior").named_parameters()}
    torch.manual_seed(0)
    (early,) = play(recipe.parts, batch, Clock(1, 100))
    assert all(torch.equal(before[n], p) for n, p in model.get_submodule("prior").named_parameters())
    torch.manual_seed(0)
    trace = model(batch)
    q = trace["z"].posterior
    assert q is not None
    torch.testing.assert_close(early.loss, (0.1 * kl_divergence(q, Independent(Normal(torch.zeros(2), torch.ones(2)), 1)) - trace.log_px).mean(0))
    (middle,) = play(recipe.parts, batch, Clock(25, 100))  # here the mixture begins to follow
    assert all(not torch.equal(before[n], p) for n, p in model.get_submodule("prior").named_parameters())
    assert middle.loss.shape == (6,)
    torch.manual_seed(0)
    (late,) = play(recipe.parts, batch, Clock(50, 100))
    torch.manual_seed(0)
    trace = model(batch)
    torch.testing.assert_close(late.loss, (trace.kl - trace.log_px).mean(0))


@pytest.mark.parametrize("covariance", [COVARIANCES[name] for name in COVARIANCES])
def test_following_at_a_rate_of_one_is_a_step_of_expectation_maximisation(covariance: Covariance) -> None:
    torch.manual_seed(0)
    z = torch.cat([torch.randn(60, 2), torch.randn(40, 2) @ torch.tensor([[0.5, 0.2], [0.0, 0.3]]) + 3]).double()
    prior = covariance(2, 2).double()
    spread_out(prior, z)
    assert all(bool((prior.loc[k] == z).all(1).any()) for k in range(2))
    for _ in range(5):
        r, before = responsibilities(prior(), z), prior().log_prob(z).mean()
        weight = r.sum(0)
        mean = torch.stack([(r[:, k, None] * z).sum(0) / weight[k] for k in range(2)])
        spread = torch.stack([(r[:, k, None] * (z - mean[k])).T @ (z - mean[k]) / weight[k] for k in range(2)])
        follow(prior, z, 1.0)
        torch.testing.assert_close(prior.logits.softmax(0), weight / len(z))
        torch.testing.assert_close(prior.loc.detach(), mean)
        torch.testing.assert_close(prior.covariance.detach(), spread if covariance is FullMixture else spread.diagonal(dim1=1, dim2=2))
        assert prior().log_prob(z).mean() >= before
    for _ in range(40):
        follow(prior, z, 1.0)
    assert sorted(round(v) for v in prior.loc[:, 0].tolist()) == [0, 3]


@pytest.mark.parametrize("covariance", [COVARIANCES[name] for name in COVARIANCES])
def test_following_at_small_rates_comes_to_the_mixture_that_made_the_rows(covariance: Covariance) -> None:
    torch.manual_seed(0)
    truth = covariance(2, 2)
    spread = torch.tensor([[1.0, 0.6], [0.6, 1.0]]).expand(2, 2, 2)
    mean = torch.tensor([[0.0, 0.0], [5.0, 5.0]])
    truth.become(torch.tensor([0.7, 0.3]), mean, spread if covariance is FullMixture else spread.diagonal(dim1=1, dim2=2))
    prior = covariance(2, 2)
    spread_out(prior, truth().sample(torch.Size((128,))))
    for step in range(800):
        follow(prior, truth().sample(torch.Size((128,))), (step + 2) ** -0.6)
    order = prior.loc[:, 0].argsort()
    torch.testing.assert_close(prior.logits.softmax(0)[order], torch.tensor([0.7, 0.3]), atol=0.03, rtol=0)
    torch.testing.assert_close(prior.loc[order].detach(), mean, atol=0.15, rtol=0)
    torch.testing.assert_close(prior.covariance[order].detach(), truth.covariance.detach(), atol=0.15, rtol=0)


@pytest.mark.parametrize("covariance", [COVARIANCES[name] for name in COVARIANCES])
def test_a_component_that_no_row_wants_stays_finite(covariance: Covariance) -> None:
    prior = covariance(2, 3)
    with torch.no_grad():
        prior.loc[2] = 1e4
    z = torch.randn(50, 2)
    for rate in (1.0, 0.5, 1e-3):
        follow(prior, z, rate)
    assert all(bool(p.isfinite().all()) for p in prior.parameters()) and prior.loc[2, 0] == 1e4
    follow(prior, z[:1], 1.0)  # one row has no spread
    assert bool(prior().log_prob(z).isfinite().all())


def test_clusters_of_digits_are_digits(tmp_path: Path) -> None:
    """Purity: the share of rows whose cluster's commonest digit is theirs; a tenth by chance. Only x is shown to the model."""
    run = vaestro.train("vade:latents=6,hidden=64", "digits", steps=500, out=tmp_path / "vade")
    rows = Rows(run.data().split("test"), run.schema, ("x", "label")).batch(torch.arange(180))
    shares = vaestro.cluster(run, rows["x"])
    assert shares.shape == (180, 10)
    torch.testing.assert_close(shares.sum(1), torch.ones(180), atol=1e-4, rtol=0)
    assert torch.equal(shares, vaestro.cluster(run, rows["x"]))
    found = shares.argmax(1)
    pure = sum(int(torch.bincount(rows["label"][found == k]).max()) for k in found.unique()) / 180
    assert pure > 0.4, f"purity {pure:.2f}"
    with pytest.raises(UsageError, match="no clusters"):
        vaestro.cluster(vaestro.train("vae:latents=2,hidden=8", "digits", steps=1, out=tmp_path / "vae"), rows["x"])


@pytest.mark.parametrize("name", LEARNT)
def test_the_prior_that_is_sampled_is_the_prior_that_was_trained(name: str) -> None:
    """After some steps, generated latents have the density that the bound charges: E_p[f] by samples is E_q[f p/q] by weights."""
    recipe = parse(f"{name}:{TINY.get(name, '')}latents=2,hidden=16").cook(toy_schema(Binary()))
    batch = toy_batch(Binary(), 30)
    loop = Loop(recipe, 0, 40, torch.device("cpu"))
    for part in recipe.parts.modules():
        prepare(part, batch)
    for _ in range(40):
        loop.step(lambda: batch)
    model = recipe.model.eval()
    torch.manual_seed(0)
    with torch.no_grad():
        z = model.generate(10_000)["z"].value
        charged = model(batch)["z"].prior
        wide = Independent(Normal(z.mean(0), 1.7 * z.std(0)), 1)
        other = wide.sample(torch.Size((10_000,)))
        weight = (charged.log_prob(other) - wide.log_prob(other)).exp().unsqueeze(1)
        for f in (torch.tanh, torch.sin, torch.ones_like):
            gap = (f(z).mean(0) - (weight * f(other)).mean(0)).abs()
            error = (f(z).var(0) / len(z) + (weight * f(other)).var(0) / len(other)).sqrt()
            assert bool((gap <= 5 * error).all()), name
    draw = next(iter(model({"x": batch["x"]}, 2).latents.values()))
    torch.testing.assert_close(torch.as_tensor(draw.log_p), charged.log_prob(draw.value))


@pytest.mark.parametrize("name", LEARNT)
@pytest.mark.parametrize("shape", [(1, 8, 8), (9,)])
def test_one_latent_one_row_and_several_draws(name: str, shape: tuple[int, ...]) -> None:
    recipe = parse(f"{name}:{TINY.get(name, '')}latents=1,hidden=8").cook(toy_schema(Real(), shape))
    batch = toy_batch(Real(), 1, shape)
    loop = Loop(recipe, 0, 3, torch.device("cpu"))
    for _ in range(3):
        loop.step(lambda: batch)
    assert all(math.isfinite(v) for v in loop.flush().values())
    model: Model = recipe.model.eval().double()
    trace = model({"x": batch["x"].double()}, 3)
    assert trace.log_w.shape == (3, 1) and trace.log_w.dtype == torch.float64 and bool(trace.log_w.isfinite().all())
    assert model.generate(4)["x"].value.shape == (4, *shape)


def test_learnt_priors_reach_what_the_standard_normal_cannot() -> None:
    """Maximum likelihood on a ring, in nats: every density prior comes near it and the standard normal stays where it is."""
    torch.manual_seed(0)
    angle = torch.rand(2000) * 2 * math.pi
    z = torch.stack([angle.cos(), angle.sin()], 1) * 2 + 0.2 * torch.randn(2000, 2)
    plain = Independent(Normal(torch.zeros(2), 1.0), 1).log_prob(z).mean()
    field = Field("x", Binary(), (1, 2, 2))
    for name in ("flow", "maf", "spline", "autoregressive", "full_mixture"):
        prior = PRIORS[name](2, posterior(2).float(), field)
        optimizer = torch.optim.Adam(prior.parameters(), 5e-3)
        for _ in range(60):
            optimizer.zero_grad()
            (-prior().log_prob(z[torch.randint(1500, (200,))]).mean()).backward()
            optimizer.step()
        assert prior().log_prob(z[1500:]).mean() > plain + 0.3, name


def test_bad_priors_of_the_zoo_are_refused() -> None:
    field = Field("x", Binary(), (1, 2, 2))
    for name, keyword in (("exemplar", "exemplars"), ("autoregressive", "components"), ("full_mixture", "components"), ("flow", "layers"), ("spline", "bins")):
        with pytest.raises(UsageError, match="give (one|two) or more"):
            PRIORS[name](3, posterior(), field, **{keyword: 0})
    with pytest.raises(UsageError, match="diagonal Gaussian"):
        Exemplar(Conditional(mlp((1, 2, 2), (3,), ()), Bernoulli()), rows(3).float())()
