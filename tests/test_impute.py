"""Completions against exact conditionals of a linear-Gaussian table, Rubin's rules by hand, rows given columns, files and refusals."""

import json
import math
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from scipy import stats
from torch import nn
from typer.testing import CliRunner

import vaestro
from vaestro.cli.app import app
from vaestro.conditional import Conditional
from vaestro.data import from_table
from vaestro.data.prepare.tables import packed
from vaestro.data.schema import Table
from vaestro.errors import UsageError
from vaestro.evaluation.rubin import pool
from vaestro.families import Gaussian
from vaestro.families.base import unpositive
from vaestro.models import VAE
from vaestro.networks.base import Network
from vaestro.priors import StandardNormal
from vaestro.training.runs import Run
from vaestro.uses.denoise import denoise
from vaestro.uses.evaluate import Protocol
from vaestro.uses.impute import impute
from vaestro.uses.inference.completing import complete_entries
from vaestro.uses.inference.noises import gaussian

NAN = math.nan
W = torch.tensor([[1.5, 0.3], [-1.0, 1.0], [0.5, -2.0]])
S = 0.5


def linear(inputs: int, weight: torch.Tensor, bias: torch.Tensor) -> Network:
    layer = nn.Linear(inputs, len(weight))
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return Network(nn.Sequential(layer), (inputs,), (len(weight),))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, np.ndarray, np.ndarray]:
    """A run whose model is x = W z + 0.5 e over three real columns, with a far too wide posterior that reads nothing; and the table's centres and scales."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(400, 2)) @ W.numpy().T * [2, 30, 0.1] + rng.normal(size=(400, 3)) * S * np.array([2, 30, 0.1]) + [10, -5, 0.3]
    data = from_table({n: values[:, i] for i, n in enumerate("abc")})
    run = vaestro.train("vae:latents=2,hidden=4", data, steps=2, out=tmp_path_factory.mktemp("run") / "run")
    table = data.schema["x"].kind
    assert isinstance(table, Table)
    spread = float(unpositive(torch.tensor(S)))
    likelihood = Conditional(linear(2, torch.cat([W, torch.zeros(3, 2)]), torch.tensor([0.0] * 3 + [spread] * 3)), run.model.likelihood.family)  # type: ignore[union-attr,arg-type]
    wide = float(unpositive(torch.tensor(1.2)))
    posterior = Conditional(linear(3, torch.zeros(4, 3), torch.tensor([0.0, 0.0, wide, wide])), Gaussian())
    posterior.net.body[0].register_forward_pre_hook(lambda module, args: (args[0].nan_to_num(0.0),))  # type: ignore[union-attr,index,operator]
    parts = nn.ModuleDict({"model": VAE(StandardNormal((2,)), posterior, likelihood)}).eval()
    mean, scale = (np.array([getattr(c, k) for c in table.columns]) for k in ("loc", "scale"))
    return replace(run, recipe=replace(run.recipe, parts=parts)), mean, scale


def conditional(x: np.ndarray, gap: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """The exact mean and covariance of x[gap] given the rest, as the table holds them."""
    cov = (W @ W.T + S**2 * torch.eye(3)).numpy().astype(float)
    seen = [i for i in range(3) if i not in gap]
    gain = cov[np.ix_(gap, seen)] @ np.linalg.inv(cov[np.ix_(seen, seen)])
    return gain @ x[seen], cov[np.ix_(gap, gap)] - gain @ cov[np.ix_(seen, gap)]


@pytest.mark.parametrize("gap", [[0], [2], [0, 1], [1, 2]])
def test_completions_have_the_exact_conditional(world: tuple[Run, np.ndarray, np.ndarray], gap: list[int]) -> None:
    row = np.array([0.8, -0.6, 1.1])
    x = torch.tensor(row).float()
    x[gap] = NAN
    n = 4000
    done = complete_entries(world[0], x[None], n, 20_000)
    drawn = done.rows[:, 0].double().numpy()
    seen = [i for i in range(3) if i not in gap]
    assert (drawn[:, seen] == row[seen].astype(np.float32)).all() and 1 < float(done.effective[0]) < 20_000
    mean, cov = conditional(row, gap)
    assert (np.abs(drawn[:, gap].mean(0) - mean) < 5 * np.sqrt(np.diag(cov) * (1 / n + 1 / float(done.effective[0])))).all()
    np.testing.assert_allclose(np.cov(drawn[:, gap].T).reshape(cov.shape), cov, atol=0.15 * cov.max())
    assert stats.kstest(drawn[:600, gap[0]], stats.norm(mean[0], math.sqrt(cov[0, 0])).cdf).pvalue > 1e-3


def test_nothing_seen_gives_the_model_itself(world: tuple[Run, np.ndarray, np.ndarray]) -> None:
    drawn = complete_entries(world[0], torch.full((1, 3), NAN), 4000, 20_000).rows[:, 0].double().numpy()
    np.testing.assert_allclose(np.cov(drawn.T), (W @ W.T + S**2 * torch.eye(3)).numpy(), atol=0.5)


def test_intervals_of_cells_cover(world: tuple[Run, np.ndarray, np.ndarray]) -> None:
    """Entries removed from rows of the model itself lie in their 95 % intervals as often as they should, and estimates are the conditional means."""
    run, mean, scale = world
    rng = np.random.default_rng(5)
    held = rng.normal(size=(300, 2)) @ W.numpy().T + S * rng.normal(size=(300, 3))
    gaps = rng.random((300, 3)) < 0.3
    values = held * scale + mean
    frame = {n: [None if g else v for v, g in zip(values[:, i], gaps[:, i], strict=True)] for i, n in enumerate("abc")}
    found = impute(run, frame, draws=5, samples=1000)
    cells = found.cells
    assert len(cells) == gaps.sum()
    truth = np.array([values[r, "abc".index(c)] for r, c in zip(cells["row"], cells["column"], strict=True)])
    covered = ((cells["low"].cast(float).to_numpy() <= truth) & (truth <= cells["high"].cast(float).to_numpy())).mean()
    assert abs(covered - 0.95) < 5 * math.sqrt(0.95 * 0.05 / len(cells)) + 0.01
    one = cells.with_row_index("at").filter(pl.col("row").is_in([r for r in range(300) if gaps[r].sum() == 1]))
    wanted = [conditional(held[r], ["abc".index(c)])[0][0] for r, c in zip(one["row"], one["column"], strict=True)]
    got = [(float(e) - mean["abc".index(c)]) / scale["abc".index(c)] for e, c in zip(one["estimate"], one["column"], strict=True)]
    assert np.corrcoef(wanted, got)[0, 1] > 0.98
    for table in found.tables:
        whole = table.select("a", "b", "c").to_numpy()
        np.testing.assert_array_equal(whole[~gaps], values[~gaps])
        assert np.isfinite(whole).all()
    assert len({t["a"][int(np.flatnonzero(gaps[:, 0])[0])] for t in found.tables}) == 5


def test_rubins_rules_by_hand() -> None:
    """Estimates 10, 12, 14 with variances 1, 2, 3: Q = 12, U = 2, B = 4, T = 2 + 4/3 4 = 22/3, df = 2 (T / (16/3))^2 = 3.78125."""
    found = pool([10, 12, 14], [1, 2, 3])
    assert (found.estimate, found.within, found.between, found.draws) == (12, 2, 4, 3)
    assert found.total == pytest.approx(22 / 3) and found.df == pytest.approx(2 * (22 / 16) ** 2) and found.missing == pytest.approx(16 / 22)
    half = stats.t.ppf(0.975, 3.78125) * math.sqrt(22 / 3)
    assert (found.low, found.high) == (pytest.approx(12 - half), pytest.approx(12 + half))
    same = pool([5, 5], [4, 4], 0.9)
    assert same.df == math.inf and same.high == pytest.approx(5 + 1.6448536 * 2) and same.missing == 0
    assert pool([3, 3, 3], [0, 0, 0]).low == 3
    for estimates, variances, level in (([1], [1], 0.95), ([1, 2], [1], 0.95), ([1, NAN], [1, 1], 0.95), ([1, 2], [1, -1], 0.95), ([1, 2], [1, 1], 1.0)):
        with pytest.raises(UsageError):
            pool(estimates, variances, level)


def test_pooled_means_cover(world: tuple[Run, np.ndarray, np.ndarray]) -> None:
    """The pooled interval of a mean, of 40 tables with a third of one column removed, holds the true mean about 95 times of 100."""
    run, mean, scale = world
    rng = np.random.default_rng(6)
    held = 0
    for t in range(40):
        values = (rng.normal(size=(60, 2)) @ W.numpy().T + S * rng.normal(size=(60, 3))) * scale + mean
        frame = pl.DataFrame({n: values[:, i] for i, n in enumerate("abc")}).with_columns(
            pl.when(pl.Series(rng.random(60) > 0.33)).then(pl.col("a")).alias("a")
        )
        pooled = impute(run, frame, draws=10, samples=200, seed=t).pooled
        assert set(pooled) == {"a"} and 0 < pooled["a"].missing < 1
        held += pooled["a"].low <= mean[0] <= pooled["a"].high
    assert held >= 33  # of 40 at 95 %: fewer happens once in two thousand


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on a table in which the city decides the size and the shop."""
    rng = np.random.default_rng(2)
    city = rng.integers(0, 3, 900)
    frame = pl.DataFrame(
        {
            "city": np.array(["Bonn", "Graz", "Lyon"])[city],
            "size": 100 * city + rng.normal(0, 5, 900),
            "shop": np.where(rng.random(900) < 0.9, city, (city + 1) % 3).astype(str),
            "visits": rng.poisson(1 + 5 * city) + (rng.random(900) < 0.05) * 40,
            "unit": ["m"] * 900,
        }
    )
    folder = tmp_path_factory.mktemp("mixed")
    return vaestro.train("denoising_vae:strength=0.4,latents=3,hidden=64,learning_rate=5e-3", from_table(frame), steps=500, out=folder / "run")


