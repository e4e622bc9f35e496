"""What an amortised posterior is, the registry of posteriors, and the diagonal Gaussian."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaestro.conditional import through
from vaestro.core import Shape
from vaestro.data.schema import Field
from vaestro.errors import UsageError
from vaestro.families import Gaussian
from vaestro.families.base import positive, single, split
from vaestro.flows import Bijection, FlowDistribution
from vaestro.networks import Build
from vaestro.networks.reading import reader
from vaestro.registry import Registry


@runtime_checkable
class Law(Protocol):
    """Numbers to a distribution: h [*lead, numbers] to one of batch shape [*lead] and events [latents]."""

    @property
    def numbers(self) -> int:
        """How many numbers of the network one distribution needs."""

    def __call__(self, h: Tensor, /) -> Distribution:
        """The distribution that `h` describes."""


class Amortised(nn.Module):
    """q(z | contexts): `net` reads the contexts, whatever their leading axes, and `law` makes a distribution of its numbers."""

    def __init__(self, net: nn.Module, law: Law) -> None:
        super().__init__()
        self.net, self.law = net, law

    def forward(self, *contexts: Tensor) -> Distribution:
        """The posterior given `contexts`, each [*lead, channels, ...]."""
        return self.law(single(through(self.net, *contexts)))


Posterior = Callable[[Field, int, Build, Shape | None], nn.Module]
POSTERIORS: Registry[Posterior] = Registry("posterior")


def amortised(field: Field, law: Law, network: Build, hidden: Shape | None) -> Amortised:
    """The posterior that `network`, at the widths `hidden` or its own, and `law` make for one field."""
    return Amortised(reader(field, network, (law.numbers,), hidden), law)


def check_flows(flows: int) -> None:
    """Raises UsageError for a flow of no steps."""
    if flows < 1:
        raise UsageError(f"a flow cannot have {flows} steps; give one or more")


class Shares(Bijection):
    """Bijections one after the other, from latents to noise; each is given its own share of the context, `numbers` wide."""

    def __init__(self, *links: tuple[Bijection, int]) -> None:
        super().__init__()
        self.links = nn.ModuleList(link for link, _ in links)
        self.sizes = tuple(size for _, size in links)

    @property
    def numbers(self) -> int:
        """The width of the whole context."""
        return sum(self.sizes)

    def _shared(self, context: Tensor | None) -> list[tuple[Bijection, Tensor]]:
        assert context is not None, "its links are described by the context"
        return list(zip(self.links, context.split(self.sizes, -1), strict=True))  # type: ignore[arg-type]

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """u and the sum of the log-determinants ln |det du/dx|."""
        total = x.new_zeros(x.shape[:-1])
        for link, share in self._shared(context):
            x, ladj = link(x, share)
            total = total + ladj
        return x, total

    def inverse(self, u: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x and the sum of the log-determinants ln |det du/dx|."""
        total = u.new_zeros(u.shape[:-1])
        for link, share in reversed(self._shared(context)):
            u, ladj = link.inverse(u, share)
            total = total + ladj
        return u, total


class Standardise(Bijection):
    """u = (x - loc) / scale, with loc and scale = 1e-4 + softplus(s + ln(e - 1)) given by the context [*lead, 2D]."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The standardised x."""
        loc, scale = self._of(context)
        return (x - loc) / scale, -scale.log().sum(-1)

    def inverse(self, u: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x in its own units."""
        loc, scale = self._of(context)
        return loc + scale * u, -scale.log().sum(-1)

    def _of(self, context: Tensor | None) -> tuple[Tensor, Tensor]:
        assert context is not None, "its numbers are the context"
        loc, s = split(context, 2, 1)
        return loc, positive(s)


class FlowLaw(nn.Module):
    """N(0, I) over [latents] seen through bijections that the numbers describe: log q(z) = log N(u(z); 0, I) + ln |det du/dz|, in nats."""

    def __init__(self, latents: int, *links: tuple[Bijection, int]) -> None:
        super().__init__()
        self.latents, self.bijection = latents, Shares(*links)

    @property
    def numbers(self) -> int:
        """How many numbers describe one distribution."""
        return self.bijection.numbers

    def forward(self, h: Tensor) -> Distribution:
        """The distribution that `h` [*lead, numbers] describes."""
        return FlowDistribution(noise(h, self.latents), self.bijection, h)


def noise(h: Tensor, latents: int) -> Distribution:
    """N(0, I) over [latents], of the batch shape and precision of `h` [*lead, n]."""
    zeros = h.new_zeros(*h.shape[:-1], latents)
    return Independent(Normal(zeros, torch.ones_like(zeros), validate_args=False), 1, validate_args=False)


class Diagonal:
    """N(loc, diag scale^2): 2D numbers, read by the family Gaussian."""

    def __init__(self, latents: int) -> None:
        self.numbers = 2 * latents

    def __call__(self, h: Tensor) -> Distribution:
        """The Gaussian that `h` [*lead, 2D] describes."""
        return Gaussian()(h)


@POSTERIORS.register
def gaussian(field: Field, latents: int, network: Build, hidden: Shape | None) -> nn.Module:
    """A diagonal Gaussian (Kingma & Welling 2014, appendix C.2)."""
    return amortised(field, Diagonal(latents), network, hidden)
