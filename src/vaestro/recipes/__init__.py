"""Named variants: each recipe is a function of about ten lines; its call is its name everywhere."""

from vaestro.recipes import (
    adversarial,
    bounds,
    classic,
    conditional,
    deep,
    deterministic,
    discrete,
    disentangled,
    inference,
    likelihoods,
    listings,
    posteriors,
    priors,
    wasserstein,
    weights,
)
from vaestro.recipes.book import RECIPES, Entry, Recipe, Training, recipe, solo
from vaestro.recipes.calls import Call, call_of, parse, recorded

__all__ = [
    "RECIPES",
    "Call",
    "Entry",
    "Recipe",
    "Training",
    "adversarial",
    "bounds",
    "call_of",
    "classic",
    "conditional",
    "deep",
    "deterministic",
    "discrete",
    "disentangled",
    "inference",
    "likelihoods",
    "listings",
    "parse",
    "posteriors",
    "priors",
    "recipe",
    "recorded",
    "solo",
    "wasserstein",
    "weights",
]
