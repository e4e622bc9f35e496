"""Estimators of gradients: their exact mean and variance by enumerating every draw, or against closed forms by many draws."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal

from vaestro import api
from vaestro.conditional import Conditional
from vaestro.core import Seen, replaying, run, scores
from vaestro.data.schema import Binary, Real
from vaestro.errors import UsageError
from vaestro.families import Bernoulli, Gaussian
from vaestro.models import VAE, Step, TopDown
from vaestro.networks import mlp
from vaestro.objectives import dreg as dreg_bound
from vaestro.objectives import iwae, mean_exp, miwae, reinforce, tvo, vimco
from vaestro.objectives.gradients import log_q
from vaestro.objectives.thermodynamic import log_uniform
from vaestro.plays import Baseline, Clock, alone, dreg, nvil, piwae, rws, scored, stl, without_path
from vaestro.plays.score import rescored
from vaestro.plays.wake_sleep import asleep, awake
from vaestro.posteriors.base import POSTERIORS, amortised
from vaestro.posteriors.geometric import Wrapped
from vaestro.priors import BernoulliPrior, GaussianMixture, StandardNormal, Vamp
from vaestro.recipes import parse
from vaestro.testing import LinearGaussian, toy_batch, toy_schema
from vaestro.testing.linear import Law
from vaestro.training.diagnosis import diagnose
from vaestro.training.export import export_onnx
from vaestro.training.loop import Loop
from vaestro.uses.generate import generate
from vaestro.uses.reconstruct import embed, reconstruct

BITS, PIXELS = 3, 4
CLOCK = Clock(0, 10)


def strings(n: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=n)), dtype=torch.float64)


def stir(model: nn.Module, scale: float = 0.7) -> nn.Module:
    """`model` in float64 with weights large enough to matter."""
    model = model.double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * scale)
    return model


@pytest.fixture
def bits() -> VAE:
    """A model of three bits and four pixels, of which everything can be enumerated."""
    q, p = (Conditional(mlp((i,), (o,), ()), Bernoulli()) for i, o in ((PIXELS, BITS), (BITS, PIXELS)))
    return stir(VAE(BernoulliPrior(BITS), q, p))


X = torch.tensor([[1.0, 0.0, 1.0, 1.0]], dtype=torch.float64)


def every_draw(model, k, x=X):
    """A trace whose rows are all 8^k ways to draw k times, and their probabilities, with gradients."""
    picks = torch.cartesian_prod(*[torch.arange(2**BITS)] * k).reshape(-1, k).T
    batch = {"x": x.expand(picks.shape[1], -1)}
    trace = run(model.program(batch), replaying({"z": strings(BITS)[picks], "x": batch["x"]}))
    return trace, log_q(trace).sum(0).exp()


def gradients(loss, model):
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, model.parameters(), strict=True)]


def same(found, wanted, atol=1e-10):
    for f, w in zip(found, wanted, strict=True):
        torch.testing.assert_close(f, w, rtol=1e-8, atol=atol)


ESTIMATORS = [
    pytest.param(vimco, iwae, 2, id="vimco of two"),
    pytest.param(vimco, iwae, 3, id="vimco of three"),
    pytest.param(reinforce(), miwae(1), 1, id="reinforce"),
    pytest.param(reinforce(-7.5), miwae(1), 2, id="reinforce against a number"),
    pytest.param(reinforce(torch.tensor([3.0], dtype=torch.float64)), miwae(1), 2, id="reinforce against a baseline for each row"),
    pytest.param(tvo(1), miwae(1), 2, id="tvo of one partition"),
    pytest.param(tvo(1), miwae(1), 3, id="tvo of one partition, three draws"),
]


@pytest.mark.parametrize(("estimator", "bound", "k"), ESTIMATORS)
def test_the_mean_gradient_is_that_of_the_mean_bound(bits, estimator, bound, k):
    trace, probability = every_draw(bits, k)
    loss = estimator(trace)
    assert torch.allclose(loss, bound(trace), rtol=1e-12), "the value that is reported is the bound"
    same(gradients((probability.detach() * loss).sum(), bits), gradients((probability * bound(trace)).sum(), bits))


@pytest.mark.parametrize(("estimator", "bound", "k"), ESTIMATORS)
def test_the_mean_gradient_is_exact_for_several_sites(estimator, bound, k):
    """One bit above two: q(z2 | z1, x) reads what was drawn above."""

    def step(n):
        return Step(Conditional(mlp((3,), (n,), ()), Bernoulli()), Conditional(mlp((6,), (n,), ()), Bernoulli()), mlp((3 + n,), (3,), ()))

    model = stir(TopDown(mlp((PIXELS,), (3,), ()), [step(1), step(2)], Conditional(mlp((3,), (PIXELS,), ()), Bernoulli()), 3))
    picks = torch.cartesian_prod(*[torch.arange(2**BITS)] * k).reshape(-1, k).T
    z, x = strings(BITS)[picks], X.expand(picks.shape[1], -1)
    trace = run(model.program({"x": x}), replaying({"z1": z[..., :1], "z2": z[..., 1:], "x": x}))
    probability = log_q(trace).sum(0).exp()
    torch.testing.assert_close(probability.sum(), torch.ones_like(probability[0]))
    same(gradients((probability.detach() * estimator(trace)).sum(), model), gradients((probability * bound(trace)).sum(), model))


def test_the_gradient_of_the_plain_value_is_not(bits):
    trace, probability = every_draw(bits, 2)
    wrong = gradients((probability.detach() * iwae(trace)).sum(), bits)
    right = gradients((probability * iwae(trace)).sum(), bits)
    assert max((w - r).abs().max() for w, r in zip(wrong, right, strict=True)) > 0.1


def exact_tvo(model, betas):
    """The left Riemann sum with its integrals done by enumeration."""
    z = strings(BITS)
    batch = {"x": X.expand(len(z), -1)}
    t = run(model.program(batch), replaying({"z": z, "x": batch["x"]}))
    terms = [(b - a) * ((log_q(t) + a * t.log_w).softmax(0) * t.log_w).sum() for a, b in itertools.pairwise(betas)]
    return -torch.stack(terms).sum(), t


@pytest.mark.parametrize(("partitions", "first"), [(2, 0.3), (5, 0.08)])
def test_the_thermodynamic_gradient_converges_to_that_of_the_bound(bits, partitions, first):
    exact, t = exact_tvo(bits, log_uniform(partitions, first, X))
    evidence = (log_q(t) + t.log_w).logsumexp(0)
    assert exact > -evidence
    drawn = bits({"x": X}, 200_000)
    loss = tvo(partitions, first)(drawn)
    assert torch.allclose(loss, exact, atol=0.02)
    for found, wanted in zip(gradients(loss.sum(), bits), gradients(exact, bits), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0.03, atol=0.02)


def per_row(bits, k, estimator):
    """Mean and variance over every draw of the gradient by the logits of q, exactly: the logits are a leaf of one row for each way to draw."""
    n = 2 ** (BITS * k)
    logits = bits.posterior(X).base_dist.logits.detach().expand(n, BITS).clone().requires_grad_()
    model = VAE(bits.prior, Law(lambda x: Bernoulli()(logits)), bits.likelihood)
    trace, probability = every_draw(model, k)
    (each,) = torch.autograd.grad(estimator(trace).sum(), logits)
    p = probability.detach()[:, None]
    mean = (p * each).sum(0)
    return mean, (p * (each - mean).square()).sum(0)


def plain_reinforce(trace):
    """REINFORCE on the importance-weighted bound, without any baseline."""
    return iwae(trace) + (iwae(trace).detach() * log_q(trace)).sum(0)


def test_vimco_has_less_variance_than_reinforce_on_the_same_bound(bits):
    for k in (2, 3):
        mean, variance = per_row(bits, k, vimco)
        other_mean, other = per_row(bits, k, plain_reinforce)
        torch.testing.assert_close(mean, other_mean)
        assert (variance < 0.5 * other).all()


def test_a_baseline_near_the_evidence_lowers_the_variance(bits):
    trace, probability = every_draw(bits, 1)
    expected = float((probability * trace.log_w).sum().detach())
    mean, variance = per_row(bits, 1, reinforce(expected))
    other_mean, other = per_row(bits, 1, reinforce())
    torch.testing.assert_close(mean, other_mean)
    assert (variance < 0.7 * other).all()


def test_vimco_replaces_a_weight_by_the_geometric_mean_of_the_others(bits):
    trace, _ = every_draw(bits, 3)
    log_w = trace.log_w.detach()
    log_q_leaf = torch.zeros_like(log_w).requires_grad_()
    held = trace["z"]._replace(log_q=log_q_leaf, log_p=0.0)
    rest = trace["x"]._replace(log_p=log_w)
    (signal,) = torch.autograd.grad(-vimco(type(trace)(z=held, x=rest)).sum(), log_q_leaf)
    for j in range(3):
        others = [w for i, w in enumerate(log_w) if i != j]
        swapped = torch.stack([*others, sum(others) / 2])
        wanted = mean_exp(log_w) - mean_exp(swapped) - log_w.softmax(0)[j]  # the last is d L / d log q_j, for log w holds - log q
        torch.testing.assert_close(signal[j], wanted)


def test_scores_refuse_a_single_draw_in_words(bits):
    one = bits({"x": X}, 1)
    with pytest.raises(UsageError, match="take 2 samples or more"):
        vimco(one)
    with pytest.raises(UsageError, match="take 2 samples or more"):
        tvo(3)(one)
    with torch.no_grad():
        assert tvo(3)(bits({"x": X}, 1)).shape == (1,)


def test_draws_with_a_path_take_it():
    world = LinearGaussian()
    shift = torch.full((2,), 0.2, dtype=torch.float64, requires_grad=True)
    law = world.wrong.posterior.law
    model = VAE(world.prior, Law(lambda x: MultivariateNormal(law(x).loc + shift, law(x).covariance_matrix)), world.likelihood)
    t = model({"x": world.evidence.sample((3,))}, 4)
    for estimator, plain in ((vimco, iwae), (reinforce(5.0), miwae(1))):
        assert torch.equal(gradients_of(estimator(t), shift), gradients_of(plain(t), shift))
    assert not torch.equal(gradients_of(tvo(3)(t), shift), torch.zeros(2, dtype=torch.float64))


def gradients_of(loss, leaf):
    return torch.autograd.grad(loss.sum(), leaf, retain_graph=True)[0]


def rows_of(world, shift, rows, x):
    """The linear-Gaussian model whose posterior is moved, with a leaf for each row: the gradients of the rows are independent draws of the estimator."""
    leaf = torch.full((rows, 2), shift, dtype=torch.float64, requires_grad=True)
    spread = torch.full((rows, 1, 1), math.sqrt(1.5), dtype=torch.float64, requires_grad=True)
    base = world.right.posterior.law
    chol = torch.linalg.cholesky(world.S)
    law = Law(lambda y: MultivariateNormal(base(y).loc + leaf, scale_tril=spread * chol, validate_args=False))
    return VAE(world.prior, law, world.likelihood), {"x": x.expand(rows, -1)}, (leaf, spread)


def each_row(play, model, batch, leaves):
    (move,) = play(nn.ModuleDict({"model": model}), batch, CLOCK)
    return torch.cat([g.flatten(1) for g in torch.autograd.grad(move.loss.sum(), leaves)], 1), move.loss.detach()


@pytest.fixture(scope="module")
def world() -> LinearGaussian:
    return LinearGaussian()


def test_sticking_the_landing_is_silent_at_the_true_posterior(world):
    x = world.evidence.sample((5,))
    A, L = (world.S @ world.W.T / world.noise**2).clone().requires_grad_(), torch.linalg.cholesky(world.S).clone().requires_grad_()
    model = VAE(world.prior, Law(lambda y: MultivariateNormal(y @ A.T, scale_tril=L, validate_args=False)), world.likelihood)
    for samples in (1, 3):
        torch.manual_seed(5)
        (move,) = stl(samples)(nn.ModuleDict({"model": model}), {"x": x}, CLOCK)
        torch.manual_seed(5)
        (noisy,) = alone(miwae(1), samples)(nn.ModuleDict({"model": model}), {"x": x}, CLOCK)
        assert torch.equal(move.loss, noisy.loss)
        for leaf in (A, L):
            assert gradients_of(move.loss, leaf).abs().max() < 1e-9
            assert gradients_of(noisy.loss, leaf).abs().max() > 0.1


@pytest.mark.parametrize("samples", [1, 3])
def test_sticking_the_landing_has_the_exact_mean(world, samples):
    rows = 20_000
    x = world.evidence.sample((1,))
    model, batch, leaves = rows_of(world, 0.1, rows, x)
    each, loss = each_row(stl(samples), model, batch, leaves)
    shift, widen = torch.full((2,), 0.1, dtype=torch.float64, requires_grad=True), torch.tensor(math.sqrt(1.5), dtype=torch.float64, requires_grad=True)
    kl = 0.5 * (2 * widen**2 - 2 - 4 * widen.log() + shift @ torch.linalg.solve(world.S, shift))
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(kl, (shift, widen))])
    assert ((each.mean(0) - exact).abs() < 5 * each.std(0) / math.sqrt(rows)).all()
    assert abs(loss.mean() + world.evidence.log_prob(x) - kl.detach()) < 5 * loss.std() / math.sqrt(rows)


def test_the_doubly_reparameterised_gradient_has_the_mean_and_not_the_noise(world):
    """With k draws the signal-to-noise of the plain gradient falls as 1 / sqrt(k), and that of the doubly reparameterised one rises as sqrt(k)."""
    rows, x, clear = 4000, world.evidence.sample((1,)), {}
    for k in (1, 4, 32):
        model, batch, leaves = rows_of(world, 0.05, rows, x)
        plain, values = each_row(alone(iwae, k), model, batch, leaves)
        double, other = each_row(dreg(k), model, batch, leaves)
        assert ((plain.mean(0) - double.mean(0)).abs() < 5 * ((plain.var(0) + double.var(0)) / rows).sqrt()).all()
        assert abs(values.mean() - other.mean()) < 5 * math.sqrt((values.var() + other.var()) / rows)
        clear[k] = [(g.mean(0).abs() / g.std(0)).norm() for g in (plain, double)]
    assert clear[32][1] > 2 * clear[1][1]
    assert clear[32][1] > 5 * clear[32][0]


def shared(kind: str) -> VAE | TopDown:
    """Models whose generative side is learnt: a mixture, a prior that shares the posterior's weights, and a ladder of two sites."""
    likelihood = Conditional(mlp((2,), (PIXELS,), (5,)), Bernoulli())
    posterior = Conditional(mlp((PIXELS,), (4,), (5,)), Gaussian())
    if kind == "ladder":

        def step() -> Step:
            return Step(Conditional(mlp((3,), (4,), ()), Gaussian()), Conditional(mlp((6,), (4,), ()), Gaussian()), mlp((5,), (3,), ()))

        return stir(TopDown(mlp((PIXELS,), (3,), ()), [step(), step()], Conditional(mlp((3,), (PIXELS,), ()), Bernoulli()), 3), 0.4)
    prior = {"normal": StandardNormal((2,)), "mixture": GaussianMixture(2, 3), "vamp": Vamp(posterior, torch.rand(3, PIXELS))}[kind]
    return stir(VAE(prior, posterior, likelihood), 0.5)


