"""Families: numbers to distributions, shared by posteriors, priors and likelihoods."""

from vaestro.families.base import Family, outputs
from vaestro.families.bernoulli import Bernoulli
from vaestro.families.beta_binomial import BetaBinomial
from vaestro.families.binned import Binned
from vaestro.families.categorical import Categorical
from vaestro.families.committed import CommittedGaussian
from vaestro.families.counts import NegativeBinomial, Poisson
from vaestro.families.gamma import Gamma
from vaestro.families.gaussian import FixedGaussian, Gaussian, SharedGaussian
from vaestro.families.inflated import ZeroInflated
from vaestro.families.interval import log_interval
from vaestro.families.laplace import Laplace
from vaestro.families.likelihoods import LIKELIHOODS, default_likelihood, fitting, generated
from vaestro.families.logistic import Logistic, LogisticMixture
from vaestro.families.perceptual import Perceptual
from vaestro.families.point import Point, UnitPoint
from vaestro.families.scaled import TrackedGaussian, best_scale, rescaled
from vaestro.families.student import Student
from vaestro.families.unit import ContinuousBernoulli

__all__ = [
    "LIKELIHOODS",
    "Bernoulli",
    "BetaBinomial",
    "Binned",
    "Categorical",
    "CommittedGaussian",
    "ContinuousBernoulli",
    "Family",
    "FixedGaussian",
    "Gamma",
    "Gaussian",
    "Laplace",
    "Logistic",
    "LogisticMixture",
    "NegativeBinomial",
    "Perceptual",
    "Point",
    "Poisson",
    "SharedGaussian",
    "Student",
    "TrackedGaussian",
    "UnitPoint",
    "ZeroInflated",
    "best_scale",
    "default_likelihood",
    "fitting",
    "generated",
    "log_interval",
    "outputs",
    "rescaled",
]
