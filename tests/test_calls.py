"""The grammar of calls, and every registered recipe on every kind of data that it fits."""

import inspect
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from vaestro import api
from vaestro.data import from_arrays
from vaestro.data.schema import Binary, Integer, Schema
from vaestro.errors import UsageError
from vaestro.families import default_likelihood
from vaestro.recipes import RECIPES, call_of, parse, recorded
from vaestro.recipes.basic import vae
from vaestro.recipes.book import Entry, Recipe
from vaestro.recipes.bounds import iwae
from vaestro.recipes.calls import TRAINING
from vaestro.recipes.conditional import cvae
from vaestro.testing import check_play, check_recipe, toy_batch, toy_schema
from vaestro.training.loop import Loop

TINY = {
    "cvae": "latents=3,hidden=16,width=8",
    "m2": "latents=3,hidden=16,width=8,labels=4",
    "m1_m2": "latents=3,upper=2,hidden=16,width=8,labels=4",
    "vq_vae": "codes=5,dimension=3,hidden=4x4",
    "rvq_vae": "codes=4,depth=2,dimension=3,hidden=4x4",
    "vq_vae_2": "codes=4,dimension=3,hidden=4x4x4",
    "fsq_vae": "levels=4x3,hidden=4x4",
    "dvae": "codes=5,hidden=4x4",
    "categorical_vae": "variables=3,classes=4,hidden=16",
    "capacity": "latents=3,hidden=16",
    "cyclical": "latents=3,hidden=16",
    "free_bits_vae": "latents=3,hidden=16",
    "geco": "latents=3,hidden=16",
    "sigma_vae": "latents=3,hidden=16",
    "delta_vae": "latents=4,width=2,hidden=16,nats=1.0",
    "delta_gaussian": "latents=3,hidden=16,nats=1.0",
    "curriculum": "latents=3,hidden=16",
    "lagging": "latents=3,hidden=16,inner=2",
    "semi_amortised": "latents=3,hidden=16,steps=2",
    "hamiltonian_vae": "latents=3,hidden=16,steps=2",
    "hyperspherical": "latents=3,hidden=16",
    "poincare": "latents=3,hidden=16",
    "dirichlet_vae": "latents=3,hidden=16",
    "gamma_vae": "latents=3,hidden=16",
    "riemannian_vae": "latents=3,hidden=16,steps=2,centres=4",
    "ppca": "latents=3",
    "factor_analysis": "latents=3",
    "mixture": "components=3",
    "k_means": "components=3",
    "kernel_density": "rows=5",
    "copier": "rows=5",
    "marginals": "",
    "png": "",
    "zlib": "",
    "vimco": "latents=3,hidden=8",
    "reinforce": "latents=3,hidden=8",
    "beta_tc_vae": "latents=3,hidden=16",
    "factor_vae": "latents=3,hidden=16,critic=8",
    "dip_vae": "latents=3,hidden=16",
    "info_vae": "latents=3,hidden=16",
    "mmd_vae": "latents=3,hidden=16",
    "ada_gvae": "latents=3,hidden=16",
    "joint_vae": "latents=3,hidden=16,variables=2,classes=3",
    "top_down": "width=16,latents=3",
    "ladder_vae": "latents=5x3,hidden=8x6",
    "bottom_up": "latents=5x3,hidden=16,upper=8",
    "resnet_vae": "hidden=4x4,latents=3",
    "resnet_vae_iaf": "blocks=1x1x0,width=8,latents=2,flows=2",
    "nvae": "blocks=1x1x0,width=8,latents=2",
    "vdvae": "blocks=1x1x0,width=8,latents=2",
    "vae_gan": "hidden=4x4,latents=3",
    "gan": "hidden=4x4,latents=3",
    "bigan": "hidden=4x4,latents=3",
    "ali": "hidden=4x4,latents=3",
    "soft_intro_vae": "hidden=4x4,latents=3",
    "perceptual_vae": "hidden=4x4,latents=3",
    "denoising_ae": "latents=3,hidden=16",
    "denoising_vae": "latents=3,hidden=16",
    "contractive_ae": "latents=3,hidden=16",
    "sparse_ae": "latents=5,hidden=16",
    "rae": "latents=3,hidden=16",
    "two_stage": "latents=3,hidden=16,width=8",
    "wae_mmd": "latents=3,hidden=16",
    "swae": "latents=3,hidden=16",
    "aae": "latents=3,hidden=16,critic=8",
    "pixel_vae": "latents=3,hidden=4,masked=4x4,kernel=3",
    "full_covariance": "latents=3,hidden=16",
    "planar": "latents=3,hidden=16,flows=2",
    "radial": "latents=3,hidden=16,flows=2",
    "householder": "latents=3,hidden=16,flows=2",
    "iaf": "latents=3,hidden=16,flows=2,width=8",
    "maf_posterior": "latents=3,hidden=16",
    "spline_posterior": "latents=3,hidden=16,flows=2",
    "vamp": "components=5,latents=3,hidden=16",
    "gmm_prior": "components=3,latents=3,hidden=16",
    "exemplar": "exemplars=5,latents=3,hidden=16",
    "flow_prior": "layers=2,latents=3,hidden=16",
    "maf_prior": "layers=2,latents=3,hidden=16",
    "spline_prior": "layers=2,bins=3,latents=3,hidden=16",
    "autoregressive_prior": "components=2,latents=3,hidden=16",
    "vade": "components=3,latents=3,hidden=16",
}
schema = toy_schema


