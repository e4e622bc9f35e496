"""Pairs of rows: which dimensions are shared, what is shared, the bound of both rows, what training alone reads, and the paired sprites."""

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal

import vaestro
from vaestro.core import Seen
from vaestro.data import SOURCES, verify
from vaestro.data.dsprites import FACTORS, TOTAL, contents, draw, factors
from vaestro.data.pairs import SpritePairs, partners
from vaestro.data.schema import Binary, Integer, Schema
from vaestro.errors import UsageError
from vaestro.models import VAE
from vaestro.objectives import elbo, iwae
from vaestro.plays import Clock, alone, paired
from vaestro.plays.pairs import alike, arithmetic, harmonic, one_below_the_other, shared
from vaestro.recipes import parse
from vaestro.testing import LinearGaussian, toy_batch, toy_schema
from vaestro.testing.linear import Law
from vaestro.uses.evaluate import Protocol

F64 = torch.float64
TINY = SpritePairs("dsprites-pairs-tiny", "A few pairs", 700, "drawn by code")
PAIRED = "bac0a22a"


def quiet(what: str, done: float) -> None:
    assert what and 0 <= done <= 1


def normal(loc, scale):
    return Normal(torch.tensor(loc, dtype=F64), torch.tensor(scale, dtype=F64))


def halves(p, q):
    """The posterior of a pair, as that of two rows."""
    return Independent(Normal(torch.stack([p.loc, q.loc]), torch.stack([p.scale, q.scale])), 1)


def test_averages_by_hand() -> None:
    p, q = normal([0.0, 1.0], [1.0, 0.5]), normal([2.0, 1.0], [3.0, 0.5])
    loc, scale = arithmetic(p, q)
    assert loc.tolist() == [1.0, 1.0] and scale.square().tolist() == pytest.approx([5.0, 0.25])
    loc, scale = harmonic(p, q)
    assert loc.tolist() == pytest.approx([0.2, 1.0]) and scale.square().tolist() == pytest.approx([1.8, 0.25])
    product = torch.linspace(-9, 9, 4001, dtype=F64).unsqueeze(-1)
    density = (p.log_prob(product) + q.log_prob(product)).exp()[:, :1]
    assert ((product * density).sum() / density.sum()).item() == pytest.approx(0.2), "the mean of the product of the two densities"


def test_dimensions_below_the_middle_of_the_divergences_are_alike() -> None:
    p = normal([0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0])
    q = normal([0.0, 1.0, 2.0, 1.5], [1.0, 1.0, 1.0, 1.0])  # KL = 0, 1/2, 2, 9/8 and their middle is 1
    assert alike(p, q).tolist() == [True, True, False, False]
    wide = normal([0.0, 0.0], [1.0, 1.0]), normal([0.0, 0.0], [math.e, 1.0])  # KL = 1 - (1 - e^-2) / 2
    assert alike(*wide).tolist() == [False, True]
    assert not alike(normal([0.0], [1.0]), normal([1.0], [1.0])).any(), "a latent alone is never shared"


def test_only_those_are_averaged_pair_by_pair() -> None:
    loc = torch.tensor([[0.0, 0.0, 5.0], [1.0, 1.0, 1.0], [0.2, 3.0, 5.0], [1.0, -4.0, 1.5]], dtype=F64)  # rows 0 and 2, 1 and 3
    scale = torch.ones(4, 3, dtype=F64)
    scale[2, 0] = 3.0
    found = shared(Independent(Normal(loc, scale), 1), arithmetic).base_dist
    kl = (loc[2] - loc[0]).square() / 2 / scale[2] ** 2 + scale[2].log() + 1 / (2 * scale[2] ** 2) - 0.5
    assert (kl < (kl.max() + kl.min()) / 2).tolist() == [True, False, True]
    expected = loc.clone()
    expected[[0, 2], 0] = 0.1
    expected[[1, 3], 2] = 1.25
    torch.testing.assert_close(found.loc, expected)
    assert found.scale[[0, 2], 0].square().tolist() == pytest.approx([5.0, 5.0])
    assert (found.scale[[1, 3]] == 1).all()


@pytest.mark.parametrize("average", [arithmetic, harmonic])
def test_identical_rows_keep_their_posterior(average) -> None:
    p = normal([0.3, -1.0], [0.5, 2.0])
    found = shared(halves(p, p), average).base_dist
    torch.testing.assert_close(found.loc, torch.stack([p.loc, p.loc]))
    torch.testing.assert_close(found.scale, torch.stack([p.scale, p.scale]))


def world():
    """A linear-Gaussian model whose posterior is diagonal, and two rows a pair."""
    linear = LinearGaussian()
    scales = torch.tensor([0.3, 0.5], dtype=F64)
    posterior = Law(lambda x: Independent(Normal(x[..., :2] + 0.1, scales + 0.1 * x[..., 2:4].square()), 1))
    prior = Law(lambda: Independent(Normal(torch.zeros(2, dtype=F64), 1.0), 1))
    x, x2 = linear.evidence.sample((2, 7)).unbind(0)
    x2[:, 0] = x[:, 0] + 0.01  # alike in one dimension
    return linear, VAE(prior, posterior, linear.likelihood), {"x": x, "x2": x2}


