"""Discrete codes: quantisers and one-hot posteriors, against brute force, closed forms and autograd."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, OneHotCategorical, kl_divergence

from vaestro import api
from vaestro.codes import (
    AveragedBook,
    Code,
    Hard,
    OneHotCodes,
    Relaxed,
    ScalarQuantiser,
    StraightThrough,
    TrainedBook,
    Usage,
    VectorQuantiser,
    kmeans,
    numbered,
    straight_through,
    strings,
    usage,
)
from vaestro.codes.books import gather, nearest
from vaestro.conditional import Conditional
from vaestro.core import Draw, Seen, Trace, centre, normalised, observe, penalty, prepare, replaying, run
from vaestro.data import load
from vaestro.data.schema import Binary, Integer, Real
from vaestro.errors import UsageError
from vaestro.evaluation.metrics import Subject, measure
from vaestro.families import Bernoulli
from vaestro.models import VAE, Coded
from vaestro.networks import by_shape, convolutional, mlp, residual
from vaestro.objectives import elbo
from vaestro.plays import Clock, alone, cooled, enumerated, terms_of
from vaestro.priors import UniformCodes, UniformOneHot
from vaestro.recipes import parse
from vaestro.schedules import ramp
from vaestro.testing import check_model, check_network, toy_batch, toy_schema
from vaestro.training.diagnosis import diagnose
from vaestro.training.export import export_onnx
from vaestro.training.loop import Loop, weights
from vaestro.uses.evaluate import Protocol, evaluate
from vaestro.uses.fitting import fit_prior
from vaestro.uses.generate import generate, sample
from vaestro.uses.reconstruct import embed, reconstruct

QUANTISERS = {
    "averaged": lambda: VectorQuantiser([AveragedBook(5, 3)], (4,)),
    "trained": lambda: VectorQuantiser([TrainedBook(5, 3)], (4,)),
    "residual": lambda: VectorQuantiser([AveragedBook(5, 3), TrainedBook(5, 3)], (4,)),
    "scalar": lambda: ScalarQuantiser((4, 3, 2), (4,)),
    "two codes": lambda: VectorQuantiser([AveragedBook(2, 3)], (4,)),
    "one place": lambda: VectorQuantiser([AveragedBook(5, 3)], (1,)),
    "picture": lambda: VectorQuantiser([AveragedBook(5, 3)], (2, 2)),
    "residual picture": lambda: VectorQuantiser([AveragedBook(4, 3) for _ in range(3)], (2, 2)),
}
every_quantiser = pytest.mark.parametrize("make", QUANTISERS.values(), ids=QUANTISERS)


def encoded(quantiser, *lead: int) -> torch.Tensor:
    return torch.randn(*lead, quantiser.params, *quantiser.grid, requires_grad=True)


def trace_of(code: Code) -> Trace:
    """A trace that holds this posterior alone, drawn once."""
    return Trace(z=Draw(code.index[None], UniformCodes(code.by.shape, code.by.codes)(), code, 0.0, 0.0, False))


def tiny(quantiser, pixels: int = 5) -> Coded:
    encoder = mlp((pixels,), (quantiser.params, *quantiser.grid), (7,))
    decoder = mlp((quantiser.params, *quantiser.grid), (pixels,), (7,))
    return Coded(UniformCodes(quantiser.shape, quantiser.codes), Conditional(encoder, quantiser), Conditional(decoder, Bernoulli()))


# nearest codes ---------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_the_nearest_code_is_that_of_brute_force(scale, offset):
    codes, points = torch.randn(37, 6) * scale + offset, torch.randn(501, 6) * scale + offset
    each = (points.double()[:, None] - codes.double()).square().sum(-1)
    found = nearest(points, codes)
    assert torch.allclose(each.gather(1, found[:, None])[:, 0], each.amin(1), rtol=1e-7, atol=0), "numbers of float32 make exact ties"
    assert offset or torch.equal(found, each.argmin(1))


def test_the_nearest_code_is_found_in_pieces(monkeypatch):
    codes, points = torch.randn(7, 2), torch.randn(50, 2)
    whole = nearest(points, codes)
    monkeypatch.setattr("vaestro.codes.books.AT_ONCE", 20)
    assert torch.equal(nearest(points, codes), whole)


def test_nearest_is_exact_under_autocast():
    codes, points = torch.randn(64, 8), torch.randn(300, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = nearest(points, codes)
    assert torch.equal(found, nearest(points, codes))


# the point mass --------------------------------------------------------------------------------------------------------------------------------------


@every_quantiser
def test_a_code_is_a_mass_function(make):
    quantiser = make()
    q = quantiser(encoded(quantiser, 6))
    assert q.batch_shape == (6,) and q.event_shape == quantiser.shape
    assert torch.equal(q.log_prob(q.index), torch.zeros(6))
    other = q.index.clone()
    other.view(6, -1)[:, -1] = (other.view(6, -1)[:, -1] + 1) % quantiser.codes
    assert bool((q.log_prob(other) == -torch.inf).all())
    assert q.sample((3, 2)).shape == (3, 2, 6, *quantiser.shape) and torch.equal(q.sample((3,))[1], q.index)
    wide = q.expand(torch.Size((2, 6)))
    assert torch.equal(wide.log_prob(q.index), torch.zeros(2, 6)) and torch.equal(q.entropy(), torch.zeros(6))
    assert bool(((q.index >= 0) & (q.index < quantiser.codes)).all()) and bool(q.support.check(q.index).all())
    assert quantiser(encoded(quantiser)).batch_shape == () and quantiser(encoded(quantiser, 2, 3)).batch_shape == (2, 3)


@every_quantiser
def test_the_kl_to_the_uniform_prior_is_n_log_k(make):
    quantiser = make()
    prior = UniformCodes(quantiser.shape, quantiser.codes)()
    q = quantiser(encoded(quantiser, 6))
    nats = math.prod(quantiser.shape) * math.log(quantiser.codes)
    assert torch.allclose(kl_divergence(q, prior), torch.full((6,), nats), rtol=1e-7)
    assert float(prior.entropy()) == pytest.approx(nats)


def test_the_uniform_prior_sums_to_one_and_refuses_what_is_no_code():
    prior = UniformCodes((2, 2), 3)()
    every = torch.tensor(list(itertools.product(range(3), repeat=4))).reshape(-1, 2, 2)
    assert float(prior.log_prob(every).exp().sum()) == pytest.approx(1, abs=1e-6)
    assert prior.log_prob(torch.full((2, 2), 3)) == -torch.inf
    drawn = prior.sample((3000,))
    assert drawn.shape == (3000, 2, 2) and torch.bincount(drawn.flatten(), minlength=3).min() > 3800
    assert prior.expand((5,)).sample((2,)).shape == (2, 5, 2, 2)
    assert UniformCodes((4,), 3).double()().log_prob(torch.zeros(4)).dtype == torch.float64


@every_quantiser
def test_the_bound_is_true_by_enumeration(make):
    """-log p(x) <= n log K - log p(x | z): p(x) is summed over every string of codes."""
    quantiser = make()
    places = math.prod(quantiser.shape)
    if quantiser.codes**places > 20_000:
        quantiser = type(quantiser)(*(([AveragedBook(3, 3)], (2,)) if isinstance(quantiser, VectorQuantiser) else ((3, 2), (2,))))
        places = 2
    model = tiny(quantiser).eval()
    x = (torch.rand(6, 5) > 0.5).float()
    trace = model({"x": x})
    every = torch.tensor(list(itertools.product(range(quantiser.codes), repeat=places))).reshape(-1, 1, *quantiser.shape)
    scored = run(model.program(), replaying({"z": every, "x": x}))
    exact = (scored["z"].log_p + scored["x"].log_p).logsumexp(0)
    assert bool((-elbo()(trace) <= exact + 1e-5).all()) and trace.normalised
    assert torch.allclose(-elbo()(trace), trace.log_px[0] - places * math.log(quantiser.codes), atol=1e-5)
    assert torch.allclose(trace.log_w[0], -elbo()(trace), atol=1e-5)
    everything = torch.tensor(list(itertools.product([0.0, 1.0], repeat=5)))
    mass = run(model.program(), replaying({"z": every, "x": everything}))
    assert float((mass["z"].log_p + mass["x"].log_p).logsumexp(0).exp().sum().detach()) == pytest.approx(1, abs=1e-5)


@every_quantiser
@pytest.mark.parametrize("rows", [1, 5])
def test_the_model_keeps_its_contract(make, rows):
    model = tiny(make())
    if rows > 1:
        check_model(model, {"x": (torch.rand(rows, 5) > 0.5).float()})
    model.train()
    trace = model({"x": (torch.rand(rows, 5) > 0.5).float()}, 3)
    assert trace.log_w.shape == (3, rows) and elbo()(trace).shape == (rows,)
    assert torch.allclose(trace.log_w, trace.log_w[:1].expand(3, rows)), "all draws of a point mass are one"


# straight through ------------------------------------------------------------------------------------------------------------------------------------


def test_straight_through_is_bit_equal_to_the_code():
    e, h = torch.randn(10_000), torch.randn(10_000) * 100
    assert torch.equal(straight_through(e, h), e)
    assert not torch.equal(h + (e - h), e), "the usual line is not"


@pytest.mark.parametrize("make", [QUANTISERS["averaged"], QUANTISERS["trained"]])
def test_the_encoder_follows_the_decoders_gradient_and_the_commitment(make):
    model = tiny(make()).double()
    x = (torch.rand(6, 5) > 0.5).double()
    q = model.posterior(x)
    h = q.h.detach().requires_grad_()
    code = model.quantiser(h)
    e = straight_through(code.vectors, code.h)
    loss = -model.likelihood(e).log_prob(x) + penalty(code)
    (found,) = torch.autograd.grad(loss.sum(), h)
    free = code.vectors.clone().requires_grad_()
    (decoder,) = torch.autograd.grad(-model.likelihood(free).log_prob(x).sum(), free)
    assert torch.allclose(found, decoder + 2 * 0.25 * (h - code.vectors), atol=1e-12)


def test_the_encoder_of_a_residual_quantiser_is_committed_to_every_partial_sum():
    quantiser = VectorQuantiser([AveragedBook(5, 3), AveragedBook(5, 3)], (4,), 0.7).double()
    h = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    code = quantiser(h)
    (found,) = torch.autograd.grad(penalty(code).sum(), h)
    first = quantiser.books[0].codes[code.index[..., 0]].movedim(-1, 1)
    assert torch.allclose(found, 2 * 0.7 * ((h - first) + (h - code.vectors)))


def test_the_trained_book_follows_its_loss_alone():
    model = tiny(QUANTISERS["trained"]()).double()
    x = (torch.rand(6, 5) > 0.5).double()
    elbo()(model({"x": x})).sum().backward()
    book, code = model.quantiser.books[0], model.posterior(x)
    wanted = torch.zeros_like(book.codes)
    for h, i in zip(code.h.detach().movedim(1, -1).reshape(-1, 3), code.index.flatten(), strict=True):
        wanted[i] += 2 * (book.codes.detach()[i] - h)
    assert torch.allclose(book.codes.grad, wanted, atol=1e-12)


@every_quantiser
def test_the_loss_of_a_row_does_not_grow_with_the_batch(make):
    quantiser = make()
    h = encoded(quantiser, 6)
    whole, one = quantiser(h), quantiser(h[:1])
    assert torch.equal(torch.as_tensor(whole.loss).expand(6)[:1], torch.as_tensor(one.loss).expand(1))
    doubled = quantiser(torch.cat([h, h]))
    assert torch.allclose(torch.as_tensor(doubled.loss).mean(), torch.as_tensor(whole.loss).mean())


@every_quantiser
def test_only_training_pays_the_penalty(make):
    quantiser = make().eval()
    assert penalty(quantiser(encoded(quantiser, 3))) == 0.0


@every_quantiser
def test_float64_is_kept_and_half_precision_left(make):
    quantiser = make()
    assert quantiser(encoded(quantiser, 2).bfloat16()).h.dtype == torch.float32
    exact = make().double()
    q = exact(encoded(exact, 2).double())
    assert q.vectors.dtype == torch.float64 and centre(q).shape == (2, exact.params, *exact.grid)


# code books ------------------------------------------------------------------------------------------------------------------------------------------


def test_running_means_are_those_of_the_paper():
    book = AveragedBook(4, 2, decay=0.8, revive=0.0).double()
    n, m = torch.ones(4, dtype=torch.float64), book.codes.clone()
    for _ in range(7):
        before = book.codes.clone()
        points = torch.randn(9, 2, dtype=torch.float64)
        index = book.nearest(points)
        book.observe(points, index)
        for k in range(4):
            mine = points[index == k]
            n[k] = 0.8 * n[k] + 0.2 * len(mine)
            m[k] = 0.8 * m[k] + 0.2 * mine.sum(0)
            wanted = m[k] / n[k] if len(mine) else before[k]
            assert torch.allclose(book.codes[k], wanted, atol=1e-12)
            assert torch.allclose(book.codes[k], m[k] / n[k], atol=1e-12), "a code that is not chosen stays"


@pytest.mark.parametrize("rows", [1, 7, 5000])
def test_the_first_step_of_running_means_does_not_explode(rows):
    book = AveragedBook(16, 3, revive=0.0)
    points = torch.randn(rows, 3)
    hull = torch.cat([points, book.codes]).abs().max()
    for _ in range(3):
        book.observe(points, book.nearest(points))
        assert float(book.codes.abs().max()) <= hull * (1 + 1e-6), "a code is a mean of its start and what it was shown"


def test_a_code_that_nobody_chooses_for_long_stays_finite():
    book = AveragedBook(3, 2, decay=0.5, revive=0.0)
    start = book.codes.clone()
    points = start[:1].expand(4, 2)
    for _ in range(500):
        book.observe(points, torch.zeros(4, dtype=torch.long))
    assert torch.equal(book.codes[1:], start[1:])
    book.observe(torch.ones(2, 2), torch.ones(2, dtype=torch.long))
    assert torch.allclose(book.codes[1], torch.ones(2)), "and takes the mean of those that choose it again"


def test_vectors_that_are_not_finite_move_nothing():
    book, twin = AveragedBook(4, 2), AveragedBook(4, 2)
    twin.load_state_dict(book.state_dict())
    points = torch.randn(6, 2)
    torch.manual_seed(1)
    book.observe(torch.cat([points, torch.full((1, 2), torch.nan)]), torch.cat([book.nearest(points), torch.tensor([2])]))
    torch.manual_seed(1)
    twin.observe(points, twin.nearest(points))
    assert torch.allclose(book.codes, twin.codes) and bool(book.codes.isfinite().all())


@pytest.mark.parametrize("kind", [AveragedBook, TrainedBook])
def test_revival_raises_the_usage_of_a_collapsed_book(kind):
    def used(revive: float) -> tuple[float, float]:
        torch.manual_seed(3)
        book = kind(32, 2, revive=revive)
        with torch.no_grad():
            book.codes[1:] += 100.0
        for _ in range(400):
            points = torch.randn(200, 2)
            book.observe(points, book.nearest(points))
        points = torch.randn(2000, 2)
        found = Usage.of(gather(points, book.nearest(points), 32)[0][None])
        return float(found.share), float(found.perplexity)

    assert used(0.0)[0] <= 2 / 32
    share, perplexity = used(0.03)
    assert share > 0.9 and perplexity > 10


def test_revival_leaves_living_codes_alone():
    book = AveragedBook(4, 2, revive=0.03)
    with torch.no_grad():
        book.codes.copy_(torch.tensor([[0.0, 0], [1, 0], [0, 1], [9, 9]]))
        book.sums.copy_(book.codes)
    points = book.codes[:3].repeat(20, 1)
    for _ in range(600):
        book.observe(points, book.nearest(points))
        if not torch.equal(book.codes[3], torch.tensor([9.0, 9])):
            break
    assert bool((book.codes[3] == points).all(1).any()), "the dead code moved to a vector of the batch"
    assert torch.allclose(book.codes[:3], torch.tensor([[0.0, 0], [1, 0], [0, 1]]), atol=1e-5)


def test_a_quantiser_observes_its_own_trace_book_by_book():
    quantiser = VectorQuantiser([AveragedBook(5, 3, revive=0.0), AveragedBook(5, 3, revive=0.0)], (4,))
    twins = [AveragedBook(5, 3, revive=0.0) for _ in range(2)]
    for twin, book in zip(twins, quantiser.books, strict=True):
        twin.load_state_dict(book.state_dict())
    code = quantiser(encoded(quantiser, 6))
    observe(quantiser, trace_of(code))
    rest = code.h.detach().movedim(1, -1).reshape(-1, 3)
    for number, twin in enumerate(twins):
        index = code.index.reshape(-1, 2)[:, number]
        left = rest - twin.codes[index]
        twin.observe(rest, index)
        rest = left
        assert torch.equal(twin.codes, quantiser.books[number].codes)
    other = VectorQuantiser([AveragedBook(5, 3)], (4,))
    before = other.books[0].codes.clone()
    observe(other, trace_of(code))
    assert torch.equal(other.books[0].codes, before), "another's codes are none of its own"


def test_kmeans_finds_separate_clusters_and_serves_better_than_random_rows():
    centres = torch.tensor([[0.0, 0], [10, 0], [0, 10], [10, 10]])
    points = (centres[:, None] + 0.1 * torch.randn(4, 50, 2)).reshape(-1, 2)
    found = kmeans(points, 4)
    assert float((found[nearest(centres, found)] - centres).abs().max()) < 0.2
    cloud = torch.randn(3000, 4)
    centres = kmeans(cloud, 32)
    cost, random = (float((cloud - c[nearest(cloud, c)]).square().sum(1).mean()) for c in (centres, cloud[:32]))
    assert cost < 0.8 * random
    index = nearest(cloud, centres)
    counts, sums = gather(cloud, index, 32)
    assert int(counts.min()) > 0 and float((sums / counts[:, None] - centres).abs().max()) < 0.6


def test_kmeans_of_fewer_rows_than_codes():
    rows = torch.randn(3, 2)
    assert torch.cdist(kmeans(rows, 8), rows).amin(1).eq(0).all() and torch.cdist(rows, kmeans(rows, 8)).amin(1).eq(0).all()
    assert bool(kmeans(torch.zeros(1, 2), 4).isfinite().all())


def test_books_start_from_data_before_the_first_step():
    recipe = parse("rvq_vae:codes=8,depth=2,dimension=2,hidden=4x4").cook(toy_schema(Binary()))
    x = toy_batch(Binary(), 300)
    for part in recipe.parts.modules():
        prepare(part, x)
    recipe.model.eval()
    q = recipe.model.posterior(x["x"])
    assert float(Usage.of(usage(q)).share) > 0.8
    h = q.h.detach()
    left = (h - q.vectors).square().sum(1).mean()
    assert float(left) < 0.2 * float(h.movedim(1, -1).reshape(-1, 2).var(0).sum())


# residual and scalar quantisers ------------------------------------------------------------------------------------------------------------------


def test_one_book_is_vector_quantisation():
    torch.manual_seed(1)
    book = AveragedBook(5, 3)
    quantiser = VectorQuantiser([book], (4,))
    h = encoded(quantiser, 6)
    q = quantiser(h)
    rows = h.detach().movedim(1, -1)
    index = (rows[..., None, :] - book.codes).square().sum(-1).argmin(-1)
    assert torch.equal(q.index, index) and torch.equal(q.vectors, book.codes[index].movedim(-1, 1))
    assert torch.allclose(q.loss, 0.25 * (rows - book.codes[index]).square().sum((1, 2)))


def test_what_is_left_falls_with_every_book():
    points = torch.randn(500, 4, 1)
    left = []
    for depth in range(1, 5):
        torch.manual_seed(1)
        quantiser = VectorQuantiser([AveragedBook(8, 4) for _ in range(depth)], (1,))
        quantiser.start(points)
        left.append(float((points - quantiser(points).vectors).square().sum(1).mean()))
    assert all(b < 0.8 * a for a, b in itertools.pairwise(left))


def test_residual_codes_are_those_of_the_greedy_search():
    quantiser = VectorQuantiser([AveragedBook(4, 3) for _ in range(3)], (2, 2))
    q = quantiser(encoded(quantiser, 5))
    rest, total = q.h.detach().movedim(1, -1), 0.0
    for level in range(3):
        codes = quantiser.books[level].codes
        index = (rest[..., None, :] - codes).square().sum(-1).argmin(-1)
        assert torch.equal(q.index[..., level], index)
        rest, total = rest - codes[index], total + codes[index]
    assert torch.allclose(q.vectors, total.movedim(-1, 1))


@pytest.mark.parametrize("levels", [(2,), (3,), (8, 5, 5, 5), (2, 2, 2), (4, 3, 2), (7, 6), (256,), (1001,)])
def test_every_scalar_code_is_reached_and_numbered_once(levels):
    quantiser = ScalarQuantiser(levels, (1,))
    every = torch.arange(quantiser.codes)[:, None]
    vectors = quantiser.vectors(every)
    assert len(vectors.flatten(1).unique(dim=0)) == math.prod(levels) == quantiser.codes
    assert float(vectors.min()) == -1 and float(vectors.max()) == 1
    back = quantiser(vectors.double().clamp(-1 + 1e-9, 1 - 1e-9).atanh())
    assert torch.equal(back.index, every), "numbers to codes and back"
    assert torch.allclose(back.vectors, vectors)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8])
def test_scalar_levels_are_the_nearest_to_tanh(count):
    quantiser = ScalarQuantiser((count,), (1,))
    h = torch.linspace(-6, 6, 2000).reshape(-1, 1, 1)
    q = quantiser(h)
    grid = torch.linspace(-1, 1, count)
    assert torch.allclose(q.vectors.flatten(), grid[(h.tanh().flatten()[:, None] - grid).abs().argmin(1)], atol=1e-6)
    assert torch.allclose(q.vectors.flatten(), -q.vectors.flatten().flip(0)), "symmetric about 0"
    if count % 2:
        paper = (count // 2 * h.tanh()).round() / (count // 2)  # Mentzer et al. 2023, section 3.1
        assert torch.allclose(q.vectors, paper, atol=1e-6)
    assert len(q.index.unique()) == count


def test_scalar_codes_at_extremes_and_their_gradient():
    quantiser = ScalarQuantiser((4, 3), (2,)).double()
    extreme = torch.tensor([1e30, -1e30, torch.inf, -torch.inf], dtype=torch.float64).reshape(2, 2, 1).expand(2, 2, 2)
    assert bool((quantiser(extreme).vectors.abs() == 1).all())
    h = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    q = quantiser(h)
    out = straight_through(q.vectors, q.h)
    weight = torch.randn_like(out)
    (found,) = torch.autograd.grad((out * weight).sum(), h)
    assert torch.equal(out, q.vectors) and torch.allclose(found, weight * (1 - h.tanh().square()))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AveragedBook(1, 3), "two codes or more"),
        (lambda: AveragedBook(4, 0), "one number or more"),
        (lambda: AveragedBook(4, 2, decay=1.0), "between 0 and 1"),
        (lambda: TrainedBook(4, 2, revive=1.0), "share of the mean use"),
        (lambda: VectorQuantiser([], (4,)), "code books of one size"),
        (lambda: VectorQuantiser([AveragedBook(4, 2), AveragedBook(5, 2)], (4,)), "alike"),
        (lambda: VectorQuantiser([AveragedBook(4, 2)], (4,), -1.0), "0 or more"),
        (lambda: ScalarQuantiser((1, 3), (4,)), "two or more"),
        (lambda: ScalarQuantiser((), (4,)), "two or more"),
        (lambda: ScalarQuantiser((2**20, 2**20), (4,)), "fewer"),
        (lambda: OneHotCodes(1, 1), "two or more"),
        (lambda: UniformCodes((4,), 1), "two or more"),
        (lambda: UniformOneHot((4,), 1), "two or more"),
        (lambda: VectorQuantiser([AveragedBook(4, 2)], (4,))(torch.zeros(3, 2, 5)), "cannot read"),
        (lambda: ScalarQuantiser((3,), (4,))(torch.zeros(3, 2, 4)), "cannot read"),
        (lambda: OneHotCodes(4, 1)(torch.zeros(3, 5, 2)), "cannot read 5 logits"),
    ],
)
def test_what_cannot_be_is_refused(make, words):
    with pytest.raises(UsageError, match=words):
        make()


# one-hot codes ---------------------------------------------------------------------------------------------------------------------------------------


def chi_square(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(((found - expected).square() / expected).sum())


@pytest.mark.parametrize("law", [Relaxed, StraightThrough, lambda logits, t: Hard(logits)])
@pytest.mark.parametrize("temperature", [0.05, 1.0, 5.0])
def test_the_argmax_of_a_draw_fits_the_categorical(law, temperature):
    logits = torch.tensor([0.0, 1.0, -2.0, 0.5])
    dist = law(logits, torch.tensor(temperature))
    drawn = (dist.rsample if dist.has_rsample else dist.sample)((20_000,))
    assert torch.allclose(drawn.sum(-1), torch.ones(20_000), atol=1e-5)
    counts = torch.bincount(drawn.argmax(-1), minlength=4).float()
    assert chi_square(counts, logits.softmax(0) * 20_000) < 3 + 5 * math.sqrt(6) + 25


def test_relaxed_draws_are_the_papers_density():
    """Two classes: log-odds of the relaxed draw are logistic noise about the logits' difference, over the temperature (Maddison et al. 2017, section 3)."""
    y = Relaxed(torch.tensor([0.3, -0.4]).expand(50_000, 2), torch.tensor(0.7)).rsample()
    u = (0.7 * (y[:, 0].log() - y[:, 1].log()) - 0.7).double().sigmoid()
    assert abs(float(u.mean()) - 0.5) < 5 / math.sqrt(12 * 50_000) and abs(float(u.var()) - 1 / 12) < 0.002


