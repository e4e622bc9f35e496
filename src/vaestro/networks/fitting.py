"""The network that fits the shapes."""

from torch import nn

from vaestro.data.schema import Shape
from vaestro.networks.convolutional import convolutional
from vaestro.networks.mlp import mlp


def by_shape(inputs: Shape, outputs: Shape, hidden: tuple[int, ...] | None = None) -> nn.Module:
    """`convolutional` where one side is an image [C, H, W], else `mlp`; at its own default widths if none are given. [n, *inputs] to [n, *outputs]."""
    build = convolutional if 3 in (len(inputs), len(outputs)) else mlp
    return build(inputs, outputs) if hidden is None else build(inputs, outputs, hidden)
