"""What people bring that is odd and legal, or odd and not: it is read for what it is, or refused in one sentence."""

import csv
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from PIL import Image
from scipy import sparse

import vaestro
from vaestro.data import load
from vaestro.data.prepare.images import prepare_images
from vaestro.data.prepare.tables import from_table, packed
from vaestro.data.schema import Table
from vaestro.errors import UsageError, VaestroError
from vaestro.estimators import VAETransformer
from vaestro.estimators.readers import Mixed
from vaestro.uses.impute import impute
from vaestro.uses.rows.lots import lot
from vaestro.uses.rows.pictures import write

RNG = np.random.default_rng(0)
V = RNG.normal(size=60)
X = RNG.normal(size=(60, 4))


def test_names_of_columns_are_unquoted(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([['the "size"', "a, b", "é 😀"], *X[:, :3].tolist()])
    table = from_table(path, {'the "size"': "real"}).schema["x"].kind
    assert isinstance(table, Table) and table.names == ('the "size"', "a, b", "é 😀")


def test_lines_that_end_in_carriage_returns_alone_are_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\r1,2\r3,4\r5,7\r", newline="")
    with pytest.raises(UsageError, match="carriage returns alone"):
        from_table(tmp_path / "t.csv")


def test_spans_of_time_are_seconds(tmp_path: Path) -> None:
    spans = [timedelta(days=int(d), seconds=0.5) for d in RNG.permutation(60)]
    pl.DataFrame({"v": V, "span": spans}).write_parquet(tmp_path / "t.parquet")
    for source in (tmp_path / "t.parquet", pd.DataFrame({"v": V, "span": spans}), {"v": V, "span": spans}):
        table = from_table(source).schema["x"].kind
        assert isinstance(table, Table)
        column = table["span"]
        held = packed(table, pl.DataFrame({"v": V, "span": spans}))[:, 1].astype(float)
        np.testing.assert_allclose(held * column.scale + column.loc, [s.total_seconds() for s in spans], rtol=1e-6, atol=0.1)  # type: ignore[union-attr]


def test_rows_that_are_held_out_may_have_columns_that_are_no_table() -> None:
    frame = pl.DataFrame({"v": V, "tags": [[1, 2], [3]] * 30, "label": ["b", "a"] * 30})
    data = from_table(frame, test=frame.head(5))
    assert data.schema.rows["test"] == 5 and data.split("test").arrays["label"].tolist() == [1, 0, 1, 0, 1]


@pytest.mark.parametrize("names", [["a", "a"], [1, "1"]])
def test_frames_that_name_a_column_twice_are_told(names: list[Any]) -> None:
    with pytest.raises(UsageError, match="the table has two columns called '[a1]'"):
        load(pd.DataFrame(X[:, :2], columns=names))


class Lists(torch.utils.data.Dataset[Any]):
    """A data set whose rows are lists of unlike things."""

    def __len__(self) -> int:
        return 60

    def __getitem__(self, row: int) -> list[Any]:
        if row == 60:
            raise IndexError
        return [torch.from_numpy(X[row]), row % 3]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ([torch.tensor(row, requires_grad=True) for row in X], "'x' cannot be read as an array .*requires grad"),
        ({"a": torch.tensor(V, requires_grad=True), "b": V}, "column 'a' cannot be read .*requires grad"),
        (Lists(), "'x' cannot be read as an array"),
        ({"a": [[1, 2], [3]]}, "no column to model"),
        (sparse.csr_matrix(X), "a csr_matrix does not say how many rows it has .*toarray"),
    ],
    ids=["rows with gradients", "a column with a gradient", "rows of lists", "ragged lists", "a sparse matrix"],
)
def test_what_is_no_array_is_told(source: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        load(source)
    assert "\n" not in str(caught.value)


def test_entries_that_were_seen_are_not_changed_by_filling_others(tmp_path: Path) -> None:
    big = [2**53 + 1 + 2 * int(i) for i in RNG.permutation(60)]
    frame = {"big": list(map(str, big)), "tenth": [f"{v:.1f}" for v in V], "fine": [f"{v:.9f}" for v in V], "amount": [f"{np.exp(v):.7f}" for v in V]}
    run = vaestro.train("vae:latents=1,hidden=8", from_table(frame), steps=1, out=tmp_path / "run")
    path = tmp_path / "gaps.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([[*frame], [big[0], "1.234", "", "8.0000001"], ["", "", "0.123456789", "3"]])
    one = impute(run, path, draws=1, samples=4).tables[0]
    assert (one["big"][0], one["tenth"][0], one["fine"][1], one["amount"].to_list()) == (big[0], 1.234, 0.123456789, [8.0000001, 3.0])
    assert one["big"].dtype == pl.Int64 and one["tenth"].dtype == pl.Float64 and one.null_count().row(0) == (0, 0, 0, 0)


def test_linked_folders_are_named_and_not_followed(tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / "photos" / "cats").mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (8, 8)).astype(np.uint8)).save(tmp_path / "photos" / "cats" / f"{i}.png")
    (tmp_path / "photos" / "dogs").symlink_to(tmp_path / "photos" / "cats")
    (tmp_path / "photos" / "cats" / "loop").symlink_to(tmp_path / "photos")
    report = prepare_images(tmp_path / "photos", tmp_path / "out").report
    assert report.read == 4 and [name for name, _ in report.skipped] == ["cats/loop", "dogs"]
    assert all("a link to a folder is not followed" in reason for _, reason in report.skipped)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "train").symlink_to(tmp_path / "photos")
    with pytest.raises(VaestroError, match="the first is train: .*a link to a folder is not followed"):
        prepare_images(tmp_path / "links", tmp_path / "none")


