"""Autoencoders that do not copy: slopes against autograd, noise, sparsity and restraint against closed forms, second stages against exact densities."""

import math
import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.autograd.functional import jacobian
from torch.distributions import Independent, Normal

import vaestro
from vaestro.conditional import Conditional
from vaestro.core import Seen, run, sampling
from vaestro.data.rows import Rows
from vaestro.data.schema import Binary, Count, Field, Integer, Real
from vaestro.errors import Caveat, UsageError
from vaestro.families import FixedGaussian, Point
from vaestro.models import VAE
from vaestro.models.two_stage import TwoStage
from vaestro.networks import mlp
from vaestro.objectives import elbo, iwae, reconstruction
from vaestro.objectives.regularisers import NORMS, absolute_codes, codes, decoder_slope, exact, hutchinson, rarely_on, squared_codes
from vaestro.plays import Clock, alone
from vaestro.plays.denoising import NOISES, denoising
from vaestro.plays.regularised import Weighed, contractive, decay, of_trace, regularised
from vaestro.priors import SecondStage, StandardNormal
from vaestro.priors.fitted import FITTED, Latents, fit
from vaestro.recipes import Training, parse
from vaestro.testing import LinearGaussian, toy_batch, toy_schema
from vaestro.testing.linear import Law
from vaestro.training.loop import Loop
from vaestro.uses.fitting import fit_prior

F64 = torch.float64


def net(inputs, outputs):
    return mlp(inputs, outputs, (7,)).double()


def auto(features=5, latents=2) -> VAE:
    """A small autoencoder in double precision."""
    q, p = Conditional(net((features,), (latents,)), Point()), Conditional(net((latents,), (features,)), FixedGaussian(1.0))
    return VAE(StandardNormal((latents,)).double(), q, p)


def first(play, model, batch, clock=Clock(0, 10)):
    return next(iter(play(nn.ModuleDict({"model": model}), batch, clock)))


@pytest.mark.parametrize(("inputs", "outputs"), [((6,), (2,)), ((2,), (6,)), ((1,), (1,)), ((1, 3, 2), (4,)), ((2,), (1, 3, 3)), ((3,), (3,))])
@pytest.mark.parametrize("rows", [1, 4])
def test_the_exact_norm_is_that_of_autograds_jacobian(inputs, outputs, rows):
    f, x = net(inputs, outputs), torch.randn(rows, *inputs, dtype=F64, requires_grad=True)
    wanted = torch.stack([jacobian(lambda r: f(r.unsqueeze(0))[0], row).square().sum() for row in x.detach()])
    assert torch.allclose(exact(f(x), x), wanted)
    two = torch.stack([x, 2 * x]).detach().requires_grad_()  # leading axes [k, b]
    assert torch.allclose(exact(f(two.flatten(0, 1)).unflatten(0, (2, rows)), two, 2)[0], wanted)


def test_the_gradient_of_the_exact_norm_is_right():
    for inputs, outputs in (((5,), (2,)), ((2,), (5,))):
        f, x = net(inputs, outputs), torch.randn(3, *inputs, dtype=F64, requires_grad=True)
        w = f.body[1].weight
        (found,) = torch.autograd.grad(exact(f(x), x).sum(), w)
        nudge = torch.randn_like(w)
        sides = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                w.add_(step * nudge)
            sides.append(exact(f(x), x).sum().item())
            with torch.no_grad():
                w.sub_(step * nudge)
        assert (found * nudge).sum().item() == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-5)


def test_a_sigmoid_layer_has_the_papers_closed_form():
    """|J|_F^2 = sum_j (h_j (1 - h_j))^2 sum_i W_ji^2 (Rifai et al. 2011, section 3)."""
    layer, x = nn.Linear(6, 3, dtype=F64), torch.randn(4, 6, dtype=F64, requires_grad=True)
    h = layer(x).sigmoid()
    assert torch.allclose(exact(h, x), ((h * (1 - h)).square() * layer.weight.square().sum(1)).sum(1))


def test_the_estimated_norm_is_unbiased_and_exact_for_one_output():
    f, x = net((4,), (3,)), torch.randn(2, 4, dtype=F64, requires_grad=True)
    found = torch.stack([hutchinson(2)(f(x), x).detach() for _ in range(300)])
    assert ((found.mean(0) - exact(f(x), x)).abs() < 4 * found.std(0) / math.sqrt(300)).all()
    one = net((4,), (1,))
    assert torch.allclose(hutchinson()(one(x), x), exact(one(x), x))
    assert set(NORMS) == {"exact", "estimated"}
    with pytest.raises(UsageError, match="0 draws"):
        hutchinson(0)


