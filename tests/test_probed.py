"""Cases that lie between the others: each was found by attacking the guarantees, and fails without its mend."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image
from sklearn.model_selection import GridSearchCV

from vaestro.arena import result as results
from vaestro.arena.board import board
from vaestro.arena.challenge import Challenge, load_challenge
from vaestro.arena.checking import check
from vaestro.arena.entry import identity
from vaestro.arena.folder import Arena, start
from vaestro.arena.result import About, Cell, Paper, Result
from vaestro.data import load
from vaestro.data.prepare.frames import frame_of
from vaestro.data.prepare.images import prepare_images
from vaestro.data.prepare.tables import from_table, rows_of_table, unpacked
from vaestro.data.schema import Category, Real
from vaestro.errors import UsageError, VaestroError
from vaestro.estimators import VAEDensity, VAEDetector, VAEImputer, VAETransformer
from vaestro.evaluation.metrics import METRICS
from vaestro.recipes import call_of, parse
from vaestro.training import runs, train
from vaestro.training.budget import Budget
from vaestro.training.files import load_tensors
from vaestro.training.loop import Loop
from vaestro.training.runs import Run
from vaestro.training.train import Plan

SMALL = "vae:hidden=16,latents=2,batch=32"
TWO_PLAYERS = "vae_gan:hidden=4x4,latents=2,batch=16,clip=1,ema=0.9"


def trained(folder: Path, call: str, steps: int) -> Run:
    return runs.train(Plan(parse(call), load("digits-dynamic"), Budget(steps=steps), 0, "cpu"), folder, source="digits-dynamic")


def same(a: Path, b: Path) -> bool:
    left, right = (load_tensors(f / "model.safetensors")[0] for f in (a, b))
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def interrupting(what: Callable[..., Any], at: int) -> Callable[..., Any]:
    """`what`, after whose call number `at` the process is interrupted as by Ctrl-C."""
    calls = []

    def called(*args: Any, **named: Any) -> Any:
        found = what(*args, **named)
        calls.append(1)
        if len(calls) == at:
            signal.raise_signal(signal.SIGINT)
        return found

    return called


@pytest.fixture
def heard() -> Iterator[None]:
    """Ctrl-C is heard, also where the tests were started as a job in the background, to which shells have it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(
    ("call", "owner", "name", "at"),
    [
        (TWO_PLAYERS, Loop, "move", 7),  # one player has moved in this step, and the others have not
        (SMALL + ",ema=0.9", Loop, "move", 5),  # the weights have moved, and their average and the count have not
        (SMALL + ",ema=0.9,patience=3", train, "vital_signs", 2),  # the averaged weights stand in for the trained ones
    ],
    ids=["between players", "between the weights and their average", "while it validates"],
)
def test_ctrl_c_at_any_moment_leaves_a_whole_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, owner: Any, name: str, at: int) -> None:
    monkeypatch.setattr(train, "LOOK", 2)  # so few rows that it validates often
    trained(tmp_path / "whole", call, 9)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(owner, name, interrupting(getattr(owner, name), at))
        trained(tmp_path / "cut", call, 9)
    assert (tmp_path / "cut" / "state.safetensors").exists()
    runs.resume(tmp_path / "cut")
    assert same(tmp_path / "whole", tmp_path / "cut")
    logs = [[{k: v for k, v in line.items() if k != "seconds"} for line in runs.open_run(tmp_path / f).log()] for f in ("whole", "cut")]
    assert logs[0] == logs[1]


@pytest.mark.usefixtures("heard")
def test_a_second_ctrl_c_does_not_wait_and_leaves_the_last_whole_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(tmp_path / "whole", TWO_PLAYERS, 9)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "EVERY", 0.0)  # a checkpoint after every step
        patch.setattr(Loop, "move", interrupting(interrupting(Loop.move, 7), 7))
        trained(tmp_path / "cut", TWO_PLAYERS, 9)
    assert int(load_tensors(tmp_path / "cut" / "state.safetensors")[0]["loop.n"]) == 2
    runs.resume(tmp_path / "cut")
    assert same(tmp_path / "whole", tmp_path / "cut")


