"""Inference that takes more steps than one pass: the ascent on a row's bound, and the encoder that is let catch up."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from vaestro import api
from vaestro.conditional import Conditional
from vaestro.core import Draw, Seen
from vaestro.data.schema import Binary, Integer, Real
from vaestro.errors import UsageError
from vaestro.evaluation.likelihood import importance
from vaestro.families import Bernoulli, FixedGaussian, Gaussian
from vaestro.models import VAE
from vaestro.models.refined import Ascent, SemiAmortised, exact, straight
from vaestro.networks import mlp
from vaestro.objectives import elbo
from vaestro.plays import Clock, Lead, alone, lagging, mutual_information
from vaestro.priors import StandardNormal
from vaestro.recipes import parse
from vaestro.testing import LinearGaussian, toy_batch, toy_schema
from vaestro.training.export import export_onnx
from vaestro.training.loop import Loop, weights
from vaestro.uses.reconstruct import embed

F64 = torch.float64


def semi(steps: int, size: float = 0.1, slope=straight, family=None, latents: int = 3) -> SemiAmortised:
    """A model of [4] with tanh networks in float64."""
    torch.manual_seed(5)
    q = Conditional(mlp((4,), (2 * latents,), (6,), nn.Tanh), Gaussian())
    p = Conditional(mlp((latents,), (4,), (6,), nn.Tanh), family or Bernoulli())
    model = SemiAmortised(StandardNormal((latents,)), q, p, Ascent(steps, size, slope))
    with torch.no_grad():
        for w in p.parameters():
            w.mul_(3.0)  # a decoder that says something
    return model.double()


def bits(rows: int = 5) -> torch.Tensor:
    return (torch.rand(rows, 4, dtype=F64) > 0.5).double()


def test_without_steps_it_is_the_vae():
    model, x = semi(0), bits()
    plain = VAE(model.prior, model.posterior, model.likelihood)
    torch.manual_seed(1)
    a = model({"x": x}, 3)
    torch.manual_seed(1)
    b = plain({"x": x}, 3)
    assert torch.equal(a.log_w, b.log_w) and torch.equal(elbo()(a), elbo()(b))
    recipes = [parse(f"{n}:latents=3,hidden=8").cook(toy_schema(Binary())) for n in (["semi_amortised", "steps=0,latents=3,hidden=8"][0], "vae")]
    assert [n for n, _ in recipes[0].parts.named_parameters()] == [n for n, _ in recipes[1].parts.named_parameters()]


def test_a_step_is_the_natural_gradient_of_the_bound_at_two_points():
    """Against the derivative of the bound by finite differences, number by number, in units of the scale and clipped to one."""
    x = bits(3)
    for steep in (0.1, 20.0):
        model = semi(1, 0.3)
        with torch.no_grad():
            for w in model.likelihood.parameters():
                w.mul_(steep)
        q = model.posterior(x)
        numbers = torch.cat([q.mean, q.stddev.log()], 1).detach()
        (signs,) = model.signs

        def bound(h, signs=signs, model=model):
            q = Independent(Normal(h[:, :3], h[:, 3:].exp()), 1)
            points = [q.mean + s * q.stddev * signs for s in (1, -1)]
            return sum(model.likelihood(z).log_prob(x) for z in points) / 2 - kl_divergence(q, model.prior())

        slopes = torch.stack([(bound(numbers + e) - bound(numbers - e)) / 2e-6 for e in torch.eye(6, dtype=F64) * 1e-6], 1)
        steps = torch.cat([slopes[:, :3] * q.stddev, slopes[:, 3:] / 2], 1)
        assert 0 < (steps.abs() > 1).sum() < steps.numel()  # some are clipped, and some are not
        steps = steps.clamp(-1, 1)
        found = model.refined({"x": x})
        assert torch.allclose(found.mean, q.mean + 0.3 * q.stddev * steps[:, :3], atol=1e-7)
        assert torch.allclose(found.stddev, q.stddev * (0.3 * steps[:, 3:]).exp(), atol=1e-7)


def test_refined_bounds_are_better_the_more_steps_are_taken():
    x = bits(64)
    bounds = []
    for steps in (0, 1, 4, 16):
        model = semi(steps, 0.1).eval()
        torch.manual_seed(0)
        with torch.no_grad():
            bounds.append(-elbo()(model({"x": x}, 400)).mean().item())
    assert bounds == sorted(bounds) and bounds[-1] > bounds[0] + 0.1


def test_many_steps_reach_the_best_gaussian_of_a_linear_model():
    """On the linear-Gaussian model with orthogonal columns the true posterior is diagonal: the refined q finds it, and every weight is the evidence."""
    W = torch.linalg.qr(torch.randn(4, 2, dtype=F64)).Q * torch.tensor([1.0, 0.5], dtype=F64)
    noise = 0.6
    evidence = MultivariateNormal(torch.zeros(4, dtype=F64), W @ W.T + noise**2 * torch.eye(4, dtype=F64))
    q = Conditional(mlp((4,), (4,), (6,)), Gaussian())
    p = Conditional(mlp((2,), (4,), ()), FixedGaussian(noise))
    model = SemiAmortised(StandardNormal((2,)), q, p, Ascent(60, 0.3)).double()
    with torch.no_grad():
        linear = next(m for m in p.modules() if isinstance(m, nn.Linear))
        linear.weight.copy_(W)
        linear.bias.zero_()
    x = evidence.sample((20,))
    t = model.eval()({"x": x}, 7)
    assert torch.allclose(t.log_w, evidence.log_prob(x).expand(7, 20), atol=1e-3)
    found = model.refined({"x": x})
    precision = 1 + (W * W).sum(0) / noise**2
    assert torch.allclose(found.mean, x @ W / noise**2 / precision, atol=1e-4)
    assert torch.allclose(found.variance, precision.reciprocal().expand(20, 2), atol=1e-4)


def test_importance_weights_of_the_refined_posterior_give_the_evidence():
    """Any q gives an unbiased p(x): 5,000 draws against quadrature over the latents."""
    model, x = semi(3, 0.1, latents=1).eval(), bits(4)
    grid = torch.linspace(-8, 8, 4001, dtype=F64)[:, None, None].expand(4001, 4, 1)
    exact_px = (model.likelihood(grid).log_prob(x) + model.prior().log_prob(grid)).logsumexp(0) + math.log(16 / 4000)
    found = importance(model, {"x": x}, 5000, seed=1)  # under inference mode, where the ascent must still find its gradients
    gap = (torch.from_numpy(found.log_px) - exact_px).abs()
    assert (gap < 5 * torch.from_numpy(found.sampling_error)).all() and gap.max() < 0.05
    before = importance(VAE(model.prior, model.posterior, model.likelihood), {"x": x}, 2000, seed=1)
    assert found.elbo.mean() > before.elbo.mean()


def test_the_exact_slope_differentiates_through_the_ascent():
    """Against finite differences of the whole loss, by every parameter of encoder and decoder."""
    model, x = semi(3, 0.2, exact), bits(3)
    noise = torch.randn(3, 3, dtype=F64)

    def loss():
        q = model.refined({"x": x})
        z = q.mean + q.stddev * noise
        return (model.likelihood(z).log_prob(x) - kl_divergence(q, model.prior())).sum()

    loss().backward()
    for name, w in model.named_parameters():
        for index in range(0, w.numel(), 5):
            with torch.no_grad():
                flat = w.view(-1)
                flat[index] += 1e-6
                up = loss()
                flat[index] -= 2e-6
                down = loss()
                flat[index] += 1e-6
            assert w.grad.view(-1)[index].item() == pytest.approx(((up - down) / 2e-6).item(), rel=1e-4, abs=1e-6), name


def test_the_straight_slope_trains_nothing_through_itself():
    x, noise = bits(3), torch.randn(3, 3, dtype=F64)
    grads = {}
    for slope in (straight, exact):
        model = semi(3, 0.2, slope)
        q = model.refined({"x": x})
        (model.likelihood(q.mean + q.stddev * noise).log_prob(x) - kl_divergence(q, model.prior())).sum().backward()
        grads[slope] = [w.grad for w in model.parameters()]
    model = semi(3, 0.2)
    first, last = model.posterior(x), model.refined({"x": x})
    ratio = (last.stddev / first.stddev).detach()
    q = Independent(Normal(first.mean + (last.mean - first.mean).detach(), first.stddev * ratio), 1)
    (model.likelihood(q.mean + q.stddev * noise).log_prob(x) - kl_divergence(q, model.prior())).sum().backward()
    held = [w.grad for w in model.likelihood.parameters()]
    assert all(torch.allclose(w, g) for w, g in zip(held, grads[straight][-len(held) :], strict=True))
    assert not all(torch.allclose(a, b) for a, b in zip(grads[straight], grads[exact], strict=True))


def test_what_was_not_seen_does_not_steer_the_refinement():
    model, x = semi(4, 0.3).eval(), bits(4)
    rows, entries = torch.tensor([True, False, True, True]), torch.rand(4, 4) > 0.4
    for mask in (rows, entries):
        wide = mask if mask.dim() == 2 else mask[:, None]
        a, b = (model.refined({"x": Seen(torch.where(wide, x, other), mask)}) for other in (0.0, torch.nan))
        assert torch.equal(a.mean, b.mean) and a.mean.isfinite().all()
    unseen = model.refined({"x": Seen(x, rows)})
    lazy = SemiAmortised(model.prior, model.posterior, model.likelihood, Ascent(80, 0.3)).double()
    settled = lazy.refined({"x": Seen(x, rows)})
    assert torch.allclose(settled.mean[1], torch.zeros(3, dtype=F64), atol=1e-3)  # nothing was seen of it, so the best q is the prior
    assert torch.allclose(settled.stddev[1], torch.ones(3, dtype=F64), atol=1e-3)
    assert unseen.mean.shape == (4, 3)


def test_refinement_without_gradients_leaves_none_and_changes_no_parameter():
    model, x = semi(3), bits()
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        q = model.refined({"x": x})
        assert not q.mean.requires_grad
        state = torch.get_rng_state()
        model.refined({"x": x})
        assert torch.equal(state, torch.get_rng_state())
    with torch.inference_mode():
        inside = model.refined({"x": x.clone()})
    assert torch.equal(inside.mean, q.mean) and torch.equal(model.refined({"x": x}).mean, q.mean)
    assert all(w.grad is None for w in model.parameters())
    assert all(torch.equal(before[n], w) for n, w in model.state_dict().items())


def test_what_cannot_be_refined_is_refused():
    model = semi(2)
    with pytest.raises(UsageError, match="size 0"):
        SemiAmortised(model.prior, model.posterior, model.likelihood, Ascent(2, 0.0))
    with pytest.raises(UsageError, match="diagonal Gaussian"):
        SemiAmortised(model.prior, Conditional(mlp((4,), (3,), ()), Bernoulli()), model.likelihood, Ascent()).double().refined({"x": bits()})
    with pytest.raises(UsageError, match="slope=straight"):
        parse("semi_amortised:slope=exact").cook(toy_schema(Integer(5)))
    with pytest.raises(UsageError, match="did you mean"):
        parse("semi_amortised:slope=exakt")
    with pytest.raises(UsageError, match="steps should be greater than or equal to 0"):
        parse("semi_amortised:steps=-1")


def test_no_file_can_hold_a_refinement(tmp_path):
    pytest.importorskip("onnxscript")
    x = (torch.rand(30, 1, 4, 4) > 0.5).to(torch.uint8).numpy()
    run = api.train("semi_amortised:hidden=8,latents=2", x, steps=2, out=tmp_path / "run")
    with pytest.raises(UsageError, match=r"by gradients, which no file can hold; use vaestro\.embed"):
        export_onnx(run, tmp_path / "model.onnx")
    assert torch.equal(embed(run, torch.from_numpy(x[:3]).float()), run.model.refined({"x": torch.from_numpy(x[:3]).float()}).mean)


@pytest.mark.parametrize("call", ["semi_amortised:steps=2", "semi_amortised:steps=2,slope=exact", "lagging:inner=2", "geco:speed=1", "curriculum:start=0.1"])
def test_mixed_precision_trains_with_finite_numbers(call):
    loop = Loop(parse(f"{call},hidden=16,latents=3,precision=bfloat16").cook(toy_schema(Binary())), 0, 5, torch.device("cpu"))
    for _ in range(5):
        loop.step(lambda: toy_batch(Binary()))
    assert int(loop.skipped) == 0 and all(math.isfinite(v) for v in loop.flush().values())
    assert all(w.dtype == torch.float32 and w.isfinite().all() for w in weights(loop.parts).values())


def test_training_reports_and_follows_the_bound_after_refinement():
    recipe = parse("semi_amortised:latents=2,hidden=8,steps=3,slope=exact").cook(toy_schema(Binary()))
    batch = toy_batch(Binary())
    torch.manual_seed(4)
    (move,) = recipe.play(recipe.parts, batch, Clock(0, 1))
    torch.manual_seed(4)
    t = recipe.model(batch)
    assert torch.equal(move.loss, elbo()(t))
    assert torch.equal(t["z"].posterior.mean, recipe.model.refined(batch).mean)


def informed(q, z) -> Draw:
    return Draw(z, Independent(Normal(torch.zeros_like(q.mean[0]), 1.0), 1), q, 0.0, 0.0, False)


def test_mutual_information_against_its_definition_and_its_limits():
    q = Independent(Normal(torch.randn(5, 2, dtype=F64) * 3, 0.5), 1)
    z = q.sample((3,))
    each = torch.stack([Independent(Normal(q.mean[j], 0.5), 1).log_prob(z[0]) for j in range(5)])
    direct = torch.stack([each[i, i] - each[:, i].exp().mean().log() for i in range(5)]).mean()
    assert torch.allclose(mutual_information(informed(q, z)), direct)
    far = Independent(Normal(torch.arange(8.0)[:, None] * 100, 1.0), 1)
    assert mutual_information(informed(far, far.sample())).item() == pytest.approx(math.log(8))  # every row is told apart
    same = Independent(Normal(torch.zeros(8, 2), 1.0), 1)
    assert mutual_information(informed(same, same.sample((2,)))).item() == pytest.approx(0.0, abs=1e-6)
    assert mutual_information(informed(Independent(Normal(torch.ones(1, 2), 1.0), 1), torch.zeros(1, 1, 2))).item() == pytest.approx(0.0)
    deep = Independent(Normal(torch.zeros(3, 5, 2), 1.0), 1)
    with pytest.raises(UsageError, match="x alone"):
        mutual_information(Draw(z, same, deep, 0.0, 0.0, False))


def test_the_lead_ends_when_information_stops_rising_and_never_returns():
    lead = Lead()
    assert lead.holds()
    for window, expected in (([1.0, 2.0], True), ([1.6], True), ([], True), ([1.6], False), ([9.0], False)):
        for information in window:
            lead.track(torch.tensor(information))
        lead.judge()
        assert lead.holds() == expected
    lead = Lead()
    lead.track(torch.tensor(math.nan))
    lead.judge()
    assert lead.holds() and float(lead.best) == -1.0
    with torch.no_grad():
        lead.on.copy_(torch.tensor(0.0))  # as when a run is resumed
    assert not lead.holds()


def test_lagging_with_one_inner_step_is_the_vae_of_two_players():
    schema, batch = toy_schema(Binary()), toy_batch(Binary())
    recipe = parse("lagging:inner=1,latents=2,hidden=8").cook(schema)
    torch.manual_seed(1)
    moves = [(m.player, m.loss.detach()) for m in recipe.play(recipe.parts, batch, Clock(0, 10))]
    torch.manual_seed(1)
    (first,) = alone(elbo())(recipe.parts, batch, Clock(0, 10))
    (second,) = alone(elbo())(recipe.parts, batch, Clock(0, 10))
    assert [p for p, _ in moves] == ["encoder", "decoder"]
    assert torch.equal(moves[0][1], first.loss) and torch.equal(moves[1][1], second.loss)


@pytest.mark.parametrize(("leading", "players"), [(1.0, ["encoder"] * 4 + ["decoder"]), (0.0, ["encoder", "decoder"])])
def test_the_encoder_leads_by_inner_moves_and_no_longer(leading, players):
    parts = nn.ModuleDict({"model": LinearGaussian().wrong, "lead": Lead()})
    parts["lead"].on.fill_(leading)
    x = LinearGaussian().evidence.sample((6,))
    moves = list(lagging(elbo(), 4)(parts, {"x": x}, Clock(1, 100)))
    assert [m.player for m in moves] == players
    assert [m.trace is not None for m in moves] == [False] * (len(players) - 1) + [True]  # the model's parts look once a step
    assert float(parts["lead"].steps) == leading


def test_the_table_shows_the_mean_of_several_moves_and_not_their_sum():
    recipe = parse("lagging:inner=5,latents=2,hidden=8,learning_rate=1e-9").cook(toy_schema(Binary()))
    loop = Loop(recipe, 0, 100, torch.device("cpu"))
    for _ in range(4):
        loop.step(lambda: toy_batch(Binary()))
    line = loop.flush()
    assert line["loss_encoder"] == pytest.approx(line["loss_decoder"], rel=0.1)
    assert line["lead"] == 1.0 and line["information"] >= 0


def test_the_run_stops_leading_by_itself():
    """Rows of noise have nothing to tell: the information of the latents falls within some windows, and the lead ends."""
    recipe = parse("lagging:inner=3,latents=2,hidden=8,learning_rate=0.01,likelihood=gaussian_fixed").cook(toy_schema(Real(), (4,)))
    loop = Loop(recipe, 0, 200, torch.device("cpu"))
    for _ in range(200):
        loop.step(lambda: {"x": torch.randn(32, 4)})
    assert not recipe.parts["lead"].holds()


@pytest.mark.parametrize("call", ["lagging:inner=3", "semi_amortised:steps=2", "semi_amortised:steps=2,slope=exact"])
def test_they_resume_exactly_and_take_single_rows_and_single_latents(call):
    schema = toy_schema(Binary())
    text = call + ",hidden=8,latents=3,ema=0.9,clip=1"
    batches = [toy_batch(Binary()) for _ in range(9)]
    loops = [Loop(parse(text).cook(schema), 3, 100, torch.device("cpu")) for _ in range(2)]
    for batch in batches[:5]:  # at 100 steps a window is two steps, so this stops inside one
        loops[0].step(lambda batch=batch: batch)
    loops[1].load({n: t.clone() for n, t in loops[0].state().items()})
    for loop in loops:
        for batch in batches[5:]:
            loop.step(lambda batch=batch: batch)
    a, b = (loop.state() for loop in loops)
    assert a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)
    small = Loop(parse(f"{call},hidden=8,latents=1").cook(schema), 0, 4, torch.device("cpu"))
    for _ in range(4):
        small.step(lambda: {"x": batches[0]["x"][:1]})
    assert int(small.skipped) == 0 and all(w.isfinite().all() for w in weights(small.parts).values())
