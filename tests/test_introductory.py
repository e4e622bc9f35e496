"""The introductory claims: their statistics against independent ones, their directions, and that a stopped experiment goes on."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import introductory  # noqa: E402
import trials  # noqa: E402
from introductory import CLAIMS, Apart, Contrast, Spread, apart, less, lines, log_variances, settled, spread  # noqa: E402
from trials import Setting, fewer, resized, sharpness, trial  # noqa: E402

from vaestro.data import load  # noqa: E402
from vaestro.recipes import parse  # noqa: E402

TINY = Setting("vae:latents=2,hidden=8", steps=3, scored=40)
OTHER = Setting("vae:latents=3,hidden=8", steps=3, scored=40)


def told(values: list[float], error: float = 0.1, metric: str = "frechet_pca64") -> list[dict]:
    """Trials of one setting with these values of a set metric."""
    return [{"values": {metric: {"value": v, "error": error}}, "rows": {}} for v in values]


def test_every_call_of_the_claims_is_a_recipe():
    for claim in CLAIMS.values():
        for _, setting in claim.terms:
            parse(setting.call)
    assert sum(w for w, _ in CLAIMS["resolution"].terms) == 0


def test_a_claim_on_sets_is_paired_over_seeds_with_both_errors():
    claim = Contrast("less is better", less(TINY, OTHER), "frechet_pca64")
    first, second = [1.0, 1.2, 1.1], [3.0, 3.4, 3.1]
    found = claim.settle([told(first), told(second)])
    d = np.subtract(first, second)
    assert found.mean == pytest.approx(d.mean())
    assert found.error == pytest.approx(np.sqrt(d.var(ddof=1) / 3 + 2 * 0.1**2))
    assert introductory.verdict(found.low, found.high) == "holds"
    more = Contrast("more is better", less(TINY, OTHER), "recall_pca64")
    worse = more.settle([told(first, metric="recall_pca64"), told(second, metric="recall_pca64")])
    assert worse.mean == pytest.approx(-d.mean())
    assert introductory.verdict(worse.low, worse.high) == "fails"


def test_a_claim_on_rows_is_paired_over_rows_too():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 10, 50)
    make = [[{"values": {}, "rows": {"nll": (m + hard + rng.normal(0, 0.1, 50)).tolist()}} for _ in range(3)] for m in (80.0, 81.0)]
    found = Contrast("", less(TINY, OTHER), "nll").settle(make)
    assert found.mean == pytest.approx(-1.0, abs=0.1)
    assert found.high < -0.8  # not the ten nats by which rows differ


def test_four_terms_weigh_two_gaps():
    claim = Contrast("", tuple(zip((-1.0, 1.0, 1.0, -1.0), (TINY, OTHER, TINY, OTHER), strict=True)), "frechet_pca64")
    assert claim.settle([told([9.0] * 3), told([2.0] * 3), told([5.0] * 3), told([1.0] * 3)]).mean == pytest.approx(-9 + 2 + 5 - 1)


def test_pseudo_values_of_the_log_variance_are_millers():
    x = np.array([1.0, 2.0, 4.0, 8.0])
    by_hand = [4 * np.log(np.var(x, ddof=1)) - 3 * np.log(np.var(np.delete(x, i), ddof=1)) for i in range(4)]
    assert log_variances(x) == pytest.approx(by_hand)


def test_the_interval_of_spreads_covers_what_it_says():
    rng = np.random.default_rng(1)
    samples = [(rng.normal(0, 1, 10), rng.normal(0, 3, 10)) for _ in range(400)]
    covered = np.mean([(s := spread(a, b)).low <= np.log(1 / 9) <= s.high for a, b in samples])
    assert 0.89 <= covered <= 0.99
    a, b = samples[0]
    la, lb = log_variances(a), log_variances(b)
    theirs = stats.ttest_ind(la, lb, equal_var=False).confidence_interval(0.95)
    assert (spread(a, b).low, spread(a, b).high) == pytest.approx((theirs.low, theirs.high))
    scaled = spread(100 * a, 100 * b)
    assert scaled.mean == pytest.approx(spread(a, b).mean)
    assert Spread("", less(TINY, OTHER), "energy").settle([told(list(a), metric="energy"), told(list(b), metric="energy")]) == spread(a, b)


def test_seeds_alone_seldom_differ_where_they_do_not():
    rng = np.random.default_rng(2)
    hard = rng.normal(0, 5, 80)
    false = np.mean([apart(hard + rng.normal(0, 1, (6, 80))).high < 0 for _ in range(300)])
    assert false <= 0.08
    runs = hard + np.arange(6)[:, None] + rng.normal(0, 1, (6, 80))
    found = apart(runs)
    assert found.high < 0
    assert found.mean == pytest.approx(runs.mean(1).min() - runs.mean(1).max())
    assert Apart("", ((1.0, TINY),), "nll").settle([[{"rows": {"nll": r.tolist()}} for r in runs]]) == found


def test_fewer_rows_and_smaller_pictures_are_those_of_the_data():
    data = load("digits")
    few = fewer(data, 100)
    assert few.schema.rows["train"] == len(few.split("train").arrays["x"]) == 100
    assert few.sha256 != data.sha256
    whole = {row.tobytes() for row in np.asarray(data.split("train").arrays["x"])}
    assert {row.tobytes() for row in few.split("train").arrays["x"]} <= whole
    assert few.split("test") is data.split("test")
    half = resized(data, 4)
    x = np.asarray(data.split("test").arrays["x"], np.float64)
    means = x.reshape(len(x), 1, 4, 2, 4, 2).mean((3, 5))
    assert np.abs(half.split("test").arrays["x"] - means).max() <= 0.5
    assert half.schema["x"].shape == (1, 4, 4)


def test_sharpness_is_a_ratio_of_powers():
    import torch

    rows = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert sharpness(rows, rows)[0] == pytest.approx(1.0)
    assert sharpness(rows / 2, rows)[0] == pytest.approx(0.25)
    assert sharpness(torch.full_like(rows, 0.5) + 0.01 * rows, rows)[0] == pytest.approx(1e-4)
    groups = [sharpness(rows[i::6], rows[i::6].flip(0))[1] for i in range(6)]
    assert min(groups) > sharpness(rows, rows)[1] > 0


def test_a_stopped_experiment_goes_on_and_what_is_missing_is_said(tmp_path, monkeypatch):
    claim = Contrast("tiny beats other", less(TINY, OTHER), "nll", (0, 1))
    monkeypatch.setitem(CLAIMS, "tiny", claim)
    first = trial(TINY, 0, tmp_path / "trials")
    assert len(first["rows"]["nll"]) == 40
    assert first["values"]["nll"]["value"] == pytest.approx(np.mean(first["rows"]["nll"]), abs=1e-3)
    assert settled(claim, tmp_path / "trials", False) is None
    made: list[str] = []
    train = trials.vaestro.train
    monkeypatch.setattr(trials.vaestro, "train", lambda call, *a, **k: made.append(call) or train(call, *a, **k))
    row = settled(claim, tmp_path / "trials", True)
    assert made == [TINY.call, OTHER.call, OTHER.call]  # the first was there
    assert row["difference"] == pytest.approx(row["values"][0] - row["values"][1], abs=1e-3)
    assert settled(claim, tmp_path / "trials", False)["low"] == row["low"]
    (tmp_path / "tiny.json").write_text(json.dumps(row))
    page = "\n".join(lines(tmp_path))
    assert f"| {row['verdict']} | 2 |" in page
    assert page.count("not run") == len(CLAIMS) - 1


def test_the_page_that_is_committed_is_that_of_the_files():
    folder = ROOT / "results" / "claims"
    assert (folder / "README.md").read_text(encoding="utf-8") == "\n".join(lines(folder)) + "\n"
    for name, claim in CLAIMS.items():
        if (folder / f"{name}.json").exists():
            row, again = json.loads((folder / f"{name}.json").read_text()), settled(claim, folder / "trials", False)
            assert again is not None, f"{name} has lost its trials"
            assert row["verdict"] == again["verdict"]
            assert [row[k] for k in ("difference", "low", "high")] == pytest.approx([again[k] for k in ("difference", "low", "high")])
