"""Scores of trained models: likelihoods, metrics, a judge of pictures, intervals and ranks."""
