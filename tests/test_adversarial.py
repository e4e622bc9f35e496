"""Games at their optimum against closed forms, who moves on what, pairs, the introspective losses by hand, and models without a posterior everywhere."""

import json
import math
import re
from dataclasses import replace

import pytest
import torch
from scipy.spatial.distance import cdist, pdist
from torch import nn
from torch.nn import functional as F

import vaestro
from vaestro.arena import board, load_challenge, report
from vaestro.arena.challenge import FILE, SHIPPED
from vaestro.arena.display import Quiet
from vaestro.arena.engine import Here
from vaestro.arena.entry import entrants
from vaestro.arena.folder import Arena
from vaestro.arena.running import compete
from vaestro.arena.text import render
from vaestro.core import Seen, centre, content
from vaestro.data.schema import Binary, Count, Integer, Real
from vaestro.errors import UsageError
from vaestro.evaluation.metrics.values import energy_of
from vaestro.families.point import PointDistribution
from vaestro.models import Implicit
from vaestro.objectives import elbo, energy, squared_error
from vaestro.plays import Betas, Clock, bigan, gan, soft_intro
from vaestro.plays.adversarial import discerning, fooling, seen_alike, sloped
from vaestro.priors import StandardNormal
from vaestro.recipes import parse
from vaestro.testing import check_play, toy_batch, toy_schema
from vaestro.testing.linear import Law
from vaestro.training.diagnosis import RULES, diagnose
from vaestro.training.loop import Loop
from vaestro.uses.evaluate import Protocol

DATA, MADE = torch.tensor([0.5, 0.25, 0.125, 0.125]), torch.tensor([0.125, 0.125, 0.25, 0.5])  # two laws of four values
START = Clock(0, 1)


def rows_of(law: torch.Tensor, rows: int = 16) -> torch.Tensor:
    """One-hot rows as often as the law says, exactly."""
    return torch.eye(4).repeat_interleave((law * rows).round().long(), 0)


class Fixed(nn.Module):
    """A generator that makes just these rows, whatever the latents; `gain` lets a gradient through."""

    def __init__(self, rows: torch.Tensor) -> None:
        super().__init__()
        self.rows, self.gain = rows, nn.Parameter(torch.ones(()))

    def forward(self, z: torch.Tensor) -> PointDistribution:
        return PointDistribution(self.gain * self.rows, 1)


class Best(nn.Module):
    """The best critic of one-hot rows: log p_data - log p_made."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(DATA.log() - MADE.log())

    def forward(self, x: torch.Tensor, z: torch.Tensor | None = None) -> torch.Tensor:
        logits = x @ self.logits
        return logits[:, None] if z is None else logits


def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return (p * (p.log() - q.log())).sum()


def test_against_the_best_critic_the_losses_are_their_closed_forms():
    parts = nn.ModuleDict({"model": Implicit(StandardNormal((2,)), Fixed(rows_of(MADE))), "critic": Best()})
    critic, generator = gan()(parts, {"x": rows_of(DATA)}, START)
    middle = (DATA + MADE) / 2
    jensen_shannon = (kl(DATA, middle) + kl(MADE, middle)) / 2
    torch.testing.assert_close(critic.loss.mean(), 2 * math.log(2) - 2 * jensen_shannon)
    torch.testing.assert_close(generator.loss.mean(), math.log(2) + kl(MADE, DATA) - kl(MADE, middle))
    (slope,) = torch.autograd.grad(critic.loss.mean(), parts["critic"].logits)
    torch.testing.assert_close(slope, torch.zeros(4), atol=1e-7, rtol=0)  # no critic is better


def test_the_best_critic_of_pairs_has_the_divergence_of_the_joint_laws():
    """x alone tells the two joint laws apart here, so their divergence is that of the laws of x."""
    model = parse("bigan:hidden=4,latents=2").cook(toy_schema(Real(), (4,))).model
    model.likelihood = Fixed(rows_of(MADE))
    critic, both = bigan()(nn.ModuleDict({"model": model, "critic": Best()}), {"x": rows_of(DATA)}, START)
    middle = (DATA + MADE) / 2
    torch.testing.assert_close(critic.loss.mean(), 2 * math.log(2) - kl(DATA, middle) - kl(MADE, middle))
    torch.testing.assert_close(both.loss.mean(), 2 * math.log(2) + kl(DATA, MADE) - kl(DATA, middle) + kl(MADE, DATA) - kl(MADE, middle))


def test_losses_are_log_probabilities_and_do_not_overflow():
    real, fake = torch.randn(2, 5, dtype=torch.float64)
    torch.testing.assert_close(discerning(real, fake), -real.sigmoid().log() - (1 - fake.sigmoid()).log())
    torch.testing.assert_close(fooling(fake), -fake.sigmoid().log())
    huge = torch.tensor([1e30, -1e30])
    assert discerning(huge, huge).isfinite().all() and fooling(huge).isfinite().all()


def test_the_slope_of_a_quadratic_critic_is_known():
    A, x, z = torch.randn(3, 3), torch.randn(7, 3), torch.randn(7, 2)
    logits, slope = sloped(lambda x, z: (x @ A * x).sum(-1) + z.sum(-1), x, z)
    torch.testing.assert_close(logits, torch.einsum("ni,ij,nj->n", x, A, x) + z.sum(-1))
    torch.testing.assert_close(slope, (x @ (A + A.T)).square().sum(-1) + 2.0)
    parts = nn.ModuleDict({"model": Implicit(StandardNormal((2,)), Fixed(rows_of(MADE))), "critic": Best()})
    losses = [next(gan(weight)(parts, {"x": rows_of(DATA)}, START)).loss for weight in (0.0, 3.0)]
    torch.testing.assert_close(losses[1] - losses[0], (1.5 * parts["critic"].logits.square().sum()).expand(16))


@pytest.mark.parametrize("call", ["gan:latents=1", "bigan:latents=1", "ali:latents=2,penalty=0", "soft_intro_vae:latents=1", "soft_intro_vae:adversary=0"])
@pytest.mark.parametrize(("kind", "shape"), [(Binary(), (1, 5, 5)), (Integer(7), (2, 8, 8)), (Real(), (3,))])
def test_each_player_moves_alone_and_all_of_it_moves(call, kind, shape):
    recipe = parse(call + (",hidden=4x4" if len(shape) == 3 else ",hidden=6")).cook(toy_schema(kind, shape))
    for rows in (1, 5):
        check_play(recipe, toy_batch(kind, rows, shape))


class Noted(nn.Module):
    """A critic of pairs that keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown, self.weight = [], nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        self.shown.append((x, z))
        return self.weight * (x.flatten(1).sum(-1) + z.sum(-1))


