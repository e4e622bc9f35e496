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


def linear(inputs: int, outputs: int, gain: float = 1.0) -> nn.Linear:
    """A linear layer whose outputs have the variance gain^2 on inputs of unit variance, and whose biases start at 0 (LeCun et al. 1998; He et al. 2015)."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(inputs))
    nn.init.zeros_(layer.bias)
    return layer