@pytest.mark.parametrize("kind", ["normal", "mixture", "vamp", "ladder"])
@pytest.mark.parametrize(("play", "plain"), [(stl(2), alone(miwae(1), 2)), (dreg(3), alone(iwae, 3))], ids=["stl", "dreg"])
def test_paths_have_the_plain_mean_for_every_parameter(kind, play, plain):
    model = shared(kind)
    parts, rows, chunks = nn.ModuleDict({"model": model}), 400, 40
    found = {0: [], 1: []}
    for i, estimator in enumerate((play, plain)):
        for _ in range(chunks):
            (move,) = estimator(parts, {"x": X.expand(rows, -1)}, CLOCK)
            found[i].append(torch.cat([g.flatten() for g in gradients(move.loss.mean(), model)]))
    a, b = (torch.stack(found[i]) for i in (0, 1))
    error = ((a.var(0) + b.var(0)) / chunks).sqrt()
    assert ((a.mean(0) - b.mean(0)).abs() <= 6 * error + 1e-12).all()
    assert (a.mean(0) != 0).float().mean() > 0.9


@pytest.mark.parametrize("kind", ["normal", "mixture", "vamp"])
def test_one_run_and_two_give_the_same_doubly_reparameterised_gradient(kind):
    model = shared(kind)
    batch = {"x": torch.rand(6, PIXELS, dtype=torch.float64).round()}
    torch.manual_seed(3)
    (move,) = dreg(4)(nn.ModuleDict({"model": model}), batch, CLOCK)
    torch.manual_seed(3)
    trace = model(batch, 4)
    loss = dreg_bound(trace, rescored(model, batch, trace))
    assert torch.equal(loss, move.loss)
    same(gradients(loss.sum(), model), gradients(move.loss.sum(), model))