@pytest.mark.parametrize("rows", [1, 5])
def test_contraction_is_charged_by_the_encoders_jacobian(rows):
    model, x = auto(), torch.randn(rows, 5, dtype=F64)
    move = first(contractive(reconstruction(), exact, 0.3, {"decay": Weighed(0.2, decay("likelihood.net"))}), model, {"x": x})
    slope = torch.stack([jacobian(lambda r: model.posterior.net(r.unsqueeze(0))[0], row).square().sum() for row in x])
    small = sum(p.square().sum() for p in model.likelihood.net.parameters())
    assert torch.allclose(move.loss, reconstruction()(model({"x": x})) + 0.3 * slope + 0.2 * small)
    assert torch.allclose(move.terms["contraction"], slope.mean())
    assert not x.requires_grad and not move.trace["x"].value.requires_grad


def test_contraction_follows_what_the_encoder_reads_of_rows_seen_in_part():
    model, x = auto(), torch.randn(3, 5, dtype=F64)
    mask = torch.rand(3, 5) < 0.5
    move = first(contractive(reconstruction(), exact, 1.0), model, {"x": Seen(torch.where(mask, x, math.nan), mask)})
    shown = torch.where(mask, x, 0.0).requires_grad_()
    z = model.posterior.net(shown)
    error = -torch.where(mask, Normal(model.likelihood.net(z), 1.0).log_prob(torch.where(mask, x, 0.0)), 0.0).sum(1)
    assert torch.allclose(move.loss, error + exact(z, shown))


@pytest.mark.parametrize("call", ["contractive_ae:latents=2,hidden=4", "rae:restraint=gradient,latents=2,hidden=4"])
def test_slopes_of_compiled_models_are_refused(call):
    recipe = parse(call).cook(toy_schema(Binary()))
    recipe.model.compile(backend="eager")
    with pytest.raises(UsageError, match="leave --compile out"), torch.compiler.set_stance("force_eager"):
        next(iter(recipe.play(recipe.parts, toy_batch(Binary()), Clock(0, 10))))


@pytest.mark.parametrize("k", [1, 3])
def test_charges_of_several_sites_add_up(k):
    recipe = parse("top_down:layers=2,width=6,latents=2,likelihood=gaussian_fixed").cook(toy_schema(Real(), (3,)))
    model, x = recipe.model.double(), torch.randn(4, 3, dtype=F64)
    trace = model({"x": x}, k)
    z = torch.cat([trace["z1"].value, trace["z2"].value], -1)
    assert torch.allclose(squared_codes(trace), z.square().sum(-1).mean(0) / 2)
    assert torch.allclose(absolute_codes(trace), z.abs().sum(-1).mean(0))
    assert codes(trace).shape == (4, 4) and torch.equal(codes(trace)[:, :2], trace["z1"].posterior.mean)
    mean = trace["x"].prior.mean
    by_hand = 0
    for d in (trace["z1"], trace["z2"]):
        rows = [torch.autograd.grad(mean[..., i].sum(), d.value, retain_graph=True)[0] for i in range(3)]
        by_hand = by_hand + sum(g.square().sum(-1) for g in rows).mean(0)
    assert torch.allclose(decoder_slope(exact)(trace), by_hand)


def test_codes_are_charged_by_their_norms():
    model, x = auto(), torch.randn(4, 5, dtype=F64)
    trace = model({"x": x}, 3)
    z = model.posterior.net(x)
    assert torch.equal(codes(trace), z)
    assert torch.allclose(squared_codes(trace), z.square().sum(1) / 2)
    assert torch.allclose(squared_codes(trace), -model.prior().log_prob(z) - math.log(2 * math.pi))  # of two latents
    assert torch.allclose(absolute_codes(trace), z.abs().sum(1))


class On(nn.Module):
    """A posterior whose latents are the numbers it is given."""

    def forward(self, x):
        return Point()(x)


def on(z):
    """The trace of latents that are these numbers [b, D]."""
    model = VAE(StandardNormal((z.shape[1],)).double(), On(), Law(lambda z: Independent(Normal(z, 1.0), 1)))
    return model({"x": z})


