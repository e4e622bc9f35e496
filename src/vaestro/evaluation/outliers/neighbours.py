"""How far a row's code lies from the codes of usual rows: a model may explain well what it would never have been told."""

import numpy as np
import torch

from vaestro.errors import UsageError
from vaestro.evaluation.likelihood import Rows
from vaestro.evaluation.metrics.subject import Subject, central
from vaestro.evaluation.outliers.base import OUTLIER_SCORES, OutlierScore
from vaestro.evaluation.scope import count, device_of, evaluating, slice_rows
from vaestro.families.base import is_discrete
from vaestro.seeds import forked

NEAREST = 5  # which of the neighbours
AT_ONCE = 1000  # rows whose distances are held together


def neighbours(rows: Subject, usual: Subject) -> Rows:
    """The Euclidean distance of a row's code to the fifth nearest code of the usual rows, a usual row itself left out (the last, where they are fewer).

    Codes are posterior means, all sites side by side. Raises UsageError for a model without a posterior, for codes that are names of entries, and where
    there is no other usual row.
    """
    _refuse_names(rows)
    own = int(rows is usual)
    known = torch.from_numpy(usual.reconstructions.means)
    if len(known) <= own:
        raise UsageError("a neighbour is another row, and there are no usual rows beside this one; bring more training rows")
    nearest = min(NEAREST, len(known) - own) + own
    parts = torch.from_numpy(rows.reconstructions.means).split(AT_ONCE)
    exact = "donot_use_mm_for_euclid_dist"  # the faster way loses all digits of small distances
    return np.concatenate([torch.cdist(part, known, compute_mode=exact).kthvalue(nearest, 1).values.numpy() for part in parts])


def _refuse_names(rows: Subject) -> None:
    with forked(device_of(rows.model)), evaluating(rows.model):
        first = next((b for b in rows.rows() if count(b)), None)
        found = [] if first is None else [d.posterior for d in central(rows.model, slice_rows(first, 0, 1)).latents.values()]
    if any(q is not None and is_discrete(q) for q in found):
        raise UsageError(f"the codes of {rows.name} are numbers of entries, which have no distance; leave this score out")


OUTLIER_SCORES.enter(
    OutlierScore(
        "neighbours", "distance to the codes of usual rows", "units of the latents",
        f"distance of posterior means to the {NEAREST}th nearest of 1,000 training rows", "Ramaswamy et al. 2000; Sun et al. 2022, section 3", neighbours,
    ),
)  # fmt: skip
