"""Autoregressive posteriors: the inverse one, which only draws, and the masked and spline ones, which also score."""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional as F

from vaestro.core import Shape, scores
from vaestro.data.schema import Field
from vaestro.errors import UsageError
from vaestro.families.base import Sizes, single
from vaestro.flows import Bijection, Chain, FlowDistribution, affine, autoregressive, coupling
from vaestro.flows import spline as rational_quadratic
from vaestro.networks import Build, Made
from vaestro.posteriors.base import POSTERIORS, FlowLaw, Shares, Standardise, amortised, check_flows, noise

OPEN = 2.0  # added to a gate's number, so that it starts almost open (Kingma et al. 2016, section 3: "close to +1 or +2")
CONTEXT = 100  # numbers of the network that a flow from vaestro.flows reads, and its hidden units
START = 0.1  # the scale of a step's last weights


class Gate(Bijection):
    """x = sigma u + (1 - sigma) m, sigma = sigmoid(s + 2), with m_i and s_i functions of u_<i and the context by one masked hidden layer.

    A step of the inverse autoregressive flow (Kingma et al. 2016, algorithm 1): ln |det dx/du| = sum ln sigma, in one pass. The masks are those of
    Germain et al. 2015 (MADE), and every other `layer` reads backwards. The other way would take D passes, whose errors add up: it is refused.
    """

    def __init__(self, latents: int, layer: int, width: int) -> None:
        super().__init__()
        order = torch.arange(latents)
        self.net = Made(latents, 2, (width,), width, order.flip(0) if layer % 2 else order)
        last = [m for m in self.net.modules() if isinstance(m, nn.Linear)][-1]
        with torch.no_grad():
            last.weight.mul_(START)

    def inverse(self, u: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x, and ln |det du/dx| = -sum ln sigma."""
        assert context is not None, "its network reads the context"
        m, s = single(self.net(torch.cat([u, context.expand(*u.shape[:-1], -1)], -1))).unbind(-1)
        gate = torch.sigmoid(s + OPEN)
        return m + gate * (u - m), -F.logsigmoid(s + OPEN).sum(-1)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Raises UsageError: see `OnePass`."""
        raise UsageError(STRANGER)


STRANGER = (
    "an inverse autoregressive flow scores only the values that it draws itself, so nothing can be replayed through it; "
    "use masked_autoregressive, spline, planar, radial, householder or full_covariance, which score any value"
)


class OnePass(FlowDistribution):
    """A flow that is drawn and scored in one pass, and cannot score a stranger's value."""

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "OnePass":
        """The same distribution, repeated over `batch_shape`."""
        return OnePass(self.base.expand(torch.Size(batch_shape)), self.bijection, self.context, tuple(self.event_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Raises UsageError: the log density comes with the draw, by `vaestro.core.draw`."""
        raise UsageError(STRANGER)


@scores.register
def _(dist: OnePass) -> bool:
    return False


class InverseAutoregressive(nn.Module):
    """A diagonal Gaussian, then `flows` gates that all read the same context, `width` numbers of the network."""

    def __init__(self, latents: int, flows: int, width: int) -> None:
        super().__init__()
        check_flows(flows)
        self.latents = latents
        self.bijection = Shares((Chain(Gate(latents, i, width) for i in reversed(range(flows))), width), (Standardise(), 2 * latents))

    @property
    def numbers(self) -> int:
        """How many numbers describe one distribution."""
        return self.bijection.numbers

    def forward(self, h: Tensor) -> Distribution:
        """The distribution that `h` [*lead, numbers] describes."""
        return OnePass(noise(h, self.latents), self.bijection, h)


@POSTERIORS.register
def inverse_autoregressive(field: Field, latents: int, network: Build, hidden: Shape | None, flows: int = 4, width: int = 200) -> nn.Module:
    """A diagonal Gaussian through `flows` inverse autoregressive steps of `width` hidden units (Kingma et al. 2016); raises UsageError for fewer than one."""
    return amortised(field, InverseAutoregressive(latents, flows, width), network, hidden)


@POSTERIORS.register
def masked_autoregressive(field: Field, latents: int, network: Build, hidden: Shape | None, flows: int = 2) -> nn.Module:
    """A diagonal Gaussian behind `flows` masked autoregressive steps (Papamakarios et al. 2017): scored in one pass, drawn in `latents` passes a step."""
    check_flows(flows)
    flow = autoregressive(latents, affine(), flows, CONTEXT, (CONTEXT,))
    return amortised(field, FlowLaw(latents, (Standardise(), 2 * latents), (flow, CONTEXT)), network, hidden)


@POSTERIORS.register
def spline(field: Field, latents: int, network: Build, hidden: Shape | None, flows: int = 4, bins: int = 8) -> nn.Module:
    """A diagonal Gaussian behind `flows` couplings of rational-quadratic splines of `bins` pieces (Durkan et al. 2019): fast both ways."""
    check_flows(flows)
    flow = coupling(latents, rational_quadratic(bins), flows, CONTEXT, (CONTEXT,))
    return amortised(field, FlowLaw(latents, (Standardise(), 2 * latents), (flow, CONTEXT)), network, hidden)
