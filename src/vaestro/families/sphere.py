"""Distributions over directions, points x of the sphere |x| = 1 in R^m: uniform, von Mises-Fisher and power spherical; densities to its surface, in nats."""

import math

import torch
from torch import Tensor
from torch.distributions import Beta, Distribution, Gamma, constraints, register_kl

from vaestro.core import centre
from vaestro.families.base import Sizes, precise
from vaestro.families.bessel import log_bessel
from vaestro.families.turning import slope

TINY = 1e-30  # below it a squared length counts as 0, so that its root has a gradient


class Sphere(constraints.Constraint):
    """Vectors of length 1."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        """Whether each vector has length 1, to rounding."""
        off: Tensor = torch.linalg.vector_norm(value, dim=-1) - 1
        return off.abs() < 1e-4


def log_surface(m: int) -> float:
    """The log of the surface of the unit sphere in R^m: ln (2 pi^(m/2) / Gamma(m/2))."""
    return math.log(2) + m / 2 * math.log(math.pi) - math.lgamma(m / 2)


def uniform(shape: Sizes, like: Tensor) -> Tensor:
    """Uniform directions of `shape`, of the type and on the device of `like`."""
    x = torch.randn(torch.Size(shape), dtype=like.dtype, device=like.device)
    directions: Tensor = x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp(min=math.sqrt(TINY))
    return directions


class UniformSphere(Distribution):
    """The uniform law of directions: log p(x) = -ln (2 pi^(m/2) / Gamma(m/2)), in nats; `zeros` [*lead, m] gives its shape, type and device."""

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = Sphere()

    def __init__(self, zeros: Tensor) -> None:
        self.zeros = zeros
        super().__init__(zeros.shape[:-1], zeros.shape[-1:], validate_args=False)

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "UniformSphere":
        """The same distribution, repeated over `batch_shape`."""
        return UniformSphere(self.zeros.expand(*batch_shape, -1))

    @property
    def mean(self) -> Tensor:
        """0."""
        return self.zeros

    @property
    def variance(self) -> Tensor:
        """1 / m of each coordinate."""
        return self.zeros + 1 / self.zeros.shape[-1]

    def sample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Uniform directions."""
        return uniform(self._extended_shape(torch.Size(sample_shape)), self.zeros)

    def log_prob(self, value: Tensor) -> Tensor:
        """The same number for each direction, in nats."""
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return torch.full(shape, -log_surface(self.zeros.shape[-1]), dtype=self.zeros.dtype, device=self.zeros.device)

    def entropy(self) -> Tensor:
        """ln of the surface, in nats."""
        return -self.log_prob(self.zeros)


