"""A prior over bits."""

import torch
from torch import nn
from torch.distributions import Distribution

from vaestro.families.bernoulli import Bernoulli


class BernoulliPrior(nn.Module):
    """Independent bits with learnt logits, which start at 0, so at probability 1/2: log p(z) = sum_d z_d h_d - softplus(h_d), in nats."""

    def __init__(self, latents: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(latents))

    def forward(self) -> Distribution:
        """The distribution, of batch shape ()."""
        return Bernoulli()(self.logits)