@pytest.mark.parametrize("name", [*POSTERIORS, "poincare"])
def test_every_posterior_follows_the_doubly_reparameterised_gradient(name):
    """Flows, and normals of the ball, score the noise or the rounding of a draw: its value says nothing of that path."""
    field = toy_schema(Real(), (PIXELS,))["x"]
    q = amortised(field, Wrapped(2, 1.0), mlp, (8,)) if name == "poincare" else POSTERIORS[name](field, 2, mlp, (8,))
    model = VAE(StandardNormal((2,)), q, Conditional(mlp((2,), (PIXELS,), (5,)), Bernoulli()))
    model = model if name == "poincare" else stir(model, 0.3)
    batch = {"x": X.expand(6, -1).to(next(model.parameters()).dtype)}
    if not scores(q(batch["x"])):
        pytest.skip("it scores no stranger, and the play refuses it")
    torch.manual_seed(3)
    (move,) = dreg(4)(nn.ModuleDict({"model": model}), batch, CLOCK)
    torch.manual_seed(3)
    trace = model(batch, 4)
    wanted = gradients(dreg_bound(trace, rescored(model, batch, trace)).sum(), q)
    found = gradients(move.loss.sum(), q)
    error = max((f - w).abs().max() for f, w in zip(found, wanted, strict=True)) / max(w.abs().max() for w in wanted)
    assert error < (1e-4 if name == "poincare" else 1e-10)


