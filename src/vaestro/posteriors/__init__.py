"""Posteriors: networks that read x and end in a distribution richer than a diagonal Gaussian."""

from vaestro.posteriors.base import POSTERIORS, Amortised, Diagonal, FlowLaw, Law, Posterior, Shares, Standardise, gaussian
from vaestro.posteriors.full import Cholesky, Householder, Reflections, Rotated, full_covariance, householder
from vaestro.posteriors.maps import MapFlow, MapGate
from vaestro.posteriors.masked import Gate, InverseAutoregressive, OnePass, inverse_autoregressive, masked_autoregressive, spline
from vaestro.posteriors.planar import Planar, Radial, planar, radial

__all__ = [
    "POSTERIORS",
    "Amortised",
    "Cholesky",
    "Diagonal",
    "FlowLaw",
    "Gate",
    "Householder",
    "InverseAutoregressive",
    "Law",
    "MapFlow",
    "MapGate",
    "OnePass",
    "Planar",
    "Posterior",
    "Radial",
    "Reflections",
    "Rotated",
    "Shares",
    "Standardise",
    "full_covariance",
    "gaussian",
    "householder",
    "inverse_autoregressive",
    "masked_autoregressive",
    "planar",
    "radial",
    "spline",
]
