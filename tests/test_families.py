"""Families against closed forms, quadrature, mpmath and scipy."""

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Independent, kl_divergence
from torch.distributions import MixtureSameFamily as TorchMixture

from examples import FAMILIES
from vaestro import core, families
from vaestro.conditional import Conditional
from vaestro.data.schema import Binary, Category, Field, Integer, Real
from vaestro.errors import UsageError
from vaestro.families import LIKELIHOODS, Binned, Gaussian, default_likelihood, fitting, log_interval, outputs
from vaestro.families.normal import log_mass, log_ndtr
from vaestro.networks import NETWORKS
from vaestro.testing import check_family


@pytest.mark.parametrize("name", FAMILIES)
def test_family_keeps_its_contract(name: str) -> None:
    check_family(*FAMILIES[name])


def test_every_part_has_an_example() -> None:
    public = {n for n in families.__all__ if isinstance(getattr(families, n), type) and n != "Family"}
    assert public <= set(FAMILIES), f"give an example to {public - set(FAMILIES)}"


def exact_log_mass(low: float, high: float, loc: float, scale: float) -> mpmath.mpf:
    a, b = ((mpmath.mpf(end) - mpmath.mpf(loc)) / mpmath.mpf(scale) for end in (low, high))
    a, b = (-b, -a) if a + b > 0 else (a, b)
    return mpmath.log((mpmath.erfc(-b / mpmath.sqrt(2)) - mpmath.erfc(-a / mpmath.sqrt(2))) / 2)


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 0.3, 50.0, 1e4, 1e9])
@pytest.mark.parametrize("loc", [0.0, 0.3, -60.0, 1e3])
def test_mass_of_a_normal_bin_against_mpmath(scale: float, loc: float) -> None:
    with mpmath.workdps(60):
        for k in (0, 1, 128, 254):
            ends = [(k - 0.5) / 255, (k + 0.5) / 255]
            numbers = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (*ends, loc, scale)]
            found = log_mass(*numbers)
            by_loc, by_scale = torch.autograd.grad(found, numbers[2:])
            step = mpmath.mpf(10) ** -20 * mpmath.mpf(scale)
            assert found.item() == pytest.approx(float(exact_log_mass(*ends, loc, scale)), rel=1e-9, abs=1e-9)
            slope = (exact_log_mass(*ends, loc + step, scale) - exact_log_mass(*ends, loc - step, scale)) / (2 * step)
            assert by_loc.item() == pytest.approx(float(slope), rel=1e-7, abs=1e-7)
            slope = (exact_log_mass(*ends, loc, scale + step) - exact_log_mass(*ends, loc, scale - step)) / (2 * step)
            assert by_scale.item() == pytest.approx(float(slope), rel=1e-7, abs=1e-7)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-7), (torch.float64, 1e-12)])
def test_log_ndtr_against_mpmath(dtype: torch.dtype, tolerance: float) -> None:
    z = torch.tensor([-1e15, -1e4, -31, -29.5, -10.5, -9.5, -3, -0.1, 0, 0.1, 2, 6, 1e5], dtype=dtype, requires_grad=True)
    found = log_ndtr(z)
    (slope,) = torch.autograd.grad(found.sum(), z)
    with mpmath.workdps(40):
        for at, value, by_z in zip(z.tolist(), found.tolist(), slope.tolist(), strict=True):
            mass = mpmath.erfc(-mpmath.mpf(at) / mpmath.sqrt(2)) / 2
            assert value == pytest.approx(float(mpmath.log(mass)), rel=tolerance, abs=tolerance)
            assert by_z == pytest.approx(float(mpmath.npdf(at) / mass), rel=20 * tolerance, abs=tolerance)


