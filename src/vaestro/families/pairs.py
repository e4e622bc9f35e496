"""Two diagonal Gaussians to one: how what the data say of a latent meets what is expected of it."""

from collections.abc import Callable
from typing import TypeAlias, cast

from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from vaestro.errors import UsageError

Relate: TypeAlias = Callable[[Distribution, Distribution], Distribution]  # (the prior given those above, what the data say) -> the posterior


def absolute(p: Distribution, q: Distribution) -> Distribution:
    """q itself: the data say all."""
    return q


def product(p: Distribution, q: Distribution) -> Distribution:
    """The normalised product of two diagonal Gaussians, their means weighted by their precisions (Soenderby et al. 2016, the merge of a ladder).

    1 / s^2 = 1 / s_p^2 + 1 / s_q^2 and m = s^2 (m_p / s_p^2 + m_q / s_q^2). Raises UsageError for other distributions.
    """
    (m_p, s_p), (m_q, s_q) = _numbers(p), _numbers(q)
    w = 1 / (1 + (s_q / s_p).square())  # the weight of q, in a form in which nothing overflows
    return _gaussian(m_p + w * (m_q - m_p), s_q * w.sqrt(), p)


def relative(p: Distribution, change: Distribution) -> Distribution:
    """N(m_p + dm, (s_p ds)^2) for p = N(m_p, s_p^2) and a change N(dm, ds^2): the residual normal (Vahdat & Kautz 2020, section 3.2).

    Its KL to p is (dm^2 / s_p^2 + ds^2 - ln ds^2 - 1) / 2 nats a latent. Raises UsageError for other distributions.
    """
    (m_p, s_p), (dm, ds) = _numbers(p), _numbers(change)
    return _gaussian(m_p + dm, s_p * ds, p)


def _numbers(dist: Distribution) -> tuple[Tensor, Tensor]:
    if not (isinstance(dist, Independent) and isinstance(dist.base_dist, Normal)):
        raise UsageError(f"only diagonal Gaussians can be merged, and this is {type(dist).__name__}; end the networks in the family Gaussian")
    return dist.base_dist.loc, dist.base_dist.scale


def _gaussian(loc: Tensor, scale: Tensor, like: Distribution) -> Distribution:
    return Independent(Normal(loc, scale, validate_args=False), cast(Independent, like).reinterpreted_batch_ndims, validate_args=False)  # type: ignore[type-arg]
