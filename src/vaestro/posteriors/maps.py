"""An inverse autoregressive flow over maps [latents, H, W], by masked convolutions: it draws in one pass, and scores only what it draws."""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional as F

from vaestro.core import Shape
from vaestro.errors import UsageError
from vaestro.families.base import single
from vaestro.flows import Bijection
from vaestro.networks.masked import BEFORE, UP_TO, MaskedConv2d, groups_of
from vaestro.posteriors.base import Shares, Standardise, check_flows, noise
from vaestro.posteriors.masked import OPEN, START, STRANGER, OnePass

KERNEL = (3, 3)


class MapGate(Bijection):
    """x = sigma u + (1 - sigma) m, sigma = sigmoid(s + 2), with m and s at a place functions of the context and of u at the places before it.

    A step of the inverse autoregressive flow over pictures (Kingma et al. 2016, algorithm 1 and section 4), row by row and channel by channel:
    ln |det dx/du| = sum ln sigma, in one pass. Every other `layer` reads backwards. Vectors are flattened maps `event`; so is the context, of `width` channels.
    """

    def __init__(self, event: Shape, layer: int, width: int) -> None:
        super().__init__()
        latents, hidden = event[0], max(width, event[0])
        self.event, self.width, self.backwards = tuple(event), width, layer % 2 == 1
        alone = math.prod(event) == 1  # one number has none before it
        self.first = None if alone else MaskedConv2d(groups_of(latents, latents), groups_of(hidden, latents), KERNEL, BEFORE)
        self.told = nn.Conv2d(width, hidden, 1)
        self.last = MaskedConv2d(groups_of(hidden, latents), groups_of(2 * latents, latents), KERNEL, UP_TO)
        with torch.no_grad():
            self.last.weight.mul_(START)

    def inverse(self, u: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x, and ln |det du/dx| = -sum ln sigma."""
        assert context is not None, "its convolutions read the context"
        size = self.event[1:]
        v = self._turned(u.unflatten(-1, self.event).reshape(-1, *self.event))
        c = self._turned(context.unflatten(-1, (self.width, *size)).expand(*u.shape[:-1], self.width, *size).reshape(-1, self.width, *size))
        told = self.told(c) if self.first is None else self.first(v) + self.told(c)
        m, s = single(self.last(F.silu(told))).chunk(2, 1)
        x = m + torch.sigmoid(s + OPEN) * (v - m)
        return self._turned(x).reshape(u.shape), -F.logsigmoid(s + OPEN).flatten(1).sum(-1).reshape(u.shape[:-1])

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Raises UsageError: see `OnePass`."""
        raise UsageError(STRANGER)

    def _turned(self, maps: Tensor) -> Tensor:
        return maps.flip(-3, -2, -1) if self.backwards else maps


class MapFlow(nn.Module):
    """A diagonal Gaussian over maps `event`, then `flows` gates that each read `width` channels: [*lead, numbers, H, W] to a distribution over `event`.

    Raises UsageError for fewer than one gate.
    """

    def __init__(self, event: Shape, flows: int, width: int) -> None:
        super().__init__()
        check_flows(flows)
        self.event, self.numbers = tuple(event), flows * width + 2 * event[0]
        pixels = math.prod(event[1:])
        gates = ((MapGate(event, i, width), width * pixels) for i in reversed(range(flows)))
        self.bijection = Shares(*gates, (Standardise(), 2 * event[0] * pixels))

    def forward(self, h: Tensor) -> Distribution:
        """The distribution that `h` describes."""
        flat = h.flatten(-3)
        return OnePass(noise(flat, math.prod(self.event)), self.bijection, flat, self.event)
