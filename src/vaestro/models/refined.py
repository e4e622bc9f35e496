"""Semi-amortised inference: the encoder proposes, a few steps of ascent on the bound of each row refine."""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaestro.core import Batch, Draw, Program, Seen, Site, Value, content, run, take
from vaestro.errors import UsageError
from vaestro.families.base import FLOOR
from vaestro.models.base import VAE
from vaestro.registry import Registry

Slope: TypeAlias = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]  # (a function of numbers, numbers) to its gradient there
SLOPES: Registry[Slope] = Registry("slope")


@SLOPES.register
def straight(bound: Callable[[Tensor], Tensor], numbers: Tensor) -> Tensor:
    """The gradient as a constant, as in Marino et al. 2018: nothing is trained through it. For any likelihood."""
    at = numbers.detach().requires_grad_()
    return torch.autograd.grad(bound(at), at)[0]


@SLOPES.register
def exact(bound: Callable[[Tensor], Tensor], numbers: Tensor) -> Tensor:
    """The gradient with its own derivatives, as in Kim et al. 2018, algorithm 1: encoder and decoder are trained through the ascent.

    Needs a likelihood that differentiates twice, which masses of bins do not everywhere.
    """
    at = numbers if numbers.requires_grad else numbers.detach().requires_grad_()
    return torch.autograd.grad(bound(at), at, create_graph=numbers.requires_grad)[0]


class Ascent(NamedTuple):
    """`steps` of ascent on a row's bound, each at most `size` scales of every latent long, and how their gradient is taken."""

    steps: int = 5
    size: float = 0.1
    slope: Slope = straight


class SemiAmortised(VAE):
    """A VAE whose posterior is refined row by row before it is used: in training, in evaluation, wherever the program runs (Kim et al. 2018).

    From q = N(m, s^2) of the encoder, each step follows the natural gradient of the row's ELBO (Hoffman et al. 2013) in units of s, clipped to [-1, 1]:
    m <- m + size s clip(s dELBO/dm), ln s <- ln s + size clip(dELBO/dln s / 2). (The paper follows the plain gradient, cut to a length of 5.)
    What is drawn, scored and reported comes from the refined q, so `log_w` bounds the likelihood as for any VAE. The ELBO of step i is taken at the two
    points m +- s e_i, with signs e_i that are drawn once and saved, so that q is a function of x alone and a trace can be replayed. Where x was
    seen in part (`Seen`), only that part is scored. Raises UsageError unless the posterior is a diagonal Gaussian.
    """

    signs: Tensor

    def __init__(self, prior: nn.Module, posterior: nn.Module, likelihood: nn.Module, ascent: Ascent) -> None:
        super().__init__(prior, posterior, likelihood)
        if ascent.steps < 0 or not (math.isfinite(ascent.size) and ascent.size > 0):
            raise UsageError(f"a posterior cannot be refined by {ascent.steps} steps of size {ascent.size}; give 0 or more steps of a positive size")
        self.ascent = ascent
        event: torch.Size = prior().event_shape
        self.register_buffer("signs", torch.randint(2, (ascent.steps, *event)) * 2.0 - 1)

    def program(self, batch: Batch | None = None) -> Program:
        """z ~ p(z) with the refined q(z | x), then x ~ p(x | z)."""
        return self._given(None if batch is None or "x" not in batch else self.refined(batch))

    def _given(self, q: Distribution | None) -> Program:
        z = yield Site("z", self.prior(), q)
        yield Site("x", self.likelihood(z))

    def refined(self, batch: Batch) -> Distribution:
        """q(z | x) after its refinement, of batch shape [b]."""
        if not self.ascent.steps:
            return self._amortised(batch)
        learning = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.enable_grad():  # the ascent needs gradients where nobody else does, as in evaluation
            given = {n: usable(v) for n, v in batch.items()}
            q = self._amortised(given)
            if not (isinstance(q, Independent) and isinstance(q.base_dist, Normal)):
                raise UsageError("a posterior is refined where it is a diagonal Gaussian; give the posterior the family Gaussian")
            numbers = torch.stack([q.base_dist.loc, q.base_dist.scale.log()])
            numbers = numbers if learning else numbers.detach()
            for signs in self.signs:
                numbers = self._risen(numbers, given, signs)
            return _gaussian(numbers)

    def _amortised(self, batch: Batch) -> Distribution:
        q: Distribution = self.posterior(content(batch["x"]))
        return q

    def _risen(self, numbers: Tensor, given: Batch, signs: Tensor) -> Tensor:
        by_loc, by_log_scale = self.ascent.slope(lambda at: self._bound(at, given, signs).sum(), numbers)
        loc, log_scale = numbers
        scale = log_scale.exp()
        loc = loc + self.ascent.size * scale * (scale * by_loc).clamp(-1, 1)
        log_scale = log_scale + self.ascent.size * (by_log_scale / 2).clamp(-1, 1)
        return torch.stack([loc, log_scale.clamp(min=math.log(FLOOR))])

    def _bound(self, numbers: Tensor, given: Batch, signs: Tensor) -> Tensor:
        """The ELBO of each row at two points of the Gaussian that these numbers describe, [b]."""
        q = _gaussian(numbers)
        points = q.mean + q.stddev * torch.stack([signs, -signs]).unsqueeze(1)

        def choose(site: Site) -> Draw:
            if site.posterior is None:
                return take(site, tuple(points.shape[:2]), given.get(site.name))
            return Draw(points, site.prior, q, site.prior.log_prob(points), q.log_prob(points), False)

        trace = run(self._given(q), choose)
        bound: Tensor = trace.log_px - trace.kl
        return bound.mean(0)


def _gaussian(numbers: Tensor) -> Distribution:
    loc, log_scale = numbers
    return Independent(Normal(loc, log_scale.exp(), validate_args=False), loc.dim() - 1, validate_args=False)


def usable(value: Value) -> Value:
    """A copy that autograd may keep, where the value was made for inference only."""
    if isinstance(value, Seen):
        return Seen(*(t.clone() if t.is_inference() else t for t in value))
    return value.clone() if value.is_inference() else value
