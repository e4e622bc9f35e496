"""Scores of strangeness that the bound and its parts give: too little likelihood, too much to say, too little likeness, or an untypical amount of either."""

import numpy as np

from vaestro.data.schema import Measured, Table
from vaestro.errors import UsageError
from vaestro.evaluation.likelihood import Rows
from vaestro.evaluation.metrics.subject import Subject
from vaestro.evaluation.outliers.base import OUTLIER_SCORES, OutlierScore


def elbo(rows: Subject, usual: Subject) -> Rows:
    """-(E_q[log p(x | z)] - KL(q(z | x) || p(z))), nats."""
    return -rows.likelihood.elbo


def likelihood(rows: Subject, usual: Subject) -> Rows:
    """-log p(x) by importance sampling, nats."""
    return -rows.likelihood.log_px


def kl(rows: Subject, usual: Subject) -> Rows:
    """KL(q(z | x) || p(z)), nats: how far the row is from the prior."""
    return rows.likelihood.kl


def reconstruction(rows: Subject, usual: Subject) -> Rows:
    """-E_q[log p(x | z)], nats."""
    return -rows.likelihood.reconstruction


def squared_error(rows: Subject, usual: Subject) -> Rows:
    """The mean squared difference of a row's numbers and their reconstruction; any model with a posterior has it, density or not.

    Raises UsageError for tables with columns that are not measured, such as categories, whose numbers have no distance.
    """
    kind = rows.field.kind
    if isinstance(kind, Table) and (named := [c.name for c in kind.columns if not isinstance(c, Measured)]):
        raise UsageError(f"columns {', '.join(named[:3])} are not measured, so their values have no distance; use elbo or reconstruction, in nats")
    return rows.reconstructions.squared_error


def typicality(rows: Subject, usual: Subject) -> Rows:
    """|-log p(x) - H|, nats, with H the mean of -log p over training rows: a row far too likely is as strange as one far too unlikely."""
    found: Rows = np.abs(usual.likelihood.log_px.mean() - rows.likelihood.log_px)
    return found


SAMPLED = "importance samples as in `nll`"
OUTLIER_SCORES.enter(
    OutlierScore("elbo", "negative evidence lower bound", "nats", SAMPLED, "An & Cho 2015; Kingma & Welling 2014, equation 3", elbo),
    OutlierScore("likelihood", "negative log-likelihood", "nats", SAMPLED, "Bishop 1994; Burda et al. 2016, equation 8", likelihood),
    OutlierScore("kl", "KL of the posterior to the prior alone", "nats", SAMPLED, "Kingma & Welling 2014, equation 3, second term", kl),
    OutlierScore("reconstruction", "reconstruction alone", "nats", SAMPLED, "An & Cho 2015", reconstruction),
    OutlierScore(
        "squared_error", "squared error of the reconstruction", "squared unit values", "through the posterior's mean", "Sakurada & Yairi 2014", squared_error
    ),
    OutlierScore("typicality", "distance to the usual log-likelihood", "nats", f"{SAMPLED}; single rows", "Nalisnick et al. 2019, section 3", typicality),
)
