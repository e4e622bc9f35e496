"""Gaussians with a full covariance: by a Cholesky factor, and by reflections of a diagonal one."""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, kl_divergence, register_kl

from vaestro.core import Shape
from vaestro.data.schema import Field
from vaestro.families import Gaussian
from vaestro.families.base import Sizes, positive
from vaestro.flows import Bijection, FlowDistribution
from vaestro.networks import Build
from vaestro.posteriors.base import POSTERIORS, amortised, check_flows


class Cholesky(nn.Module):
    """N(loc, L L^T) with L = diag(scale) (I + T / sqrt(D)), T strictly lower triangular: every Gaussian over [D], and at T = 0 the diagonal one.

    Numbers: loc [D], s [D] with scale = 1e-4 + softplus(s + ln(e - 1)), then the rows of T, D (D - 1) / 2. The KL to a product of one-dimensional
    laws is in closed form, in nats (Kingma & Welling 2019, An Introduction to Variational Autoencoders, section 2.5.1).
    """

    place: Tensor

    def __init__(self, latents: int) -> None:
        super().__init__()
        self.latents, self.numbers = latents, 2 * latents + latents * (latents - 1) // 2
        place = torch.full((latents, latents), latents * (latents - 1) // 2)  # the last number, a zero, stands above the diagonal
        rows, columns = torch.tril_indices(latents, latents, -1)
        place[rows, columns] = torch.arange(len(rows))
        self.register_buffer("place", place.flatten(), persistent=False)

    def forward(self, h: Tensor) -> Distribution:
        """The Gaussian that `h` [*lead, numbers] describes."""
        d = self.latents
        loc, s, below = h.split((d, d, self.numbers - 2 * d), -1)
        below = torch.cat([below / math.sqrt(d), below.new_zeros(*below.shape[:-1], 1)], -1)
        unit = below.index_select(-1, self.place).unflatten(-1, (d, d)) + torch.eye(d, dtype=h.dtype, device=h.device)
        return MultivariateNormal(loc, scale_tril=positive(s).unsqueeze(-1) * unit, validate_args=False)


class Reflections(Bijection):
    """x = H_K ... H_1 u, H_k = I - 2 v_k v_k^T / |v_k|^2 (Tomczak & Welling 2016, Householder flow): a rotation, so ln |det| = 0.

    The context [*lead, K D] is v_1, ..., v_K; where a v is 0 nothing is reflected. In the paper each v is a linear map of the one before; here all are read
    from x at once.
    """

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """u = H_1 ... H_K x, for each reflection is its own inverse."""
        for v in reversed(self._directions(x, context)):
            x = x - 2 * v * (v * x).sum(-1, keepdim=True)
        return x, x.new_zeros(x.shape[:-1])

    def inverse(self, u: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x = H_K ... H_1 u."""
        for v in self._directions(u, context):
            u = u - 2 * v * (v * u).sum(-1, keepdim=True)
        return u, u.new_zeros(u.shape[:-1])

    def _directions(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        assert context is not None, "its directions are the context"
        v = context.unflatten(-1, (-1, x.shape[-1]))
        v = v / v.detach().abs().amax(-1, keepdim=True).clamp(min=torch.finfo(v.dtype).tiny)  # only its direction counts; its square could overflow
        length = torch.linalg.vector_norm(v, dim=-1, keepdim=True)  # 0, or at least 1
        directions: tuple[Tensor, ...] = (v / length.clamp(min=1.0)).unbind(-2)
        return directions


class Rotated(FlowDistribution):
    """H z with z ~ N(loc, diag scale^2) and H a product of reflections: N(H loc, H diag(scale^2) H^T), in nats."""

    base: Independent  # type: ignore[type-arg]

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "Rotated":
        """The same distribution, repeated over `batch_shape`."""
        return Rotated(self.base.expand(torch.Size(batch_shape)), self.bijection, self.context)

    @property
    def mean(self) -> Tensor:
        """H loc."""
        return self.bijection.inverse(self.base.mean, self.context)[0]

    @property
    def factor(self) -> Tensor:
        """A = H diag(scale) [*lead, D, D]; the covariance is A A^T."""
        assert self.context is not None, "its directions are the context"
        eye = torch.diag_embed(torch.ones_like(self.base.mean))
        return self.bijection.inverse(eye, self.context.unsqueeze(-2))[0].mT * self.base.stddev.unsqueeze(-2)

    @property
    def covariance_matrix(self) -> Tensor:
        """H diag(scale^2) H^T, [*lead, D, D]."""
        return self.factor @ self.factor.mT

    @property
    def variance(self) -> Tensor:
        """The diagonal of the covariance."""
        return self.factor.square().sum(-1)


class Householder:
    """A diagonal Gaussian turned by `flows` reflections: 2D numbers of the Gaussian, then D for each reflection."""

    def __init__(self, latents: int, flows: int) -> None:
        check_flows(flows)
        self.latents, self.numbers = latents, (2 + flows) * latents

    def __call__(self, h: Tensor) -> Distribution:
        """The Gaussian that `h` [*lead, numbers] describes."""
        return Rotated(Gaussian()(h[..., : 2 * self.latents]), Reflections(), h[..., 2 * self.latents :])


def _kl(q: MultivariateNormal | Rotated, p: Distribution, log_volume: Tensor) -> Tensor:
    """KL of N(m, A A^T) to a product of laws: the total correlation sum_j ln sd_j - ln |det A|, and the KLs of its marginals, in nats."""
    marginals = Independent(Normal(q.mean, q.stddev, validate_args=False), 1, validate_args=False)
    return q.stddev.log().sum(-1) - log_volume + kl_divergence(marginals, p)


@register_kl(MultivariateNormal, Independent)  # type: ignore[untyped-decorator]
def _(q: MultivariateNormal, p: Independent) -> Tensor:  # type: ignore[type-arg]
    return _kl(q, p, q.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1))


@register_kl(Rotated, Independent)  # type: ignore[untyped-decorator]
def _(q: Rotated, p: Independent) -> Tensor:  # type: ignore[type-arg]
    return _kl(q, p, q.base.stddev.log().sum(-1))


@POSTERIORS.register
def full_covariance(field: Field, latents: int, network: Build, hidden: Shape | None) -> nn.Module:
    """N(loc, L L^T): a Gaussian whose latents may be correlated given x."""
    return amortised(field, Cholesky(latents), network, hidden)


@POSTERIORS.register
def householder(field: Field, latents: int, network: Build, hidden: Shape | None, flows: int = 10) -> nn.Module:
    """A diagonal Gaussian turned by `flows` reflections; raises UsageError for fewer than one."""
    return amortised(field, Householder(latents, flows), network, hidden)