def test_holding_a_trace_scores_it_as_it_was():
    model = shared("ladder")
    x = torch.rand(6, PIXELS, dtype=torch.float64).round()
    half = torch.arange(6) < 3
    for batch in ({"x": x}, {"x": Seen(x, half)}, {"x": Seen(x, torch.rand(6, PIXELS) < 0.5)}):
        trace = model(batch, 3)
        again = rescored(model, batch, trace)
        torch.testing.assert_close(again.log_w, trace.log_w)
        torch.testing.assert_close(again.log_px, trace.log_px)
        assert not any(d.value.requires_grad for d in again.values())


def test_draws_without_a_path_are_the_same_draws():
    model = shared("ladder")
    batch = {"x": Seen(torch.rand(6, PIXELS, dtype=torch.float64).round(), torch.arange(6) < 3)}
    torch.manual_seed(1)
    with_path = model(batch, 3)
    torch.manual_seed(1)
    cut = model(batch, 3, choosing=without_path)
    torch.testing.assert_close(cut.log_w, with_path.log_w)
    assert all(d.value.requires_grad for d in with_path.latents.values()) and not any(d.value.requires_grad for d in cut.latents.values())


class Labelled(VAE):
    """Its latent is data too, and given for some rows."""

    observed = ("x", "z")


