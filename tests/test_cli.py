"""The command line in process: what it writes and says, and one sentence with the right exit code for everything that is wrong."""

import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from annotated_types import Ge, Gt, Le
from PIL import Image
from scipy import stats
from typer.testing import CliRunner, Result

import vaestro
from vaestro.cli.app import app
from vaestro.cli.catalogue import in_words
from vaestro.cli.live import Display, clock, sparkline
from vaestro.cli.shared import finite
from vaestro.cli.tables import cell
from vaestro.data.rows import Rows
from vaestro.evaluation.likelihood import importance
from vaestro.evaluation.scope import fixed_rows
from vaestro.networks import NETWORKS
from vaestro.training.files import load_tensors, locked
from vaestro.training.loop import Loop
from vaestro.uses.evaluate import Protocol, evaluated, files
from vaestro.uses.rows.pictures import GAP

SMALL = "vae:latents=2,hidden=8"
OWN = '''
import vaestro
from vaestro.recipes.basic import vae

@vaestro.recipe()
def my_{name}(schema, width: int = 8):
    """My own recipe."""
    return vae(schema, latents=2, hidden=(width,))
'''


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(w) for w in words])


def done(*words: object) -> str:
    """The output of a command that must succeed."""
    result = call(*words)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.stdout


def picture(path: str) -> np.ndarray:
    """The pixels of a file."""
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three small trained runs in ./runs."""
    place = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAESTRO_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.chdir(place)
        for name, recipe in (("one", SMALL), ("two", SMALL), ("plain", "ae:latents=2,hidden=8")):
            done("train", recipe, "digits-dynamic", "--steps", 20, "--seed", len(name), "--out", f"runs/{name}")
    return place


@pytest.fixture
def here(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it to work in."""
    shutil.copytree(home / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_training_says_what_it_does_and_what_comes_next(here: Path) -> None:
    out = done("train", SMALL, "digits-dynamic", "--steps", 20, "--out", "runs/mine")
    assert len(re.findall(r"^step \d+ of 20, .* validation [\d.]+, active units \d", out, re.MULTILINE)) == 1
    assert "Folder: runs/mine" in out
    assert "vaestro generate mine -n 64 -o grid.png" in out
    about = json.loads((here / "runs/mine/run.json").read_text())
    assert (about["call"], about["status"], about["done_steps"]) == (SMALL, "done", 20)


def test_training_as_json_is_json_alone(here: Path) -> None:
    told = json.loads(done("train", SMALL, "digits-dynamic", "--steps", 5, "--seed", 3, "--json"))
    assert (told["seed"], told["done_steps"], told["status"]) == (3, 5, "done")
    assert Path(told["run"]).is_dir()


def test_a_dry_run_counts_and_writes_nothing(here: Path) -> None:
    before = sorted(here.rglob("*"))
    told = json.loads(done("train", SMALL, "digits-dynamic", "--steps", 50, "--dry-run", "--json"))
    parameters = (64 * 8 + 8) + (8 * 4 + 4) + (2 * 8 + 8) + (8 * 64 + 64)
    assert (told["parameters"], told["steps"], told["batch"]) == (parameters, 50, 128)
    assert told["bytes"]["weights"] == told["bytes"]["gradients"] == 4 * parameters
    assert 8 * parameters <= told["bytes"]["optimizer"] <= 8 * parameters + 4 * 8
    assert told["bytes"]["activations"] >= 4 * 128 * 64, "the batch itself is kept for the backward pass"
    assert told["memory"] == sum(told["bytes"].values())
    assert told["seconds"] == pytest.approx(told["seconds_a_step"] * 50 / 0.9)
    assert "nothing was written" in done("train", SMALL, "digits-dynamic", "--seconds", 5, "--dry-run")
    assert sorted(here.rglob("*")) == before


def test_minutes_are_sixty_seconds(here: Path) -> None:
    told = json.loads(done("train", SMALL, "digits-dynamic", "--minutes", 0.02, "--dry-run", "--json"))
    assert told["steps"] == max(10, int(0.9 * 1.2 / told["seconds_a_step"]))


def test_interrupted_and_resumed_ends_with_the_same_bits(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step: Callable[..., None] = Loop.step

    def stop(self: Loop, fetch: Any) -> None:
        if self.n == 7:
            raise KeyboardInterrupt
        step(self, fetch)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "step", stop)
        result = call("train", SMALL, "digits-dynamic", "--steps", 20, "--seed", 3, "--out", "runs/stopped")
    assert result.exit_code == 130
    assert result.stderr == "vaestro: stopped at step 7; `vaestro resume stopped` goes on\n"
    done("resume", "stopped")
    for a, b in zip(*(load_tensors(here / "runs" / n / "model.safetensors")[0].values() for n in ("one", "stopped")), strict=True):
        assert torch.equal(a, b)


def test_generated_pictures_are_the_model_s_means(here: Path) -> None:
    assert done("generate", "one", "-n", 6, "-o", "grid.png", "--seed", 4) == "Wrote grid.png: 6 means of one.\n"
    means = vaestro.generate(vaestro.open_run("one"), 6, 4)
    sheet = picture("grid.png")
    size = 32 + GAP
    for i in range(6):
        top, left = i // 3 * size + GAP, i % 3 * size + GAP
        np.testing.assert_array_equal(sheet[top : top + 32 : 4, left : left + 32 : 4], (means[i, 0].double() * 255).round())
    done("generate", "one", "-n", 3, "-o", "rows.npy", "--seed", 4, "--sample")
    assert set(np.unique(np.load("rows.npy"))) <= {0.0, 1.0}


def test_reconstructions_stand_beside_their_originals(here: Path) -> None:
    run = vaestro.open_run("one")
    x = torch.from_numpy(run.data().split("test").arrays["x"][:2].astype(np.float32))
    for i in range(2):
        Image.fromarray((x[i, 0].numpy() * 255).astype(np.uint8)).save(f"{i}.png")
    done("reconstruct", "one", "0.png", "1.png", "-o", "pairs.png")
    sheet = picture("pairs.png")
    back = vaestro.reconstruct(run, x)
    for i, due in enumerate((x[0], back[0], x[1], back[1])):
        left = i * (32 + GAP) + GAP
        np.testing.assert_array_equal(sheet[GAP : GAP + 32 : 4, left : left + 32 : 4], (due[0].double() * 255).round())
    Image.new("RGB", (20, 30), (250, 10, 10)).save("photo.png")
    result = call("reconstruct", "one", "photo.png")
    assert result.exit_code == 2
    assert result.stderr == "vaestro: photo.png is 30x20 (height x width), colour, and the run takes 8x8, grey; --resize brings it to that\n"
    assert "binary" in done("reconstruct", "one", "photo.png", "--resize", "-o", "photo-back.png")


def test_rows_that_do_not_go_with_their_numbers_are_measured_again(here: Path) -> None:
    protocol = Protocol(rows=20, samples=2)
    first = evaluated(vaestro.open_run("runs/two"), protocol)
    _, rows = files(first.folder, "test")
    for spoilt in (b"no rows", rows.read_bytes()[:-30]):
        rows.write_bytes(spoilt)
        again = evaluated(vaestro.open_run("runs/two"), protocol)
        assert np.array_equal(again.rows["nll"], first.rows["nll"]) and rows.read_bytes() != spoilt
    other = io.BytesIO()
    np.savez_compressed(other, nll=first.rows["nll"] + 100)
    rows.write_bytes(other.getvalue())
    assert np.array_equal(evaluated(vaestro.open_run("runs/two"), protocol).rows["nll"], first.rows["nll"])


def test_an_evaluation_is_that_of_the_library_and_is_kept(here: Path) -> None:
    told = json.loads(done("evaluate", "one", "--rows", 30, "--samples", 20, "--seed", 5, "--json"))
    kept = json.loads((here / "runs/one/evaluation-test.json").read_text())
    assert told == {name: found for name, found in kept.items() if name != "rows_sha256"}
    run = vaestro.open_run("one")
    rows = Rows(run.data().split("test"), run.schema)
    due = importance(run.model, rows.batch(fixed_rows(rows.rows, 30)), 20, 5)
    assert told["metrics"]["nll"]["value"] == pytest.approx(-due.mean, rel=1e-9)
    assert told["metrics"]["nll"]["error"] == pytest.approx(due.standard_error, rel=1e-9)
    assert told["metrics"]["bits_per_dim"]["value"] == pytest.approx(-due.mean / 64 / np.log(2), rel=1e-9)
    assert told["metrics"]["cross_entropy"]["floor"] == 0
    assert list(told["ladder"]) == ["1", "10", "20"]
    with np.load(here / "runs/one/evaluation-test.rows.npz") as file:
        np.testing.assert_allclose(file["nll"], -due.log_px)
    text = done("evaluate", "one", "--rows", 30, "--split", "validation")
    assert "30 validation rows" in text
    assert "cannot be below 0" in text
    assert (here / "runs/one/evaluation-validation.json").exists()


def test_an_autoencoder_has_no_nats_but_the_rest(here: Path) -> None:
    text = done("evaluate", "plain", "--rows", 20)
    assert "has no density" in text
    assert "reconstruction error" in text
    assert "log-likelihood" not in text


def test_comparisons_are_paired(here: Path) -> None:
    told = json.loads(done("compare", "one", "two", "--rows", 40, "--samples", 10, "--json"))
    rows = [np.load(here / "runs" / n / "evaluation-test.rows.npz")["nll"] for n in ("one", "two")]
    apart = rows[1] - rows[0]
    found = next(d for d in told["differences"] if d["metric"] == "nll")
    half = stats.t.ppf(0.975, 39) * apart.std(ddof=1) / np.sqrt(40)
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((apart.mean(), apart.mean() - half, apart.mean() + half))
    stamp = (here / "runs/one/evaluation-test.json").stat().st_mtime_ns
    text = done("compare", "one", "two", "plain", "--rows", 40, "--samples", 10)
    assert (here / "runs/one/evaluation-test.json").stat().st_mtime_ns == stamp, "what is stored is not computed again"
    assert "two minus one, nll:" in text
    assert "plain minus one, nll" not in text
    assert "plain minus one, reconstruction_mse" in text
    assert call("compare", "one").stderr.startswith("vaestro: a comparison needs two runs or more;")


def test_runs_on_other_data_share_no_table(here: Path) -> None:
    done("train", SMALL, "digits", "--steps", 5, "--out", "runs/grey")
    result = call("compare", "one", "grey", "--rows", 20, "--samples", 2)
    assert result.exit_code == 2
    assert "grey was trained on 'digits' (Integer 1x8x8, 17 levels, hash " in result.stderr
    assert "share no column" in result.stderr


def test_runs_are_listed_and_damaged_ones_too(here: Path) -> None:
    (here / "runs/two/run.json").write_text("{")
    told = {r["name"]: r for r in json.loads(done("runs", "--json"))}
    assert set(told) == {"one", "two", "plain"}
    assert told["one"]["status"] == "done"
    assert told["two"]["status"].startswith("damaged: ")
    assert "damaged" in done("runs")
    (here / "empty").mkdir()
    assert "There is no run in empty" in done("runs", "empty")


def test_diagnosis_is_in_words(here: Path) -> None:
    assert re.match(r"one: \d of 2 latents move with the data", done("diagnose", "one"))
    told = json.loads(done("diagnose", "one", "--json"))
    assert told["signs"]["latents"] == 2


def test_names_are_paths_names_or_first_letters(here: Path) -> None:
    for name in ("one", "runs/one", here / "runs/one", "o"):
        done("generate", name, "-n", 1, "-o", "a.npy")
    shutil.copytree("runs/one", "runs/once")
    assert call("generate", "on").stderr == "vaestro: 'on' may mean once, one; write more of its name\n"
    assert call("generate", "tow").stderr == "vaestro: there is no run called 'tow'; did you mean two?\n"


def test_your_own_file_joins_the_book(here: Path) -> None:
    (here / "mine.py").write_text(OWN.format(name="first"))
    done("train", "my_first:width=6", "digits-dynamic", "--steps", 3, "--from", "mine.py", "--out", "runs/own")
    assert json.loads((here / "runs/own/run.json").read_text())["call"] == "my_first:width=6"
    assert "My own recipe." in done("show", "my_first", "--from", "mine.py")
    (here / "runs/own/run.json").write_text((here / "runs/own/run.json").read_text().replace("my_first", "gone"))
    result = call("generate", "own")
    assert result.exit_code == 2
    assert "runs/own was trained with a recipe of your own, 'gone'; give its file with --from" in result.stderr


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("x = 1\n1 / 0\n", 1, r"broken.py, line 2: ZeroDivisionError: division by zero; mend it and try again"),
        ("def f(:\n", 1, r"broken.py, line 1: SyntaxError: .*; mend it and try again"),
        ("x = 1\n", 2, r"broken.py puts no recipe into the book; decorate a function .* with @vaestro.recipe\(\)"),
    ],
)
def test_a_broken_file_is_told_with_its_line(here: Path, text: str, code: int, says: str) -> None:
    (here / "broken.py").write_text(text)
    result = call("list", "--from", "broken.py")
    assert (result.exit_code, bool(re.fullmatch(f"vaestro: .*{says}\n", result.stderr))) == (code, True), result.stderr


