"""Planar and radial flows: amortised, one pass to draw, and inverted exactly to score what another drew."""

import math

import torch
from torch import Tensor, nn

from vaestro.core import Shape
from vaestro.data.schema import Field
from vaestro.families.base import positive
from vaestro.flows import Bijection
from vaestro.networks import Build
from vaestro.posteriors.base import POSTERIORS, FlowLaw, Standardise, amortised, check_flows

STEEP = 0.99  # no step shrinks space by more than 100 in any direction, so that it can be inverted in float32
HALVINGS = 64  # of the interval in which a planar step is inverted


def bent(x: Tensor) -> Tensor:
    """m(x) = 0.99 ln(1 + (1 - 1/e) (e^x - 1)): above -0.99, rising, 0 at 0 and of slope 0.99 far above: 0.99 (softplus(x + ln(e - 1)) - 1), exact near 0."""
    near = torch.log1p((1 - 1 / math.e) * torch.expm1(x.clamp(max=20)))
    return STEEP * torch.where(x > 20, x + math.log1p(-1 / math.e), near)


class Planar(Bijection):
    """x = z + u^ tanh(w.z + b), ln |det dx/dz| = ln(1 + w.u^ (1 - tanh^2(w.z + b))) (Rezende & Mohamed 2015, eq. 10 to 12).

    u^ = u + (m(w.u) - w.u) w / |w|^2 with m > -1, so w.u^ > -1 and the step is invertible (appendix A.1). The paper's m is softplus(x) - 1; here it
    is `bent`, which is above -0.99 and 0 at 0, so that numbers of 0 are the identity. The context [*lead, 2D + 1] is w, u and b.
    The inverse solves y + (w.u^) tanh y = w.x + b, one rising equation of one number, by halving an interval and one step of Newton's.
    """

    def inverse(self, u: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x of the noise-side value `u`, and ln |det du/dx|, minus the logarithm above."""
        w, shift, b, c = self._of(context)
        y = (w * u).sum(-1) + b
        return u + shift * y.tanh().unsqueeze(-1), -torch.log1p(c * _sech2(y))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The noise-side value of `x`, and ln |det du/dx| there; differentiable once."""
        w, shift, b, c = self._of(context)
        y = _solve((w * x).sum(-1) + b, c)
        return x - shift * y.tanh().unsqueeze(-1), -torch.log1p(c * _sech2(y))

    def _of(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        assert context is not None, "its numbers are the context"
        d = (context.shape[-1] - 1) // 2
        w, u, b = context.split((d, d, 1), -1)
        dot = (w * u).sum(-1, keepdim=True)
        c = bent(dot)
        square = w.square().sum(-1, keepdim=True).clamp(min=torch.finfo(w.dtype).tiny)
        return w, u + (c - dot) * (w / square), b.squeeze(-1), c.squeeze(-1)


def _sech2(y: Tensor) -> Tensor:
    """1 - tanh^2 y, to full precision however large y."""
    t = torch.exp(-2 * y.abs())
    return 4 * t / (1 + t).square()


def _solve(target: Tensor, c: Tensor) -> Tensor:
    """The y at which y + c tanh y = target, c > -1; its gradient is that of the implicit function."""
    with torch.no_grad():
        low, high = target - c.abs(), target + c.abs()
        for _ in range(HALVINGS):
            y = (low + high) / 2
            above = y + c * y.tanh() > target
            low, high = torch.where(above, low, y), torch.where(above, y, high)
    slope = (1 + c * _sech2(y)).detach()
    return y - (y + c * y.tanh() - target) / slope


class Radial(Bijection):
    """x = z + beta (z - a) / (alpha + r), r = |z - a| (Rezende & Mohamed 2015, eq. 14).

    With beta = alpha m and t = alpha / (alpha + r): ln |det dx/dz| = (D - 1) ln(1 + m t) + ln(1 + m t^2). It is invertible where beta > -alpha,
    that is m > -1 (appendix A.2): m is `bent` of a free number. The context [*lead, D + 2] is a, then the number s of
    alpha = 1e-4 + softplus(s + ln(e - 1)), and that of m. The inverse is in closed form: r solves r^2 + (alpha + beta - r') r - alpha r' = 0, r' = |x - a|.
    """

    def inverse(self, u: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x of the noise-side value `u`, and ln |det du/dx|, minus the logarithm above."""
        a, alpha, m = self._of(context)
        t = alpha / (alpha + torch.linalg.vector_norm(u - a, dim=-1))
        return a + (1 + m * t).unsqueeze(-1) * (u - a), self._ladj(m, t, u.shape[-1])

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The noise-side value of `x`, and ln |det du/dx| there."""
        a, alpha, m = self._of(context)
        far = torch.linalg.vector_norm(x - a, dim=-1)
        p = far - alpha * (1 + m)
        q = (p.abs() + torch.sqrt(p.square() + 4 * alpha * far)) / 2  # of the two forms of the root, the one in which nothing cancels
        t = alpha / (alpha + torch.where(p > 0, q, alpha * far / q))
        return a + (x - a) / (1 + m * t).unsqueeze(-1), self._ladj(m, t, x.shape[-1])

    def _ladj(self, m: Tensor, t: Tensor, d: int) -> Tensor:
        return -(d - 1) * torch.log1p(m * t) - torch.log1p(m * t.square())

    def _of(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        assert context is not None, "its numbers are the context"
        a, s, m = context.split((context.shape[-1] - 2, 1, 1), -1)
        return a, positive(s.squeeze(-1)), bent(m.squeeze(-1))


@POSTERIORS.register
def planar(field: Field, latents: int, network: Build, hidden: Shape | None, flows: int = 10) -> nn.Module:
    """A diagonal Gaussian through `flows` planar steps; raises UsageError for fewer than one."""
    return amortised(field, steps(Planar, latents, 2 * latents + 1, flows), network, hidden)


@POSTERIORS.register
def radial(field: Field, latents: int, network: Build, hidden: Shape | None, flows: int = 10) -> nn.Module:
    """A diagonal Gaussian through `flows` radial steps; raises UsageError for fewer than one."""
    return amortised(field, steps(Radial, latents, latents + 2, flows), network, hidden)


def steps(step: type[Bijection], latents: int, numbers: int, flows: int) -> FlowLaw:
    """A diagonal Gaussian, then `flows` steps that `numbers` numbers describe each; in the numbers the last step comes first and the Gaussian last."""
    check_flows(flows)
    return FlowLaw(latents, *((step(), numbers) for _ in range(flows)), (Standardise(), 2 * latents))
