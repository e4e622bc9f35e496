"""Named variants: each recipe is a function of about ten lines; its call is its name everywhere."""

from vaestro.recipes import adversarial, classic, deep, listings
from vaestro.recipes.book import RECIPES, Entry, Recipe, Training, recipe, solo
from vaestro.recipes.calls import Call, call_of, parse, recorded

__all__ = ["RECIPES", "Call", "Entry", "Recipe", "Training", "adversarial", "call_of", "classic", "deep", "listings", "parse", "recipe", "recorded", "solo"]