class Around(Distribution):
    """What laws symmetric about a mean direction share: a density of 1 - cos of the angle to it, and a uniform turn about it.

    `loc` [*lead, m] is the direction, of length 1 and m >= 2; `concentration` [*lead] >= 0. Computed in float64, returned in the type of `loc`.
    """

    arg_constraints = {"loc": Sphere(), "concentration": constraints.nonnegative}
    support = Sphere()
    has_rsample = True

    def __init__(self, loc: Tensor, concentration: Tensor) -> None:
        lead = torch.broadcast_shapes(loc.shape[:-1], concentration.shape)
        self.loc, self.concentration = loc.expand(*lead, -1), concentration.expand(lead)
        super().__init__(lead, loc.shape[-1:], validate_args=False)

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "Around":
        """The same distribution, repeated over `batch_shape`."""
        return type(self)(self.loc.expand(*batch_shape, -1), self.concentration.expand(torch.Size(batch_shape)))

    @property
    def _m(self) -> int:
        return int(self.loc.shape[-1])

    @property
    def kappa(self) -> Tensor:
        """The concentration, in float64 where the device has it."""
        return precise(self.concentration)

    def resultant(self) -> Tensor:
        """E[cos of the angle to loc], in float64."""
        raise TypeError(f"{type(self).__name__} does not say its mean resultant length")

    def kl_to_uniform(self) -> Tensor:
        """KL to the uniform law, in nats and in float64."""
        raise TypeError(f"{type(self).__name__} does not say its KL to the uniform law")

    def gap(self, shape: torch.Size) -> Tensor:
        """Draws of 1 - cos of the angle to loc, in float64, with gradients to the concentration."""
        raise TypeError(f"{type(self).__name__} does not say how it is drawn")

    @property
    def mean(self) -> Tensor:
        """loc times the mean resultant length; inside of the sphere."""
        return self.loc * self.resultant().to(self.loc.dtype).unsqueeze(-1)

    def entropy(self) -> Tensor:
        """ln of the surface minus the KL to the uniform law, in nats."""
        return (log_surface(self._m) - self.kl_to_uniform()).to(self.loc.dtype)

    def _halves(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """(1 - cos) / 2 and (1 + cos) / 2 of the angle between value and loc, in float64, the smaller by the difference of the vectors."""
        value, loc = precise(value), precise(self.loc)
        away, towards = (value - loc).square().sum(-1) / 4, (value + loc).square().sum(-1) / 4
        near = away < towards
        return torch.where(near, away, 1 - towards), torch.where(near, 1 - away, towards)

    def rsample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Directions that differentiate: a point at the drawn angle to the first axis, reflected to where that axis becomes loc."""
        shape = torch.Size(sample_shape)
        gap = self.gap(self._extended_shape(shape)[:-1])
        side = uniform((*gap.shape, self._m - 1), gap)
        x = torch.cat([1 - gap.unsqueeze(-1), (gap * (2 - gap)).clamp(min=TINY).sqrt().unsqueeze(-1) * side], -1)
        loc = precise(self.loc)
        sign = torch.where(loc[..., :1] < 0, -1.0, 1.0).to(loc)
        normal = torch.cat([loc[..., :1] + sign, loc[..., 1:]], -1)  # of the mirror that turns the first axis into -sign loc; never short
        x = x - 2 * normal * ((normal * x).sum(-1, keepdim=True) / normal.square().sum(-1, keepdim=True))
        return (-sign * x).to(self.loc.dtype)


class VonMisesFisher(Around):
    """log p(x) = kappa loc.x + (m/2 - 1) ln kappa - (m/2) ln 2 pi - ln I_(m/2-1)(kappa), in nats (Davidson et al. 2018, section 3).

    Drawn by rejection (Ulrich 1984; Wood 1994; the paper's algorithm 1); the gradient is the implicit one, dcos/dkappa = -dF/dkappa / p with F the
    distribution function of the cosine, by quadrature: exact, without the correction for rejections that the paper's sampler needs.
    """

    def _bessel(self) -> tuple[Tensor, Tensor]:
        return log_bessel(self._m / 2 - 1, self.kappa)

    def resultant(self) -> Tensor:
        """A_m(kappa) = I_(m/2)(kappa) / I_(m/2-1)(kappa)."""
        return self._bessel()[1]

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of each direction, to the surface of the sphere, in nats."""
        log_i, kappa = self._bessel()[0], self.kappa
        return (-2 * kappa * self._halves(value)[0] + (kappa - log_i) - log_surface(self._m)).to(self.loc.dtype)

    def kl_to_uniform(self) -> Tensor:
        """kappa A_m(kappa) - ln (I_(m/2-1)(kappa) Gamma(m/2) (2 / kappa)^(m/2-1)) (Davidson et al. 2018, section 3.2)."""
        log_i, ratio = self._bessel()
        return self.kappa * ratio - log_i

    def gap(self, shape: torch.Size) -> Tensor:
        """1 - cos of the angle to loc, in float64; its gradient is the implicit one."""
        kappa = self.kappa.expand(shape)
        with torch.no_grad():
            gap = rejected(kappa.reshape(-1), self._m).reshape(shape)
        if not (torch.is_grad_enabled() and kappa.requires_grad):
            return gap
        rate = slope(gap, kappa.detach(), self.resultant().detach().expand(shape), self._m)
        return gap + (kappa - kappa.detach()) * rate


def rejected(kappa: Tensor, m: int) -> Tensor:
    """Draws [n] of 1 - cos of the angle to the mean direction, for concentrations [n] in float64 (Wood 1994, in a form that is exact for large ones).

    At least about two proposals of three are accepted, whatever kappa and m.
    """
    d, gap = m - 1, torch.zeros_like(kappa)
    left = torch.arange(len(kappa), device=kappa.device)
    while len(left):
        k = kappa[left]
        b = d / (2 * k + (4 * k.square() + d**2).sqrt())
        short, tail = 2 * b / (1 + b), torch.full_like(k, d / 2)  # short = 1 - x0, with x0 the paper's centre of the envelope
        e = Beta(tail, tail, validate_args=False).sample()
        t = 2 * b * e / (1 - e + b * e)
        score = k * (short - t) + d * torch.log((short + (1 - short) * t) * (1 + b).square() / (4 * b))
        gap[left] = t
        left = left[score < torch.rand_like(k).log()]
    return gap


class PowerSpherical(Around):
    """log p(x) = kappa ln(1 + loc.x) - (a + b) ln 2 - b ln pi - ln Gamma(a) + ln Gamma(a + b), b = (m - 1) / 2, a = b + kappa; in nats.

    De Cao & Aziz 2020, The Power Spherical distribution: (1 + cos) / 2 of the angle to loc is Beta(a, b): no rejection, and every moment in closed form.
    """

    def _ab(self) -> tuple[Tensor, float]:
        b = (self._m - 1) / 2
        return self.kappa + b, b

    def resultant(self) -> Tensor:
        """(a - b) / (a + b)."""
        a, b = self._ab()
        return self.kappa / (a + b)

    def _log_scale(self) -> Tensor:
        """The log density to the uniform law where 1 + loc.x = 2."""
        a, b = self._ab()
        half = torch.full_like(a, b)
        return torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(2 * half) + torch.lgamma(half)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of each direction, to the surface of the sphere, in nats."""
        log_half = self._halves(value)[1].clamp(min=TINY).log()
        return (self.kappa * log_half + self._log_scale() - log_surface(self._m)).to(self.loc.dtype)

    def kl_to_uniform(self) -> Tensor:
        """ln of the surface minus the entropy: kappa (psi(a) - psi(a + b)) + ln Gamma(a + b) Gamma(b) / Gamma(a) Gamma(2b)."""
        a, b = self._ab()
        return self.kappa * (torch.digamma(a) - torch.digamma(a + b)) + self._log_scale()

    def gap(self, shape: torch.Size) -> Tensor:
        """1 - cos of the angle to loc, in float64, by two gammas, so that it is exact near 0."""
        a, b = self._ab()
        up = Gamma(a.expand(shape), torch.ones_like(a), validate_args=False).rsample()
        down = Gamma(torch.full(shape, b, dtype=a.dtype, device=a.device), torch.ones_like(a), validate_args=False).sample()
        return 2 * down / (up + down)


@register_kl(VonMisesFisher, UniformSphere)  # type: ignore[untyped-decorator]
@register_kl(PowerSpherical, UniformSphere)  # type: ignore[untyped-decorator]
def _(q: Around, p: UniformSphere) -> Tensor:
    return q.kl_to_uniform().to(q.loc.dtype)


@centre.register
def _(dist: Around) -> Tensor:
    return dist.loc  # the mean is no direction
