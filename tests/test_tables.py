"""Tables as data: kinds of columns found and declared, values there and back, bad files and bad values in one sentence."""

import datetime as dt
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from typer.testing import CliRunner

import vaestro
from vaestro.cli.app import app
from vaestro.data import from_table, load, open_dataset, prepare_table
from vaestro.data.prepare.frames import frame_of
from vaestro.data.prepare.tables import cards, declared, packed, rows_of_table, unpacked
from vaestro.data.schema import Aside, Counted, Dated, Measured, Named, Ordered, Positive, Schema, Table
from vaestro.errors import UsageError, VaestroError

N = 400


def frame(n: int = N) -> pl.DataFrame:
    """A table with a column of every kind."""
    rng = np.random.default_rng(0)
    age = pl.Series("age", rng.integers(17, 90, n))
    return pl.DataFrame(
        {
            "id": np.arange(n),
            "age": pl.select(pl.when(pl.Series(rng.random(n) > 0.2)).then(age)).to_series(),
            "amount": np.round(np.exp(rng.normal(3, 1.5, n)), 2) + 0.01,
            "v": rng.normal(size=n),
            "claims": rng.negative_binomial(1, 0.1, n),
            "stars": rng.integers(1, 6, n),
            "sex": rng.choice(["F", "M"], n),
            "town": [f"t{i}" for i in np.arange(n) % 300],
            "ok": rng.random(n) > 0.5,
            "day": [dt.date(2024, 1, 1) + dt.timedelta(int(i)) for i in rng.integers(0, 365, n)],
            "time": [dt.datetime(2024, 1, 1, 12) + dt.timedelta(seconds=int(i)) for i in rng.integers(0, 10**7, n)],
            "code": [f"{i:05d}" for i in rng.integers(0, 9, n)],
            "unit": ["EUR"] * n,
            "label": rng.integers(0, 2, n),
        }
    )


KINDS = {
    "age": Measured, "amount": Positive, "v": Measured, "claims": Counted, "stars": Ordered, "sex": Named, "town": Named, "ok": Named,
    "day": Dated, "time": Dated, "code": Named,
}  # fmt: skip


def test_kinds_are_found() -> None:
    data = from_table(frame())
    table = data.schema["x"].kind
    assert isinstance(table, Table)
    assert {c.name: type(c) for c in table.columns} == KINDS
    assert {(a.name, a.reason, a.value) for a in table.aside} == {("id", "id", None), ("unit", "constant", "EUR"), ("label", "label", None)}
    assert [table[c].step for c in ("age", "amount", "v", "day", "time")] == [1, 0.01, None, 86400, 1]  # type: ignore[union-attr]
    town = table["town"]
    assert isinstance(town, Named) and town.other and len(town.levels) == 256 and town.levels[-1] == "other"
    assert data.schema["label"].kind.names == ("0", "1")  # type: ignore[union-attr]


@pytest.mark.parametrize("way", ["csv", "parquet", "pandas", "columns", "rows", "semicolons"])
def test_every_way_in_is_the_same_data(way: str, tmp_path: Path) -> None:
    f = frame()
    whole = from_table(f)
    path = tmp_path / f"table.{'parquet' if way == 'parquet' else 'csv'}"
    f.write_parquet(path) if way == "parquet" else f.write_csv(path, separator=";" if way == "semicolons" else ",")
    pandas = pd.DataFrame({c: [None if v is None else v for v in f[c].to_list()] for c in f.columns})
    source = {"pandas": lambda: pandas, "columns": lambda: {c: f[c].to_list() for c in f.columns}, "rows": f.to_dicts}.get(way, lambda: path)()
    other = from_table(source)
    assert dict(other.schema.rows) == dict(whole.schema.rows)
    for split in whole.splits:
        np.testing.assert_array_equal(other.split(split).arrays["x"], whole.split(split).arrays["x"])
        np.testing.assert_array_equal(other.split(split).arrays["label"], whole.split(split).arrays["label"])


