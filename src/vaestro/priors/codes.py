"""Priors over grids of codes: uniform ones, which every quantiser starts with."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, constraints

from vaestro.codes import Hard
from vaestro.data.schema import Shape
from vaestro.errors import UsageError
from vaestro.families.base import Sizes


class UniformCodesDistribution(Distribution):
    """Whole numbers from 0 to K - 1 on a grid of n places, all strings alike: log p = -n log K nats, -inf for what is no code.

    `like` has the dtype and device.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, shape: Shape, codes: int, like: Tensor, lead: Sizes = ()) -> None:
        self.codes, self.like = codes, like
        super().__init__(torch.Size(lead), torch.Size(shape), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """Whole numbers from 0 to codes - 1."""
        return constraints.independent(constraints.integer_interval(0, self.codes - 1), len(self.event_shape))

    @property
    def nats(self) -> float:
        """What a string costs: n log K."""
        return self.event_shape.numel() * math.log(self.codes)

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "UniformCodesDistribution":
        """The same distribution, repeated over `batch_shape`."""
        return UniformCodesDistribution(tuple(self.event_shape), self.codes, self.like, batch_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """-n log K of each string of codes, in nats."""
        legal = ((value >= 0) & (value < self.codes)).flatten(value.dim() - len(self.event_shape)).all(-1)
        lead = torch.broadcast_shapes(legal.shape, self.batch_shape)
        return torch.where(legal, -self.nats, -torch.inf).to(self.like.dtype).expand(lead)

    def sample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Strings of codes."""
        return torch.randint(self.codes, self._extended_shape(torch.Size(sample_shape)), device=self.like.device)

    def entropy(self) -> Tensor:
        """n log K."""
        return torch.full(self.batch_shape, self.nats, dtype=self.like.dtype, device=self.like.device)


class UniformCodes(nn.Module):
    """All strings of `codes` codes on a grid shaped `shape` alike: log p(z) = -n log K nats (van den Oord et al. 2017, section 3.1).

    Raises UsageError for fewer than two codes.
    """

    like: Tensor

    def __init__(self, shape: Shape, codes: int) -> None:
        super().__init__()
        if codes < 2:
            raise UsageError(f"a prior over {codes} codes says nothing; give two or more")
        self.shape, self.codes = tuple(shape), codes
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def forward(self) -> Distribution:
        """The distribution, of batch shape ()."""
        return UniformCodesDistribution(self.shape, self.codes, self.like)


class UniformLevels(UniformCodes):
    """All strings of codes on several `grids` alike, one grid after the other: events [n], and log p(z) = -n log K nats for n places in all."""

    def __init__(self, grids: Sequence[Shape], codes: int) -> None:
        super().__init__((sum(map(math.prod, grids)),), codes)
        self.grids = tuple(grids)


class UniformOneHot(nn.Module):
    """One of `codes` one-hot vectors at each place of `grid`, all alike: log p(z) = -n log K nats, events [*grid, codes].

    Raises UsageError for fewer than two codes.
    """

    logits: Tensor

    def __init__(self, grid: Shape, codes: int) -> None:
        super().__init__()
        if codes < 2:
            raise UsageError(f"a prior over {codes} codes says nothing; give two or more")
        self.shape, self.codes = tuple(grid), codes
        self.register_buffer("logits", torch.zeros(*grid, codes), persistent=False)

    def forward(self) -> Distribution:
        """The distribution, of batch shape ()."""
        return Independent(Hard(self.logits), len(self.shape), validate_args=False)
