"""Posteriors: log-determinants against autograd, densities against grids, and trained ones against the exact evidence of a linear-Gaussian model."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Laplace, MultivariateNormal, Normal, kl_divergence

import vaestro
from vaestro.core import centre, draw, replaying, run, scores
from vaestro.data.schema import Binary, Field
from vaestro.errors import UsageError
from vaestro.evaluation.likelihood import importance
from vaestro.flows import Bijection
from vaestro.models import VAE
from vaestro.networks import mlp
from vaestro.objectives import elbo
from vaestro.posteriors import (
    POSTERIORS,
    Amortised,
    Cholesky,
    Diagonal,
    Gate,
    Householder,
    InverseAutoregressive,
    Planar,
    Radial,
    Reflections,
    Shares,
    Standardise,
)
from vaestro.posteriors.planar import bent, steps
from vaestro.priors import StandardNormal
from vaestro.testing import LinearGaussian
from vaestro.testing.linear import Law

FIELD = Field("x", Binary(), (1, 2, 2))
SCORING = [name for name in POSTERIORS if name not in ("inverse_autoregressive", "refined")]
SMALL = {"inverse_autoregressive": {"width": 9}, "planar": {"flows": 3}, "radial": {"flows": 3}, "householder": {"flows": 3}, "spline": {"flows": 2}}


def posterior(name: str, latents: int) -> torch.nn.Module:
    """A posterior of rows [1, 2, 2], in float64, whose numbers are large enough to bend it."""
    part = POSTERIORS[name](FIELD, latents, mlp, (8,), **SMALL.get(name, {})).double()
    with torch.no_grad():
        for p in part.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return part


def rows(n: int = 3) -> Tensor:
    return torch.rand(n, 1, 2, 2, dtype=torch.float64)


BIJECTIONS: dict[str, Callable[[int], tuple[Bijection, int]]] = {
    "Planar": lambda d: (Planar(), 2 * d + 1),
    "Radial": lambda d: (Radial(), d + 2),
    "Reflections": lambda d: (Reflections(), 3 * d),
    "Standardise": lambda d: (Standardise(), 2 * d),
    "Gate": lambda d: (Gate(d, 0, 7).double(), 7),
    "Gate backwards": lambda d: (Gate(d, 1, 7).double(), 7),
    "Shares": lambda d: (Shares((Planar(), 2 * d + 1), (Radial(), d + 2), (Reflections(), 2 * d), (Standardise(), 2 * d)), 7 * d + 3),
}


@pytest.mark.parametrize("latents", [1, 2, 4])
@pytest.mark.parametrize("name", BIJECTIONS)
@pytest.mark.parametrize("size", [0.3, 3.0])
def test_log_determinants_are_those_of_the_jacobian(name: str, latents: int, size: float) -> None:
    bijection, numbers = BIJECTIONS[name](latents)
    context = size * torch.randn(3, numbers, dtype=torch.float64)
    u = 2 * torch.randn(2, 3, latents, dtype=torch.float64)
    x, ladj = bijection.inverse(u, context)
    assert x.shape == u.shape
    for k in range(2):
        for b in range(3):
            jacobian = torch.autograd.functional.jacobian(lambda v, b=b: bijection.inverse(v, context[b])[0], u[k, b])
            assert torch.linalg.slogdet(jacobian).logabsdet.item() == pytest.approx(-ladj.expand(2, 3)[k, b].item(), abs=1e-9)
    if isinstance(bijection, Gate):
        order = range(latents) if name == "Gate" else range(latents)[::-1]
        later = torch.tensor([[order.index(j) > order.index(i) for j in range(latents)] for i in range(latents)])
        assert (jacobian[later] == 0).all(), "a latent reads one that comes after it"
        return
    back, again = bijection(x, context)
    torch.testing.assert_close(back, u, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(again.expand(2, 3), ladj.expand(2, 3), rtol=1e-7, atol=1e-7)


def test_the_gates_of_a_flow_let_every_latent_read_every_other() -> None:
    law = InverseAutoregressive(3, 2, 12).double()
    h, u = torch.randn(law.numbers, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: law.bijection.inverse(v, h)[0], u)
    assert (jacobian != 0).all()


@pytest.mark.parametrize("name", SCORING)
@pytest.mark.parametrize("latents", [1, 2, 5])
def test_a_draw_and_its_score_agree_whatever_the_leading_axes(name: str, latents: int) -> None:
    q = posterior(name, latents)(rows())
    assert q.batch_shape == (3,) and q.event_shape == (latents,) and q.has_rsample and scores(q)
    for lead in ((), (4,), (2, 4)):
        z, log_q = draw(q, lead)
        assert z.shape == (*lead, 3, latents) and log_q.shape == (*lead, 3) and z.dtype == torch.float64
        torch.testing.assert_close(q.log_prob(z), log_q, rtol=1e-8, atol=1e-8)
    wide = q.expand((2, 3))
    assert wide.sample((5,)).shape == (5, 2, 3, latents) and wide.batch_shape == (2, 3)
    torch.testing.assert_close(wide.log_prob(z[0, 0]), q.log_prob(z[0, 0]).expand(2, 3))
    assert q.log_prob(z[0, 0, 0]).shape == (3,)
    assert centre(q).shape == (3, latents)
    one = posterior(name, latents)(rows(1))
    assert draw(one, (1,))[1].shape == (1, 1)


def plane(z: Tensor, cells: int) -> tuple[Tensor, float]:
    """The midpoints [n, 2] of the cells of a rectangle half as large again as the one that holds `z` [m, 2], and the area of one."""
    low, high = z.min(0).values, z.max(0).values
    low, high = low - (high - low) / 4, high + (high - low) / 4
    line = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    return low + torch.cartesian_prod(line, line) * (high - low), ((high - low) / cells).prod().item()


def inverted(q: Distribution, points: Tensor) -> Tensor:
    """The log density of an inverse autoregressive flow at `points`, by feeding each latent back in turn: brute force, for the flow itself refuses."""
    x = points
    total = torch.zeros(len(points), dtype=torch.float64)
    chain, own = q.bijection.links
    h, numbers = q.context.split(q.bijection.sizes, -1)
    for gate in chain.links:
        u = torch.zeros_like(x)
        for _ in range(x.shape[-1]):
            at = gate.net(torch.cat([u, h.expand(*u.shape[:-1], -1)], -1))
            s = torch.sigmoid(at[..., 1] + 2.0)
            u = (x - (1 - s) * at[..., 0]) / s
        total, x = total - s.log().sum(-1), u
    u, ladj = own(x, numbers)
    return q.base.log_prob(u) + ladj + total


@pytest.mark.parametrize("name", [*SCORING, "inverse_autoregressive"])
def test_densities_integrate_to_one_and_samples_fit_them(name: str) -> None:
    q = posterior(name, 2)(rows(1)[0])
    z = q.sample((20_000,))
    points, area = plane(z, 240)
    mass = (q.log_prob(points) if scores(q) else inverted(q, points)).exp() * area
    assert mass.sum().item() == pytest.approx(1, abs=2e-3)
    for g in (lambda v: v, lambda v: v.square(), lambda v: v.prod(-1, keepdim=True), torch.cos, lambda v: v.sum(-1, keepdim=True).sin()):
        seen, due = g(z), (g(points) * mass.unsqueeze(-1)).sum(0)
        assert ((seen.mean(0) - due).abs() < 5 * seen.std(0) / math.sqrt(len(z)) + 5e-3 * due.abs()).all()


def test_a_draw_of_an_inverse_autoregressive_flow_carries_its_density() -> None:
    q = posterior("inverse_autoregressive", 3)(rows(1)[0])
    z, log_q = draw(q, (50,))
    torch.testing.assert_close(log_q, inverted(q, z), rtol=1e-8, atol=1e-8)


def test_an_inverse_autoregressive_flow_refuses_strangers_in_words() -> None:
    q = posterior("inverse_autoregressive", 2)
    assert not scores(q(rows())) and not scores(q(rows()).expand((2, 3)))
    with pytest.raises(UsageError, match=r"scores only the values that it draws itself.*use masked_autoregressive"):
        q(rows()).log_prob(torch.zeros(2, dtype=torch.float64))
    model = VAE(StandardNormal((2,)), q, vaestro.Conditional(mlp((2,), (1, 2, 2), (4,)), vaestro.families.Bernoulli(3))).double()
    trace = model({"x": rows().round()}, 2)
    with pytest.raises(UsageError, match="replayed"):
        run(model.program({"x": rows()}), replaying({n: d.value for n, d in trace.items()}))


@pytest.mark.parametrize("latents", [1, 3])
def test_numbers_of_zero_are_the_plain_gaussian(latents: int) -> None:
    z = torch.randn(5, latents, dtype=torch.float64)
    own = torch.randn(2 * latents, dtype=torch.float64)
    plain = Diagonal(latents)(own)
    for law, flow_first in (
        (Cholesky(latents), False),
        (Householder(latents, 3), False),
        (steps(Planar, latents, 2 * latents + 1, 3), True),
        (steps(Radial, latents, latents + 2, 3), True),
    ):
        zeros = torch.zeros(law.numbers - 2 * latents, dtype=torch.float64)
        q = law(torch.cat([zeros, own] if flow_first else [own, zeros]))
        torch.testing.assert_close(q.log_prob(z), plain.log_prob(z))
        torch.testing.assert_close(centre(q), plain.mean)


@pytest.mark.parametrize("step", [Planar, Radial])
@pytest.mark.parametrize("size", [10.0, 100.0, 1e4])
@pytest.mark.parametrize("latents", [1, 3])
def test_steps_stay_invertible_at_extreme_numbers(step: type[Bijection], size: float, latents: int) -> None:
    numbers = 2 * latents + 1 if step is Planar else latents + 2
    context = size * torch.randn(200, numbers, dtype=torch.float64)
    u = torch.randn(200, latents, dtype=torch.float64) * 3
    x, ladj = step().inverse(u, context)
    back, again = step()(x, context)
    tolerance = 1e-7 * size  # rounding of x, shrunk by a hundred at most
    assert ((back - u).abs() < tolerance).all()
    assert (step().inverse(back, context)[0] - x).abs().max() < 1e-9 * size * size
    assert again.isfinite().all() and (ladj <= latents * -math.log(0.0099)).all()


@pytest.mark.parametrize(
    "law", [steps(Planar, 3, 7, 4), steps(Radial, 3, 5, 4), Householder(3, 4), Cholesky(3), InverseAutoregressive(3, 2, 9)], ids=lambda law: type(law).__name__
)
@pytest.mark.parametrize("size", [0.0, 1.0, 30.0, 1e4])
def test_draws_and_gradients_are_finite_in_float32(law: Callable[[Tensor], Distribution], size: float) -> None:
    h = (size * torch.randn(50, law.numbers)).requires_grad_()
    z, log_q = draw(law(h), (4,))
    assert z.dtype == log_q.dtype == torch.float32 and z.isfinite().all() and log_q.isfinite().all()
    (gradient,) = torch.autograd.grad(log_q.sum() + z.sum(), h)
    assert gradient.isfinite().all()


def test_half_precision_becomes_float32() -> None:
    for name in POSTERIORS:
        with torch.autocast("cpu", torch.bfloat16):
            z, log_q = draw(POSTERIORS[name](FIELD, 2, mlp, (8,))(rows().float()), (2,))
        assert z.dtype == log_q.dtype == torch.float32, name


def test_planar_constraint_is_the_papers() -> None:
    x = torch.linspace(-60, 60, 2001, dtype=torch.float64)
    torch.testing.assert_close(bent(x), 0.99 * (torch.nn.functional.softplus(x + math.log(math.e - 1)) - 1), rtol=1e-9, atol=1e-12)
    assert (bent(x) >= -0.99).all() and bent(torch.zeros(1)) == 0 and bent(torch.tensor(500.0)).isfinite()
    w, u, _, c = Planar()._of(torch.randn(100, 11, dtype=torch.float64) * 4)
    torch.testing.assert_close((w * u).sum(-1), c)
    assert (c > -1).all()


@pytest.mark.parametrize("name", ["planar", "radial", "householder", "full_covariance"])
def test_the_gradient_of_a_score_is_that_of_the_density(name: str) -> None:
    law = posterior(name, 2).law
    h, z = torch.randn(law.numbers, dtype=torch.float64, requires_grad=True), torch.randn(2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda h, z: law(h).log_prob(z), (h, z))


def test_full_covariance_is_torchs_gaussian_and_householder_the_rotated_one() -> None:
    full = posterior("full_covariance", 4)(rows())
    assert isinstance(full, MultivariateNormal) and (full.scale_tril.triu(1) == 0).all() and (full.scale_tril.diagonal(dim1=-2, dim2=-1) > 0).all()
    turned = posterior("householder", 4)(rows())
    h = torch.eye(4, dtype=torch.float64).expand(3, 4, 4)
    for v in turned.context.unflatten(-1, (-1, 4)).unbind(-2):
        h = (torch.eye(4, dtype=torch.float64) - 2 * v.unsqueeze(-1) * v.unsqueeze(-2) / v.square().sum(-1)[:, None, None]) @ h
    covariance = h @ torch.diag_embed(turned.base.variance) @ h.mT
    torch.testing.assert_close(turned.covariance_matrix, covariance)
    torch.testing.assert_close(turned.variance, covariance.diagonal(dim1=-2, dim2=-1))
    torch.testing.assert_close(turned.mean, (h @ turned.base.mean.unsqueeze(-1)).squeeze(-1))
    torch.testing.assert_close(centre(turned), turned.mean)
    z = torch.randn(5, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(turned.log_prob(z), MultivariateNormal(turned.mean, covariance).log_prob(z))


def test_reflecting_twice_is_the_identity_and_only_directions_count() -> None:
    v, u = torch.randn(3, 2, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    torch.testing.assert_close(Reflections().inverse(u, torch.cat([v, v], -1))[0], u)
    for scale in (1e-200, 1e200):
        torch.testing.assert_close(Reflections().inverse(u, scale * v)[0], Reflections().inverse(u, v)[0])


@pytest.mark.parametrize("name", ["full_covariance", "householder"])
def test_kl_of_a_full_gaussian_is_exact(name: str) -> None:
    q = posterior(name, 3)(rows())
    p = Independent(Normal(torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64), torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)), 1)
    torch_q, torch_p = MultivariateNormal(q.mean, q.covariance_matrix), MultivariateNormal(p.mean, torch.diag(p.variance))
    torch.testing.assert_close(kl_divergence(q, p), kl_divergence(torch_q, torch_p))
    standard = StandardNormal((3,)).double()()
    torch.testing.assert_close(kl_divergence(q, standard), kl_divergence(torch_q, MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double())))
    p = Independent(Laplace(torch.zeros(3, dtype=torch.float64), 2.0), 1)
    z = q.sample((40_000,))
    estimates = q.log_prob(z) - p.log_prob(z)
    assert ((kl_divergence(q, p) - estimates.mean(0)).abs() < 5 * estimates.std(0) / 200).all()


@pytest.fixture(scope="module")
def world() -> LinearGaussian:
    """Two features of four latents: given x, the latents are strongly correlated."""
    return LinearGaussian(2, 4, 0.3)


def fitted(world: LinearGaussian, law: Callable[[Tensor], Distribution], iterations: int = 80) -> VAE:
    """The model with a posterior that reads x by one linear layer, trained on the ELBO of 120 rows at fixed noise."""
    torch.manual_seed(0)
    q = Amortised(mlp((2,), (law.numbers,), ()), law).double()
    model, x = VAE(StandardNormal((4,)).double(), q, world.likelihood), world.evidence.sample((120,))
    optimizer = torch.optim.LBFGS(q.parameters(), max_iter=iterations, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        torch.manual_seed(1)
        loss = elbo()(model({"x": x}, 8)).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    return model


@torch.no_grad()
def gap(world: LinearGaussian, model: VAE) -> tuple[float, float]:
    """The mean of log p(x) - ELBO over rows, and its standard error: the KL from the posterior to the true one."""
    x = world.evidence.sample((2000,))
    gaps = (world.evidence.log_prob(x) - model({"x": x}, 30).log_w).mean(0)
    return gaps.mean().item(), gaps.std().item() / math.sqrt(2000)


def test_a_trained_full_covariance_reaches_the_evidence_and_a_diagonal_cannot(world: LinearGaussian) -> None:
    precision = torch.linalg.inv(world.S)
    least = 0.5 * (precision.diagonal().log().sum() + torch.logdet(world.S)).item()  # of the best diagonal Gaussian, in nats
    diagonal, error = gap(world, fitted(world, Diagonal(4)))
    assert least > 1.4 and least - 5 * error < diagonal < least + 0.1
    richer = ((Cholesky(4), 0.03), (InverseAutoregressive(4, 2, 12).double(), 0.2), (Householder(4, 4), least), (steps(Planar, 4, 9, 8), least))
    for law, most in richer:
        found, error = gap(world, fitted(world, law))
        assert -5 * error < found < most, f"{law}: {found}"


def unsoftplus(scale: Tensor) -> Tensor:
    """The s at which `positive` is `scale`."""
    return torch.log(torch.expm1(scale - 1e-4)) - math.log(math.e - 1)


def test_reflections_and_triangles_hold_the_true_posterior(world: LinearGaussian) -> None:
    """N(m, S), whose numbers are written down: S = Q diag Q^T with Q undone by reflections, and S = L L^T; then every weight is the evidence."""
    x = world.evidence.sample((7,))
    mean = x @ world.W @ world.S / world.noise**2
    values, rotation = torch.linalg.eigh(world.S)
    left, vs = rotation.clone(), []
    for i in range(4):
        e = torch.eye(4, dtype=torch.float64)[i]
        v = left[:, i] - e
        left = left - 2 * v.unsqueeze(-1) * (v @ left) / (v @ v)
        vs.insert(0, v)
    torch.testing.assert_close(left, torch.eye(4, dtype=torch.float64))
    turned = torch.cat([mean @ rotation, unsoftplus(values.sqrt()).expand(7, 4), torch.cat(vs).expand(7, 16)], -1)
    triangle = torch.linalg.cholesky(world.S)
    scale = triangle.diagonal()
    below = (2 * triangle / scale.unsqueeze(-1))[tuple(torch.tril_indices(4, 4, -1))]
    lower = torch.cat([mean, unsoftplus(scale).expand(7, 4), below.expand(7, 6)], -1)
    for q in (Householder(4, 4)(turned), Cholesky(4)(lower)):
        torch.testing.assert_close(q.covariance_matrix, world.S.expand(7, 4, 4))
        log_w = VAE(world.prior, Law(lambda _, q=q: q), world.likelihood)({"x": x}, 3).log_w
        torch.testing.assert_close(log_w, world.evidence.log_prob(x).expand(3, 7))


@pytest.mark.parametrize("name", POSTERIORS)
def test_the_elbo_stays_below_the_evidence_and_importance_weights_reach_it(world: LinearGaussian, name: str) -> None:
    law = POSTERIORS[name](Field("x", Binary(), (2,)), 4, mlp, ()).double().law
    torch.manual_seed(2)
    q = Amortised(mlp((2,), (law.numbers,), ()), law).double()
    with torch.no_grad():
        q.net.body[-1].weight.mul_(0.2)  # near the prior, which is near the posterior of so noisy a model
    model = VAE(StandardNormal((4,)).double(), q, Law(lambda z: Independent(Normal(z @ world.W.T, 2.0), 1)))
    x = torch.randn(6, 2, dtype=torch.float64)
    evidence = MultivariateNormal(torch.zeros(2).double(), world.W @ world.W.T + 4 * torch.eye(2).double()).log_prob(x)
    found = importance(model, {"x": x}, 4000)
    assert (found.elbo < evidence.numpy()).all()
    assert (abs(found.log_px - evidence.numpy()) < 5 * found.sampling_error + 1e-3).all()
    assert (found.sampling_error < 0.1).all()


TINY = "hidden=12,latents=3"


@pytest.mark.parametrize("call", [f"planar:{TINY},flows=2", f"iaf:{TINY},flows=2,width=8", f"full_covariance:{TINY}"])
def test_everything_that_reads_a_posterior_reads_this_one(call: str, tmp_path: Path) -> None:
    """The monitor, embedding, reconstruction, evaluation and diagnosis, where the mean may have no closed form."""
    x = (torch.rand(60, 1, 4, 4) > 0.5).float()
    made = vaestro.train(call, x.numpy(), steps=6, out=tmp_path / "run")
    again = vaestro.open_run(tmp_path / "run", data=x.numpy())
    codes = vaestro.embed(again, x[:9])
    assert codes.shape == (9, 3) and torch.equal(codes, vaestro.embed(made, x[:9]))
    torch.testing.assert_close(codes, centre(again.model.posterior(x[:9])))
    assert vaestro.reconstruct(again, x[:9]).shape == (9, 1, 4, 4)
    found = vaestro.evaluate(again)
    assert {"nll", "kl", "active_units", "reconstruction_mse"} <= set(found.scores)
    assert found.scores["nll"]["value"] < -found.scores["elbo"]["value"] + 0.5
    signs = vaestro.diagnose(again).signs
    assert signs.latents == 3 and math.isfinite(signs.gain) and math.isfinite(signs.off_prior) and signs.kl is not None
    assert all(math.isfinite(line["active_units"]) for line in again.log() if "active_units" in line)


def test_the_centre_of_a_flow_is_where_the_base_mean_goes() -> None:
    q = posterior("planar", 2)(rows())
    torch.testing.assert_close(centre(q), q.bijection.inverse(torch.zeros(3, 2, dtype=torch.float64), q.context)[0])
    with pytest.raises(NotImplementedError):
        _ = q.mean


@pytest.mark.parametrize("name", [n for n in POSTERIORS if n != "gaussian" and n != "full_covariance"])
def test_flows_of_no_steps_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="one or more"):
        POSTERIORS[name](FIELD, 2, mlp, (8,), flows=0)
