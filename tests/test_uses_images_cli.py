"""The commands on pictures, in process: what they write, and one sentence with code 2 for everything that is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

import vaestro
from vaestro.cli.app import app
from vaestro.uses.rows.inputs import read
from vaestro.uses.rows.lines import box_mask, held_rows, labelled_rows, read_mask, read_noisy
from vaestro.uses.rows.pictures import GAP, LARGEST

QUICK = ("--samples", 8, "--draws", 4, "--moves", 2)


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(w) for w in words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run `tiny` on digits, another `other`, a denoiser, and two pictures."""
    there = tmp_path_factory.mktemp("uses")
    for name, recipe, seed in (
        ("tiny", "vae:latents=3,hidden=16", 0),
        ("other", "vae:latents=3,hidden=16", 1),
        ("clean", "denoising_ae:latents=3,hidden=16", 0),
    ):
        vaestro.train(recipe, "digits", steps=30, seed=seed, out=there / "runs" / name)
    vaestro.train("vae:latents=3,hidden=16", "digits-dynamic", steps=2, out=there / "runs" / "dynamic")
    rows, _ = held_rows(vaestro.open_run(there / "runs" / "tiny"), 4)
    for i, row in enumerate(rows):
        Image.fromarray((row[0] * 255).round().byte().numpy()).save(there / f"{i}.png")
    Image.new("L", (5, 8)).save(there / "small.png")
    mask = np.zeros((8, 8), np.uint8)
    mask[4:] = 255
    Image.fromarray(mask).save(there / "mask.png")
    np.save(there / "mask.npy", mask > 0)
    np.save(there / "numbers.npy", mask)
    np.save(there / "noisy.npy", rows.numpy() * 16 + 1.5)
    return there


@pytest.fixture(autouse=True)
def _inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def size(path: str) -> tuple[int, int]:
    """Pictures side by side, and lines, of a sheet without words."""
    with Image.open(path) as image:
        each = 8 * LARGEST + GAP
        return (image.width - GAP) // each, (image.height - GAP) // each


@pytest.mark.parametrize(
    ("words", "out", "sheet"),
    [
        (("vary", "tiny", "0.png", "1.png", "-n", 5, "--noise", 2), "variations.png", (6, 2)),
        (("interpolate", "tiny", "0.png", "1.png", "--steps", 4, "--path", "spherical"), "interpolation.png", (6, 1)),
        (("interpolate", "tiny", "0.png", "1.png", "--path", "density"), "interpolation.png", (11, 1)),
        (("arithmetic", "tiny", "0.png", "--plus", "label=7", "--minus", "label=1", "--rows", 40), "arithmetic.png", (6, 1)),
        (("arithmetic", "tiny", "0.png", "--plus", "label=7", "--steps", 1), "arithmetic.png", (2, 1)),
        (("denoise", "tiny", "0.png", "1.png", "--noise", "gaussian=0.2", *QUICK), "denoised.png", (2, 2)),
        (("denoise", "tiny", "noisy.npy", "--noise", "salt_and_pepper=0.2", *QUICK), "denoised.png", (2, 4)),
        (("denoise", "clean", "0.png"), "denoised.png", (2, 1)),
        (("complete", "tiny", "0.png", "1.png", "--mask", "mask.png", "-n", 3, *QUICK), "completed.png", (5, 2)),
        (("complete", "tiny", "0.png", "--box", "2,0,4,8", "--refine", "gibbs", *QUICK), "completed.png", (8, 1)),
        (("vary", "tiny", "small.png", "--resize", "-n", 2), "variations.png", (3, 1)),
    ],
)
def test_pictures_have_their_places(words: tuple[object, ...], out: str, sheet: tuple[int, int]) -> None:
    done = call(*words)
    assert done.exit_code == 0, done.output + repr(done.exception)
    assert f"Wrote {out}" in done.stdout and size(out) == sheet


def test_traversals_and_explanations_have_words() -> None:
    done = call("traverse", "tiny", "0.png", "--steps", 5, "--rows", 50)
    assert done.exit_code == 0, done.output
    with Image.open("traversal.png") as image:
        assert image.height == 3 * (8 * LARGEST + GAP) + GAP and image.width > 5 * (8 * LARGEST + GAP) + 40
        assert (np.asarray(image)[:, :30].min(-1) < 128).any(), "the words are ink on paper"
    assert call("traverse", "tiny", "-n", 2, "-o", "t.npy", "--rows", 50, "--steps", 4).exit_code == 0
    assert np.load("t.npy").shape == (8, 1, 8, 8)
    told = call("explain", "tiny", "other", "--rows", 60, "--json")
    said = json.loads(told.stdout)
    assert said["runs"] == 2 and said["rows"] == 60 and len(said["latents"]) == 3
    first = said["latents"][0]
    assert first["links"][0]["factor"] == "label" and 0 <= first["stability"]["low"] <= first["stability"]["mean"] <= 1
    assert first["kl"] >= said["latents"][1]["kl"] and Path("explanation.png").is_file()
    assert "latent" in call("explain", "tiny", "--rows", 30, "-o", "e.csv").stdout and Path("e.csv").read_text().count("\n") == 4