def test_rows_given_some_columns(mixed: Run) -> None:
    table = mixed.field.kind
    assert isinstance(table, Table)
    names = list(table.names)
    for city, size in (("Bonn", 0), ("Lyon", 200)):
        rows = vaestro.generate(mixed, 200, given={"city": city}).double().numpy()
        column = table["size"]
        found = rows[:, names.index("size")] * column.scale + column.loc  # type: ignore[union-attr]
        assert (rows[:, names.index("city")] == table["city"].levels.index(city)).all() and abs(np.median(found) - size) < 45  # type: ignore[union-attr]
    for given, words in (({"citi": "Bonn"}, "did you mean city"), ({"city": "Rome"}, "no category 'Rome'"), ({"size": "big"}, "holds numbers")):
        with pytest.raises(UsageError, match=words):
            vaestro.generate(mixed, 3, given=given)


def test_gaps_are_filled_from_what_goes_with_them(mixed: Run) -> None:
    frame = pl.DataFrame({"city": ["Bonn", None, "Graz", None], "size": [None, 205.0, 100.0, None], "shop": ["0", None, "1", None], "visits": [1, 11, 6, None]})
    found = impute(mixed, frame, draws=3, samples=2000)
    first = found.tables[0]
    assert first["size"][1] == 205.0 and first["city"][0] == "Bonn" and first["visits"].to_list()[:3] == [1, 11, 6]
    assert first.null_count().sum_horizontal()[0] == 0
    said = {(r, c): (e, low, high, share) for r, c, e, low, high, share in found.cells.iter_rows()}
    assert said[1, "city"][0] == "Lyon" and said[1, "city"][3] > 0.8
    low, high = (float(v) for v in said[0, "size"][1:3])
    assert low < 30 and high < 170  # Graz lies at 100, Lyon at 200
    assert len(found.cells) == 7 and found.long().height == 12 and found.long().columns[0] == "draw"
    whole = impute(mixed, frame[2:3], draws=2)
    assert "no gaps" in whole.notes[-1] and len(whole.cells) == 0 and whole.tables[1]["size"][0] == 100.0


