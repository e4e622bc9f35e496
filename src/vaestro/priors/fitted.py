"""Priors that are fitted to the latents of a trained model: which there are, and how each is fitted."""

import functools
import inspect
import math
import warnings
from collections.abc import Callable
from functools import singledispatch
from typing import Annotated, Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, ReshapeTransform, TransformedDistribution

from vaestro.data.schema import Field, Shape
from vaestro.errors import UsageError
from vaestro.families.base import FLOOR, is_discrete
from vaestro.flows import Flow, Rescale
from vaestro.priors.base import StandardNormal
from vaestro.priors.mixtures import COVARIANCES, Covariance, DiagonalMixture, FullMixture, GaussianMixture
from vaestro.registry import Registry
from vaestro.seeds import places

Descend: TypeAlias = Callable[[nn.Module], dict[str, Any]]  # maximum likelihood by gradients; says how it went


class Latents(NamedTuple):
    """What a prior that is fitted later may know when it is built: shapes and parts of the model, and no row of the data."""

    event: Shape
    old: nn.Module  # the prior that it replaces, which knows of codes how many there are
    posterior: nn.Module
    field: Field


Fitted: TypeAlias = Callable[..., nn.Module]  # (latents: Latents, **keywords) -> a module without arguments that returns a distribution over the event
FITTED: Registry[Fitted] = Registry("prior to fit")
VECTORS: set[str] = set()  # names of priors over real vectors


@singledispatch
def replaceable(dist: Distribution) -> bool:
    """Whether a density over all real vectors, or codes, may stand in the place of a prior. Open: one on a sphere, in a ball or over shares registers False."""
    return True


@replaceable.register
def _(dist: Independent) -> bool:  # type: ignore[type-arg]
    return replaceable(dist.base_dist)


@singledispatch
def fit(prior: nn.Module, rows: Tensor, held: Tensor, descend: Descend) -> dict[str, Any]:
    """Fit `prior` to latents `rows` [n, *event], watching `held` ones, and say how: by gradients, with early stopping, unless its type knows better. Open."""
    return descend(prior)


@singledispatch
def lesson(prior: nn.Module, z: Tensor) -> Tensor:
    """What a fit by gradients minimises at latents `z` [n, *event], and held-out ones are judged by: [n], -log p(z) in nats unless its type says else. Open."""
    loss: Tensor = -prior().log_prob(z)
    return loss


class Standardised(nn.Module):
    """What priors share that work on (z - loc) / scale, the latents [D] with mean 0 and variance 1."""

    loc: Tensor
    scale: Tensor

    def __init__(self, latents: int) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(latents))
        self.register_buffer("scale", torch.ones(latents))

    @torch.no_grad()
    def start(self, rows: Tensor) -> None:
        """Takes the mean and the scale of latents [n, D]."""
        self.loc.copy_(rows.mean(0))
        self.scale.copy_(rows.std(0, correction=0) + FLOOR)


@fit.register
def _(prior: Standardised, rows: Tensor, held: Tensor, descend: Descend) -> dict[str, Any]:
    prior.start(rows)
    return descend(prior)


class Reshaped(nn.Module):
    """A prior over vectors, shown in another shape of as many numbers."""

    def __init__(self, prior: nn.Module, event: Shape) -> None:
        super().__init__()
        self.prior, self.event = prior, tuple(event)

    def forward(self) -> Distribution:
        """The distribution over events of that shape."""
        flat: Distribution = self.prior()
        return TransformedDistribution(flat, [ReshapeTransform(flat.event_shape, torch.Size(self.event))], validate_args=False)


