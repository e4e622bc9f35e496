"""The grammar of calls, and every registered recipe on every kind of data that it fits."""

import pytest
import torch

from vaestro.data.schema import Binary, Category, Field, Integer, Real, Schema
from vaestro.errors import UsageError
from vaestro.objectives import elbo
from vaestro.recipes import RECIPES, call_of, parse
from vaestro.recipes.classic import iwae
from vaestro.training.loop import Loop, owned

TINY = {
    "top_down": "width=16,latents=3",
    "vae_gan": "hidden=4x4,latents=3",
    "vamp": "components=5,latents=3,hidden=16",
    "gmm_prior": "components=3,latents=3,hidden=16",
}
KINDS = (Binary(), Integer(5), Real())


def schema(kind, shape=(1, 8, 8)) -> Schema:
    return Schema("toy", (Field("x", kind, shape), Field("label", Category(2))), {"train": 10, "validation": 10, "test": 10})


def rows(kind, n=6, shape=(1, 8, 8)) -> torch.Tensor:
    levels = getattr(kind, "levels", 0)
    return torch.randint(levels, (n, *shape)).float() / (levels - 1) if levels else torch.randn(n, *shape)


FITTING = [(name, kind) for name in RECIPES for kind in KINDS if type(kind) in RECIPES[name].fits]


@pytest.mark.parametrize(("name", "kind"), FITTING, ids=lambda v: v if isinstance(v, str) else type(v).__name__)
def test_recipe_trains_scores_and_dreams(name, kind):
    recipe = parse(f"{name}:{TINY.get(name, '')}").cook(schema(kind))
    x = rows(kind)
    loop = Loop(recipe, 0, 10, torch.device("cpu"))
    for _ in range(3):
        loop.step(lambda: {"x": x})
    means = loop.flush()
    assert all(torch.isfinite(torch.tensor(list(means.values()))))
    assert int(loop.skipped) == 0
    trace = recipe.model.eval()({"x": x}, 4)
    assert trace.log_w.shape == (4, 6)
    assert recipe.model.generate(5)["x"].value.shape == (5, 1, 8, 8)
    if trace.normalised:
        assert torch.allclose(-elbo()(trace), (trace.log_px - trace.kl).mean(0), atol=1e-3)


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_parameter_has_one_owner_and_gets_a_gradient_from_it_alone(name):
    kind = RECIPES[name].fits[0]() if RECIPES[name].fits[0] is Binary else Integer(5)
    recipe = parse(f"{name}:{TINY.get(name, '')}").cook(schema(kind))
    players = owned(recipe)
    x = rows(kind)
    from vaestro.plays import Clock

    moved = {player: set() for player in players}
    for move in recipe.play(recipe.parts, {"x": x}, Clock(9, 10)):
        before = {n: p.detach().clone() for n, p in recipe.parts.named_parameters()}
        recipe.parts.zero_grad()
        move.loss.float().mean().backward(inputs=list(players[move.player].values()))
        gradients = {n for n, p in recipe.parts.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        assert gradients <= set(players[move.player])
        moved[move.player] |= gradients
        assert all(torch.equal(before[n], p) for n, p in recipe.parts.named_parameters())
    for player, gradients in moved.items():
        assert gradients == set(players[player]), f"{player} leaves {set(players[player]) - gradients} without a gradient"


@pytest.mark.parametrize("name", list(RECIPES))
def test_recipe_says_what_it_is(name):
    entry = RECIPES[name]
    assert entry.paper
    assert entry.formula
    assert entry.published
    assert entry.summary.endswith((".", ";"))


def test_calls_round_trip():
    for text in (
        "vae",
        "iwae:samples=7,latents=3",
        "vae:hidden=64x32,network=gated_mlp,likelihood=gaussian_shared",
        "vae:batch=64,ema=0.999,optimizer=adamw",
        "vae:hidden=64",
    ):
        call = parse(text)
        assert str(parse(str(call))) == str(call)
        assert parse(str(call)).keywords == call.keywords
        assert parse(str(call)).training == call.training
    assert str(parse("iwae:latents=40,samples=5")) == "iwae"
    assert str(call_of(iwae, {"samples": 7})) == "iwae:samples=7"
    assert parse("vae:hidden=64").keywords["hidden"] == (64,)
    assert parse("vae:clip=none").training["clip"] is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("vea", "no recipe called 'vea'; did you mean vae"),
        ("iwae:sample=5", "no keyword 'sample'; did you mean samples"),
        ("iwae:samples=0", "samples should be greater than or equal to 1, and got 0"),
        ("iwae:samples=2.5", "samples should be a valid integer, and got 2.5"),
        ("iwae:samples=true", "samples should be a valid integer, and got true"),
        ("beta_vae:beta=-1", "beta should be greater than or equal to 0, and got -1"),
        ("vae:network=mpl", "no network called 'mpl'; did you mean mlp"),
        ("vae:latents", "is not a call"),
        ("vae:latents=3,latents=4", "twice"),
        ("vae:ema=1", "ema should be less than 1"),
        ("vae:learning_rate=0", "learning_rate should be greater than 0"),
        ("vae:hidden=0x3", "hidden"),
        ("vae:optimizer=adma", "no optimizer called 'adma'; did you mean adam"),
    ],
)
def test_wrong_calls_are_refused_in_one_sentence(text, words):
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_recipes_that_do_not_fit_name_those_that_do():
    with pytest.raises(UsageError, match=r"'listing_dense' fits Binary data, but 'toy' holds Integer values; recipes that fit it: .*vae"):
        parse("listing_dense").cook(schema(Integer(256)))
    with pytest.raises(UsageError, match="bernoulli does not fit"):
        parse("vae:likelihood=bernoulli").cook(schema(Integer(256)))
    with pytest.raises(UsageError, match="needs images"):
        parse("listing_mse").cook(schema(Binary(), (9,)))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 100, 37), (1, 1, 1), (1, 5, 5)])
@pytest.mark.parametrize(
    "call",
    ["vae:network=convolutional,hidden=4x8,latents=1", "vae:network=residual,hidden=4x8,latents=2", "vae:hidden=8,latents=1", "listing_conv:latents=1"],
)
def test_any_image_size_and_a_latent_of_one(call, shape):
    if call.startswith("listing_conv") and min(shape[1:]) < 5:
        pytest.skip("the listing's unpadded convolutions need 5x5")
    recipe = parse(call).cook(schema(Integer(256), shape))
    x = rows(Integer(256), 1, shape)
    loop = Loop(recipe, 0, 2, torch.device("cpu"))
    loop.step(lambda: {"x": x})
    assert torch.isfinite(torch.tensor(list(loop.flush().values()))).all()
    assert recipe.model.generate(2)["x"].value.shape == (2, *shape)


def test_vectors_of_numbers_train_too():
    recipe = parse("vae:latents=2,hidden=8").cook(schema(Real(), (9,)))
    assert recipe.model({"x": torch.randn(5, 9)}).log_w.shape == (1, 5)


def test_the_same_seed_cooks_the_same_weights_and_leaves_the_generator_alone():
    state = torch.get_rng_state()
    a, b, c = (parse("vae").cook(schema(Binary()), seed).parts.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert any(not torch.equal(a[n], c[n]) for n in a)
    assert torch.equal(state, torch.get_rng_state())
