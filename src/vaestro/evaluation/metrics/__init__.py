"""Named measures of a trained model: `measure(names, Subject(...))` gives each with its error, or the reason why not."""

from vaestro.evaluation.metrics import (
    annealing,
    audit,
    books,
    classes,
    clustering,
    cost,
    dci,
    disentanglement,
    honesty,
    interventions,
    modes,
    nats,
    neighbourhoods,
    pictures,
    probes,
    rates,
    reconstruction,
    separation,
    sets,
    values,
)
from vaestro.evaluation.metrics.base import METRICS, Direction, Group, Metric, Need, Report, Score, jackknife, measure
from vaestro.evaluation.metrics.frechet import Moments, frechet, frechet_of_moments, moments
from vaestro.evaluation.metrics.kernel_distance import kernel, kernel_of_subsets
from vaestro.evaluation.metrics.manifold import Manifold, manifold
from vaestro.evaluation.metrics.memorisation import celled, copied, copy_ratio, copying_z, mann_whitney, recognised, shared_cells
from vaestro.evaluation.metrics.nats import cross_entropy_floor
from vaestro.evaluation.metrics.reconstruction import active
from vaestro.evaluation.metrics.spectrum import high_power, radial_spectrum
from vaestro.evaluation.metrics.subject import Cost, Pair, Reconstructions, Subject
from vaestro.evaluation.metrics.two_sample import two_sample
from vaestro.evaluation.metrics.vendi import vendi

FILES = (  # read for what they register
    annealing, audit, books, classes, clustering, cost, dci, disentanglement, honesty, interventions, modes, nats, neighbourhoods, pictures, probes, rates,
    reconstruction, separation, sets, values,
)  # fmt: skip

__all__ = [
    "METRICS",
    "Cost",
    "Direction",
    "Group",
    "Manifold",
    "Metric",
    "Moments",
    "Need",
    "Pair",
    "Reconstructions",
    "Report",
    "Score",
    "Subject",
    "active",
    "celled",
    "copied",
    "copy_ratio",
    "copying_z",
    "cross_entropy_floor",
    "frechet",
    "frechet_of_moments",
    "high_power",
    "jackknife",
    "kernel",
    "kernel_of_subsets",
    "manifold",
    "mann_whitney",
    "measure",
    "moments",
    "radial_spectrum",
    "recognised",
    "shared_cells",
    "two_sample",
    "vendi",
]
