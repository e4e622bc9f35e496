"""Every recipe at real sizes and at the edges, through the public functions: train, score, dream, rebuild, save, open again."""

import inspect

import numpy as np
import pytest
import torch

import vaestro
from vaestro.data.schema import Binary, Integer
from vaestro.errors import UsageError
from vaestro.models import conditions_of
from vaestro.recipes import RECIPES
from vaestro.uses.evaluate import Protocol

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::vaestro.errors.Caveat")]  # that an autoencoder has no prior to speak of


FEW = {"m2": "labels=4", "m1_m2": "labels=4"}  # of 40 rows


def named(name, *more):
    """A call of a recipe with these keywords, and those that 40 rows ask for."""
    keywords = ",".join([*more, *([FEW[name]] if name in FEW else [])])
    return f"{name}:{keywords}" if keywords else name


def rows(name, n=40):
    """Random pictures of 28x28, of two levels where the recipe takes them, with labels and the other rows of pairs for those that ask."""
    generator = np.random.default_rng(0)
    levels = 2 if Binary in RECIPES[name].fits else 17 if Integer in RECIPES[name].fits else 0
    x = generator.integers(levels, size=(n, 1, 28, 28)).astype(np.uint8) if levels else generator.normal(size=(n, 1, 28, 28)).astype(np.float32)
    return {"x": x, "label": np.arange(n) % 2, "x2": x[::-1].copy()}


def edge(name):
    """The call with one latent where there is a number of latents, and the smallest batches: of one row, where rows are not compared."""
    keywords = inspect.signature(RECIPES[name].build).parameters
    return named(name, f"batch={RECIPES[name].rows}", *(["latents=1"] if "latents" in keywords and "int" in str(keywords["latents"].annotation) else []))


@pytest.mark.parametrize("call", [*map(named, RECIPES), *(edge(n) for n in RECIPES)])
def test_a_recipe_does_all_that_it_declares(call, tmp_path):
    name = call.partition(":")[0]
    try:
        run = vaestro.train(call, rows(name), steps=3, out=tmp_path / "run", seed=1)
    except UsageError:
        if "latents" not in call or (tmp_path / "run").exists():
            raise
        pytest.skip("one latent is refused in words, before anything is made")
    assert all(torch.isfinite(w).all() for w in run.recipe.parts.state_dict().values() if w.is_floating_point())
    again = vaestro.open_run(tmp_path / "run")
    if "samples" not in RECIPES[name].lacks:
        dreams = [vaestro.generate(r, 3, seed=5) for r in (run, again)]
        assert torch.equal(*dreams)
        assert dreams[0].shape == (3, 1, 28, 28)
    if "reconstruction" not in RECIPES[name].lacks:
        x = torch.rand(2, 1, 28, 28).round()
        told = {field: [0, 1] for field in conditions_of(run.model)}
        made = [vaestro.reconstruct(r, x, given=told) for r in (run, again)]
        assert torch.equal(*made)
    found = vaestro.evaluate(run, Protocol(rows=4, samples=3))
    assert ("nll" in found.scores) == ("density" not in RECIPES[name].lacks)