def test_a_run_killed_between_its_end_and_its_last_file_ends_where_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call = SMALL + ",patience=2,learning_rate=0.5"
    monkeypatch.setattr(train, "LOOK", 2)  # so few rows that it validates often
    whole = trained(tmp_path / "whole", call, 40)
    assert whole.about["ended"].startswith("early stopping")

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(runs, "save_tensors", ended)
        trained(tmp_path / "cut", call, 40)
    again = runs.resume(tmp_path / "cut")
    assert again.about["done_steps"] == whole.about["done_steps"] < 40
    assert again.about["ended"] == whole.about["ended"]
    assert same(tmp_path / "whole", tmp_path / "cut")


def test_a_run_does_not_depend_on_what_becomes_of_the_one_that_it_started_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(parse(SMALL), load("digits-dynamic"), Budget(steps=9), 0, "cpu")
    first = trained(tmp_path / "first", SMALL, 3).folder
    runs.train(plan, tmp_path / "whole", source="digits-dynamic", start=first)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Loop, "step", ended)
        runs.train(plan, tmp_path / "cut", source="digits-dynamic", start=first)
    first.rename(tmp_path / "elsewhere")
    runs.resume(tmp_path / "cut")
    assert same(tmp_path / "whole", tmp_path / "cut")


def ended(*_: Any) -> None:
    """The process is gone."""
    raise SystemExit


def test_weights_without_their_description_are_not_trained_over(tmp_path: Path) -> None:
    folder = trained(tmp_path / "run", SMALL, 3).folder
    (folder / "run.json").unlink()
    with pytest.raises(UsageError, match="lost its run.json"):
        trained(folder, SMALL, 3)


