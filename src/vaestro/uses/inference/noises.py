"""Noises that are known: what they make of rows, and what a model's p(x | z) says of rows that they spoilt."""

import math
from collections.abc import Callable
from functools import singledispatch
from itertools import pairwise
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent, Normal

from vaestro.errors import UsageError
from vaestro.families.base import is_discrete
from vaestro.families.binned import BinnedDistribution
from vaestro.families.interval import log_interval
from vaestro.families.normal import log_ndtr
from vaestro.registry import Registry


class Heard(NamedTuple):
    """Of a spoilt row and p(x | z): log p(spoilt | z) and E[x | spoilt, z], number by number or summed over the row."""

    log_p: Tensor
    clean: Tensor


@runtime_checkable
class Noise(Protocol):
    """Independent noise of each number of a row, in unit values."""

    def spoil(self, x: Tensor) -> Tensor:
        """Rows with the noise upon them, drawn anew at each call."""

    def through(self, law: Distribution, noisy: Tensor) -> Heard:
        """What p(x | z), a law of single numbers, says of the noisy ones; nats of each number."""


Make: TypeAlias = Callable[[float], Noise]
CORRUPTIONS: Registry[Make] = Registry("noise")
FEWEST = 33  # groups of levels over which a sum runs


@singledispatch
def blurred(law: Distribution, noisy: Tensor, scale: float) -> Heard:
    """log p(noisy | z) and E[x | noisy, z] under noisy = x + scale e, e ~ N(0, 1). Open.

    Exact for Gaussians and bits; levels are summed, those of a Gaussian in closed form (taken as finely spaced), others in 33 groups or more. Other laws are
    taken as Gaussians of the same mean and variance.
    """
    return blurred(Normal(law.mean, law.variance.clamp(min=1e-12).sqrt(), validate_args=False), noisy, scale)


@blurred.register
def _(law: Normal, noisy: Tensor, scale: float) -> Heard:
    whole = law.variance + scale**2
    return Heard(Normal(law.loc, whole.sqrt(), validate_args=False).log_prob(noisy), law.loc + law.variance / whole * (noisy - law.loc))


@blurred.register
def _(law: BinnedDistribution, noisy: Tensor, scale: float) -> Heard:
    if isinstance(law.base, Normal) and law.levels > 2:
        return _rounded(law.base, 0.5 / (law.levels - 1), noisy, scale)
    top = law.levels - 1
    groups = min(top - 1, max(FEWEST, math.ceil(4 / scale)))  # between the ends, which are masses of their own
    edges = [(0.5 + i * (top - 1) / max(groups, 1)) / top for i in range(groups + 1)]
    below = [torch.zeros_like(law.base.mean), *(law.base.cdf(law.base.mean.new_full((), e)) for e in edges), torch.ones_like(law.base.mean)]
    middles = noisy.new_tensor([0.0, *((a + b) / 2 for a, b in pairwise(edges)), 1.0])
    each = [(high - low).clamp(min=1e-30).log() + Normal(m, scale).log_prob(noisy) for low, high, m in zip(below[:-1], below[1:], middles, strict=True)]
    joint = torch.stack(each)
    log_p = joint.logsumexp(0)
    return Heard(log_p, torch.einsum("l,l...->...", middles, (joint - log_p).exp()))


def _rounded(base: Normal, half: float, noisy: Tensor, scale: float) -> Heard:
    """A Gaussian whose ends beyond `half` a level are masses on 0 and 1, in Gaussian noise: two masses and a truncated Gaussian, in closed form."""
    noise = [Normal(noisy.new_full((), v), scale).log_prob(noisy) for v in (0.0, 1.0)]
    whole = base.variance + scale**2
    inside = Normal(base.loc + base.variance / whole * (noisy - base.loc), scale * base.scale / whole.sqrt(), validate_args=False)
    low, high = (torch.full_like(inside.loc, v) for v in (half, 1 - half))
    log_inside = log_interval(inside, low, high)
    ends = [log_ndtr((half - base.loc) / base.scale), log_ndtr((base.loc - 1 + half) / base.scale)]
    parts = torch.stack([ends[0] + noise[0], Normal(base.loc, whole.sqrt()).log_prob(noisy) + log_inside, ends[1] + noise[1]])
    log_p = parts.logsumexp(0)
    share = (parts - log_p).exp()
    bend = ((inside.log_prob(low) - log_inside).exp() - (inside.log_prob(high) - log_inside).exp()) * inside.variance
    return Heard(log_p, share[1] * (inside.loc + bend).nan_to_num().clamp(0, 1) + share[2])


