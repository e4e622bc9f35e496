"""Priors: distributions that may be learnt, never ways to compute a KL."""

from vaestro.priors.base import PRIORS, Prior, StandardNormal, standard_normal
from vaestro.priors.mixtures import DiagonalMixture, GaussianMixture, Vamp, gaussian_mixture, vamp

__all__ = ["PRIORS", "DiagonalMixture", "GaussianMixture", "Prior", "StandardNormal", "Vamp", "gaussian_mixture", "standard_normal", "vamp"]
