"""How often each class is generated, beside how often it is in the data."""

import numpy as np


def total_variation(real: np.ndarray, fake: np.ndarray, classes: int) -> float:
    """1/2 sum_c |p_c - q_c| of the shares of classes 0 .. classes - 1 in two lists of them; -1 (of no class) is one class more. 0 to 1."""
    p, q = (np.bincount(side + 1, minlength=classes + 1) / len(side) for side in (real, fake))
    return float(np.abs(p - q).sum() / 2)


def imbalance(found: np.ndarray, classes: int) -> float:
    """KL of the shares of the classes in `found` (those of no class, -1, left out) to equal shares, in nats.

    0 if all are equally frequent, ln classes if one is all; NaN where nothing is of any class.
    """
    kept = found[found >= 0]
    if not len(kept):
        return float("nan")
    share = np.bincount(kept, minlength=classes) / len(kept)
    share = share[share > 0]
    return float((share * np.log(share * classes)).sum())


def caught(found: np.ndarray) -> int:
    """How many different classes there are in `found`, that of no class (-1) left out."""
    return len(np.unique(found[found >= 0]))