def test_completions_as_json_add_up_and_keep_what_is_seen() -> None:
    done = call("complete", "tiny", "0.png", "--mask", "mask.npy", "-n", 2, "-o", "c.npy", "--json", *QUICK)
    said = json.loads(done.stdout)
    assert sum(said[0]["probability"]) == pytest.approx(1) and said[0]["effective"] >= 1
    made, given = np.load("c.npy"), np.asarray(Image.open("0.png"), float) / 255 * 16
    np.testing.assert_allclose(made[0, 0, :4], given.round()[:4], atol=1e-4)


def test_numbers_are_those_of_the_library() -> None:
    run = vaestro.open_run(Path("runs/tiny"))
    assert call("vary", "tiny", "0.png", "-n", 3, "-o", "v.npy", "--seed", 4).exit_code == 0
    x, _ = read([Path("0.png")], run.field)
    np.testing.assert_allclose(np.load("v.npy") / 16, vaestro.vary(run, x, 3, seed=4)[:, 0], atol=1e-5)
    assert call("generate", "tiny", "-n", 4, "--temperature", 0.5, "-o", "g.npy").exit_code == 0
    np.testing.assert_allclose(np.load("g.npy") / 16, vaestro.generate(run, 4, temperature=0.5), atol=1e-5)


def test_a_name_without_an_ending_is_a_folder_of_single_pictures() -> None:
    assert call("generate", "tiny", "-n", 3, "-o", "each").exit_code == 0
    due = vaestro.generate(vaestro.open_run(Path("runs/tiny")), 3)
    for i in range(3):
        with Image.open(f"each/000{i}.png") as image:
            np.testing.assert_array_equal(np.asarray(image), (due[i, 0] * 255).round().numpy().astype(np.uint8))
    wrong = call("generate", "tiny", "-n", 3, "-o", "0.png/each")
    assert wrong.exit_code == 2 and "no folder" in wrong.stderr


def test_rows_are_found_by_their_labels() -> None:
    run = vaestro.open_run(Path("runs/tiny"))
    split = run.data().split("train")
    found = labelled_rows(run, ["label=7"], 10_000)
    assert len(found) == int((np.asarray(split.arrays["label"]) == 7).sum())
    expected = np.asarray(split.arrays["x"])[np.asarray(split.arrays["label"]) == 7] / 16
    np.testing.assert_allclose(found.sum(0), expected.sum(0), rtol=1e-4)


def test_masks_hide_where_they_are_white() -> None:
    run = vaestro.open_run(Path("runs/tiny"))
    for name in ("mask.png", "mask.npy"):
        seen = read_mask(run, Path(name))
        assert seen[0, :4].all() and not seen[0, 4:].any()
    assert (~box_mask(run, "1,2,3,4")).nonzero()[:, 1:].tolist() == [[r, c] for r in (1, 2, 3) for c in (2, 3, 4, 5)]
    noisy, _ = read_noisy([Path("noisy.npy")], run)
    assert float(noisy.max()) > 1 and noisy.dtype == torch.float32, "what no clean row could have is read as it is"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("vary", "tiny", "0.png", "--noise", -1), "no scale"),
        (("vary", "tiny", "small.png"), "--resize"),
        (("vary", "tiny", "0.png", "-o", "x.gif"), "ending"),
        (("interpolate", "tiny", "0.png"), "give two"),
        (("interpolate", "tiny", "0.png", "1.png", "--path", "sperical"), "did you mean spherical"),
        (("arithmetic", "tiny", "0.png", "--plus", "colour=red"), "no field of classes"),
        (("arithmetic", "tiny", "0.png", "--plus", "label=12"), "no class"),
        (("explain", "tiny", "dynamic"), "other data"),
        (("complete", "tiny", "0.png"), "either --mask"),
        (("complete", "tiny", "0.png", "--box", "1,2"), "no box"),
        (("complete", "tiny", "0.png", "--box", "0,0,9,2"), "inside"),
        (("complete", "tiny", "0.png", "--box", "0,0,8,8"), "hides all"),
        (("complete", "tiny", "0.png", "--mask", "small.png"), "shaped"),
        (("complete", "tiny", "0.png", "--mask", "numbers.npy"), "booleans"),
        (("complete", "tiny", "0.png", "--box", "0,0,2,2", "--refine", "gibs"), "did you mean gibbs"),
        (("complete", "clean", "0.png", "--box", "0,0,2,2"), "no density"),
        (("denoise", "tiny", "0.png"), "denoising_ae"),
        (("denoise", "tiny", "0.png", "--noise", "gaussian"), "no strength"),
        (("generate", "tiny", "--temperature", 0), "temperature"),
    ],
)
def test_what_is_wrong_is_one_sentence(words: tuple[object, ...], says: str) -> None:
    done = call(*words)
    assert done.exit_code == 2, done.output + repr(done.exception)
    assert says in done.stderr and done.stderr.count("\n") == 1 and "Traceback" not in done.output


def test_effects_on_numbers_are_no_picture_and_it_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    vaestro.train("vae:latents=2,hidden=8", np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32), steps=2, out="runs/numbers")
    monkeypatch.setattr("vaestro.uses.rows.lines.held_rows", None)  # nothing is read before
    done = call("explain", "numbers", "-o", "x.png")
    assert done.exit_code == 2 and "the rows of numbers are no pictures" in done.stderr
