"""The public checks catch the faults that they are for."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaestro.families import Gaussian
from vaestro.families.base import Repr, positive
from vaestro.networks import mlp
from vaestro.networks.base import Network
from vaestro.testing import check_family, check_network, check_prior, line


class Faulty(Repr):
    """A Gaussian family made of somebody's `make`."""

    event_dims, params = 1, 2

    def __init__(self, make: Callable[[Tensor, Tensor], Distribution]) -> None:
        self._make = make

    def __call__(self, h: Tensor) -> Distribution:
        h = h if h.dtype == torch.float64 else h.float()
        return Independent(self._make(*h.chunk(2, -1)), 1, validate_args=False)


class Unnormalised(Normal):
    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) + 0.01


class Misdrawn(Normal):
    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        return self.loc + 1.05 * (super().rsample(sample_shape) - self.loc)

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        return self.rsample(sample_shape).detach()


class Detached(Normal):
    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        return self.loc + (super().rsample(sample_shape) - self.loc).detach()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda a, b: Unnormalised(a, positive(b), validate_args=False), "total probability"),
        (lambda a, b: Misdrawn(a, positive(b), validate_args=False), "samples do not fit"),
        (lambda a, b: Detached(a, positive(b), validate_args=False), "gradient of parameter 1"),
        (lambda a, b: Normal(a, b.exp(), validate_args=False), "not finite"),
    ],
)
def test_check_family_catches(make: Callable[[Tensor, Tensor], Distribution], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_family(Faulty(make), torch.randn(6, 2) * 0.5, line(-20, 20))


class Interleaved(Gaussian):
    def __call__(self, h: Tensor) -> Distribution:
        return super().__call__(torch.cat([h[..., 0::2], h[..., 1::2]], -1))


def test_check_family_catches_another_layout() -> None:
    with pytest.raises(AssertionError, match="parameter by parameter"):
        check_family(Interleaved(), torch.randn(6, 2), line(-20, 20))


def test_check_network_catches() -> None:
    def mixing(inputs: tuple[int, ...], outputs: tuple[int, ...], hidden: tuple[int, ...]) -> nn.Module:
        return Network(nn.Sequential(nn.Linear(4, 3), nn.Softmax(0)), inputs, outputs)

    def idle(inputs: tuple[int, ...], outputs: tuple[int, ...], hidden: tuple[int, ...]) -> nn.Module:
        net = mlp(inputs, outputs, hidden)
        net.register_parameter("idle", nn.Parameter(torch.zeros(2)))
        return net

    with pytest.raises(AssertionError, match="rows beside it"):
        check_network(mixing, (4,), (3,), ())
    with pytest.raises(AssertionError, match="no gradient reaches the parameter idle"):
        check_network(idle, (4,), (3,), ())


class Half(nn.Module):
    def forward(self) -> Distribution:
        return Independent(Unnormalised(torch.zeros(2), torch.full((2,), math.pi), validate_args=False), 1, validate_args=False)


def test_check_prior_catches_a_density_of_another_total() -> None:
    with pytest.raises(AssertionError, match=r"integrates to 1\.0"):
        check_prior(Half(), samples=40_000)
