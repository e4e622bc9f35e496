"""What newcomers ran into: each slip gets one sentence, each file of theirs stays, and plain numbers train from the first step."""

import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner, Result

import vaestro
from vaestro import UsageError, VaestroError
from vaestro.arena.making import measures
from vaestro.cli.app import app
from vaestro.data import from_arrays, from_table, load, prepare_table
from vaestro.data.prepare.tables import cards, rows_of_table
from vaestro.data.schema import Field, Integer, Real
from vaestro.families import Bernoulli, Family, Gaussian, Laplace, Logistic, LogisticMixture, SharedGaussian, Student
from vaestro.families.calm import calm, scales
from vaestro.families.fields import Fields
from vaestro.networks import NETWORKS, mlp
from vaestro.recipes import parse
from vaestro.training.budget import Budget
from vaestro.training.forecast import unscaled
from vaestro.uses.rows.inputs import laid
from vaestro.uses.rows.pictures import require_writer


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(w) for w in words])


def fails(*words: object) -> str:
    """The one sentence of a command that is a wrong request."""
    result = call(*words)
    assert result.exit_code == 2 and "Traceback" not in result.output, result.output + repr(result.exception)
    return result.output


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of digits, one of an autoencoder, and one of a table with gaps."""
    place = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAESTRO_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.chdir(place)
        rng = np.random.default_rng(0)
        near = rng.normal(size=60)
        pl.DataFrame({"name": [f"n{i}" for i in range(60)], "km": near.round(3), "miles": (near + rng.normal(size=60)).round(3)}).write_csv("t.csv")
        for name, recipe, data in (
            ("digits", "vae:latents=2,hidden=8", "digits"),
            ("ae", "ae:latents=2,hidden=8", "digits"),
            ("table", "vae:hidden=8", "t.csv"),
        ):
            assert call("train", recipe, data, "--steps", 5, "--out", f"runs/{name}").exit_code == 0
    return place


@pytest.fixture
def here(home: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path_factory.mktemp("cache")))
    return home


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, 0.0])
def test_a_budget_is_a_positive_finite_number(seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="must be positive and finite"):
        Budget(seconds=seconds)
    monkeypatch.chdir(tmp_path)
    assert "must be positive and finite" in fails("train", "vae", "digits", "--minutes", seconds)
    assert not list(tmp_path.iterdir())


def test_what_is_not_there_is_called_what_it_looks_like(here: Path) -> None:
    said = fails("train", "vae", "nothing.csv", "--steps", 5)
    assert "there is no folder or file 'nothing.csv'" in said and "shuttle" not in said
    assert "did you mean digits" in fails("train", "vae", "digit", "--steps", 5)
    assert "digits is a named data set; leave it out" in fails("train", "vae", "digits", "--columns", "km=real")
    assert "runs is a folder; leave it out" in fails("data", "show", "runs", "--columns", "km=real")
    assert "give one: `vaestro runs` lists them" in fails("evaluate", "")


def test_a_table_is_named_in_few_words() -> None:
    data = from_table({"a": np.arange(30) / 7, "b": np.arange(30) % 4})
    assert str(data.schema["x"].kind) == "Table of 2 columns"
    with pytest.raises(UsageError, match="of kind Table of 2 columns: it gives a mass"):
        parse("vae:likelihood=bernoulli").cook(data.schema)


def test_notes_of_a_table_are_said_once(here: Path) -> None:
    shown = call("data", "show", "t.csv").output
    trained = call("train", "vae:hidden=8", "t.csv", "--steps", 5, "--dry-run").output
    assert shown.count("column 'name' is left out (id)") == 1 and trained.count("column 'name' is left out (id)") == 1
    assert "1 file read" in shown


def test_equal_rows_that_leave_too_few_are_counted() -> None:
    with pytest.raises(
        UsageError, match="100 rows of 1 kind, for rows that are equal or of one group stay together, cannot be split .*; give at least 3 that differ"
    ):
        from_arrays("same", {"x": np.ones((100, 5))})


def test_decimal_commas_beside_semicolons_are_numbers(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(size=80).round(2) * 1000
    lines = [f"{1000 + n:,.2f}".replace(",", "_").replace(".", ",").replace("_", ".") for n in numbers]
    (tmp_path / "t.csv").write_text("geld;wort\n" + "".join(f"{n};{'ab'[i % 2]},{i % 3}\n" for i, n in enumerate(lines)))
    data = from_table(tmp_path / "t.csv")
    kinds = {c.column: c for c in cards(data)}
    assert kinds["geld"].kind == "real" and kinds["wort"].kind == "category"
    column = data.schema["x"].kind["geld"]
    found = np.concatenate([np.asarray(data.split(s).arrays["x"][:, 0]) for s in ("train", "validation", "test")]) * column.scale + column.loc
    np.testing.assert_allclose(np.sort(found), np.sort(numbers + 1000), atol=0.01)
    (tmp_path / "us.csv").write_text("a,b\n" + "".join(f'"{i},{i}",{i % 5}\n' for i in range(30)))
    assert {c.column: c.kind for c in cards(from_table(tmp_path / "us.csv"))}["a"] == "id", "beside commas, a comma inside is no decimal"


def test_text_of_another_encoding_names_the_byte(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("name,b\nMüller,2\n".encode("latin1"))
    with pytest.raises(VaestroError, match="is no UTF-8 text .*0xfc.*; save it as UTF-8"):
        from_table(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("values", "slip", "what"),
    [([f"2024-01-{d:02d}" for d in range(1, 29)], "2024-13-45", "dates"), ([f"{n / 7:.3f}" for n in range(28)], "12o", "numbers")],
)
def test_a_slip_in_a_column_of_numbers_or_dates_is_told(values: list[str], slip: str, what: str) -> None:
    other = list(range(57))
    noted = from_table({"a": [*values, *values, slip], "b": other}).notes
    assert any(f"column 'a' holds {what} but for 1, such as '{slip}' in row 56, and is read as words" in n for n in noted)
    assert not [n for n in from_table({"a": [*values, *values, slip], "b": other}, {"a": "open"}).notes if "words" in n], "it was declared"
    assert not [n for n in from_table({"a": [*values, slip] * 2 + [slip] * 8, "b": [*other, *other][:66]}).notes if "but for" in n], "too many to be slips"


def test_a_column_that_lacks_is_not_sought_among_those_left_out(here: Path) -> None:
    table = prepare_table("t.csv").schema["x"]
    with pytest.raises(UsageError, match="no column 'km', which the model was trained on; add it, with empty entries"):
        rows_of_table(table, {"name": ["n1"], "miles": [2.0]})
    with pytest.raises(UsageError, match="did you mean kms"):
        rows_of_table(table, {"kms": [1.0], "miles": [2.0]})


def test_the_users_own_files_stay(here: Path) -> None:
    (here / "mine").mkdir(exist_ok=True)
    (here / "mine" / "photo.png").write_bytes(b"mine")
    assert "it is there already, and what is in it stays" in fails("generate", "digits", "-n", 2, "-o", "mine")
    assert [p.name for p in (here / "mine").iterdir()] == ["photo.png"]
    (here / "free").mkdir(exist_ok=True)
    assert require_writer(here / "free") is require_writer(here / "new")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("x.png")
    before = Path("x.png").read_bytes(), Path("t.csv").read_bytes()
    for words in (["reconstruct", "digits", "x.png"], ["vary", "digits", "./x.png"], ["complete", "digits", "x.png", "--box", "0,0,2,2"]):
        assert "it is read, and would be lost" in fails(*words, "-o", "x.png")
    for use in ("impute", "detect", "embed", "cluster", "classify"):
        assert "it is read, and would be lost" in fails(use, "table", "t.csv", "-o", "t.csv")
    (here / "folder.csv").mkdir(exist_ok=True)
    assert "a folder has that name" in fails("generate", "table", "-o", "folder.csv")
    assert before == (Path("x.png").read_bytes(), Path("t.csv").read_bytes())


def test_tables_are_generated_as_rows_without_being_told(here: Path) -> None:
    assert "Wrote rows.csv: 3 samples" in call("generate", "table", "-n", 3).output
    assert pl.read_csv("rows.csv").columns == ["km", "miles"]


def test_a_rate_that_is_none_is_told_before_the_work(here: Path) -> None:
    assert "the false-discovery rate is 1.5" in fails("detect", "table", "t.csv", "--fdr", 1.5, "--labelled", "nothing.csv")


def test_a_finished_run_is_not_written_into(here: Path) -> None:
    shipped = Path(vaestro.__file__).parent / "shipped" / "vae-demo"
    before = sorted(shipped.iterdir())
    assert "is finished" in fails("resume", "demo")
    assert sorted(shipped.iterdir()) == before


def test_an_autoencoder_scores_no_likelihood(here: Path) -> None:
    assert vaestro.open_run("ae").about["unit"] == "nats a row, of reconstruction, which bound no likelihood,"
    assert vaestro.open_run("digits").about["unit"] == "nats a row"


@pytest.mark.parametrize(("shape", "field"), [((5, 4, 3), (1, 4, 3)), ((5, 4, 6, 3), (3, 4, 6)), ((4, 6, 3), (3, 4, 6)), ((4, 3), (1, 4, 3)), ((5, 7), (7,))])
def test_rows_come_as_training_took_them(shape: tuple[int, ...], field: tuple[int, ...]) -> None:
    array = np.arange(math.prod(shape)).reshape(shape)
    rows = laid(array, Field("x", Integer(1000), field), "it")
    assert rows.shape[1:] == field and len(rows) == (1 if array.size == math.prod(field) else 5)
    trained = array if len(rows) == 5 else array[None]
    expected = trained if trained.shape[1:] == field else trained[:, None] if trained.ndim == 3 else trained.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(rows, expected)


def test_rows_of_another_shape_are_refused() -> None:
    for shape in ((5, 3, 4), (0, 4, 3), (), (4, 3, 2)):
        with pytest.raises(UsageError, match="it holds an array shaped"):
            laid(np.zeros(shape), Field("x", Real(), (1, 4, 3)), "it")


def test_arrays_are_rows_and_what_is_none_is_refused(here: Path) -> None:
    run = vaestro.open_run("digits")
    rows = vaestro.load("digits").split("test").arrays["x"][:3] / 16
    assert torch.equal(vaestro.embed(run, rows), vaestro.embed(run, torch.from_numpy(rows)))
    assert torch.equal(vaestro.reconstruct(run, rows.astype(np.float32)), vaestro.reconstruct(run, rows))
    for use in (vaestro.embed, vaestro.reconstruct):
        with pytest.raises(UsageError, match=r"rows shaped \(2, 1, 9, 9\) are none of digits, which takes \(1, 8, 8\) each"):
            use(run, np.zeros((2, 1, 9, 9)))


def test_whole_numbers_are_no_unit_values(tmp_path: Path) -> None:
    grey = (np.random.default_rng(0).random((60, 1, 4, 4)) * 255).astype(np.uint8)
    run = vaestro.train("vae:latents=2,hidden=8", grey, steps=2, out=tmp_path / "grey")
    with pytest.raises(UsageError, match=r"rows are whole numbers \(uint8\), and the model reads unit values; give floats, levels / top"):
        vaestro.embed(run, grey)
    assert vaestro.embed(run, grey / 255).shape == (60, 2)


def test_a_metric_that_cannot_be_is_a_wrong_request(here: Path) -> None:
    assert "nothing was measured: fid, for the Frechet inception distance needs the weights" in " ".join(fails("evaluate", "digits", "--metric", "fid").split())


def test_recipes_are_a_group_of_the_list() -> None:
    assert json.loads(call("list", "recipes", "--json").output) == {"recipes": json.loads(call("list", "--json").output)["recipes"]}


FAMILIES: dict[str, tuple[Family, tuple[int, ...], list[int]]] = {
    "gaussian": (Gaussian(), (3,), [3, 4, 5]),
    "laplace": (Laplace(), (2,), [2, 3]),
    "student": (Student(), (2,), [2, 3]),
    "logistic": (Logistic(), (2,), [2, 3]),
    "mixture": (LogisticMixture(2), (2,), [8, 9, 10, 11]),
    "shared": (SharedGaussian(), (3,), []),
    "bernoulli": (Bernoulli(), (3,), []),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_scales_are_where_the_family_reads_them(name: str) -> None:
    family, event, places = FAMILIES[name]
    assert scales(family, event) == places
    net = mlp((4,), (family.params * event[0],), (16,))
    calm(net, family, event)
    h = net(torch.randn(200, 4))
    kept = [i for i in range(h.shape[1]) if i not in places]
    assert h[:, kept].std() > 0.5 and (not places or h[:, places].std() < 0.2)


def test_scales_of_tables_and_of_pictures() -> None:
    rng = np.random.default_rng(0)
    table = from_table({"a": rng.normal(size=40), "b": rng.negative_binomial(1, 0.1, 40), "c": np.exp(3 * rng.normal(size=40))}).schema["x"].kind
    family = Fields(table)
    (group,) = [g for g in family.groups if g.numbers == 4]
    h = torch.zeros(1, family.params)
    at = scales(family, (3,))
    h[0, at] = -20.0
    begin = sum(family.sizes[: list(family.groups).index(group)])
    assert at == [begin + 2, begin + 3] and (group._law(h[:, begin : begin + 4]).scale < 1e-3).all()
    for name in ("mlp", "convolutional"):
        net = NETWORKS[name]((4,), (2, 8, 8))
        calm(net, Gaussian(3), (1, 8, 8))
        spread = net(torch.randn(100, 4)).std((0, 2, 3))
        assert spread[1] < 0.2 * spread[0], name


@pytest.mark.parametrize("hidden", [32, 64])
def test_plain_numbers_train_from_the_first_step(hidden: int, tmp_path: Path) -> None:
    data = from_arrays("normal", {"x": np.random.default_rng(0).normal(size=(800, 5))})
    lines: list[dict[str, float]] = []
    exact = 5 * (math.log(2 * math.pi) + 1) / 2  # nats a row of the law itself
    vaestro.train(f"vae:latents=2,hidden={hidden}", data, steps=150, out=tmp_path / "normal", watch=lambda line: lines.append(dict(line)))
    assert lines[0]["loss"] < exact + 30 and lines[-1]["validation"] < exact + 2


def test_names_of_data_are_known(here: Path) -> None:
    with pytest.raises(UsageError, match="did you mean digits"):
        load("digit")


@pytest.mark.parametrize(("spread", "told"), [([1.0, 2.0], False), ([0.0, 1.0], False), ([1e4, 1.0], True), ([1.0, 1e-3], True), ([1e30, 1.0], True)])
def test_numbers_far_from_one_are_told(spread: list[float], told: bool) -> None:
    rows = np.random.default_rng(0).normal(size=(60, 2)) * spread
    found = unscaled(from_arrays("a", {"x": rows}, {"x": Real()}))
    assert bool(found) == told and (not told or f"{rows.std(0).max():.1g}"[0] in found[0])


def test_frames_of_pandas_without_names_are_read() -> None:
    rows = np.random.default_rng(0).normal(size=(60, 3))
    assert from_table(pd.DataFrame(rows)).schema["x"].kind.names == ("0", "1", "2")


@pytest.mark.parametrize("n", [0, -1])
def test_no_rows_are_not_drawn(here: Path, n: int) -> None:
    for draw in (vaestro.generate, vaestro.sample):
        with pytest.raises(UsageError, match=f"n is {n}, and at least one row is drawn"):
            draw(vaestro.open_run("digits"), n)


MODULES: dict[str, tuple[tuple[object, ...], str]] = {
    "decoder of other latents": ((nn.Linear(4, 6), nn.Linear(2, 4)), r"the decoder cannot read rows shaped \(3,\)"),
    "encoder of other rows": ((nn.Linear(5, 6), nn.Linear(3, 4)), r"the encoder cannot read rows shaped \(4,\)"),
    "three modules": ((nn.Linear(4, 6), nn.Linear(3, 4), nn.Linear(3, 4)), "3 modules are no recipe"),
}


@pytest.mark.parametrize("name", MODULES)
def test_own_modules_that_do_not_fit_are_told_before_training(name: str, tmp_path: Path) -> None:
    modules, words = MODULES[name]
    with pytest.raises(UsageError, match=words):
        vaestro.train(modules, np.arange(80).reshape(20, 4) % 7 % 2, steps=2, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


ALTERED: dict[str, Callable[[dict[str, Any]], object]] = {
    "data": lambda about: about.update(data="x"),
    "schema": lambda about: about["data"].update(schema={}),
    "keywords": lambda about: about.update(keywords=[]),
    "a prior": lambda about: about.update(stages=[{"prior": 7}]),
    "stages": lambda about: about.update(stages={"a": 1}),
    "threads": lambda about: about.update(threads="two"),
    "budget": lambda about: about.update(budget=3),
    "status": lambda about: about.update(status=None),
}


@pytest.mark.parametrize("name", ALTERED)
def test_a_run_of_other_types_is_told_to_be_altered(name: str, here: Path) -> None:
    about = json.loads((here / "runs/digits/run.json").read_text())
    ALTERED[name](about)
    folder = here / "other" / "altered"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(about))
    result = call("generate", "other/altered")
    assert result.exit_code == 1 and "the file was altered: restore it from a copy" in result.output and "Traceback" not in result.output
    listed = call("runs", "other")
    assert listed.exit_code == 0 and "damaged" in listed.output


def test_a_challenge_of_a_table_is_ranked_by_nats(here: Path) -> None:
    headline, names = measures(prepare_table("t.csv").schema)
    assert headline == "nll" and "bits_per_dim" not in names


def test_every_verb_takes_a_run_by_its_name(tmp_path: Path) -> None:
    same = vaestro.open_run("demo")
    assert torch.equal(vaestro.generate("demo", 2), vaestro.generate(same, 2))
    assert vaestro.diagnose(same.folder, rows=100) == vaestro.diagnose(same, rows=100)
    x = vaestro.sample(same, 3)
    assert torch.equal(vaestro.embed(str(same.folder), x), vaestro.embed(same, x))
    assert [latent.label for latent in vaestro.explain("demo", x, most=2).latents] == [latent.label for latent in vaestro.explain([same], x, most=2).latents]
    vaestro.write_codes("demo", str(tmp_path / "codes.npy"), x)
    assert np.load(tmp_path / "codes.npy").shape == (3, 40)


@pytest.mark.parametrize("verb", [vaestro.generate, vaestro.sample, vaestro.evaluate, vaestro.detect, vaestro.diagnose, vaestro.impute])
def test_what_is_no_run_is_told_in_one_sentence(verb) -> None:
    rest = () if verb in (vaestro.generate, vaestro.sample, vaestro.evaluate, vaestro.diagnose) else (np.zeros((2, 1, 28, 28)),)
    with pytest.raises(vaestro.UsageError, match="there is no run called 'dmeo'; did you mean demo"):
        verb("dmeo", *rest)
    with pytest.raises(vaestro.UsageError, match="a list is no run"):
        verb([], *rest)


def test_a_table_is_not_exported_and_told_so_at_once(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n" + "\n".join(f"{i / 7:.3f},{'xy'[i % 2]}" for i in range(60)) + "\n")
    run = vaestro.train("vae:latents=2,hidden=8", tmp_path / "t.csv", steps=2, out=tmp_path / "run")
    assert "columns of a table" in fails("export", run.folder, "--onnx", tmp_path / "m.onnx")
    assert not list(tmp_path.glob("*.onnx"))


def test_own_modules_are_copied_and_not_changed(tmp_path: Path) -> None:
    """A trial run of the user's encoder moved the statistics of its batch normalisation."""
    encoder, decoder = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 6)), nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 4))
    before = {n: t.clone() for m in (encoder, decoder) for n, t in m.state_dict(prefix=str(id(m))).items()}
    vaestro.train((encoder, decoder), np.arange(80).reshape(20, 4) % 7 % 2, steps=2, out=tmp_path / "run")
    assert all(torch.equal(t, before[n]) for m in (encoder, decoder) for n, t in m.state_dict(prefix=str(id(m))).items())


