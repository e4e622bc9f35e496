"""Mixtures of Gaussians as priors: free ones, and the posterior at learnt pseudo-inputs."""

import math
from collections.abc import Callable, Mapping
from functools import singledispatch
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, MultivariateNormal, Normal, TransformedDistribution, constraints

from vaestro.core import prepare
from vaestro.data.schema import Count, Field, Real, Table
from vaestro.errors import UsageError
from vaestro.families.base import FLOOR, Sizes, positive, precise, unpositive
from vaestro.priors.base import PRIORS
from vaestro.registry import Registry
from vaestro.seeds import places

LEAST = 4 * FLOOR**2  # the least variance that a mixture takes over: of twice the least scale that `positive` gives


class DiagonalMixture(Distribution):
    """A mixture of K diagonal Gaussians over [D]: log p(z) = logsumexp_k (log w_k + log N(z; loc_k, diag scale_k^2)), in nats.

    `logits` [K] or [], `loc` and `scale` [K, D]. It scores by one matrix product, sum_d (z - m)^2 / s^2 = z^2 . 1/s^2 - 2 z . m/s^2 + const, in
    O(n K) memory rather than O(n K D), and in float64, for these terms nearly cancel.
    """

    arg_constraints = {"logits": constraints.real, "loc": constraints.real, "scale": constraints.positive}
    support = constraints.real_vector

    def __init__(self, logits: Tensor, loc: Tensor, scale: Tensor) -> None:
        self.logits, self.loc, self.scale = logits.expand(loc.shape[0]), loc, scale
        super().__init__(torch.Size(), loc.shape[1:], validate_args=False)

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "DiagonalMixture":
        """The same mixture, repeated over `batch_shape`."""
        new = DiagonalMixture(self.logits, self.loc, self.scale)
        new._batch_shape = torch.Size(batch_shape)
        return new

    @property
    def probs(self) -> Tensor:
        """The components' weights, [K]."""
        return self.logits.softmax(0)

    @property
    def mean(self) -> Tensor:
        """sum_k w_k loc_k."""
        return self._weigh(self.loc).expand(self._extended_shape())

    @property
    def variance(self) -> Tensor:
        """sum_k w_k (scale_k^2 + (loc_k - mean)^2)."""
        centred = self.loc - self._weigh(self.loc)
        return self._weigh(self.scale.square() + centred.square()).expand(self._extended_shape())

    def _weigh(self, each: Tensor) -> Tensor:
        return (self.probs.unsqueeze(1) * each).sum(0)  # a matrix product would be taken in half precision under autocast

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of each [D], in nats."""
        log_p = self.joint(value).logsumexp(-1).to(value.dtype)
        return log_p.expand(torch.broadcast_shapes(log_p.shape, self.batch_shape))

    def joint(self, value: Tensor) -> Tensor:
        """log w_k + log N(z; loc_k, diag scale_k^2) of each [..., D] and component: [..., K], nats, in float64."""
        centre = precise(self.loc).mean(0)
        z, loc, scale = precise(value).reshape(-1, value.shape[-1]) - centre, precise(self.loc) - centre, precise(self.scale)
        weight = scale.square().reciprocal()
        constant = precise(self.logits).log_softmax(0) - scale.log().sum(1) - (loc.square() * weight).sum(1) / 2 - loc.shape[1] * math.log(2 * math.pi) / 2
        each = torch.addmm(constant, torch.cat([z.square(), z], 1), torch.cat([-weight / 2, loc * weight], 1).T)
        return each.reshape(*value.shape[:-1], -1)

    def sample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """A component, then a point of it; no gradient."""
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            k = torch.multinomial(self.probs, math.prod(shape[:-1]), replacement=True)
            return torch.normal(self.loc[k], self.scale[k]).reshape(shape)


class GaussianMixture(nn.Module):
    """A learnt mixture of diagonal Gaussians over [latents]: sum_k softmax(logits)_k N(loc_k, diag scale_k^2); nats.

    Means start at random points of N(0, I), scales at 1. Raises UsageError for fewer than one component.
    """

    def __init__(self, latents: int, components: int = 10) -> None:
        super().__init__()
        _check(components)
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, latents))
        self.raw_scale = nn.Parameter(torch.zeros(components, latents))

    def forward(self) -> Distribution:
        """The mixture, of batch shape ()."""
        return DiagonalMixture(self.logits, self.loc, positive(self.raw_scale))

    @property
    def covariance(self) -> Tensor:
        """Of each component the diagonal of its covariance, the rest being 0: [components, latents]."""
        return positive(self.raw_scale).square()

    @staticmethod
    def outer(z: Tensor) -> Tensor:
        """The diagonal of z z^T for each row of `z`, [n, latents]."""
        return z.square()

    @torch.no_grad()
    def become(self, weight: Tensor, mean: Tensor, covariance: Tensor, least: float = LEAST) -> None:
        """Take these weights, means and covariances, no variance below `least`."""
        self.logits.copy_(weight.log())
        self.loc.copy_(mean)
        self.raw_scale.copy_(unpositive(covariance.clamp(min=least).sqrt()))


class FullMixture(nn.Module):
    """A learnt mixture of Gaussians with full covariances over [latents]: sum_k softmax(logits)_k N(loc_k, L_k L_k^T); nats.

    Means start at random points of N(0, I), covariances at I. Raises UsageError for fewer than one component.
    """

    def __init__(self, latents: int, components: int = 10) -> None:
        super().__init__()
        _check(components)
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, latents))
        self.raw_scale = nn.Parameter(torch.zeros(components, latents, latents))  # of which the upper triangles are not read

    def forward(self) -> Distribution:
        """The mixture, of batch shape ()."""
        parts = MultivariateNormal(self.loc, scale_tril=self._triangle(), validate_args=False)
        return MixtureSameFamily(Categorical(logits=self.logits, validate_args=False), parts, validate_args=False)

    def _triangle(self) -> Tensor:
        return self.raw_scale.tril(-1) + positive(self.raw_scale.diagonal(dim1=1, dim2=2)).diag_embed()

    @property
    def covariance(self) -> Tensor:
        """The covariance of each component, [components, latents, latents]."""
        triangle = self._triangle()
        return triangle @ triangle.mT

    @staticmethod
    def outer(z: Tensor) -> Tensor:
        """z z^T for each row of `z`, [n, latents, latents]."""
        return z.unsqueeze(2) * z.unsqueeze(1)

    @torch.no_grad()
    def become(self, weight: Tensor, mean: Tensor, covariance: Tensor, least: float = LEAST) -> None:
        """Take these weights, means and covariances, no variance below `least` in any direction."""
        variances, axes = torch.linalg.eigh(covariance)
        triangle = torch.linalg.cholesky(axes * variances.clamp(min=least).unsqueeze(1) @ axes.mT)
        self.logits.copy_(weight.log())
        self.loc.copy_(mean)
        self.raw_scale.copy_(triangle.tril(-1) + unpositive(triangle.diagonal(dim1=1, dim2=2)).diag_embed())


Covariance: TypeAlias = Callable[[int, int], GaussianMixture | FullMixture]  # of latents and components
COVARIANCES: Registry[Covariance] = Registry("covariance")
COVARIANCES.add("full", FullMixture)
COVARIANCES.add("diagonal", GaussianMixture)


class Vamp(nn.Module):
    """The mixture of posteriors at learnt pseudo-inputs: p(z) = 1/K sum_k q(z | u_k) (Tomczak & Welling 2018, eq. 9 to 11); nats.

    `pseudo` [K, *event of x] is where they start; `bounds` is the range of the data, to which they are clamped as in the paper's code.
    The posterior is held, not owned: its parameters stay the model's, are stored once, and a deep copy of the model points at the copy's posterior.
    Raises UsageError when the posterior is not a diagonal Gaussian.
    """

    def __init__(self, posterior: nn.Module, pseudo: Tensor, bounds: tuple[float, float] = (0.0, 1.0)) -> None:
        super().__init__()
        self._held = (posterior,)  # in a tuple, torch does not register it a second time
        self.pseudo = nn.Parameter(pseudo.detach().clone())
        self.bounds = bounds

    @torch.no_grad()
    def start(self, rows: Tensor) -> None:
        """Starts the pseudo-inputs from random rows of the data, [n, *event]; with replacement where there are fewer rows than pseudo-inputs."""
        order = places(len(self.pseudo), len(rows), rows.device)
        self.pseudo.copy_(rows[order])

    def forward(self) -> Distribution:
        """The mixture, of batch shape ()."""
        q = self._held[0](self.pseudo.clamp(*self.bounds))
        if not (isinstance(q, Independent) and isinstance(q.base_dist, Normal) and q.base_dist.loc.dim() == 2):
            raise UsageError("a Vamp prior needs a posterior that is a diagonal Gaussian over a vector; give the posterior the family Gaussian")
        return DiagonalMixture(torch.zeros((), dtype=q.base_dist.loc.dtype, device=q.base_dist.loc.device), q.base_dist.loc, q.base_dist.scale)


@prepare.register(Vamp)
def _(part: Vamp, data: Mapping[str, Tensor]) -> None:
    part.start(data["x"])


def _check(components: int) -> None:
    if components < 1:
        raise UsageError(f"a mixture cannot have {components} components; give one or more")


@PRIORS.register
def gaussian_mixture(latents: int, posterior: nn.Module, field: Field, components: int = 10) -> nn.Module:
    """A learnt mixture of `components` diagonal Gaussians over [latents]."""
    return GaussianMixture(latents, components)


@PRIORS.register
def full_mixture(latents: int, posterior: nn.Module, field: Field, components: int = 10) -> nn.Module:
    """A learnt mixture of `components` Gaussians with full covariances over [latents]."""
    return FullMixture(latents, components)


@PRIORS.register
def vamp(latents: int, posterior: nn.Module, field: Field, components: int = 500) -> nn.Module:
    """`components` learnt pseudo-inputs, shaped as the field, that start at random; `Vamp.start` takes them from the data."""
    _check(components)
    real = isinstance(field.kind, Real | Table)
    start = torch.randn(components, *field.shape) if real else torch.rand(components, *field.shape)
    top = math.inf if isinstance(field.kind, Real | Count | Table) else 1.0
    return Vamp(posterior, start, (-math.inf if real else 0.0, top))


@singledispatch
def responsibilities(dist: Distribution, value: Tensor) -> Tensor:
    """p(c | z) of the components c of a mixture at values [..., *event]: [..., K], of sum 1. Open; raises UsageError for what is no mixture."""
    law = getattr(dist, "base_dist", dist)
    raise UsageError(
        f"a prior that is no mixture ({type(law).__name__}) has no clusters; train vade or gmm_prior, or fit one with `vaestro fit-prior RUN gmm:components=10`"
    )


@responsibilities.register
def _(dist: DiagonalMixture, value: Tensor) -> Tensor:
    return dist.joint(value).softmax(-1).to(value.dtype)


@responsibilities.register
def _(dist: TransformedDistribution, value: Tensor) -> Tensor:
    for transform in reversed(dist.transforms):
        value = transform.inv(value)  # its slope is that of every component
    return responsibilities(dist.base_dist, value)


@responsibilities.register
def _(dist: MixtureSameFamily, value: Tensor) -> Tensor:
    each = dist.component_distribution.log_prob(value.unsqueeze(-1 - len(dist.event_shape)))
    return (dist.mixture_distribution.logits + each).softmax(-1)