PLAYS = {"vimco": scored(vimco, 3), "reinforce": scored(reinforce(1.0), 3), "tvo": scored(tvo(4), 3), "stl": stl(3), "dreg": dreg(3), "rws": rws(3)}


@pytest.mark.parametrize(("name", "kind"), [(n, k) for n in PLAYS for k in ("normal", "bits") if k == "normal" or n not in ("stl", "dreg")])
def test_rows_whose_latents_are_given_teach_the_encoder_nothing(name, kind, bits):
    model = bits if kind == "bits" else shared("normal")
    x = torch.rand(6, PIXELS, dtype=torch.float64).round()
    z = strings(BITS)[:6] if kind == "bits" else torch.randn(6, 2, dtype=torch.float64)
    seen = torch.tensor([True, False, True, True, False, True])
    z = torch.where(seen[:, None], z, math.nan)
    out = model.posterior(x)
    params = out.base_dist.logits if kind == "bits" else torch.cat([out.base_dist.loc, out.base_dist.scale], -1)
    leaf = params.detach().clone().requires_grad_()
    q = Law(lambda _: Bernoulli()(leaf) if kind == "bits" else Independent(Normal(*leaf.chunk(2, -1), validate_args=False), 1, validate_args=False))
    parts = nn.ModuleDict({"model": Labelled(model.prior, q, model.likelihood)})
    for move in PLAYS[name](parts, {"x": x, "z": Seen(z, seen)}, CLOCK):
        assert move.loss.isfinite().all()
        gradient = torch.autograd.grad(move.loss.sum(), leaf, allow_unused=True, retain_graph=True)[0]
        if move.player == "decoder":
            continue
        assert (gradient[seen] == 0).all() and (gradient[~seen] != 0).any(-1).all()
        trained = gradients(move.loss.sum(), model.likelihood) if move.player == "model" else []
        assert all(g.isfinite().all() for g in trained)