@pytest.mark.parametrize("call", ["bigan", "ali"])
def test_the_critic_of_pairs_sees_rows_with_their_codes_and_codes_with_what_they_make(call):
    recipe = parse(f"{call}:hidden=6,latents=2,penalty=0").cook(toy_schema(Real(), (3,)))
    critic, x = Noted(), torch.randn(5, 3)
    parts = nn.ModuleDict({"model": recipe.model, "critic": critic})
    torch.manual_seed(0)
    first, second = recipe.play(parts, {"x": x}, START)
    assert len(critic.shown) == 4
    for real, fake in (critic.shown[:2], critic.shown[2:]):
        assert torch.equal(real[0], x)
        assert not torch.equal(fake[1], real[1])
        torch.testing.assert_close(fake[0], centre(recipe.model.likelihood(fake[1])))
        q = recipe.model.posterior(x)
        if call == "bigan":
            torch.testing.assert_close(real[1], q.mean)
        else:
            assert ((real[1] - q.mean).abs() < 6 * q.stddev).all() and not torch.equal(real[1], q.mean)
    assert not any(t.requires_grad for pair in critic.shown[:2] for t in pair)
    torch.manual_seed(0)
    recipe.model.posterior(x)
    logits = [x.flatten(1).sum(-1) + z.sum(-1) for x, z in critic.shown]
    torch.testing.assert_close(first.loss, F.softplus(-logits[0]) + F.softplus(logits[1]))
    torch.testing.assert_close(second.loss, F.softplus(logits[2]) + F.softplus(-logits[3]))


def test_holes_do_not_tell_made_rows_from_real_ones():
    made, x = torch.rand(2, 4, 1, 3, 3)
    rows, entries = torch.tensor([True, False, True, True]), torch.rand(4, 1, 3, 3) > 0.5
    assert torch.equal(seen_alike(made, x), made)
    assert torch.equal(seen_alike(made, Seen(x, rows))[1], torch.zeros(1, 3, 3))
    assert torch.equal(seen_alike(made, Seen(x, entries)) == 0, content(Seen(x, entries)) == 0)
    recipe = parse("gan:hidden=4x4,latents=2").cook(toy_schema(Binary()))
    x = toy_batch(Binary())["x"]
    hidden = torch.where(torch.rand_like(x) > 0.5, x, torch.nan)
    for move in recipe.play(recipe.parts, {"x": Seen(hidden, ~hidden.isnan())}, START):
        assert move.loss.isfinite().all()