def test_values_come_back_in_their_units_and_types() -> None:
    f = frame()
    table = from_table(f).schema["x"].kind
    back = unpacked(table, packed(table, f))
    for name in table.names:
        if name == "town":
            kept = f["town"].is_in(table["town"].levels)
            assert back["town"].to_list() == [v if k else "other" for v, k in zip(f["town"], kept, strict=True)]
        elif name == "v":
            np.testing.assert_allclose(back["v"], f["v"], atol=1e-6)
        elif name == "amount":
            np.testing.assert_allclose(back["amount"], f["amount"], rtol=1e-12)
        else:
            assert back[name].to_list() == f[name].to_list(), name
    assert back["unit"].to_list() == ["EUR"] * N and back["age"].dtype == pl.Int64 and back["day"].dtype == pl.Date


def test_a_table_is_kept_and_its_schema_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))
    frame().write_csv(tmp_path / "t.csv")
    data = load(tmp_path / "t.csv")
    assert data.folder is not None and open_dataset(data.folder).sha256 == data.sha256 == load(tmp_path / "t.csv").sha256
    assert Schema.from_json(json.loads(json.dumps(data.schema.to_json()))) == data.schema
    other = prepare_table(tmp_path / "t.csv", {"stars": "category", "id": "count"})
    assert isinstance(other.schema["x"].kind["stars"], Named) and isinstance(other.schema["x"].kind["id"], Counted)  # type: ignore[index]
    assert other.sha256 != data.sha256


def test_centres_are_those_of_training_rows() -> None:
    data = from_table({"a": np.random.default_rng(1).normal(5, 3, 500), "b": np.random.default_rng(2).normal(size=500)})
    x = data.split("train").arrays["x"]
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(x.std(0), 1, atol=1e-5)
    assert abs(data.split("test").arrays["x"].mean()) > 1e-4


