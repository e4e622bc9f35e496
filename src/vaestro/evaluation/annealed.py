"""Annealed importance sampling: log p(x) bounded from below without the encoder, and on simulated rows from above too."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from vaestro.core import Batch, Draw, Model, Site, normalised, run, sampling, total
from vaestro.errors import NotFinite, UsageError
from vaestro.evaluation.likelihood import Rows
from vaestro.evaluation.scope import at_rest, count, device_of, slice_rows
from vaestro.families.base import is_discrete, support_of
from vaestro.progress import tell
from vaestro.seeds import forked, mix, reseed

AT_ONCE = 200  # chains of all rows together that move at once
SPREAD = 4.0  # of the sigmoid that lays the temperatures: dense at both ends (Wu et al. 2017, appendix)
WANTED = 0.65  # share of moves to accept, the optimum of Hamiltonian moves (Neal 2011, section 4.4)
FIRST, LEAST, MOST = 0.5, 1e-5, 2.0  # sizes of a leap; half of a prior of unit scale, from where they are tuned
REAL = (type(constraints.real), type(constraints.real_vector))


class Plan(NamedTuple):
    """How long the path is: intermediate laws, chains a row, and leapfrog steps of each move."""

    temperatures: int = 500
    chains: int = 8
    leaps: int = 10


@dataclass(frozen=True)
class Annealed:
    """What annealing says of each row, in nats, float64 [rows]."""

    log_px: Rows  # log (1/chains) sum w, a lower bound of log p(x) in expectation
    accepted: float  # share of the moves
    plan: Plan
    upper: Rows | None = None  # of rows that the model itself drew: the same path backwards from the latents that made them, an upper bound
    drawn: Mapping[str, Tensor] = field(default_factory=dict)  # those rows


def temperatures(number: int) -> Tensor:
    """From 0 to 1 in `number` steps, [number + 1], by a sigmoid from -4 to 4."""
    raw = torch.linspace(-SPREAD, SPREAD, number + 1, dtype=torch.float64).sigmoid()
    return (raw - raw[0]) / (raw[-1] - raw[0])


class Joint:
    """log p(z) and log p(x | z) [k, b] of some rows as functions of all latents in one tensor z [k, b, numbers]; the encoder has no part in it."""

    def __init__(self, model: Model, batch: Batch, name: str = "the model") -> None:
        self.model, self.name = model, name
        self.told = {n: v for n, v in batch.items() if n not in model.observed} or None
        self.given: dict[str, Tensor] = {}
        for n in model.observed:
            if n in batch:
                value = batch[n]
                if not isinstance(value, Tensor):
                    raise UsageError(f"{n!r} was seen in part only, and annealing takes whole rows; leave this metric out")
                self.given[n] = value

    def dream(self, k: int, rows: int) -> Tensor:
        """Latents drawn from their prior, [k, rows, numbers]; their names and shapes are known from then on."""
        found = run(self.model.program(self.told), sampling((k, rows), self.given))
        drawn = {n: d for n, d in found.items() if n not in self.given}
        _refuse(self.name, {n: d.prior for n, d in drawn.items()}, {n: found[n].prior for n in self.given})
        self.shapes = {n: d.value.shape[2:] for n, d in drawn.items()}
        return self.flat({n: d.value for n, d in drawn.items()})

    def flat(self, values: dict[str, Tensor]) -> Tensor:
        """The latents side by side."""
        return torch.cat([values[n].flatten(2) if shape else values[n].unsqueeze(2) for n, shape in self.shapes.items()], 2)

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """log p(z) and log p(x | z), [k, b]."""
        parts = z.split([math.prod(s) for s in self.shapes.values()], 2)
        values = {n: part.reshape(*z.shape[:2], *shape) for part, (n, shape) in zip(parts, self.shapes.items(), strict=True)}

        def choose(site: Site) -> Draw:
            value = values[site.name] if site.name in values else self.given[site.name]
            return Draw(value, site.prior, None, site.prior.log_prob(value), 0.0, True)

        trace = run(self.model.program(self.told), choose)
        sums = [torch.as_tensor(total(trace[n].log_p for n in names)) for names in (values, self.given)]
        return sums[0].expand(z.shape[:2]), sums[1].expand(z.shape[:2])


def _refuse(name: str, latents: dict[str, Distribution], observed: dict[str, Distribution]) -> None:
    if not latents:
        raise UsageError(f"{name} has no latents to anneal; its likelihood is exact or not to be had")
    for site, law in latents.items():
        if is_discrete(law):
            raise UsageError(f"the latents {site!r} of {name} are discrete, and annealing moves along gradients; use nll, by importance sampling")
        if not everywhere(law):
            raise UsageError(f"the latents {site!r} of {name} do not fill a space of real numbers, in which annealing moves; use nll, by importance sampling")
    for site, law in (latents | observed).items():
        if not normalised(law):
            raise UsageError(f"{name} has no density: what it says of {site!r} does not integrate to one; use reconstruction error instead")


def everywhere(law: Distribution) -> bool:
    """Whether a law puts density on all real numbers; one that does not declare its support is taken to."""
    support = support_of(law)
    if support is None:
        return True
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return isinstance(support, REAL)


@runtime_checkable
class Heights(Protocol):
    """What chains move on: log p(z) and the log of what the prior is weighed by, such as log p(x | z), [k, b], at z [k, b, numbers]."""

    def __call__(self, z: Tensor, /) -> tuple[Tensor, Tensor]:
        """Both, with gradients to z."""


class State(NamedTuple):
    """Where the chains stand: z [k, b, numbers], log p(z) and log p(x | z) [k, b]."""

    z: Tensor
    prior: Tensor
    likelihood: Tensor


def _look(joint: Heights, z: Tensor, beta: float) -> tuple[State, Tensor, Tensor]:
    """The state at z, log p(z) + beta log p(x | z), and its slope."""
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        prior, likelihood = joint(z)
        height = prior + beta * likelihood
        (slope,) = torch.autograd.grad(height.sum(), z)
    return State(z.detach(), prior.detach(), likelihood.detach()), height.detach(), slope


def move(joint: Heights, at: State, beta: float, size: Tensor, leaps: int) -> tuple[State, Tensor]:
    """One Hamiltonian move that leaves p(z) p(x | z)^beta as it is, and where it was accepted, [k, b] (Neal 2011, section 3).

    Leaps are 0.3 to 1 times `size` [b], drawn anew for each chain: of one size, moves about half a period long would do no more than change signs.
    """
    state, start, slope = _look(joint, at.z, beta)
    step = (size * (0.3 + 0.7 * torch.rand_like(at.prior)))[..., None]
    first = torch.randn_like(at.z)
    momentum, z, height = first + step / 2 * slope, at.z, start
    for number in range(leaps):
        z = z + step * momentum
        state, height, slope = _look(joint, z, beta)
        momentum = momentum + (step / 2 if number == leaps - 1 else step) * slope
    gain = height - start + (first.square().sum(2) - momentum.square().sum(2)) / 2
    accepted = torch.rand_like(gain).log() < gain  # NaN is no gain
    kept = [torch.where(accepted[..., None] if new.dim() > accepted.dim() else accepted, new, old) for new, old in zip(state, at, strict=True)]
    return State(*kept), accepted


def tuned(joint: Joint, rows: int, plan: Plan) -> Tensor:
    """Sizes of leaps for each temperature and row, [temperatures, b], from a path of a quarter of the chains that is then thrown away.

    Sizes that a path learnt from itself would bias its weights.
    """
    betas = temperatures(plan.temperatures)
    z = joint.dream(max(plan.chains // 4, 1), rows)
    size, share = z.new_full((rows,), FIRST), z.new_full((rows,), WANTED)
    at, sizes = State(z, *(v.detach() for v in joint(z))), []
    for beta in betas[1:].tolist():
        at, accepted = move(joint, at, beta, size, plan.leaps)
        share = 0.9 * share + 0.1 * accepted.to(z.dtype).mean(0)
        size = (size * torch.where(share > WANTED, 1.1, 0.9).to(z.dtype)).clamp(LEAST, MOST)
        sizes.append(size)
    return torch.stack(sizes)


def forwards(joint: Joint, z: Tensor, sizes: Tensor, plan: Plan) -> Iterator[tuple[Tensor, Tensor]]:
    """The path from the prior's draws z: at each temperature the log weight it adds [k, b], float64, and which moves were accepted (Neal 2001)."""
    betas = temperatures(plan.temperatures).tolist()
    at = State(z, *(v.detach() for v in joint(z)))
    for t in range(1, len(betas)):
        log_w = (betas[t] - betas[t - 1]) * at.likelihood.double()
        at, accepted = move(joint, at, betas[t], sizes[t - 1], plan.leaps)
        yield log_w, accepted