WRONG = {
    "recipe": ("train vea digits", "there is no recipe called 'vea'; did you mean vae"),
    "keyword": ("train vae:latent=3 digits", "recipe 'vae' has no keyword 'latent'; did you mean latents"),
    "training keyword": ("train vae:bacth=3 digits", "recipe 'vae' has no keyword 'bacth'; did you mean batch?"),
    "type": ("train vae:latents=many digits", "latents"),
    "range": ("train vae:latents=0 digits", "latents"),
    "call": ("train vae:latents digits", "'vae:latents' is not a call"),
    "data": ("train vae digit --steps 1", "there is no data set, folder or file called 'digit'; did you mean digits"),
    "fit": ("train listing_dense digits --steps 1", "recipe 'listing_dense' fits Binary data"),
    "budget": ("train vae digits --steps 3 --seconds 3", "a budget is one of --seconds, --minutes and --steps; give only one of them"),
    "device": ("train vae digits --steps 1 --device gpu9", "there is no device 'gpu9' here, which has "),
    "no budget": ("train vae digits --steps 0", "a budget must be positive and finite, and got 0; give some steps or seconds"),
    "unfit": ("train listing_mnist digits", "recipes that fit it: listing_conv, listing_mse, vae, ae, "),
    "widths": ("train vae:hidden=axb digits", "vae: hidden takes widths such as 512x256, and got axb"),
    "chain": ("train delta_vae:latents=1 digits", "give two or more latents, or use delta_gaussian"),
    "no blocks": ("train vdvae:blocks=0x0 digits", "blocks=0x0 has no latent group at its smallest resolution, the first number; give one or more there"),
    "labels": ("train m2:labels=9999 digits", "give 10 to 1437, at least one a class and no more than there are rows"),
    "start": ("train vae digits --steps 1 --start onne", "there is no run called 'onne'; did you mean one?"),
    "taken": (f"train {SMALL} digits --steps 1 --out runs/one", "runs/one already holds a run; `vaestro resume runs/one` goes on with it"),
    "finished": ("resume one", "runs/one is finished"),
    "run": ("evaluate nothing", "there is no run called 'nothing'"),
    "folder": ("evaluate runs", "runs is no run, for it has no run.json"),
    "split": ("evaluate one --split tets", "has no split called 'tets'; did you mean test?"),
    "ending": ("generate one -o grid.pgn", "cannot write grid.pgn: its ending '.pgn' is unknown; did you mean .png"),
    "no folder": ("generate one -o no/grid.png", "cannot write no/grid.png: there is no folder no"),
    "file": ("reconstruct one no.png", "there is no file no.png"),
    "name": ("show vea", "there is no recipe, part, data set or challenge called 'vea'; did you mean vae"),
    "group": ("list prior", "there is no group called 'prior'; did you mean priors"),
    "source": ("data get mnst-grey", "there is no data set called 'mnst-grey'; did you mean mnist-grey"),
    "own file": ("train mine digits --from no.py", "no.py is no Python file"),
    "challenge": ("arena run digts", "there is no challenge called 'digts'; did you mean digits"),
    "arena": ("arena board", "there is no arena in ./arena"),
    "onnx": ("export one --onnx model.xnno", "give a name that ends in .onnx"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_request_is_one_sentence_and_code_2(here: Path, what: str) -> None:
    line, says = WRONG[what]
    before = sorted(here.rglob("*"))
    result = call(*line.split())
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("vaestro: ")
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert [p for p in sorted(here.rglob("*")) if p not in before and p.name != ".lock"] == [], "nothing is left behind"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("trian vae digits", "Did you mean 'train'"),
        ("data gett digits", "Did you mean 'get'"),
        ("train vae", "DATA"),
        ("generate one -n 0", "greater than or equal to 1"),
    ],
)
def test_a_misspelt_command_is_code_2(line: str, says: str) -> None:
    result = call(*line.split())
    assert result.exit_code == 2
    assert says in result.stderr


