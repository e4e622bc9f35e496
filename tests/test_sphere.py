"""Directions: densities by quadrature, mpmath and scipy; draws against their exact laws; gradients against finite differences."""

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor
from torch.distributions import VonMises, kl_divergence

from vaestro.core import centre, draw
from vaestro.errors import UsageError
from vaestro.families.bessel import log_bessel
from vaestro.families.sphere import Around, PowerSpherical, UniformSphere, VonMisesFisher, log_surface, rejected, uniform
from vaestro.families.turning import slope
from vaestro.posteriors.geometric import SPHERICAL, Directed, direction

LAWS = (VonMisesFisher, PowerSpherical)
DIMENSIONS = (2, 3, 10, 50)
KAPPAS = (1e-3, 0.5, 20.0, 1e4)
Make = Callable[[Tensor, Tensor], Around]
each_law = pytest.mark.parametrize("law", LAWS)
each_m = pytest.mark.parametrize("m", DIMENSIONS)
each_kappa = pytest.mark.parametrize("kappa", KAPPAS)


def number(x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def pole(m: int) -> Tensor:
    """A direction that is no axis."""
    return direction(torch.arange(m, 0, -1, dtype=torch.float64) * torch.tensor([-1.0, 1.0]).repeat(m)[:m])


def angles(law: Make, m: int, kappa: float, cells: int = 1600) -> tuple[Tensor, Tensor, Tensor]:
    """Angles to the pole, their probabilities (the density times the ring at each angle) and the ends of their cells, by the tanh-sinh rule."""
    edge = min(math.pi, 14 * math.sqrt((m + 1) / kappa))
    u = torch.linspace(-3.1, 3.1, 2 * cells + 1, dtype=torch.float64)
    turned = edge * (1 + (math.pi / 2 * u.sinh()).tanh()) / 2
    f, ends = turned[1::2], turned[::2].clone()
    ends[0], ends[-1] = 0.0, edge
    u = u[1::2]
    weight = edge * math.pi / 4 * u.cosh() / (math.pi / 2 * u.sinh()).cosh().square() * 6.2 / cells
    at = torch.zeros(cells, m, dtype=torch.float64)
    at[:, 0], at[:, 1] = f.cos(), f.sin()
    ring = math.log(2) if m == 2 else log_surface(m - 1)
    return f, (law(torch.eye(m, dtype=torch.float64)[0], number(kappa)).log_prob(at) + ring + (m - 2) * f.sin().log()).exp() * weight, ends


@pytest.mark.parametrize("m", [2, 3, 4, 10, 50, 51, 400])
@pytest.mark.parametrize("x", [1e-3, 0.1, 3.0, 25.0, 1e3, 1e4, 1e8])
def test_bessel_and_its_derivatives_against_mpmath(m: int, x: float) -> None:
    with mpmath.workdps(50):
        order, exact = mpmath.mpf(m) / 2 - 1, mpmath.mpf(x)
        log_i = mpmath.log(mpmath.besseli(order, exact)) + mpmath.loggamma(order + 1) - order * mpmath.log(exact / 2)
        ratio = mpmath.besseli(order + 1, exact) / mpmath.besseli(order, exact)
        bend = 1 - ratio**2 - (m - 1) / exact * ratio
    at = number(x).requires_grad_()
    found, a = log_bessel(m / 2 - 1, at)
    (first,) = torch.autograd.grad(found, at, retain_graph=True)
    (second,) = torch.autograd.grad(a, at)
    assert found.item() == pytest.approx(float(log_i), rel=1e-12, abs=1e-12)
    assert a.item() == pytest.approx(float(ratio), rel=1e-12)
    assert first.item() == pytest.approx(float(ratio), rel=1e-11)
    if x < 1e8:  # there 1 - A^2 loses all its digits
        assert second.item() == pytest.approx(float(bend), rel=1e-6)


def test_bessel_at_zero() -> None:
    for m in (*DIMENSIONS, 1000):
        at = number(0.0).requires_grad_()
        found, a = log_bessel(m / 2 - 1, at)
        (bend,) = torch.autograd.grad(a, at)
        assert abs(found.item()) < 1e-11 and a.item() == 0.0 and bend.item() == pytest.approx(1 / m)


@each_law
@each_m
@each_kappa
def test_densities_integrate_to_one_and_have_the_mean_and_the_kl_that_they_say(law: Make, m: int, kappa: float) -> None:
    f, p, _ = angles(law, m, kappa)
    dist = law(torch.eye(m, dtype=torch.float64)[0], number(kappa))
    assert p.sum().item() == pytest.approx(1.0, abs=1e-7)
    assert (p * f.cos()).sum().item() == pytest.approx(dist.resultant().item(), rel=1e-6, abs=1e-7)
    at = torch.stack([f.cos(), f.sin(), *torch.zeros(m - 2, len(f), dtype=torch.float64)], -1)
    kl = (p * (dist.log_prob(at) + log_surface(m))).sum().item()
    base = UniformSphere(torch.zeros(m, dtype=torch.float64))
    assert kl_divergence(dist, base).item() == pytest.approx(kl, rel=1e-5, abs=1e-8)
    assert dist.entropy().item() == pytest.approx(log_surface(m) - kl, rel=1e-5, abs=1e-6)


@each_law
def test_densities_integrate_to_one_over_many_dimensions_by_chance(law: Make) -> None:
    x = uniform((40_000, 10), number(0.0))
    weight = (law(pole(10), number(4.0)).log_prob(x) + log_surface(10)).exp()
    assert abs(weight.mean() - 1) < 5 * weight.std() / math.sqrt(len(x))


@each_m
@pytest.mark.parametrize("kappa", [1e-3, 0.5, 20.0, 300.0])
def test_von_mises_fisher_is_scipys(m: int, kappa: float) -> None:
    other = stats.vonmises_fisher(pole(m).numpy(), kappa)
    x = uniform((20, m), number(0.0))
    dist = VonMisesFisher(pole(m), number(kappa))
    np.testing.assert_allclose(dist.log_prob(x).numpy(), other.logpdf(x.numpy()), rtol=1e-9, atol=1e-9)
    assert dist.entropy().item() == pytest.approx(other.entropy(), rel=1e-9, abs=1e-9)


def test_on_the_circle_it_is_torchs_von_mises() -> None:
    a = torch.linspace(-3, 3, 50, dtype=torch.float64)
    for kappa in (0.1, 5.0, 200.0):
        found = VonMisesFisher(direction(torch.tensor([math.cos(0.7), math.sin(0.7)], dtype=torch.float64)), number(kappa)).log_prob(
            torch.stack([a.cos(), a.sin()], -1)
        )
        torch.testing.assert_close(found, VonMises(number(0.7), number(kappa)).log_prob(a), rtol=1e-6, atol=1e-5)


@each_law
@each_m
@each_kappa
def test_draws_fit_the_density(law: Make, m: int, kappa: float) -> None:
    n = 4000
    dist = law(pole(m), number(kappa))
    x = dist.sample((n,))
    torch.testing.assert_close(torch.linalg.vector_norm(x, dim=-1), torch.ones(n, dtype=torch.float64))
    _, p, ends = angles(law, m, kappa)
    angle = 2 * torch.asin((torch.linalg.vector_norm(x - pole(m), dim=-1) / 2).clamp(max=1))
    table = torch.cat([number(0.0).reshape(1), p.cumsum(0)])
    test = stats.kstest(angle.numpy(), lambda a: np.interp(a, ends.numpy(), table.numpy()))
    assert test.pvalue > 1e-5
    cosine = x @ pole(m)
    assert abs(cosine.mean() - dist.resultant()) < 5 * cosine.std() / math.sqrt(n) + 1e-12
    side = x - cosine.unsqueeze(-1) * pole(m)
    side = side / torch.linalg.vector_norm(side, dim=-1, keepdim=True)
    covariance = side.T @ side / n
    even = (torch.eye(m, dtype=torch.float64) - torch.outer(pole(m), pole(m))) / (m - 1)
    assert (side.mean(0).abs() < 5 / math.sqrt(n)).all() and ((covariance - even).abs() < 5 / math.sqrt(n)).all()


@pytest.mark.parametrize("m", [2, 3, 4, 10, 50])
@pytest.mark.parametrize("kappa", [1e-3, 1.0, 30.0, 1e4])
def test_the_angle_turns_as_its_distribution_function_says(m: int, kappa: float) -> None:
    gap = rejected(torch.full((5,), kappa, dtype=torch.float64), m)
    resultant = VonMisesFisher(pole(m), number(kappa)).resultant()
    found = slope(gap, torch.full((5,), kappa, dtype=torch.float64), resultant.expand(5), m)
    for g, rate in zip(gap.tolist(), found.tolist(), strict=True):
        f = 2 * math.asin(math.sqrt(g / 2))

        def height(a: float, f: float = f) -> float:
            return (math.sin(a) / math.sin(f)) ** (m - 2) * math.exp(-2 * kappa * math.sin((a + f) / 2) * math.sin((a - f) / 2))

        def pull(a: float) -> float:
            return (1 - resultant.item() - 2 * math.sin(a / 2) ** 2) * height(a)

        side = (0.0, f) if 1 - g >= resultant else (f, min(math.pi, f + 15 / math.sqrt(kappa + m)))
        mass = integrate.quad(pull, *side, epsabs=0, epsrel=1e-9, limit=500)[0]
        assert rate == pytest.approx(-math.sin(f) * abs(mass), rel=1e-5)


@each_law
@each_m
@each_kappa
def test_the_gradient_of_draws_to_the_concentration_is_that_of_their_mean(law: Make, m: int, kappa: float) -> None:
    n = 4000
    k = torch.full((n,), kappa, dtype=torch.float64, requires_grad=True)
    (each,) = torch.autograd.grad((law(pole(m), k).rsample() @ pole(m)).sum(), k)
    one = number(kappa).requires_grad_()
    (exact,) = torch.autograd.grad(law(pole(m), one).resultant(), one)
    assert each.isfinite().all()
    assert abs(each.mean() - exact) < 5 * each.std() / math.sqrt(n) + 1e-3 * abs(exact)


def smooth(x: Tensor) -> Tensor:
    return (2 * x[..., 0] - x[..., -1] + x[..., 0] * x[..., -1]).tanh()


@each_law
@pytest.mark.parametrize("m", [2, 3])
def test_gradients_of_expectations_against_finite_differences_on_a_grid(law: Make, m: int) -> None:
    cells = 400
    turn = (torch.arange(cells, dtype=torch.float64) + 0.5) * 2 * math.pi / cells
    if m == 2:
        grid, weight = torch.stack([turn.cos(), turn.sin()], -1), torch.full((cells,), 2 * math.pi / cells, dtype=torch.float64)
    else:
        t, w = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(60))
        high, turn = torch.meshgrid(t, turn, indexing="ij")
        grid = torch.stack([high, (1 - high**2).sqrt() * turn.cos(), (1 - high**2).sqrt() * turn.sin()], -1).reshape(-1, 3)
        weight = (w.unsqueeze(-1) * 2 * math.pi / cells).expand(60, cells).reshape(-1)

    def dist(h: Tensor) -> Around:
        return law(direction(h[..., :-1]), h[..., -1].exp())

    h = torch.cat([pole(m) * 1.3, number(0.9).reshape(1)])
    exact = torch.stack(
        [
            (smooth(grid) * ((dist(h + s).log_prob(grid).exp() - dist(h - s).log_prob(grid).exp()) / 2e-5) * weight).sum()
            for s in torch.eye(m + 1, dtype=torch.float64) * 1e-5
        ]
    )
    many = h.expand(40_000, -1).clone().requires_grad_()
    (each,) = torch.autograd.grad(smooth(dist(many).rsample()).sum(), many)
    assert ((each.mean(0) - exact).abs() < 5 * each.std(0) / 200 + 1e-6).all()