def test_sparsity_is_the_kl_of_mean_activations():
    z = torch.rand(6, 3, dtype=F64)
    m, t = z.mean(0), 0.2
    wanted = (t * (t / m).log() + (1 - t) * ((1 - t) / (1 - m)).log()).sum()
    assert torch.allclose(rarely_on(t)(on(z)), wanted)
    assert rarely_on(t)(on(torch.full((1, 4), t, dtype=F64))).item() == pytest.approx(0, abs=1e-12)
    rising = torch.full((2, 3), 0.9, dtype=F64, requires_grad=True)
    rarely_on(t)(on(rising)).backward()
    assert (rising.grad > 0).all()
    for edge in (0.0, 1.0):
        assert rarely_on(t)(on(torch.full((2, 3), edge))).isfinite()
    dead = torch.full((2, 3), 1e-25, requires_grad=True)  # which the slope of a quotient divides by, squared
    rarely_on(t)(on(dead)).backward()
    torch.testing.assert_close(dead.grad, torch.full((2, 3), -t / 2e-25))
    for wrong in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(UsageError, match="between 0 and 1"):
            rarely_on(wrong)


@pytest.mark.parametrize("k", [1, 3])
def test_the_decoders_slope_is_that_of_its_mean(k):
    model, x = auto(), torch.randn(4, 5, dtype=F64)
    z = model.posterior.net(x).detach()
    wanted = torch.stack([jacobian(lambda r: model.likelihood(r.unsqueeze(0)).mean[0], row).square().sum() for row in z])
    assert torch.allclose(decoder_slope(exact)(model({"x": x}, k)), wanted)
    with torch.no_grad(), pytest.raises(UsageError, match="without a gradient"):
        decoder_slope(exact)(model({"x": x}))


def test_of_pictures_in_levels_the_slope_is_that_of_what_is_shown():
    recipe = parse("rae:restraint=gradient,latents=2,hidden=4").cook(toy_schema(Binary(), (1, 2, 2)))
    model, x = recipe.model.double(), toy_batch(Binary(), 3, (1, 2, 2))["x"].double()
    logits = model.likelihood.net
    wanted = [jacobian(lambda r: logits(r.unsqueeze(0))[0].sigmoid(), row).square().sum() for row in model.posterior(x).mean.detach()]
    assert torch.allclose(decoder_slope(exact)(model({"x": x})), torch.stack(wanted))


@pytest.mark.parametrize("samples", [1, 3])
def test_weights_of_zero_charge_nothing_and_others_what_they_say(samples):
    model, x = auto(), torch.randn(4, 5, dtype=F64)
    zero = regularised(elbo(), {"codes": Weighed(0.0, of_trace(squared_codes))}, samples)
    assert torch.equal(first(zero, model, {"x": x}).loss, first(alone(elbo(), samples), model, {"x": x}).loss)
    some = first(regularised(reconstruction(), {"codes": Weighed(0.7, of_trace(squared_codes))}, samples), model, {"x": x})
    trace = model({"x": x}, samples)
    assert torch.allclose(some.loss, reconstruction()(trace) + 0.7 * squared_codes(trace))
    for play in (lambda w: regularised(elbo(), {"codes": Weighed(w, of_trace(squared_codes))}), lambda w: contractive(elbo(), exact, w)):
        for wrong in (-0.1, math.nan):
            with pytest.raises(UsageError, match="would reward"):
                play(wrong)


def test_spectral_restraint_leaves_no_layer_that_stretches():
    recipe = parse("rae:restraint=spectral,latents=3,hidden=16").cook(toy_schema(Integer(16)))
    loop, x = Loop(recipe, 0, 30, torch.device("cpu")), toy_batch(Integer(16))
    for _ in range(30):
        loop.step(lambda: x)
    recipe.model.eval()
    layers = [m for m in recipe.model.likelihood.net.modules() if isinstance(m, nn.Linear)]
    assert len(layers) == 2
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.detach(), 2).item() == pytest.approx(1.0, rel=0.05)
    with pytest.raises(UsageError, match="it has no weight"):
        parse("rae:restraint=spectral,weight=0.1").cook(toy_schema(Binary()))
    assert parse("rae:restraint=spectral,network=convolutional,hidden=4x4").cook(toy_schema(Binary())).model.generate(2)["x"].value.shape == (2, 1, 8, 8)


