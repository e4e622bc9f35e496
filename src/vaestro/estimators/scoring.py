"""What a run says of rows, so that a row's number depends on that row alone: blocks of one shape, and the same noise for every row."""

import math
from collections.abc import Callable, Mapping
from functools import singledispatch

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from vaestro.core import Choose, Draw, Shape, Site, Trace, Value, centre, take
from vaestro.errors import UsageError
from vaestro.evaluation.likelihood import importance
from vaestro.evaluation.scope import device_of, evaluating
from vaestro.models.base import memberships
from vaestro.priors import responsibilities
from vaestro.progress import tell
from vaestro.seeds import forked, mix
from vaestro.training.monitor import posterior_means
from vaestro.training.runs import Run, title
from vaestro.training.stages import require_slot
from vaestro.uses.classify import classify
from vaestro.uses.reconstruct import embed

BLOCK = 64  # rows that are computed at once: matrix products of one shape are rounded alike
AT_ONCE = 800_000  # numbers of rows times samples that are held at a time


class Apart(Exception):
    """A posterior whose rows cannot share their noise."""


@singledispatch
def alike(dist: Distribution, lead: Shape) -> Tensor:
    """A draw [*lead, *event] for which every row has the same noise. Open; raises Apart where nobody says how."""
    raise Apart


@alike.register
def _(dist: Independent, lead: Shape) -> Tensor:  # type: ignore[type-arg]
    base = dist.base_dist
    if not isinstance(base, Normal):
        raise Apart
    noise = torch.randn(lead[0], 1, *dist.event_shape, dtype=base.loc.dtype, device=base.loc.device)
    return base.loc + base.scale * noise


@alike.register
def _(dist: MultivariateNormal, lead: Shape) -> Tensor:
    noise = torch.randn(lead[0], 1, *dist.event_shape, dtype=dist.loc.dtype, device=dist.loc.device)
    return dist.loc + (dist.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)


def together(lead: Shape, given: Mapping[str, Value]) -> Choose:
    """Answers every site as `sampling` does, but with the same noise for every row; raises Apart for a posterior that cannot."""

    def choose(site: Site) -> Draw:
        value, q = given.get(site.name), site.posterior
        if value is not None or q is None:
            return take(site, lead, value)
        z = alike(q, lead)
        return Draw(z, site.prior, q, site.prior.log_prob(z), q.log_prob(z), False)

    return choose


def in_blocks(run: Run, x: Tensor, read: Callable[[Tensor], Tensor], what: str = "reading rows", block: int = BLOCK) -> Tensor:
    """`read` of the rows of x [n, ...], `block` at a time, the last block filled up with copies of its last row; on the CPU."""
    device, parts = device_of(run.model), []
    with forked(device), evaluating(run.model):
        for start in range(0, len(x), block):
            rows = x[start : start + block]
            filled = rows[torch.arange(block).clamp(max=len(rows) - 1)].to(device)
            parts.append(read(filled)[: len(rows)].cpu())
            tell(what, min(1.0, (start + block) / len(x)))
    return torch.cat(parts)


def by_row(run: Run, x: Tensor, read: Callable[[Tensor], Tensor], what: str) -> Tensor:
    """`read` in blocks where rows can share their noise, else row by row."""
    try:
        return in_blocks(run, x, read, what)
    except Apart:
        return in_blocks(run, x, read, what, block=1)


def require_density(run: Run, x: Tensor) -> None:
    """Raises UsageError where the model of a run has no density; `x` [1, columns] is a usual row."""
    importance(run.model, {"x": x.to(device_of(run.model))}, 1, name=title(run.about))


def log_density(run: Run, x: Tensor, samples: int, seed: int) -> Tensor:
    """log (1/k) sum_i p(x, z_i) / q(z_i | x), k = `samples`, of every row of x [n, columns] as it is held: [n], float64, nats.

    Burda et al. 2016, equation 8. The noise of z_1 .. z_k is the same for every row, so a row's number depends on that row alone. Minus infinity for a row
    so far away that its density is no number.
    """
    at_once = max(1, min(samples, AT_ONCE // (BLOCK * max(1, x[0].numel()))))

    def read(rows: Tensor) -> Tensor:
        total = torch.full((len(rows),), -math.inf, dtype=torch.float64, device=rows.device)
        for number, start in enumerate(range(0, samples, at_once)):
            torch.manual_seed(mix(seed, number, 19))
            k = min(at_once, samples - start)
            log_w = _traced(run, rows, k).log_w.double().expand(k, len(rows))
            total = torch.logaddexp(total, log_w.nan_to_num(-math.inf, math.inf, -math.inf).logsumexp(0))
        return total - math.log(samples)

    return by_row(run, x, read, "scoring rows")


def _traced(run: Run, rows: Tensor, k: int) -> Trace:
    return run.model({"x": rows}, k, choosing=together) if len(rows) > 1 else run.model({"x": rows}, k)  # type: ignore[no-any-return]


def embedded(run: Run, x: Tensor) -> Tensor:
    """`embed` of rows as they are held, [n, latents]."""
    return in_blocks(run, x, lambda rows: embed(run, rows), "embedding rows")


def classified(run: Run, x: Tensor) -> Tensor:
    """`classify` of rows as they are held, [n, classes]."""
    return in_blocks(run, x, lambda rows: classify(run, rows), "classifying rows")


def clustered(run: Run, x: Tensor, draws: int, seed: int) -> Tensor:
    """E_q(z|x)[p(c | z)] of rows as they are held, [n, clusters], as `uses.cluster` has it, with the same noise for every row.

    A model that is itself a mixture of rows says p(c | x) without draws. Raises UsageError for another model without a prior that is a mixture.
    """

    def own(rows: Tensor) -> Tensor:
        found = memberships(run.model, {"x": rows})
        return rows.new_zeros(len(rows), 0) if found is None else found

    if in_blocks(run, x[:1], own).shape[1]:
        return in_blocks(run, x, own, "finding clusters")
    site = require_slot(run.model, title(run.about), run.schema)

    def read(rows: Tensor) -> Tensor:
        torch.manual_seed(mix(seed, 23))
        drawn = _traced(run, rows, draws)[site]
        return responsibilities(drawn.prior, drawn.value).mean(0)

    return by_row(run, x, read, "finding clusters")


def decoded(run: Run, z: Tensor) -> Tensor:
    """The mean of p(x | z) for latents as `embed` gives them, [n, latents] to [n, columns] as rows are held.

    Raises UsageError where latents are no values of their sites, as the probabilities of classes are none.
    """
    blank = torch.zeros(1, run.field.size, device=device_of(run.model))
    with forked(device_of(run.model)), evaluating(run.model):
        torch.manual_seed(0)
        trace = run.model({"x": blank})
        events = {name: trace[name].prior.event_shape for name in posterior_means(trace)}
        sizes = [means.shape[1] for means in posterior_means(trace).values()]
    if [e.numel() for e in events.values()] != sizes or not all(d.value.is_floating_point() for d in trace.latents.values()):
        raise UsageError(f"the latents of {title(run.about)} are no numbers, so no row follows from them; use a recipe such as vae")

    def read(rows: Tensor) -> Tensor:
        given = {name: part.reshape(len(rows), *event) for (name, event), part in zip(events.items(), rows.split(sizes, 1), strict=True)}
        return centre(run.model.generate(len(rows), given)["x"].prior)

    return in_blocks(run, z, read, "decoding rows")
