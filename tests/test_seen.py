"""Rows that were seen in part: no play of any recipe reads what was not seen, or takes the holes for data."""

import pytest
import torch

from test_calls import TINY
from vaestro.codes import Hard, OneHotCodes
from vaestro.conditional import Conditional
from vaestro.core import Seen
from vaestro.data.schema import Binary, Integer, Real
from vaestro.errors import UsageError
from vaestro.families import Bernoulli
from vaestro.models import VAE
from vaestro.networks import mlp
from vaestro.objectives import elbo
from vaestro.plays import Clock, enumerated
from vaestro.priors import UniformOneHot
from vaestro.recipes import RECIPES, parse
from vaestro.testing import toy_batch, toy_schema

WHOLE = ("pixel_vae", "perceptual_vae")  # what refuses rows in part, for it scores whole pictures only


def play_of(name, x):
    """Every loss of one step of the recipe on `x`, from one seed."""
    shape, kind = ((1, 4, 3), Binary()) if Binary in RECIPES[name].fits else ((3, 4, 3), Integer(4)) if Integer in RECIPES[name].fits else ((5,), Real())
    recipe = parse(f"{name}:{TINY.get(name, 'latents=3')}").cook(toy_schema(kind, shape), 1)
    torch.manual_seed(2)
    given = x(toy_batch(kind, 4, shape)["x"])
    more = {"label": torch.arange(4) % 2} if "label" in recipe.fields or recipe.told else {n: toy_batch(kind, 4, shape)["x"] for n in recipe.beside}
    torch.manual_seed(3)
    return [move.loss.detach() for move in recipe.play(recipe.parts, {"x": given, **more}, Clock(1, 10))]


@pytest.mark.parametrize("name", [n for n, e in RECIPES.items() if e.group != "listings" and e.group != "own"])
def test_no_play_reads_what_was_not_seen(name):
    def holes(filling):
        def hide(x):
            mask = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.6
            return Seen(torch.where(mask, x, filling), mask)

        return hide

    if name in WHOLE:
        with pytest.raises(UsageError, match="whole pictures"):
            play_of(name, holes(1.0))
        return
    for a, b in zip(play_of(name, holes(torch.nan)), play_of(name, holes(1.0)), strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("by_row", [True, False])
def test_enumeration_scores_only_what_was_seen(by_row):
    torch.manual_seed(0)
    q = Conditional(mlp((5,), (3, 2), (4,)), OneHotCodes(3, 1, lambda logits, temperature: Hard(logits)))
    model = VAE(UniformOneHot((2,), 3), q, Conditional(mlp((2, 3), (5,), (4,)), Bernoulli())).double()
    mask = torch.tensor([True, False, True]) if by_row else torch.rand(3, 5) > 0.4
    batch = {"x": Seen(torch.rand(3, 5, dtype=torch.float64).round(), mask)}
    (move,) = enumerated(torch.nn.ModuleDict({"model": model}), batch, Clock(0, 1))
    torch.testing.assert_close(move.loss, elbo()(model(batch, 40_000)), atol=0.03, rtol=0)


def test_a_critic_of_features_sees_the_same_holes_in_made_rows():
    recipe = parse("vae_gan:hidden=4x4,latents=2").cook(toy_schema(Binary(), (1, 4, 4)))
    x = toy_batch(Binary(), 6, (1, 4, 4))["x"]
    mask = torch.rand_like(x) > 0.5
    shown = []
    recipe.parts["critic"].register_forward_pre_hook(lambda module, inputs: shown.append(inputs[0]))
    for move in recipe.play(recipe.parts, {"x": Seen(x, mask)}, Clock(0, 1)):
        assert move.loss.isfinite().all()
    assert len(shown) >= 8 and all(bool((picture[~mask] == 0).all()) for picture in shown)