def written(folder: Path, text: str, name: str = "rows.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def lines(names: str, rows: Iterable[str]) -> str:
    return "\n".join([names, *rows, ""])


@pytest.mark.parametrize(
    ("spelt", "declared", "later", "due"),
    [
        (("True", "False"), {}, ("True", "FALSE", "true"), [1, 0, 1]),
        (("1.0", "2.0", "3.0"), {}, ("1.0", "2", "+3"), [0, 1, 2]),
        (("1", "2", "3"), {}, ("1.0", "2.00", "3e0"), [0, 1, 2]),  # pandas writes whole numbers so where some are missing
        (("0.5", "2"), {"k": "category"}, ("0.50", "2.0", ".5"), [0, 1, 0]),
        (("1.0", "2.0", "3.0"), {"k": "open"}, ("1.0", "3", "7.0"), [0, 2, 3]),  # these went to `other`, every one
        (("01", "02", "1"), {}, ("01", "1", "1.0"), [0, 2, 2]),  # with a leading zero they are codes
    ],
)
def test_levels_are_known_again_however_a_file_spells_them(tmp_path: Path, spelt: Any, declared: dict[str, str], later: Any, due: list[int]) -> None:
    file = written(tmp_path, lines("k,v", (f"{spelt[i % len(spelt)]},{i * 1.5}" for i in range(60))))
    data = from_table(file, declared)
    again, _ = rows_of_table(data.schema["x"], file)  # the very file that was trained on
    assert sorted(again[:, 0].tolist()) == sorted(np.concatenate([data.split(s).arrays["x"][:, 0] for s in data.schema.rows]).tolist())
    rows, _ = rows_of_table(data.schema["x"], written(tmp_path, lines("k,v", (f"{word},1" for word in later)), "later.csv"))
    assert rows[:, 0].tolist() == due


@pytest.mark.parametrize(
    ("train", "test", "names", "due"),
    [
        (("00", "01", "02"), None, ("00", "01", "02"), None),
        (("01", "1", "2"), None, ("01", "1", "2"), None),
        (("0", "1"), ("1.0", "2.5"), ("0.0", "1.0", "2.5"), [1, 2]),
        (("10", "9"), ("9", "10"), ("9", "10"), [0, 1]),
    ],
)
def test_classes_of_a_table_are_its_words(tmp_path: Path, train: Any, test: Any, names: tuple[str, ...], due: list[int] | None) -> None:
    file = written(tmp_path, lines("label,v", (f"{train[i % len(train)]},{i}.25" for i in range(60))))
    held = None if test is None else written(tmp_path, lines("label,v", (f"{word},1.5" for word in test)), "test.csv")
    data = from_table(file, test=held)
    assert data.schema["label"].kind.names == names
    if due is None:
        for split in data.schema.rows:
            arrays = data.split(split).arrays
            table = data.schema["x"].kind
            number = np.rint(arrays["x"][:, 0] * table.columns[0].scale + table.columns[0].loc - 0.25).astype(int)
            assert [names[k] for k in arrays["label"]] == [train[i % len(train)] for i in number]
    else:
        assert data.split("test").arrays["label"].tolist() == due


def test_small_numbers_are_no_multiples_of_one() -> None:
    small = np.random.default_rng(0).lognormal(size=200) * 1e-8
    data = from_table({"small": small, "v": np.arange(200) * 0.1})
    rows = np.concatenate([data.split(s).arrays["x"] for s in data.schema.rows])
    again = unpacked(data.schema["x"].kind, rows)["small"].to_numpy()
    assert np.allclose(np.sort(again), np.sort(small), rtol=1e-4)
    assert [c.step for c in data.schema["x"].kind.columns] == [None, 0.1]


def test_a_point_is_no_decimal_mark_where_the_file_writes_commas(tmp_path: Path) -> None:
    frame = frame_of(written(tmp_path, "price;many;version\n1,5;1.500;1.2\n2,25;12.250;2.10\n"))
    assert frame.columns == ["price", "many", "version"]
    assert frame.rows() == [("1.5", "1500", "1.2"), ("2.25", "12250", "2.10")]
    assert frame_of(written(tmp_path, "price;many\n1.5;1.500\n2.25;12.250\n")).rows() == [("1.5", "1.500"), ("2.25", "12.250")]


@pytest.mark.parametrize("spelt", ["{}.5%", "{},5", "$ {}", "'{},000'", "{}/05/2024", "2024-05-{:02d}T10:00:00Z"])
def test_numbers_and_dates_that_are_read_as_words_are_told(tmp_path: Path, spelt: str) -> None:
    file = written(tmp_path, lines("a\tv", (f"{spelt.format(i % 28 + 1).strip(chr(39))}\t{i * 1.5}" for i in range(30))), "rows.tsv")
    notes = from_table(file).report.notes
    assert [n for n in notes if "column 'a' is read as words" in n and "1234.5 or 2024-05-31" in n], notes


@pytest.mark.parametrize("word", ["007", "a-b", "Jan 5th", "192.168.0.1", "N12"])
def test_other_words_are_not(word: str) -> None:
    notes = from_table({"a": [word, word + "1", word + "2"] * 20, "v": np.arange(60) * 1.5}).report.notes
    assert not [n for n in notes if "read as words" in n]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"a": [1.5, 2.5, 3.5, 4.5], " a": [1.0, 2.0, 3.0, 4.0]}, "two columns called 'a'"),
        ({"a": [1.5, 2.5, 3.5, 4.5], " ": [1.0, 2.0, 3.0, 4.0]}, "column 2 of the table has no name"),
    ],
)
def test_names_that_differ_in_blanks_alone_are_one(columns: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        from_table(columns)


@pytest.mark.parametrize("odd", [np.arange(30) * 1j, [object() for _ in range(30)], pd.period_range("2024-01", periods=30, freq="M")])
def test_a_column_of_objects_is_left_out_and_said(odd: Any) -> None:
    data = from_table(pd.DataFrame({"odd": odd, "v": np.arange(30) * 1.5}))
    assert data.schema["x"].kind.names == ("v",)
    assert "column 'odd' is left out (skip)" in data.report.notes


def test_whole_numbers_beyond_64_bits_stay_within_them() -> None:
    data = from_table(pl.DataFrame({"a": pl.Series([2**63 + 4096 * i for i in range(30)], dtype=pl.UInt64), "b": [2**63 - 4096 * (i + 1) for i in range(30)]}))
    made = unpacked(data.schema["x"].kind, np.array([[0.0, 0.0], [1e9, 1e9], [-1e9, -1e9]], np.float32))
    assert made.dtypes == [pl.UInt64, pl.Int64]
    assert 2**63 <= made["a"][0] < 2**63 + 4096 * 30
    assert made["b"][1] > made["b"][0] > made["b"][2]


def entry(call: str, seed: int, challenge: Challenge, rows: Any, value: float | None = None, unit: str | None = None) -> tuple[Result, dict[str, Any]]:
    """A sealed result, be it honest or not: what it says, and the scores of its rows."""
    rules, m = challenge.rules, METRICS["nll"]
    about = About(name=rules.name, version=rules.version, tier="quick", sha256=rules.sha256("quick"), data=rules.data.sha256)
    said = float(np.mean(rows)) if value is None else value
    cell = Cell(value=said, error=0.1, title=m.title, unit=unit or m.unit, direction=m.direction.value, protocol=m.protocol, per_row=True)
    name = identity(call, seed, challenge, "quick")
    found = Result(format=1, id=name, challenge=about, call=call, keywords={}, recipe=Paper(), seed=seed, status="done", metrics={"nll": cell})
    return found, {"nll": np.asarray(rows)}


def arena(folder: Path, *entries: tuple[Result, dict[str, Any]]) -> Path:
    start(Arena(folder, load_challenge("digits-dynamic"), "quick"))
    for found, rows in entries:
        results.write(folder / "results", found, rows, {})
    return folder


ROWS = np.random.default_rng(1).normal(80.0, 5.0, 40)


@pytest.mark.parametrize(
    ("forged", "says"),
    [
        ({"rows": ROWS - 50, "value": float(ROWS.mean())}, "its rows have the mean"),
        ({"rows": np.r_[np.nan, ROWS], "value": 80.0}, "row 0 of its .* is not finite"),
        ({"rows": np.r_[ROWS, np.inf], "value": 80.0}, "row 40 of its .* is not finite"),
        ({"rows": ROWS * 1e200}, "too large to be compared"),  # its comparisons were NaN, so that it was first
        ({"rows": np.c_[ROWS, ROWS]}, r"shaped \(40, 2\)"),
        ({"rows": np.float64(3)}, r"shaped \(\)"),
        ({"rows": np.zeros(0), "value": 0.0}, r"shaped \(0,\)"),
        ({"rows": np.array(["80"] * 40), "value": 80.0}, "one number for each row"),
        ({"rows": ROWS + 0j, "value": 80.0}, "complex128 values"),
        ({"rows": ROWS, "unit": "bits"}, "its nll is in bits"),
    ],
)
def test_a_result_whose_rows_are_not_its_own_is_named(tmp_path: Path, forged: dict[str, Any], says: str) -> None:
    challenge = load_challenge("digits-dynamic")
    honest = [entry("vae", seed, challenge, ROWS) for seed in (0, 1)]
    folder = arena(tmp_path / "a", *honest, entry("iwae", 0, challenge, **forged))
    name = identity("iwae", 0, challenge, "quick")
    with pytest.raises(VaestroError, match=f"{name}.json: .*{says}.*; delete it"):
        board(folder)
    assert next(c.what for c in check(folder) if c.problem) == f"results/{name}.json and its arrays"


def test_a_result_that_a_kill_left_half_written_is_no_result(tmp_path: Path) -> None:
    challenge = load_challenge("digits-dynamic")
    folder = arena(tmp_path / "a", *(entry("vae", seed, challenge, ROWS) for seed in (0, 1)))
    before = board(folder)
    (folder / "results" / f".4711.{identity('iwae', 0, challenge, 'quick')}.json").write_text('{"format": 1, "id"')
    assert board(folder) == before
    assert not [c for c in check(folder) if c.problem and c.what != "the data"]


def test_a_result_nested_too_deep_is_told(tmp_path: Path) -> None:
    folder = arena(tmp_path / "a", entry("vae", 0, load_challenge("digits-dynamic"), ROWS))
    (folder / "results" / "deep.json").write_text('{"a":' * 5000)
    with pytest.raises(VaestroError, match="deep.json cannot be read as a result"):
        board(folder)


PIXELS = np.random.default_rng(2).integers(0, 255, (20, 8, 8), dtype=np.uint8)


def pictures(folder: Path, *names: str) -> Path:
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[i]).save(path)
    return folder


