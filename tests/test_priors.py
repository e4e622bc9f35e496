"""Priors against torch's own mixture, and the Vamp prior's sharing of its posterior."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal

from examples import prior
from vaestro.conditional import Conditional
from vaestro.data.schema import Binary, Field, Real
from vaestro.errors import UsageError
from vaestro.families import Bernoulli, Gaussian
from vaestro.networks import mlp
from vaestro.priors import PRIORS, DiagonalMixture, GaussianMixture, StandardNormal, Vamp
from vaestro.testing import check_prior


def reference(dist: DiagonalMixture) -> Distribution:
    parts = Independent(Normal(dist.loc, dist.scale, validate_args=False), 1, validate_args=False)
    return MixtureSameFamily(Categorical(logits=dist.logits, validate_args=False), parts, validate_args=False)


@pytest.mark.parametrize("name", PRIORS)
def test_prior_keeps_its_contract(name: str) -> None:
    check_prior(prior(name))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("narrow", [1.0, 1e-3])
def test_diagonal_mixture_equals_torchs(dtype: torch.dtype, narrow: float) -> None:
    logits, loc = torch.randn(7, dtype=torch.float64), torch.randn(7, 5, dtype=torch.float64) * 3 + 10
    scale = torch.rand(7, 5, dtype=torch.float64) * narrow + 1e-4
    exact = DiagonalMixture(logits, loc, scale)
    z = torch.cat([exact.sample((3, 4)), torch.randn(3, 2, 5, dtype=torch.float64) * 5], 1)
    leaves = [t.to(dtype).requires_grad_() for t in (logits, loc, scale, z)]
    dist = DiagonalMixture(*leaves[:3])
    assert dist.log_prob(leaves[3]).dtype == dtype
    doubles = [t.detach().double().requires_grad_() for t in leaves]
    wanted = reference(DiagonalMixture(*doubles[:3])).log_prob(doubles[3])
    found = dist.log_prob(leaves[3])
    rounding = 1e-6 if dtype == torch.float32 else 1e-8  # z^2 / s^2 is of the order of 10^10 in the narrow case
    torch.testing.assert_close(found.double(), wanted, rtol=rounding, atol=rounding)
    grads = torch.autograd.grad(found.sum(), leaves)
    for grad, right in zip(grads, torch.autograd.grad(wanted.sum(), doubles), strict=True):
        torch.testing.assert_close(grad.double(), right, rtol=1e-5, atol=1e-5 * right.abs().max().item())
    torch.testing.assert_close(dist.mean, reference(dist).mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(dist.variance, reference(dist).variance, rtol=1e-4, atol=1e-5)


def test_diagonal_mixture_expands_and_samples() -> None:
    dist = DiagonalMixture(torch.tensor([0.0, -1e9]), torch.tensor([[1.0, 2.0], [50.0, 50.0]]), torch.ones(2, 2))
    wide = dist.expand((3, 4))
    assert wide.sample((2,)).shape == (2, 3, 4, 2) and wide.log_prob(torch.zeros(2)).shape == (3, 4) and wide.mean.shape == (3, 4, 2)
    assert torch.allclose(wide.log_prob(torch.zeros(2)), torch.tensor(-2.5 - math.log(2 * math.pi)))
    assert dist.sample((1000,)).max() < 20  # the second component has no weight
    assert dist.log_prob(torch.full((2,), 1e4)).isfinite()


def test_standard_normal_follows_its_module() -> None:
    prior = StandardNormal((2, 3)).double()
    assert prior().sample().dtype == torch.float64 and not prior.state_dict()
    assert prior().log_prob(torch.zeros(2, 3, dtype=torch.float64)).item() == pytest.approx(-3 * math.log(2 * math.pi))


def posterior() -> Conditional:
    return Conditional(mlp((1, 2, 2), (6,), (5,)), Gaussian())


def test_vamp_is_the_mixture_of_posteriors() -> None:
    q = posterior().double()
    pseudo = torch.rand(8, 1, 2, 2, dtype=torch.float64) * 2 - 0.5
    z = torch.randn(9, 3, dtype=torch.float64)
    each = torch.stack([q(u.clamp(0, 1)).log_prob(z) for u in pseudo])
    assert torch.allclose(Vamp(q, pseudo)().log_prob(z), each.logsumexp(0) - math.log(8), atol=1e-10)


class Pair(nn.Module):
    """A model in small: a posterior and the Vamp prior of it."""

    def __init__(self) -> None:
        super().__init__()
        self.posterior = posterior()
        self.prior = Vamp(self.posterior, torch.rand(4, 1, 2, 2))


def test_vamp_shares_its_posterior_once_and_through_copies() -> None:
    model, z = Pair(), torch.zeros(3)
    assert [n for n in model.state_dict() if n.startswith("prior")] == ["prior.pseudo"]
    twin = copy.deepcopy(model)
    before = twin.prior().log_prob(z)
    with torch.no_grad():
        model.posterior.net.body[-1].bias.add_(1.0)
    assert torch.equal(twin.prior().log_prob(z), before) and not torch.allclose(model.prior().log_prob(z), before)
    with torch.no_grad():
        twin.posterior.net.body[-1].bias.add_(1.0)
    assert torch.allclose(model.prior().log_prob(z), twin.prior().log_prob(z))
    frozen = {n: p.detach() for n, p in model.named_parameters()}
    assert torch.equal(torch.func.functional_call(model.prior, {"pseudo": frozen["prior.pseudo"]}, ()).log_prob(z), model.prior().log_prob(z))
    model.prior().log_prob(z).backward()
    assert model.posterior.net.body[1].weight.grad is not None and model.prior.pseudo.grad is not None


def test_vamp_starts_from_rows() -> None:
    vamp = Vamp(posterior(), torch.rand(6, 1, 2, 2))
    rows = torch.arange(40.0).reshape(10, 1, 2, 2)
    vamp.start(rows)
    assert {tuple(u.flatten().tolist()) for u in vamp.pseudo} <= {tuple(r.flatten().tolist()) for r in rows}
    assert vamp.pseudo.flatten(1).unique(dim=0).shape[0] == 6
    vamp.start(rows[:2])
    assert vamp.pseudo.shape == (6, 1, 2, 2)


def test_vamp_of_real_data_has_no_bounds() -> None:
    vamp = PRIORS["vamp"](3, posterior(), Field("x", Real(), (1, 2, 2)))
    assert isinstance(vamp, Vamp) and vamp.bounds == (-math.inf, math.inf) and vamp.pseudo.shape == (500, 1, 2, 2)


def test_bad_priors_are_refused() -> None:
    with pytest.raises(UsageError, match="one or more"):
        GaussianMixture(3, 0)
    with pytest.raises(UsageError, match="diagonal Gaussian"):
        Vamp(Conditional(mlp((4,), (3,), ()), Bernoulli()), torch.rand(5, 4))()
    with pytest.raises(UsageError, match=r"did you mean.*vamp"):
        PRIORS["vamps"](3, posterior(), Field("x", Binary(), (1, 2, 2)))