BETAS = Betas(0.7, 1.3, 5.0)


def introspective(adversary: float = 1.0):
    """A VAE of a Gaussian of scale 1 on real vectors, and its play."""
    recipe = parse("vae:latents=2,hidden=6,likelihood=gaussian_fixed").cook(toy_schema(Real(), (4,)))
    return recipe, soft_intro(4, BETAS, adversary)


def by_hand(model, x: torch.Tensor, adversary: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Both losses of the paper with L = |x - x'|^2 / 2, drawn in the play's order; the constant of the Gaussian is added to L of the rows alone."""
    constant = 2 * math.log(2 * math.pi)

    def encode(x):
        q = model.posterior(x).base_dist
        return q.loc + q.scale * torch.randn_like(q.loc), (q.loc.square() + q.scale.square() - 1 - 2 * q.scale.log()).sum(-1) / 2

    def decode(z):
        return model.likelihood(z).base_dist.loc

    def far(x, y):
        return (x - y).square().sum(-1) / 2

    s, (rec, kl, neg) = 1 / 4, BETAS
    z, rate = encode(x)
    loss = s * (rec * (far(x, decode(z)) + constant) + kl * rate)
    made = [m.detach() for m in (decode(z), decode(torch.randn(len(x), 2)))]
    for m in made:
        z, rate = encode(m)
        loss = loss + adversary / 4 * (-2 * s * (rec * far(m, decode(z)) + neg * rate)).exp()
    z, _ = encode(x)
    other = s * rec * (far(x, decode(z)) + constant)
    for m in (decode(z), decode(torch.randn(len(x), 2))):
        z, rate = encode(m)
        other = other + adversary * s / 2 * (kl * rate + 1e-8 * rec * (far(m.detach(), decode(z.detach())) + constant))
    return loss, other


@pytest.mark.parametrize("adversary", [1.0, 0.3])
def test_both_losses_are_those_of_the_paper(adversary, monkeypatch):
    recipe, play = introspective(adversary)
    x = torch.randn(5, 4)
    model, spare = recipe.model, torch.Generator().manual_seed(1)

    def rsample(self, shape=torch.Size()):
        size = self._extended_shape(shape)
        noise = torch.randn(size) if size[-1] == 2 else torch.randn(size, generator=spare)
        return self.loc + self.scale * noise

    monkeypatch.setattr(torch.distributions.Normal, "rsample", rsample)
    torch.manual_seed(3)
    encoder, decoder = play(recipe.parts, {"x": x}, START)
    torch.manual_seed(3)
    expected = by_hand(model, x, adversary)
    for move, loss, part in ((encoder, expected[0], model.posterior), (decoder, expected[1], model.likelihood)):
        torch.testing.assert_close(move.loss, loss, rtol=1e-5, atol=1e-5)
        weights = list(part.parameters())
        slopes = (torch.autograd.grad(v.mean(), weights, retain_graph=True) for v in (move.loss, loss))
        for found, due in zip(*slopes, strict=True):
            torch.testing.assert_close(found, due, rtol=1e-4, atol=1e-6)


def test_without_an_adversary_it_is_the_vae():
    schema = toy_schema(Binary())
    recipe = parse("soft_intro_vae:adversary=0,latents=3,hidden=4x4").cook(schema)
    batch = toy_batch(Binary())
    torch.manual_seed(0)
    moves = list(recipe.play(recipe.parts, batch, START))
    torch.manual_seed(0)
    for move, part in zip(moves, (recipe.model.posterior, recipe.model.likelihood), strict=True):
        bound = elbo()(recipe.model(batch))
        weights = list(part.parameters())
        for found, due in zip(torch.autograd.grad(move.loss.mean(), weights), torch.autograd.grad(bound.mean(), weights), strict=True):
            torch.testing.assert_close(64 * found, due)
        if move.player == "encoder":
            torch.testing.assert_close(64 * move.loss, bound)


def test_a_huge_weight_on_the_kl_of_made_rows_leaves_the_encoder_the_elbo():
    recipe, _ = introspective()
    move = next(soft_intro(4, Betas(neg=1e12))(recipe.parts, {"x": torch.randn(5, 4)}, START))
    torch.testing.assert_close(4 * move.loss, elbo()(move.trace))
    assert float(move.terms["praise"]) == 0.0


@pytest.mark.parametrize("kind", [Binary(), Integer(256), Real()])
def test_the_praise_of_made_rows_stays_small_whatever_the_likelihood(kind):
    """Counted from the cost of the reconstruction itself; nats of 256 levels, or of a sharp density, would drown it or blow it up."""
    recipe = parse("soft_intro_vae:latents=3,hidden=4x4,neg=0").cook(toy_schema(kind))
    move = next(recipe.play(recipe.parts, toy_batch(kind), START))
    assert 1e-3 < float(move.terms["praise"]) < 2


def test_the_bound_that_is_reported_is_the_bound():
    recipe = parse("soft_intro_vae:latents=3,hidden=4x4,kl=0.1").cook(toy_schema(Binary()))
    trace = recipe.model(toy_batch(Binary()))
    torch.testing.assert_close(recipe.score(trace), -(trace.log_px - trace.kl).mean(0))
    assert trace.normalised and recipe.unit == "nats a row"


def test_energy_is_unbiased_and_zero_between_equal_laws():
    """Two normals of one number that lie d apart: 2 E|x - y| - E|x - x'| - E|y - y'| by the mean of |N(d, 2)|."""

    def folded(d: float) -> float:
        return 2 / math.sqrt(math.pi) * math.exp(-d * d / 4) + d * math.erf(d / 2)

    torch.manual_seed(0)
    for d in (0.0, 1.5):
        exact, found = 2 * (folded(d) - folded(0.0)), []
        for _ in range(400):
            x, y = torch.randn(6, 1), d + torch.randn(2, 6, 1)
            model = Implicit(StandardNormal((1,)), Law(lambda z, y=y: PointDistribution(y, 1)))
            trace = model({"x": x}, 2)
            each = energy(trace)
            assert each.shape == (6,)
            found.append(each.mean())
        error = torch.stack(found).std() / 20
        assert abs(torch.stack(found).mean() - exact) < 5 * error
    one = energy(Implicit(StandardNormal((1,)), Law(lambda z: PointDistribution(torch.ones(1, 1, 1), 1)))({"x": torch.zeros(1, 1)}))
    torch.testing.assert_close(one, torch.tensor([2.0]))


def test_the_metric_of_samples_is_the_same_distance():
    torch.manual_seed(1)
    x, y = torch.randn(40, 3), torch.randn(40, 3) + 1
    trace = Implicit(StandardNormal((1,)), Law(lambda z: PointDistribution(y[None], 1)))({"x": x})
    assert energy_of(x, y) == pytest.approx(energy(trace).mean().item(), rel=1e-4)


@pytest.mark.parametrize(("middle", "n"), [(0.0, 30), (1e4, 30), (1e6, 1200)])
def test_the_metric_of_samples_knows_rows_far_from_nought(middle: float, n: int):
    """Years, prices or temperatures in kelvin lie far from 0 and near each other; distances by scipy, over one chunk and several."""
    g = torch.Generator().manual_seed(2)
    x, y = middle + 2 * torch.randn(n, 4, generator=g), middle + 0.5 + 2 * torch.randn(n - 7, 4, generator=g)
    a, b = x.double().numpy(), y.double().numpy()
    expected = 2 * cdist(a, b).mean() - pdist(a).mean() - pdist(b).mean()
    assert energy_of(x, y) == pytest.approx(expected, rel=1e-6)
    assert energy_of(x, x.flip(0)) == pytest.approx(-2 * pdist(a).mean() / n, rel=1e-6)
    assert math.isnan(energy_of(x[:1], y))


def test_squared_error_is_that_of_the_reconstruction():
    recipe = parse("bigan:hidden=4x4,latents=2").cook(toy_schema(Binary()))
    batch = toy_batch(Binary())
    expected = (batch["x"] - recipe.model.likelihood(recipe.model.posterior(batch["x"]).mean).mean).square().flatten(1).sum(1)
    torch.testing.assert_close(squared_error(recipe.model(batch, 3)), expected)


def test_made_rows_are_legal_unit_values():
    for kind, low, high in ((Binary(), 0.0, 1.0), (Integer(9), 0.0, 1.0)):
        made = parse("gan:hidden=4x4,latents=2").cook(toy_schema(kind)).model.generate(50)["x"].value
        assert low <= made.min() and made.max() <= high
    real = parse("gan:hidden=8,latents=2").cook(toy_schema(Real(), (3,))).model
    assert real.generate(200)["x"].value.min() < 0
    with pytest.raises(UsageError, match="fits Binary or Integer or Real"):
        parse("gan").cook(toy_schema(Count()))
    with pytest.raises(UsageError, match="penalty should be greater than or equal to 0"):
        parse("gan:penalty=-1")
    with pytest.raises(UsageError, match="rec should be greater than 0"):
        parse("soft_intro_vae:rec=0")


def test_a_gan_learns_a_ring_and_covers_it():
    """Eight modes on a circle: every one is found, and the energy distance falls by ten."""
    angle = torch.arange(8) * math.pi / 4
    modes = torch.stack([angle.cos(), angle.sin()], 1)
    recipe = parse("gan:latents=2,hidden=32x32,penalty=0.2,batch=64,learning_rate=0.002,ema=0.9").cook(toy_schema(Real(), (2,)))
    loop = Loop(recipe, 0, 400, torch.device("cpu"))
    before = energy(recipe.model({"x": modes[torch.randint(8, (500,))] + 0.02 * torch.randn(500, 2)})).mean()
    for _ in range(400):
        loop.step(lambda: {"x": modes[torch.randint(8, (64,))] + 0.02 * torch.randn(64, 2)})
    with loop.averaged():
        torch.manual_seed(0)
        after = energy(recipe.model({"x": modes[torch.randint(8, (500,))] + 0.02 * torch.randn(500, 2)})).mean()
        nearest = torch.cdist(recipe.model.generate(500)["x"].value, modes).argmin(1)
    assert after < 0.1 * before
    assert len(nearest.unique()) == 8


@pytest.fixture(scope="module")
def sampler(tmp_path_factory):
    """A trained GAN of digits."""
    return vaestro.train("gan:hidden=4x8,latents=3", "digits-dynamic", steps=20, out=tmp_path_factory.mktemp("gan") / "run")


def test_a_model_without_a_posterior_is_used_as_far_as_it_goes(sampler, tmp_path):
    again = vaestro.open_run(sampler.folder)
    assert torch.equal(vaestro.generate(sampler, 5, seed=1), vaestro.generate(again, 5, seed=1))
    assert sampler.about["unit"].endswith("energy distance") and math.isfinite(sampler.about["validation"])
    found = vaestro.evaluate(sampler, Protocol(rows=20, samples=3))
    assert set(found.scores) == {"energy"}
    assert found.scores["energy"]["error"] > 0
    assert "no posterior either" in found.about["refused"]["nll"] and "no posterior" in found.about["refused"]["blur"]
    x = torch.zeros(2, 1, 8, 8)
    for use in (vaestro.reconstruct, vaestro.embed):
        with pytest.raises(UsageError, match="no posterior"):
            use(sampler, x)
    with pytest.raises(UsageError, match="no posterior"):
        vaestro.fit_prior(sampler, "gmm:components=2")


def test_a_gan_is_diagnosed_by_its_samples(sampler):
    found = diagnose(sampler)
    assert found.signs.latents == 0 and found.signs.gain is None and found.signs.spread is not None
    assert {f.name for f in found.findings} <= {"mode collapse", "divergence", "stopped early", "overfitting"}
    json.dumps(found.to_json())
    narrow = replace(found.signs, spread=0.4, log=[])
    assert [f.name for rule in RULES for f in rule(narrow)] == ["mode collapse"]
    assert not [f for rule in RULES for f in rule(replace(narrow, spread=0.95))]


def test_a_board_has_a_gan_with_its_reasons_and_a_page_without_reconstructions(tmp_path, monkeypatch):
    monkeypatch.setattr("vaestro.evaluation.networks.LOOK", 300)
    (tmp_path / "challenge").mkdir()
    text = re.sub(r"^seconds = \d+", "steps = 3", (SHIPPED / "digits-dynamic.toml").read_text(), flags=re.MULTILINE).replace("samples = 100\n", "samples = 3\n")
    (tmp_path / "challenge" / FILE).write_text(text)
    challenge = load_challenge(tmp_path / "challenge")
    calls = ("gan:hidden=4x8,latents=3", "vae:hidden=8,latents=3")
    folder = compete(Arena(tmp_path / "arena", challenge, "quick"), entrants(calls, ()), Here(), Quiet())
    made = board(folder)
    line = next(line for line in made.lines if line.call.startswith("gan"))
    assert line.state == "unranked" and not line.reasons
    assert "frechet_pca64" in line.values
    assert {"nll", "reconstruction_mse", "active_units"} <= line.none.keys() and all("no posterior" in line.none[n] for n in ("nll", "reconstruction_mse"))
    assert "gan" in render(made) and "none" in render(made)
    page = report(folder).read_text()
    card = page[page.index(f'id="entry-{line.ids[0]}"') :].partition("</article>")[0]
    assert "generated images" in card and "reconstructions" not in card and "Latents of held-out rows" not in card
    other = next(other for other in made.lines if other.call.startswith("vae"))
    assert "reconstructions" in page[page.index(f'id="entry-{other.ids[0]}"') :].partition("</article>")[0]
