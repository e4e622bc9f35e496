"""What a prior is, the registry of priors, and the standard normal."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaestro.data.schema import Field, Shape
from vaestro.registry import Registry


class StandardNormal(nn.Module):
    """N(0, I) over events of any shape: log p(z) = -sum z^2 / 2 - D ln(2 pi) / 2, in nats."""

    zeros: Tensor
    ones: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.register_buffer("zeros", torch.zeros(shape), persistent=False)
        self.register_buffer("ones", torch.ones(shape), persistent=False)

    def forward(self) -> Distribution:
        """The distribution, of batch shape ()."""
        return Independent(Normal(self.zeros, self.ones, validate_args=False), self.zeros.dim(), validate_args=False)


Prior = Callable[[int, nn.Module, Field], nn.Module]
PRIORS: Registry[Prior] = Registry("prior")


@PRIORS.register
def standard_normal(latents: int, posterior: nn.Module, field: Field) -> nn.Module:
    """N(0, I) over [latents] (Kingma & Welling 2014)."""
    return StandardNormal((latents,))