@pytest.mark.parametrize(("restraint", "charge"), [("l2", decay("likelihood.net")), ("gradient", of_trace(decoder_slope(exact)))])
def test_rae_is_its_formula(restraint, charge):
    recipe = parse(f"rae:restraint={restraint},weight=0.5,beta=0.3,latents=1,hidden=8").cook(toy_schema(Real(), (1,)))  # of one output the estimate is exact
    model, batch = recipe.model, toy_batch(Real(), 4, (1,))
    (move,) = recipe.play(recipe.parts, batch, Clock(0, 10))
    trace = model(batch)
    wanted = reconstruction()(trace) + 0.3 * squared_codes(trace) + 0.5 * charge(model, trace)
    assert torch.allclose(move.loss, wanted, rtol=1e-5)


def test_the_denoiser_reads_noise_and_is_scored_on_the_clean_row():
    model, x = auto(), torch.randn(4, 5, dtype=F64)
    move = first(denoising(elbo(), lambda x: x + 1, 3), model, {"x": x})
    z = model.posterior.net(x + 1)
    assert torch.equal(move.trace["z"].value, z.expand(3, 4, 2)) and move.trace["x"].value is x
    assert torch.allclose(move.trace.log_px[0], model.likelihood(z).log_prob(x))
    still = first(denoising(elbo(), lambda x: x), model, {"x": x})
    assert torch.equal(still.loss, first(alone(elbo()), model, {"x": x}).loss)


def test_the_denoising_bound_lies_below_the_evidence_whatever_the_noise():
    world = LinearGaussian()
    x = world.evidence.sample((4000,))
    loss = first(denoising(elbo(), lambda x: x + 0.1 * torch.randn_like(x)), world.right, {"x": x}).loss
    gap = loss + world.evidence.log_prob(x)
    clean = first(alone(elbo()), world.right, {"x": x}).loss + world.evidence.log_prob(x)
    assert abs(clean.mean()) < 0.1 and gap.mean() > 5 * gap.std() / math.sqrt(4000)


def test_a_hidden_value_stays_hidden_from_the_denoiser():
    model, x = auto(), torch.randn(2, 5, dtype=F64)
    mask = torch.tensor([True, False, True, True, False])
    move = first(denoising(reconstruction(), lambda x: x + 1), model, {"x": Seen(torch.where(mask, x, math.nan), mask.expand(2, 5))})
    assert torch.allclose(move.trace["z"].value[0], model.posterior.net(torch.where(mask, x + 1, 0.0)))
    assert move.loss.isfinite().all()


def test_a_linear_denoiser_learns_to_shrink():
    """The best restoration of x ~ N(0, 1) from x + N(0, s^2) is the linear map of slope 1 / (1 + s^2)."""
    q, p = Conditional(mlp((1,), (1,), ()), Point()), Conditional(mlp((1,), (1,), ()), FixedGaussian(1.0))
    model = VAE(StandardNormal((1,)), q, p)
    recipe = vaestro.solo(model, denoising(reconstruction(), NOISES["gaussian"](Field("x", Real(), (1,)), 1.0)))
    loop = Loop(replace(recipe, training=Training(learning_rate=0.02)), 0, 300, torch.device("cpu"))
    x = torch.randn(2048, 1)
    for _ in range(300):
        loop.step(lambda: {"x": x})
    slope = p.net.body[1].weight * q.net.body[1].weight
    assert slope.item() == pytest.approx(0.5, abs=0.06)


def test_each_noise_does_what_it_says():
    grey, real, count = (Field("x", k, (50,)) for k in (Integer(5), Real(), Count()))
    x = torch.full((2000, 50), 0.5)
    masked = NOISES["masking"](grey, 0.3)(x)
    assert set(masked.unique().tolist()) == {0.0, 0.5} and (masked == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)
    spiced = NOISES["salt_and_pepper"](grey, 0.4)(x)
    assert [(spiced == v).float().mean().item() for v in (0.0, 0.5, 1.0)] == pytest.approx([0.2, 0.6, 0.2], abs=0.01)
    moved = NOISES["gaussian"](real, 0.3)(x) - x
    assert moved.std().item() == pytest.approx(0.3, abs=0.01) and moved.mean().item() == pytest.approx(0, abs=0.01)
    for name in NOISES:
        assert torch.equal(NOISES[name](grey, 0.0)(x), x)
        assert NOISES[name](grey, 1.0)(x.double()).dtype == F64
    assert NOISES["masking"](count, 1.0)(x).sum() == 0


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        ("denoising_ae:noise=gaussian", Count(), "counts negative; use masking"),
        ("denoising_ae:noise=salt_and_pepper", Count(), "Count data have none; use masking"),
        ("denoising_ae:noise=salt_and_pepper", Real(), "Real data have none; use masking"),
        ("denoising_ae:strength=1.5", Binary(), "a strength from 0 to 1"),
        ("denoising_vae:noise=salt_and_pepper,strength=2", Binary(), "a strength from 0 to 1"),
    ],
)
def test_noise_that_does_not_fit_is_refused(call, kind, words):
    with pytest.raises(UsageError, match=words):
        parse(call).cook(toy_schema(kind))


