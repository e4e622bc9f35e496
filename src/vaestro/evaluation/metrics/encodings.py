"""The latents of rows, as probes and other judges of representations read them."""

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor, nn

from vaestro.codes import numbered
from vaestro.core import Batch, content
from vaestro.data.schema import Category, Table
from vaestro.errors import NotFinite, UsageError
from vaestro.evaluation.metrics.subject import AT_ONCE, Subject, central
from vaestro.evaluation.scope import chunked, device_of, each, evaluating, seeded
from vaestro.networks.reading import Columns
from vaestro.seeds import forked, mix

TRAINING = 10_000  # training rows that a probe learns from, at most
HUGE = 1e100


def require_learners() -> None:
    """Raises UsageError where scikit-learn, whose classifiers probe the latents, is not installed."""
    if find_spec("sklearn") is None:
        raise UsageError("probes of latents are scikit-learn's, which is not installed; install it with: pip install 'vaestro[science]'")


def finite(codes: np.ndarray, name: str) -> np.ndarray:
    """The codes [n, latents] as they are; raises VaestroError where one is not a finite number, or one whose square could overflow."""
    broken = ~(np.abs(codes) < HUGE).all(1)
    if broken.any():
        raise NotFinite(f"{name} gives row {int(np.flatnonzero(broken)[0])} latents that are not finite, or beyond {HUGE:g}; train it anew")
    return codes


def held_codes(subject: Subject) -> np.ndarray:
    """The posterior means (or draws) of the scored rows, sites side by side, [n, latents], float64; raises UsageError for a model without a posterior."""
    return finite(subject.reconstructions.means, subject.name)


def training_codes(subject: Subject, most: int = TRAINING) -> np.ndarray:
    """The same of at most `most` fixed training rows, in the order of `Held.chosen`; raises UsageError where the subject has no other splits."""
    return subject.once(f"training codes {most}", lambda: _encoded(subject, most))


def _encoded(subject: Subject, most: int) -> np.ndarray:
    held, device, parts = subject.beside, device_of(subject.model), []
    with forked(device), evaluating(subject.model):
        for number, (batch, real) in enumerate(chunked(seeded(held.batches("train", most), subject.seed), AT_ONCE)):
            torch.manual_seed(mix(subject.seed, number, 4))
            parts.append(_codes(subject, {n: each(v, lambda t: t.to(device)) for n, v in batch.items()})[:real].double().cpu().numpy())
    return finite(np.concatenate(parts), subject.name)


def _codes(subject: Subject, batch: Batch) -> Tensor:
    latents = central(subject.model, batch).latents.values()
    if not latents:
        raise UsageError(f"{subject.name} has no posterior, so rows have no latents; leave this metric out")
    return torch.cat([numbered(d.posterior, d.value) for d in latents if d.posterior is not None], 1)


def held_values(subject: Subject) -> np.ndarray:
    """The numbers of the scored rows themselves, unit values or real ones, or `as_numbers` of a table, [n, numbers], float64."""
    read = as_numbers(subject)
    with forked(device_of(subject.model)):
        parts = [read(content(b[subject.field.name]).cpu()).double().numpy() for b in seeded(subject.rows(), subject.seed)]
    return np.concatenate(parts)


def as_numbers(subject: Subject) -> Callable[[Tensor], Tensor]:
    """Rows [n, *shape] to their numbers side by side; rows of a table to what encoders read of them: standardised, one-hot or embedded, and what was seen."""
    if not isinstance(subject.field.kind, Table):
        return lambda x: x.flatten(1)
    with forked(torch.device("cpu")):
        torch.manual_seed(subject.seed)
        return Columns(subject.field.kind, nn.Identity()).requires_grad_(False)


def classes(subject: Subject) -> int:
    """How many classes the field `label` may take; raises UsageError where there are fewer than two, or no labels, or no scikit-learn."""
    require_learners()
    held = subject.beside
    seen = held.labels("train", TRAINING)  # says what is wrong where there are none
    kind = held.data.schema["label"].kind
    if not isinstance(kind, Category) or len(np.unique(seen)) < 2:
        raise UsageError(f"the training rows of {held.data.name!r} are all of one class, so no probe can tell classes apart; use data with two classes or more")
    return kind.n
