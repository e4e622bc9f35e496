"""Ways from one row to another through the latents."""

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from vaestro.errors import UsageError
from vaestro.evaluation.scope import at_rest, device_of
from vaestro.progress import tell
from vaestro.registry import Registry
from vaestro.seeds import forked, mix
from vaestro.training.finding import by_name
from vaestro.training.runs import Run
from vaestro.uses.inference.latents import decoded, encoded
from vaestro.uses.inference.target import Target
from vaestro.uses.rows.given import Given, require_rows, settle

Density: TypeAlias = Callable[[Tensor], Tensor]  # log p(z) [k, n] of latents [k, n, numbers]
Path: TypeAlias = Callable[[Tensor, Tensor, int, Density], Tensor]  # from [n, numbers] to [n, numbers] in so many points, [steps, n, numbers]
PATHS: Registry[Path] = Registry("path")

PIECES, ROUNDS = 48, 60  # straight pieces of a geodesic, and rounds of its optimiser


def _shares(steps: int, like: Tensor) -> Tensor:
    return torch.linspace(0, 1, steps, dtype=like.dtype, device=like.device)[:, None, None]


@PATHS.register
def linear(a: Tensor, b: Tensor, steps: int, log_p: Density) -> Tensor:
    """(1 - t) a + t b."""
    return torch.lerp(a, b, _shares(steps, a))


@PATHS.register
def spherical(a: Tensor, b: Tensor, steps: int, log_p: Density) -> Tensor:
    """sin((1 - t) w) / sin w a + sin(t w) / sin w b, w the angle between a and b; straight where they are parallel (White 2016, section 2)."""
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=-1)[:, None]
    w = cosine.clamp(-1, 1).acos()
    sine, t = w.sin(), _shares(steps, a)
    bent = ((1 - t) * w).sin() / sine * a + (t * w).sin() / sine * b
    return torch.where(sine > 1e-4, bent, torch.lerp(a, b, t))


def energy(z: Tensor, log_p: Density, level: Tensor) -> Tensor:
    """The energy of a broken line z [pieces + 1, n, D] under the metric p(z)^(-2/D): pieces sum |dz|^2 exp(-2 (log p(middle) - level) / D), [n].

    Its root bounds the length from above, and is it where every piece is equally long.
    """
    step, middle = z[1:] - z[:-1], (z[1:] + z[:-1]) / 2
    return (len(z) - 1) * (step.square().sum(-1) * (-2 * (log_p(middle) - level) / z.shape[-1]).exp()).sum(0)


@PATHS.register
def density(a: Tensor, b: Tensor, steps: int, log_p: Density) -> Tensor:
    """The shortest way where a step costs |dz| / p(z)^(1/D): a geodesic around what the prior holds unlikely, in pieces of equal cost.

    From the straight line by L-BFGS, so it may be a local one.
    """
    start = torch.lerp(a, b, _shares(PIECES + 1, a)).detach()
    inner = start[1:-1].clone().requires_grad_()
    optimiser = torch.optim.LBFGS([inner], max_iter=ROUNDS, history_size=20, line_search_fn="strong_wolfe")
    with torch.no_grad():
        level = log_p(start).amax(0)

    def closure() -> Tensor:
        optimiser.zero_grad()
        with torch.enable_grad():
            cost = energy(torch.cat([a[None], inner, b[None]]), log_p, level).sum()
            (inner.grad,) = torch.autograd.grad(cost, inner)
        return cost

    optimiser.step(closure)
    found = torch.cat([a[None], inner.detach(), b[None]])
    better = energy(found, log_p, level) <= energy(start, log_p, level)  # NaN is no better
    found = torch.where(better[:, None], found, start)
    at = torch.linspace(0, PIECES, steps, dtype=a.dtype, device=a.device)
    below = at.floor().clamp(max=PIECES - 1).long()
    return torch.lerp(found[below], found[below + 1], (at - below)[:, None, None])


@by_name
def interpolate(
    run: Run, a: Float[Tensor, "b ..."], b: Float[Tensor, "ends ..."], steps: int = 9, path: Path = linear, given: Given | None = None
) -> Float[Tensor, "steps b ..."]:
    """The mean of p(x | z) on a way from each row of `a` to that of `b`: [b, *shape] each to [steps, b, *shape], in unit values.

    The ends are the rows' reconstructions through the centres of their posteriors. `path` is one of `PATHS`: linear, spherical, or density, the geodesic of
    the metric p(z)^(-2/D) over all D latents. Deterministic.

    Raises UsageError for fewer than 2 steps, rows of another shape or another number, latents that are classes or lie on a sphere, and no posterior.
    """
    if steps < 2:
        raise UsageError(f"a way of {steps} pictures has no two ends; give steps=2 or more")
    if len(a) != len(b):
        raise UsageError(f"{len(a)} rows cannot be led to {len(b)}; give as many ends as starts")
    a, b, told = require_rows(run, a), require_rows(run, b), settle(run, len(a), given)
    with forked(device_of(run.model)), at_rest(run.model), torch.no_grad():
        torch.manual_seed(mix(0, 22))
        ends = [encoded(run, x, told, "move between") for x in (a, b)]
        layout, target = ends[0].layout, Target(run, ends[0].layout, told)

        def log_prior(z: Tensor) -> Tensor:
            return target(z)[0]

        tell("finding the way", 0.0)
        z = path(ends[0].z, ends[1].z, steps, log_prior)
        z[0], z[-1] = ends[0].z, ends[1].z  # to the last bit
        if not math.isfinite(float(z.sum())):
            raise UsageError("the prior's density is not finite on the way, so it has no geodesic; take the path linear or spherical")
        return decoded(run, layout.apart(z), told, (steps, len(a)))
