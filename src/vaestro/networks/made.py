"""Dense networks whose outputs for feature i see the features before it alone."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaestro.data.schema import Shape
from vaestro.networks.base import linear


class MaskedLinear(nn.Module):
    """A linear layer without the weights where `sees` [outputs, inputs] is false; the others start as large as in a layer of the inputs that are seen."""

    sees: Tensor

    def __init__(self, sees: Tensor) -> None:
        super().__init__()
        self.register_buffer("sees", sees, persistent=False)
        self.layer = linear(sees.shape[1], sees.shape[0])
        with torch.no_grad():
            self.layer.weight.mul_((sees.shape[1] / sees.sum(1, keepdim=True).clamp(min=1)).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] to [..., outputs]."""
        return F.linear(x, self.layer.weight * self.sees, self.layer.bias)


class Constant(nn.Module):
    """Free numbers [outputs], whatever the input: what a network of nothing is."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.numbers = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[..., anything] to [..., outputs]."""
        numbers: Tensor = self.numbers.expand(*x.shape[:-1], -1)
        return numbers


class Made(nn.Module):
    """[..., D + context] to [..., D, numbers]: those of feature i see the context and the features before i in `order` (Germain et al. 2015, MADE).

    Hidden units see the first m features of the order, with m in turn from 0 (where there is a context, else 1) to D - 1.
    """

    def __init__(self, features: int, numbers: int, hidden: Shape, context: int = 0, order: Tensor | None = None) -> None:
        super().__init__()
        self.features, self.numbers = features, numbers
        place = torch.arange(features) if order is None else order  # where in the order each feature stands
        first = 0 if context else 1
        if features + context == 1:
            self.body: nn.Module = Constant(numbers)
            return
        reach = [torch.cat([place + 1, torch.zeros(context, dtype=place.dtype)])]  # what a unit must see at least to see an input
        reach += [first + torch.arange(width) % max(1, features - first) for width in hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(reach):
            layers += [MaskedLinear(after.unsqueeze(1) >= before), nn.SiLU()]
        layers.append(MaskedLinear((place.unsqueeze(1) >= reach[-1]).repeat_interleave(numbers, 0)))
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D + context] to [..., D, numbers]."""
        h: Tensor = self.body(x).unflatten(-1, (self.features, self.numbers))
        return h
