"""Bijections of vectors: both ways and the log-determinant of each."""

import math
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from vaestro.core import Shape
from vaestro.errors import UsageError
from vaestro.flows.univariate import Univariate
from vaestro.networks import Constant, Made, mlp

HIDDEN = (128, 128)
_START = 0.01  # how far from the identity a flow starts: not at it, or what reads the last layer would have no gradient


class Bijection(nn.Module):
    """A map x [*lead, D] to u and back, given a context [*lead, C] or None; each way also says ln |det du/dx| [*lead]."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """u and ln |det du/dx|: the way of densities."""
        raise TypeError(f"{type(self).__name__} has no way from data to noise; write forward(x, context)")

    def inverse(self, u: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x and ln |det du/dx| there: the way of samples."""
        raise TypeError(f"{type(self).__name__} has no way from noise to data; write inverse(u, context)")


class Chain(Bijection):
    """Bijections one after the other, from data to noise."""

    def __init__(self, links: Iterable[Bijection]) -> None:
        super().__init__()
        self.links = nn.ModuleList(links)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """u and the sum of the log-determinants."""
        total = x.new_zeros(x.shape[:-1])
        for link in self.links:
            x, ladj = link(x, context)
            total = total + ladj
        return x, total

    def inverse(self, u: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x and the sum of the log-determinants."""
        total = u.new_zeros(u.shape[:-1])
        for link in reversed(cast(Sequence[Bijection], self.links)):
            u, ladj = link.inverse(u, context)
            total = total + ladj
        return u, total


class Inverse(Bijection):
    """A bijection read backwards: a masked autoregressive map becomes an inverse autoregressive one, fast to sample (Kingma et al. 2016)."""

    def __init__(self, of: Bijection) -> None:
        super().__init__()
        self.of = of

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The inverse of `of`, and minus its log-determinant."""
        u, ladj = self.of.inverse(x, context)
        return u, -ladj

    def inverse(self, u: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`of` itself, and minus its log-determinant."""
        x, ladj = self.of(u, context)
        return x, -ladj


class Rescale(Bijection):
    """u = (x - shift) exp(-log_scale), learnt; `start` makes it standardise some rows (Kingma & Dhariwal 2018, Glow, section 3.1)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.shift, self.log_scale = nn.Parameter(torch.zeros(features)), nn.Parameter(torch.zeros(features))

    @torch.no_grad()
    def start(self, rows: Tensor) -> None:
        """Standardise rows [n, D]; a feature that is constant keeps a scale of 1e-3."""
        self.shift.copy_(rows.mean(0))
        self.log_scale.copy_(rows.std(0, correction=0).clamp(min=1e-3).log())

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The standardised x."""
        return (x - self.shift) * torch.exp(-self.log_scale), -self.log_scale.sum().expand(x.shape[:-1])

    def inverse(self, u: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x in its own units."""
        return u * torch.exp(self.log_scale) + self.shift, -self.log_scale.sum().expand(u.shape[:-1])


class Coupling(Bijection):
    """Half of the features pass; they and the context say how each of the others is mapped: fast both ways (Dinh et al. 2017, eq. 7).

    Layers 2j and 2j + 1 split the features by bit j of their index and take turns, so any two features meet after 2 log2(D) layers
    (Mueller et al. 2019, Neural Importance Sampling, section 4.3). A single feature has no other half: it is mapped by numbers that
    the context alone, or nothing, decides.
    """

    passing: Tensor
    moving: Tensor

    def __init__(self, features: int, univariate: Univariate, layer: int = 0, context: int = 0, hidden: Shape = HIDDEN) -> None:
        super().__init__()
        index = torch.arange(features)
        bits = max(1, math.ceil(math.log2(features)))
        passes = (index >> (layer // 2 % bits) & 1) == layer % 2
        passes = passes & (features > 1)
        self.register_buffer("passing", index[passes], persistent=False)
        self.register_buffer("moving", index[~passes], persistent=False)
        self.univariate = univariate
        read, numbers = len(self.passing) + context, len(self.moving) * univariate.numbers
        self.net = _nearly_still(mlp((read,), (numbers,), hidden)) if read else Constant(numbers)

    def _numbers(self, x: Tensor, context: Tensor | None) -> Tensor:
        known = [x.index_select(-1, self.passing), *([] if context is None else [context.expand(*x.shape[:-1], context.shape[-1])])]
        read = torch.cat(known, -1)
        h: Tensor = self.net(read.reshape(-1, read.shape[-1]) if read.shape[-1] else x.reshape(-1, x.shape[-1]))
        return h.reshape(*x.shape[:-1], len(self.moving), self.univariate.numbers)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """u and the sum of the log-derivatives."""
        u, ladj = self.univariate.forward(x.index_select(-1, self.moving), self._numbers(x, context))
        return x.index_copy(-1, self.moving, u), ladj

    def inverse(self, u: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x and the sum of the log-derivatives."""
        x, ladj = self.univariate.inverse(u.index_select(-1, self.moving), self._numbers(u, context))
        return u.index_copy(-1, self.moving, x), ladj


class Autoregressive(Bijection):
    """u_i = f(x_i; numbers of x_<i and the context) by a masked network: densities take one pass, samples D passes (Papamakarios et al. 2017, eq. 3).

    `Inverse` of it is the inverse autoregressive map: samples take one pass, densities of strangers' values D. Every other `layer` reads backwards.
    """

    def __init__(self, features: int, univariate: Univariate, layer: int = 0, context: int = 0, hidden: Shape = HIDDEN) -> None:
        super().__init__()
        order = torch.arange(features).flip(0) if layer % 2 else torch.arange(features)
        self.features, self.univariate = features, univariate
        self.net = _nearly_still(Made(features, univariate.numbers, hidden, context, order))

    def _numbers(self, x: Tensor, context: Tensor | None) -> Tensor:
        read = x if context is None else torch.cat([x, context.expand(*x.shape[:-1], context.shape[-1])], -1)
        h: Tensor = self.net(read)
        return h

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """u and the sum of the log-derivatives, in one pass."""
        return self.univariate.forward(x, self._numbers(x, context))

    def inverse(self, u: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x and the sum of the log-derivatives, feature by feature: after pass i the first i are right."""
        x, ladj = torch.zeros_like(u), u.new_zeros(u.shape[:-1])
        for _ in range(self.features):
            x, ladj = self.univariate.inverse(u, self._numbers(x, context))
        return x, ladj


def _nearly_still(net: nn.Module) -> nn.Module:
    """A network whose outputs start near 0, so that what they map starts near the identity."""
    with torch.no_grad():
        for last in [m for m in net.modules() if isinstance(m, nn.Linear)][-1:]:
            last.weight.mul_(_START)
    return net


def coupling(features: int, univariate: Univariate, layers: int = 6, context: int = 0, hidden: Shape = HIDDEN) -> Bijection:
    """A rescaling and `layers` couplings of `features` numbers, given `context` more. Fast both ways. Raises UsageError for fewer than one layer."""
    _check(layers)
    return Chain([Rescale(features), *(Coupling(features, univariate, i, context, hidden) for i in range(layers))])


def autoregressive(features: int, univariate: Univariate, layers: int = 3, context: int = 0, hidden: Shape = HIDDEN) -> Bijection:
    """A rescaling and `layers` masked autoregressive maps, in turns of direction. A sample costs `features` passes a layer.

    Raises UsageError for fewer than one layer.
    """
    _check(layers)
    return Chain([Rescale(features), *(Autoregressive(features, univariate, i, context, hidden) for i in range(layers))])


def _check(layers: int) -> None:
    if layers < 1:
        raise UsageError(f"a flow cannot have {layers} layers; give one or more")