def test_straight_through_codes_are_hard_with_the_relaxed_gradient():
    logits = torch.randn(5, 4, requires_grad=True)
    weight = torch.randn(5, 4)
    gradients = []
    for law in (Relaxed, StraightThrough):
        torch.manual_seed(7)
        drawn = law(logits, torch.tensor(0.8)).rsample()
        gradients.append(torch.autograd.grad((drawn * weight).sum(), logits)[0])
    assert torch.allclose(*gradients) and torch.equal(drawn.max(-1).values, torch.ones(5)) and torch.equal(drawn.sum(-1), torch.ones(5))


def test_draws_relax_in_training_alone_and_only_then_are_no_density():
    family = OneHotCodes(4, 2)
    h = torch.randn(3, 4, 2, 2)
    soft = family(h)
    assert soft.event_shape == (2, 2, 4) and soft.batch_shape == (3,) and not normalised(soft)
    assert not bool(((soft.rsample() == 0) | (soft.rsample() == 1)).all())
    family.eval()
    hard = family(h)
    drawn = hard.sample((6,))
    assert normalised(hard) and bool(((drawn == 0) | (drawn == 1)).all())
    wanted = Independent(OneHotCategorical(logits=h.movedim(1, -1)), 2)
    assert torch.allclose(hard.log_prob(drawn), wanted.log_prob(drawn), atol=1e-5)