def rows(kind, n=6, shape=(1, 8, 8)) -> torch.Tensor:
    return toy_batch(kind, n, shape)["x"]


@pytest.mark.parametrize("name", list(RECIPES))
def test_recipe_passes_its_public_check(name):
    check_recipe(f"{name}:{TINY.get(name, 'latents=3')}")


def test_the_public_check_catches_a_player_that_moves_another():
    recipe = parse("vae_gan:hidden=4x4,latents=2").cook(schema(Binary()))

    def leaking(parts, batch, clock):
        for move in recipe.play(parts, batch, clock):
            with torch.no_grad():
                parts["critic"].head.bias.add_(float(move.player == "encoder"))
            yield move

    with pytest.raises(AssertionError):
        check_play(replace(recipe, play=lambda p, b, c: (m for m in leaking(p, b, c))), {"x": rows(Binary())})


@pytest.mark.parametrize("name", list(RECIPES))
def test_no_recipe_takes_a_keyword_of_training_for_its_own(name):
    assert not set(inspect.signature(RECIPES[name].build).parameters) & set(TRAINING)


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
        ("VAE", "no recipe called 'VAE'; did you mean vae"),
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


def test_the_same_seed_cooks_the_same_weights_and_leaves_the_generator_alone():
    state = torch.get_rng_state()
    a, b, c = (parse("vae").cook(schema(Binary()), seed).parts.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert any(not torch.equal(a[n], c[n]) for n in a)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("text", ["vae:network=3", "vae:rate=0.5", "vae:likelihood=none", "vae:network=32x32", "vae:optimizer=true"])
def test_a_number_is_no_part(text):
    with pytest.raises(UsageError, match=r"takes the name of a .*; known are "):
        parse(text)


def sized(schema: Schema, batch: int = 8) -> Recipe:
    """Its width has the name of a keyword of training."""
    return vae(schema, hidden=(batch,))


def worded(schema: Schema, words: str = "", title: str | None = None) -> Recipe:
    """A recipe of words."""
    return vae(schema, hidden=(8,))


def listed(schema: Schema, hidden: list[int] = [8, 8]) -> Recipe:  # noqa: B006 (that is what is refused)
    """A list has no text of a call."""
    return vae(schema, hidden=tuple(hidden))


def lax(schema: Schema, width: int = None) -> Recipe:  # type: ignore[assignment]  # noqa: RUF013 (that is what is refused)
    """The default is none of what the annotation takes."""
    return vae(schema, hidden=(8,))


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Recipe]], Entry]:
    """Puts a function into the book, for one test."""

    def put(build: Callable[..., Recipe]) -> Entry:
        monkeypatch.setitem(RECIPES._parts, build.__name__, replace_build(RECIPES["vae"], build))
        return RECIPES[build.__name__]

    return put


def replace_build(entry: Entry, build: Callable[..., Recipe]) -> Entry:
    return entry._replace(name=build.__name__, build=build)