def test_failures_are_code_1(here: Path) -> None:
    result = call("train", "vae:latents=7,hidden=8", "digits", "--steps", 1, "--start", "one", "--out", "runs/unlike")
    assert result.exit_code == 1 and "the weights do not fit the recipe" in result.stderr
    assert not (here / "runs/unlike").exists()
    with locked(here / "runs/one"):
        about = json.loads((here / "runs/one/run.json").read_text()) | {"status": "running"}
        (here / "runs/one/run.json").write_text(json.dumps(about))
        result = call("resume", "one")
    assert (result.exit_code, result.stderr) == (1, "vaestro: runs/one is in use by another process; wait for it, or stop it first\n")
    weights = here / "runs/two/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    result = call("generate", "two")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert not (here / "grid.png").exists()


def test_an_untrained_run_generates_nothing(here: Path) -> None:
    for name in ("model.safetensors", "state.safetensors"):
        (here / "runs/one" / name).unlink()
    result = call("generate", "one")
    assert (result.exit_code, result.stderr) == (1, "vaestro: runs/one holds no trained weights yet; `vaestro resume runs/one` trains it\n")


def test_vectors_are_written_as_numbers(here: Path) -> None:
    np.save("rows.npy", np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32))
    out = done("train", SMALL, "rows.npy", "--steps", 3, "--out", "runs/vectors")
    assert "-o rows.csv" in out
    done("generate", "vectors", "-n", 4, "-o", "new.csv")
    assert np.loadtxt("new.csv", delimiter=",", skiprows=1).shape == (4, 5)
    assert "-o rows.csv or -o rows.npy" in call("generate", "vectors", "-o", "grid.png").stderr
    done("reconstruct", "vectors", "rows.npy", "-o", "back.npy")
    assert np.load("back.npy").shape == (60, 5)


