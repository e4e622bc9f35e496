"""Pictures drawn pixel by pixel: masses over all pictures sum to one, samples fit them, and what cannot be scored is refused."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

import vaestro
from vaestro import core
from vaestro.core import Seen
from vaestro.data.schema import Binary, Field, Integer, Real, Shape
from vaestro.errors import UsageError
from vaestro.families import LIKELIHOODS, Bernoulli, Categorical, Point
from vaestro.families.pixels import Pixels
from vaestro.progress import watched
from vaestro.recipes import parse
from vaestro.testing import toy_batch, toy_schema
from vaestro.training.export import export_onnx


def every(event: Shape, levels: int) -> Tensor:
    """All pictures of this shape, [levels^size, *event]."""
    numbers = list(product(range(levels), repeat=math.prod(event)))
    return torch.tensor(numbers, dtype=torch.float64).reshape(-1, *event) / (levels - 1)


def wild(pixels: Pixels) -> Pixels:
    """The same with weights large enough for pixels to depend on each other."""
    for p in pixels.parameters():
        torch.nn.init.normal_(p, std=1.0)
    return pixels.double()


CASES = [
    ((1, 3, 2), 2, lambda: Bernoulli(3)),
    ((1, 2, 3), 2, lambda: Bernoulli(3)),
    ((2, 2, 1), 3, lambda: Categorical(3, 3)),
    ((3, 1, 2), 2, lambda: LIKELIHOODS["logistic_mixture"](Field("x", Integer(2), (3, 1, 2)))),
    ((3, 1, 1), 4, lambda: LIKELIHOODS["logistic"](Field("x", Integer(4), (3, 1, 1)))),
]


@pytest.mark.parametrize(("event", "levels", "family"), CASES)
def test_masses_of_all_pictures_sum_to_one_and_samples_fit_them(event: Shape, levels: int, family) -> None:
    torch.manual_seed(3)
    pixels = wild(Pixels(family(), event, 2, (5, 5), 3))
    contexts = torch.randn(2, 2 * event[0], *event[1:], dtype=torch.float64)
    x = every(event, levels)
    mass = torch.stack([pixels(c).log_prob(x).exp() for c in contexts], 1)
    assert torch.allclose(mass.sum(0), torch.ones(2, dtype=torch.float64), atol=1e-9)
    alone = pixels(contexts).given(x[:, None]).mean
    assert alone.shape == (len(x), 2, *event)
    n = 5000
    drawn = pixels(contexts).sample((n,))
    weights = levels ** torch.arange(math.prod(event)).flip(0)
    number = (torch.round(drawn * (levels - 1)).flatten(2).long() * weights).sum(-1)
    for i in range(2):
        found, expected = torch.bincount(number[:, i], minlength=len(x)).double(), n * mass[:, i]
        often = expected > 5
        chi, free = ((found - expected)[often].square() / expected[often]).sum().item(), int(often.sum()) - 1
        assert chi < free + 5 * math.sqrt(2 * free) + 25


def test_the_mean_is_right_on_average() -> None:
    torch.manual_seed(1)
    event, context = (1, 2, 2), torch.randn(2, 2, 2, dtype=torch.float64)
    dist = wild(Pixels(Bernoulli(3), event, 2, (4, 4), 3))(context)
    x = every(event, 2)
    exact = (dist.log_prob(x).exp()[:, None, None, None] * x).sum(0)
    drawn = dist.expand((2000,)).mean
    assert ((drawn.mean(0) - exact).abs() <= 5 * drawn.std(0) / math.sqrt(2000) + 1e-9).all()
    assert drawn.std(0).max() > 0


def test_a_drawn_picture_follows_the_conditionals_of_the_one_pass() -> None:
    """With masses near 0 and 1 a sample is its own mode; the picture is larger than the reach, so that every crop of the sampler matters."""
    torch.manual_seed(2)
    pixels = Pixels(Bernoulli(3), (2, 9, 8), 2, (6, 6), 3)
    wild(pixels)
    with torch.no_grad():
        pixels.net.head.weight.mul_(1e3)
    dist = pixels(torch.randn(3, 4, 9, 8, dtype=torch.float64))
    x = dist.sample((4,))
    assert 0.05 < x.mean() < 0.95
    mass = dist.given(x).log_prob(x)
    assert (mass > -30).all()  # of 144 numbers, nearly all of which are certain
    mean = dist.given(x).mean
    assert ((mean - x).abs() < 1e-9).double().mean() > 0.97


@pytest.mark.parametrize("lead", [(), (1,), (3,), (2, 3)])
def test_shapes_under_leading_axes(lead: Shape) -> None:
    pixels = Pixels(Bernoulli(3), (3, 4, 3), 2, (6,), 3)
    h = torch.randn(*lead, 6, 4, 3)
    dist = pixels(h)
    x = dist.sample((2,))
    assert x.shape == (2, *lead, 3, 4, 3) and dist.log_prob(x).shape == (2, *lead)
    assert dist.log_prob(x[(0,) * (len(lead) + 1)]).shape == lead
    assert dist.mean.shape == (*lead, 3, 4, 3)
    wide = dist.expand((5, *lead))
    assert torch.allclose(wide.log_prob(x[0]), dist.log_prob(x[0]).expand(5, *lead), atol=1e-5)
    assert wide.sample().shape == (5, *lead, 3, 4, 3)
    assert pixels(h.bfloat16()).log_prob(x).dtype == torch.float32


def test_equal_seeds_draw_equal_pictures() -> None:
    dist = Pixels(Bernoulli(3), (1, 5, 5), 2, (6,), 3)(torch.randn(2, 5, 5))
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(dist.sample((4,)))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_whole_rows_may_be_unseen_and_parts_of_a_picture_are_refused() -> None:
    recipe = parse("pixel_vae:latents=2,hidden=4,masked=4,kernel=3").cook(toy_schema(Binary(), (1, 4, 4)))
    x = toy_batch(Binary(), 3, (1, 4, 4))["x"]
    rows = torch.tensor([True, False, True])
    trace = recipe.model({"x": Seen(torch.where(rows[:, None, None, None], x, math.nan), rows)}, 2)
    assert trace.log_w.shape == (2, 3) and trace.log_w.isfinite().all()
    assert torch.equal(trace["x"].log_p[:, 1], torch.zeros(2))
    with pytest.raises(UsageError, match="whole pictures only, not in a part of one; give whole rows"):
        recipe.model({"x": Seen(x, x > 0.5)})
    assert core.normalised.dispatch(type(trace["x"].prior)) is not None and core.normalised(trace["x"].prior)


def test_the_posterior_of_a_tiny_pixel_vae_bounds_its_likelihood() -> None:
    """log p(x) by a grid over z is above the ELBO and below 0, and the masses of all pictures sum to one after z is integrated out."""
    torch.manual_seed(0)
    model = parse("pixel_vae:latents=1,hidden=4,masked=4x4,kernel=3").cook(toy_schema(Binary(), (1, 2, 2))).model.double()
    x, z = every((1, 2, 2), 2), torch.linspace(-8, 8, 801, dtype=torch.float64)[:, None]
    with torch.no_grad():
        log_p = model.likelihood(z[:, None]).log_prob(x) + torch.distributions.Normal(0.0, 1.0).log_prob(z)
        exact = log_p.logsumexp(0) + math.log(16 / 800)
        bound = model({"x": x}, 4000)
        assert exact.exp().sum().item() == pytest.approx(1, abs=1e-6)
        assert (bound.log_w.mean(0) <= exact + 5 * bound.log_w.std(0) / math.sqrt(4000)).all()
        assert torch.allclose(bound.log_w.logsumexp(0) - math.log(4000), exact, atol=0.06)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Pixels(Bernoulli(1), (5,)), "in pictures"),
        (lambda: Pixels(Point(3), (1, 3, 3)), "independent values that is a density"),
        (lambda: Pixels(Bernoulli(3), (1, 3, 3), 2)(torch.zeros(3, 3, 3)), "context of 2 channels"),
        (lambda: parse("pixel_vae").cook(toy_schema(Real(), (9,))), "in pictures"),
        (lambda: parse("pixel_vae:likelihood=point").cook(toy_schema(Real())), "squared error is gaussian_fixed"),
        (lambda: parse("pixel_vae").cook(toy_schema(Binary(), (1, 1, 9))), "2x2 pixels or more"),
        (lambda: parse("pixel_vae:kernel=4").cook(toy_schema(Binary())), "odd sides"),
    ],
)
def test_misfits_are_refused(make, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()


def test_drawing_says_how_far_it_is() -> None:
    told: list[tuple[str, float]] = []
    dist = Pixels(Bernoulli(3), (1, 4, 2), 2, (3,), 3)(torch.zeros(2, 4, 2))
    with watched(lambda what, done: told.append((what, done))):
        dist.sample()
    dist.sample()
    assert told == [("drawing pixel by pixel", n / 4) for n in (1, 2, 3, 4)]


def test_a_run_draws_the_same_every_time_and_its_monitor_sees_that_z_is_idle(tmp_path) -> None:
    run = vaestro.train("pixel_vae:latents=2,hidden=4,masked=4,kernel=3", toy_batch(Binary(), 30, (1, 4, 4))["x"].numpy(), out=tmp_path / "r", steps=2)
    assert torch.equal(vaestro.generate(run, 3), vaestro.generate(run, 3))
    assert torch.equal(vaestro.sample(run, 3), vaestro.sample(run, 3))
    x = toy_batch(Binary(), 3, (1, 4, 4))["x"]
    assert torch.equal(vaestro.reconstruct(run, x), vaestro.reconstruct(run, x))
    assert "the decoder ignores z" in {f.name for f in vaestro.diagnose(run).findings}  # coin flips have nothing to tell
    with pytest.raises(UsageError, match="draws at random"):
        export_onnx(run, tmp_path / "m.onnx")
