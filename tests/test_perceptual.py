"""Perceptual distances against direct sums, an independent library's number and their identities; and models that use them."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import vaestro
from vaestro import core
from vaestro.arena.scoring import fairly_judged
from vaestro.core import Seen, normalised
from vaestro.data.schema import Binary, Field, Integer, Real, Schema
from vaestro.errors import UsageError
from vaestro.evaluation.judge import load
from vaestro.evaluation.metrics import Report
from vaestro.evaluation.metrics.base import Score
from vaestro.families import LIKELIHOODS, Perceptual
from vaestro.families.perceptual import SCALES, FeatureDistance, FocalFrequency, MsSsim, ms_ssim
from vaestro.networks.judge import JudgeMaps
from vaestro.objectives import elbo, perceived
from vaestro.plays import Clock, beside
from vaestro.recipes import parse
from vaestro.recipes.perceptual import DISTANCES
from vaestro.testing import toy_batch, toy_schema
from vaestro.uses.evaluate import Protocol


def waves(size: int, phase: float) -> torch.Tensor:
    """A picture of two channels that any program can make again, [1, 2, size, size]."""
    a, b = torch.meshgrid(torch.arange(size, dtype=torch.float64), torch.arange(size, dtype=torch.float64), indexing="ij")
    return torch.stack([0.5 + 0.4 * torch.sin(0.31 * a + 0.17 * b + phase), 0.5 + 0.3 * torch.cos(0.05 * a * phase - 0.23 * b)])[None]


def pair(*shape: int, mixed: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    x, other = torch.rand(2, *shape, dtype=torch.float64)
    return x, (1 - mixed) * x + mixed * other


GOLDEN = 0.5990103765599077


def direct(x: np.ndarray, y: np.ndarray) -> float:
    """MS-SSIM of one channel by its definition: loops over windows, and weights from the two-dimensional Gaussian."""
    side = min(x.shape)
    scales = max([m for m in range(1, 6) if side >= 11 * 2 ** (m - 1)], default=1)
    exponents = np.array(SCALES[:scales]) / sum(SCALES[:scales]) * sum(SCALES)
    value = 1.0
    for j, exponent in enumerate(exponents):
        width = min(11, min(x.shape) - (min(x.shape) + 1) % 2)
        at = np.arange(width) - (width - 1) / 2
        g = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 1.5**2))
        g /= g.sum()
        whole, contrast = [], []
        for top in range(x.shape[0] - width + 1):
            for left in range(x.shape[1] - width + 1):
                p, q = x[top : top + width, left : left + width], y[top : top + width, left : left + width]
                mp, mq = (g * p).sum(), (g * q).sum()
                vp, vq, both = (g * (p - mp) ** 2).sum(), (g * (q - mq) ** 2).sum(), (g * (p - mp) * (q - mq)).sum()
                contrast.append((2 * both + 0.03**2) / (vp + vq + 0.03**2))
                whole.append((2 * mp * mq + 0.01**2) / (mp**2 + mq**2 + 0.01**2) * contrast[-1])
        value *= max(np.mean(whole if j == scales - 1 else contrast), 1e-4) ** exponent
        even = (x.shape[0] // 2 * 2, x.shape[1] // 2 * 2)
        x, y = (v[: even[0], : even[1]].reshape(even[0] // 2, 2, even[1] // 2, 2).mean((1, 3)) for v in (x, y)) if j < scales - 1 else (x, y)
    return float(value)


@pytest.mark.parametrize("shape", [(28, 28), (23, 30), (11, 12), (8, 9), (2, 3), (1, 1)])
def test_ms_ssim_is_its_definition(shape):
    torch.manual_seed(0)
    x, y = pair(3, 2, *shape)
    expected = [np.mean([direct(a.numpy(), b.numpy()) for a, b in zip(p, q, strict=True)]) for p, q in zip(x, y, strict=True)]
    torch.testing.assert_close(ms_ssim(x, y), torch.tensor(expected), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(MsSsim()(x, y), math.prod(shape) * 2 * (1 - torch.tensor(expected)), rtol=1e-9, atol=1e-9)


def test_five_scales_agree_with_another_library():
    """The number is that of pytorch-msssim 1.0.0, ms_ssim(x, y, data_range=1), whose window is in float32."""
    assert ms_ssim(waves(176, 0.2), waves(176, 0.5)).item() == pytest.approx(GOLDEN, rel=1e-6)


@pytest.mark.parametrize("distance", [MsSsim(), FocalFrequency(), FocalFrequency(0.0), FeatureDistance(JudgeMaps(load("digits")).double())])
def test_distances_are_zero_between_equals_and_broadcast(distance):
    torch.manual_seed(1)
    x, y = pair(5, 1, 8, 8)
    torch.testing.assert_close(distance(x, x), torch.zeros(5, dtype=torch.float64), atol=1e-10, rtol=0)
    assert (distance(x, y) > 0).all()
    torch.testing.assert_close(distance(x, y), distance(y, x))
    many = torch.stack([y, x, y.flip(0)])
    torch.testing.assert_close(distance(x, many), torch.stack([distance(x, m) for m in many]))
    torch.testing.assert_close(distance(x[:1], y[:1]), distance(x, y)[:1])
    same = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(distance(x, same).sum(), same)
    torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-6, rtol=0)


def test_distances_keep_the_precision_that_they_are_given():
    x, y = pair(2, 1, 12, 12)
    for distance in (MsSsim(), FocalFrequency()):
        single = distance(x.float(), y.float())
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), distance(x, y), rtol=1e-4, atol=1e-4)


def test_distances_of_levels_are_least_where_they_should_be():
    for distance in (MsSsim(), FocalFrequency()):
        x, y = pair(1, 1, 12, 12)
        found = [distance(x, x + w * (y - x)).item() for w in (0.25, 0.5, 1.0)]
        assert found == sorted(found)


def test_focal_frequency_is_its_double_sum():
    torch.manual_seed(2)
    x, y = pair(2, 2, 4, 3)
    height, width = 4, 3
    u, v = (torch.arange(n, dtype=torch.float64) for n in (height, width))
    rows, columns = (torch.exp(-2j * math.pi * a[:, None] * a[None] / len(a)) / math.sqrt(len(a)) for a in (u, v))
    gap = (rows @ (x - y).to(torch.complex128) @ columns).abs()
    for alpha in (0.5, 1.0, 2.0):
        weight = gap**alpha / (gap**alpha).amax((-2, -1), keepdim=True)
        torch.testing.assert_close(FocalFrequency(alpha)(x, y), (weight * gap.square()).sum((1, 2, 3)))
    torch.testing.assert_close(FocalFrequency(0.0)(x, y), (x - y).square().sum((1, 2, 3)))  # Parseval


def test_the_weights_of_frequencies_are_held_fixed():
    torch.manual_seed(3)
    x, y = pair(1, 1, 5, 5)
    y.requires_grad_()
    (slope,) = torch.autograd.grad(FocalFrequency()(x, y).sum(), y)
    gap = torch.fft.fft2(y - x, norm="ortho").detach()
    weight = gap.abs() / gap.abs().max()
    torch.testing.assert_close(slope, 2 * torch.fft.ifft2(weight * gap, norm="ortho").real)
    with pytest.raises(UsageError, match="alpha"):
        FocalFrequency(-1.0)


def test_features_are_the_layers_of_the_judge():
    judge = load("digits")
    torch.manual_seed(4)
    x, y = (v.float() for v in pair(3, 1, 8, 8))
    maps = JudgeMaps(judge)
    assert [m.shape[1] for m in maps(x)] == [12, 24, 48, 64]
    torch.testing.assert_close(maps(x)[-1] * judge.scale, judge.features(x))
    expected = 64 * sum((a - b).square().flatten(1).mean(1) for a, b in zip(maps(x), maps(y), strict=True))
    torch.testing.assert_close(FeatureDistance(maps)(x, y), expected)
    assert not any(p.requires_grad for p in maps.parameters())
    with pytest.raises(UsageError, match="reads pictures of shape"):
        maps(torch.zeros(1, 1, 9, 9))


@pytest.mark.parametrize("name", ["ms_ssim", "focal_frequency"])
def test_a_perceptual_likelihood_says_that_it_is_no_density(name):
    family = LIKELIHOODS[name](Field("x", Integer(256), (3, 12, 12)))
    h = torch.randn(4, 2, 3, 12, 12, dtype=torch.float64)
    dist = family(h)
    assert not normalised(dist)
    x = torch.rand(2, 3, 12, 12, dtype=torch.float64)
    torch.testing.assert_close(dist.log_prob(x), -family.distance(x, h.sigmoid()))
    assert torch.equal(dist.expand((5, 4, 2)).log_prob(x)[0], dist.log_prob(x))
    torch.testing.assert_close(Perceptual(family.distance, 3.0)(h).log_prob(x), 3 * dist.log_prob(x))
    with pytest.raises(UsageError, match="whole pictures"):
        core.partial_log_prob(dist, x, x > 0.5)
    with pytest.raises(UsageError, match="pictures"):
        LIKELIHOODS[name](Field("x", Integer(256), (9,)))
    with pytest.raises(UsageError, match="unit values"):
        LIKELIHOODS[name](Field("x", Real(), (3, 12, 12)))
    with pytest.raises(UsageError, match="weight"):
        Perceptual(family.distance, 0.0)


def test_gradients_are_finite_at_the_extremes():
    for family in (Perceptual(MsSsim()), Perceptual(FocalFrequency())):
        for size in (10.0, 1e4):
            h = (size * torch.randn(3, 1, 24, 24)).requires_grad_()
            for x in (torch.zeros(1, 24, 24), torch.rand(1, 24, 24).round(), (-h[0].detach()).sigmoid()):
                log_p = family(h).log_prob(x)
                (slope,) = torch.autograd.grad(log_p.sum(), h)
                assert log_p.isfinite().all() and slope.isfinite().all()


def test_the_term_stands_beside_the_bound_and_leaves_the_density_alone():
    schema = toy_schema(Integer(5), (1, 12, 12))
    recipe = parse("perceptual_vae:hidden=4x4,latents=3,weight=0.5").cook(schema)
    batch = toy_batch(Integer(5), 6, (1, 12, 12))
    torch.manual_seed(0)
    (move,) = recipe.play(recipe.parts, batch, Clock(0, 1))
    torch.manual_seed(0)
    trace = recipe.model(batch)
    far = MsSsim()(batch["x"], core.centre(trace["x"].prior)).mean(0)
    torch.testing.assert_close(move.loss, elbo()(trace) + 0.5 * far)
    torch.testing.assert_close(move.terms["distance"], far.mean())
    assert trace.normalised
    several = recipe.model(batch, 4)
    torch.testing.assert_close(perceived(several, MsSsim()), torch.stack([MsSsim()(batch["x"], m) for m in core.centre(several["x"].prior)]).mean(0))


def test_rows_that_were_not_seen_cost_nothing_and_holes_are_refused():
    recipe = parse("perceptual_vae:hidden=4x4,latents=3").cook(toy_schema(Binary(), (1, 12, 12)))
    x = toy_batch(Binary(), 4, (1, 12, 12))["x"]
    seen = torch.tensor([True, False, True, False])
    far = perceived(recipe.model({"x": Seen(x, seen)}, 2), MsSsim())
    assert torch.equal(far > 0, seen)
    with pytest.raises(UsageError, match="whole pictures"):
        perceived(recipe.model({"x": Seen(x, x > 0.5)}), MsSsim())


@pytest.mark.parametrize("distance", list(DISTANCES))
def test_each_distance_trains_saves_and_keeps_its_nats(distance, tmp_path):
    run = vaestro.train(f"perceptual_vae:distance={distance},hidden=4x4,latents=3,weight=0.1", "digits-dynamic", steps=6, out=tmp_path / "run")
    found = vaestro.evaluate(vaestro.open_run(tmp_path / "run"), Protocol(rows=20, samples=3))
    assert "nll" in found.scores and run.about["unit"] == "nats a row"
    assert math.isfinite(run.log()[-1]["distance"])


def test_what_is_no_density_has_no_nats(tmp_path):
    run = vaestro.train("vae:likelihood=ms_ssim,hidden=8,latents=3", "digits-dynamic", steps=4, out=tmp_path / "run")
    found = vaestro.evaluate(run, Protocol(rows=20, samples=3))
    assert "nll" not in found.scores and "does not integrate to one" in found.about["refused"]["nll"]
    assert "no nats" in run.about["unit"]
    assert vaestro.diagnose(run).signs.gain is None


def test_data_without_a_judge_and_rows_that_are_no_pictures_are_refused():
    with pytest.raises(UsageError, match="no judge network"):
        parse("perceptual_vae:distance=features").cook(toy_schema(Binary(), (1, 8, 8)))
    with pytest.raises(UsageError, match="needs images"):
        parse("perceptual_vae").cook(toy_schema(Binary(), (9,)))
    with pytest.raises(UsageError, match="fits Binary or Integer"):
        parse("perceptual_vae").cook(toy_schema(Real(), (1, 8, 8)))
    with pytest.raises(UsageError, match="weight should be greater than 0"):
        parse("perceptual_vae:weight=0")


def test_a_frozen_network_belongs_to_no_player():
    schema = Schema("digits-dynamic", (Field("x", Binary(), (1, 8, 8)),), {"train": 10})
    recipe = parse("perceptual_vae:distance=features,hidden=4x4,latents=3").cook(schema)
    assert isinstance(recipe.parts["distance"], nn.Module)
    before = {n: p.clone() for n, p in recipe.parts["distance"].named_parameters()}
    (move,) = beside(1.0)(recipe.parts, {"x": torch.rand(4, 1, 8, 8).round()}, Clock(0, 1))
    move.loss.mean().backward()
    assert all(p.grad is None and torch.equal(p, before[n]) for n, p in recipe.parts["distance"].named_parameters())


def test_a_model_that_learnt_to_please_the_judge_is_not_judged_by_it(tmp_path):
    report = Report({"frechet_judge": Score(1.0, 0.1), "frechet_pca64": Score(2.0, 0.1), "nll": Score(3.0, 0.1)})
    for distance, judged in (("features", False), ("ms_ssim", True)):
        run = vaestro.train(f"perceptual_vae:distance={distance},hidden=4x4,latents=3", "digits-dynamic", steps=1, out=tmp_path / distance)
        found = fairly_judged(run, report)
        assert ("frechet_judge" in found.scores) == judged
        assert {"frechet_pca64", "nll"} <= found.scores.keys()
        assert judged or "the judge itself" in found.refused["frechet_judge"]
