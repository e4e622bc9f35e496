"""A prior whose latents follow one another in time, so that independent posteriors cannot imitate it for free."""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, constraints
from torch.distributions.kl import register_kl

from vaestro.errors import UsageError
from vaestro.families.base import Sizes

LEAST = 1e-6  # the least variance of a step given the one before it


class GaussianChain(Distribution):
    """A stationary chain over [steps * width], each of the `width` columns by itself: z_1 ~ N(0, 1), z_t ~ N(a z_{t-1}, 1 - a^2). Nats.

    Every z_t is N(0, 1) by itself, and z_s, z_t correlate by a^|s - t|. `zeros` [steps * width] gives the shape, dtype and device.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, correlation: float, zeros: Tensor, width: int = 1) -> None:
        self.correlation, self.zeros, self.width = correlation, zeros, width
        super().__init__(torch.Size(), zeros.shape, validate_args=False)

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "GaussianChain":
        """The same chain, repeated over `batch_shape`."""
        new = GaussianChain(self.correlation, self.zeros, self.width)
        new._batch_shape = torch.Size(batch_shape)
        return new

    @property
    def mean(self) -> Tensor:
        """Zeros."""
        return self.zeros.expand(self._extended_shape())

    @property
    def variance(self) -> Tensor:
        """Ones."""
        return torch.ones_like(self.zeros).expand(self._extended_shape())

    def expected_log_prob(self, mean: Tensor, variance: Tensor) -> Tensor:
        """E log p(z) over independent values of these moments [..., steps * width]: the density is quadratic, so no more of them matters."""
        m, v = (t.unflatten(-1, (-1, self.width)) for t in (mean, variance))
        a, left = self.correlation, 1 - self.correlation**2
        first = (m[..., 0, :].square() + v[..., 0, :]).sum(-1)
        steps = (m[..., 1:, :] - a * m[..., :-1, :]).square() + v[..., 1:, :] + a**2 * v[..., :-1, :]
        constant = mean.shape[-1] * math.log(2 * math.pi) + (mean.shape[-1] - self.width) * math.log(left)
        expected: Tensor = -(first + steps.sum((-1, -2)) / left + constant) / 2
        return expected

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of each [steps * width], in nats."""
        log_p = self.expected_log_prob(value, torch.zeros_like(value))
        return log_p.expand(torch.broadcast_shapes(log_p.shape, self.batch_shape))

    def rsample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Step by step from the first."""
        noise = torch.randn(self._extended_shape(torch.Size(sample_shape)), dtype=self.zeros.dtype, device=self.zeros.device)
        first, *others = noise.unflatten(-1, (-1, self.width)).unbind(-2)
        steps = [first]
        for e in others:
            steps.append(self.correlation * steps[-1] + math.sqrt(1 - self.correlation**2) * e)
        return torch.stack(steps, -2).flatten(-2)


@register_kl(Independent, GaussianChain)  # type: ignore[untyped-decorator]
def _independent_chain(q: Independent, p: GaussianChain) -> Tensor:  # type: ignore[type-arg]
    entropy: Tensor = q.entropy()
    return -entropy - p.expected_log_prob(q.mean, q.variance)


def committed_rate(correlation: float, steps: int, width: int = 1) -> float:
    """The least KL of independent Gaussians to a `GaussianChain`: width/2 [(n - 2) ln(1 + a^2) - ln(1 - a^2)] nats for n >= 2 steps, 0 for one.

    Reached at zero means and variances 1 - a^2 at the ends, (1 - a^2) / (1 + a^2) between (Razavi et al. 2019, section 2).
    """
    a = correlation
    return width / 2 * ((steps - 2) * math.log1p(a**2) - math.log1p(-(a**2))) if steps > 1 else 0.0


class CommittedChain(nn.Module):
    """The `GaussianChain` whose least KL from independent Gaussians is `rate` nats a row: a floor under the rate (Razavi et al. 2019, delta-VAE).

    Raises UsageError for fewer than two steps, or a rate that is negative or needs a chain that hardly moves.
    """

    zeros: Tensor

    def __init__(self, steps: int, rate: float, width: int = 1) -> None:
        super().__init__()
        if steps < 2:
            raise UsageError("a chain of one step commits nothing, for independent posteriors can equal it; give two or more latents, or use delta_gaussian")
        most = math.sqrt(1 - LEAST)
        if not 0 <= rate <= committed_rate(most, steps, width):
            top = math.floor(committed_rate(most, steps, width))
            raise UsageError(f"a chain of {steps} steps and {width} columns cannot commit {rate} nats; give a rate from 0 to {top}, or more latents")
        low, high = 0.0, most
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (low, middle) if committed_rate(middle, steps, width) > rate else (middle, high)
        self.correlation, self.width = high, width
        self.register_buffer("zeros", torch.zeros(steps * width), persistent=False)

    def forward(self) -> Distribution:
        """The chain, of batch shape ()."""
        return GaussianChain(self.correlation, self.zeros, self.width)