def test_log_ndtr_differentiates_twice() -> None:
    z = torch.tensor([-35.0, -20.0, -3.0, 0.5, 4.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(log_ndtr, z)


@pytest.mark.parametrize(
    ("family", "reference"),
    [
        (families.Laplace(), stats.laplace),
        (families.Logistic(), stats.logistic),
        (families.Gaussian(), stats.norm),
    ],
)
def test_location_scale_against_scipy(family: families.Family, reference: Callable[..., Any]) -> None:
    h = torch.randn(40, 2, dtype=torch.float64)
    dist = family(h)
    base = dist.base_dist
    law = reference(base.loc.squeeze(1).numpy(), base.scale.squeeze(1).numpy())
    x = torch.randn(40, 1, dtype=torch.float64) * 3
    np.testing.assert_allclose(dist.log_prob(x), law.logpdf(x.squeeze(1).numpy()), rtol=1e-10)
    np.testing.assert_allclose(base.variance.squeeze(1), law.var(), rtol=1e-10)
    np.testing.assert_allclose(base.entropy().squeeze(1), law.entropy(), rtol=1e-9)
    mass = np.log(law.cdf((x + 1.5).squeeze(1).numpy()) - law.cdf(x.squeeze(1).numpy()))
    np.testing.assert_allclose(log_interval(base, x, x + 1.5).squeeze(1), mass, rtol=1e-6)
    low = torch.full_like(x, -math.inf)
    np.testing.assert_allclose(log_interval(base, low, x).squeeze(1), law.logcdf(x.squeeze(1).numpy()), rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(log_interval(base, x, -low).squeeze(1), law.logsf(x.squeeze(1).numpy()), rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(log_interval(base, low, -low), 0, atol=1e-12)


def test_far_tails_of_laplace_and_logistic() -> None:
    x = torch.tensor([500.0, -500.0], requires_grad=True)
    for family in (families.Laplace(), families.Logistic()):
        base = family(torch.zeros(2, 2)).base_dist  # loc 0 and scale 1, but for the floor
        found = log_interval(base, x.unsqueeze(1), x.unsqueeze(1) + 0.25)
        half = math.log(2) if isinstance(family, families.Laplace) else 0.0
        mass = [math.log(-math.expm1(-0.25 / 1.0001)) - near / 1.0001 - half for near in (500.0, 499.75)]
        assert torch.allclose(found.flatten(), torch.tensor(mass), atol=1e-3)
        assert torch.isfinite(torch.autograd.grad(found.sum(), x)[0]).all()


def test_continuous_bernoulli_against_mpmath_and_torch() -> None:
    logits = torch.tensor([0.0, 1e-9, -1e-5, 1e-3, 0.02, -0.3, 0.49, 0.51, 2.0, -8.0, 60.0, -4e3], dtype=torch.float64, requires_grad=True)
    dist = families.ContinuousBernoulli()(logits.unsqueeze(1)).base_dist
    x = torch.full((len(logits), 1), 0.3, dtype=torch.float64)
    log_p = dist.log_prob(x)
    (slope,) = torch.autograd.grad(log_p.sum(), logits)
    with mpmath.workdps(120):
        for i, logit in enumerate(map(mpmath.mpf, logits.tolist())):
            size = logit or mpmath.mpf(10) ** -30
            mean = 1 / (1 - mpmath.exp(-size)) - 1 / size
            variance = 1 / size**2 - 1 / (4 * mpmath.sinh(size / 2) ** 2)
            assert log_p[i].item() == pytest.approx(float(mpmath.log(size * mpmath.exp(size * x[i].item()) / (mpmath.exp(size) - 1))), rel=1e-10, abs=1e-12)
            assert dist.mean[i].item() == pytest.approx(float(mean), rel=1e-10)
            assert dist.variance[i].item() == pytest.approx(float(variance), rel=1e-9)
            assert slope[i].item() == pytest.approx(float(x[i].item() - mean), rel=1e-8, abs=1e-10)
            assert dist.cdf(x)[i].item() == pytest.approx(float((mpmath.exp(size * x[i].item()) - 1) / (mpmath.exp(size) - 1)), rel=1e-8, abs=1e-12)
    assert torch.allclose(dist.icdf(dist.cdf(x))[:-2], x[:-2], atol=1e-9)
    torchs = torch.distributions.ContinuousBernoulli(logits=logits[5:-2].unsqueeze(1))
    assert torch.allclose(torchs.log_prob(x[5:-2]), log_p[5:-2], atol=1e-9)
    assert torch.allclose(torchs.entropy(), dist.entropy()[5:-2], atol=1e-6)


def test_bernoulli_broadcasts_rows_over_samples() -> None:
    logits, x = torch.randn(4, 3, 1, 5, 5, dtype=torch.float64) * 8, (torch.rand(3, 1, 5, 5) > 0.5).double()
    dist = families.Bernoulli(3)(logits)
    assert torch.allclose(dist.log_prob(x), Independent(torch.distributions.Bernoulli(logits=logits), 3).log_prob(x.expand_as(logits)), atol=1e-10)
    assert torch.allclose(dist.expand((2, 4, 3)).log_prob(x), dist.log_prob(x).expand(2, 4, 3))
    other = families.Bernoulli(3)(torch.randn_like(logits))
    assert kl_divergence(dist, other).shape == (4, 3)
    mask = torch.rand(3, 1, 5, 5) > 0.5
    part = torch.where(mask, torch.distributions.Bernoulli(logits=logits).log_prob(x.expand_as(logits)), 0.0).sum((-1, -2, -3))
    assert torch.allclose(core.partial_log_prob(dist, x, mask), part, atol=1e-10)


def test_mixture_is_the_sum_of_its_parts() -> None:
    family = families.LogisticMixture(4, 1)
    dist = family(torch.randn(5, 12 * 2, dtype=torch.float64)).base_dist
    assert isinstance(dist, TorchMixture)
    weights, parts = dist.mixture_distribution.probs, dist.component_distribution
    x = torch.randn(5, 2, dtype=torch.float64)
    density = (weights * parts.log_prob(x.unsqueeze(-1)).exp()).sum(-1)
    assert torch.allclose(dist.log_prob(x), density.log(), atol=1e-10)


DENSE = [n for n in fitting(Integer(256)) if n not in ("ms_ssim", "focal_frequency", "colour_mixture")]


@pytest.mark.parametrize("levels", [2, 3, 16, 256])
@pytest.mark.parametrize("name", DENSE)
def test_masses_sum_to_one_in_single_precision(name: str, levels: int) -> None:
    family = LIKELIHOODS[name](Field("x", Integer(levels), (2,)))
    dist = family(torch.randn(50, family.params * 2) * 3)
    values = (torch.arange(levels) / (levels - 1)).reshape(-1, 1, 1)
    mass = dist.base_dist.log_prob(values).exp()
    assert torch.allclose(mass.sum(0), torch.ones(50, 2), atol=1e-5)
    assert torch.allclose(dist.mean, (mass * values).sum(0), atol=1e-5)
    assert torch.isin(torch.round(dist.sample((20,)) * (levels - 1)), torch.arange(levels).float()).all()
    assert dist.sample((20,)).unique().numel() <= levels


@pytest.mark.parametrize("name", ["default", *DENSE])
def test_binned_likelihoods_stay_finite_at_extremes(name: str) -> None:
    family = LIKELIHOODS[name](Field("x", Integer(256), (1, 4, 4)))
    x = torch.randint(256, (3, 1, 4, 4)) / 255
    for size in (1e2, 1e4, 1e6):
        h = (torch.randn(3, *outputs(family, (1, 4, 4))) * size).requires_grad_()
        log_p = family(h).log_prob(x)
        (gradient,) = torch.autograd.grad(log_p.sum(), h)
        assert log_p.isfinite().all() and gradient.isfinite().all(), size


def test_a_perfect_mean_earns_no_unbounded_score() -> None:
    family = LIKELIHOODS["gaussian"](Field("x", Integer(256), (10,)))
    x = torch.randint(256, (4, 10)) / 255
    dist = family(torch.cat([x, torch.full_like(x, -1e3)], 1))
    assert torch.allclose(dist.log_prob(x), torch.zeros(4), atol=1e-5)


def test_shared_scale_learns_the_root_mean_squared_error() -> None:
    family = families.SharedGaussian(1, initial=2.0)
    x = torch.randn(500, 8) * 0.37
    model = Conditional(NETWORKS["mlp"]((1,), (8,), ()), family)
    assert [n for n, _ in model.named_parameters()].count("family.log_scale") == 1
    optimiser = torch.optim.Adam(family.parameters(), 0.05)
    for _ in range(200):
        optimiser.zero_grad()
        (-family(torch.zeros(500, 8)).log_prob(x).mean()).backward()
        optimiser.step()
    assert family.log_scale.exp().item() == pytest.approx(x.square().mean().sqrt().item(), rel=1e-2)
    assert "log_scale" in dict(Binned(families.SharedGaussian(), 4).family.named_parameters())


def test_point_is_no_density() -> None:
    value = torch.randn(3, 4, requires_grad=True)
    dist = families.Point()(value)
    assert not core.normalised(dist) and core.normalised(Gaussian()(torch.zeros(2, 4)))
    assert torch.equal(dist.rsample((2,)), value.expand(2, 3, 4)) and dist.rsample().requires_grad
    assert torch.equal(dist.log_prob(torch.randn(5, 3, 4)), torch.zeros(5, 3))


@pytest.mark.parametrize(
    ("kind", "default", "fits", "refused"),
    [
        (Binary(), "Bernoulli", 15, ("point",)),
        (Integer(2), "Bernoulli", 15, ("point",)),
        (Integer(256), "Binned", 14, ("bernoulli", "point")),
        (Real(), "Gaussian", 8, ("bernoulli", "categorical", "continuous_bernoulli", "point")),
    ],
)
def test_likelihoods_fit_kinds(kind: Binary | Integer | Real, default: str, fits: int, refused: tuple[str, ...]) -> None:
    field = Field("x", kind, (3, 2, 2))
    assert type(default_likelihood(field)).__name__ == default
    assert len(fitting(kind)) == fits
    for name in fitting(kind):
        family = LIKELIHOODS[name](field)
        assert family(torch.randn(5, *outputs(family, (3, 2, 2)))).event_shape == (3, 2, 2)
    for name in refused:
        with pytest.raises(UsageError, match=f"{name} does not fit field 'x'.*gaussian"):
            LIKELIHOODS[name](field)


def test_likelihoods_refuse_classes_and_misspelt_names() -> None:
    with pytest.raises(UsageError, match="does not fit field 'y'"):
        default_likelihood(Field("y", Category(3), (1,)))
    with pytest.raises(UsageError, match=r"did you mean.*bernoulli"):
        LIKELIHOODS["bernouli"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: families.FixedGaussian(0.0),
        lambda: families.FixedGaussian(math.inf),
        lambda: families.SharedGaussian(1, -1.0),
        lambda: families.Categorical(1),
        lambda: families.LogisticMixture(0),
        lambda: Binned(Gaussian(), 1),
        lambda: Gaussian()(torch.zeros(3, 5)),
        lambda: outputs(Gaussian(3), (4,)),
        lambda: Binned(families.Point(), 4)(torch.zeros(2, 3)),
    ],
)
def test_bad_parts_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(UsageError):
        make()


def test_conditional_broadcasts_and_flattens() -> None:
    net = NETWORKS["convolutional"]((3, 6, 5), (8,), (4,)).double()
    model = Conditional(net, Gaussian())
    a, b = torch.randn(4, 2, 2, 6, 5, dtype=torch.float64), torch.randn(2, 1, 6, 5, dtype=torch.float64)
    dist = model(a, b)
    assert dist.batch_shape == (4, 2) and dist.event_shape == (4,)
    for i in range(4):
        for j in range(2):
            one: Tensor = model(a[i, j], b[j]).mean
            assert one.shape == (4,) and torch.allclose(one, dist.mean[i, j], atol=1e-12)
    whole = torch.cat([a, b.expand(4, 2, 1, 6, 5)], -3)
    assert torch.allclose(model(whole).mean, dist.mean) and torch.allclose(model(whole[0]).mean, dist.mean[0])
    assert model(torch.zeros(0, 3, 6, 5, dtype=torch.float64)).batch_shape == (0,)


def test_half_precision_runs_are_scored_in_single() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        for name in fitting(Integer(16)):
            family = LIKELIHOODS[name](Field("x", Integer(16), (1, 4, 4)))
            dist = Conditional(NETWORKS["convolutional"]((3,), outputs(family, (1, 4, 4)), (8, 4)), family)(torch.randn(2, 3))
            assert dist.log_prob(dist.sample()).dtype == dist.mean.dtype == torch.float32


def test_masses_differentiate_under_vmap() -> None:
    for levels in (2, 256):
        family = Binned(Gaussian(), levels)
        h, x = torch.randn(7, 8), torch.randint(levels, (7, 4)) / (levels - 1)
        whole = torch.func.grad(lambda h: family(h).log_prob(x).sum())(h)  # noqa: B023
        rows = torch.func.vmap(torch.func.grad(lambda h, x: family(h).log_prob(x)))(h, x)  # noqa: B023
        assert torch.allclose(whole, rows, atol=1e-5)


def test_unseen_entries_of_binned_data_are_integrated_out() -> None:
    dist = Binned(families.Logistic(3), 4)(torch.randn(2, 2, 3, 3))
    x, mask = torch.randint(4, (2, 1, 3, 3)) / 3, torch.rand(2, 1, 3, 3) > 0.5
    each = dist.base_dist.log_prob(x)
    assert torch.allclose(core.partial_log_prob(dist, x, mask), (each * mask).sum((1, 2, 3)))
    assert torch.equal(core.centre(dist), dist.base_dist.base.loc)


class Mean(torch.nn.Module):
    """The mean of a binned family, from its numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.family = Binned(Gaussian(3), 256)

    def forward(self, h: Tensor) -> Tensor:
        return self.family(h).mean


def test_the_mean_of_bins_is_exported_for_any_number_of_rows() -> None:
    h = torch.randn(3, 6, 24, 24)
    traced = torch.export.export(Mean(), (h,), dynamic_shapes=({0: torch.export.Dim("n")},)).module()
    for rows in (h, h[:1], torch.cat([h, h])):
        torch.testing.assert_close(traced(rows), Mean()(rows))