def test_what_cannot_follow_a_path_is_refused_in_words(bits):
    parts = nn.ModuleDict({"model": bits})
    for play in (stl(), dreg(2)):
        with pytest.raises(UsageError, match=r"those of 'z' \(Bernoullis\) carry none; use vimco"):
            list(play(parts, {"x": X}, CLOCK))


class OneWay(Independent):
    """A distribution that scores only its own draws."""


@scores.register
def _(dist: OneWay) -> bool:
    return False


def test_what_cannot_score_a_held_value_is_refused_in_words():
    base = shared("normal")
    model = VAE(base.prior, Law(lambda x: OneWay(base.posterior(x).base_dist, 1)), base.likelihood)
    for play in (stl(), dreg(2), scored(vimco, 2), rws(2)):
        with pytest.raises(UsageError, match=r"\(OneWay\) cannot score a value held fixed"):
            list(play(nn.ModuleDict({"model": model}), {"x": X}, CLOCK))
    (move,) = alone(iwae, 2)(nn.ModuleDict({"model": model}), {"x": X}, CLOCK)
    assert move.loss.isfinite().all()


def test_mixed_draws_are_refused_in_words():
    model = shared("ladder")
    model.steps[0].posterior = Conditional(mlp((6,), (2,), ()), Bernoulli()).double()
    model.steps[0].prior = Conditional(mlp((3,), (2,), ()), Bernoulli()).double()
    with pytest.raises(UsageError, match="only the draws of z2 carry a gradient"):
        vimco(model({"x": X}, 3))
    assert vimco(model({"x": X}, 3, choosing=without_path)).isfinite().all()


def test_piwae_gives_each_player_its_own_bound():
    model = shared("normal")
    parts, batch = nn.ModuleDict({"model": model}), {"x": X.expand(4, -1)}
    torch.manual_seed(2)
    moves = list(piwae(6, 3)(parts, batch, CLOCK))
    torch.manual_seed(2)
    first, second = model(batch, 6), model(batch, 6)
    assert [m.player for m in moves] == ["decoder", "encoder"]
    assert torch.equal(moves[0].loss, iwae(first)) and torch.equal(moves[1].loss, miwae(3)(second))
    with pytest.raises(UsageError, match="groups of 4 draws, and 6 do not divide"):
        piwae(6, 4)


