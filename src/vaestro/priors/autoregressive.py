"""A prior that draws its latents one after the other, each from a mixture of Gaussians of those before it."""

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily, Normal, constraints

from vaestro.data.schema import Field
from vaestro.errors import UsageError
from vaestro.families.base import Sizes, positive, single
from vaestro.networks import Made
from vaestro.priors.base import PRIORS


class AutoregressiveMixture(Distribution):
    """p(z) = prod_d sum_k w_k(z_<d) N(z_d; m_k(z_<d), s_k(z_<d)^2) over [D], in nats: scored in one pass of `net`, sampled in D.

    `net` maps [..., D] to [..., D, 3K], of which those of feature d see z_<d alone.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector

    def __init__(self, net: nn.Module, like: Tensor, batch_shape: Sizes = torch.Size()) -> None:
        self.net, self.like = net, like
        super().__init__(torch.Size(batch_shape), like.shape, validate_args=False)

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "AutoregressiveMixture":
        """The same distribution, repeated over `batch_shape`."""
        return AutoregressiveMixture(self.net, self.like, batch_shape)

    def each(self, value: Tensor) -> MixtureSameFamily:
        """The conditionals p(z_d | z_<d) at `value` [..., D], one for every feature."""
        h: Tensor = self.net(value)
        logits, loc, s = single(h).chunk(3, -1)
        spread = torch.linspace(-1, 1, logits.shape[-1] + 2, dtype=loc.dtype, device=loc.device)[1:-1]  # equal components would stay equal for ever
        parts = Normal(loc + spread, positive(s), validate_args=False)
        return MixtureSameFamily(Categorical(logits=logits, validate_args=False), parts, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of each [D], in nats."""
        log_p: Tensor = self.each(value).log_prob(value).sum(-1)
        return log_p.expand(torch.broadcast_shapes(log_p.shape, self.batch_shape))

    @torch.no_grad()
    def sample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Feature by feature: after pass d the first d are drawn; no gradient."""
        z = torch.zeros(self._extended_shape(torch.Size(sample_shape)), dtype=self.like.dtype, device=self.like.device)
        for d in range(self.like.shape[0]):
            z[..., d] = self.each(z).sample()[..., d]
        return z


class Autoregressive(nn.Module):
    """The module of `AutoregressiveMixture`: a masked network of the widths `hidden` and `components` Gaussians for each of [latents]; nats.

    Raises UsageError for fewer than one component.
    """

    like: Tensor

    def __init__(self, latents: int, components: int = 5, hidden: tuple[int, ...] = (256, 256)) -> None:
        super().__init__()
        if components < 1:
            raise UsageError(f"a mixture cannot have {components} components; give one or more")
        self.net = Made(latents, 3 * components, hidden)
        self.register_buffer("like", torch.zeros(latents), persistent=False)

    def forward(self) -> Distribution:
        """The distribution, of batch shape ()."""
        return AutoregressiveMixture(self.net, self.like)


@PRIORS.register
def autoregressive(latents: int, posterior: nn.Module, field: Field, components: int = 5) -> nn.Module:
    """Each latent from a mixture of `components` Gaussians that a masked network predicts from those before it; sampled one by one (Germain et al. 2015)."""
    return Autoregressive(latents, components)