def test_a_table_is_not_denoised(mixed: Run) -> None:
    with pytest.raises(UsageError, match="models a table, whose columns share no noise"):
        denoise(mixed, torch.zeros(1, 4), gaussian(0.1))


def test_refusals(mixed: Run, tmp_path: Path) -> None:
    rows = torch.full((1, 4), NAN)
    with pytest.raises(UsageError, match="draws is 0"):
        complete_entries(mixed, rows, 0)
    with pytest.raises(UsageError, match="none of this table"):
        complete_entries(mixed, torch.zeros(1, 9))
    with pytest.raises(UsageError, match="no column 'shop'"):
        impute(mixed, {"city": ["Bonn"], "size": [1.0], "visits": [1]})
    with pytest.raises(UsageError, match="is no table; train on"):
        impute(vaestro.open_run("demo"), {"a": [1]})
    data = from_table({"a": np.random.default_rng(0).normal(size=90), "b": ["u", "v", "w"] * 30})
    ae = vaestro.train("ae:latents=2,hidden=8", data, steps=2, out=tmp_path / "ae")
    with pytest.raises(UsageError, match="has no density"):
        complete_entries(ae, torch.full((1, 2), NAN))


def test_a_missing_label_is_no_hindrance(tmp_path: Path) -> None:
    data = from_table({"a": np.random.default_rng(0).normal(size=90), "b": ["u", "v", "w"] * 30, "label": [0, 1] * 45})
    run = vaestro.train("cvae:latents=2,hidden=8", data, steps=3, out=tmp_path / "cvae")
    done = complete_entries(run, torch.full((4, 2), NAN), 3, 20, given={"label": 1})
    assert done.rows.shape == (3, 4, 2) and done.rows.isfinite().all()
    found = impute(run, {"a": [None, 1.0], "b": ["u", None]}, 2, 20, given={"label": [0, 1]})
    assert found.tables[0].null_count().sum_horizontal()[0] == 0


