"""Dense networks: plain and gated."""

import math
from itertools import pairwise

from torch import Tensor, nn

from vaestro.data.schema import Shape
from vaestro.networks.base import Activation, Network, linear


def mlp(inputs: Shape, outputs: Shape, hidden: tuple[int, ...] = (300, 300), activation: Activation = nn.SiLU) -> nn.Module:
    """Linear layers of the widths `hidden` with `activation` between them; without hidden layers, one linear map. [n, *inputs] to [n, *outputs]."""
    widths = [math.prod(inputs), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for i, o in pairwise(widths):
        layers += [linear(i, o, math.sqrt(2)), activation()]
    return Network(nn.Sequential(*layers, linear(widths[-1], math.prod(outputs))), inputs, outputs)


class Gated(nn.Module):
    """h * sigmoid(g), h and g linear in the input (Dauphin et al. 2017, eq. 1; the dense layer of Tomczak & Welling 2018): [n, inputs] to [n, outputs]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.h, self.g = linear(inputs, outputs, math.sqrt(2)), linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs] to [n, outputs]."""
        h: Tensor = self.h(x)
        gate: Tensor = self.g(x)
        return h * gate.sigmoid()


def gated_mlp(inputs: Shape, outputs: Shape, hidden: tuple[int, ...] = (300, 300)) -> nn.Module:
    """Gated dense layers of the widths `hidden`, then one linear map (Tomczak & Welling 2018, VampPrior, section 5). [n, *inputs] to [n, *outputs]."""
    widths = [math.prod(inputs), *hidden]
    layers = [Gated(i, o) for i, o in pairwise(widths)]
    return Network(nn.Sequential(nn.Flatten(), *layers, linear(widths[-1], math.prod(outputs))), inputs, outputs)
