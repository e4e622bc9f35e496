"""Objectives: a loss per row, in nats, from a trace."""

from vaestro.objectives.evidence import Objective, elbo, free_bits, iwae, mean_exp, reconstruction

__all__ = ["Objective", "elbo", "free_bits", "iwae", "mean_exp", "reconstruction"]
