"""New rows from where a learnt metric says that the latents are: draws by the volume of the space, in place of the prior."""

from functools import singledispatch
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vaestro.errors import UsageError
from vaestro.evaluation.scope import device_of, evaluating
from vaestro.models.hamiltonian import HamiltonianVAE
from vaestro.posteriors.hamiltonian import Curved
from vaestro.progress import tell
from vaestro.seeds import forked, mix
from vaestro.training.runs import Run
from vaestro.uses.generate import dreamt

GOAL = 0.8  # the share of moves to be accepted, to which the size of leaps is tuned


class Walk(NamedTuple):
    """How latents are drawn: `moves` of Hamiltonian Monte Carlo of `leaps` each, and after each a jump; how far from a centre they may go, in widths."""

    moves: int = 100
    leaps: int = 10
    size: float = 0.1  # of a leap in widths, where tuning starts; the first half of the moves tunes it
    reach: float = 2.5


USUAL = Walk()


@singledispatch
def metric_of(model: nn.Module) -> Curved:
    """The learnt metric of a model's latents. Open; raises UsageError for a model without one."""
    raise UsageError(f"{type(model).__name__} has no learnt metric whose volume could be drawn from; use a run of riemannian_vae, or leave --by-volume out")


@metric_of.register
def _(model: HamiltonianVAE) -> Curved:
    found = model.space()
    if not isinstance(found, Curved):
        raise UsageError("the space of this model is flat, so its volume says nothing; use a run of riemannian_vae with steps of 1 or more")
    return found


class Volume:
    """p(z) = sqrt(det G(z)^-1) / c on the rows within `reach` widths of a centre of the metric, and 0 elsewhere, up to c.

    The uniform law of the learnt manifold in the papers' reading (Chadebec & Allassonniere 2021; Chadebec et al. 2022): large where encodings are.
    Far from all centres G(z)^-1 is its floor and the density does not fall, so that without an end it has no integral: hence the reach.
    """

    def __init__(self, metric: Curved, reach: float) -> None:
        self.metric, self.reach = metric, reach * metric.width

    def log_density(self, z: Tensor) -> Tensor:
        """log det G(z)^-1 / 2 of latents [n, D], -inf beyond the reach: [n]."""
        inside = torch.cdist(z, self.metric.centres).min(1).values <= self.reach
        return torch.where(inside, torch.linalg.slogdet(self.metric.inverse(z)).logabsdet / 2, -torch.inf)

    def slope(self, z: Tensor) -> Tensor:
        """The gradient of log det G(z)^-1 / 2, [n, D]: a bend without momentum is that of log det G / 2, with the other sign."""
        return -self.metric.bend(z, torch.zeros_like(z))

    def thrown(self, n: int) -> Tensor:
        """Uniform draws from the balls around centres taken at random, [n, D]."""
        centres = self.metric.centres
        way = nn.functional.normalize(torch.randn(n, centres.shape[1]).to(centres), dim=1)
        far = self.reach * torch.rand(n, 1).to(centres) ** (1 / centres.shape[1])
        return centres[torch.randint(len(centres), (n,)).to(centres.device)] + far * way

    def covering(self, z: Tensor) -> Tensor:
        """How many balls a place is in, [n], to which the density of `thrown` is proportional."""
        return (torch.cdist(z, self.metric.centres) <= self.reach).sum(1).to(z)


def moved(law: Volume, z: Tensor, size: float, leaps: int) -> tuple[Tensor, Tensor]:
    """One move of Hamiltonian Monte Carlo with unit masses (Neal 2011, section 3.2), [n, D], and which were accepted, [n]."""
    r = torch.randn(z.shape).to(z)
    new, momentum = z, r + size / 2 * law.slope(z)
    for number in range(leaps):
        new = new + size * momentum
        momentum = momentum + (size / 2 if number == leaps - 1 else size) * law.slope(new)
    gain = law.log_density(new) - law.log_density(z) + (r.square() - momentum.square()).sum(1) / 2
    accepted = torch.rand(len(z)).to(z).log() < gain
    return torch.where(accepted[:, None], new, z), accepted


def jumped(law: Volume, z: Tensor) -> Tensor:
    """One independent proposal each from `thrown`, accepted as Metropolis and Hastings ask: it takes chains from one island of centres to another."""
    new = law.thrown(len(z))
    gain = law.log_density(new) - law.log_density(z) + law.covering(z).log() - law.covering(new).log()
    return torch.where((torch.rand(len(z)).to(z).log() < gain)[:, None], new, z)


def walked(law: Volume, n: int, walk: Walk = USUAL) -> Tensor:
    """The ends of `n` chains of their own, [n, D], from torch's generator; raises UsageError for a walk without moves, leaps, size or reach."""
    if min(walk) <= 0 or n < 1:
        raise UsageError(f"{n} rows cannot be drawn by {walk}; give one row or more, and positive numbers")
    z, size = law.thrown(n), walk.size * law.metric.width
    for number in range(walk.moves):
        z, accepted = moved(law, z, size, walk.leaps)
        if number < walk.moves // 2:
            size *= 1.05 if float(accepted.float().mean()) > GOAL else 0.9
        z = jumped(law, z)
        tell("drawing latents", (number + 1) / walk.moves)
    return z


def by_volume(run: Run, n: int = 16, seed: int = 0, walk: Walk = USUAL) -> Float[Tensor, "n ..."]:
    """The mean of p(x | z) at `n` latents drawn by the volume of the run's learnt metric (`Volume`), [n, *shape] in unit values; of a table, whole samples.

    Raises UsageError for a run whose model has no learnt metric, and for numbers below 1.
    """
    metric = metric_of(run.model)
    with forked(device_of(run.model)), evaluating(run.model):
        torch.manual_seed(mix(seed, 23))
        z = walked(Volume(metric, walk.reach), n, walk)
        shown: Tensor = dreamt(run.field.kind, run.model.generate(n, {"z": z})["x"])
    return shown
