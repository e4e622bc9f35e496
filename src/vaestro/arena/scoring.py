"""From a trained run to its scores: fixed test rows, the challenge's metrics, and pictures of what the model does."""

import statistics
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaestro.arena.challenge import Challenge, Tier
from vaestro.arena.result import Arrays, cells
from vaestro.data.schema import Category, Count, Real
from vaestro.data.store import Dataset
from vaestro.errors import UsageError, VaestroError
from vaestro.evaluation.likelihood import Rows, importance
from vaestro.evaluation.metrics import METRICS, Report, Subject, measure
from vaestro.evaluation.metrics.audit import believed
from vaestro.evaluation.metrics.base import Need
from vaestro.evaluation.metrics.subject import is_picture
from vaestro.evaluation.networks import Setting
from vaestro.evaluation.scope import device_of, fixed_rows, seeded, slice_rows
from vaestro.models import conditions_of
from vaestro.seeds import forked
from vaestro.training.files import digest
from vaestro.training.loop import weights
from vaestro.training.runs import Run
from vaestro.uses.evaluate import Protocol, fairly_judged, subject_on
from vaestro.uses.generate import means as generate
from vaestro.uses.reconstruct import reconstruct

SCORE_SEED = 0  # one for all entries, so that they are compared on the same random numbers
AT_ONCE = 250
SAMPLES, BESIDE = 64, 16  # pictures shown of an entry
FIRST, FEW = 16, 10  # rows and importance samples by which a model is seen to have changed while it was scored
LINES = 100  # of the log that are kept


def subject(run: Run, data: Dataset, challenge: Challenge, tier: Tier, features: Path | None = None) -> Subject:
    """What is measured: the run on the tier's fixed test rows; `features` is a folder that keeps those of the data's rows."""
    return subject_on(run, data, Protocol("test", tier.rows, tier.samples, SCORE_SEED), Setting(data, challenge.rules.data.judge), features)


def score(run: Run, data: Dataset, challenge: Challenge, tier: Tier, features: Path | None = None) -> tuple[Report, Arrays, Arrays]:
    """All metrics of the tier, the rows of those that are means over rows, and what there is to see; `features` as in `subject`."""
    judged = subject(run, data, challenge, tier, features)
    before = first_nats(judged)
    report = believed(judged, fairly_judged(run, of_x_alone(run, measure(challenge.rules.measured(tier), judged))))
    found, _ = cells(report)
    rows = {n: s.rows for n, s in report.scores.items() if s.rows is not None and n in found}
    seen = show(run, data, judged)
    require_still(run, before, first_nats(judged))
    return report, rows, seen


def first_nats(judged: Subject) -> Rows | None:
    """The bound of the first rows by few samples; none of a model without a density."""
    try:
        with forked(device_of(judged.model)):
            few = slice_rows(next(iter(seeded(judged.rows(), judged.seed))), 0, FIRST)
        return importance(judged.model, few, FEW, judged.seed, name=judged.name).log_px
    except UsageError:
        return None


def require_still(run: Run, before: Rows | None, after: Rows | None) -> None:
    """Raises VaestroError where scoring changed the model: its weights, or what it says of the same rows under the same seed."""
    if digest(weights(run.recipe.parts)) != run.about["weights_sha256"]:
        raise VaestroError(f"{run.about['call']} changed its weights while it was scored; a model may not learn from the rows that it is scored on")
    if before is not None and after is not None and not np.allclose(before, after, rtol=1e-3, atol=1e-3):
        said = f"{before.mean():.2f} nats of the same rows before, and {after.mean():.2f} after"
        raise VaestroError(f"{run.about['call']} changed while it was scored ({said}); a model may not learn from the rows that it is scored on")


def of_x_alone(run: Run, report: Report) -> Report:
    """The report without the nats of a model that is told a part of the answer: a board compares p(x)."""
    told = conditions_of(run.model)
    if not told:
        return report
    reason = f"{run.about['call']} is told {', '.join(told)}, and scores p(x | {', '.join(told)}) where the others score p(x)"
    barred = {n for n in report.scores if Need.DENSITY in METRICS[n].needs}
    return report.without(barred, reason)


