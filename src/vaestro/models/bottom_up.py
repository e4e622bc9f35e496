"""Layers of latents whose posterior climbs, x to z1 to z2, while the prior descends, z2 to z1 to x."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from vaestro.core import Batch, Draw, Model, Program, Shape, Site, Trace, centre, draw, run, scores, total
from vaestro.families.base import Sizes
from vaestro.models.base import data_of


class Joint(Distribution):
    """Several vectors at once, told as a program of its own, in its own order: log p is the sum over its sites, in nats.

    `program` yields a site for each name in `sizes`, whose prior is its law given the sites before it; an event is the vectors side by side in the order
    of `sizes`, [sum of the sizes].
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, program: Callable[[], Program], sizes: Mapping[str, int], batch_shape: Shape = ()) -> None:
        self.program, self.sizes = program, dict(sizes)
        super().__init__(torch.Size(batch_shape), torch.Size([sum(sizes.values())]), validate_args=False)

    def expand(self, batch_shape: Sizes, _instance: Distribution | None = None) -> "Joint":
        """The same distribution, repeated over `batch_shape`."""
        return Joint(self.program, self.sizes, tuple(batch_shape))

    def split(self, value: Tensor) -> dict[str, Tensor]:
        """An event's vectors by name."""
        return dict(zip(self.sizes, value.split(list(self.sizes.values()), -1), strict=True))

    def each(self, value: Tensor) -> dict[str, Tensor]:
        """The log density of each vector given those before it, by name."""
        values = self.split(value)
        trace = run(self.program(), lambda site: _scored(site, values[site.name], site.prior.log_prob(values[site.name])))
        return {name: torch.as_tensor(d.log_p) for name, d in trace.items()}

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of each event, in nats."""
        log_p = total(self.each(value).values())
        return log_p.expand(torch.broadcast_shapes(log_p.shape, self.batch_shape))

    def rsample(self, sample_shape: Sizes = torch.Size()) -> Tensor:
        """Samples that differentiate."""
        return self.draw(tuple(sample_shape))[0]

    def draw(self, shape: Shape) -> tuple[Tensor, Tensor]:
        """Samples and their log densities in one run."""
        lead = (*shape, *self.batch_shape)
        trace = run(self.program(), lambda site: _scored(site, *draw(site.prior, lead[: len(lead) - len(site.prior.batch_shape)])))
        return self._joined(trace), total(d.log_p for d in trace.values())

    def middle(self) -> Tensor:
        """Each vector's middle given the middles of those before it."""
        trace = run(self.program(), lambda site: _scored(site, centre(site.prior), torch.zeros(())))
        return self._joined(trace)

    def _joined(self, trace: Trace) -> Tensor:
        values = [trace[name].value for name in self.sizes]
        lead = torch.broadcast_shapes(*(v.shape[:-1] for v in values))
        return torch.cat([v.expand(*lead, v.shape[-1]) for v in values], -1)


def _scored(site: Site, value: Tensor, log_p: Tensor) -> Draw:
    return Draw(value, site.prior, None, log_p, 0.0, True)


@draw.register
def _(dist: Joint, shape: Shape) -> tuple[Tensor, Tensor]:
    return dist.draw(shape)


@centre.register
def _(dist: Joint) -> Tensor:
    return dist.middle()


@scores.register
def _(dist: Joint) -> bool:
    return True  # its sites end in families, which score any value


class BottomUp(Model):
    """p(z_L) p(z_(L-1) | z_L) ... p(x | z_1) with q(z_1 | x) q(z_2 | z_1) ... (Rezende et al. 2014; Burda et al. 2016, section 5).

    The two run in opposite orders, so all layers are one site `z`, [z_1, .., z_L] side by side: two `Joint` distributions. `highest` is a module without
    arguments, `down[i]` one of z_(i+2) that returns p(z_(i+1) | z_(i+2)), `up[i]` one of the layer below z_(i+1), x for the first.
    """

    def __init__(self, highest: nn.Module, down: Sequence[nn.Module], up: Sequence[nn.Module], likelihood: nn.Module, sizes: Shape) -> None:
        super().__init__()
        self.highest, self.down, self.up, self.likelihood = highest, nn.ModuleList(down), nn.ModuleList(up), likelihood
        self.sizes = {f"z{i + 1}": size for i, size in enumerate(sizes)}

    def descend(self) -> Program:
        """The prior: z_L first."""
        z = yield Site(f"z{len(self.sizes)}", self.highest())
        for i in reversed(range(len(self.down))):
            z = yield Site(f"z{i + 1}", self.down[i](z))

    def climb(self, first: Distribution) -> Program:
        """The posterior: z_1 first."""
        z = yield Site("z1", first)
        for i in range(1, len(self.up)):
            z = yield Site(f"z{i + 1}", self.up[i](z))

    def program(self, batch: Batch | None = None) -> Program:
        """All layers at once, then x."""
        x = data_of(batch)
        q = None
        if x is not None:
            first: Distribution = self.up[0](x)
            q = Joint(lambda: self.climb(first), self.sizes, tuple(first.batch_shape))
        z = yield Site("z", Joint(self.descend, self.sizes), q)
        yield Site("x", self.likelihood(z[..., : self.sizes["z1"]]))


@torch.no_grad()
def kl_of_layers(trace: Trace) -> dict[str, Tensor | float]:
    """The KL of each layer of a `BottomUp` model, estimated by the draws, in nats: log q(z_i | below) - log p(z_i | above), its mean over draws and rows."""
    site = trace["z"]
    if not (isinstance(site.posterior, Joint) and isinstance(site.prior, Joint)):
        return {}
    p, q = site.prior.each(site.value), site.posterior.each(site.value)
    return {f"kl_{name}": (q[name] - p[name]).mean() for name in q}