@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_the_bound_of_a_linear_gaussian_model_in_closed_form(beta) -> None:
    linear, model, batch = world()
    p, q = (model.posterior(batch[n]).base_dist for n in ("x", "x2"))
    mask, (loc, scale) = alike(p, q), arithmetic(p, q)
    assert mask.any() and not mask.all()
    total = torch.zeros(7, dtype=F64)
    for own, x in ((p, batch["x"]), (q, batch["x2"])):
        mean, variance = torch.where(mask, loc, own.loc), torch.where(mask, scale, own.scale).square()
        fit = Normal(mean @ linear.W.T, linear.noise).log_prob(x).sum(-1) - (variance * linear.W.square().sum(0)).sum(-1) / (2 * linear.noise**2)
        kl = (mean.square() + variance - 1 - variance.log()).sum(-1) / 2
        total += (beta * kl - fit) / 2
    torch.manual_seed(0)
    (move,) = paired(elbo(beta), "x2", samples=20_000)(nn.ModuleDict({"model": model}), batch, Clock(0, 1))
    assert move.loss.shape == (7,)
    torch.testing.assert_close(move.loss, total, rtol=0.01, atol=0.1)
    assert move.terms["shared"] == pytest.approx(mask.double().mean().item())
    below = MultivariateNormal(torch.zeros(5, dtype=F64), linear.evidence.covariance_matrix)
    if beta == 1:
        assert (move.loss > -(below.log_prob(batch["x"]) + below.log_prob(batch["x2"])) / 2).all(), "averaged or not, it is a bound"


def test_a_row_paired_with_itself_is_trained_as_alone() -> None:
    _, model, batch = world()
    parts = nn.ModuleDict({"model": model})
    torch.manual_seed(0)
    (move,) = paired(elbo(2.0), "x2", samples=20_000)(parts, {"x": batch["x"], "x2": batch["x"]}, Clock(0, 1))
    (plain,) = alone(elbo(2.0), 20_000)(parts, {"x": batch["x"]}, Clock(0, 1))
    torch.testing.assert_close(move.loss, plain.loss, rtol=0.03, atol=0.3)
    assert move.terms["shared"] == 1


def test_the_weight_is_that_of_the_divergence_and_other_bounds_serve() -> None:
    _, model, batch = world()
    losses = []
    for objective in (elbo(0.0), elbo(1.0), elbo(2.0), iwae):
        torch.manual_seed(0)
        (move,) = paired(objective, "x2", samples=5)(nn.ModuleDict({"model": model}), batch, Clock(0, 1))
        losses.append(move.loss)
    torch.testing.assert_close(losses[2] - losses[1], losses[1] - losses[0])
    assert (losses[2] > losses[1]).all() and (losses[3] < losses[1] + 5).all()


def test_gradients_reach_both_encodings_through_what_is_shared() -> None:
    loc = torch.tensor([[0.0, 0.0], [0.1, 3.0]], requires_grad=True)
    shared(Independent(Normal(loc, torch.ones(2, 2)), 1), arithmetic).base_dist.loc[0].sum().backward()
    assert loc.grad is not None and loc.grad.tolist() == [[0.5, 1.0], [0.5, 0.0]]


def test_rows_seen_in_part_keep_their_holes() -> None:
    a, b = torch.zeros(2, 3), torch.ones(2, 3)
    assert torch.equal(one_below_the_other(a, b), torch.cat([a, b]))
    rows, entries = torch.tensor([True, False]), torch.tensor([[True, False, True], [False, True, True]])
    one = one_below_the_other(Seen(a, entries), Seen(b, rows))
    assert isinstance(one, Seen) and one.mask.tolist() == [*entries.tolist(), [True] * 3, [False] * 3]
    other = one_below_the_other(Seen(a, rows), b)
    assert isinstance(other, Seen) and other.mask.reshape(4, -1).all(1).tolist() == [True, False, True, True]


def test_posteriors_without_dimensions_are_refused() -> None:
    model = LinearGaussian().right
    batch = {"x": torch.randn(3, 5, dtype=F64), "x2": torch.randn(3, 5, dtype=F64)}
    with pytest.raises(UsageError, match="averaged by dimension, and MultivariateNormal is not one Gaussian for each"):
        next(paired(elbo(), "x2")(nn.ModuleDict({"model": model}), batch, Clock(0, 1)))


