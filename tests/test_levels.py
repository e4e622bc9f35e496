"""Codes on several levels: the bound by enumeration of every string, books that start in order, and priors whose masses sum to one."""

import itertools
import math

import pytest
import torch
from torch import nn

import vaestro
from vaestro.codes import TrainedBook, VectorQuantiser, used_in
from vaestro.codes.base import usage
from vaestro.codes.levels import LevelCode, LevelQuantiser
from vaestro.core import observe, prepare
from vaestro.data.schema import Binary, Field, Integer
from vaestro.errors import UsageError
from vaestro.evaluation.likelihood import importance
from vaestro.models.levels import CodedLevels
from vaestro.networks.causal import MaskedLevels
from vaestro.objectives import elbo
from vaestro.priors import StandardNormal, UniformCodes
from vaestro.priors.codes import UniformLevels
from vaestro.priors.fitted import Latents
from vaestro.priors.strings import LevelPrior, Strings, masked_codes, transformer_codes
from vaestro.recipes import parse
from vaestro.testing import toy_batch, toy_schema
from vaestro.uses.evaluate import Protocol

GRIDS = ((1, 1), (1, 2))


def quantiser(codes=3, dimension=2, grids=GRIDS):
    return LevelQuantiser([VectorQuantiser([TrainedBook(codes, dimension)], g, 0.25 * (i + 1)) for i, g in enumerate(grids)])


def model(codes=2, kind=None, shape=(1, 4, 4), hidden="3x4"):
    torch.manual_seed(3)
    return parse(f"vq_vae_2:codes={codes},dimension=2,hidden={hidden},decay=none").cook(toy_schema(kind or Binary(), shape)).model


def strings(codes, places):
    return torch.tensor(list(itertools.product(range(codes), repeat=places)))


def test_a_level_is_quantised_as_it_would_be_alone():
    levels, h = quantiser(), torch.randn(4, 5, 6)
    code = levels(h)
    parts = [q(p) for q, p in zip(levels.each, levels.split(h), strict=True)]
    assert torch.equal(code.index, torch.cat([p.index.flatten(2) for p in parts], -1)) and code.event_shape == (3,)
    torch.testing.assert_close(code.loss, parts[0].loss + parts[1].loss)
    assert torch.equal(levels.join(levels.split(h)), h)
    torch.testing.assert_close(code.vectors, levels.join([p.vectors for p in parts]))
    assert torch.equal(code.expand(torch.Size((2, 4, 5))).index[1], code.index)
    assert isinstance(code, LevelCode) and torch.equal(code.log_prob(code.index), torch.zeros(4, 5))
    assert torch.isneginf(code.log_prob((code.index + 1) % 3)).all()


def test_usage_counts_each_level_apart():
    code = quantiser()(torch.randn(50, 6))
    counts = usage(code)
    assert counts.shape == (2, 3) and counts.sum(1).tolist() == [50, 100]
    assert counts[0].tolist() == torch.bincount(code.index[:, 0], minlength=3).tolist()
    trace = model()({"x": toy_batch(Binary(), 4, (1, 4, 4))["x"]})
    assert used_in(trace).shape == (2, 2)


def test_the_bound_lies_below_the_sum_over_every_string():
    vae, x = model().double().eval(), toy_batch(Binary(), 6, (1, 4, 4))["x"].double()
    every = strings(2, 5)  # a place at the top, four below
    e = vae.quantiser.vectors(every)
    joint = vae.likelihood(e.unsqueeze(1)).log_prob(x) - 5 * math.log(2)
    evidence = joint.logsumexp(0)
    trace = vae({"x": x})
    torch.testing.assert_close(trace.kl, torch.full((6,), 5 * math.log(2), dtype=torch.float64))
    own = [(every == code).all(1).nonzero().item() for code in trace["z"].value[0]]
    torch.testing.assert_close(trace.log_w[0], joint[own, range(6)])
    assert (trace.log_w[0] <= evidence).all()
    assert torch.allclose(torch.from_numpy(importance(vae, {"x": x}, 3, 1).log_px), trace.log_w[0])


def test_the_loss_of_a_row_does_not_grow_with_the_batch():
    vae = model(codes=5)
    x = toy_batch(Binary(), 6, (1, 4, 4))["x"]
    alone, together = elbo()(vae({"x": x[:1]})), elbo()(vae({"x": x}))
    torch.testing.assert_close(together[:1], alone)
    assert vae({"x": x}).penalty.shape == (6,) and vae.eval()({"x": x}).penalty == 0.0


def test_books_start_in_order_so_that_few_rows_are_met_exactly():
    """With as many codes as there are vectors, every vector has its own, at all levels: the lower ones only if those above had started."""
    vae, x = model(codes=16), toy_batch(Binary(), 3, (1, 4, 4))["x"]
    prepare(vae, {"x": x})
    q = vae.posterior(x)
    torch.testing.assert_close(q.vectors, q.h, atol=1e-5, rtol=1e-4)


def test_every_book_follows_what_its_own_level_was_shown():
    torch.manual_seed(1)
    vae = parse("vq_vae_2:codes=3,dimension=2,hidden=3x4,revive=0.0,decay=0.5").cook(toy_schema(Binary(), (1, 4, 4))).model
    trace = vae({"x": toy_batch(Binary(), 6, (1, 4, 4))["x"]})
    before = [level.books[0].codes.clone() for level in vae.quantiser.levels]
    counts = [level.books[0].usage.clone() for level in vae.quantiser.levels]
    for part in vae.modules():
        observe(part, trace)
    maps = vae.quantiser.split(trace["z"].posterior.h)
    index = trace["z"].posterior.index.split(vae.quantiser.lengths, -1)
    for level, h, chosen, old, count in zip(vae.quantiser.levels, maps, index, before, counts, strict=True):
        points = h.flatten(2).transpose(1, 2).reshape(-1, 2)
        for k in range(3):
            mine = points[chosen.flatten() == k]
            expected = (0.5 * old[k] * count[k] + 0.5 * mine.sum(0)) / (0.5 * count[k] + 0.5 * len(mine)) if len(mine) else old[k]
            torch.testing.assert_close(level.books[0].codes[k], expected)


