"""Normals of the Poincare ball."""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from vaestro.core import Shape, centre, draw
from vaestro.families.base import Sizes, precise
from vaestro.networks.ball import inside, length, step, steps_back

RIM = {torch.float32: 15.0, torch.float64: 30.0}  # the distance times sqrt(c) from the origin beyond which a type no longer tells points of the ball apart
_NEAR = 0.03  # below it ln(sinh x / x) by its series


def log_sinhc(x: Tensor) -> Tensor:
    """ln(sinh(x) / x) for x >= 0; never overflows."""
    square, far = x.square(), x.clamp(min=_NEAR)
    return torch.where(x < _NEAR, square * (1 / 6 - square * (1 / 180 - square / 2835)), far + torch.log(-torch.expm1(-2 * far)) - torch.log(2 * far))


class Ball(constraints.Constraint):
    """Vectors z with c |z|^2 < 1."""

    event_dim = 1

    def __init__(self, curvature: float) -> None:
        self.curvature = curvature
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Whether each vector lies in the ball."""
        within: Tensor = value.square().sum(-1) * self.curvature < 1
        return within


class WrappedNormal(Distribution):
    """z = exp_loc(v) with v ~ N(0, diag scale^2): log q(z) = log N(v; 0, diag scale^2) - (D - 1) ln(sinh(sqrt(c) |v|) / (sqrt(c) |v|)), in nats.

    The density is to the ball's own volume, sqrt(det g) dz with g = (2 / (1 - c |z|^2))^2 I; to dz it is this plus D ln(2 / (1 - c |z|^2)). `loc` [*lead, D]
    is a point of the ball, v [*lead, D] has the length of a geodesic and is carried from the origin to loc in parallel, `scale` [*lead, D] > 0, and -c < 0
    is the curvature (Nagano et al. 2019, section 3; Mathieu et al. 2019, section 3.1). As c falls to 0, 2z becomes N(2 loc, diag scale^2). Computed in float64,
    returned in the type of `loc`; draws farther from the origin than 15 / sqrt(c) (float64: 30) are set back there. No closed form of mean or entropy.
    """

    arg_constraints = {"scale": constraints.independent(constraints.positive, 1)}
    has_rsample = True
    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor, scale: Tensor, curvature: float) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        self.curvature = curvature
        super().__init__(self.loc.shape[:-1], self.loc.shape[-1:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """The ball."""
        return Ball(self.curvature)

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "WrappedNormal":
        """The same distribution, repeated over `batch_shape`."""
        return WrappedNormal(self.loc.expand(*batch_shape, -1), self.scale.expand(*batch_shape, -1), self.curvature)

    def _score(self, z: Tensor) -> Tensor:
        v, scale = steps_back(precise(self.loc), z, self.curvature), precise(self.scale)
        flat = -((v / scale).square() / 2 + scale.log() + math.log(2 * math.pi) / 2).sum(-1)
        swell = log_sinhc(math.sqrt(self.curvature) * length(v).squeeze(-1))
        score: Tensor = flat - (v.shape[-1] - 1) * swell
        return score.to(self.loc.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of each point, to the ball's volume, in nats."""
        return self._score(inside(precise(value), self.curvature, RIM[self.loc.dtype]))

    def rsample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Points that differentiate."""
        return self.draw(torch.Size(sample_shape))[0]

    def draw(self, shape: Shape) -> tuple[Tensor, Tensor]:
        """Points and their log densities, scored before they are rounded: near the rim the density changes much from one float32 to the next."""
        scale = precise(self.scale)
        v = scale * torch.randn(self._extended_shape(torch.Size(shape)), dtype=scale.dtype, device=scale.device)
        z = inside(step(precise(self.loc), v, self.curvature), self.curvature, RIM[self.loc.dtype])
        return z.to(self.loc.dtype), self._score(z)


@draw.register
def _(dist: WrappedNormal, shape: Shape) -> tuple[Tensor, Tensor]:
    return dist.draw(shape)


@centre.register
def _(dist: WrappedNormal) -> Tensor:
    return dist.loc