@blurred.register
def _(law: Bernoulli, noisy: Tensor, scale: float) -> Heard:
    tilt = (noisy - 0.5) / scale**2  # log N(noisy; 1) - log N(noisy; 0)
    logits = law.logits + tilt
    zero = -noisy.square() / (2 * scale**2) - math.log(scale) - math.log(2 * math.pi) / 2
    soft = torch.nn.functional.softplus
    return Heard(zero + soft(logits) - soft(law.logits), logits.sigmoid())


class GaussianNoise:
    """noisy = x + `scale` e, e ~ N(0, 1), in unit values. Raises UsageError unless the scale is a positive number."""

    def __init__(self, scale: float) -> None:
        if not (math.isfinite(scale) and scale > 0):
            raise UsageError(f"the noise gaussian cannot have the scale {scale}; give a positive number, such as gaussian=0.3")
        self.scale = scale

    def spoil(self, x: Tensor) -> Tensor:
        """x + scale e."""
        return x + self.scale * torch.randn_like(x)

    def through(self, law: Distribution, noisy: Tensor) -> Heard:
        """See `blurred`."""
        return blurred(law, noisy, self.scale)


class Replacing:
    """With chance `share` a number is replaced by one of `values`, each as likely. Raises UsageError unless the share is between 0 and 1."""

    def __init__(self, values: tuple[float, ...], share: float) -> None:
        if not 0 < share < 1:
            raise UsageError(f"a noise that replaces a share {share} of the numbers is none that can be undone; give a share between 0 and 1")
        self.values, self.share = values, share

    def spoil(self, x: Tensor) -> Tensor:
        """Each number kept, or replaced."""
        made = torch.tensor(self.values, dtype=x.dtype, device=x.device)[torch.randint(len(self.values), x.shape, device=x.device)]
        return torch.where(torch.rand_like(x) < self.share, made, x)

    def through(self, law: Distribution, noisy: Tensor) -> Heard:
        """p(noisy | z) = (1 - share) p(noisy | z) + share / values where it is one of these; under a density such a number has surely been replaced."""
        kept = math.log1p(-self.share) + law.log_prob(noisy)
        put = torch.stack([noisy == v for v in self.values]).any(0)
        new = torch.full_like(kept, math.log(self.share / len(self.values)))
        if not (isinstance(law, BinnedDistribution) or is_discrete(law)):
            kept = torch.where(put, -math.inf, kept)
        both = torch.where(put, torch.logaddexp(kept.nan_to_num(neginf=-1e30), new), kept)
        share = torch.where(put, (kept - both).exp(), 1.0)
        return Heard(both, share * noisy + (1 - share) * law.mean)


@CORRUPTIONS.register
def gaussian(scale: float) -> Noise:
    """noisy = x + `scale` e, e ~ N(0, 1), in unit values."""
    return GaussianNoise(scale)


@CORRUPTIONS.register
def salt_and_pepper(share: float) -> Noise:
    """A share of the numbers became the least or the largest, 0 or 1, by a fair coin."""
    return Replacing((0.0, 1.0), share)


@CORRUPTIONS.register
def masking(share: float) -> Noise:
    """A share of the numbers became 0, and nobody says which; where that is known, `complete` is the better way."""
    return Replacing((0.0,), share)


def noise_of(text: str) -> Noise:
    """The noise that a text such as `gaussian=0.3` means; raises UsageError for an unknown name or a strength that is no number."""
    name, _, strength = text.partition("=")
    make = CORRUPTIONS[name.strip()]
    try:
        return make(float(strength))
    except ValueError:
        raise UsageError(f"{text!r} says no strength of the noise; write for example {name.strip()}=0.3") from None


def heard(said: Distribution, noise: Noise, noisy: Tensor) -> Heard:
    """log p(noisy | z) of whole rows, [*lead], and E[x | noisy, z], [*lead, *event].

    Raises UsageError for a law whose numbers are not independent given z.
    """
    if not isinstance(said, Independent):
        raise UsageError(f"the likelihood {type(said).__name__} does not draw numbers independently, so no noise can be told from it; use a recipe such as vae")
    each = noise.through(said.base_dist, noisy)
    return Heard(each.log_p.flatten(-said.reinterpreted_batch_ndims).sum(-1), each.clean)