@pytest.mark.parametrize("wrong", ["sparse_ae:target=1", "contractive_ae:weight=-1", "rae:beta=-1", "two_stage:first=1", "denoising_ae:noise=smoke"])
def test_keywords_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError):
        parse(wrong)


def test_sparse_latents_are_rarely_on():
    shares = []
    for weight in (0, 20):
        recipe = parse(f"sparse_ae:latents=6,hidden=16,target=0.1,weight={weight},learning_rate=0.02").cook(toy_schema(Real(), (4,)))
        loop, x = Loop(recipe, 0, 150, torch.device("cpu")), torch.randn(64, 4)
        for _ in range(150):
            loop.step(lambda x=x: {"x": x})
        shares.append(codes(recipe.model({"x": x})).mean(0))
    assert (shares[1] - 0.1).abs().max() < 0.05 < (shares[0] - 0.1).abs().max()


def linear_second(a=0.8, s=0.5, right=True) -> VAE:
    """u ~ N(0, 1), z ~ N(a u, s^2), with q(u | z) the true posterior, or a wide one."""
    v = 1 / (1 + a**2 / s**2)
    q = Law(lambda z: Independent(Normal(v * a * z / s**2 + (0 if right else 0.2), math.sqrt(v) * (1 if right else 1.3)), 1))
    return VAE(StandardNormal((1,)).double(), q, Law(lambda u: Independent(Normal(a * u, s), 1)))


def test_two_stages_bound_the_evidence_of_the_whole():
    """z ~ N(0, a^2 + s^2), x | z ~ N(w z, t^2): p(x) is known, and many importance samples find it."""
    w, t, a, s = 1.5, 0.6, 0.8, 0.5
    q = Law(lambda x: Independent(Normal(0.5 * x, 0.4), 1))
    m1 = VAE(StandardNormal((1,)).double(), q, Law(lambda z: Independent(Normal(w * z, t), 1)))
    model, x = TwoStage(m1, linear_second(a, s)), torch.randn(6, 1, dtype=F64)
    exactly = Normal(0.0, math.sqrt(w**2 * (a**2 + s**2) + t**2)).log_prob(x[:, 0])
    trace = model({"x": x}, 20_000)
    assert list(trace) == ["u", "z", "x"] and trace.normalised
    assert torch.allclose(-iwae(trace), exactly, atol=0.05)
    assert (-elbo()(trace) < exactly).all()
    assert model.generate(20_000)["z"].value.std().item() == pytest.approx(math.sqrt(a**2 + s**2), rel=0.03)


def test_the_second_stage_learns_from_the_first_which_stands_still():
    recipe = parse("two_stage:latents=3,hidden=16,width=8,first=0.5").cook(toy_schema(Binary()))
    batch = toy_batch(Binary())
    assert [m.player for p in (0, 4, 5, 9) for m in recipe.play(recipe.parts, batch, Clock(p, 10))] == ["m1", "m1", "m2", "m2"]
    torch.manual_seed(1)
    (move,) = recipe.play(recipe.parts, batch, Clock(9, 10))
    torch.manual_seed(1)
    z = recipe.model.m1.posterior(batch["x"]).rsample().detach()
    assert torch.equal(move.loss, elbo()(recipe.model.m2({"x": z})))


def fitted(samples=1) -> SecondStage:
    prior = SecondStage(2, 3, 8, samples).double().eval()
    prior.loc.copy_(torch.tensor([0.5, -1.0]))
    prior.scale.copy_(torch.tensor([2.0, 0.3]))
    return prior