@pytest.mark.parametrize("law", [Relaxed, StraightThrough])
def test_the_kl_of_one_hot_codes_is_exact(law):
    h = torch.randn(3, 4, 5, dtype=torch.float64) * 2
    family = OneHotCodes(4, 1, law).double()
    prior = UniformOneHot((5,), 4).double()()
    p = h.movedim(1, -1).softmax(-1)
    exact = (p * (p.log() + math.log(4))).sum((1, 2))
    for mode in (True, False):
        assert torch.allclose(kl_divergence(family.train(mode)(h), prior), exact)
    extreme = family.eval()(torch.tensor([0.0, 1e4, -1e4, 0.0], dtype=torch.float64)[:, None].expand(4, 5).requires_grad_())
    kl = kl_divergence(extreme, prior)
    assert float(kl.detach()) == pytest.approx(5 * math.log(4)) and bool(torch.autograd.grad(kl, extreme.base_dist.logits)[0].isfinite().all())


def one_hot(law, variables: int = 3, classes: int = 3, pixels: int = 5) -> VAE:
    encoder, decoder = mlp((pixels,), (classes, variables), (7,)), mlp((variables, classes), (pixels,), (7,))
    return VAE(UniformOneHot((variables,), classes), Conditional(encoder, OneHotCodes(classes, 1, law)), Conditional(decoder, Bernoulli()))


