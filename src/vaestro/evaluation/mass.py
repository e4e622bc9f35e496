"""What exp(log_prob) really sums to, found without trusting it: by enumeration, by quadrature, or by weighing the law's own draws."""

import math
from collections.abc import Sequence
from functools import singledispatch
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, OneHotCategorical

from vaestro.core import draw
from vaestro.data.schema import Column
from vaestro.errors import UsageError
from vaestro.families.base import FLOOR, is_discrete, unpositive
from vaestro.families.columns import CountedGroup, MeasuredGroup, groups_of, normal
from vaestro.families.counts import NegativeBinomialDistribution
from vaestro.families.fields import FieldsDistribution
from vaestro.models.classical import CodeLength

DRAWS, NUMBERS, PAIRS = 2000, 8_000_000, 200_000_000  # of a law; of all laws together; of draws that are compared with each other
POINTS, REACH = 1601, 12.0  # of a quadrature over c + s sinh(t), |t| up to REACH
DENSE = 48  # numbers whose covariance is estimated whole
LITTLE = 1e-6  # of a count's mean, and of what its variance has beyond a Poisson's
LEAST = 0.05  # share of the weights that must be effective for a row to tell anything


class Mass(NamedTuple):
    """ln of what the law of each row sums to, [rows], 0 for an honest one, and its standard error."""

    log: Tensor
    error: Tensor


@singledispatch
def verified(dist: Distribution) -> bool:
    """Whether every value that `log_prob` gives was proven when it was made, as the length of a file that was decoded. Open."""
    return False


@verified.register
def _(dist: CodeLength) -> bool:
    return type(dist) is CodeLength and dist.coder.encode.__module__ == CodeLength.__module__  # another coder may keep the row elsewhere than in its file


def summed(dist: Independent, levels: int) -> Tensor:  # type: ignore[type-arg]
    """ln of the product over an event's numbers of what each sums to, [*batch], by enumeration of its levels or classes, else by quadrature."""
    base, axes = dist.base_dist, dist.reinterpreted_batch_ndims
    if isinstance(base, OneHotCategorical):
        values = torch.eye(base.event_shape[0], dtype=base.logits.dtype, device=base.logits.device)
        each = torch.stack([base.log_prob(v.expand(*base.batch_shape, -1)).double() for v in values]).logsumexp(0)
    elif levels:
        like = draw(base, ())[0]
        each = torch.stack([base.log_prob(torch.full_like(like, v / (levels - 1))).double() for v in range(levels)]).logsumexp(0)
    else:
        each = _quadrature(base)
    return each.flatten(each.dim() - axes).sum(-1) if axes else each


def _quadrature(base: Distribution) -> Tensor:
    """ln of the integral of exp(log_prob) over real numbers, [*batch]: the trapezium rule in t, where a number is c + s sinh(t)."""
    some = draw(base, (64,))[0].double()
    centre, spread = some.median(0).values, (some.quantile(0.75, 0) - some.quantile(0.25, 0)).clamp(min=1e-12)
    t = torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64, device=some.device)
    logs = [base.log_prob((centre + spread * math.sinh(u)).to(some.dtype)).double() + math.log(math.cosh(u)) for u in t.tolist()]
    return torch.stack(logs).logsumexp(0) + spread.log() + math.log(2 * REACH / (POINTS - 1))


def apart(dist: Independent, value: Tensor) -> Tensor:  # type: ignore[type-arg]
    """How much log_prob of the whole exceeds the sum of its numbers' own, at values [*lead, *event]: 0 for an honest law."""
    each = dist.base_dist.log_prob(value)
    whole: Tensor = dist.log_prob(value)
    parts: Tensor = each.double().flatten(each.dim() - dist.reinterpreted_batch_ndims).sum(-1)
    return whole.double() - parts