def test_cards_say_what_was_found() -> None:
    said = {c.column: c for c in cards(from_table(frame()))}
    assert said["age"].kind == "real" and 0.1 < said["age"].missing < 0.3
    assert (said["amount"].kind, said["claims"].kind, said["stars"].extent, said["sex"].extent) == ("positive", "count", "1 < 2 < 3 < 4 < 5", "F, M")
    assert (said["town"].kind, said["day"].kind, said["id"].kind, said["unit"].extent) == ("open", "date", "id", "EUR")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0, 1] * 50, Named),
        ([1.0, 2.0, None, 3.0] * 30, Ordered),
        ([1990 + i % 31 for i in range(100)], Measured),
        ([-3, 5, 8, 12, 20, 33, 41, 55, 60, 77, 81, 93] * 10, Measured),
        ([f"user{i}" for i in range(100)], Aside),
        (["true", "FALSE"] * 50, Named),
        (["1e3", "2.5", "-7", "4"] * 25, Measured),
        ([None] * 50 + ["a"] * 50, Aside),
        (["2024-01-01 10:00", "2024-01-02 11:30"] * 50, Dated),
        ([10.0 ** (i % 60 / 3 - 30) for i in range(100)], Positive),
        ([2**60 + i * 1024 * 7 for i in range(60)], Measured),
    ],
)
def test_a_column_alone(values: list, kind: type) -> None:
    rng = np.random.default_rng(0)
    table = from_table({"v": values, "noise": rng.normal(size=len(values))}).schema["x"].kind
    found = {c.name: c for c in (*table.columns, *table.aside)}["v"]
    assert isinstance(found, kind), found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("a,b\n", "has no rows"),
        ("a,b,a\n1,2,3\n", "two columns called 'a'"),
        ("a,,c\n1,2,3\n", "column 2 of .* has no name"),
        ("a,b\n1,2\n3,4,5\n", "line 3 of .* has 3 values, and the first line names 2 columns"),
        ("a,b\n1,2\n3\n", "line 3 of .* has 1 values"),
        ("a,b\n1,x\ninf,y\n2,x\n5,y\n", "column 'a' is inf in row 1"),
        ("a,b\n1e200,x\n2,y\n2.5,x\n5,y\n", "column 'a' is 1e\\+200 in row 0"),
        ("a,b\n1,2\n1,2\n1,2\n", "no column to model"),
        ("label,class,v\n0,1,2.5\n1,0,2.2\n1,1,0.1\n0,1,0.2\n", "are all labels"),
        ("label,v\n0,2.5\n,2.2\n1,0.1\n0,0.2\n", None),
    ],
)
def test_bad_files_are_refused_in_one_sentence(text: str, words: str | None, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    if words is None:
        assert "label" not in from_table(path).schema  # a label with gaps is a column as any other
        return
    with pytest.raises((UsageError, VaestroError), match=words) as caught:
        from_table(path)
    assert "\n" not in str(caught.value)


def test_a_broken_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(VaestroError, match="cannot be read as a table"):
        load(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("declare", "words"),
    [
        ({"amout": "positive"}, "'amout' is declared.*did you mean amount"),
        ({"amount": "positiv"}, "no kind of column called 'positiv'.*positive"),
        ({"v": "positive"}, "declared positive and holds -"),
        ({"v": "count"}, "declared count and holds"),
        ({"sex": "real"}, "holds numbers, and its row 0 is"),
        ({"sex": "date"}, "holds dates such as 2024-05-31, and its row 0 is"),
        ({"unit": "category"}, "has 1 level"),
        ({"sex": "constant"}, "holds 2 values"),
        ({"age": "label"}, "the label, and row"),
    ],
)
def test_bad_declarations(declare: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        from_table(frame(), declare)


def test_declarations_as_text() -> None:
    assert declared(["amount=positive,city=open", "a=b=skip"]) == {"amount": "positive", "city": "open", "a=b": "skip"}
    for texts, words in ((["amount"], "declares nothing"), (["a=skip,a=real"], "declared twice"), (["a=x"], "no kind of column")):
        with pytest.raises(UsageError, match=words):
            declared(texts)


def test_a_later_table_must_fit() -> None:
    f = frame()
    data = from_table(f)
    field = data.schema["x"]
    few = f.head(3)
    rows, notes = rows_of_table(field, few.with_columns(pl.lit(1).alias("extra")))
    assert rows.shape == (3, len(KINDS)) and "extra" in notes[0]
    for bad, words in (
        (few.drop("age"), "no column 'age', which the model was trained on"),
        (few.rename({"amount": "amounts"}), "no column 'amount'.*did you mean amounts"),
        (few.with_columns(sex=pl.lit("X")), "column 'sex' has no category 'X' \\(row 0\\).*F, M|column 'sex' has no category 'X'"),
        (few.with_columns(age=pl.lit("old")), "column 'age' holds numbers, and its row 0 is 'old'"),
        (few.with_columns(day=pl.lit("31.12.2024")), "column 'day' holds dates"),
        (few.with_columns(day=pl.lit("99999-01-01")), "column 'day' holds dates"),
        (few.with_columns(day=pl.lit(5)), "dates are wanted"),
        (few.with_columns(claims=pl.lit(-1)), "holds counts"),
        (few.with_columns(amount=pl.lit(0.0)), "is positive, and its row 0 is 0"),
        (few.with_columns(v=pl.lit(float("inf"))), "column 'v' is inf in row 0"),
        (few.head(0), "has no rows"),
    ):
        with pytest.raises(UsageError, match=words):
            rows_of_table(field, bad)
    blank = few.with_columns(pl.lit(None).alias(c) for c in field.kind.names)  # type: ignore[union-attr]
    rows, notes = rows_of_table(field, blank)
    assert np.isnan(rows).all() and "3 rows have no entry that was seen" in notes[0]
    table = field.kind
    assert isinstance(table, Table)
    new = rows_of_table(field, few.with_columns(town=pl.lit("elsewhere")))[0]
    assert unpacked(table, new)["town"].to_list() == ["other"] * 3


def test_a_column_that_decides_the_label_is_told() -> None:
    f = frame().with_columns((pl.col("label") * 7 + 1).alias("leak"))
    assert any("'leak' decides the label" in note for note in from_table(f).notes)
    assert not any("decides" in note for note in from_table(frame()).notes)


def test_rows_that_hold_nothing_are_left_out() -> None:
    values = {"a": [None if i % 10 == 0 else i * 0.37 for i in range(100)], "b": [None if i % 10 == 0 else i % 7 * 1.5 - 2 for i in range(100)]}
    data = from_table(values)
    assert sum(data.schema.rows.values()) == 90 and any("10 rows" in note for note in data.notes)
    with pytest.raises(UsageError, match="no entry that was seen|no column to model"):
        from_table({"a": [None] * 5, "b": [None] * 5})


def test_the_command_line_shows_the_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    frame().write_csv("t.csv")
    done = CliRunner().invoke(app, ["data", "show", "t.csv", "--columns", "stars=category,id=skip"])
    assert done.exit_code == 0, done.output
    assert "positive" in done.output and "stars" in done.output and "--columns NAME=KIND" in done.output
    done = CliRunner().invoke(app, ["data", "show", "t.csv", "--columns", "sta=category"])
    assert done.exit_code == 2 and "did you mean stars" in done.output
    done = CliRunner().invoke(app, ["train", "vae:latents=2,hidden=8", "t.csv", "--columns", "amount=real", "--steps", "3", "--out", "run"])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(app, ["evaluate", "run", "--rows", "20", "--samples", "3"])
    assert done.exit_code == 0, done.output


def test_a_lazy_frame_is_told_to_collect() -> None:
    for ask in (load, from_table):
        with pytest.raises(UsageError, match=r"lazy frame has no rows before it is collected; call its \.collect\(\)"):
            ask(frame().lazy())


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [
        (
            "t.csv",
            '"Name, Vorname";"Ort, PLZ"\n"Muster, Max";"Bonn, 53111"\n"Doe, Jo";"Graz, 8010"\n',
            {"Name, Vorname": "Muster, Max", "Ort, PLZ": "Bonn, 53111"},
        ),
        (
            "t.csv",
            '"Name, Vorname";"Ort, PLZ";alter\n"Muster, Max";"Bonn, 53111";33\n',
            {"Name, Vorname": "Muster, Max", "Ort, PLZ": "Bonn, 53111", "alter": "33"},
        ),
        ("t.csv", '"size; cm; x",age\n1.5,33\n', {"size; cm; x": "1.5", "age": "33"}),
        ("t.csv", "Groesse (m, cm);alter\n1.82;33\n", {"Groesse (m, cm)": "1.82", "alter": "33"}),
        ("t.csv", "Groesse (m, cm);alter\n1,82;33\n1,7;4\n", {"Groesse (m, cm)": "1.82", "alter": "33"}),
        ("t.csv", "a|b, c, d\n1|2\n", {"a": "1", "b, c, d": "2"}),
        ("t.csv", '"a, b"\n1\n2\n', {"a, b": "1"}),
        ("t.tsv", "Temp, C\tDruck, hPa\n0.5\t1013.2\n", {"Temp, C": "0.5", "Druck, hPa": "1013.2"}),
        ("t.tsv", "Temp, max, C\tx\n0,5\t1,25\n", {"Temp, max, C": "0,5", "x": "1,25"}),
        ("t.tsv", "Temp, C\n0.5\n", {"Temp, C": "0.5"}),
        ("t.tsv", "a,b\n0.5,1\n", {"a": "0.5", "b": "1"}),
    ],
)
def test_the_delimiter_is_the_one_that_the_rows_agree_in(name: str, text: str, columns: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert frame_of(tmp_path / name).row(0, named=True) == columns


def test_points_are_no_thousands_where_a_value_starts_with_nought(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dose = [f"{v:.3f}" for v in rng.uniform(0, 3, 60)]
    (tmp_path / "t.csv").write_text("code;dose;big\n" + "".join(f"{i % 9},{i % 7};{d};{i % 50 + 1}.234,5\n" for i, d in enumerate(dose)))
    read = frame_of(tmp_path / "t.csv")
    assert read["dose"].to_list() == dose and read["code"][3] == "3.3" and read["big"][0] == "1234.5"
    table = from_table(tmp_path / "t.csv").schema["x"].kind
    assert isinstance(table, Table) and isinstance(table["dose"], Measured)


def test_whole_numbers_beyond_two_to_the_63(tmp_path: Path) -> None:
    top, rng = 2**63, np.random.default_rng(0)
    frame = pl.DataFrame({
        "two": pl.Series([top + 1 + i % 2 for i in range(60)], dtype=pl.UInt64), "five": pl.Series([top + 2**12 * (i % 5) for i in range(60)], dtype=pl.UInt64),
        "one": pl.Series([top + 5] * 60, dtype=pl.UInt64), "b": rng.normal(size=60),
    })  # fmt: skip
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_csv(tmp_path / "t.csv")
    for path in (tmp_path / "t.parquet", tmp_path / "t.csv"):
        made = from_table(path, {"two": "category"})
        table = made.schema["x"].kind
        assert isinstance(table, Table) and isinstance(table["two"], Named) and isinstance(table["five"], Ordered)
        back = unpacked(table, packed(table, frame))
        assert all(back[name].dtype == pl.UInt64 and back[name].to_list() == frame[name].to_list() for name in ("two", "five", "one"))
        assert cards(made)[0].extent == f"{top + 1}, {top + 2}"
        with pytest.raises(UsageError, match=f"column 'two' has no category '{top + 3}'"):
            packed(table, frame.with_columns(two=pl.lit(top + 3, pl.UInt64)))


def test_words_that_look_like_numbers_without_end_are_words() -> None:
    table = from_table({"v": np.random.default_rng(0).normal(size=60), "code": ["12e4567890123456789012345", "1", "b"] * 20}).schema["x"].kind
    assert isinstance(table, Table)
    assert packed(table, pl.DataFrame({"v": [0.0, 0.0], "code": ["12e4567890123456789012345", "1.0"]}))[:, 1].tolist() == [1, 0]


def test_a_cache_that_was_cleared_says_how_declared_columns_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    frame().write_csv("t.csv")
    run = ["evaluate", "run", "--rows", "5", "--samples", "2"]
    say = ["t.csv", "--columns", "amount=real"]
    assert CliRunner().invoke(app, ["train", "vae:latents=2,hidden=8", *say, "--steps", "1", "--out", "run"]).exit_code == 0
    shutil.rmtree(tmp_path / "cache")
    done = CliRunner().invoke(app, run)
    told = " ".join(done.output.split())
    assert done.exit_code == 2 and "the cache no longer holds table-t-" in told and "`vaestro data show FILE --columns NAME=KIND`" in told
    assert vaestro.open_run("run", data=prepare_table("t.csv", {"amount": "real"}, out="own")).held is not None
    assert CliRunner().invoke(app, ["data", "show", *say]).exit_code == 0
    done = CliRunner().invoke(app, run)
    assert done.exit_code == 0, done.output


def test_a_file_whose_name_is_no_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))
    path = tmp_path / os.fsdecode(b"caf\xe9.csv")
    frame().write_csv(tmp_path / "t.csv")
    (tmp_path / "t.csv").rename(path)
    data = load(path)
    with pytest.raises(UsageError, match=r"caf\\xe9.csv holds bytes that are no UTF-8, by which no run can name its data"):
        vaestro.train("vae:hidden=8", path, steps=1, out=tmp_path / "run")
    assert data.name == "caf\\xe9" and data.report.rule.startswith("The rows of caf\\xe9.csv. ") and str(data.folder).encode()