def test_rows_of_a_table_come_with_the_names_of_its_columns(tmp_path: Path) -> None:
    frame = {"a": V, "b": 100 + 50 * V}
    run = vaestro.train("vae:latents=1,hidden=8", from_table(frame), steps=1, out=tmp_path / "run")
    other = {"a": V[:30] + 5, "b": 90 + V[:30]}
    with pytest.raises(UsageError, match="an array has no names of columns"):  # it was taken for standardised rows
        vaestro.detect(run, np.stack([*other.values()], 1), score="elbo")
    for use in (vaestro.detect, lot):
        with pytest.raises(UsageError, match="rows of table are a table with columns, categories or scales of its own.*give the file or the frame"):
            use(run, from_table(other))
    with pytest.raises(UsageError, match="a ndarray is none of the rows that run takes"):
        vaestro.embed(run, np.array([[None, "a"]], dtype=object))
    with pytest.raises(UsageError, match="as numbers with -o rows.csv or -o rows.parquet"):
        write(tmp_path / "grid.png", run.field, torch.zeros(2, 2))
    with pytest.raises(UsageError, match="fill holes with `vaestro impute`"):
        vaestro.vary(run, torch.tensor([[float("nan"), 1.0]]))
    far = vaestro.detect(run, {"a": [1e60, 0.0], "b": [100.0, 100.0]}, 0.5, "elbo")  # more than float32 holds
    assert np.isfinite(far.scores).all() and far.ranked[0] == 0 and far.p[0] == 1 / (len(far.by.calibration) + 1)


def test_a_reconstruction_is_the_centre_and_does_not_depend_on_the_rows_beside_it() -> None:
    x = torch.from_numpy(RNG.integers(0, 2, (3, 1, 28, 28))).float()
    back = vaestro.reconstruct("demo", x)
    assert back.shape == x.shape
    torch.testing.assert_close(back, vaestro.vary("demo", x, n=1, noise=0.0)[0])
    torch.testing.assert_close(back[1:2], vaestro.reconstruct("demo", x[1:2], seed=7))


def test_frames_that_do_not_fit_are_value_errors_to_scikit_learn() -> None:
    frame = pd.DataFrame({"v": V, "city": ["Bonn", "Graz"] * 30})
    with pytest.raises(ValueError, match="column 'nope' is declared"):
        VAETransformer(columns={"nope": "real"}).fit(frame)
    reader = Mixed.of(frame, None)
    assert reader.pack(frame).shape == (60, 2)
    for other, says in ((frame.assign(city="Wien"), "no category 'Wien'"), (frame[["v"]], "no column 'city'"), (frame.head(0), "has no rows")):
        with pytest.raises(ValueError, match=says):
            reader.pack(other)
