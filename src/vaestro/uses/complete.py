"""Pictures with holes, completed: what may have stood there, and how likely each is."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from vaestro.core import draw, partial_log_prob
from vaestro.errors import UsageError
from vaestro.evaluation.metrics.subject import mean_of
from vaestro.evaluation.scope import at_rest, device_of
from vaestro.progress import tell
from vaestro.seeds import forked, mix
from vaestro.training.finding import by_name
from vaestro.training.runs import Run, title
from vaestro.uses.denoise import encoded_fill, require_effort, steps_of
from vaestro.uses.inference.latents import said
from vaestro.uses.inference.posterior_draws import USUAL, Effort, Known, Refine, hamiltonian, posterior_draws
from vaestro.uses.rows.given import Given, readable, require_rows, settle

LOOKS = 4  # times that a hole is filled by what the model makes of the last filling, before it proposes


class Completions(NamedTuple):
    """Completed rows that all weigh the same: `rows` [draws, b, *shape] drawn from p(x | z), `means` the means of p(x | z) in the holes."""

    rows: Tensor
    means: Tensor
    effective: Tensor  # effective number of importance samples of each row, [b]
    accepted: float  # share of moves; NaN without any

    @property
    def mean(self) -> Tensor:
        """E[x_unseen | x_seen], [b, *shape]: the best estimate in squared error, blurred where several things may have stood."""
        settled = (self.means == self.means[0]).all(0)  # what was seen stays as it is: a mean of equal numbers may round
        return torch.where(settled, self.means[0], self.means.mean(0))


class Choice(NamedTuple):
    """Unlike completions of one row [k, *shape], the probability of each and its standard error [k]; the likeliest first."""

    pictures: Tensor
    probability: np.ndarray
    error: np.ndarray


@by_name
def complete(  # noqa: PLR0913 (the options of a use, each by its name)
    run: Run,
    x: Tensor | np.ndarray,
    seen: Tensor | np.ndarray,
    effort: Effort = USUAL,
    refine: Refine = hamiltonian,
    seed: int = 0,
    *,
    given: Given | None = None,
) -> Completions:
    """Draws of p(x_unseen | x_seen) for rows x [b, *shape]; `seen` is true where x is known, [*shape] for all rows or [b, *shape].

    z ~ p(z | x_seen), in proportion to p(z) p(x_seen | z): importance resampling of q(z | .) at several fillings of the hole (zeros, the nearest seen
    numbers, and what the model makes of these), then `moves` of `refine`: hamiltonian, langevin, gibbs (with the Metropolis correction of Mattei &
    Frellsen 2018, algorithm 2) or none; then x_unseen ~ p(x | z). Exact as samples or moves grow. Seen numbers come back as they are, to the bit; unseen
    ones are never read. The same seed gives the same rows. A model that is told something needs it in `given`.

    Raises UsageError for a mask of another shape, one that is empty or full, a model without a posterior or a density, a likelihood that cannot score a part
    of a picture, and latents that `refine` cannot move.
    """
    require_effort(effort)
    x = readable(run, x)
    mask = require_mask(run, x, seen)
    x, told = require_rows(run, torch.where(mask, x, torch.zeros_like(x))), settle(run, len(x), given)
    parts = []
    with forked(device_of(run.model)), at_rest(run.model), torch.no_grad():
        for number, part in enumerate(steps_of(run, len(x), effort)):
            torch.manual_seed(mix(seed, number, 27))
            here = {n: v[part] for n, v in told.items()}
            parts.append(_completed(run, (x[part], mask[part]), here, effort, refine))
            tell("completing", part.stop / len(x))
    rows, means = (torch.cat([getattr(p, name) for p in parts], 1) for name in ("rows", "means"))
    return Completions(rows, means, torch.cat([p.effective for p in parts]), sum(p.accepted * p.rows.shape[1] for p in parts) / len(x))


def require_mask(run: Run, x: Tensor, seen: Tensor | np.ndarray) -> Tensor:
    """The mask for every row, [b, *shape], where the rows are; raises UsageError for another shape or type, for nothing seen and for nothing to complete."""
    shape, seen = torch.Size(run.field.shape), torch.as_tensor(seen, device=x.device)
    if seen.dtype != torch.bool:
        raise UsageError(f"the mask holds {str(seen.dtype).removeprefix('torch.')}, which could mean either; give booleans, true where x is known (mask == 1)")
    if seen.shape not in (shape, x.shape):
        raise UsageError(f"the mask is shaped {tuple(seen.shape)}, and a row of {run.name} is {tuple(shape)}; give one of that shape, or one for each row")
    mask = seen.expand(len(x), *shape)
    whole = mask.flatten(1)
    if bool(whole.all(1).any()):
        raise UsageError("the mask leaves nothing to complete in some row; mark a hole, or use `vaestro reconstruct`")
    if not bool(whole.any(1).all()):
        raise UsageError("the mask hides all of some row, so nothing is known of it; leave something to see, or use `vaestro generate`")
    return mask


def _completed(run: Run, rows: tuple[Tensor, Tensor], told: dict[str, Tensor], effort: Effort, refine: Refine) -> Completions:
    x, mask = rows

    def evidence(law: Distribution) -> Tensor:
        return partial_log_prob(law, x, mask)

    def redraw(law: Distribution) -> Tensor:
        lead = (effort.draws, len(x))
        return torch.where(mask, x, draw(law, lead[: len(lead) - len(law.batch_shape)])[0])

    found = posterior_draws(run, fillings(run, x, mask, told), Known(told, evidence, redraw), effort, refine)
    last = said(run, found.layout.apart(found.z), told, tuple(found.z.shape[:2]))
    means = torch.where(mask, x, mean_of(last, title(run.about)))
    return Completions(redraw(last.prior), means, found.effective, found.accepted)


def fillings(run: Run, x: Tensor, mask: Tensor, told: dict[str, Tensor]) -> list[Tensor]:
    """Rows whose holes are filled: with zeros, with the nearest seen numbers, and with what the model makes of each of these after some looks."""
    near = nearest(x, mask)
    looked = []
    for filled in (x, near):
        seen = filled
        for _ in range(LOOKS):
            seen = torch.where(mask, x, encoded_fill(run, seen, told))
        looked.append(seen)
    return [x, near, *looked]


def nearest(x: Tensor, mask: Tensor) -> Tensor:
    """Rows whose unseen numbers are copies of the nearest seen ones of the same channel (of the row, if it is no picture); a channel of none stays 0."""
    from scipy.ndimage import distance_transform_edt

    dims = 2 if x.dim() == 4 else x.dim() - 1
    planes, masks = (t.detach().cpu().reshape(-1, *t.shape[t.dim() - dims :]).numpy() for t in (x, mask))
    made = []
    for plane, known in zip(planes, masks, strict=True):
        where = distance_transform_edt(~known, return_distances=False, return_indices=True)
        made.append(plane[tuple(where)] if known.any() else plane)
    return torch.from_numpy(np.stack(made)).reshape(x.shape).to(x)


def diverse(found: Completions, row: int = 0, k: int = 6, seed: int = 0) -> Choice:
    """Up to `k` unlike completions of a row: k-means of its draws' means, each group shown by the draw nearest its middle, its probability the group's share.

    The error is that of a share of the draws, sqrt(p (1 - p) / draws). Raises UsageError for k below 1 or a row that is not there.
    """
    from scipy.cluster.vq import kmeans2

    if k < 1 or not 0 <= row < found.means.shape[1]:
        raise UsageError(f"{k} completions of row {row} are none; give k of 1 or more, and a row from 0 to {found.means.shape[1] - 1}")
    pictures = found.means[:, row].cpu()
    flat = pictures.flatten(1).double().numpy()
    groups = min(k, len(np.unique(flat, axis=0)))
    middles, of = (flat[:1], np.zeros(len(flat), int)) if groups == 1 else kmeans2(flat, groups, minit="++", seed=np.random.default_rng(seed), missing="warn")
    share = np.bincount(of, minlength=groups) / len(flat)
    order = [g for g in np.argsort(-share, kind="stable") if share[g] > 0]
    shown = [int(np.where(of == g, np.square(flat - middles[g]).sum(1), np.inf).argmin()) for g in order]
    return Choice(pictures[shown], share[order], np.sqrt(share[order] * (1 - share[order]) / len(flat)))


def padded(choices: Sequence[Choice], k: int) -> Tensor:
    """The completions of several rows as lines of `k` pictures, [k, rows, *shape]; white where a row has fewer unlike ones."""
    lines = [torch.cat([c.pictures, c.pictures.new_ones(k - len(c.pictures), *c.pictures.shape[1:])]) for c in choices]
    return torch.stack(lines, 1)
