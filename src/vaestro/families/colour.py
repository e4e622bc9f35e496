"""Mixtures of logistics whose pixels are drawn colour by colour, each channel leaning on those before it."""

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, constraints

from vaestro.core import centre
from vaestro.data.schema import Shape
from vaestro.errors import UsageError
from vaestro.families.base import Repr, Sizes, outputs, positive, single
from vaestro.families.binned import BinnedDistribution
from vaestro.families.logistic import LogisticDistribution


class ColourMixtureDistribution(Distribution):
    """sum_k w_k prod_c P(x_c | m_kc, s_kc) at every pixel of a picture [C, H, W], with m_kc = loc_kc + sum_{d < c} a_kcd x_d; nats.

    `logits` [*batch, H, W, K]; `loc` and `scale` [*batch, C, H, W, K]; `lean` [*batch, C, C, H, W, K], of which a_kcd stands at [c, d], zero unless d < c.
    P is the mass of the bin of a logistic on `levels` levels in unit values, the tails in the end bins.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.independent(constraints.unit_interval, 3)

    def __init__(self, logits: Tensor, loc: Tensor, scale: Tensor, lean: Tensor, levels: int) -> None:
        self.logits, self.loc, self.scale, self.lean, self.levels = logits, loc, scale, lean, levels
        super().__init__(loc.shape[:-4], loc.shape[-4:-1], validate_args=False)

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "ColourMixtureDistribution":
        """The same distribution, repeated over `batch_shape`."""
        logits, loc, scale, lean = (t.expand(*batch_shape, *t.shape[-n:]) for t, n in ((self.logits, 3), (self.loc, 4), (self.scale, 4), (self.lean, 5)))
        return ColourMixtureDistribution(logits, loc, scale, lean, self.levels)

    def channel(self, c: int, before: Tensor) -> BinnedDistribution:
        """P(x_c | x_0, ..., x_{c-1}) of every component, where `before` [..., >= c, H, W] holds the values before it: batch [..., H, W, K]."""
        mean = self.loc[..., c, :, :, :]
        for d in range(c):
            mean = mean + self.lean[..., c, d, :, :, :] * before[..., d, :, :, None]
        return BinnedDistribution(LogisticDistribution(mean, self.scale[..., c, :, :, :]), self.levels)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass of whole pictures, in nats."""
        parts = sum(self.channel(c, value).log_prob(value[..., c, :, :, None]) for c in range(self.event_shape[0]))
        return torch.logsumexp(parts + self.logits.log_softmax(-1), -1).flatten(-2).sum(-1)

    def sample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Pictures: at every pixel one component, and then channel after channel; no gradient."""
        with torch.no_grad():
            wide = self.expand(self._extended_shape(torch.Size(sample_shape))[:-3])
            part = Categorical(logits=wide.logits, validate_args=False).sample()
            drawn = torch.zeros_like(wide.loc[..., 0])
            for c in range(self.event_shape[0]):
                each = wide.channel(c, drawn).sample()
                drawn[..., c, :, :] = each.gather(-1, part[..., None])[..., 0]
            return drawn

    @property
    def mean(self) -> Tensor:
        """An unbiased estimate of the mean, which no short form gives: E[x_c | component, channels before] along one drawn pixel of each component."""
        weights = self.logits.softmax(-1)
        before = torch.zeros_like(self.loc)
        means = []
        for c in range(self.event_shape[0]):
            one = self._of_each(c, before)
            before[..., c, :, :, :] = one.sample()
            means.append((one.mean * weights).sum(-1))
        return torch.stack(means, -3)

    def _of_each(self, c: int, before: Tensor) -> BinnedDistribution:
        """`channel` where every component has values of its own before it, [..., C, H, W, K]."""
        mean = self.loc[..., c, :, :, :] + (self.lean[..., c, :, :, :, :] * before).sum(-4)
        return BinnedDistribution(LogisticDistribution(mean, self.scale[..., c, :, :, :]), self.levels)


@centre.register
def _(dist: ColourMixtureDistribution) -> Tensor:
    """Each component's centre, channel after channel, averaged by weight: no draw, and not the mean where values are cut at black and white."""
    centres: list[Tensor] = []
    for c in range(dist.event_shape[0]):
        lean = sum((dist.lean[..., c, d, :, :, :] * centres[d] for d in range(c)), torch.zeros_like(dist.loc[..., c, :, :, :]))
        centres.append((dist.loc[..., c, :, :, :] + lean).clamp(0, 1))
    return (torch.stack(centres, -4) * dist.logits.softmax(-1).unsqueeze(-4)).sum(-1)


class ColourMixture(Repr):
    """A mixture of logistics for every pixel, whose channels share a component and lean on each other: `h` [..., K (1 + 2C + C(C-1)/2), H, W]; nats.

    The channels of `h` are K logits, K C locs, K C scales and K numbers for each pair of channels, of which tanh is a_kcd (Salimans et al. 2017,
    PixelCNN++, eq. 3, on unit values). Scores whole pixels: no channel can be integrated out. Raises UsageError for fewer than one component or two levels.
    """

    event_dims = 3

    def __init__(self, channels: int, levels: int, components: int = 5) -> None:
        if components < 1 or levels < 2 or channels < 1:
            raise UsageError(
                f"a mixture of {components} components on {channels} channels of {levels} levels is none; give one or more of each, and two levels or more"
            )
        self.channels, self.levels, self.components = channels, levels, components

    @property
    def params(self) -> int:
        """How many numbers a pixel needs, of all its channels together."""
        return self.components * (1 + 2 * self.channels + self.channels * (self.channels - 1) // 2)

    def __call__(self, h: Tensor) -> Distribution:
        """The distribution whose parameters are `h`; raises UsageError when its channels are not `params`."""
        if h.dim() < 3 or h.shape[-3] != self.params:
            raise UsageError(f"{self!r} needs {self.params} channels, and this input is shaped {tuple(h.shape)}")
        h = single(h)
        c, k = self.channels, self.components
        logits, loc, s, pairs = h.split([k, k * c, k * c, k * (c * (c - 1) // 2)], -3)
        loc, s, pairs = (t.unflatten(-3, (-1, k) if t.shape[-3] else (0, k)).movedim(-3, -1) for t in (loc, s, pairs))
        spread = torch.linspace(-1, 1, k + 2, dtype=h.dtype, device=h.device)[1:-1]  # equal components would stay equal for ever
        lean = loc.new_zeros(*loc.shape[:-4], c * c, *loc.shape[-3:])
        below = [row * c + column for row in range(c) for column in range(row)]
        lean = lean.index_copy(-4, torch.tensor(below, dtype=torch.int64, device=h.device), torch.tanh(pairs)).unflatten(-4, (c, c))
        return ColourMixtureDistribution(logits.movedim(-3, -1), loc + spread, positive(s), lean, self.levels)


@outputs.register
def _(family: ColourMixture, event: Shape) -> Shape:
    if len(event) != 3 or event[0] != family.channels:
        raise UsageError(f"{family!r} describes pictures of {family.channels} channels, not events shaped {event}; use logistic_mixture for those")
    return (family.params, *event[1:])
