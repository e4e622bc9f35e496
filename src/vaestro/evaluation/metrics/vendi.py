"""The Vendi score: how many different rows a set of features is worth."""

import torch
from torch import Tensor
from torch.nn import functional as F

from vaestro.errors import NotFinite, UsageError


def vendi(features: Tensor) -> float:
    """The Vendi score of features [n, d] in effective rows, 1 to min(n, d + 1): exp(-sum_i l_i ln l_i), l_i the eigenvalues of the cosines [n, n] over n.

    1 where all rows are alike, n where no two have anything in common (Friedman & Dieng 2023, definition of the Vendi score).
    The eigenvalues of the [d, d] second moment of the normed rows are those of the [n, n] similarities, so memory is flat in rows.
    A row of zeros has no angle: such rows count as alike, and as different from all others. Raises UsageError for no rows.
    """
    if len(features) < 1:
        raise UsageError("the Vendi score needs at least 1 row of features; give more rows")
    if not bool(features.isfinite().all()):
        raise NotFinite("some features are not finite, so their diversity cannot be measured; look at the pictures they come from")
    x = features.double()
    empty = (x == 0).all(1, keepdim=True)
    x = F.normalize(x / x.abs().amax(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny), dim=1)
    x = torch.cat([x, empty.double()], 1)
    values = torch.linalg.eigvalsh(x.T @ x / len(x)).clamp(min=0)
    return float(torch.special.entr(values).sum().exp())