def joint(model):
    """log p(x, z) and log q(z | x) of every (x, z), [16, 8]."""
    x, z = strings(PIXELS), strings(BITS)
    batch = {"x": x.repeat_interleave(len(z), 0)}
    t = run(model.program(batch), replaying({"z": z.repeat(len(x), 1), "x": batch["x"]}))
    return (log_q(t) + t.log_w).reshape(16, 8), log_q(t).reshape(16, 8)


def test_the_wake_phase_converges_to_the_inclusive_divergence(bits):
    batch = {"x": X}
    row = int((strings(PIXELS) == X).all(-1).nonzero())
    log_joint, scored_ = joint(bits)
    exact = -(log_joint[row].softmax(0).detach() * scored_[row]).sum()
    loss = awake(bits, batch, 100_000)
    assert torch.allclose(loss, exact, atol=0.02)
    for found, wanted in zip(gradients(loss.sum(), bits.posterior), gradients(exact, bits.posterior), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.02)
    assert all((g == 0).all() for g in gradients(loss.sum(), bits.likelihood))


def test_the_sleep_phase_is_unbiased_about_dreams(bits):
    log_joint, scored_ = joint(bits)
    assert torch.allclose(log_joint.exp().sum(), torch.tensor(1.0, dtype=torch.float64))
    exact = -(log_joint.exp().detach() * scored_).sum()
    loss = asleep(bits, {"x": X.expand(100_000, -1)})
    assert loss.shape == (100_000,)
    assert abs(loss.mean() - exact) < 5 * loss.std() / math.sqrt(100_000)
    for found, wanted in zip(gradients(loss.mean(), bits.posterior), gradients(exact, bits.posterior), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0.01)


def test_wake_and_sleep_are_mixed_by_their_share(bits):
    batch, parts = {"x": X.expand(5, -1)}, nn.ModuleDict({"model": bits})
    for share in (0.0, 0.3, 1.0):
        torch.manual_seed(4)
        decoder, encoder = rws(3, share)(parts, batch, CLOCK)
        torch.manual_seed(4)
        assert torch.equal(decoder.loss, iwae(bits(batch, 3, choosing=without_path)))
        wake = awake(bits, batch, 3) if share < 1 else 0.0
        sleep = asleep(bits, batch) if share > 0 else 0.0
        assert torch.allclose(encoder.loss, (1 - share) * wake + share * sleep)
        assert [decoder.player, encoder.player] == ["decoder", "encoder"]
    with pytest.raises(UsageError, match="2 samples or more, or sleep=1"):
        rws(1, 0.5)
    with pytest.raises(UsageError, match=r"is not in \[0, 1\]"):
        rws(3, 1.5)
    assert len(list(rws(1, 1.0)(parts, batch, CLOCK))) == 2


def test_the_baseline_learns_what_log_w_is(bits):
    baseline = Baseline(mlp((PIXELS,), (1,), ()).double(), 0.5)
    parts, batch = nn.ModuleDict({"model": bits, "baseline": baseline}), {"x": strings(PIXELS)}
    model_move, baseline_move = nvil(1)(parts, batch, CLOCK)
    assert torch.equal(model_move.loss, miwae(1)(model_move.trace))
    baseline.watch(torch.full((1, 4), -8.0))
    assert float(baseline.mean) == -8.0  # the first batch sets it
    for broken in (torch.nan, -torch.inf):  # of a step that is skipped: it made every later loss NaN
        baseline.watch(torch.tensor([[broken, -1.0]]))
    assert (float(baseline.mean), float(baseline.steps)) == (-8.0, 1.0)
    baseline.watch(torch.full((1, 4), -4.0))
    assert float(baseline.mean) == -6.0
    assert {"mean", "steps"} <= set(baseline.state_dict())
    optimizer = torch.optim.Adam(baseline.parameters(), 0.1)
    before = float(baseline_move.loss.detach().mean())
    for _ in range(60):
        _, move = nvil(1)(parts, batch, CLOCK)
        optimizer.zero_grad()
        move.loss.mean().backward()
        optimizer.step()
    assert float(move.loss.detach().mean()) < 0.5 * before
    with pytest.raises(UsageError, match="decay = 1"):
        Baseline(nn.Identity(), 1.0)


