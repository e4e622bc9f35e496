"""Hierarchies of latents: merges by brute force, the exact evidence of linear-Gaussian stairs, and what each recipe is made of."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from vaestro.conditional import Conditional
from vaestro.core import Seen, draw, replaying, run, scores
from vaestro.data.schema import Binary, Field, Integer
from vaestro.errors import UsageError
from vaestro.families import Bernoulli, Gaussian, default_likelihood
from vaestro.families.pairs import absolute, product, relative
from vaestro.models import VAE, BottomUp, Laws, Plan, Regardless, Rung, TopDown, dream, residual_normal, stairs, tempered, very_deep
from vaestro.models.bottom_up import kl_of_layers
from vaestro.networks import mlp
from vaestro.networks.residual import Block
from vaestro.objectives import elbo, iwae
from vaestro.plays import Clock
from vaestro.priors import StandardNormal
from vaestro.recipes import parse
from vaestro.testing import toy_batch, toy_schema
from vaestro.testing.linear import Law
from vaestro.training.loop import Loop

MAPS = ("vdvae", "nvae", "resnet_vae_iaf")
TINY = "blocks=1x1x0,width=8,latents=2"
CPU = torch.device("cpu")


def gaussian(loc, scale, axes=1):
    return Independent(Normal(loc, scale), axes)


def pixels(rows=6, shape=(1, 8, 8)):
    return toy_batch(Binary(), rows, shape)


def cooked(call, kind=None, shape=(1, 8, 8), seed=0):
    return parse(call).cook(toy_schema(kind or Binary(), shape), seed)


# two Gaussians to one


def test_the_merge_of_a_ladder_is_the_normalised_product_of_two_gaussians():
    p, q = (gaussian(torch.randn(6, 1, dtype=torch.float64), torch.rand(6, 1, dtype=torch.float64) + 0.2) for _ in range(2))
    grid = torch.linspace(-15, 15, 200_001, dtype=torch.float64)[:, None, None]
    each = p.log_prob(grid) + q.log_prob(grid)
    log_area = each.logsumexp(0) + math.log(30 / 200_000)
    torch.testing.assert_close(product(p, q).log_prob(grid[::1000]), (each - log_area)[::1000], rtol=1e-9, atol=1e-9)


def test_the_merge_bears_extremes_and_more_axes_on_either_side():
    p, q = gaussian(torch.zeros(3), torch.tensor([1e-4, 1e10, 1.0])), gaussian(torch.ones(5, 3), torch.tensor([1e10, 1e-4, 1.0]).expand(5, 3))
    for merged in (product(p, q), product(q, p)):
        assert merged.batch_shape == (5,)
        torch.testing.assert_close(merged.mean[0], torch.tensor([0.0, 1.0, 0.5]))
        torch.testing.assert_close(merged.stddev[0], torch.tensor([1e-4, 1e-4, 0.5**0.5]))
    for law in (product, relative):
        with pytest.raises(UsageError, match="only diagonal Gaussians"):
            law(p, MultivariateNormal(torch.zeros(3), torch.eye(3)))


def test_the_kl_of_a_residual_normal_is_the_papers():
    p = gaussian(torch.randn(7, 2, 3, dtype=torch.float64), torch.rand(7, 2, 3, dtype=torch.float64) + 0.1, 2)
    dm, ds = torch.randn(7, 2, 3, dtype=torch.float64), torch.rand(7, 2, 3, dtype=torch.float64) + 0.1
    paper = ((dm / p.base_dist.scale).square() + ds.square() - ds.square().log() - 1).sum((-1, -2)) / 2
    torch.testing.assert_close(kl_divergence(relative(p, gaussian(dm, ds, 2)), p), paper)
    assert absolute(p, (q := gaussian(dm, ds, 2))) is q


# linear-Gaussian stairs of two layers


def beside(*values):
    """Vectors side by side, whatever their leading axes."""
    lead = torch.broadcast_shapes(*(v.shape[:-1] for v in values))
    return torch.cat([v.expand(*lead, v.shape[-1]) for v in values], -1)


class World:
    """z2 ~ N(0, I), z1 ~ N(A z2, a^2 I), x ~ N(W z1, s^2 I) in float64: each variable is a linear map of independent standard normals."""

    def __init__(self, features=5, low=3, high=2, a=0.5, s=0.4):
        r = torch.Generator().manual_seed(3)
        eye = torch.eye(high + low + features, dtype=torch.float64).split((high, low, features))
        self.A, self.W = torch.randn(low, high, generator=r, dtype=torch.float64), torch.randn(features, low, generator=r, dtype=torch.float64)
        z1 = self.A @ eye[0] + a * eye[1]
        self.rows = {"z2": eye[0], "z1": z1, "x": self.W @ z1 + s * eye[2]}
        self.a, self.s, self.sizes = a, s, (low, high)
        self.evidence = self.law()("x")

    def law(self, widen=1.0):
        """p(of | given), exactly, or `widen` times as wide."""

        def of(name, *values, given=()):
            v = self.rows[name]
            if not given:
                return MultivariateNormal(torch.zeros(len(v), dtype=v.dtype), v @ v.T)
            o = torch.cat([self.rows[n] for n in given])
            gain = v @ o.T @ torch.linalg.inv(o @ o.T)
            covariance = v @ v.T - gain @ o @ v.T
            return MultivariateNormal(beside(*values) @ gain.T, widen * (covariance + covariance.T) / 2)

        return of

    def models(self, widen=1.0):
        """The ladder and the bottom-up layers whose posteriors are exact, or too wide."""
        low, high = self.sizes
        law, zeros = self.law(widen), torch.zeros(high, dtype=torch.float64)
        top = Law(lambda *_: gaussian(zeros, zeros + 1))
        down = Law(lambda z2: gaussian(z2 @ self.A.T, self.a))
        likelihood = Law(lambda z1: gaussian(z1 @ self.W.T, self.s))
        highest = Rung(top, Law(lambda x: law("z2", x, given=("x",))), absolute)
        ups = [Law(lambda x: law("z1", x, given=("x",))), Law(lambda z1: law("z2", z1, given=("z1",)))]
        ladder = TopDown(nn.Identity(), [highest, Lower(down, law)], likelihood, None)
        return {"top-down": ladder, "bottom-up": BottomUp(top, [down], ups, likelihood, (low, high))}


class Lower(Rung):
    """A rung whose posterior reads x and the latent above it."""

    def __init__(self, down, law):
        super().__init__(down, nn.Identity(), absolute)
        self.law = law

    def laws(self, state, seen):
        return Laws(self.prior(state), None if seen is None else self.law("z1", state, seen, given=("z2", "x")), state)


@pytest.mark.parametrize("kind", ["top-down", "bottom-up"])
def test_with_the_exact_posteriors_every_weight_is_the_evidence(kind):
    world = World()
    x = world.evidence.sample((50,))
    trace = world.models()[kind]({"x": x}, 3)
    torch.testing.assert_close(trace.log_w, world.evidence.log_prob(x).expand(3, -1))
    again = run(world.models()[kind].program({"x": x}), replaying({n: d.value for n, d in trace.items()}))
    torch.testing.assert_close(again.log_w, trace.log_w)


@pytest.mark.parametrize("kind", ["top-down", "bottom-up"])
def test_with_wrong_posteriors_the_bounds_are_ordered_below_the_evidence(kind):
    world = World()
    x = world.evidence.sample((4000,))
    exact = world.evidence.log_prob(x)
    model = world.models(widen=2.0)[kind]
    torch.manual_seed(1)
    loose, tight = -elbo()(model({"x": x}, 4)), -iwae(model({"x": x}, 20))
    error = 5 * (loose - exact).std() / len(x) ** 0.5
    assert (loose - exact).mean() < -5 * error
    assert (loose - exact).mean() + error < (tight - exact).mean() < error


def test_a_joint_is_the_gaussian_that_it_tells():
    world = World()
    joint = world.models()["bottom-up"].generate(1)["z"].prior
    rows = torch.cat([world.rows["z1"], world.rows["z2"]])
    exact = MultivariateNormal(torch.zeros(5, dtype=torch.float64), rows @ rows.T)
    value, log_p = draw(joint, (4000,))
    torch.testing.assert_close(log_p, exact.log_prob(value))
    torch.testing.assert_close(joint.log_prob(value.reshape(40, 100, 5)), exact.log_prob(value).reshape(40, 100))
    assert (value.T.cov() - exact.covariance_matrix).abs().max() < 0.25
    assert joint.expand((3, 2)).sample((4,)).shape == (4, 3, 2, 5) and joint.rsample().shape == (5,)
    assert joint.log_prob(value[0]).shape == () and joint.expand((3,)).log_prob(value[0]).shape == (3,)
    assert scores(joint)


def test_the_layers_kls_of_a_bottom_up_model_add_up():
    model = cooked("bottom_up:latents=5x3x2,hidden=16,upper=8").model
    trace = model(pixels(), 4)
    each = kl_of_layers(trace)
    assert set(each) == {"kl_z1", "kl_z2", "kl_z3"}
    torch.testing.assert_close(sum(each.values()), trace.kl.mean())
    assert kl_of_layers(trace)["kl_z1"].requires_grad is False


def test_bottom_up_reports_its_bound_and_each_layer():
    recipe = cooked("bottom_up:latents=5x3,hidden=16,upper=8,samples=7")
    torch.manual_seed(4)
    (move,) = recipe.play(recipe.parts, pixels(), Clock(0, 1))
    torch.testing.assert_close(move.loss, -move.trace.log_w.double().exp().mean(0).log().float(), rtol=1e-4, atol=1e-4)
    assert {"reconstruction", "kl", "kl_z1", "kl_z2"} <= set(move.terms) and move.trace.log_w.shape == (7, 6)


def test_bottom_up_of_one_layer_is_the_plain_vae():
    one = cooked("bottom_up:latents=4,hidden=16")
    vae = VAE(one.model.highest, one.model.up[0], one.model.likelihood)
    batch, found = pixels(), []
    for model in (one.model, vae):
        torch.manual_seed(4)
        found.append(model(batch, 3).log_w)
    torch.testing.assert_close(*found)


# one group is the plain VAE


def test_a_ladder_of_one_rung_is_the_plain_vae():
    q, p = Conditional(mlp((9,), (4,), (5,)), Gaussian()), Conditional(mlp((2,), (9,), (5,)), Bernoulli())
    prior = StandardNormal((2,))
    batch = {"x": torch.rand(7, 9).round()}
    traces = []
    for model in (VAE(prior, q, p), TopDown(nn.Identity(), [Rung(Regardless(prior), q, absolute)], p, None)):
        torch.manual_seed(2)
        traces.append((model(batch, 3), model.generate(4)))
    (a, a_dream), (b, b_dream) = traces
    assert torch.equal(a.log_w, b.log_w) and torch.equal(a.kl, b.kl) and torch.equal(a_dream["x"].value, b_dream["x"].value)


@pytest.mark.parametrize("style", [very_deep, residual_normal])
def test_stairs_of_one_group_are_the_plain_vae_of_the_same_networks(style):
    plan = Plan((1, 0), 8, 2)
    model = stairs(Field("x", Binary(), (1, 7, 5)), plan, style(plan), default_likelihood).double()
    (group,) = model.steps
    with torch.no_grad():
        for w in model.parameters():
            w.add_(0.1 * torch.randn_like(w))
    state = group.laws(model.top, None).state
    vae = VAE(
        Law(lambda: group.laws(model.top, None).prior),
        Law(lambda x: group.laws(model.top, model.encoder(x)[0]).posterior),
        Law(lambda z: model.likelihood(group.after(state, z))),
    )
    batch = {"x": torch.rand(5, 1, 7, 5, dtype=torch.float64).round()}
    found = []
    for m in (model, vae):
        torch.manual_seed(2)
        found.append(m(batch, 3).log_w)
    torch.testing.assert_close(*found)


# what each recipe is made of


def test_a_ladder_draws_between_what_is_expected_and_what_x_says():
    model = cooked("ladder_vae:latents=4x3x2,hidden=8x7x6").model
    batch = pixels(5)
    trace, seen = model(batch, 3), model.encoder(batch["x"])
    assert [d.value.shape[-1] for d in trace.latents.values()] == [2, 3, 4]
    assert [v.shape[-1] for v in seen] == [6, 7, 8]
    for rung, view, d in list(zip(model.steps, seen, trace.latents.values(), strict=True))[1:]:
        said, expected = rung.posterior(view), d.prior
        a, b = said.variance.reciprocal(), expected.variance.reciprocal()
        torch.testing.assert_close(d.posterior.variance, 1 / (a + b))
        torch.testing.assert_close(d.posterior.mean, (said.mean * a + expected.mean * b) / (a + b))
    highest = trace["z1"]
    assert torch.equal(highest.posterior.mean, model.steps[0].posterior(seen[0]).mean) and float(highest.prior.mean.abs().sum()) == 0
    torch.testing.assert_close(trace.kl, sum(kl_divergence(d.posterior, d.prior) for d in trace.latents.values()))


def test_a_latent_of_a_ladder_speaks_to_the_next_alone():
    model = cooked("ladder_vae:latents=4x3x2,hidden=8x7x6").model
    dreams = model.generate(5)
    values = {n: d.value for n, d in dreams.items()}
    moved = run(model.program(), replaying({**values, "z1": values["z1"] + 1}))
    assert not torch.equal(moved["z2"].log_p, run(model.program(), replaying(values))["z2"].log_p)
    torch.testing.assert_close(moved["z3"].prior.mean, dreams["z3"].prior.mean)
    torch.testing.assert_close(moved["x"].prior.mean, dreams["x"].prior.mean)


def test_blocks_say_how_many_groups_stand_at_each_resolution():
    for name in MAPS:
        trace = cooked(f"{name}:blocks=2x1x0x1,width=8,latents=2", shape=(1, 13, 9)).model(pixels(3, (1, 13, 9)), 2)
        assert [tuple(d.value.shape[2:]) for d in trace.latents.values()] == [(2, 2, 2), (2, 2, 2), (2, 4, 3), (2, 13, 9)]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 31, 17), (2, 5, 1), (3, 2, 2)])
@pytest.mark.parametrize("name", MAPS)
def test_any_size_of_image_a_latent_of_one_and_a_batch_of_one(name, shape):
    kind = Integer(17)
    recipe = cooked(f"{name}:blocks=1x1x0,width=4,latents=1", kind, shape)
    x = toy_batch(kind, 1, shape)
    loop = Loop(recipe, 0, 2, CPU)
    loop.step(lambda: x)
    assert all(math.isfinite(v) for v in loop.flush().values())
    assert recipe.model.generate(2)["x"].value.shape == (2, *shape)
    seen = Seen(torch.full((1, *shape), torch.nan), torch.zeros(1, *shape, dtype=torch.bool))
    assert recipe.model({"x": seen}, 2).log_w.isfinite().all()


@pytest.mark.parametrize("name", ["ladder_vae:latents=4x2", "bottom_up:latents=4x2", "top_down:width=16", *(f"{name}:{TINY}" for name in MAPS)])
def test_double_precision_stays(name):
    model = cooked(name).model.double()
    trace = model({"x": pixels()["x"].double()}, 2)
    assert trace.log_w.dtype == torch.float64 and all(d.value.dtype == torch.float64 for d in trace.latents.values())


def test_one_latent_between_residual_networks_takes_any_prior():
    recipe = cooked("resnet_vae:latents=3,hidden=4x4,depth=3,prior=flow")
    assert type(recipe.model.prior).__name__ == "Flow"
    assert sum(isinstance(m, Block) for m in recipe.model.modules()) == 2 * 2 * 3
    assert "prior=flow" in str(parse("resnet_vae:prior=flow"))


@pytest.mark.parametrize(
    ("call", "words", "shape"),
    [
        ("vdvae:blocks=0x1", "no latent group at its smallest resolution", (1, 8, 8)),
        ("vdvae:blocks=1", "needs images, and the rows of 'x' are shaped \\(9,\\); use ladder_vae", (9,)),
        ("resnet_vae", "resnet_vae needs images.*use vae or flow_prior", (9,)),
        ("ladder_vae:latents=4x2,hidden=8", "2 layers of latents and 1 widths", (1, 8, 8)),
        ("resnet_vae:depth=0", "depth", (1, 8, 8)),
        ("nvae:spectral=-1", "spectral", (1, 8, 8)),
        ("resnet_vae_iaf:flows=0", "flows", (1, 8, 8)),
        ("vdvae:activations=store", "did you mean stored", (1, 8, 8)),
    ],
)
def test_what_makes_no_sense_is_refused(call, words, shape):
    with pytest.raises(UsageError, match=words):
        cooked(call, shape=shape)


def test_vectors_have_hierarchies_too():
    for call in ("ladder_vae:latents=4x2", "bottom_up:latents=4x2,hidden=8", "top_down:width=8,latents=2"):
        trace = cooked(call, shape=(9,)).model(pixels(5, (9,)), 2)
        torch.testing.assert_close(trace.log_w, trace.log_px + sum(d.log_p - d.log_q for d in trace.latents.values()))
        assert trace.log_w.shape == (2, 5) and trace.log_w.isfinite().all()


def test_a_temperature_narrows_every_prior_and_nothing_else():
    model = cooked("vdvae:" + TINY).model
    torch.manual_seed(1)
    usual = model.generate(3)
    for temperature, expected in ((1.0, 1.0), (0.25, 0.25)):
        torch.manual_seed(1)
        trace = dream(model, 3, temperature)
        torch.testing.assert_close(trace["z1"].value, expected * (usual["z1"].value - usual["z1"].prior.mean) + usual["z1"].prior.mean)
    assert isinstance(trace["x"].prior, type(usual["x"].prior)) and trace["x"].value.shape == (3, 1, 8, 8)
    held = dream(model, 3, 0.25, {"z1": usual["z1"].value})
    assert torch.equal(held["z1"].value, usual["z1"].value), "what is given stands"
    for bad in (0.0, -1.0, math.nan):
        with pytest.raises(UsageError, match="temperature"):
            dream(model, 3, bad)
    world = World()
    layers, narrow = world.models()["bottom-up"].generate(1)["z"].prior, 0.5
    z = tempered(layers, narrow).sample((20_000,))
    noise = torch.cat([narrow * torch.ones(5), torch.ones(5)]).double().square().diag()  # of the latents, narrowed, and of x
    rows = torch.cat([world.rows["z1"], world.rows["z2"]])
    torch.testing.assert_close(z.T.cov(), rows @ noise @ rows.T, rtol=0.05, atol=0.05)
    priors = cooked("resnet_vae:latents=3,hidden=4,prior=flow").model.prior()
    torch.manual_seed(1)
    usual_draw = priors.base.sample((5,))
    torch.manual_seed(1)
    torch.testing.assert_close(priors.bijection(tempered(priors, narrow).sample((5,)))[0], narrow * usual_draw, rtol=1e-4, atol=1e-4)
