"""Importance sampling against the closed-form evidence of linear-Gaussian models."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, MultivariateNormal, Normal

from vaestro.core import Batch, Model, Program, Seen, Site, content, normalised
from vaestro.data.schema import Binary, Field, Real
from vaestro.errors import UsageError, VaestroError
from vaestro.evaluation.likelihood import Chunk, importance
from vaestro.evaluation.scope import mix

D, L, S = 5, 2, 0.3


class LinearGaussian(Model):
    """x = W z + noise; q is the true posterior, moved by `shift` and widened by `widen`."""

    def __init__(self, shift: float = 0.0, widen: float = 1.0) -> None:
        super().__init__()
        w = torch.randn(D, L, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        self.w = nn.Parameter(w)
        cov = torch.linalg.inv(torch.eye(L, dtype=torch.float64) + w.T @ w / S**2)
        self.register_buffer("cov", cov)
        self.shift, self.widen = shift, widen
        self.dropout = nn.Dropout(0.5)
        self.encoded = 0

    def program(self, batch: Batch | None = None) -> Program:
        prior = MultivariateNormal(torch.zeros(L, dtype=torch.float64), torch.eye(L, dtype=torch.float64), validate_args=False)
        q = None
        if batch is not None:
            self.encoded += 1
            x = self.dropout(content(batch["x"]))
            q = MultivariateNormal(x @ self.w @ self.cov / S**2 + self.shift, self.widen * self.cov, validate_args=False)
        z = yield Site("z", prior, q)
        yield Site("x", Independent(Normal(z @ self.w.T, S, validate_args=False), 1))

    @property
    def exact(self) -> MultivariateNormal:
        w = self.w.detach()
        return MultivariateNormal(torch.zeros(D, dtype=torch.float64), w @ w.T + S**2 * torch.eye(D, dtype=torch.float64))


def data(model: LinearGaussian, rows: int) -> Tensor:
    torch.manual_seed(11)
    return model.exact.sample((rows,))


def test_the_true_posterior_gives_the_evidence_exactly() -> None:
    model = LinearGaussian()
    x = data(model, 7)
    found = importance(model, {"x": x}, samples=23, chunk=Chunk(3, 10))
    exact = model.exact.log_prob(x).detach().numpy()
    for bound in (found.log_px, *found.ladder.values()):
        np.testing.assert_allclose(bound, exact, atol=1e-10)
    np.testing.assert_allclose(found.ess, 23, rtol=1e-9)
    np.testing.assert_allclose(found.sampling_error, 0, atol=1e-4)
    assert sorted(found.ladder) == [1, 10, 23]
    assert found.mean == pytest.approx(exact.mean())
    assert found.standard_error == pytest.approx(exact.std(ddof=1) / math.sqrt(7))


def test_a_wrong_posterior_gives_ordered_bounds_that_close_in() -> None:
    model = LinearGaussian(0.1, 1.5)
    x = data(model, 40)
    exact = model.exact.log_prob(x).detach().numpy()
    found = importance(model, {"x": x}, samples=1000)
    means = [found.ladder[k].mean() for k in (1, 10, 100, 1000)]
    assert means == sorted(means)
    for low, high in ((1, 10), (10, 100), (100, 1000)):
        assert (found.ladder[low] <= found.ladder[high] + 1e-12).all()  # Jensen, group by group
    error = math.sqrt((found.sampling_error**2).sum()) / 40
    assert abs(found.mean - exact.mean()) < 4 * error + 0.005
    assert ((found.ess > 1) & (found.ess < 1000)).all()


def test_elbo_and_its_parts_match_their_closed_forms() -> None:
    model = LinearGaussian(0.1, 1.5)
    x = data(model, 6)
    found = importance(model, {"x": x}, samples=20000, chunk=Chunk(6, 2000))
    w, cov = model.w.detach(), model.cov * 1.5
    mean = x @ w @ model.cov / S**2 + 0.1
    rest = (x - mean @ w.T).square().sum(-1) + (w @ cov @ w.T).trace()
    reconstruction = -rest / (2 * S**2) - D / 2 * math.log(2 * math.pi * S**2)
    kl = 0.5 * (cov.trace() + mean.square().sum(-1) - L - torch.logdet(cov))
    np.testing.assert_allclose(found.kl, kl.numpy(), atol=1e-9)
    np.testing.assert_allclose(found.reconstruction, reconstruction.numpy(), atol=0.12)
    np.testing.assert_allclose(found.elbo, found.reconstruction - found.kl)
    np.testing.assert_allclose(found.ladder[1], found.elbo, atol=0.12)


def test_the_weights_are_unbiased_and_their_error_is_calibrated() -> None:
    """E[w] = p(x): over many seeds the mean of exp(estimate) is the evidence, and (estimate - truth) / sampling_error is standard normal."""
    model = LinearGaussian(0.05, 1.3)
    x = data(model, 4)
    exact = model.exact.log_prob(x).detach().numpy()
    runs = [importance(model, {"x": x}, samples=400, seed=s, chunk=Chunk(4, 400)) for s in range(150)]
    gap = np.stack([r.log_px for r in runs]) - exact
    ratio = np.exp(gap)
    assert (np.abs(ratio.mean(0) - 1) < 4.5 * ratio.std(0) / math.sqrt(150)).all()
    z = gap / np.stack([r.sampling_error for r in runs])
    assert 0.9 < z.std() < 1.1


def test_against_a_direct_sum_for_a_bernoulli_decoder() -> None:
    """One latent and a quadrature of the evidence: nothing is Gaussian in x."""

    class Coin(Model):
        def program(self, batch: Batch | None = None) -> Program:
            prior = Independent(Normal(torch.zeros(1), torch.ones(1), validate_args=False), 1)
            rows = 0 if batch is None else len(content(batch["x"]))
            z = yield Site("z", prior, None if batch is None else Independent(Normal(torch.zeros(rows, 1), 1.2, validate_args=False), 1))
            yield Site("x", Independent(Bernoulli(logits=z * torch.tensor([1.0, -2.0, 3.0]), validate_args=False), 1))

    x = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)[:, None, None]
    logits = grid * torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    joint = Bernoulli(logits=logits).log_prob(x.double()).sum(-1) + Normal(0.0, 1.0).log_prob(grid[..., 0])
    exact = joint.logsumexp(0) + math.log(16 / 4000)
    found = importance(Coin(), {"x": x}, samples=20000, chunk=Chunk(2, 5000))
    np.testing.assert_allclose(found.log_px, exact.numpy(), atol=0.03)


def batches(x: Tensor, size: int) -> Iterator[Batch]:
    return ({"x": part} for part in x.split(size))


def test_rows_do_not_depend_on_their_batches_or_on_the_rows_after_them() -> None:
    model = LinearGaussian(0.1, 1.5)
    x = data(model, 23)
    whole = importance(model, {"x": x}, samples=30, seed=4, chunk=Chunk(5, 20))
    for size in (1, 4, 7, 23):
        assert np.array_equal(importance(model, batches(x, size), 30, 4, Chunk(5, 20)).log_px, whole.log_px)
    some = importance(model, {"x": x[:12]}, samples=30, seed=4, chunk=Chunk(5, 20))
    assert np.array_equal(some.log_px, whole.log_px[:12])
    assert np.array_equal(some.ess, whole.ess[:12])
    assert not np.array_equal(importance(model, {"x": x}, 30, 5, Chunk(5, 20)).log_px, whole.log_px)


def test_noise_differs_between_chunks_of_rows_and_of_samples() -> None:
    model = LinearGaussian(0.1, 1.5)
    x = data(model, 1).expand(4, D)
    found = importance(model, {"x": x}, samples=1, chunk=Chunk(1, 1))
    assert len(set(found.log_px)) == 4
    more = importance(model, {"x": x}, samples=2, chunk=Chunk(1, 1))
    assert (more.ess < 1.999).all()


def test_the_world_is_left_as_it_was() -> None:
    model = LinearGaussian(0.1, 1.5).train()
    model.dropout.eval()
    state = torch.get_rng_state()
    x = data(model, 6)
    state = torch.get_rng_state()
    importance(model, {"x": x}, samples=8)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training and not model.dropout.training
    assert model.w.grad is None and torch.is_grad_enabled()


def test_data_drawn_at_every_reading_is_drawn_alike() -> None:
    model = LinearGaussian(0.1, 1.5)

    def fresh() -> Iterator[Batch]:
        for _ in range(3):
            yield {"x": torch.randn(4, D, dtype=torch.float64)}

    assert np.array_equal(importance(model, fresh(), 5, 1).log_px, importance(model, fresh(), 5, 1).log_px)


def test_rows_are_encoded_once_a_chunk_of_samples() -> None:
    model = LinearGaussian()
    importance(model, {"x": data(model, 20)}, samples=100, chunk=Chunk(10, 50))
    assert model.encoded == 1 + 2 * 2  # once to see that it is a density, then 2 chunks of rows x 2 of samples


def test_whole_rows_that_are_missing_cost_nothing() -> None:
    model = LinearGaussian()
    x = data(model, 3)
    mask = torch.tensor([True, False, True])
    hidden = torch.where(mask[:, None], x, torch.nan)
    found = importance(model, {"x": Seen(hidden, mask)}, samples=400, chunk=Chunk(2, 400))
    np.testing.assert_allclose(found.log_px[[0, 2]], model.exact.log_prob(x)[[0, 2]].detach(), atol=1e-9)
    np.testing.assert_allclose(found.reconstruction[1], 0)
    assert found.elbo[1] == -found.kl[1]


def test_bits_per_dim_follow_the_schema() -> None:
    model = LinearGaussian()
    found = importance(model, {"x": data(model, 5)}, samples=2)
    assert found.bits_per_dim(Field("x", Binary(), (D,))) == pytest.approx(-found.mean / math.log(2) / D)
    assert found.bits_per_dim(Field("x", Real(0.25), (D,))) == pytest.approx(-found.mean / math.log(2) / D + 2)
    with pytest.raises(UsageError, match="without a step"):
        found.bits_per_dim(Field("x", Real(), (D,)))


class Spike(Distribution):
    arg_constraints, has_rsample = {}, True

    def __init__(self, at: Tensor) -> None:
        self.at = at
        super().__init__(at.shape[:-1], at.shape[-1:], validate_args=False)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        return self.at.expand(*sample_shape, *self.at.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return torch.zeros(value.shape[:-1])


@normalised.register
def _(dist: Spike) -> bool:
    return False


class Auto(Model):
    def program(self, batch: Batch | None = None) -> Program:
        q = None if batch is None else Spike(content(batch["x"]))
        z = yield Site("z", Independent(Normal(torch.zeros(D), 1.0), 1), q)
        yield Site("x", Independent(Normal(z, 1.0), 1))


class Loss(Model):
    def program(self, batch: Batch | None = None) -> Program:
        z = yield Site("z", Independent(Normal(torch.zeros(D), 1.0), 1), None if batch is None else Independent(Normal(content(batch["x"]), 1.0), 1))
        yield Site("x", Spike(z))


def test_what_is_no_density_is_refused_in_words() -> None:
    with pytest.raises(UsageError, match=r"ae has no density: its posterior of 'z' is a point; use reconstruction error instead"):
        importance(Auto(), {"x": torch.zeros(3, D)}, name="ae")
    with pytest.raises(UsageError, match="'x' does not integrate"):
        importance(Loss(), {"x": torch.zeros(3, D)})


def test_bad_numbers_are_refused_in_words() -> None:
    model = LinearGaussian()
    x = data(model, 3)
    with pytest.raises(UsageError, match="samples is 0"):
        importance(model, {"x": x}, samples=0)
    with pytest.raises(UsageError, match="chunk.rows is 0"):
        importance(model, {"x": x}, chunk=Chunk(0, 5))
    with pytest.raises(UsageError, match="no rows"):
        importance(model, [])
    with pytest.raises(UsageError, match="no rows"):
        importance(model, {"x": x[:0]})
    x[2, 0] = torch.nan
    with pytest.raises(VaestroError, match="row 2"):
        importance(model, {"x": x}, chunk=Chunk(2, 5))


def test_impossible_rows_are_minus_infinity() -> None:
    class Never(Model):
        def program(self, batch: Batch | None = None) -> Program:
            z = yield Site("z", Independent(Normal(torch.zeros(1), 1.0), 1), Independent(Normal(0 * content((batch or {})["x"]), 1.0), 1))
            yield Site("x", Independent(Bernoulli(logits=torch.full((1,), torch.inf) + 0 * z, validate_args=False), 1))

    found = importance(Never(), {"x": torch.zeros(2, 1)}, samples=4, chunk=Chunk(2, 4))
    assert (found.log_px == -np.inf).all() and (found.ess == 0).all()


def test_mixing_seeds_has_no_collisions_at_hand() -> None:
    seeds = {mix(a, b, c) for a in range(20) for b in range(20) for c in range(20)}
    assert len(seeds) == 8000
    assert mix(0, 0, 0) >= 0 and max(seeds) < 2**63


@pytest.mark.parametrize(
    ("samples", "numbers", "expected"),
    [(100, 784, (10, 100)), (5000, 784, (10, 100)), (1, 784, (1000, 1)), (7, 10**9, (7, 7)), (1000, 12288, (1, 65))],
)
def test_default_chunks_hold_about_the_same_number_of_values(samples: int, numbers: int, expected: tuple[int, int]) -> None:
    chunk = Chunk.fitting(samples, numbers)
    assert chunk == expected