def test_the_baseline_leaves_the_gradient_unbiased(bits):
    """By enumeration, with the play's own baseline of x."""
    baseline = stir(Baseline(mlp((PIXELS,), (1,), ()), 0.5))
    trace, probability = every_draw(bits, 1)
    loss = reinforce(baseline(trace["x"].value).detach())(trace)
    same(gradients((probability.detach() * loss).sum(), bits), gradients((probability * miwae(1)(trace)).sum(), bits))


def test_a_bernoulli_prior_is_its_masses():
    prior = stir(BernoulliPrior(BITS))
    assert torch.allclose(prior().log_prob(strings(BITS)).exp().sum(), torch.tensor(1.0, dtype=torch.float64))
    assert torch.allclose(BernoulliPrior(2)().log_prob(torch.ones(2)), torch.tensor(-2 * math.log(2)))


def test_the_kl_of_bits_is_exact_broadcasts_and_stays_finite():
    a, b = torch.randn(5, 4, BITS, dtype=torch.float64) * 3, torch.randn(BITS, dtype=torch.float64)
    q, p = Bernoulli()(a), Bernoulli()(b)
    kl = torch.distributions.kl_divergence(q, p)
    z = strings(BITS)[:, None, None]
    torch.testing.assert_close(kl, (q.log_prob(z).exp() * (q.log_prob(z) - p.log_prob(z))).sum(0))
    far = torch.tensor([[300.0, -300.0, 0.0]], requires_grad=True)
    extreme = torch.distributions.kl_divergence(Bernoulli()(far), Bernoulli()(torch.tensor([-200.0, 200.0, 50.0])))
    extreme.sum().backward()
    torch.testing.assert_close(extreme, torch.tensor([400.0 + 25.0 - math.log(2)]))
    assert far.grad.isfinite().all()


def test_a_run_of_bits_serves_its_uses(tmp_path):
    rows = (torch.rand(60, 1, 4, 4) < 0.4).float().numpy()
    run_of = api.train("vimco:latents=4,hidden=8,batch=20", rows, steps=12, out=tmp_path / "bits")
    again = api.open_run(tmp_path / "bits")
    x = torch.from_numpy(rows[:5])
    assert torch.equal(embed(again, x), embed(run_of, x)) and bool((embed(run_of, x) % 1 != 0).any())  # probabilities
    assert reconstruct(again, x).shape == x.shape and generate(again, 3).shape == (3, 1, 4, 4)
    signs = diagnose(run_of).signs
    assert math.isfinite(signs.kl) and len(signs.kl_per_dimension["z"]) == 4
    with pytest.raises(UsageError, match="draws its latents at random"):
        export_onnx(run_of, tmp_path / "bits.onnx")


def test_the_second_player_is_saved_and_goes_on_where_it_was(tmp_path):
    """The running mean of the baseline lies in a buffer, so a run that stopped ends with the bits of one that did not."""
    recipes = [parse("reinforce:latents=3,hidden=8").cook(toy_schema(Binary())) for _ in range(2)]
    loops = [Loop(r, 3, 8, torch.device("cpu")) for r in recipes]
    batch = toy_batch(Binary())
    for _ in range(4):
        loops[0].step(lambda: batch)
    loops[1].load({n: t.clone() for n, t in loops[0].state().items()})
    for loop in loops:
        for _ in range(4):
            loop.step(lambda: batch)
    first, second = (loop.state() for loop in loops)
    assert float(first["weights.baseline.steps"]) == 8 and float(first["weights.baseline.mean"]) != 0
    assert all(torch.equal(first[n], second[n]) for n in first)
