"""Programs that several recipes share."""

from vaestro.models.base import VAE, Step, TopDown, data_of
from vaestro.models.classes import M2, Classes, EqualClasses, Stacked, classify
from vaestro.models.coded import Coded
from vaestro.models.conditional import CONDITIONAL_PRIORS, CVAE, Joined, Regardless
from vaestro.models.conditions import CODES, Memory, OneHot, conditions_of, told
from vaestro.models.exemplar import ExemplarVAE
from vaestro.models.refined import SLOPES, Ascent, SemiAmortised, Slope

__all__ = [
    "CODES",
    "CONDITIONAL_PRIORS",
    "CVAE",
    "M2",
    "SLOPES",
    "VAE",
    "Ascent",
    "Classes",
    "Coded",
    "EqualClasses",
    "ExemplarVAE",
    "Joined",
    "Memory",
    "OneHot",
    "Regardless",
    "SemiAmortised",
    "Slope",
    "Stacked",
    "Step",
    "TopDown",
    "classify",
    "conditions_of",
    "data_of",
    "told",
]