def test_the_kl_of_one_hot_codes_splits_by_place():
    trace = one_hot(Relaxed).eval()({"x": (torch.rand(6, 5) > 0.5).float()}, 2)
    split = trace["z"].kl_by_dimension
    assert split is not None and split.shape == (3,) and torch.allclose(split.sum(), trace.kl.mean())
    assert numbered(trace["z"].posterior, trace["z"].value[0]).tolist() == trace["z"].value[0].argmax(-1).tolist()


def test_every_string_is_enumerated_once():
    every = strings(Independent(Hard(torch.randn(2, 3)), 1))
    assert every.shape == (9, 2, 3) and len(every.flatten(1).unique(dim=0)) == 9 and bool((every.sum(-1) == 1).all())
    with pytest.raises(UsageError, match="4096 at most"):
        strings(Independent(Hard(torch.randn(20, 10)), 1))
    with pytest.raises(UsageError, match="cannot be enumerated"):
        strings(Independent(Categorical(logits=torch.zeros(2, 3)), 1))


def test_enumeration_is_the_exact_bound_and_draws_agree_with_it():
    model = one_hot(lambda logits, t: Hard(logits)).double()
    batch = {"x": (torch.rand(4, 5) > 0.5).double()}
    (move,) = enumerated(torch.nn.ModuleDict({"model": model}), batch, Clock(0, 1))
    (move.loss.sum()).backward()
    exact = {n: p.grad.clone() for n, p in model.named_parameters()}
    drawn = elbo()(model(batch, 20_000))
    assert torch.allclose(move.loss, drawn, atol=0.05)
    assert float(move.terms["reconstruction"] + move.terms["kl"]) == pytest.approx(float(move.loss.mean().detach()))
    x, q = batch["x"], model.posterior(batch["x"])
    loss = 0.0
    for string in itertools.product(range(3), repeat=3):
        z = torch.eye(3, dtype=torch.float64)[list(string)]
        w = q.log_prob(z)
        loss = loss - (w.exp() * (model.likelihood(z).log_prob(x) - 3 * math.log(3) - w)).sum()
    assert torch.allclose(loss, move.loss.sum())
    for parameter, gradient in zip(model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True):
        assert torch.allclose(gradient, next(g for n, g in exact.items() if dict(model.named_parameters())[n] is parameter), atol=1e-10)


