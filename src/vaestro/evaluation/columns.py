"""What a model says of each column of a table, for the nats of a row come from them unevenly."""

from typing import Any

import numpy as np
import torch

from vaestro.core import content
from vaestro.data.schema import Table
from vaestro.evaluation.likelihood import standard_error
from vaestro.evaluation.metrics.subject import AT_ONCE, Subject
from vaestro.evaluation.scope import chunked, device_of, evaluating, seeded
from vaestro.families.fields import FieldsDistribution
from vaestro.seeds import forked, mix

DRAWS = 10  # of the latents of a row


def nats_of_entries(subject: Subject) -> np.ndarray | None:
    """-E_q[log p(x_c | z)] of every entry, nats, [rows, columns], NaN where it was not seen; ten draws a row, measured once.

    None for other data than tables, and for models without a posterior or without a density of columns.
    """
    return subject.once("nats of entries", lambda: _measured(subject))


def _measured(subject: Subject) -> np.ndarray | None:
    if not isinstance(subject.field.kind, Table) or not subject.encodes:
        return None
    parts: list[np.ndarray] = []
    with forked(device_of(subject.model)), evaluating(subject.model):
        for number, (batch, real) in enumerate(chunked(seeded(subject.rows(), subject.seed), AT_ONCE)):
            torch.manual_seed(mix(subject.seed, number, 5))
            said, x = subject.model(batch, DRAWS)[subject.field.name].prior, content(batch[subject.field.name])
            if not isinstance(said, FieldsDistribution):
                return None
            each = -said.log_prob_by_column(x).double().mean(0)
            parts.append(torch.where(x.isnan(), torch.nan, each)[:real].cpu().numpy())
    return np.concatenate(parts)


def by_column(subject: Subject) -> dict[str, dict[str, Any]]:
    """`nats_of_entries` of every column c over the rows in which it was seen: nats, their standard error, and how many rows.

    Summed over the entries of a row these are its cross-entropy; with the KL they are minus the ELBO. Nothing for other data, and for models
    without a posterior or without a density of columns.
    """
    rows, found = nats_of_entries(subject), dict[str, dict[str, Any]]()
    if rows is None or not isinstance(subject.field.kind, Table):
        return {}
    for i, name in enumerate(subject.field.kind.names):
        seen = rows[~np.isnan(rows[:, i]), i]
        found[name] = {"nats": float(seen.mean()) if len(seen) else None, "error": standard_error(seen) if len(seen) > 1 else None, "seen": len(seen)}
    return found