def test_a_batch_larger_than_the_data_is_said(here: Path) -> None:
    np.save("rows.npy", np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32))
    assert "Note: the batch of 128 is larger than the data" in done("train", SMALL, "rows.npy", "--steps", 2)


def test_weights_are_taken_over(here: Path) -> None:
    done("train", f"{SMALL},learning_rate=1e-12", "digits-dynamic", "--steps", 1, "--start", "one", "--out", "runs/after")
    for a, b in zip(*(load_tensors(here / "runs" / n / "model.safetensors")[0].values() for n in ("one", "after")), strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=0)


def test_export_gives_the_same_numbers(here: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    assert "checked with onnxruntime" in done("export", "one", "--onnx", "small.onnx")
    run = vaestro.open_run("one")
    x = torch.from_numpy(run.data().split("test").arrays["x"][:5].astype(np.float32))
    z = onnxruntime.InferenceSession("small-encoder.onnx").run(None, {"x": x.numpy()})[0]
    np.testing.assert_allclose(z, vaestro.embed(run, x), atol=1e-5)
    back = onnxruntime.InferenceSession("small-decoder.onnx").run(None, {"z": z})[0]
    with torch.no_grad():
        np.testing.assert_allclose(back, run.model.likelihood(torch.from_numpy(z)).mean, atol=1e-5)


def test_lists_and_cards_name_everything(here: Path) -> None:
    told = json.loads(done("list", "--json"))
    assert {"vae", "iwae", "vamp", "top_down", "vae_gan"} <= {r["name"] for r in told["recipes"]}
    assert "mnist-dynamic" in {d["name"] for d in told["data"]}
    card = json.loads(done("show", "iwae", "--json"))
    assert {"name": "samples", "default": "5", "takes": "a whole number, from 1"} in card["keywords"]
    assert next(k for k in card["training"] if k["name"] == "batch")["default"] == "128"
    text = done("show", "vamp")
    assert "eq. 9" in text
    assert "82.43 nats" in text
    assert "vaestro train vae:likelihood=gaussian_shared DATA" in done("show", "gaussian_shared")
    two = json.loads(done("show", "exemplar", "--json"))
    assert (two["is"], two["part"]["meanings"][0]["what"], two["prior"]["keywords"][0]["name"]) == ("recipe", "prior", "exemplars")
    assert "importance sampling" in done("show", "nll")
    assert [set(json.loads(done("list", group, "--json"))) for group in ("priors", "data")] == [{"recipes"}, {"data"}]
    assert "iwae" not in done("list", "priors") and "vamp" in done("list", "priors")
    own = json.loads(done("show", str(Path(__file__).parents[1] / "results" / "mnist-dynamic-standard"), "--json"))
    assert (own["is"], own["name"]) == ("challenge", "mnist-dynamic") and own["tier standard"].endswith("also enters gan")
    both = json.loads(done("show", "digits-dynamic", "--json"))
    assert (both["is"], both["challenge"]["is"]) == ("data", "challenge")
    told = json.loads(done("data", "show", "digits", "--json"))
    assert sum(told["rows"].values()) == 1797
    assert {s["name"] for s in json.loads(done("data", "list", "--json"))} >= {"digits", "mnist-grey"}


def test_whole_numbers_come_back_in_the_units_of_the_data(here: Path) -> None:
    counts = np.random.default_rng(0).poisson(3.0, (60, 5))
    np.save("counts.npy", counts)
    done("train", SMALL, "counts.npy", "--steps", 3, "--out", "runs/counted")
    done("generate", "counted", "-n", 9, "--sample", "-o", "new.csv")
    new, top = np.loadtxt("new.csv", delimiter=",", skiprows=1), counts.max()
    np.testing.assert_allclose(new, new.round(), atol=1e-5)
    assert new.max() > 1 and 0 <= new.min() <= new.max() <= top + 1e-5
    done("reconstruct", "counted", "counts.npy", "-o", "back.npy")
    run = vaestro.open_run("runs/counted")
    np.testing.assert_allclose(np.load("back.npy"), vaestro.reconstruct(run, torch.from_numpy(counts / top).float()) * top, atol=1e-4)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [(86.9312, 0.4512, "86.93 ± 0.45"), (7155.44, 157.0, "7,155 ± 157"), (0.0044182, 0.00065, "0.00442 ± 0.00065"), (2.5, 0.0, "2.5")],
)
def test_a_value_ends_where_its_error_does(value: float, error: float, text: str) -> None:
    assert cell({"value": value, "error": error}) == text


