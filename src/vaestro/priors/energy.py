"""An energy over latents as a prior, fitted to a model that is already trained by telling its latents from draws of a Gaussian."""

import math
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.distributions import Distribution, constraints
from torch.nn import functional as F

from vaestro.data.schema import Field
from vaestro.errors import UsageError, VaestroError
from vaestro.families.base import Sizes
from vaestro.networks import mlp
from vaestro.priors.fitted import FITTED, Descend, Standardised, fit, lesson, over_vectors
from vaestro.seeds import forked

HALF_LOG_TAU = math.log(2 * math.pi) / 2
ENOUGH = 200  # effective draws, below which a normaliser is refused: they leave a standard error of 0.07 nats
AT_ONCE = 2**17  # points whose energy is computed together
JUDGED = 2**14  # draws of the base, at least, that held-out latents are told from
SEED = 20260101  # of the draws that the normaliser is estimated with


class Tilted(Distribution):
    """p(z) = exp(-E(u)) N(u; 0, I) / (Z prod scale) with u = (z - loc) / scale, over [D] (Pang et al. 2020): a density up to the stored estimate of ln Z.

    `log_prob` is in nats. ln Z is estimated by draws of the base, whose mean weight has the mean Z, so the estimate lies below ln Z on average, by about half
    its squared standard error, and the density reads too high by as much. A sample is chosen among draws of the base, by weight: nearly exact, as told by
    `Energy`, and without a gradient.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector

    def __init__(self, prior: "Energy") -> None:
        self.prior = prior
        super().__init__(torch.Size(), prior.loc.shape, validate_args=False)

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "Tilted":
        """The same distribution, repeated over `batch_shape`."""
        new = Tilted(self.prior)
        new._batch_shape = torch.Size(batch_shape)
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(z) of each [D], in nats."""
        prior = self.prior
        u = ((value - prior.loc) / prior.scale).reshape(-1, value.shape[-1])
        base = -u.square().sum(-1) / 2 - u.shape[-1] * HALF_LOG_TAU - prior.scale.log().sum()
        log_p: Tensor = (base - prior.energy(u) - prior.log_z).reshape(value.shape[:-1])
        return log_p.expand(torch.broadcast_shapes(value.shape[:-1], self.batch_shape))

    @torch.no_grad()
    def sample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Samples, each chosen among draws of its own, so that they are independent of each other."""
        shape = self._extended_shape(torch.Size(sample_shape))
        each = max(1, AT_ONCE // self.prior.candidates)
        found = [self.prior.choose(len(rows)) for rows in torch.arange(shape[:-1].numel()).split(each)]
        return self.prior.loc + self.prior.scale * torch.cat(found).reshape(shape)


class Energy(Standardised):
    """E(u), a dense network that says 0 at first, on the Gaussian that has the latents' means and scales.

    The energy is that of noise contrast: with `noise` draws of the base for every latent, the best classifier of the two has -E = log p(z) / base(z), whose
    Z is 1 (Gutmann & Hyvarinen 2012; as a prior Aneja et al. 2021, NCP-VAE). `settle` measures Z with `draws` draws of the base. A sample is chosen among so
    many candidates that `effective` of them count, which puts its law within about 1 / effective of p(z) (sampling importance resampling, Rubin 1987).
    """

    log_z: Tensor
    error: Tensor
    share: Tensor

    def __init__(self, latents: int, hidden: tuple[int, ...], noise: int, draws: int, effective: int) -> None:
        super().__init__(latents)
        if min(*hidden, noise, draws, effective) < 1:
            said = f"layers of {'x'.join(map(str, hidden))}, {noise} draws of noise, {draws} of the base and {effective} effective candidates"
            raise UsageError(f"an energy cannot have {said}; give one or more of each")
        self.net, self.noise, self.draws, self.effective = mlp((latents,), (1,), hidden), noise, draws, effective
        with torch.no_grad():
            for parameter in list(self.net.parameters())[-2:]:
                parameter.zero_()
        for name, number in {"log_z": 0.0, "error": 0.0, "share": 1.0}.items():  # of the draws of the base, the share that count
            self.register_buffer(name, torch.tensor(number))

    def energy(self, u: Tensor) -> Tensor:
        """E(u) of [n, D]: [n], nats."""
        out: Tensor = self.net(u)[:, 0]
        return out

    @property
    def candidates(self) -> int:
        """How many draws of the base a sample is chosen among."""
        return math.ceil(self.effective / float(self.share))

    def base(self, *shape: int) -> Tensor:
        """Draws of N(0, I), [*shape, D]."""
        return torch.randn(*shape, len(self.loc), device=self.loc.device, dtype=self.loc.dtype)

    def choose(self, n: int) -> Tensor:
        """n draws of u, [n, D], each one of its own candidates, by weight."""
        few = max(1, AT_ONCE // max(n, 1))
        best, at = self.loc.new_full((n,), -math.inf), self.base(n)
        for start in range(0, self.candidates, few):  # the largest of log weight + Gumbel noise is a draw by weight, block by block
            u = self.base(n, min(few, self.candidates - start))
            log_w = -self.energy(u.flatten(0, 1)).reshape(u.shape[:2])
            keyed, place = (log_w - torch.empty_like(log_w).exponential_().log()).max(1)
            at = torch.where((keyed > best).unsqueeze(-1), u[torch.arange(n, device=u.device), place], at)
            best = best.maximum(keyed)
        return at

    @torch.no_grad()
    def settle(self) -> float:
        """Estimates ln Z and its standard error with the same draws whenever it is asked; how many of them were effective, (sum w)^2 / sum w^2."""
        with forked():
            torch.manual_seed(SEED)
            blocks = [torch.randn(len(part), len(self.loc)) for part in torch.arange(self.draws).split(AT_ONCE)]
        log_w = torch.cat([-self.energy(u.to(self.loc)) for u in blocks]).double()
        total = log_w.logsumexp(0)
        effective = float((2 * total - (2 * log_w).logsumexp(0)).exp())
        self.log_z.copy_(total - math.log(self.draws))
        self.share.fill_(effective / self.draws)
        self.error.fill_(math.sqrt(max(1 / effective - 1 / self.draws, 0.0)))
        return effective

    @torch.no_grad()
    def reach(self, rows: Tensor) -> float:
        """The mean of log p(z) / base(z) over latents [n, D], in nats: exp of it is how many draws of the base there are to one where the latents are."""
        u = (rows - self.loc) / self.scale
        return float(torch.cat([-self.energy(part) for part in u.split(AT_ONCE)]).double().mean() - self.log_z)

    def forward(self) -> Distribution:
        """The distribution, of batch shape ()."""
        return Tilted(self)


def energy(
    latents: int,
    posterior: nn.Module,
    field: Field,
    hidden: tuple[Annotated[int, Ge(1)], ...] = (128, 128),
    noise: Annotated[int, Ge(1)] = 4,
    draws: Annotated[int, Ge(1)] = 200_000,
) -> nn.Module:
    """exp(-E(z)) N(z) / Z, E a network of widths `hidden` that tells latents from `noise` times as many draws of N; `draws` more measure Z."""
    return Energy(latents, hidden, noise, draws, 50)


FITTED.add("energy", over_vectors(energy))


@lesson.register
def _(prior: Energy, z: Tensor) -> Tensor:
    """-log P(latent | z) - noise times the mean of log P(noise | u) over draws u of the base (Gutmann & Hyvarinen 2012, eq. 8), per latent, nats."""
    few = prior.noise * len(z)
    odds = math.log(prior.noise)
    beside = F.softplus(-prior.energy(prior.base(few if prior.training else max(few, JUDGED))) - odds)
    return F.softplus(prior.energy((z - prior.loc) / prior.scale) + odds) + prior.noise * beside.mean()


@fit.register
def _(prior: Energy, rows: Tensor, held: Tensor, descend: Descend) -> dict[str, object]:
    prior.start(rows)
    told = descend(prior)
    effective, reach = prior.settle(), prior.reach(held)
    least = math.ceil(max(ENOUGH / float(prior.share), ENOUGH * math.exp(min(reach, 50.0))))
    if least > prior.draws:
        raise VaestroError(
            f"the normaliser of this energy cannot be told: of {prior.draws:,} draws of its base {effective:.0f} are effective, and held-out latents lie where "
            f"one in {math.exp(min(reach, 50.0)):,.0f} falls; give draws={least} or more, or fit another prior, such as flow, maf or gmm"
        )
    return {**told, "log_z": float(prior.log_z), "standard_error": float(prior.error), "effective_draws": round(effective), "draws": prior.draws}