def test_a_cold_relaxation_has_nearly_the_exact_gradient():
    """The Gumbel-softmax is biased for the hard model, and less so the colder it is: checked on the mean gradient of one logit."""
    logits, value = torch.tensor([0.2, -0.3, 0.5], dtype=torch.float64, requires_grad=True), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    (exact,) = torch.autograd.grad(((logits.softmax(0) * value).sum()).square() + (logits.softmax(0) * value.square()).sum(), logits)
    (direct,) = torch.autograd.grad((logits.softmax(0) * value).sum(), logits)
    y = Relaxed(logits.expand(400_000, 3), torch.tensor(0.2, dtype=torch.float64)).rsample()
    (found,) = torch.autograd.grad((y @ value).mean(), logits)
    assert torch.allclose(found, direct, atol=0.05) and exact.shape == found.shape


def test_temperature_follows_its_schedule():
    recipe = parse("dvae:codes=4,hidden=4x4,temperature=0.25,cooling=0.5").cook(toy_schema(Binary()))
    family = recipe.model.posterior.family
    for step, wanted in ((0, 1.0), (25, 0.625), (50, 0.25), (100, 0.25)):
        (move,) = recipe.play(recipe.parts, toy_batch(Binary()), Clock(step, 100))
        assert float(family.temperature) == pytest.approx(wanted) and move.terms["temperature"] == pytest.approx(wanted)
    assert cooled(alone(elbo()), ramp(1.0, 0.5, 0.5)) is not None