def test_a_second_stage_estimates_its_density_without_bias():
    """The exponential of `log_prob` has the mean p(z), found here by many draws of p(u); its own mean lies below log p(z)."""
    prior = fitted()
    z = prior().sample((3,))
    u = torch.randn(200_000, 3, dtype=F64)
    with torch.no_grad():
        likelihood = prior.model.likelihood(u)
        at = ((z - prior.loc) / prior.scale).unsqueeze(1)
        exactly = likelihood.log_prob(at).logsumexp(1) - math.log(len(u)) - prior.scale.log().sum()
        many = prior().log_prob(z.expand(4000, 3, 2))
        tight = fitted(64)
        tight.load_state_dict(prior.state_dict())
        tighter = tight().log_prob(z.expand(50, 3, 2))
    weights = (many - exactly).exp()
    assert ((weights.mean(0) - 1).abs() < 5 * weights.std(0) / math.sqrt(4000) + 0.02).all()
    assert (many.mean(0) < exactly + 0.01).all()
    assert ((tighter.mean(0) - exactly).abs() < 0.05).all() and (tighter.mean(0) > many.mean(0) - 0.02).all()


def test_a_second_stage_draws_what_its_density_says():
    prior = fitted()
    z = prior().sample((20_000,))
    u = torch.randn(20_000, 3, dtype=F64)
    with torch.no_grad():
        likelihood = prior.model.likelihood(u)
    wanted = prior.loc + prior.scale * likelihood.mean.mean(0)
    spread = prior.scale * (likelihood.variance.mean(0) + likelihood.mean.var(0)).sqrt()
    assert torch.allclose(z.mean(0), wanted, atol=0.06) and torch.allclose(z.std(0), spread, rtol=0.03)
    assert prior().expand((4,)).sample().shape == (4, 2) and prior().rsample((5,)).requires_grad


def test_a_second_stage_is_fitted_to_what_no_gaussian_describes(tmp_path):
    first = vaestro.train("rae:latents=2,hidden=32", "digits-dynamic", steps=150, out=tmp_path / "first")
    with pytest.warns(Caveat, match=r"nothing makes its codes follow .*: vaestro fit-prior first gmm:components=10$"):
        vaestro.generate(first, 2)
    second = fit_prior(first, "two_stage:upper=2,width=32", out=tmp_path / "second", steps=300)
    (stage,) = second.about["stages"]
    assert stage["log_density"]["after"] > stage["log_density"]["before"] + 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = vaestro.generate(second, 200)
    again = vaestro.open_run(tmp_path / "second")
    assert torch.equal(vaestro.generate(again, 200), drawn)
    x = Rows(first.data().split("test"), first.schema).batch(torch.arange(180))["x"]
    found, z = (vaestro.embed(second, x), second.model.generate(2000)["z"].value)
    assert ((z.mean(0) - found.mean(0)).abs() < 0.3 * found.std(0)).all() and torch.allclose(z.std(0), found.std(0), rtol=0.3)


def test_a_caveat_is_a_note_at_the_terminal_and_none_where_all_is_well(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from vaestro.cli.app import app

    monkeypatch.chdir(tmp_path)
    vaestro.train("ae:latents=2,hidden=8", "digits-dynamic", steps=2, out=tmp_path / "plain")
    vaestro.train("wae_mmd:latents=2,hidden=8", "digits-dynamic", steps=2, out=tmp_path / "matched")
    plain, matched = (CliRunner().invoke(app, ["generate", str(tmp_path / name), "-n", "4", "-o", f"{name}.png"]) for name in ("plain", "matched"))
    assert plain.exit_code == matched.exit_code == 0, plain.output
    assert "Note: ae:latents=2,hidden=8: nothing makes its codes follow the prior" in plain.output and "Note" not in matched.output


def test_a_second_stage_refuses_what_cannot_be():
    latents = Latents((2,), StandardNormal((2,)), nn.Identity(), Field("x", Binary(), (1, 2, 2)))
    for wrong in ({"upper": 0}, {"width": 0}, {"samples": 0}):
        with pytest.raises(UsageError, match="one or more of each"):
            FITTED["two_stage"](latents, **wrong)
    prior = FITTED["two_stage"](latents, upper=1)
    z = 5 + 3 * torch.randn(500, 2)
    fit(prior, z, z, lambda part: {})
    assert torch.allclose(prior.loc, z.mean(0)) and torch.allclose(prior.scale, z.std(0, correction=0), atol=1e-3)
    trace = run(prior.model.program({"z": z[:4]}), sampling((1, 4), {"z": z[:4]}))
    assert trace.normalised
