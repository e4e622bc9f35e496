"""The exemplar prior: a mixture of Gaussians around the encodings of rows of the data."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, constraints

from vaestro.core import prepare
from vaestro.data.schema import Field, Real, Table
from vaestro.errors import UsageError
from vaestro.families.base import FLOOR, Sizes, precise
from vaestro.priors.base import PRIORS
from vaestro.priors.mixtures import DiagonalMixture
from vaestro.seeds import places


class LeaveOneOut(Distribution):
    """For row i of b: the mixture of N(loc_j, scale^2 I) over the other rows j, log p_i(z) = logsumexp_{j != i} log N(z; loc_j, scale^2 I) - log(b - 1).

    `loc` [b, D] with b > 1, `scale` a number; batch shape [b], nats. Scored in float64 by one matrix product, as `DiagonalMixture`.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        self.loc, self.scale = loc, scale
        super().__init__(loc.shape[:1], loc.shape[1:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of each [..., b, D], in nats: [..., b]."""
        rows, size = self.loc.shape
        centre = precise(self.loc).mean(0)
        z, loc, scale = precise(value) - centre, precise(self.loc) - centre, precise(self.scale)
        squares = z.square().sum(-1, keepdim=True) - 2 * z @ loc.T + loc.square().sum(-1)
        each = -squares / (2 * scale.square()) - size * (scale.log() + math.log(2 * math.pi) / 2)
        own = torch.eye(rows, dtype=torch.bool, device=loc.device)
        return (each.masked_fill(own, -math.inf).logsumexp(-1) - math.log(rows - 1)).to(value.dtype)

    def sample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Another row's encoding and noise; no gradient."""
        shape = self._extended_shape(torch.Size(sample_shape))
        with torch.no_grad():
            rows = self.loc.shape[0]
            step = torch.randint(1, rows, shape[:-1], device=self.loc.device)
            other = (torch.arange(rows, device=self.loc.device) + step) % rows
            return self.loc[other] + self.scale * torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)


class Exemplar(nn.Module):
    """p(z) = 1/N sum_n N(z; mean of q(z | x_n), scale^2 I), with one learnt scale (Norouzi, Fleet & Norouzi 2020, section 3); nats.

    The N exemplars `rows` [N, *event of x] are saved with the weights, so that the density and the samples of a run are those of one fixed mixture.
    In training a model passes the posterior of its batch: the exemplars are then the other rows of the batch, a random subset of the training rows in
    which no row is its own exemplar. The posterior is held, not owned, as by `Vamp`. Raises UsageError where it is not a diagonal Gaussian.
    """

    rows: Tensor

    def __init__(self, posterior: nn.Module, rows: Tensor) -> None:
        super().__init__()
        self._held = (posterior,)
        self.register_buffer("rows", rows.detach().clone())
        self.log_scale = nn.Parameter(torch.zeros(()))

    @torch.no_grad()
    def start(self, rows: Tensor) -> None:
        """Takes its exemplars from rows of the data [n, *event], at random; with replacement where there are fewer rows than exemplars."""
        order = places(len(self.rows), len(rows), rows.device)
        self.rows.copy_(rows[order])

    @property
    def scale(self) -> Tensor:
        """The one scale, with a floor of 1e-4."""
        return self.log_scale.exp() + FLOOR

    def forward(self, posterior: Distribution | None = None) -> Distribution:
        """The mixture over the exemplars, of batch shape (); or, given the posterior of two or more rows [b], that of each row over the others."""
        if posterior is not None and posterior.batch_shape[-1] > 1:
            return LeaveOneOut(_loc(posterior), self.scale)
        loc = _loc(self._held[0](self.rows))
        return DiagonalMixture(loc.new_zeros(()), loc, self.scale.to(loc.dtype).expand_as(loc))


def _loc(q: Distribution) -> Tensor:
    if not (isinstance(q, Independent) and isinstance(q.base_dist, Normal) and q.base_dist.loc.dim() == 2):
        raise UsageError("an exemplar prior needs a posterior that is a diagonal Gaussian over a vector; give the posterior the family Gaussian")
    loc: Tensor = q.base_dist.loc
    return loc


@prepare.register(Exemplar)
def _(part: Exemplar, data: Mapping[str, Tensor]) -> None:
    part.start(data["x"])


@PRIORS.register
def exemplar(latents: int, posterior: nn.Module, field: Field, exemplars: int = 500) -> nn.Module:
    """A Gaussian of one learnt scale around the encoding of each of `exemplars` rows, which training takes from the data."""
    if exemplars < 1:
        raise UsageError(f"a prior cannot have {exemplars} exemplars; give one or more")
    real = isinstance(field.kind, Real | Table)
    return Exemplar(posterior, torch.randn(exemplars, *field.shape) if real else torch.rand(exemplars, *field.shape))
