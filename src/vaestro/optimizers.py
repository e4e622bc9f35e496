"""Optimisers and number formats as objects: parameters and a learning rate to a torch optimiser. Fused kernels where torch has them."""

from collections.abc import Callable, Iterable
from typing import TypeAlias

import torch
from torch import nn, optim

from vaestro.registry import Registry

Optimizer: TypeAlias = Callable[[Iterable[nn.Parameter], float], optim.Optimizer]
OPTIMIZERS: Registry[Optimizer] = Registry("optimizer")


@OPTIMIZERS.register
def adam(parameters: Iterable[nn.Parameter], learning_rate: float) -> optim.Optimizer:
    """Kingma & Ba 2015, algorithm 1."""
    return optim.Adam(parameters, learning_rate, fused=True)


@OPTIMIZERS.register
def adam_half(parameters: Iterable[nn.Parameter], learning_rate: float) -> optim.Optimizer:
    """Adam with the short memory, beta_1 = 0.5, of games with an adversary (Radford et al. 2016, section 4)."""
    return optim.Adam(parameters, learning_rate, betas=(0.5, 0.999), fused=True)


@OPTIMIZERS.register
def adamw(parameters: Iterable[nn.Parameter], learning_rate: float) -> optim.Optimizer:
    """Loshchilov & Hutter 2019: Adam with decoupled weight decay of 0.01."""
    return optim.AdamW(parameters, learning_rate, fused=True)


@OPTIMIZERS.register
def adamax(parameters: Iterable[nn.Parameter], learning_rate: float) -> optim.Optimizer:
    """Kingma & Ba 2015, algorithm 2: Adam under the infinity norm, as NVAE uses it."""
    return optim.Adamax(parameters, learning_rate)


@OPTIMIZERS.register
def sgd(parameters: Iterable[nn.Parameter], learning_rate: float) -> optim.Optimizer:
    """Stochastic gradient descent with Nesterov momentum 0.9."""
    found = optim.SGD(parameters, learning_rate, momentum=0.9, nesterov=True, fused=True)
    for parameter in (p for group in found.param_groups for p in group["params"]):
        found.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)  # torch's fused kernel leaves it unset where the first step is skipped
    return found


@OPTIMIZERS.register
def nadam(parameters: Iterable[nn.Parameter], learning_rate: float) -> optim.Optimizer:
    """Dozat 2016: Adam with Nesterov momentum."""
    return optim.NAdam(parameters, learning_rate)


@OPTIMIZERS.register
def radam(parameters: Iterable[nn.Parameter], learning_rate: float) -> optim.Optimizer:
    """Liu et al. 2020: Adam whose first steps are held back while its variance is not yet known."""
    return optim.RAdam(parameters, learning_rate)


PRECISIONS: Registry[torch.dtype] = Registry("precision")
PRECISIONS.add("float32", torch.float32)  # no autocast
PRECISIONS.add("bfloat16", torch.bfloat16)  # mixed: matrix products in bfloat16, weights, losses and densities in float32
