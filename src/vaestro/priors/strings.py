"""Learnt priors over grids of codes: p(z) = prod_i p(z_i | z_<i), row by row, with exact masses."""

import math
from collections.abc import Sequence
from typing import Annotated, TypeAlias

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.distributions import Distribution, constraints
from torch.nn import functional as F

from vaestro.data.schema import Shape
from vaestro.errors import UsageError
from vaestro.families.base import Sizes, single
from vaestro.networks.causal import MaskedCodes, MaskedLevels, StringNet, Transformer
from vaestro.priors.codes import UniformCodes, UniformLevels, UniformOneHot
from vaestro.priors.fitted import FITTED, Latents

Count: TypeAlias = Annotated[int, Ge(1)]
AT_ONCE = 1 << 22  # logits that are held at once where no gradient is taken


class Strings(Distribution):
    """Whole numbers from 0 to K - 1 on a grid, one after another: log p(z) = sum_i log softmax(net(z))_{i, z_i}, in nats; -inf for what is no code.

    `net` maps strings [n, m] to logits [n, m, K], those of place i from the places before it. Scoring is one pass, drawing one pass a place.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, net: nn.Module, shape: Shape, codes: int, lead: Sizes = ()) -> None:
        self.net, self.codes = net, codes
        super().__init__(torch.Size(lead), torch.Size(shape), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """Whole numbers from 0 to codes - 1."""
        return constraints.independent(constraints.integer_interval(0, self.codes - 1), len(self.event_shape))

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "Strings":
        """The same distribution, repeated over `batch_shape`."""
        return Strings(self.net, tuple(self.event_shape), self.codes, batch_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass of each string, in nats; repetitions, such as the draws of a point mass, are scored once."""
        lead = value.shape[: value.dim() - len(self.event_shape)]
        for axis, step in enumerate(value.stride()[: len(lead)]):
            value = value.narrow(axis, 0, 1) if step == 0 and value.shape[axis] else value
        strings = value.reshape(-1, self.event_shape.numel()).long()
        log_p = self._scored(strings).reshape(value.shape[: len(lead)])
        return log_p.expand(torch.broadcast_shapes(lead, self.batch_shape))

    def _scored(self, strings: Tensor) -> Tensor:
        pieces = (strings,) if torch.is_grad_enabled() else strings.split(max(1, AT_ONCE // (self.codes * max(1, strings.shape[1]))))
        return torch.cat([self._score(s) for s in pieces]) if len(strings) else self._score(strings)

    def _score(self, strings: Tensor) -> Tensor:
        legal = ((strings >= 0) & (strings < self.codes)).all(1)
        known = strings.clamp(0, self.codes - 1)
        each = self._logs(known).gather(-1, known.unsqueeze(-1)).squeeze(-1)
        return torch.where(legal, each.sum(1), -torch.inf)

    def _logs(self, strings: Tensor) -> Tensor:
        logits: Tensor = self.net(strings)
        return single(logits).log_softmax(-1)

    @torch.no_grad()
    def sample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Strings, drawn place by place; no gradient."""
        shape = self._extended_shape(torch.Size(sample_shape))
        places = self.event_shape.numel()
        strings = torch.zeros(shape[: len(shape) - len(self.event_shape)].numel(), places, dtype=torch.long, device=next(self.net.parameters()).device)
        for i in range(places):
            strings[:, i] = torch.multinomial(self._logs(strings[:, : i + 1])[:, i].exp(), 1)[:, 0]
        return strings.reshape(shape)


class OneHotStrings(Distribution):
    """`strings` with every code as a one-hot vector: events [*grid, K]; nats."""

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, strings: Strings) -> None:
        self.strings = strings
        super().__init__(strings.batch_shape, torch.Size((*strings.event_shape, strings.codes)), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """One-hot vectors on a grid."""
        return constraints.independent(constraints.one_hot, len(self.event_shape) - 1)

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "OneHotStrings":
        """The same distribution, repeated over `batch_shape`."""
        return OneHotStrings(self.strings.expand(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass of each string, in nats."""
        return self.strings.log_prob(value.argmax(-1))

    def sample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Strings of one-hot vectors; no gradient."""
        return F.one_hot(self.strings.sample(sample_shape), self.strings.codes).to(next(self.strings.net.parameters()).dtype)


class CodePrior(nn.Module):
    """A learnt prior over strings of `codes` codes on `grid`, one after another: the second stage of van den Oord et al. 2017, section 3.3; nats."""

    def __init__(self, net: nn.Module, grid: Shape, codes: int) -> None:
        super().__init__()
        self.net, self.shape, self.codes = net, tuple(grid), codes

    def forward(self) -> Distribution:
        """The distribution, of batch shape ()."""
        return Strings(self.net, self.shape, self.codes)


class LevelPrior(CodePrior):
    """The same over codes on several `grids`, one grid after the other; events [n]."""

    def __init__(self, net: nn.Module, grids: Sequence[Shape], codes: int) -> None:
        super().__init__(net, (sum(map(math.prod, grids)),), codes)
        self.grids = tuple(grids)


class OneHotCodePrior(CodePrior):
    """The same over one-hot vectors [*grid, codes]."""

    def forward(self) -> Distribution:
        """The distribution, of batch shape ()."""
        return OneHotStrings(Strings(self.net, self.shape, self.codes))


def learnt(prior: nn.Module, build: StringNet) -> CodePrior:
    """A learnt prior in the place of a uniform one, over the same codes; raises UsageError where the latents are no codes."""
    if isinstance(prior, UniformOneHot):
        return OneHotCodePrior(build((prior.shape,), prior.codes), prior.shape, prior.codes)
    if isinstance(prior, UniformLevels | LevelPrior):
        return LevelPrior(build(prior.grids, prior.codes), prior.grids, prior.codes)
    if isinstance(prior, UniformCodes | CodePrior):
        kind = type(prior) if isinstance(prior, CodePrior) else CodePrior
        return kind(build((prior.shape,), prior.codes), prior.shape, prior.codes)
    raise UsageError(f"a prior over codes cannot follow {type(prior).__name__}, whose latents are no codes; use a model with codes, such as vq_vae or dvae")


@FITTED.register
def transformer_codes(latents: Latents, width: Count = 64, layers: Count = 2, heads: Count = 4) -> CodePrior:
    """A causal transformer over the codes of a quantiser or of one-hot latents, one after another."""
    return learnt(latents.old, lambda grids, codes: Transformer(sum(map(math.prod, grids)), codes, width, layers, heads))


@FITTED.register
def masked_codes(latents: Latents, width: Count = 64, layers: Count = 4, kernel: Count = 5) -> CodePrior:
    """A gated PixelCNN over the grid of codes of a quantiser or of one-hot latents; over each of several grids, told those before it."""

    def build(grids: Sequence[Shape], codes: int) -> nn.Module:
        return MaskedCodes(grids[0], codes, width, layers, kernel) if len(grids) == 1 else MaskedLevels(grids, codes, (width, layers, kernel))

    return learnt(latents.old, build)
