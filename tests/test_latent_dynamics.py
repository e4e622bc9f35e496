"""A diffusion as a prior of latents: exact where its score is, unbiased weights, bounds in expectation, samples that fit."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import vaestro
from vaestro.cli.app import app
from vaestro.data.schema import Binary, Field
from vaestro.errors import UsageError
from vaestro.families.base import is_bound
from vaestro.priors import FullMixture, StandardNormal, UniformCodes
from vaestro.priors.diffusion import Chain, Diffused, Diffusion, schedule
from vaestro.priors.fitted import FITTED, Latents, Reshaped, fit
from vaestro.testing import check_prior
from vaestro.training.runs import Run
from vaestro.training.stages import USUAL, Effort, descend, log_density
from vaestro.uses.evaluate import Protocol

FIELD = Field("x", Binary(), (1, 8, 8))
F64 = torch.float64


def chain(latents=2, times=10, wild=0.5):
    """A chain whose network says something at random."""
    torch.manual_seed(1)
    made = Chain(latents, times, 8).double()
    with torch.no_grad():
        made.net.outwards.weight.normal_(std=wild)
        made.between.normal_(std=2.0)
    return made


def normal(u, variance=1.0):
    return torch.distributions.Normal(0.0, math.sqrt(variance)).log_prob(u).sum(-1)


class Score(nn.Module):
    """What the network must say where the data are N(0, variance): the noise in u_t is then sqrt(1 - kept) u / (kept variance + 1 - kept)."""

    def __init__(self, kept, variance):
        super().__init__()
        self.kept, self.variance = kept, variance

    def forward(self, u, time):
        kept = self.kept[(time * len(self.kept)).round().long() - 1].unsqueeze(-1)
        noise = (1 - kept).sqrt() * u / (kept * self.variance + 1 - kept)
        return (noise - (1 - kept).sqrt() * u) / kept.sqrt()


def test_the_schedule_leaves_as_much_whatever_the_number_of_times():
    for times in (1, 10, 1000):
        noise = schedule(times)
        assert noise.kept[-1].item() == pytest.approx(math.exp(-10.05), rel=1e-9)
        torch.testing.assert_close(noise.left[1:], noise.kept[:-1])
        torch.testing.assert_close(noise.kept, noise.left * (1 - noise.beta))


@pytest.mark.parametrize("times", [1, 2, 30])
def test_every_path_of_a_standard_normal_weighs_its_density(times):
    made = Chain(3, times, 8).double()
    with torch.no_grad():
        made.between.fill_(100.0)
    u = torch.randn(50, 3, dtype=F64)
    torch.testing.assert_close(made.weigh(u), normal(u), rtol=1e-4, atol=1e-4)
    torch.manual_seed(2)
    untrained = Diffusion(3, times, 8, 1).double()
    untrained.start(5 + 2 * u)
    scored = untrained.eval()().log_prob(5 + 2 * u)
    fitted = torch.distributions.Normal(untrained.loc, untrained.scale).log_prob(5 + 2 * u).sum(-1)
    assert (scored - fitted).abs().mean() < 0.15, "before training it is nearly the Gaussian of the latents' moments"


@pytest.mark.parametrize("variance", [0.3, 2.0])
def test_with_the_exact_score_of_a_gaussian_the_bound_closes_as_times_grow(variance):
    u = torch.randn(8000, 2, dtype=F64) * math.sqrt(variance)
    gaps = []
    for times in (10, 40, 160):
        made = Chain(2, times, 8).double()
        made.net = Score(made.kept, variance)
        with torch.no_grad():
            made.between.fill_(100.0)
            gaps.append((normal(u, variance) - made.weigh(u)).mean().item())
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2], "the gap falls about as the number of times grows"
    assert -0.005 < gaps[2] < 0.025


def test_the_mean_weight_is_the_density():
    """Against a chain of two times, whose p(u_0) is an integral over u_1 and u_2: on a grid."""
    made = chain(1, 2)
    u = torch.tensor([[-1.0], [0.2], [1.5]], dtype=F64)
    axis = torch.linspace(-9, 9, 1201, dtype=F64)
    width = 18 / 1200
    cells = axis.unsqueeze(-1)
    with torch.no_grad():
        steps = [made.back(cells, torch.full((1201,), t)) for t in range(2)]

        def kernel(low, t):  # log p(low | every u at time t + 1)
            mean, log_variance = steps[t]
            return torch.distributions.Normal(mean[:, 0], (log_variance[:, 0] / 2).exp()).log_prob(low.unsqueeze(-1))

        first = (normal(cells) + kernel(axis, 1)).logsumexp(-1) + math.log(width)  # log p(u_1)
        exact = (first + kernel(u[:, 0], 0)).logsumexp(-1) + math.log(width)
        weights = made.weigh(u.repeat(40_000, 1)).reshape(40_000, 3)
    ratio = (weights - exact).exp()
    assert ((ratio.mean(0) - 1).abs() < 5 * ratio.std(0) / 200).all()
    assert (weights.mean(0) < exact).all(), "and the mean log weight lies below it"


@pytest.mark.parametrize("times", [1, 2, 7])
def test_what_is_trained_is_the_mean_of_what_is_reported(times):
    made = chain(2, times)
    u = torch.tensor([[0.4, -1.2]], dtype=F64)
    n = 20_000
    with torch.no_grad():
        bound, weights = made.bound(u.repeat(n, 1)), made.weigh(u.repeat(n, 1))
    error = math.sqrt((bound.var() + weights.var()).item() / n)
    assert abs(bound.mean() - weights.mean()).item() < 5 * error


def test_it_passes_the_public_check_of_priors():
    torch.manual_seed(0)
    prior = Diffusion(2, 5, 8, 4)
    with torch.no_grad():
        prior.chain.net.outwards.weight.normal_(std=0.3)
    prior.start(torch.randn(100, 2) * 2 + 1)
    check_prior(prior.eval())


def test_samples_fall_where_the_density_says():
    torch.manual_seed(0)
    prior = Diffusion(1, 6, 8, 300).double().eval()
    with torch.no_grad():
        prior.chain.net.outwards.weight.normal_(std=0.3)
        drawn = prior().sample((20_000,))[:, 0]
        cells = torch.linspace(-9, 9, 181, dtype=F64)
        density = prior().log_prob(((cells[1:] + cells[:-1]) / 2).unsqueeze(-1)).exp()
    shares = torch.histogram(drawn, cells).hist / 20_000
    assert (density * 0.1).sum().item() == pytest.approx(1.0, abs=0.03)
    assert (shares - density * 0.1).abs().sum() < 0.12


def test_more_paths_lift_the_estimate():
    made, u = chain(2, 8), torch.randn(300, 2, dtype=F64)
    place = (torch.zeros(2, dtype=F64), torch.ones(2, dtype=F64))
    with torch.no_grad():
        few, many = (Diffused(made, place, paths).log_prob(u).mean() for paths in (1, 30))
    assert few < many - 0.05


def test_a_ring_is_learnt_better_than_by_a_gaussian_and_never_too_well():
    torch.manual_seed(0)

    def ring(n):
        angle = torch.rand(n) * 2 * math.pi
        return torch.stack([angle.cos(), angle.sin()], 1) * 3 + 0.3 * torch.randn(n, 2)

    rows, held = ring(3000), ring(1000)
    prior = Diffusion(2, 15, 64, 1)
    fast = replace(USUAL, learning_rate=5e-3, patience=None)
    told = fit(prior, rows, held, lambda part: descend(part, rows, held, (Effort(600, 0, fast), lambda line: None)))
    assert told["steps"] == 600
    gaussian = torch.distributions.Normal(rows.mean(0), rows.std(0)).log_prob(held).sum(-1).mean()
    true = -(1 + math.log(2 * math.pi * 0.09)) / 2 - math.log(2 * math.pi * 3)  # of the radius, about, and of the angle
    found = log_density(prior.eval(), held)
    assert gaussian + 0.25 < found < true + 0.05
    radius = prior().sample((2000,)).norm(dim=-1)
    assert ((radius > 2) & (radius < 4)).float().mean() > 0.75


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return vaestro.train("vae:latents=4,hidden=32", "digits-dynamic", steps=200, out=tmp_path_factory.mktemp("diffusion") / "first")


def test_a_run_with_a_diffusion_is_used_as_any_other(first, tmp_path):
    new = vaestro.fit_prior(first, "diffusion:times=10,width=32,learning_rate=3e-3", out=tmp_path / "new", steps=300)
    (stage,) = new.about["stages"]
    assert stage["log_density"]["after"] > stage["log_density"]["before"]
    again = vaestro.open_run(tmp_path / "new")
    rows = Protocol(rows=40, samples=20)
    assert vaestro.evaluate(again, rows).scores["nll"]["value"] == vaestro.evaluate(new, rows).scores["nll"]["value"]
    assert torch.equal(vaestro.generate(again, 4, seed=1), vaestro.generate(new, 4, seed=1))
    about, plain = vaestro.evaluate(new, rows).about, vaestro.evaluate(first, rows).about
    assert about["bounds"] == ["z"] and "estimated from below" in about["protocol"], "every result says that its nats are bounds of a bound"
    assert "bounds" not in plain and "estimated" not in plain["protocol"]
    told = CliRunner().invoke(app, ["evaluate", str(tmp_path / "new"), "--rows", "20", "--samples", "2"]).stdout
    assert "estimated from below" in " ".join(told.split())
    assert not is_bound(first.model.prior()) and is_bound(new.model.prior())
    assert is_bound(Reshaped(Diffusion(6, 5, 8, 1), (2, 3)).eval()()) and not is_bound(Reshaped(FullMixture(6, 3), (2, 3))()), "in another shape, too"


@pytest.mark.parametrize("call", ["times=0", "width=0", "paths=0"])
def test_numbers_outside_their_range_are_refused(call, first, tmp_path):
    with pytest.raises(UsageError, match="greater than or equal to 1"):
        vaestro.fit_prior(first, f"diffusion:{call}", out=tmp_path / "new")
    with pytest.raises(UsageError, match="give one or more"):
        Diffusion(2, **{"times": 3, "width": 3, "paths": 3, call.partition("=")[0]: 0})


def test_it_is_no_prior_over_codes_and_takes_events_of_any_shape():
    with pytest.raises(UsageError, match="priors over codes"):
        FITTED["diffusion"](Latents((4,), UniformCodes((4,), 3), nn.Identity(), FIELD))
    prior = FITTED["diffusion"](Latents((2, 3), StandardNormal((2, 3)), nn.Identity(), FIELD), times=3)
    assert prior.eval()().sample(torch.Size((5,))).shape == (5, 2, 3)
    assert prior().log_prob(torch.randn(7, 5, 2, 3)).shape == (7, 5)