def test_own_modules_read_a_gap_as_nought(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=60), "b": rng.normal(size=60), "c": rng.choice(list("xyz"), 60)})
    frame.loc[::7, ["a", "c"]] = np.nan
    encoder, decoder = nn.Linear(3, 4), nn.Linear(2, 2 + 2 + 3)
    run = vaestro.train((encoder, decoder), frame, steps=3, out=tmp_path / "run")
    assert run.about["skipped"] == 0 and math.isfinite(run.about["validation"])
    x = torch.tensor([[0.5, math.nan, 1.0], [math.nan, -1.0, math.nan]])
    with torch.no_grad():
        read, whole = run.model.posterior(x), run.model.posterior(x.nan_to_num())
    assert torch.equal(read.mean, whole.mean) and bool(read.mean.isfinite().all())
    again = vaestro.open_run(tmp_path / "run", (encoder, decoder))
    assert torch.equal(vaestro.embed(again, x), vaestro.embed(run, x))


def test_threads_of_a_program_give_what_each_would_alone(tmp_path: Path) -> None:
    run = vaestro.train("vae:latents=2,hidden=8", "digits-dynamic", steps=3, out=tmp_path / "run")
    state = torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(vaestro.generate, run, 5, seed) for _ in range(6) for seed in range(4)]
        made = [job.result() for job in jobs]
        runs = [pool.submit(vaestro.train, "vae:latents=2,hidden=8", "digits-dynamic", steps=3, out=tmp_path / str(n)) for n in range(3)]
        assert {job.result().about["weights_sha256"] for job in runs} == {run.about["weights_sha256"]}
    assert all(torch.equal(rows, vaestro.generate(run, 5, n % 4)) for n, rows in enumerate(made))
    assert torch.equal(torch.get_rng_state(), state)
