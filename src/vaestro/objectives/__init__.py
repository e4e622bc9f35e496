"""Objectives: a loss per row, in nats, from a trace."""

from vaestro.objectives.bounds import ciwae, miwae, renyi
from vaestro.objectives.evidence import Objective, elbo, iwae, mean_exp, reconstruction
from vaestro.objectives.gradients import dreg, reinforce, stl, vimco
from vaestro.objectives.thermodynamic import tvo, tvo_upper
from vaestro.objectives.weights import by_dimension, by_site, capacity, free_bits, optimal_scale, rate

__all__ = [
    "Objective",
    "by_dimension",
    "by_site",
    "capacity",
    "ciwae",
    "dreg",
    "elbo",
    "free_bits",
    "iwae",
    "mean_exp",
    "miwae",
    "optimal_scale",
    "rate",
    "reconstruction",
    "reinforce",
    "renyi",
    "stl",
    "tvo",
    "tvo_upper",
    "vimco",
]
