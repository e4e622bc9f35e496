"""The benchmark of imputation: its gaps, its rivals and its measures, against formulas and scikit-learn."""

import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.impute import SimpleImputer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import gaps  # noqa: E402
import imputation  # noqa: E402

from vaestro.data import from_table  # noqa: E402


@pytest.fixture(scope="module")
def rows():
    """A small mixed table, and its rows as they are held."""
    rng = np.random.default_rng(0)
    age = rng.normal(50, 10, 600).round(3)
    height = (age + rng.normal(0, 3, 600)).round(3)
    height[rng.random(600) < 0.2] = np.nan
    frame = {"age": age, "height": height, "weight": (2 * age + rng.normal(0, 5, 600)).round(3), "town": rng.choice(["Bonn", "Graz", "Lyon"], 600).tolist()}
    data = from_table(frame)
    return data.schema["x"].kind, np.concatenate([np.asarray(data.split(s).arrays["x"]) for s in data.schema.rows])


@pytest.fixture(scope="module")
def task(rows):
    """Three parts of those rows, with gaps at random."""
    table, x = rows
    hidden = (np.random.default_rng(1).random(x.shape) < 0.3) & ~np.isnan(x)
    hidden[(hidden | np.isnan(x)).all(1)] = False
    return gaps.Task(table, np.where(hidden, np.nan, x)[:400], x[400:500], hidden[400:500], x[500:], hidden[500:])


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_gaps_that_depend_on_others_have_their_share_and_depend_on_what_stays(rows, share):
    table, x = rows
    chances = gaps.by_others(table, x, share, np.random.default_rng(3))
    free = chances.max(0) > 0
    driving = np.flatnonzero(~free)
    assert len(driving) == 1
    assert not np.isnan(x[:, driving]).any()
    np.testing.assert_allclose(chances[:, free].mean(0), share, atol=1e-9)
    codes = np.column_stack([np.ones(len(x)), gaps.coded(table, x, driving)])
    logits = np.log(chances[:, free] / (1 - chances[:, free]))
    fitted = codes @ np.linalg.lstsq(codes, logits, rcond=None)[0]
    np.testing.assert_allclose(fitted, logits, atol=1e-6)  # a function of the whole columns and of nothing else
    np.testing.assert_allclose(logits.std(0), 2, rtol=1e-6)


def test_every_rival_keeps_what_was_seen_and_fills_the_rest(task):
    test = gaps.gaps(task)
    for fill in gaps.RIVALS.values():
        made = fill(task, 0)
        assert not np.isnan(made).any()
        np.testing.assert_allclose(made[~np.isnan(test)], test[~np.isnan(test)], rtol=1e-6)


@pytest.mark.parametrize("strategy", ["mean", "median"])
def test_constants_are_those_of_scikit_learn(task, strategy):
    fit, test, words = gaps.own(task.table, task.fit), gaps.gaps(task), gaps.named(task.table)
    made = gaps.RIVALS[strategy](task, 0)
    for columns, name in ((words, "most_frequent"), (~words, strategy)):
        np.testing.assert_allclose(made[:, columns], SimpleImputer(strategy=name).fit(fit[:, columns]).transform(test[:, columns]))


def test_the_measures_are_their_formulas(task):
    truth, words, rng = gaps.own(task.table, task.test), gaps.named(task.table), np.random.default_rng(2)
    made = gaps.RIVALS["mean"](task, 0)
    found = {"mean": made, "median": made, "low": made - 1, "high": made + 1, "claimed": rng.random(made.shape)}
    sums = imputation.sums(task, task.test, task.hidden, found)
    numbers, error = task.hidden & ~words, (made - truth) / gaps.spread(task)
    wanted = {
        "RMSE": np.sqrt(np.mean(error[numbers] ** 2)),
        "MAE": np.mean(abs(error[numbers])),
        "accuracy": np.mean((made == truth)[task.hidden & words]),
        "covered": np.mean((abs(made - truth) <= 1)[numbers]),
        "claimed": np.mean(found["claimed"][task.hidden & words]),
    }
    assert {m: imputation.jackknifed(m, sums)[0] for m in imputation.MEASURES} == pytest.approx(wanted, abs=1e-4)
    one = imputation.jackknifed("MAE", sums)[1][3]
    others = np.arange(len(truth)) % 10 != 3
    assert one == pytest.approx(np.mean(abs(error[others][numbers[others]])), abs=1e-4)


def test_a_difference_of_a_method_from_itself_is_none_and_its_interval_is_that_of_the_seeds(task):
    sums = [imputation.sums(task, task.test, task.hidden, dict.fromkeys(("mean", "median"), gaps.RIVALS["mean"](task, 0) + s)) for s in (0, 1, 3)]
    none = imputation.estimated("MAE", sums, sums)
    assert (none.low, none.mean, none.high) == (0, 0, 0)
    found = imputation.estimated("MAE", sums)
    values = [imputation.jackknifed("MAE", s)[0] for s in sums]
    assert found.mean == pytest.approx(np.mean(values))
    assert found.error >= np.std(values, ddof=1) / np.sqrt(3)
