"""The frame of every network: which shapes go in and out."""

import math
from collections.abc import Callable

from torch import Tensor, nn

from vaestro.data.schema import Shape

Build = Callable[..., nn.Module]  # (inputs, outputs, hidden: widths in the order of the flow) -> module
Activation = Callable[[], nn.Module]


class Network(nn.Module):
    """A `body` that takes rows [n, *inputs] and returns [n, *outputs]; each output row depends on its input row only."""

    def __init__(self, body: nn.Module, inputs: Shape, outputs: Shape) -> None:
        super().__init__()
        self.body, self.inputs, self.outputs = body, tuple(inputs), tuple(outputs)
        self.event_dims = len(self.inputs)

    def forward(self, x: Tensor) -> Tensor:
        """[n, *inputs] to [n, *outputs]."""
        rows: Tensor = self.body(x)
        return rows.reshape(rows.shape[0], *self.outputs)


def started(layer: nn.Conv2d, gain: float = 1.0) -> nn.Conv2d:
    """The convolution, its weights drawn so that its outputs have the variance gain^2 on inputs of unit variance; biases start at 0 (LeCun et al. 1998)."""
    nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


REACH = 784  # inputs from which on a linear layer is wide


class Wide(nn.Linear):
    """A linear layer of many inputs, computed as if they were 784: weights are larger and inputs smaller by inputs / 784, so it starts as any other.

    An optimiser such as Adam moves every weight by its learning rate whatever the gradient, so an output moves with the sum of the inputs; on large
    pictures the first steps would throw it far. Here a step moves an output no further than on 784 inputs (Yang et al. 2021, table 8: rates by fan-in).
    """

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs] to [n, outputs]."""
        return super().forward(x * (REACH / self.in_features))


def linear(inputs: int, outputs: int, gain: float = 1.0) -> nn.Linear:
    """A linear layer whose outputs have the variance gain^2 on inputs of unit variance, and whose biases start at 0 (LeCun et al. 1998; He et al. 2015)."""
    layer = nn.Linear(inputs, outputs) if inputs <= REACH else Wide(inputs, outputs)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(inputs) * max(1.0, inputs / REACH))
    nn.init.zeros_(layer.bias)
    return layer