def test_pictures_in_hidden_folders_are_none(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "p", "a/0.png", "a/1.png", "b/2.png", "b/3.png", ".ipynb_checkpoints/4.png", "a/.thumbs/5.png")
    data = prepare_images(folder, out=tmp_path / "d")
    assert sum(data.schema.rows.values()) == 4
    assert data.schema["label"].kind.names == ("a", "b")


def test_a_picture_behind_a_link_that_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))
    behind, folder = pictures(tmp_path / "behind", "0.png", "1.png", "2.png"), tmp_path / "links"
    folder.mkdir()
    for path in behind.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "nowhere.png").symlink_to(folder / "gone")
    before = load(folder).sha256
    assert load(folder).sha256 == before
    Image.fromarray(PIXELS[9]).save(behind / "0.png")
    os.utime(behind / "0.png", (1, 1))
    assert load(folder).sha256 != before


@pytest.mark.parametrize(
    ("table", "due"),
    [("name,group\n0.png,\n1.png,\n2.png,a\n3.png,a\n", {2: 1, 1: 2}), ("name,group\n0.png\n1.png\n2.png,a\n3.png,a\n", {2: 1, 1: 2})],
)
def test_a_picture_without_a_group_is_a_group_of_its_own(tmp_path: Path, table: str, due: dict[int, int]) -> None:
    folder = pictures(tmp_path / "p", *(f"{i}.png" for i in range(4)))
    (folder / "groups.csv").write_text(table)
    sizes = list(prepare_images(folder, out=tmp_path / "d").schema.rows.values())
    assert {size: sizes.count(size) for size in set(sizes)} == due


