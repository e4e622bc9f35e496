"""One-hot codes that are drawn: hard ones, and what stands in for them in training so that a gradient passes."""

import math
from collections.abc import Callable
from functools import singledispatch
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, OneHotCategorical, register_kl

from vaestro import core
from vaestro.codes.base import straight_through, usage
from vaestro.errors import UsageError
from vaestro.families.base import Sizes, single

MOST = 4096  # strings that are enumerated


def noisy(logits: Tensor, shape: torch.Size) -> Tensor:
    """The logits of `shape` [..., K] and standard Gumbel noise, whose largest is an exact draw (Gumbel 1954; Maddison et al. 2014)."""
    wide = logits.expand(shape)
    return wide - torch.empty(shape, dtype=logits.dtype, device=logits.device).exponential_().clamp(min=torch.finfo(logits.dtype).tiny).log()


def peak(numbers: Tensor) -> Tensor:
    """The one-hot vector of the largest number: [..., K] to the same."""
    return torch.zeros_like(numbers).scatter_(-1, numbers.argmax(-1, keepdim=True), 1.0)


class Hard(OneHotCategorical):
    """One-hot vectors [..., K] with logits [..., K]: log p = logit - logsumexp(logits), in nats."""

    def __init__(self, logits: Tensor) -> None:
        self._categorical = Categorical(logits=logits, validate_args=False)  # torch's own class would validate, and a step would wait for it
        Distribution.__init__(self, logits.shape[:-1], logits.shape[-1:], validate_args=False)

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "Hard":
        """The same distribution, repeated over `batch_shape`."""
        return type(self)(self.logits.expand(*batch_shape, self.logits.shape[-1]))

    def log_prob(self, value: Tensor) -> Tensor:
        """The log mass of one-hot values; of relaxed ones its linear extension sum_k y_k log p_k, which is no density."""
        return (value * self.logits).sum(-1)  # the logits of torch's categorical are normalised

    @torch.no_grad()
    def sample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """One-hot vectors: the place of the largest of the logits and Gumbel noise; no gradient."""
        return peak(noisy(self.logits, self._extended_shape(torch.Size(sample_shape))))


@register_kl(Hard, Hard)  # type: ignore[untyped-decorator]
def _kl(q: Hard, p: Hard) -> Tensor:
    """sum_k q_k (log q_k - log p_k): exact, and finite where a probability has underflown to 0."""
    return (q.probs * (q.logits - p.logits)).sum(-1)


@usage.register
def _(dist: OneHotCategorical) -> Tensor:
    counts: Tensor = dist.probs.detach().reshape(-1, dist.event_shape[0]).sum(0, keepdim=True)
    return counts


def hard(logits: Tensor, temperature: Tensor) -> Hard:
    """Hard codes in training too, for estimators that need no gradient through a draw."""
    return Hard(logits)


class Relaxing(Hard):
    """What stands in for `Hard` in training: its draws differentiate, and are not one-hot or not honest draws; so `normalised` is False."""

    has_rsample = True

    def __init__(self, logits: Tensor, temperature: Tensor) -> None:
        self.temperature = temperature
        super().__init__(logits)

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "Relaxing":
        """The same distribution, repeated over `batch_shape`."""
        return type(self)(self.logits.expand(*batch_shape, self.logits.shape[-1]), self.temperature)


@core.normalised.register
def _(dist: Relaxing) -> bool:
    return False


class Relaxed(Relaxing):
    """y = softmax((logits + Gumbel noise) / temperature): the Gumbel-softmax (Jang et al. 2017, eq. 2; Maddison et al. 2017); its argmax is an exact draw."""

    def rsample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Points of the simplex, with a gradient."""
        return (noisy(self.logits, self._extended_shape(torch.Size(sample_shape))) / self.temperature).softmax(-1)


class StraightThrough(Relaxed):
    """An exact one-hot draw with the gradient of the relaxed one (Jang et al. 2017, section 2.2): biased, as the relaxed one is for the hard model."""

    def rsample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """One-hot vectors, with a gradient."""
        soft = super().rsample(sample_shape)
        return straight_through(peak(soft), soft)


Law: TypeAlias = Callable[[Tensor, Tensor], Hard]  # of logits and a temperature


class OneHotCodes(nn.Module):
    """A family of one-hot codes, one a place: `h` [*lead, K, *grid] are logits, the events [*grid, K]; nats.

    In training draws are those of `law`, at the temperature that `cool` sets; at evaluation they are hard, so that every number reported is exact.
    Raises UsageError for fewer than two codes.
    """

    temperature: Tensor

    def __init__(self, codes: int, axes: int, law: Law = Relaxed) -> None:
        super().__init__()
        if codes < 2:
            raise UsageError(f"a categorical code cannot have {codes} values; give two or more")
        self.params, self.axes, self.event_dims, self.law = codes, axes, axes + 1, law
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, h: Tensor) -> Distribution:
        """The distribution whose logits are `h`; raises UsageError when there are not as many as codes."""
        logits = single(h).movedim(-1 - self.axes, -1)
        if logits.shape[-1] != self.params:
            raise UsageError(f"a family of {self.params} codes cannot read {logits.shape[-1]} logits a place")
        base = self.law(logits, self.temperature) if self.training else Hard(logits)
        return Independent(base, self.axes, validate_args=False)


def cool(parts: nn.Module, temperature: float) -> None:
    """Set the temperature of every family of one-hot codes in `parts`."""
    for part in parts.modules():
        if isinstance(part, OneHotCodes):
            part.temperature.fill_(temperature)


@singledispatch
def strings(dist: Distribution) -> Tensor:
    """Every value that a distribution can take, [values, *event]. Open; raises UsageError for what has not finitely many, or more than 4,096."""
    raise UsageError(f"the values of {type(dist).__name__} cannot be enumerated; use one-hot codes, or an estimator that draws")


@strings.register
def _(dist: Independent) -> Tensor:  # type: ignore[type-arg]
    if not isinstance(dist.base_dist, OneHotCategorical):
        raise UsageError(f"the values of {type(dist.base_dist).__name__} cannot be enumerated; use one-hot codes, or an estimator that draws")
    *grid, codes = dist.event_shape
    places = math.prod(grid)
    if codes**places > MOST:
        raise UsageError(f"{places} codes of {codes} values have {codes**places} strings; enumerate {MOST} at most, or use an estimator that draws")
    like = dist.base_dist.logits
    digits = torch.arange(codes**places, device=like.device).unsqueeze(1) // codes ** torch.arange(places, device=like.device) % codes
    return (digits.unsqueeze(-1) == torch.arange(codes, device=like.device)).to(like.dtype).reshape(-1, *grid, codes)


class Reading(nn.Module):
    """One-hot codes as a network reads them: [n, *grid, K] to `net` of [n, K, *grid], times sqrt(K), so that a number has the mean square 1."""

    def __init__(self, net: nn.Module, codes: int) -> None:
        super().__init__()
        self.net, self.gain, self.event_dims = net, math.sqrt(codes), net.event_dims

    def forward(self, z: Tensor) -> Tensor:
        """[n, *grid, K] to [n, *outputs]."""
        rows: Tensor = self.net(z.movedim(-1, 1) * self.gain)
        return rows
