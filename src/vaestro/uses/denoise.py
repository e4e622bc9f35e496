"""Clean rows from noisy ones: by a model that was trained to, or by inference under a noise that is known."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from vaestro.data.schema import Binary, Integer, Table
from vaestro.errors import UsageError
from vaestro.evaluation.metrics.subject import mean_of
from vaestro.evaluation.scope import at_rest, device_of, evaluating
from vaestro.progress import tell
from vaestro.seeds import forked, mix
from vaestro.training.finding import by_name
from vaestro.training.runs import Run, title
from vaestro.uses.inference.latents import decoded, encoded, said
from vaestro.uses.inference.noises import Noise, heard, noise_of
from vaestro.uses.inference.posterior_draws import USUAL, Effort, Known, Refine, hamiltonian, posterior_draws
from vaestro.uses.reconstruct import require_latents
from vaestro.uses.rows.given import Given, require_rows, settle

DENOISERS = ("denoising_ae", "denoising_vae")  # recipes whose encoder reads spoilt rows in training
FEW = 10  # effective samples below which a row is told
AT_ONCE = 8_000_000  # numbers of the likelihood that are held at a time


class Denoised(NamedTuple):
    """Clean rows [b, *shape], their standard deviation given the noisy ones, and how well they were found."""

    rows: Tensor
    spread: Tensor  # of the draws' means: what the latents leave open
    effective: Tensor  # effective number of importance samples of each row, [b]
    accepted: float  # share of moves; NaN without any


def is_denoiser(run: Run) -> bool:
    """Whether the run was trained to restore spoilt rows."""
    return str(run.about["call"]).partition(":")[0] in DENOISERS


def restored(run: Run, noisy: Float[Tensor, "b ..."], given: Given | None = None) -> Float[Tensor, "b ..."]:
    """The mean of p(x | z) at the centre of q(z | noisy) of a model that was trained on spoilt rows: [b, *shape] to the same, in unit values.

    Raises UsageError for a model that was not.
    """
    if not is_denoiser(run):
        raise UsageError(f"{title(run.about)} was not trained to remove noise; say which noise it is (--noise gaussian=0.3), or train {' or '.join(DENOISERS)}")
    noisy, told = require_rows(run, noisy, "noisy rows"), settle(run, len(noisy), given)
    with forked(device_of(run.model)), evaluating(run.model):
        torch.manual_seed(mix(0, 25))
        found = encoded(run, noisy, told, "denoise by")
        return decoded(run, found.layout.apart(found.z), told, (len(noisy),)).clone()


def steps_of(run: Run, rows: int, effort: Effort) -> list[slice]:
    """The rows in parts that fit."""
    step = max(1, AT_ONCE // (max(effort.samples, effort.draws) * run.field.size))
    return [slice(i, min(i + step, rows)) for i in range(0, rows, step)]


def require_effort(effort: Effort) -> None:
    """Raises UsageError for numbers that find nothing."""
    for what, number, least in (("samples", effort.samples, 1), ("draws", effort.draws, 1), ("moves", effort.moves, 0)):
        if number < least:
            raise UsageError(f"{what} is {number}, and at least {least} is needed; give a whole number from {least} upwards")


@by_name
def denoise(  # noqa: PLR0913 (the options of a use, each by its name)
    run: Run,
    noisy: Float[Tensor, "b ..."],
    noise: Noise,
    effort: Effort = USUAL,
    refine: Refine = hamiltonian,
    seed: int = 0,
    *,
    given: Given | None = None,
) -> Denoised:
    """E[x | noisy] of a model p(z) p(x | z) under a known noise p(noisy | x): [b, *shape] to the same, in unit values; the best estimate in squared error.

    p(noisy | z) is the integral of p(noisy | x) p(x | z) over x, number by number: exact for Gaussians, bits and levels, else by their mean and variance
    (see `noises`). z ~ p(z | noisy) by importance resampling of q(z | .) at the noisy rows and at their reconstruction, then `moves` of `refine`; the
    answer is the mean over `draws` of E[x | noisy, z]. No encoder is trusted: it proposes only. The same seed gives the same rows.

    Raises UsageError for a run on a table, a model without a posterior or a density, a likelihood whose numbers depend on each other, latents that `refine`
    cannot move, rows of another shape or too far off for a finite answer, and a model that is told something where `given` lacks it.
    """
    require_effort(effort)
    if isinstance(run.field.kind, Table):
        raise UsageError(f"{run.name} models a table, whose columns share no noise; find odd entries with `vaestro detect --repair`")
    noisy, told = require_rows(run, noisy, "noisy rows"), settle(run, len(noisy), given)
    parts = []
    with forked(device_of(run.model)), at_rest(run.model), torch.no_grad():
        for number, part in enumerate(steps_of(run, len(noisy), effort)):
            torch.manual_seed(mix(seed, number, 26))
            parts.append(_denoised(run, noisy[part], noise, {n: v[part] for n, v in told.items()}, (effort, refine)))
            tell("denoising", part.stop / len(noisy))
    rows = torch.cat([p.rows for p in parts])
    if not bool(rows.isfinite().all()):
        row = int((~rows.isfinite()).flatten(1).any(1).nonzero()[0])
        raise UsageError(f"row {row} is so far from all that the model knows that its clean version is no number; check its units, or leave it out")
    return Denoised(
        rows,
        torch.cat([p.spread for p in parts]),
        torch.cat([p.effective for p in parts]),
        sum(p.accepted * len(p.rows) for p in parts) / len(noisy),
    )


def _denoised(run: Run, noisy: Tensor, noise: Noise, told: dict[str, Tensor], how: tuple[Effort, Refine]) -> Denoised:
    def evidence(law: Distribution) -> Tensor:
        return heard(law, noise, noisy).log_p

    legal = noisy.clamp(0, 1) if bounded(run) else noisy
    first = encoded_fill(run, legal, told)
    found = posterior_draws(run, [legal, first], Known(told, evidence), *how)
    clean = heard(said(run, found.layout.apart(found.z), told, tuple(found.z.shape[:2])).prior, noise, noisy).clean
    return Denoised(clean.mean(0), clean.std(0, correction=0), found.effective, found.accepted)


def bounded(run: Run) -> bool:
    """Whether the unit values of the run's field lie in [0, 1]."""
    return isinstance(run.field.kind, Binary | Integer)


def encoded_fill(run: Run, x: Tensor, told: dict[str, Tensor]) -> Tensor:
    """What the model makes of rows: the mean of p(x | z) at one draw of q(z | x), [b, *shape]; a second look for the encoder."""
    trace = run.model({run.field.name: x, **told})
    require_latents(run, trace)
    return mean_of(trace[run.field.name], title(run.about))[0].expand(x.shape)


def denoised(run: Run, noisy: Tensor, noise: str | None, how: tuple[Effort, Refine], seed: int, given: Given) -> tuple[Tensor, list[str]]:
    """What the command makes of noisy rows, and what to say of it: by inference under a noise such as `gaussian=0.3`, or without one by a trained denoiser."""
    if noise is None:
        return restored(run, noisy, given), []
    found = denoise(run, noisy, noise_of(noise), *how, seed, given=given)
    few = int((found.effective < FEW).sum())
    notes = [f"{few} of {len(noisy)} rows rest on fewer than {FEW} effective samples of the encoder's; their draws are as good as their moves"] if few else []
    return found.rows, notes
