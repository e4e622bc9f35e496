"""What each latent does to pictures or fields, what it has to do with labels and known factors, and whether other seeds find it again."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vaestro.data.schema import Binary, Field, Real
from vaestro.errors import UsageError
from vaestro.evaluation.metrics.disentanglement import gap
from vaestro.evaluation.scope import device_of, evaluating
from vaestro.progress import tell
from vaestro.seeds import forked, mix
from vaestro.training.finding import Named, opened
from vaestro.training.runs import Run
from vaestro.uses.inference.latents import Encoded, decoded, encoded
from vaestro.uses.rows.given import Given, require_rows, settle
from vaestro.uses.rows.lines import write_lines
from vaestro.uses.rows.pictures import require_writer, write, write_png
from vaestro.uses.traverse import use_of

LEVEL, DRAWS = 0.95, 200  # of intervals, and resamplings of rows behind them
AT_ONCE = 4_000_000  # numbers of pictures that are held at a time
LOOKED = 100  # rows at which the effect on pictures is measured


@dataclass(frozen=True)
class Link:
    """What one latent tells of one factor: the mutual information in nats with its interval, and what the factor holds in all."""

    factor: str
    nats: float
    low: float
    high: float
    entropy: float


@dataclass(frozen=True)
class Latent:
    """One latent: its KL in nats (None where it does not split), its effect in unit values, its map [*shape], its links, and how well seeds agree on it."""

    label: str
    kl: float | None
    effect: float
    map: Tensor
    links: tuple[Link, ...]
    stability: tuple[float, float, float] | None = None  # mean |correlation| with its match in other runs, the least and the largest


@dataclass(frozen=True)
class Explanation:
    """The latents in the order of their use, with what was looked at."""

    latents: tuple[Latent, ...]
    rows: int
    runs: int

    def to_json(self) -> dict[str, Any]:
        """A JSON object, without the maps."""
        each = [
            {
                "latent": z.label,
                "kl": z.kl,
                "effect": z.effect,
                "links": [vars(link) for link in z.links],
                "stability": None if z.stability is None else dict(zip(("mean", "low", "high"), z.stability, strict=True)),
            }
            for z in self.latents
        ]
        return {"rows": self.rows, "runs": self.runs, "units": {"kl": "nats a row", "effect": "unit values", "links": "nats"}, "latents": each}


def effects(run: Run, found: Encoded, told: Mapping[str, Tensor]) -> Tensor:
    """How far each latent moves each number: the mean over rows of |x(z + s e_j) - x(z - s e_j)| / 2, [numbers, *shape].

    s is the standard deviation of latent j's codes over the rows (1 where there is one row only): a step as long as those that data make.
    """
    z = found.z[:LOOKED]
    here = {n: v[:LOOKED] for n, v in told.items()}
    scale = found.z.std(0, correction=0) if len(found.z) > 1 else torch.ones_like(found.z[0])
    step = max(1, AT_ONCE // (2 * len(z) * run.field.size))
    maps = []
    for start in range(0, z.shape[1], step):
        which = torch.arange(start, min(start + step, z.shape[1]), device=z.device)
        moved = torch.zeros(len(which), z.shape[1], device=z.device, dtype=z.dtype)
        moved[torch.arange(len(which)), which] = scale[which]
        both = torch.stack([z + moved[:, None], z - moved[:, None]])  # [2, latents, rows, numbers]
        x = decoded(run, found.layout.apart(both.flatten(0, 1)), here, (2 * len(which), len(z))).unflatten(0, (2, len(which)))
        maps.append((x[0] - x[1]).abs().mean(1) / 2)
        tell("moving latents", (start + len(which)) / z.shape[1])
    return torch.cat(maps)


def links(codes: np.ndarray, factors: Mapping[str, np.ndarray], seed: int = 0) -> list[list[Link]]:
    """What each latent of codes [n, latents] tells of each factor (classes [n], whole numbers): mutual information in nats with a 95 % interval.

    The plug-in estimate with 20 bins, less what it gives when rows are shuffled (the mean of as many shuffles), and never below 0; the interval is that of a
    normal law with the spread of 200 resamplings of rows. Raises UsageError for unequal numbers of rows, or fewer than 2.
    """
    if len(codes) < 2 or any(len(v) != len(codes) for v in factors.values()):
        raise UsageError(f"what latents tell of factors needs 2 rows or more and a value for each, not {len(codes)} and {[len(v) for v in factors.values()]}")
    if not factors:
        return [[] for _ in codes.T]
    rng, table = np.random.default_rng(seed), np.stack([np.unique(v, return_inverse=True)[1] for v in factors.values()], 1)
    known = gap(codes, table)
    chance = np.mean([gap(codes, table[rng.permutation(len(table))]).information for _ in range(20)], 0)
    again = []
    for number in range(DRAWS):
        rows = rng.integers(len(codes), size=len(codes))
        again.append(gap(codes[rows], table[rows]).information)
        tell("resampling rows", (number + 1) / DRAWS)
    spread, value = np.std(again, 0, ddof=1), np.maximum(known.information - chance, 0.0)
    half = 1.959964 * spread
    return [
        [
            Link(
                name,
                float(value[j, k]),
                float(max(0.0, value[j, k] - half[j, k])),
                float(min(known.entropy[k], value[j, k] + half[j, k])),
                float(known.entropy[k]),
            )
            for k, name in enumerate(factors)
        ]
        for j in range(codes.shape[1])
    ]


def matched(codes: np.ndarray, other: np.ndarray) -> np.ndarray:
    """|correlation| of each latent of codes [n, latents] with its match among `other` [n, others]: pairs that make the sum largest; 0 where there is none.

    A latent that does not move correlates with nothing.
    """
    from scipy.optimize import linear_sum_assignment

    def standard(z: np.ndarray) -> np.ndarray:
        centred = z - z.mean(0)
        norm = np.sqrt(np.square(centred).sum(0))
        return np.asarray(np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 1e-12))

    together = np.abs(standard(codes).T @ standard(other))
    mine, theirs = linear_sum_assignment(together, maximize=True)
    found = np.zeros(codes.shape[1])
    found[mine] = np.minimum(together[mine, theirs], 1.0)
    return found


def _codes(run: Run, x: Tensor, given: Given | None) -> tuple[Encoded, dict[str, Tensor]]:
    told = settle(run, len(x), given)
    torch.manual_seed(mix(0, 28))
    return encoded(run, require_rows(run, x), told, "explain"), told


def explain(
    runs: Named | Sequence[Named], x: Float[Tensor, "b ..."], factors: Mapping[str, np.ndarray] | None = None, given: Given | None = None, most: int = 20
) -> Explanation:
    """What the latents of a run do and mean on rows x [b, *shape]: `most` of them, in the order of their KL, else of their effect.

    For each its effect on x (`effects`: its mean and its map), what it tells of `factors` (classes of the same rows by name; `links`), and, where several
    runs are given, how well it is found again: the mean, least and largest |correlation| of its codes with those of its match in each other run (`matched`).

    Raises UsageError for no runs, runs on other data, latents that are classes or lie on a sphere, and a model without a posterior.
    """
    every = [opened(run) for run in ([runs] if isinstance(runs, Named) else runs)]
    if not every or most < 1:
        raise UsageError("an explanation needs a run and 1 latent or more; give both")
    first = every[0]
    for other in every[1:]:
        if other.about["data"]["sha256"] != first.about["data"]["sha256"]:
            raise UsageError(f"{other.name} was trained on other data than {first.name}, so their latents have no match; give runs of the same data")
    with forked(device_of(first.model)), evaluating(first.model):
        found, told = _codes(first, x, given)
        kl, maps = use_of(found), effects(first, found, told)
    codes = found.z.double().cpu().numpy()
    linked = links(codes, factors, 0) if factors else [[] for _ in codes.T]
    alike = [matched(codes, _others(run, x, given)) for run in every[1:]]
    effect = maps.flatten(1).mean(1)
    order = (effect if kl is None else kl).argsort(descending=True, stable=True)[:most].tolist()
    latents = [
        Latent(
            found.layout.labels[j],
            None if kl is None else float(kl[j]),
            float(effect[j]),
            maps[j].cpu(),
            tuple(sorted(linked[j], key=lambda link: -link.nats)),
            _spread([each[j] for each in alike]),
        )
        for j in order
    ]
    return Explanation(tuple(latents), len(x), len(every))


def _others(run: Run, x: Tensor, given: Given | None) -> np.ndarray:
    with forked(device_of(run.model)), evaluating(run.model):
        return np.asarray(_codes(run, x, given)[0].z.double().cpu().numpy())


def _spread(each: list[float]) -> tuple[float, float, float] | None:
    return (math.fsum(each) / len(each), float(min(each)), float(max(each))) if each else None


def write_explanation(path: Path, run: Run, found: Explanation) -> list[str]:
    """The maps of the latents as a labelled picture, each from 0 (black) to its own largest (white); or as numbers, a row for each latent."""
    maps = torch.stack([z.map for z in found.latents])
    if require_writer(path) is not write_png or len(run.field.shape) != 3:
        return write(path, Field(run.field.name, Real(), run.field.shape), maps)
    most = maps.flatten(1).amax(1).clamp(min=1e-12)
    words = [f"{z.label}: {z.effect:.3f}" for z in found.latents]
    write_lines(path, Field(run.field.name, Binary(), run.field.shape), (maps / most[:, None, None, None])[None], words=words)
    return ["each map from 0 (black) to its own largest change (white); the number is the mean change in unit values"]
