"""Objectives: a loss per row, in nats, from a trace."""

from vaestro.objectives.bounds import ciwae, miwae, renyi
from vaestro.objectives.discrepancies import imq, mismatch, mmd, rbf, sliced_wasserstein
from vaestro.objectives.disentangling import beta_tc, capacities, decomposition, dip, info, stratified, weighted
from vaestro.objectives.evidence import Objective, elbo, iwae, mean_exp, reconstruction
from vaestro.objectives.gradients import dreg, reinforce, stl, vimco
from vaestro.objectives.likeness import energy, squared_error
from vaestro.objectives.perceptual import perceived
from vaestro.objectives.thermodynamic import tvo, tvo_upper
from vaestro.objectives.weights import by_dimension, by_site, capacity, free_bits, optimal_scale, rate

__all__ = [
    "Objective",
    "beta_tc",
    "by_dimension",
    "by_site",
    "capacities",
    "capacity",
    "ciwae",
    "decomposition",
    "dip",
    "dreg",
    "elbo",
    "energy",
    "free_bits",
    "imq",
    "info",
    "iwae",
    "mean_exp",
    "mismatch",
    "miwae",
    "mmd",
    "optimal_scale",
    "perceived",
    "rate",
    "rbf",
    "reconstruction",
    "reinforce",
    "renyi",
    "sliced_wasserstein",
    "squared_error",
    "stl",
    "stratified",
    "tvo",
    "tvo_upper",
    "vimco",
    "weighted",
]