def test_a_picture_in_two_groups_is_told(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "p", *(f"{i}.png" for i in range(4)))
    (folder / "groups.csv").write_text("name,group\n0.png,a\n1.png,a\n2.png,b\n3.png,c\n0.png,b\n")
    with pytest.raises(UsageError, match=r"'0.png' into two groups, 'a' and 'b'"):
        prepare_images(folder, out=tmp_path / "d")


def test_masked_entries_are_not_read_as_what_lies_beneath() -> None:
    values, mask = PIXELS[:, :, 0] / 7, PIXELS[:, :, 0] % 5 == 0
    with pytest.raises(UsageError, match="masked"):
        load(np.ma.masked_array(values, mask))
    assert load(np.ma.masked_array(values, False)).sha256 == load(values).sha256
    table = load({f"c{i}": np.ma.masked_array(values[:, i], mask[:, i]) for i in range(8)})
    assert sum(int(np.isnan(table.split(s).arrays["x"]).sum()) for s in table.schema.rows) == mask.sum()


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (np.array(["b", "é"] * 10, dtype=object), Category(2, ("b", "é"))),
        (np.array([b"b", "é".encode()] * 10), Category(2, ("b", "é"))),
        (pd.Series(["b", "a"] * 10), Category(2, ("a", "b"))),
        (np.arange(20) + 10**12, Real(1.0)),  # their numbers overflowed
    ],
)
def test_labels_as_they_come(labels: Any, kind: Any) -> None:
    data = load((PIXELS, labels))
    assert data.schema["label"].kind == kind
    pairs = {(x.tobytes(), labels[i]) for i, x in enumerate(PIXELS)}
    for split in data.schema.rows:
        arrays = data.split(split).arrays
        for x, label in zip(arrays["x"], arrays["label"], strict=True):
            said = kind.names[label] if isinstance(kind, Category) else label
            known = next(word for pixels, word in pairs if pixels == x.tobytes())
            assert said == (known.decode() if isinstance(known, bytes) else known) or abs(float(label) / 10**12 - 1) < 1e-6


def test_odd_numbers_and_bytes() -> None:
    assert load(PIXELS[:, :, 0].astype(np.longdouble) / 3).schema["x"].kind == Real()
    with pytest.raises(UsageError, match="'label' holds bytes that are no UTF-8 text"):
        load((PIXELS, np.array([b"a", b"\xff"] * 10)))


X = np.random.default_rng(3).normal(size=(40, 3))
FAST = {"steps": 2, "latents": 1, "random_state": 0}


def test_parameters_come_as_numbers_of_numpy() -> None:
    search = GridSearchCV(VAETransformer("vae:hidden=8", **FAST), {"latents": np.arange(1, 3), "steps": np.array([2])}, cv=2, error_score="raise", scoring=zero)
    assert search.fit(X).best_estimator_.transform(X).shape == (40, 1)
    assert str(call_of(parse("vae").entry, {"latents": np.int64(3), "learning_rate": np.float32(0.5)})) == "vae:latents=3,learning_rate=0.5"
    with pytest.raises(UsageError, match="latents should be a valid integer"):
        call_of(parse("vae").entry, {"latents": np.float64(3.0)})


def zero(*_: Any) -> float:
    return 0.0


