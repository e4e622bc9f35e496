"""Positive numbers and shares of a whole: the gamma and the Dirichlet distribution, drawn by their logs."""

import torch
from torch import Tensor
from torch.distributions import Dirichlet as TorchDirichlet
from torch.distributions import Distribution, Independent, kl_divergence, register_kl
from torch.distributions import Gamma as TorchGamma

from vaestro.families.base import Repr, Sizes, positive, precise, split

LEAST = 0.1  # the smallest concentration that a network gives: at 0.01 one gamma of three is smaller than the smallest float32


def log_gamma_draw(concentration: Tensor) -> Tensor:
    """ln g with g ~ Gamma(concentration, 1), in the type of `concentration`; differentiates, and never is ln 0.

    g = h u^(1 / a) with h ~ Gamma(a + 1) and u uniform (Marsaglia & Tsang 2000); dh/da is torch's implicit gradient (Figurnov et al. 2018).
    """
    above = TorchGamma(concentration + 1, torch.ones_like(concentration), validate_args=False).rsample()
    u = torch.rand_like(concentration).clamp(min=torch.finfo(concentration.dtype).tiny)
    return above.log() + u.log() / concentration


class GammaDistribution(TorchGamma):
    """log p(x) = a ln r - ln Gamma(a) + (a - 1) ln x - r x, a the concentration and r the rate; nats. Computed in float64, and never drawn as 0."""

    def rsample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Samples that differentiate."""
        shape = self._extended_shape(torch.Size(sample_shape))
        log_x = log_gamma_draw(precise(self.concentration).expand(shape)) - precise(self.rate).log()
        limits = torch.finfo(self.rate.dtype)
        return log_x.exp().clamp(limits.tiny, limits.max).to(self.rate.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of each value, in nats."""
        a, r, x = precise(self.concentration), precise(self.rate), precise(value)
        return (torch.xlogy(a, r) + torch.xlogy(a - 1, x) - r * x - torch.lgamma(a)).to(self.rate.dtype)


class DirichletDistribution(TorchDirichlet):
    """log p(x) = ln Gamma(sum a) - sum ln Gamma(a_k) + sum (a_k - 1) ln x_k, a the concentration; to dx_1 ... dx_(K-1), nats.

    Computed in float64, and no share is drawn as 0.
    """

    def rsample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Samples that differentiate: the shares of gammas."""
        shape = self._extended_shape(torch.Size(sample_shape))
        shares = log_gamma_draw(precise(self.concentration).expand(shape)).softmax(-1)
        return shares.clamp(min=torch.finfo(self.concentration.dtype).tiny).to(self.concentration.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of each row of shares, in nats."""
        a, x = precise(self.concentration), precise(value)
        return (torch.xlogy(a - 1, x).sum(-1) + torch.lgamma(a.sum(-1)) - torch.lgamma(a).sum(-1)).to(self.concentration.dtype)


@register_kl(GammaDistribution, GammaDistribution)  # type: ignore[untyped-decorator]
def _(q: GammaDistribution, p: GammaDistribution) -> Tensor:
    plain = (TorchGamma(precise(d.concentration), precise(d.rate), validate_args=False) for d in (q, p))
    return kl_divergence(*plain).to(q.rate.dtype)


@register_kl(DirichletDistribution, DirichletDistribution)  # type: ignore[untyped-decorator]
def _(q: DirichletDistribution, p: DirichletDistribution) -> Tensor:
    wide = torch.broadcast_tensors(precise(q.concentration), precise(p.concentration))
    return kl_divergence(*(TorchDirichlet(a, validate_args=False) for a in wide)).to(q.concentration.dtype)


class Gamma(Repr):
    """Gamma, both numbers predicted: `h` [..., 2C, ...] is a and r, concentration = 0.1 + positive(a), rate = positive(r); nats.

    positive(s) = 1e-4 + softplus(s + ln(e - 1)) (Knowles 2015).
    """

    params = 2

    def __init__(self, event_dims: int = 1) -> None:
        self.event_dims = event_dims

    def __call__(self, h: Tensor) -> Distribution:
        """The distribution whose parameters are `h`, with events of `event_dims` axes; raises UsageError when the channels do not divide."""
        a, r = split(h, 2, self.event_dims)
        return Independent(GammaDistribution(LEAST + positive(a), positive(r), validate_args=False), self.event_dims, validate_args=False)
