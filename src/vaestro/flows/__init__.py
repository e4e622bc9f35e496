"""Normalising flows: a simple distribution seen through bijections; they need zuko: `pip install 'vaestro[flows]'`."""

from vaestro.flows.bijections import Autoregressive, Bijection, Chain, Coupling, Inverse, Rescale, autoregressive, coupling
from vaestro.flows.distribution import Flow, FlowDistribution
from vaestro.flows.univariate import Univariate, affine, spline

__all__ = [
    "Autoregressive",
    "Bijection",
    "Chain",
    "Coupling",
    "Flow",
    "FlowDistribution",
    "Inverse",
    "Rescale",
    "Univariate",
    "affine",
    "autoregressive",
    "coupling",
    "spline",
]
