"""Named measures of a trained model: `measure(names, Subject(...))` gives each with its error, or the reason why not."""

from vaestro.evaluation.metrics import classes, cost, density, disentanglement, reconstruction, sets, values
from vaestro.evaluation.metrics.base import METRICS, Direction, Group, Metric, Need, Report, Score, jackknife, measure
from vaestro.evaluation.metrics.density import cross_entropy_floor
from vaestro.evaluation.metrics.frechet import frechet, frechet_of_moments, kernel, moments
from vaestro.evaluation.metrics.manifold import Manifold, manifold
from vaestro.evaluation.metrics.reconstruction import active
from vaestro.evaluation.metrics.spectrum import high_power, radial_spectrum
from vaestro.evaluation.metrics.subject import Cost, Pair, Reconstructions, Subject

FILES = (classes, cost, density, disentanglement, reconstruction, sets, values)  # read for what they register

__all__ = [
    "METRICS",
    "Cost",
    "Direction",
    "Group",
    "Manifold",
    "Metric",
    "Need",
    "Pair",
    "Reconstructions",
    "Report",
    "Score",
    "Subject",
    "active",
    "cross_entropy_floor",
    "frechet",
    "frechet_of_moments",
    "high_power",
    "jackknife",
    "kernel",
    "manifold",
    "measure",
    "moments",
    "radial_spectrum",
]