def weighed(dist: Distribution, levels: int = 0) -> Mass:
    """ln of 1 / E[r(z) / q(z)] over draws z of each law of batch [rows]: 0 where the draws follow exp(log_prob), and that is a law.

    r is a law of known total that resembles the draws: Gaussian, or for discrete draws their frequencies, made from one half of them; the other half is
    weighed. A q that is c times the law of its draws gives ln c; draws narrower than their log_prob says give less than 0. Independent numbers are
    weighed one by one; `levels` says that
    values are counted where the law does not. Raises UsageError where fewer than half of the rows' weights tell anything.
    """
    rows, size = dist.batch_shape.numel() or 1, dist.event_shape.numel()
    discrete = levels > 0 or is_discrete(dist) or (isinstance(dist, Independent) and isinstance(dist.base_dist, OneHotCategorical))
    count = max(64, min(DRAWS, NUMBERS // (rows * size), int(2 * math.sqrt(PAIRS / (rows * size))) if discrete else DRAWS)) // 2 * 2
    z, log_q = draw(dist, (count,))
    own = apart(dist, z).reshape(count, rows).mean(0) if isinstance(dist, Independent) else torch.zeros(rows, dtype=torch.float64)
    if isinstance(dist, Independent):
        if isinstance(dist.base_dist, OneHotCategorical):
            z, log_q = z.argmax(-1), dist.base_dist.log_prob(z)
        else:
            log_q = dist.base_dist.log_prob(z)
        z, log_q = z.reshape(count, rows, -1, 1).double(), log_q.reshape(count, rows, -1).double()
    else:
        z, log_q = z.reshape(count, rows, 1, -1).double(), log_q.reshape(count, rows, 1).double()
    half = count // 2
    log_r = (_frequencies if discrete else _moments)(z[:half], z[half:])
    return _of_weights(log_r - log_q[half:], own.to(log_q), type(dist).__name__)


def of_columns(dist: Distribution, columns: Sequence[Column]) -> Mass:
    """`weighed` of rows of a table, whose densities are those of the values in their own units, and whose columns are measured, counted or named.

    r is a product over the columns: the Gaussian of the moments of what is held, told as the column's own kind tells a density or the mass of a step, for
    counts the negative binomial of their moments, for classes their frequencies. Laws that score each column are weighed column by column, others whole.
    Raises as `weighed` does.
    """
    rows, size = dist.batch_shape.numel() or 1, len(columns)
    count = max(64, min(DRAWS, NUMBERS // (rows * size))) // 2 * 2
    z, log_q = draw(dist, (count,))
    each = dist.log_prob_by_column(z) if isinstance(dist, FieldsDistribution) else log_q.unsqueeze(-1)
    z, whole, each = z.reshape(count, rows, size).double(), log_q.reshape(count, rows).double(), each.reshape(count, rows, -1).double()
    half = count // 2
    log_r = _like_columns(z[:half], z[half:], columns)
    log_r = log_r if each.shape[-1] == size else log_r.sum(-1, keepdim=True)
    return _of_weights(log_r - each[half:], (whole - each.sum(-1)).mean(0), type(dist).__name__)


def _like_columns(known: Tensor, asked: Tensor, columns: Sequence[Column]) -> Tensor:
    """log of a law with the moments, or of classes the frequencies, of every column of `known` [m, rows, columns], at `asked`, [n, rows, columns]."""
    found = torch.zeros_like(asked)
    for group in groups_of(columns, normal):
        a, b = known[..., group.at], asked[..., group.at]
        if isinstance(group, MeasuredGroup):
            found[..., group.at] = group.each(torch.cat([a.mean(0), unpositive(a.std(0).clamp(min=2 * FLOOR))], -1), b)
        elif isinstance(group, CountedGroup):
            mean = a.mean(0).clamp(min=LITTLE)
            found[..., group.at] = NegativeBinomialDistribution(mean.log(), (mean.square() / (a.var(0) - mean).clamp(min=LITTLE)).log()).log_prob(b)
        else:
            found[..., group.at] = _frequencies(a.unsqueeze(-1), b.unsqueeze(-1))
    return found


def _of_weights(log_w: Tensor, own: Tensor, name: str) -> Mass:
    """From the logs of weights [draws, rows, parts], whose parts multiply, and what the whole has beside its parts."""
    n = len(log_w)
    first, second = log_w.logsumexp(0), (2 * log_w).logsumexp(0)
    effective = (2 * first - second).exp().nan_to_num(0.0) / n
    told = effective.amin(-1) >= LEAST
    if int(told.sum()) * 2 < len(told):
        raise UsageError(f"a {name} is too far from what resembles its draws for {n} of them to tell whether it is a law; what it claims stays unproven")
    variance = ((1 / effective - 1).clamp(min=0) / n).sum(-1)
    return Mass((math.log(n) - first).sum(-1)[told] + own[told], variance.sqrt()[told])


def _moments(known: Tensor, asked: Tensor) -> Tensor:
    """log of a Gaussian with the moments of `known` [m, rows, parts, D], at `asked`, [n, rows, parts]: with its whole covariance up to 48 numbers."""
    centre, scale = known.mean(0), known.std(0).clamp(min=1e-30)
    u, v = (known - centre) / scale, (asked - centre) / scale
    d = known.shape[-1]
    if d == 1 or d > DENSE:
        law: Distribution = Independent(torch.distributions.Normal(torch.zeros_like(centre), 1.0, validate_args=False), 1, validate_args=False)
    else:
        cov = torch.einsum("mrpi,mrpj->rpij", u, u) / (len(u) - 1)
        law = torch.distributions.MultivariateNormal(torch.zeros_like(centre), cov + 1e-9 * torch.eye(d, dtype=cov.dtype), validate_args=False)
    return law.log_prob(v) - scale.log().sum(-1)


def _frequencies(known: Tensor, asked: Tensor) -> Tensor:
    """log of the product over D of how often each value of `asked` is among `known`, [n, rows, parts]."""
    return torch.stack([(known == one).double().mean(0).log().sum(-1) for one in asked])
