"""Fitting a recipe at once, from rows in memory."""

import torch
from torch import Tensor

from vaestro.data.rows import Rows
from vaestro.data.store import Dataset
from vaestro.errors import VaestroError
from vaestro.evaluation.scope import fixed_rows
from vaestro.recipes import Recipe
from vaestro.training.budget import Budget

MOST = 50_000_000  # numbers that a fit reads at most: 200 MB


def rows_of(data: Dataset, split: str, fields: tuple[str, ...]) -> Tensor:
    """The rows of x of a split, [n, *shape] in unit values: all of them, or where they hold more than 50 million numbers a fixed random choice."""
    held, size = Rows(data.split(split), data.schema, fields), data.schema["x"].size
    index = fixed_rows(held.rows, max(2, MOST // max(size, 1)))
    return torch.cat([held.batch(i)["x"] for i in index.split(1000)])


@torch.no_grad()
def fit_at_once(recipe: Recipe, data: Dataset, budget: Budget) -> float:
    """Let a recipe make its parts from the rows of the data, and return the seconds it took, by the budget's clock.

    Raises VaestroError where that was longer than the budget allows.
    """
    assert recipe.fit is not None, "the recipe is fitted at once"
    device = next((t.device for t in recipe.parts.state_dict().values()), torch.device("cpu"))
    rows, held = (rows_of(data, split, ("x",)).to(device) for split in ("train", "validation"))
    start = budget.clock()
    recipe.fit(recipe.parts.eval(), rows, held)
    recipe.parts.train()
    seconds = budget.clock() - start
    if seconds > budget.deadline:
        raise VaestroError(f"the fit took {seconds:.1f} s, and {budget.seconds:g} s were allowed; give more seconds, or fewer latents or components")
    return seconds