@pytest.mark.parametrize(
    ("estimator", "says"),
    [
        (VAETransformer("vae", steps=2.5), "steps is 2.5"),
        (VAETransformer("vae", steps="many"), "steps is 'many'"),
        (VAETransformer("vae", validation_fraction="0.1"), "validation_fraction is '0.1'"),
        (VAEDensity("vae", samples=1.5), "samples is 1.5"),
        (VAEDetector("vae", level="0.1"), "level is '0.1'"),
        (VAEDetector("vae", calibration=float("nan")), "calibration is nan"),
        (VAEImputer("vae", draws=2.7), "draws is 2.7"),
        (VAEImputer("vae", samples=True), "samples is True"),
    ],
)
def test_a_parameter_of_another_type_is_named(estimator: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        estimator.fit(X)
    assert isinstance(caught.value, UsageError)


def test_masked_entries_are_gaps_to_an_imputer_and_told_by_others() -> None:
    mask = np.random.default_rng(4).random(X.shape) < 0.2
    imputer = VAEImputer("vae:hidden=8", draws=2, samples=3, **FAST)
    filled = imputer.fit_transform(np.ma.masked_array(np.where(mask, 1e6, X), mask))
    assert np.array_equal(filled, imputer.fit_transform(np.where(mask, np.nan, X)))
    assert np.abs(filled).max() < 100
    with pytest.raises(ValueError, match="NaN"):
        VAETransformer("vae:hidden=8", **FAST).fit(np.ma.masked_array(X, mask))


def test_columns_are_centred_however_far_from_zero_they_lie() -> None:
    there = VAETransformer("vae:hidden=8", **FAST).fit(X + 2.0**34)
    assert np.allclose(there.transform(X + 2.0**34), VAETransformer("vae:hidden=8", **FAST).fit_transform(X), atol=1e-4)


def spoil(folder: Path, **changes: Any) -> None:
    file = folder / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stands at its fifth step."""

    def stop(line: dict[str, Any]) -> None:
        if line["step"] == 5:
            raise KeyboardInterrupt

    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(KeyboardInterrupt):
        runs.train(Plan(parse(SMALL), load("digits-dynamic"), Budget(steps=9), 0, "cpu"), folder, source="digits-dynamic", watch=stop)
    return folder


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seed": 7}, "does not go with the run.json"),
        ({"keywords": {"latents": "3", "hidden": "16"}}, "does not go with the run.json"),
        ({"call": "ae:hidden=16", "keywords": {"hidden": "16"}}, "does not go with the run.json"),
        ({"threads": 0}, "holds no numbers"),
        ({"threads": 10**6}, "holds no numbers"),  # which ended the process
        ({"steps": -3}, "holds no numbers"),
        ({"budget": {"steps": "many", "seconds": None}}, "holds no budget"),
        ({"budget": {"steps": None, "seconds": None}}, "holds no budget"),
        ({"budget": {"steps": 9, "seconds": None, "clock": 3}}, "holds no budget"),
    ],
)
def test_an_altered_run_is_not_gone_on_with(stopped: Path, tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    folder = Path(shutil.copytree(stopped, tmp_path / "run"))
    spoil(folder, **changes)
    with pytest.raises(VaestroError, match=says):
        runs.resume(folder)


def test_another_file_in_place_of_the_state_is_told(stopped: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(stopped, tmp_path / "run"))
    done = trained(tmp_path / "done", SMALL, 2).folder
    shutil.copy(done / "model.safetensors", folder / "state.safetensors")
    with pytest.raises(VaestroError, match="does not go with the run.json"):
        runs.resume(folder)


@pytest.mark.parametrize("spoilt", [b'[1]\n"x"\n', b"\xff\xfe\n", b'{"step": "one"}\n', b'{"a":' * 5000])
def test_a_spoilt_log_costs_its_lines_alone(stopped: Path, tmp_path: Path, spoilt: bytes) -> None:
    trained(tmp_path / "whole", SMALL, 9)
    folder = Path(shutil.copytree(stopped, tmp_path / "run"))
    kept = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)[:2]
    (folder / "metrics.jsonl").write_bytes(b"".join(kept) + spoilt)
    assert [line["step"] for line in runs.resume(folder).log()] == [1, 2, 6, 7, 8, 9]
    assert same(tmp_path / "whole", folder)
