"""Scores of trained models: likelihoods, metrics, a judge of images, intervals and ranks."""