def backwards(joint: Joint, z: Tensor, sizes: Tensor, plan: Plan) -> Iterator[tuple[Tensor, Tensor]]:
    """The same path from the end to its start, from draws z of p(z | x)."""
    betas = temperatures(plan.temperatures).tolist()
    at = State(z, *(v.detach() for v in joint(z)))
    for t in range(len(betas) - 1, 0, -1):
        at, accepted = move(joint, at, betas[t], sizes[t - 1], plan.leaps)
        yield (betas[t - 1] - betas[t]) * at.likelihood.double(), accepted


def _followed(path: Iterator[tuple[Tensor, Tensor]], told: tuple[str, float, float], steps: int) -> tuple[Tensor, float]:
    """The log weights at the end of a path and the share of moves accepted; `told` is what is being done, and from where to where of all work."""
    what, start, stop = told
    log_w, share = torch.zeros(()), 0.0
    for number, (added, accepted) in enumerate(path, 1):
        log_w = log_w + added
        share += float(accepted.double().mean())
        tell(what, start + (stop - start) * number / steps)
    return log_w, share / steps


def _chunks(batch: Batch, plan: Plan) -> Iterator[tuple[int, int, Batch]]:
    """The rows in parts, each with its number and how many there are."""
    step = max(AT_ONCE // plan.chains, 1)
    parts = [slice_rows(batch, start, start + step) for start in range(0, count(batch), step)]
    return ((number, len(parts), part) for number, part in enumerate(parts))


def _check(plan: Plan) -> None:
    for name, number in plan._asdict().items():
        if number < 1:
            raise UsageError(f"{name} is {number}, and annealing needs at least 1; give a whole number from 1 upwards")


def _refuse_broken(log_px: Rows, name: str) -> Rows:
    if np.isnan(log_px).any() or np.isposinf(log_px).any():
        raise NotFinite(f"annealing gives row {int(np.argmax(~np.isfinite(log_px)))} of {name} no finite weight; its weights are not finite: train it anew")
    return log_px


def annealed(model: Model, batch: Batch, plan: Plan | None = None, seed: int = 0, name: str = "the model") -> Annealed:
    """log p(x) of each row along p(z) p(x | z)^beta, beta from 0 to 1 (Neal 2001; Wu et al. 2017, section 3): E log (1/k) sum w <= log p(x), nats.

    Each step adds (beta_t - beta_{t-1}) log p(x | z) to a chain's log weight and moves it by Hamiltonian Monte Carlo, with leaps that a path before it was
    used to tune. What the model is told, such as a class, is given. Deterministic under `seed`; torch's global generator is left alone.
    Raises UsageError for latents that are discrete, none or bounded, rows seen in part, and models without a density; VaestroError for weights that are NaN.
    """
    plan = plan or Plan()
    _check(plan)
    lower, share = [], []
    with forked(device_of(model)), at_rest(model), torch.no_grad():
        for number, parts, part in _chunks(batch, plan):
            reseed(mix(seed, number, 9), device_of(model))
            joint, rows = Joint(model, part, name), count(part)
            sizes = tuned(joint, rows, plan)
            path = forwards(joint, joint.dream(plan.chains, rows), sizes, plan)
            log_w, accepted = _followed(path, ("annealing", number / parts, (number + 1) / parts), plan.temperatures)
            lower.append((log_w.logsumexp(0) - math.log(plan.chains)).cpu().numpy())
            share.append(accepted)
    return Annealed(_refuse_broken(np.concatenate(lower), name), float(np.mean(share)), plan)


def sandwiched(model: Model, batch: Batch, plan: Plan | None = None, seed: int = 0, name: str = "the model") -> Annealed:
    """As many simulated rows as `batch` has: log p(x) from below by annealing, and from above by the same path backwards (Grosse et al. 2015, section 3).

    The latents that made a row are an exact draw of p(z | x): from there backwards the mean of the inverse weights is 1 / p(x), so
    E -log (1/k) sum 1/w >= log p(x). Only what the model is told is read from `batch`. Raises as `annealed` does.
    """
    plan = plan or Plan()
    _check(plan)
    lower, upper, share, drawn = [], [], [], []
    with forked(device_of(model)), at_rest(model), torch.no_grad():
        for number, parts, part in _chunks(batch, plan):
            reseed(mix(seed, number, 10), device_of(model))
            joint, true = _simulated(model, part, name)
            rows, steps, work = count(part), plan.temperatures, f"annealing both ways, {plan.temperatures} temperatures"
            sizes = tuned(joint, rows, plan)
            forth = _followed(forwards(joint, joint.dream(plan.chains, rows), sizes, plan), (work, number / parts, (number + 0.5) / parts), steps)
            back = _followed(backwards(joint, true.expand(plan.chains, -1, -1), sizes, plan), (work, (number + 0.5) / parts, (number + 1) / parts), steps)
            lower.append((forth[0].logsumexp(0) - math.log(plan.chains)).cpu().numpy())
            upper.append((math.log(plan.chains) - back[0].logsumexp(0)).cpu().numpy())
            share += [forth[1], back[1]]
            drawn.append(joint.given)
    rows_drawn = {n: torch.cat([given[n] for given in drawn]) for n in drawn[0]}
    return Annealed(_refuse_broken(np.concatenate(lower), name), float(np.mean(share)), plan, _refuse_broken(np.concatenate(upper), name), rows_drawn)


def _simulated(model: Model, part: Batch, name: str) -> tuple[Joint, Tensor]:
    """Rows that the model draws under the conditions of `part`, and the latents that made them, [1, b, numbers]."""
    told = {n: v for n, v in part.items() if n not in model.observed}
    found = run(model.program(told or None), sampling((1, count(part)), {}))
    known = [n for n in model.observed if n in part]
    joint = Joint(model, told | {n: found[n].value[0] for n in known}, name)
    joint.dream(1, count(part))
    return joint, joint.flat({n: d.value for n, d in found.items() if n not in known})