def test_the_same_seed_gives_the_same_draws(mixed: Run) -> None:
    rows = torch.full((3, 4), NAN)
    before = torch.get_rng_state()
    one, two, three = (complete_entries(mixed, rows, 4, 50, seed).rows for seed in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, three) and torch.equal(before, torch.get_rng_state())


def test_evaluation_tells_the_nats_of_each_column(mixed: Run) -> None:
    found = vaestro.evaluate(mixed, Protocol(rows=60, samples=20))
    columns = found.about["columns"]
    assert list(columns) == ["city", "size", "shop", "visits"] and columns["city"]["seen"] == 60
    assert sum(c["nats"] for c in columns.values()) == pytest.approx(found.scores["cross_entropy"]["value"], rel=0.1)
    assert columns["city"]["nats"] < math.log(3)
    assert "reconstruction_mse" in found.about["refused"] and "bits_per_dim" in found.about["refused"]
    json.dumps(found.about)


def test_commands(mixed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = str(mixed.folder)
    done = CliRunner().invoke(app, ["generate", run, "-n", "30", "-o", "rows.csv", "--given", "city=Graz,visits=6"])
    assert done.exit_code == 0, done.output
    made = pl.read_csv("rows.csv")
    assert (
        made.columns == ["city", "size", "shop", "visits", "unit"]
        and set(made["city"]) == {"Graz"}
        and set(made["visits"]) == {6}
        and set(made["unit"]) == {"m"}
    )
    assert CliRunner().invoke(app, ["generate", run, "-n", "20", "-o", "rows.parquet"]).exit_code == 0
    types = {"city": pl.String, "size": pl.Float64, "shop": pl.Int64, "visits": pl.Int64, "unit": pl.String}
    assert dict(pl.read_parquet("rows.parquet").schema) == types
    Path("gaps.csv").write_text("city,size,shop,visits\nBonn,,0,1\n,200.5,2,\n")
    done = CliRunner().invoke(app, ["impute", run, "gaps.csv", "-o", "filled.csv", "--draws", "4", "--samples", "100"])
    assert done.exit_code == 0, done.output
    filled = pl.read_csv("filled.csv")
    assert filled.height == 8 and filled.columns[0] == "draw" and filled.null_count().sum_horizontal()[0] == 0 and set(filled["size"][1::2]) == {200.5}
    assert pl.read_csv("filled-cells.csv").height == 3 and "variance due to gaps" in done.output
    done = CliRunner().invoke(app, ["reconstruct", run, "filled.csv", "-o", "back.csv"])
    assert done.exit_code == 0 and "'draw'" in done.output and pl.read_csv("back.csv").height == 8
    done = CliRunner().invoke(app, ["evaluate", run, "--rows", "20", "--samples", "3"])
    assert done.exit_code in (0, 2), done.output  # the rows are not kept with a run on a frame
    for words, said in (
        (["impute", run, "gaps.csv", "-o", "filled.txt"], "written as .csv or .parquet"),
        (["impute", run, "none.csv", "-o", "filled.csv"], "there is no file none.csv"),
        (["generate", run, "-o", "grid.png"], "are no pictures"),
        (["generate", run, "-o", "x.npy"], "columns with names and types are no array"),
        (["impute", "demo", "gaps.csv", "-o", "filled.csv"], "is no table"),
    ):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 2 and said in done.output, done.output
    done = CliRunner().invoke(app, ["impute", run, "gaps.csv", "-o", "one.parquet", "--draws", "1", "--samples", "50", "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["gaps"] == 3 and "draw" not in pl.read_parquet("one.parquet").columns


def test_packed_rows_of_gaps(mixed: Run) -> None:
    frame = pl.DataFrame({"city": [None, "Bonn"], "size": [1.0, None], "shop": ["1", "2"], "visits": [None, 4]})
    table = mixed.field.kind
    assert isinstance(table, Table)
    assert np.isnan(packed(table, frame)).tolist() == [[True, False, False, True], [False, True, False, False]]


def test_dates_seen_stay_and_gaps_beside_the_model_are_told_of(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    days = [date(2008, 1, 1) + timedelta(int(k)) for k in rng.integers(0, 200, 100)]
    frame = pl.DataFrame({"d": days, "v": rng.normal(size=100), "k": [5] * 100})
    run = vaestro.train("vae:latents=1,hidden=8", from_table(frame), steps=2, out=tmp_path / "run")
    new = pl.DataFrame({"d": [datetime(2008, 3, 1, 13), None], "v": [None, 1.0], "k": [7, None], "zz": [None, 1]})
    found = impute(run, new, 1, 20)
    assert found.tables[0]["d"][0] == datetime(2008, 3, 1, 13) and found.tables[0].drop("zz").null_count().sum_horizontal()[0] == 0
    assert found.tables[0]["k"].to_list() == [7, 5] and found.tables[0]["zz"].to_list() == [None, 1]
    assert found.notes[-2:] == ("column 'k' has one value, 5; gaps filled with it: 1", "the gaps of columns that are not modelled stay: 'zz' (1)")
    again = impute(run, found.tables[0], 1)
    assert again.notes[-1] == "the gaps of columns that are not modelled stay: 'zz' (1)" and not any("no gaps" in n for n in again.notes)
    zone = new.with_columns(pl.col("d").dt.replace_time_zone("Europe/Paris"))
    assert impute(run, zone, 1, 20).tables[0]["d"][0] == zone["d"][0]
    far = vaestro.generate(run, 4, given={"v": "1e30"})  # as a table with that value is read
    assert far.isfinite().all() and (far[:, 1] == 1e15).all()


def test_weights_that_are_no_numbers_are_refused(world: tuple[Run, np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaestro.core.Trace.log_w", torch.full((9, 1), -math.inf))
    with pytest.raises(UsageError, match="no draw of their latents has a weight"):
        complete_entries(world[0], torch.tensor([[1.0, NAN, 0.0]]), 3, 9)