def test_the_version_is_told() -> None:
    assert done("--version") == f"vaestro {vaestro.__version__}\n"


def test_every_public_name_is_there() -> None:
    assert [n for n in dir(vaestro) if not n.startswith("__") and getattr(vaestro, n, None) is None] == []
    with pytest.raises(AttributeError, match="nothing"):
        vaestro.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int, "a whole number"),
        (Annotated[int, Ge(1)], "a whole number, from 1"),
        (Annotated[float, Gt(0)] | None, "a number, above 0, or none"),
        (Annotated[float, Ge(0), Le(1)], "a number, from 0 up to 1"),
        (tuple[int, ...] | None, "widths such as 512x256, or none"),
        (Annotated[object, NETWORKS], "one of " + ", ".join(NETWORKS)),
        (bool, "true or false"),
    ],
)
def test_annotations_in_words(annotation: Any, words: str) -> None:
    assert in_words(annotation) == words


def test_json_has_no_nan() -> None:
    assert finite({"a": [1.0, float("nan")], "b": (float("inf"), "x")}) == {"a": [1.0, None], "b": [None, "x"]}


def test_the_trend_is_drawn_to_scale() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([float(v) for v in range(48)], 8) == "▁▁▂▄▅▆▇█", "the first tenth does not set the scale"
    assert sparkline([2.0, float("nan"), 2.0]) == "▁▁"
    assert sparkline([]) == ""
    assert sparkline([1e9] + [float(v) for v in range(19, 0, -1)], 20)[0] == "█", "a wild start is cut off"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (61.4, "1:01"), (3725, "1:02:05"), (-3, "0:00")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_the_display_tells_speed_and_what_is_left(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"steps": 100}')
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "seconds": 0.5, "loss": 9.0}\n')
    board = Display(tmp_path)
    board({"step": 10, "seconds": 2.0, "loss": 5.0})
    assert board.speed == 0.0
    board({"step": 30, "seconds": 4.0, "loss": 3.0, "validation": 4.5, "active_units": 2, "note": "posterior collapse: 2 of 20 latents in use", "skipped": 1})
    assert (board.speed, board.left) == (10.0, 7.0)
    assert board.history()["loss"] == [9.0, 5.0, 3.0]
    assert board.notes() == ["posterior collapse: 2 of 20 latents in use", "1 gradients were infinite or NaN, and moved nothing"]
    assert board.plain().startswith("step 30 of 100, 4.0 s, 0:07 left: loss 3, validation 4.5, active units 2; posterior collapse")
