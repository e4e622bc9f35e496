"""Gaussians of one scale that nobody's gradient trains: it is measured."""

import math
from functools import singledispatch

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaestro.core import Draw, Trace, centre, observe
from vaestro.errors import UsageError
from vaestro.families.base import FLOOR, split
from vaestro.families.binned import BinnedDistribution


@singledispatch
def rescaled(dist: Distribution, scale: Tensor) -> Distribution:
    """`dist` with `scale` [] in place of its own scale. Open: Gaussians, independent ones, and their bins.

    Raises UsageError for a distribution that has no one scale.
    """
    raise UsageError(f"{type(dist).__name__} has no scale that can be set; use likelihood=gaussian_tracked, gaussian_shared or gaussian_fixed")


@rescaled.register
def _(dist: Normal, scale: Tensor) -> Distribution:
    return Normal(dist.loc, scale.expand_as(dist.loc), validate_args=False)


@rescaled.register
def _(dist: BinnedDistribution, scale: Tensor) -> Distribution:
    return BinnedDistribution(rescaled(dist.base, scale), dist.levels)


@rescaled.register
def _(dist: Independent, scale: Tensor) -> Distribution:  # type: ignore[type-arg]
    return Independent(rescaled(dist.base_dist, scale), dist.reinterpreted_batch_ndims, validate_args=False)


@singledispatch
def middle(dist: Distribution) -> Tensor:
    """What errors are measured from: the centre. Open: of a binned distribution, the centre within the range of the data.

    Its end bins hold the tails, so a location far outside says "surely the end" and is no error; measured from there, the scale would run away.
    """
    return centre(dist)


@middle.register
def _(dist: BinnedDistribution) -> Tensor:
    return centre(dist.base).clamp(0, 1)


@middle.register
def _(dist: Independent) -> Tensor:  # type: ignore[type-arg]
    return middle(dist.base_dist)


@torch.no_grad()
def squared_error(drawn: Draw) -> Tensor:
    """The mean of (x - middle of p(x | z))^2 over all values that were seen: [], in squared units of x; 0 where nothing was."""
    each = (drawn.value - middle(drawn.prior)).square()
    if isinstance(drawn.seen, bool):
        return each.mean()
    rows = drawn.seen.dim() == 1
    mask = (drawn.seen[(...,) + (None,) * len(drawn.prior.event_shape)] if rows else drawn.seen).expand_as(each)
    return torch.where(mask, each, 0.0).sum() / mask.sum().clamp(min=1)


def best_scale(drawn: Draw) -> Tensor:
    """The root of the mean squared error, [], at least 1e-4, no gradient: the scale of a Gaussian that makes what was seen likeliest.

    On real numbers exactly; of bins nearly, where they are narrow and few values lie at the ends of the range.
    """
    return squared_error(drawn).sqrt().clamp(min=FLOOR)


class TrackedGaussian(nn.Module):
    """N(h, scale^2) with one stored scale: the root of a running mean of the squared error, which every training step moves on.

    Between steps the scale is a constant, so this is a density like any other; after training it is the one that was saved. Nats.
    The mean is plain over the first steps, then forgets as `memory`, a share in [0, 1); `site` names the variable whose likelihood this is.
    Rybkin et al. 2021 (sigma-VAE), section 3, where the scale is that of each batch: see `vaestro.objectives.optimal_scale`.
    """

    params = 1
    variance: Tensor
    steps: Tensor

    def __init__(self, event_dims: int = 1, initial: float = 1.0, memory: float = 0.9, site: str = "x") -> None:
        super().__init__()
        if not (math.isfinite(initial) and initial > 0):
            raise UsageError(f"a Gaussian cannot start from the scale {initial}; give a positive number")
        if not 0 <= memory < 1:
            raise UsageError(f"a running mean cannot have a memory of {memory}; give a share from 0 to below 1")
        self.event_dims, self.memory, self.site = event_dims, memory, site
        self.register_buffer("variance", torch.tensor(float(initial) ** 2))
        self.register_buffer("steps", torch.tensor(0.0))

    def forward(self, h: Tensor) -> Distribution:
        """The distribution whose means are `h` [..., C, ...]."""
        (loc,) = split(h, 1, self.event_dims)
        scale = self.variance.to(loc.dtype).sqrt().clamp(min=FLOOR).expand_as(loc)
        return Independent(Normal(loc, scale, validate_args=False), self.event_dims, validate_args=False)

    @torch.no_grad()
    def track(self, drawn: Draw) -> None:
        """Moves the running mean on by one step; an error that is not finite is left out."""
        now = squared_error(drawn)
        fine = now.isfinite()
        self.steps.add_(fine)
        weight = torch.where(fine, self.steps.reciprocal().clamp(min=1 - self.memory), 0.0)
        self.variance.lerp_(torch.where(fine, now, 0.0).to(self.variance.dtype), weight.to(self.variance.dtype))


@observe.register(TrackedGaussian)
def _(part: TrackedGaussian, trace: Trace) -> None:
    if part.site in trace and trace[part.site].seen is not False:
        part.track(trace[part.site])