def speed(run: Run) -> float | None:
    """Generated rows a second: the median of three batches after a first one, with the threads that the result names; none where nothing can be made."""
    times = []
    for trial in range(4):
        start = time.perf_counter()
        if dreamt(run, AT_ONCE, trial) is None:
            return None
        times.append(time.perf_counter() - start)
    return round(AT_ONCE / statistics.median(times[1:]), 1)


def dreamt(run: Run, n: int, seed: int = 0) -> Tensor | None:
    """`n` generated rows; none of a model that makes no rows, as a compressor."""
    try:
        return generate(run, n, seed).cpu()
    except UsageError:
        return None


def show(run: Run, data: Dataset, judged: Subject) -> Arrays:
    """What a reader of the report sees: samples, rows beside their reconstructions, a map of the latents, and the curves of the losses.

    Of a model without a posterior there are no reconstructions and no map, of one that makes no rows no samples.
    """
    seen: dict[str, np.ndarray] = {**curves(run)}
    if judged.encodes:
        seen |= mapped(data, judged.reconstructions.means)
    if is_picture(run.field):
        x = torch.cat([torch.as_tensor(b["x"]) for b in judged.rows()])[:BESIDE]
        ends = (float(x.min()), float(x.max())) if isinstance(run.field.kind, Count | Real) else (0.0, 1.0)
        made = dreamt(run, SAMPLES)
        pictures = {**(beside(run, data, judged, x) if judged.encodes else {}), **({} if made is None else {"samples": made})}
        seen |= {name: levels(images, *ends) for name, images in pictures.items()}
    return seen


def mapped(data: Dataset, codes: np.ndarray) -> dict[str, np.ndarray]:
    """A map of the codes [n, latents] of the fixed test rows, and their labels where there are any."""
    test, seen = data.split("test"), {"map": plane(codes).astype(np.float32)}
    kind = data.schema["label"].kind if "label" in data.schema else None
    if isinstance(kind, Category):
        seen["labels"] = np.asarray(test.arrays["label"])[fixed_rows(test.rows, len(codes)).numpy()].astype(np.int32)
        seen["classes"] = np.array(kind.names or [str(i) for i in range(kind.n)])
    return seen


def beside(run: Run, data: Dataset, judged: Subject, x: Tensor) -> dict[str, Tensor]:
    """The first of the fixed test rows, `x`, and their reconstructions."""
    test = data.split("test")
    index = fixed_rows(test.rows, len(judged.reconstructions.means))[: len(x)]
    given = {n: np.asarray(test.arrays[n])[index.numpy()] for n in conditions_of(run.model)}
    return {"originals": x, "reconstructions": reconstruct(run, x, given=given)}


def levels(images: Tensor, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Values from `low` to `high` as bytes."""
    return ((images.cpu() - low) / ((high - low) or 1.0) * 255).clamp(0, 255).round().to(torch.uint8).numpy()


def plane(codes: np.ndarray) -> np.ndarray:
    """The two leading principal components of codes [n, d], [n, 2]; signs are fixed, and a missing second one is zero."""
    centred = codes - codes.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2] * np.sign(axes[np.arange(len(axes[:2])), np.abs(axes[:2]).argmax(1)])[:, None]
    flat = centred @ axes.T
    return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))


def curves(run: Run) -> dict[str, np.ndarray]:
    """Every term of the log over the steps, as `curve.TERM` [points, 2]; a term that is not in every line keeps those it is in."""
    found: dict[str, list[tuple[float, float]]] = {}
    log = run.log()
    for line in log[:: max(1, len(log) // LINES)]:
        for term, value in line.items():
            if term not in ("step", "seconds") and isinstance(value, int | float):
                found.setdefault(term, []).append((line["step"], value))
    checks = [line for line in log if "validation" in line]
    for term in ("validation", "active_units"):
        found[term] = [(line["step"], line[term]) for line in checks if term in line]
    return {f"curve.{term}": np.asarray(points, np.float32) for term, points in found.items() if points}