def over_vectors(build: Callable[..., nn.Module]) -> Fitted:
    """A builder (latents: int, posterior, field, keywords) of a prior over real vectors as one of fitted priors over real events of any shape.

    It raises UsageError where the latents are codes, naming the priors over codes.
    """
    VECTORS.add(build.__name__)

    @functools.wraps(build)
    def fitted(latents: Latents, **settings: Any) -> nn.Module:
        if is_discrete(latents.old()):
            codes = ", ".join(n for n in FITTED if n not in VECTORS)
            raise UsageError(f"the latents of this model are codes, and {build.__name__} is a prior over real numbers; priors over codes: {codes}")
        prior = build(math.prod(latents.event), latents.posterior, latents.field, **settings)
        return prior if len(latents.event) == 1 else Reshaped(prior, latents.event)

    own = list(inspect.signature(build).parameters.values())[3:]
    first = inspect.Parameter("latents", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    fitted.__signature__ = inspect.Signature([first, *own])  # type: ignore[attr-defined]
    return fitted


def gmm(latents: int, posterior: nn.Module, field: Field, components: int = 10, covariance: Annotated[Covariance, COVARIANCES] = FullMixture) -> nn.Module:
    """A mixture of `components` Gaussians with `full` or `diagonal` covariances, by expectation maximisation (scikit-learn)."""
    return covariance(latents, components)


class Kde(nn.Module):
    """A Gaussian around each of `count` encoded rows: log p(z) = logsumexp_n log N(z; z_n, diag s^2) - log n, one s for all rows (Parzen 1962); nats."""

    rows: Tensor

    def __init__(self, latents: int, count: int) -> None:
        super().__init__()
        if count < 1:
            raise UsageError(f"a prior cannot stand on {count} rows; give one or more")
        self.register_buffer("rows", torch.randn(count, latents))
        self.log_scale = nn.Parameter(torch.zeros(latents))

    def forward(self) -> Distribution:
        """The mixture, of batch shape ()."""
        return DiagonalMixture(self.rows.new_zeros(()), self.rows, (self.log_scale.exp() + FLOOR).expand_as(self.rows))


def kde(latents: int, posterior: nn.Module, field: Field, rows: int = 1000) -> nn.Module:
    """A Gaussian around each of `rows` encoded rows, as wide as validation rows like it best."""
    return Kde(latents, rows)


FITTED.add("gmm", over_vectors(gmm))
FITTED.add("kde", over_vectors(kde))


@fit.register
def _(prior: Reshaped, rows: Tensor, held: Tensor, descend: Descend) -> dict[str, Any]:
    flat, apart = rows.flatten(1), held.flatten(1)
    return fit(prior.prior, flat, apart, descend)


@fit.register
def _(prior: StandardNormal, rows: Tensor, held: Tensor, descend: Descend) -> dict[str, Any]:
    return {}  # it has nothing to learn


@fit.register
def _(prior: Flow, rows: Tensor, held: Tensor, descend: Descend) -> dict[str, Any]:
    for part in prior.modules():
        if isinstance(part, Rescale):
            part.start(rows.flatten(1))
    return descend(prior)


@fit.register
@torch.no_grad()
def _(prior: Kde, rows: Tensor, held: Tensor, descend: Descend) -> dict[str, Any]:
    order = places(len(prior.rows), len(rows), rows.device)
    prior.rows.copy_(rows[order])
    spread = rows.std(0, correction=0).clamp(min=FLOOR)
    widths = torch.logspace(-2, 0.3, 24).tolist()

    def score(width: float) -> float:
        prior.log_scale.copy_((width * spread).log())
        return float(prior().log_prob(held).mean())

    best = max(widths, key=score)
    score(best)
    return {"width": best, "tried": len(widths)}


@fit.register(GaussianMixture)
@fit.register(FullMixture)
@torch.no_grad()
def _(prior: GaussianMixture | FullMixture, rows: Tensor, held: Tensor, descend: Descend) -> dict[str, Any]:
    found = expectation_maximisation(rows, len(prior.logits), "full" if isinstance(prior, FullMixture) else "diag")
    weights, means, covariances = (torch.from_numpy(a).to(rows.device) for a in (found.weights_, found.means_, found.covariances_))
    prior.become(weights.clamp(min=1e-30), means, covariances)
    return {"iterations": int(found.n_iter_), "converged": bool(found.converged_)}


def expectation_maximisation(rows: Tensor, components: int, covariances: str) -> Any:
    """scikit-learn's mixture, fitted in float64, its seed from torch's generator; raises UsageError without scikit-learn, or with too few rows."""
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture as Mixture
    except ModuleNotFoundError:
        raise UsageError("a gmm is fitted by scikit-learn, which is not installed; install it with: pip install 'vaestro[science]'") from None
    if len(rows) < max(2, components):
        raise UsageError(f"{components} components cannot be fitted to {len(rows)} rows; choose fewer components")
    seed = int(torch.randint(2**31 - 1, ()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # whether it converged is told in run.json
        return Mixture(components, covariance_type=covariances, max_iter=200, random_state=seed).fit(rows.double().cpu().numpy())
