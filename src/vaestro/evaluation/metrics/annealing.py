"""Metrics by annealing, dear: the likelihood without the encoder, and how far annealing itself may be off."""

from vaestro.evaluation.annealed import Plan, annealed, sandwiched
from vaestro.evaluation.metrics.base import METRICS, Direction, Group, Metric, Need, Score
from vaestro.evaluation.metrics.subject import Subject

ROWS = 100
PLAN = Plan()
PATH = f"{PLAN.temperatures} temperatures, {PLAN.chains} chains a row, {PLAN.leaps} leapfrog steps a move, leaps tuned beforehand"


def ais(subject: Subject) -> Score:
    """-log p(x) of at most 100 rows by annealed importance sampling, nats: an upper bound in expectation, which no posterior has a part in."""
    return Score.of_rows(-annealed(subject.model, subject.some(ROWS), PLAN, subject.seed, subject.name).log_px)


def bdmc_gap(subject: Subject) -> Score:
    """The upper less the lower bound of log p(x) on rows that the model itself drew, nats: what annealing may be off by on rows like those."""
    found = sandwiched(subject.model, subject.some(ROWS), PLAN, subject.seed, subject.name)
    assert found.upper is not None, "simulated rows have an upper bound"
    return Score.of_rows(found.upper - found.log_px)


METRICS.enter(
    Metric(
        "ais", "negative log-likelihood by annealing", "nats", Direction.LOWER, f"at most {ROWS} rows, {PATH}; the posterior is not used",
        "Neal 2001; Wu et al. 2017, section 3", ais, frozenset({Need.DENSITY, Need.LATENTS}), dear=True, group=Group.DENSITY,
    ),
    Metric(
        "bdmc_gap", "gap between the bounds by annealing", "nats", Direction.LOWER, f"at most {ROWS} rows drawn by the model, {PATH}; upper less lower bound",
        "Grosse et al. 2015, section 3", bdmc_gap, frozenset({Need.DENSITY, Need.LATENTS}), dear=True, group=Group.DENSITY,
    ),
)  # fmt: skip
