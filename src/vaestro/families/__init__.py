"""Families: numbers to distributions, shared by posteriors, priors and likelihoods."""

from vaestro.families.base import Family, outputs
from vaestro.families.bernoulli import Bernoulli
from vaestro.families.binned import Binned
from vaestro.families.categorical import Categorical
from vaestro.families.gaussian import FixedGaussian, Gaussian, SharedGaussian
from vaestro.families.interval import log_interval
from vaestro.families.laplace import Laplace
from vaestro.families.likelihoods import LIKELIHOODS, default_likelihood, fitting
from vaestro.families.logistic import Logistic, LogisticMixture
from vaestro.families.point import Point
from vaestro.families.unit import ContinuousBernoulli

__all__ = [
    "LIKELIHOODS",
    "Bernoulli",
    "Binned",
    "Categorical",
    "ContinuousBernoulli",
    "Family",
    "FixedGaussian",
    "Gaussian",
    "Laplace",
    "Logistic",
    "LogisticMixture",
    "Point",
    "SharedGaussian",
    "default_likelihood",
    "fitting",
    "log_interval",
    "outputs",
]