# recipes ---------------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        "vq_vae:codes=2,dimension=1,hidden=4x4",
        "vq_vae:codes=4,dimension=2,network=mlp,hidden=8,grid=3",
        "vq_vae:codes=4,dimension=2,network=residual,hidden=4x4,decay=none",
        "fsq_vae:levels=2,hidden=4",
        "rvq_vae:codes=3,depth=1,dimension=2,hidden=4x4",
        "dvae:codes=2,hidden=4x4x4",
        "categorical_vae:variables=1,classes=2,hidden=8,gradient=enumerated",
        "categorical_vae:variables=2,classes=3,hidden=8,gradient=vimco",
        "categorical_vae:variables=2,classes=3,hidden=8,gradient=straight_through",
    ],
)
@pytest.mark.parametrize(("kind", "shape"), [(Integer(256), (3, 9, 6)), (Real(), (1, 1, 1)), (Binary(), (1, 8, 8))])
def test_recipes_train_on_any_image_and_a_batch_of_one(call, kind, shape):
    if "network=mlp" not in call and "grid" in call:
        pytest.skip("a grid of one axis is for dense networks")
    recipe = parse(call).cook(toy_schema(kind, shape))
    loop = Loop(recipe, 0, 3, torch.device("cpu"))
    for _ in range(3):
        loop.step(lambda: toy_batch(kind, 1, shape))
    terms = loop.flush()
    assert all(math.isfinite(v) for v in terms.values()) and "perplexity" in terms
    recipe.model.eval()
    assert recipe.model.generate(2)["x"].value.shape == (2, *shape)


@pytest.mark.parametrize("name", ["vq_vae:hidden=4x4,codes=8,dimension=4", "fsq_vae:hidden=4x4", "dvae:hidden=4x4,codes=8", "categorical_vae:hidden=8"])
def test_recipes_train_in_half_precision(name):
    recipe = parse(f"{name},precision=bfloat16").cook(toy_schema(Binary()))
    loop = Loop(recipe, 0, 3, torch.device("cpu"))
    for _ in range(3):
        loop.step(lambda: toy_batch(Binary()))
    assert all(math.isfinite(v) for v in loop.flush().values()) and float(loop.skipped) == 0


def test_whole_rows_of_codes_can_be_given():
    model = tiny(QUANTISERS["averaged"]())
    batch = {"x": (torch.rand(3, 5) > 0.5).float()}
    given, mask = torch.randint(5, (3, 4)), torch.tensor([True, False, True])
    trace = model(batch, 2, {**batch, "z": Seen(given, mask)})
    drawn = model.posterior(batch["x"]).index
    assert torch.equal(trace["z"].value[0], torch.where(mask[:, None], given, drawn))
    assert torch.allclose(trace.kl, torch.tensor([0.0, 4 * math.log(5), 0.0]))
    free = model(batch, 1, {"z": given})
    assert torch.allclose(free["z"].log_p, torch.full((3,), -4 * math.log(5))) and free["x"].seen is False


