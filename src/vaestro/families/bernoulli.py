"""The Bernoulli family of binary values."""

import torch
from torch import Tensor
from torch.distributions import Bernoulli as BernoulliDistribution
from torch.distributions import Distribution, Independent, register_kl
from torch.nn import functional as F

from vaestro.families.base import Repr, split


class Bernoulli(Repr):
    """x in {0, 1} with logits `h` [..., C, ...]: log p = x h - softplus(h), in nats."""

    params = 1

    def __init__(self, event_dims: int = 1) -> None:
        self.event_dims = event_dims

    def __call__(self, h: Tensor) -> Distribution:
        """The distribution whose parameters are `h`, with events of `event_dims` axes; raises UsageError when the channels do not divide."""
        (logits,) = split(h, 1, self.event_dims)
        return Bernoullis(Bit(logits=logits, validate_args=False), self.event_dims, validate_args=False)


class Bit(BernoulliDistribution):
    """torch's Bernoulli, with a KL that broadcasts and stays finite where a probability rounds to 0 or 1."""


@register_kl(Bit, Bit)  # type: ignore[untyped-decorator]
def _kl(p: Bit, q: Bit) -> Tensor:
    on = p.probs * (F.softplus(-q.logits) - F.softplus(-p.logits))
    return on + torch.sigmoid(-p.logits) * (F.softplus(q.logits) - F.softplus(p.logits))


class Bernoullis(Independent[BernoulliDistribution]):
    """Independent Bernoullis whose joint log mass is taken in as few passes as possible, for it is the hot path of most likelihoods."""

    def log_prob(self, value: Tensor) -> Tensor:
        """log p of the whole event, in nats; `value` [*event] may lack leading axes of the logits."""
        logits, value = torch.broadcast_tensors(self.base_dist.logits, value)
        each = F.binary_cross_entropy_with_logits(logits, value.to(logits.dtype), reduction="none")  # a third faster than softplus, forward and back
        return -each.flatten(-self.reinterpreted_batch_ndims).sum(-1) if self.reinterpreted_batch_ndims else -each
