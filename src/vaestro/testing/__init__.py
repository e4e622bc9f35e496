"""Public checks for parts, yours or ours: each raises AssertionError with a sentence when a part breaks its contract."""

from vaestro.testing.linear import LinearGaussian
from vaestro.testing.models import check_bound, check_model, check_play, check_recipe, toy_batch, toy_schema
from vaestro.testing.parts import Grid, check_family, check_network, check_prior, levels, line

__all__ = [
    "Grid",
    "LinearGaussian",
    "check_bound",
    "check_family",
    "check_model",
    "check_network",
    "check_play",
    "check_prior",
    "check_recipe",
    "levels",
    "line",
    "toy_batch",
    "toy_schema",
]
