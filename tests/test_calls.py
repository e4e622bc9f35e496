"""The grammar of calls, and every registered recipe on every kind of data that it fits."""

import inspect
from dataclasses import replace

import pytest
import torch

from vaestro.data.schema import Binary, Integer
from vaestro.errors import UsageError
from vaestro.recipes import RECIPES, call_of, parse
from vaestro.recipes.calls import TRAINING
from vaestro.recipes.classic import iwae
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
