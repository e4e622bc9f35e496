"""Programs that several recipes share."""

from vaestro.models.base import VAE, data_of
from vaestro.models.bottom_up import BottomUp, Joint
from vaestro.models.classes import M2, Classes, EqualClasses, Stacked, classify
from vaestro.models.coded import Coded
from vaestro.models.conditional import CONDITIONAL_PRIORS, CVAE, Joined, Regardless
from vaestro.models.conditions import CODES, Memory, OneHot, conditions_of, told
from vaestro.models.dreams import dream, tempered
from vaestro.models.exemplar import ExemplarVAE
from vaestro.models.hierarchies import Climb, Group, Laws, Rung, Step, TopDown
from vaestro.models.implicit import Implicit
from vaestro.models.mixed import Mixed
from vaestro.models.refined import SLOPES, Ascent, SemiAmortised, Slope
from vaestro.models.stairs import Plan, Style, residual_iaf, residual_normal, stairs, very_deep

__all__ = [
    "CODES",
    "CONDITIONAL_PRIORS",
    "CVAE",
    "M2",
    "SLOPES",
    "VAE",
    "Ascent",
    "BottomUp",
    "Classes",
    "Climb",
    "Coded",
    "EqualClasses",
    "ExemplarVAE",
    "Group",
    "Implicit",
    "Joined",
    "Joint",
    "Laws",
    "Memory",
    "Mixed",
    "OneHot",
    "Plan",
    "Regardless",
    "Rung",
    "SemiAmortised",
    "Slope",
    "Stacked",
    "Step",
    "Style",
    "TopDown",
    "classify",
    "conditions_of",
    "data_of",
    "dream",
    "residual_iaf",
    "residual_normal",
    "stairs",
    "tempered",
    "told",
    "very_deep",
]