@pytest.mark.parametrize("name", ["vq_vae", "rvq_vae", "fsq_vae", "dvae", "categorical_vae"])
def test_recipes_take_vectors(name):
    recipe = parse(name).cook(toy_schema(Real(), (9,)))
    x = torch.randn(5, 9)
    trace = recipe.model({"x": x})
    assert trace.log_w.shape == (1, 5) and torch.equal(trace["x"].log_p, trace["x"].prior.log_prob(x))
    (move,) = recipe.play(recipe.parts, {"x": x}, Clock(0, 1))
    move.loss.sum().backward()
    assert all(p.grad.isfinite().all() for p in recipe.parts.parameters() if p.grad is not None)


def test_the_call_of_a_gradient_comes_back_from_its_text():
    for name in ("straight_through", "vimco", "enumerated"):
        text = f"categorical_vae:classes=3,gradient={name}"
        assert str(parse(text)) == text and str(parse(f"{text},variables=2")) == str(parse(str(parse(f"{text},variables=2"))))
    assert str(parse("categorical_vae:gradient=relaxed")) == "categorical_vae" and str(parse("vq_vae:decay=none")) == "vq_vae:decay=none"


def test_recipes_refuse_in_words():
    schema = toy_schema(Binary())
    with pytest.raises(UsageError, match="greater than or equal to 2"):
        parse("vq_vae:codes=1")
    with pytest.raises(UsageError, match="less than 1"):
        parse("vq_vae:decay=1.0")
    with pytest.raises(UsageError, match="greater than or equal to 0"):
        parse("vq_vae:commitment=-1")
    with pytest.raises(UsageError, match="greater than 0"):
        parse("dvae:temperature=0.0")
    with pytest.raises(UsageError, match="strings to enumerate"):
        parse("categorical_vae:gradient=enumerated").cook(schema)
    with pytest.raises(UsageError, match="no gradient called 'relaxd'; did you mean relaxed"):
        parse("categorical_vae:gradient=relaxd")
    with pytest.raises(UsageError, match="another size"):
        parse("vq_vae:grid=3x3").cook(schema)