def test_the_gradient_of_the_likelihood_reaches_every_level():
    vae, x = model(codes=4), toy_batch(Binary(), 6, (1, 4, 4))["x"]
    (-vae({"x": x}).log_px.sum()).backward()
    heads = vae.posterior.net.heads
    assert all((head.weight.grad != 0).any() for head in heads)


@pytest.mark.parametrize("build", [masked_codes, transformer_codes])
def test_masses_of_a_learnt_prior_over_levels_sum_to_one(build):
    old = UniformLevels(GRIDS, 3)
    prior = build(Latents((3,), old, nn.Identity(), Field("x", Binary(), (1, 4, 4))), width=8, layers=2)
    assert isinstance(prior, LevelPrior) and prior.grids == GRIDS and isinstance(prior(), Strings)
    log_p = prior.double()().log_prob(strings(3, 3))
    assert log_p.exp().sum().item() == pytest.approx(1.0, abs=1e-9)
    assert log_p.std() > 1e-3
    again = build(Latents((3,), prior, nn.Identity(), Field("x", Binary(), (1, 4, 4))), width=8, layers=2)
    assert isinstance(again, LevelPrior), "a prior that was fitted can be fitted again"
    torch.manual_seed(0)
    drawn = prior().sample((3000,))
    shares = torch.bincount(drawn @ torch.tensor([9, 3, 1]), minlength=27) / 3000
    assert (shares - log_p.exp()).abs().max() < 5 * math.sqrt(0.25 / 3000)


def test_a_place_reads_what_is_before_it_and_the_levels_above():
    torch.manual_seed(0)
    grids = ((1, 2), (2, 3), (3, 3))
    net = MaskedLevels(grids, 4, (8, 3, 5)).double()
    x = torch.randint(4, (1, 17))
    base = net(x)
    for place in range(17):
        changed = x.clone()
        changed[0, place] = (changed[0, place] + 1) % 4
        moved = ((net(changed) - base).abs().amax((0, 2)) > 1e-12).tolist()
        assert not any(moved[: place + 1]), f"logits before place {place} and at it do not read it"
        if place < 8:
            level = 0 if place < 2 else 1
            below = range(2, 8) if level == 0 else range(8, 17)
            assert all(moved[i] for i in below) or level == 1, "the level below reads all of a small grid above"
            assert any(moved[i] for i in below)
    for length in (1, 2, 3, 8, 12):
        torch.testing.assert_close(net(x[:, :length]), base[:, :length], msg="a string that stops early scores the same")


def test_a_uniform_prior_over_levels_is_one_over_all_strings():
    prior = UniformLevels(GRIDS, 3)
    assert isinstance(prior, UniformCodes) and prior.shape == (3,)
    torch.testing.assert_close(prior().log_prob(strings(3, 3)).exp().sum(), torch.tensor(1.0))


def test_other_latents_are_refused_by_priors_over_codes():
    with pytest.raises(UsageError, match="no codes"):
        masked_codes(Latents((3,), StandardNormal((3,)), nn.Identity(), Field("x", Binary(), (1, 4, 4))))


@pytest.mark.parametrize(
    ("call", "shape", "words"),
    [
        ("vq_vae_2", (9,), "levels of codes need images"),
        ("vq_vae_2:levels=3,hidden=4x4", (1, 8, 8), "3 levels of codes need as many halvings"),
    ],
)
def test_levels_that_cannot_be_are_refused(call, shape, words):
    with pytest.raises(UsageError, match=words):
        parse(call).cook(toy_schema(Binary(), shape))
    with pytest.raises(UsageError, match="one book each"):
        LevelQuantiser([])
    with pytest.raises(UsageError, match="one book each"):
        LevelQuantiser([VectorQuantiser([TrainedBook(3, 2)], (1, 1)), VectorQuantiser([TrainedBook(4, 2)], (1, 1))])


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (1, 28, 28)])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_any_size_and_any_number_of_levels(shape, levels):
    recipe = parse(f"vq_vae_2:levels={levels},codes=4,dimension=2,hidden=4x4x4").cook(toy_schema(Integer(5), shape))
    assert isinstance(recipe.model, CodedLevels)
    trace = recipe.model({"x": toy_batch(Integer(5), 2, shape)["x"]}, 2)
    assert trace.log_w.shape == (2, 2) and trace.log_w.isfinite().all()
    assert recipe.model.generate(3)["x"].value.shape == (3, *shape)


def test_a_second_stage_learns_what_the_levels_say_of_each_other(tmp_path):
    run = vaestro.train("vq_vae_2:codes=8,dimension=4,hidden=8x8", "digits-dynamic", steps=30, out=tmp_path / "run")
    second = vaestro.fit_prior(run, "masked_codes:width=16,layers=1,kernel=3", out=tmp_path / "second", steps=20)
    rows = Protocol(rows=60, samples=1)
    before, after = (vaestro.evaluate(r, rows).scores for r in (run, second))
    assert before["kl"]["value"] == pytest.approx(20 * math.log(8), abs=1e-3)
    assert after["kl"]["value"] < before["kl"]["value"] - 1
    assert vaestro.generate(vaestro.open_run(tmp_path / "second"), 4).shape == (4, 1, 8, 8)
    assert vaestro.embed(run, torch.zeros(2, 1, 8, 8)).shape == (2, 80)
