"""Priors: distributions that may be learnt, never ways to compute a KL."""

from vaestro.priors.autoregressive import Autoregressive, AutoregressiveMixture
from vaestro.priors.base import PRIORS, Prior, StandardNormal, standard_normal
from vaestro.priors.binary import BernoulliPrior
from vaestro.priors.chains import CommittedChain, GaussianChain
from vaestro.priors.codes import UniformCodes, UniformOneHot
from vaestro.priors.diffusion import Diffusion
from vaestro.priors.energy import Energy
from vaestro.priors.exemplar import Exemplar, LeaveOneOut
from vaestro.priors.flows import flow, maf, spline
from vaestro.priors.mixtures import DiagonalMixture, FullMixture, GaussianMixture, Vamp, full_mixture, gaussian_mixture, responsibilities, vamp
from vaestro.priors.strings import CodePrior, OneHotCodePrior, OneHotStrings, Strings, masked_codes, transformer_codes
from vaestro.priors.two_stage import SecondStage

__all__ = [
    "PRIORS",
    "Autoregressive",
    "AutoregressiveMixture",
    "BernoulliPrior",
    "CodePrior",
    "CommittedChain",
    "DiagonalMixture",
    "Diffusion",
    "Energy",
    "Exemplar",
    "FullMixture",
    "GaussianChain",
    "GaussianMixture",
    "LeaveOneOut",
    "OneHotCodePrior",
    "OneHotStrings",
    "Prior",
    "SecondStage",
    "StandardNormal",
    "Strings",
    "UniformCodes",
    "UniformOneHot",
    "Vamp",
    "flow",
    "full_mixture",
    "gaussian_mixture",
    "maf",
    "masked_codes",
    "responsibilities",
    "spline",
    "standard_normal",
    "transformer_codes",
    "vamp",
]