@each_law
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_breaks_at_any_concentration(law: Make, dtype: torch.dtype) -> None:
    for m in (2, 3, 10, 50, 300):
        for kappa in (0.0, 1e-30, 1e-3, 1.0, 1e4, 1e8):
            loc, k = pole(m).to(dtype).requires_grad_(), torch.tensor(kappa, dtype=dtype, requires_grad=True)
            dist = law(loc, k)
            x, log_q = draw(dist, (50,))
            assert x.dtype == log_q.dtype == dtype
            kl = kl_divergence(dist, UniformSphere(torch.zeros(m, dtype=dtype)))
            assert kl.isfinite().all() and kl > -1e-9
            gradients = torch.autograd.grad((x * torch.randn_like(x)).sum() + log_q.sum() + kl + dist.log_prob(-loc).sum(), (loc, k))
            assert all(g.isfinite().all() for g in (x, log_q, *gradients))


@each_law
def test_single_precision_agrees_with_double(law: Make) -> None:
    for kappa in (0.1, 30.0, 1e4):
        double = law(pole(10), number(kappa))
        x = double.sample((50,)).float()
        single = law(pole(10).float(), torch.tensor(kappa)).log_prob(x)
        torch.testing.assert_close(single.double(), law(pole(10).float().double(), number(kappa)).log_prob(x.double()), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", SPHERICAL)
def test_laws_of_directions(name: str) -> None:
    law = SPHERICAL[name](4)
    assert law.numbers == 5
    h = torch.randn(3, 2, 5, dtype=torch.float64)
    dist = law(h)
    assert dist.batch_shape == (3, 2) and dist.event_shape == (4,)
    x, log_q = draw(dist, (6,))
    assert x.shape == (6, 3, 2, 4) and log_q.shape == (6, 3, 2)
    torch.testing.assert_close(dist.expand((5, 3, 2)).log_prob(x[0]), dist.log_prob(x[0]).expand(5, 3, 2))
    torch.testing.assert_close(centre(dist), h[..., :4] / h[..., :4].norm(dim=-1, keepdim=True))
    for size in (0.0, 1e-30, 1e4):
        p = torch.full((1, 5), size, requires_grad=True)
        x, log_q = draw(law(p), (10,))
        (gradient,) = torch.autograd.grad(x.sum() + log_q.sum(), p)
        assert x.isfinite().all() and log_q.isfinite().all() and gradient.isfinite().all()
        torch.testing.assert_close(x.norm(dim=-1), torch.ones(10, 1))
    with pytest.raises(UsageError, match="a sphere needs 2 latents or more, and got 1.*give latents=2"):
        SPHERICAL[name](1)
    assert isinstance(law, Directed)


def test_nan_in_a_row_ends_as_nan_and_not_in_an_endless_search() -> None:
    kappa = torch.tensor([1.0, math.nan], dtype=torch.float64)
    x = VonMisesFisher(pole(3).expand(2, 3), kappa).sample()
    assert x[0].isfinite().all() and x[1].isnan().any()


def test_the_uniform_law() -> None:
    base = UniformSphere(torch.zeros(3, dtype=torch.float64))
    x = base.sample((20_000,))
    assert base.log_prob(x).shape == (20_000,) and base.log_prob(x)[0].item() == pytest.approx(-math.log(4 * math.pi))
    assert (x.mean(0).abs() < 5 / math.sqrt(3 * 20_000)).all()
    assert stats.kstest(x[:, 0].numpy(), stats.uniform(-1, 2).cdf).pvalue > 1e-5  # Archimedes: on the sphere of R^3 a coordinate is uniform
    assert (base.variance - 1 / 3).abs().max() < 1e-12 and base.entropy().item() == pytest.approx(math.log(4 * math.pi))
    assert base.expand((4, 2)).sample((5,)).shape == (5, 4, 2, 3)
