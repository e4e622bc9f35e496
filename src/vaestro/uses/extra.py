"""Ways to make extra rows of a class: by a model, among the latents of its rows, or among the rows themselves."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from vaestro.core import Draw, Trace
from vaestro.data.schema import Named, Table
from vaestro.errors import UsageError
from vaestro.evaluation.metrics.subject import as_shown
from vaestro.evaluation.scope import device_of, evaluating
from vaestro.families.base import is_discrete
from vaestro.registry import Registry
from vaestro.seeds import forked, mix
from vaestro.training.runs import Run, title
from vaestro.uses.embed import grouped
from vaestro.uses.rows.given import givable, settle
from vaestro.uses.rows.legal import legal
from vaestro.uses.rows.lots import LABEL, of_tensor

NEIGHBOURS = 5  # of SMOTE


class Ask(NamedTuple):
    """What extra rows are made from: a run, real rows [m, *shape] of the class in unit values, which class it is, how many rows, and a seed."""

    run: Run
    rows: Tensor
    label: int
    n: int
    seed: int


Maker: TypeAlias = Callable[[Ask], Tensor]  # extra rows [n, *shape], legal values of the field in the units that models read
MAKERS: Registry[Maker] = Registry("way to make extra rows")


@MAKERS.register
def conditional(ask: Ask) -> Tensor:
    """x ~ p(x | z, y = c), z ~ p(z): by a model that is told the class, or describes it. Refused where it can be neither."""
    if LABEL not in givable(ask.run):
        raise UsageError(f"{title(ask.run.about)} cannot be given a class; choose --by mixture, kde or interpolation, or train cvae or m2")
    with forked(device_of(ask.run.model)), evaluating(ask.run.model):
        torch.manual_seed(mix(ask.seed, 31))
        return _rows(ask, _dreamt(ask, {}, ask.n)[ask.run.field.name])


@MAKERS.register
def mixture(ask: Ask) -> Tensor:
    """Latents from a mixture of one to five Gaussians, by BIC, fitted to the posterior means of the class' rows; then p(x | z)."""
    from sklearn.mixture import GaussianMixture

    z, sizes = _latents(ask)
    spread = float(z.var(0).mean()) or 1.0
    fits = [GaussianMixture(k, reg_covar=1e-3 * spread, random_state=ask.seed).fit(z) for k in range(1, min(5, len(z) // 2) + 1)]
    best = min(fits, key=lambda made: float(made.bic(z)))
    return _decoded(ask, np.asarray(best.sample(ask.n)[0]), sizes)


@MAKERS.register
def kde(ask: Ask) -> Tensor:
    """Latents from a kernel density of the class' posterior means, Gaussian with Scott's width s m^(-1 / (d + 4)) in each direction; then p(x | z)."""
    z, sizes = _latents(ask)
    rng = np.random.default_rng(ask.seed)
    width = z.std(0, ddof=1) * len(z) ** (-1 / (z.shape[1] + 4))
    return _decoded(ask, z[rng.integers(len(z), size=ask.n)] + width * rng.standard_normal((ask.n, z.shape[1])), sizes)


@MAKERS.register
def interpolation(ask: Ask) -> Tensor:
    """Latents at a random place between a row of the class and one of its 5 nearest there; then p(x | z)."""
    z, sizes = _latents(ask)
    base, other, u = _pairs(z, ask)
    return _decoded(ask, z[base] + u[:, None] * (z[other] - z[base]), sizes)


@MAKERS.register
def smote(ask: Ask) -> Tensor:
    """Rows at a random place between a row of the class and one of its 5 nearest in the data (Chawla et al. 2002); a category is that of either."""
    flat = ask.rows.flatten(1).double().numpy()
    usual = np.nan_to_num(np.nanmean(np.where(np.isnan(flat).all(0), 0.0, flat), 0))
    base, other, u = _pairs(np.where(np.isnan(flat), usual, flat), ask)
    a, b = flat[base], flat[other]
    between = np.where(np.isnan(b), a, a + u[:, None] * (b - a))
    if isinstance(ask.run.field.kind, Table):
        whole = [i for i, column in enumerate(ask.run.field.kind.columns) if isinstance(column, Named)]
        between[:, whole] = np.where(u[:, None] < 0.5, a[:, whole], b[:, whole])
    return legal(ask.run.field.kind, torch.from_numpy(between).float().reshape(-1, *ask.run.field.shape))


def _dreamt(ask: Ask, latents: dict[str, Tensor], n: int) -> Trace:
    """What the model says of `n` rows of the class, where its latents take these values."""
    model = ask.run.model
    told = settle(ask.run, n, {LABEL: ask.label} if LABEL in givable(ask.run) else None)
    inside = {name: v for name, v in told.items() if name in model.observed}
    return model.generate(n, {**latents, **inside}, {name: v for name, v in told.items() if name not in inside} or None)


def _pairs(z: np.ndarray, ask: Ask) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, a near neighbour of each, and a place between the two."""
    from sklearn.neighbors import NearestNeighbors

    rng, k = np.random.default_rng(ask.seed), min(NEIGHBOURS, len(z) - 1)
    near = NearestNeighbors(n_neighbors=k + 1).fit(z).kneighbors(z, return_distance=False)
    near = np.stack([row[row != i][:k] for i, row in enumerate(near)])
    base = rng.integers(len(z), size=ask.n)
    return base, near[base, rng.integers(k, size=ask.n)], rng.random(ask.n)


def _latents(ask: Ask) -> tuple[np.ndarray, dict[str, int]]:
    """Posterior means of the class' rows, [m, latents], and how many numbers each group has; refuses classes and codes, between which nothing lies."""
    run = ask.run
    told = {LABEL: ask.label} if LABEL in givable(run) else None
    parts = list(grouped(run, of_tensor(run, ask.rows), given=told))
    found = {n: np.concatenate([p[n] for p in parts]).astype(np.float64) for n in parts[0]}
    with forked(device_of(run.model)), evaluating(run.model):
        dreamt = _dreamt(ask, {}, 1)
    for name in found:
        if is_discrete(dreamt[name].prior):
            raise UsageError(f"the latents {name!r} of {title(run.about)} are classes or codes, with nothing between them; choose --by smote or conditional")
    return np.concatenate(list(found.values()), 1), {n: v.shape[1] for n, v in found.items()}


def _decoded(ask: Ask, z: np.ndarray, sizes: dict[str, int]) -> Tensor:
    device = device_of(ask.run.model)
    with forked(device), evaluating(ask.run.model):
        torch.manual_seed(mix(ask.seed, 32))
        one = _dreamt(ask, {}, 1)
        parts = torch.from_numpy(z).float().to(device).split(list(sizes.values()), 1)
        latents = {n: part.reshape(ask.n, *one[n].value.shape[1:]) for n, part in zip(sizes, parts, strict=True)}
        return _rows(ask, _dreamt(ask, latents, ask.n)[ask.run.field.name])


def _rows(ask: Ask, drawn: Draw) -> Tensor:
    """What stands beside real rows, as legal values."""
    kind = ask.run.field.kind
    return legal(kind, as_shown(kind, drawn).reshape(-1, *ask.run.field.shape).float().cpu())