@pytest.mark.parametrize("build", [convolutional, residual, by_shape])
@pytest.mark.parametrize("image", [(1, 28, 28), (3, 9, 6), (1, 5, 5), (1, 1, 1)])
def test_networks_go_from_a_picture_to_its_map_and_back(build, image):
    height, width = (-(-side // 4) for side in image[1:])
    check_network(build, image, (6, height, width), (4, 8))
    check_network(build, (6, height, width), image, (8, 4))
    assert build(image, (6, height, width), (4, 8))(torch.zeros(2, *image)).shape == (2, 6, height, width)


def test_a_trained_book_and_a_resumed_run_revive_alike():
    """Revival draws from the step's own random numbers, so two loops at one step agree bit for bit."""
    recipes = [parse("vq_vae:codes=16,dimension=2,hidden=4x4,revive=0.5").cook(toy_schema(Binary())) for _ in range(2)]
    loops = [Loop(r, 0, 40, torch.device("cpu")) for r in recipes]
    data = toy_batch(Binary(), 20)
    for _ in range(10):
        loops[0].step(lambda: data)
    loops[1].load({n: t.clone() for n, t in loops[0].state().items()})
    for loop in loops:
        for _ in range(10):
            loop.step(lambda: data)
    first, second = (loop.state() for loop in loops)
    assert all(torch.equal(first[n], second[n]) for n in first)


def test_the_table_shows_what_training_adds_and_how_evenly_codes_are_used():
    model = tiny(QUANTISERS["averaged"]())
    trace = model({"x": (torch.rand(6, 5) > 0.5).float()})
    terms = terms_of(trace)
    assert torch.allclose(elbo()(trace).mean(), terms["reconstruction"] + terms["kl"] + terms["penalty"])
    f = torch.bincount(trace["z"].posterior.index.flatten(), minlength=5) / 24
    assert float(terms["perplexity"]) == pytest.approx(float(torch.special.entr(f).sum().exp()), rel=1e-5)
    assert "penalty" not in terms_of(model.eval()({"x": torch.zeros(2, 5)}))


def test_usage_of_even_and_single_codes():
    assert float(Usage.of(torch.full((1, 7), 3.0)).perplexity) == pytest.approx(7)
    one = Usage.of(torch.tensor([[5.0, 0, 0, 0]]))
    assert float(one.perplexity) == pytest.approx(1) and float(one.share) == 0.25
    assert usage(Independent(Categorical(logits=torch.zeros(2)), 0)) is None


# runs ------------------------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    generator = np.random.default_rng(0)
    kinds = generator.integers(2, size=(6, 1, 8, 8))
    return kinds[generator.integers(6, size=120)].astype(np.uint8)


@pytest.mark.parametrize("name", ["vq_vae:codes=8,dimension=4", "dvae:codes=4"])
def test_a_run_with_a_second_stage_serves_its_uses(name, pictures, tmp_path):
    run = api.train(f"{name},hidden=6x6,batch=30", pictures, steps=25, out=tmp_path / "one")
    x = torch.from_numpy(pictures[:5]).float()
    second = fit_prior(run, "transformer_codes:width=8,layers=1,heads=2", out=tmp_path / "two", steps=12)
    again = api.open_run(tmp_path / "two", data=pictures)
    scored, better, same = (evaluate(r, Protocol(rows=12, samples=5)) for r in (run, second, again))
    assert better.scores["nll"]["value"] == same.scores["nll"]["value"]
    if name.startswith("vq"):
        assert scored.scores["kl"]["value"] == pytest.approx(4 * math.log(8))
        assert scored.scores["nll"]["value"] == pytest.approx(scored.scores["kl"]["value"] + scored.scores["cross_entropy"]["value"], rel=1e-5)
        assert better.scores["kl"]["value"] < scored.scores["kl"]["value"] and better.scores["cross_entropy"] == scored.scores["cross_entropy"]
    for r in (run, again):
        assert generate(r, 3).shape == sample(r, 3).shape == (3, 1, 8, 8) and reconstruct(r, x).shape == x.shape
        assert torch.equal(embed(r, x), embed(r, x)) and torch.allclose(embed(r, x)[:2], embed(r, x[:2]), atol=1e-5)
    signs = diagnose(again).signs
    assert 0 < signs.codes_used <= 1 and 1 <= signs.perplexity <= 8 and signs.latents == 4 and math.isfinite(signs.off_prior)
    assert {"perplexity", "codes_used"} <= run.log()[-1].keys()


def test_priors_of_numbers_and_priors_of_codes_refuse_each_others_latents(pictures, tmp_path):
    codes = api.train("vq_vae:codes=4,dimension=2,hidden=4x4", pictures, steps=1, out=tmp_path / "codes")
    numbers = api.train("vae:latents=2,hidden=4", pictures, steps=1, out=tmp_path / "numbers")
    with pytest.raises(UsageError, match="latents of this model are codes"):
        fit_prior(codes, "kde", out=tmp_path / "a")
    with pytest.raises(UsageError, match="whose latents are no codes"):
        fit_prior(numbers, "masked_codes", out=tmp_path / "b")
    with pytest.raises(UsageError, match="width should be greater than or equal to 1"):
        fit_prior(codes, "masked_codes:width=0", out=tmp_path / "c")
    assert not any((tmp_path / name).exists() for name in "abc")


def test_embeddings_are_the_vectors_of_the_codes(pictures, tmp_path):
    run = api.train("vq_vae:codes=8,dimension=4,hidden=6x6", pictures, steps=3, out=tmp_path / "run")
    x = torch.from_numpy(pictures[:5]).float()
    q = run.model.posterior(x)
    assert torch.equal(embed(run, x), run.model.quantiser.books[0].codes[q.index].movedim(-1, 1).flatten(1))


def test_a_stopped_run_ends_with_the_bits_of_one_that_did_not(pictures, tmp_path):
    call = "rvq_vae:codes=8,depth=2,dimension=4,hidden=6x6,revive=0.5,batch=30,ema=0.9"
    whole = api.train(call, pictures, steps=12, out=tmp_path / "whole")

    def stop(line):
        if line["step"] == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.train(call, pictures, steps=12, out=tmp_path / "stopped", watch=stop)
    resumed = api.resume(tmp_path / "stopped", data=pictures)
    first, second = (weights(r.recipe.parts) for r in (whole, resumed))
    assert all(torch.equal(first[n], second[n]) for n in first)


def test_the_diagnosis_names_dead_codes(pictures, tmp_path):
    run = api.train("vq_vae:codes=64,dimension=4,hidden=6x6,revive=0.0", pictures, steps=2, out=tmp_path / "run")
    with torch.no_grad():
        run.model.quantiser.books[0].codes[1:] += 1e3
    found = {f.name: f for f in diagnose(run).findings}
    assert "use 2% of the codes" in found["dead codes"].cause and "revive" in found["dead codes"].remedy


@pytest.mark.slow
def test_quantisers_are_exported(pictures, tmp_path):
    pytest.importorskip("onnxruntime")
    run = api.train("fsq_vae:levels=3x3,hidden=6x6", pictures, steps=2, out=tmp_path / "run")
    assert all("checked with onnxruntime" in said for _, said in export_onnx(run, tmp_path / "m.onnx"))


def test_codes_that_are_drawn_are_not_exported(pictures, tmp_path):
    drawing = api.train("dvae:codes=4,hidden=6x6", pictures, steps=2, out=tmp_path / "drawing")
    with pytest.raises(UsageError, match="draws its latents at random"):
        export_onnx(drawing, tmp_path / "d.onnx")


@pytest.mark.parametrize("call", ["vq_vae:codes=12,dimension=3,network=mlp", "rvq_vae:codes=12,dimension=3,network=mlp", "dvae:codes=5,network=mlp"])
def test_codes_in_use_and_their_perplexity_are_those_of_all_rows(call):
    data = load("digits-dynamic")
    recipe = parse(call).cook(data.schema, 0)
    x = torch.from_numpy(np.array(data.split("test").arrays["x"][:90]) > 127).float()

    def measured(rows: Tensor) -> dict:
        subject = Subject(recipe.model, lambda: ({"x": part} for part in rows.split(40)), data.schema["x"])
        return measure(["codes_used", "perplexity"], subject).scores

    found = measured(x)
    with torch.no_grad():
        posterior = next(iter(recipe.model.eval()({"x": x}).latents.values())).posterior
    counts = usage(posterior).double()
    f = counts / counts.sum(1, keepdim=True)
    assert found["codes_used"].value == pytest.approx(float((counts > 0.5).double().mean()))
    assert found["perplexity"].value == pytest.approx(float(torch.special.entr(f).sum(1).exp().mean()), rel=1e-6)
    assert all(0 <= s.error < math.inf for s in found.values())
    assert all(math.isnan(s.error) for s in measured(x[:20]).values())  # one block: nothing can be left out


def test_a_model_without_codes_has_none_in_use():
    data = load("digits-dynamic")
    subject = Subject(parse("vae:hidden=8,latents=2").cook(data.schema, 0).model, lambda: iter([{"x": torch.zeros(3, 1, 8, 8)}]), data.schema["x"])
    assert "has no codes" in measure(["codes_used"], subject).refused["codes_used"]


def test_enumeration_tracks_the_scale_of_codes_that_are_drawn():
    """Every string counted once, likely or not, made the stored scale that of all errors."""
    torch.manual_seed(0)
    x = 3 * torch.randn(4, 4)[torch.arange(128) % 4] + 0.1 * torch.randn(128, 4)
    call = "categorical_vae:variables=1,classes=8,gradient=enumerated,likelihood=gaussian_tracked,hidden=32,learning_rate=0.02,cooling=0"
    recipe = parse(call).cook(toy_schema(Real(), (4,)))
    loop = Loop(recipe, 0, 200, torch.device("cpu"))
    for _ in range(200):
        loop.step(lambda: {"x": x})
    with torch.no_grad():
        drawn = recipe.model({"x": x}, 20)["x"]
    error = (drawn.value - drawn.prior.mean).square().mean()
    assert float(recipe.model.likelihood.family.variance) == pytest.approx(float(error), rel=0.3) and error < 3