def test_a_keyword_of_trainings_name_is_refused(enter):
    for text in (enter(sized).name, "sized:batch=16"):
        with pytest.raises(UsageError, match="recipe 'sized' has a keyword called 'batch', which every recipe has for its training; rename it"):
            parse(text)
    with pytest.raises(UsageError, match="'batch'"):
        call_of(sized, {})


@pytest.mark.parametrize("words", ["", "a,b=c:d", "2024", "true", "None", "0x3", "()", "nan"])
def test_words_are_recorded_as_they_are(enter, words):
    call = call_of(enter(worded), {"words": words, "title": "3"})
    call.cook(schema(Binary()))
    again = recorded("worded", call.to_json())
    assert again.keywords == call.keywords == {"words": words, "title": "3"}
    assert call_of(worded, {}).keywords == recorded("worded", call_of(worded, {}).to_json()).keywords == {"words": "", "title": None}
    assert parse("worded:words=2024,title=none").keywords == {"words": "2024", "title": None}


@pytest.mark.parametrize(
    ("build", "keywords", "words"),
    [
        (listed, {}, r"'listed' cannot be opened again with hidden=\[8, 8\], .*; give a number"),
        (lax, {}, "'lax' cannot be opened again with width=None, for the text 'none' is not read as that"),
        (worded, {"title": "none"}, "'worded' cannot be opened again with title='none'"),
    ],
)
def test_what_its_text_does_not_give_back_is_refused_before_training(enter, build, keywords, words):
    with pytest.raises(UsageError, match=words):
        call_of(enter(build), keywords).cook(schema(Binary()))


def test_a_function_out_of_the_book_and_parts_of_ones_own_are_code():
    assert call_of(listed, {}).cook(schema(Binary())).model
    call_of(vae, {"likelihood": lambda field: default_likelihood(field), "hidden": (8,)}).cook(schema(Binary()))


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_default_is_read_back_from_what_a_run_records(name):
    call = parse(name)
    assert recorded(name, call.to_json()).keywords == call.keywords


def test_runs_of_no_widths_and_of_numbers_for_names_are_opened_again(tmp_path):
    assert parse("vae:hidden=()").keywords["hidden"] == () and str(parse("vae:hidden=()")) == "vae:hidden=()"
    assert recorded("vae", {"hidden": ""}).keywords["hidden"] == ()  # as it was written before
    rows = (np.random.default_rng(0).random((60, 1, 4, 4)) < 0.4).astype(np.uint8)
    data = from_arrays("conditions", {"x": rows, "2024": np.arange(60) % 3})
    calls = (call_of(vae, {"hidden": (), "latents": 3}), call_of(cvae, {"condition": "2024", "hidden": (8,)}), parse("cvae:condition=2024,hidden=8"))
    for number, call in enumerate(calls):
        folder = tmp_path / str(number)
        run = api.train(call, data, steps=2, out=folder)
        found = api.open_run(folder).model.state_dict()
        assert all(torch.equal(w, found[n]) for n, w in run.model.state_dict().items())


@pytest.mark.parametrize("name", ["ladder_vae", "bottom_up"])
def test_a_hierarchy_of_no_layers_is_refused(name):
    with pytest.raises(UsageError, match=f"{name} has no layer of latents; give one or more"):
        parse(f"{name}:latents=()").cook(schema(Binary()))


@pytest.mark.parametrize("name", ["ae", "aae", "denoising_ae", "fsq_vae", "vae"])
def test_a_point_is_no_likelihood_to_train_by(name):
    with pytest.raises(UsageError, match="likelihood point does not fit field 'x' .* its log p is 0 .*, and the squared error is gaussian_fixed; those"):
        parse(f"{name}:{TINY.get(name, 'latents=3')},likelihood=point").cook(schema(Binary()))


@pytest.mark.parametrize(("made", "words"), [(None, "nothing"), ("vae", "a str")])
def test_a_function_that_returns_no_recipe_is_told_so(made, words):
    def mine(schema: Schema) -> Recipe:
        return made

    with pytest.raises(UsageError, match=f"the function 'mine' returns {words}, and a recipe is wanted; return a vaestro.Recipe"):
        call_of(mine, {}).cook(schema(Binary()))