def test_data_without_pairs_are_refused_naming_those_that_have_them() -> None:
    schema = toy_schema(Binary())
    lone = Schema("lone", schema.fields[:2], schema.rows)
    with pytest.raises(UsageError, match=r"field 'x2' of 'lone' is not there; data with pairs: dsprites-pairs, or your own \.npz with arrays x and x2"):
        parse("ada_gvae").cook(lone)
    with pytest.raises(UsageError, match="field 'label' of 'toy' is not like x"):
        parse("ada_gvae:pair=label").cook(schema)
    with pytest.raises(UsageError, match="is x itself"):
        parse("ada_gvae:pair=x").cook(schema)


def test_only_training_reads_pairs_and_every_use_takes_single_rows(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    numbers = generator.choice(TOTAL, 60, replace=False)
    x, x2 = draw(numbers)[:, :, ::8, ::8], draw(partners(numbers, np.zeros(TOTAL)))[:, :, ::8, ::8]
    held = factors(numbers)
    data = {"x": x, "x2": x2, "a": held[:, 0], "b": held[:, 1] % 2}
    run = vaestro.train("ada_gvae:latents=3,hidden=16,average=harmonic,beta=2", data, steps=12, out=tmp_path / "run")
    assert run.recipe.fields == ("x",) and run.recipe.beside == ("x2",)
    assert 0 <= run.log()[-1]["shared"] <= 1
    again = vaestro.open_run(tmp_path / "run", data=data)
    rows = Protocol(rows=6, samples=4)
    found = vaestro.evaluate(again, rows)
    assert found.scores["nll"]["value"] == vaestro.evaluate(run, rows).scores["nll"]["value"]
    assert vaestro.generate(again, 3).shape == (3, 1, 8, 8)
    single = torch.as_tensor(x[:2]).float()
    assert vaestro.reconstruct(again, single).shape == (2, 1, 8, 8) and vaestro.embed(again, single).shape == (2, 3)


def test_a_batch_of_one_pair_and_one_latent_trains() -> None:
    recipe = parse("ada_gvae:latents=1,hidden=4").cook(toy_schema(Integer(5)))
    batch = {"x": toy_batch(Integer(5), 1)["x"], "x2": toy_batch(Integer(5), 1)["x"]}
    (move,) = recipe.play(recipe.parts, batch, Clock(0, 1))
    assert move.loss.shape == (1,) and move.loss.isfinite().all() and move.terms["shared"] == 0


def test_partners_differ_in_one_to_four_factors_evenly() -> None:
    rows = np.arange(0, TOTAL, 37)
    others = partners(rows, np.zeros(TOTAL))
    changed = factors(rows) != factors(others)
    counts = np.bincount(changed.sum(1), minlength=6)
    assert counts[0] == counts[5] == 0 and (np.abs(counts[1:5] - len(rows) / 4) < 5 * math.sqrt(len(rows) * 3 / 16)).all()
    assert (np.abs(changed.mean(0) - 0.5) < 0.02).all(), "(1 + 2 + 3 + 4) / 4 of 5"
    shapes = np.stack([factors(rows)[:, 0], factors(others)[:, 0]], 1)[changed[:, 0]]
    pairs = np.bincount(shapes[:, 0] * 3 + shapes[:, 1], minlength=9).reshape(3, 3)
    assert (np.diag(pairs) == 0).all() and (np.abs(pairs[~np.eye(3, dtype=bool)] - len(shapes) / 6) < 5 * math.sqrt(len(shapes) / 6)).all()
    assert hashlib.sha256(others.tobytes()).hexdigest().startswith(PAIRED), "the pairs never change"


def test_partners_stay_in_their_group() -> None:
    group = np.arange(TOTAL) % 7 % 3
    rows = np.arange(0, TOTAL, 401)
    assert (group[partners(rows, group)] == group[rows]).all()


def test_paired_sprites_are_stored_split_and_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path))
    raw = TINY.bring(None, True, quiet)
    data = TINY.build(raw, quiet)
    verify(data)
    assert sum(data.schema.rows.values()) == 700 and min(data.schema.rows.values()) > 40
    assert {f.name: f.kind for f in data.schema if f.name in ("x", "x2")} == {"x": Binary(), "x2": Binary()}
    assert data.schema["factors2"].kind == Integer(40), "no field of classes, so that the scores of factors read those of x alone"
    kept = {}
    for name, split in data.splits.items():
        own = np.stack([split.arrays[f] for f in FACTORS], 1).astype(np.int64)
        second = np.asarray(split.arrays["factors2"]).astype(np.int64)
        numbers, others = (np.ravel_multi_index(tuple(f.T), tuple(FACTORS.values())) for f in (own, second))
        assert (draw(numbers) == split.arrays["x"]).all() and (draw(others) == split.arrays["x2"]).all()
        assert set((own != second).sum(1)) <= {1, 2, 3, 4}
        kept[name] = set(contents(numbers).tolist()) | set(contents(others).tolist())
    assert not (kept["train"] & kept["test"] or kept["train"] & kept["validation"] or kept["validation"] & kept["test"])
    with pytest.raises(UsageError, match="drawn by code and not read from a path"):
        SOURCES["dsprites-pairs"].bring(tmp_path, False, quiet)
