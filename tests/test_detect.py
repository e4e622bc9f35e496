"""Alarms with a stated error: p-values and false discoveries by simulation, the martingale by Ville's bound, exact scores, the whole command."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.distributions import Independent, Normal
from typer.testing import CliRunner

import vaestro
from vaestro.cli.app import app
from vaestro.data import from_arrays
from vaestro.data.schema import Real
from vaestro.errors import UsageError, VaestroError
from vaestro.evaluation.conformal import adjusted, discoveries, least_alarms, needed, p_values, require_enough, require_level
from vaestro.evaluation.outliers import strangeness
from vaestro.testing.linear import Law, LinearGaussian
from vaestro.training.runs import Run
from vaestro.uses.detect import Detection, Detector, Drift, Stream, detect, detected, detector, drift
from vaestro.uses.detect.calibrated import USUAL, usual_rows
from vaestro.uses.detect.choice import Choice, choose
from vaestro.uses.detect.labels import Labelled, labelled_of
from vaestro.uses.detect.scores import rows_of, subject
from vaestro.uses.detect.spoiling import spoilt
from vaestro.uses.detect.writing import alarms_frame
from vaestro.uses.evaluate import Protocol

RNG = np.random.default_rng(0)
LINE = LinearGaussian()


def frame(seed: int, rows: int = 900) -> dict[str, Any]:
    """A table whose columns hang together: b is 2 a, and the kind decides where a lies."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 2, rows)
    a = rng.normal(size=rows) + 4 * kind
    b = 2 * a + 0.3 * rng.normal(size=rows)
    return {"a": a, "b": b, "kind": np.array(["x", "y"])[kind].tolist(), "count": rng.poisson(2 + 2 * kind)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as m:
        m.setenv("VAESTRO_CACHE", str(folder / "cache"))
        pl.DataFrame(frame(0, 1500)).write_csv(folder / "rows.csv")
        yield vaestro.train("vae:latents=2,hidden=64,learning_rate=0.005", folder / "rows.csv", steps=400, out=folder / "table")


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose model is the linear-Gaussian one, with the exact posterior."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x = LINE.evidence.sample((1200,)).float().numpy()
    data = from_arrays("line", {"x": x}, {"x": Real(0.0001)})
    made = vaestro.train("vae:latents=2,hidden=4", data, steps=1, out=tmp_path_factory.mktemp("run") / "line")
    model = LINE.right
    model.register_parameter("exact", nn.Parameter(torch.zeros(1, dtype=torch.float64)))  # says that it computes in float64
    return replace(made, recipe=replace(made.recipe, parts=nn.ModuleDict({"model": model}).eval()))


@pytest.fixture(scope="module")
def by(run: Run) -> Detector:
    return detector(run)


def test_p_values_are_the_count_of_the_definition() -> None:
    calibration, scores = RNG.integers(0, 6, 40).astype(float), np.array([-1.0, 0, 3, 5, 9, math.inf, -math.inf])
    by_hand = [(1 + sum(c >= s for c in calibration)) / 41 for s in scores]
    np.testing.assert_array_equal(p_values(calibration, scores), by_hand)
    assert p_values(np.array([2.0]), np.array([3.0, 2.0])).tolist() == [0.5, 1.0] and len(p_values(calibration, np.zeros(0))) == 0
    with pytest.raises(UsageError, match="no calibration rows"):
        p_values(np.zeros(0), scores)
    with pytest.raises(UsageError, match="not numbers"):
        p_values(calibration, np.array([math.nan]))


def test_p_values_are_uniform_where_rows_are_exchangeable() -> None:
    """n + 1 possible values, each as probable as the other, over calibration sets drawn anew."""
    draws = np.random.default_rng(1).standard_exponential((6000, 20))
    p = np.array([p_values(row[1:], row[:1])[0] for row in draws])
    counts = np.bincount(np.rint(p * 20).astype(int), minlength=21)[1:]
    assert stats.chisquare(counts).pvalue > 0.01
    assert stats.kstest(p - np.random.default_rng(2).random(6000) / 20, "uniform").pvalue > 0.01


def test_alarms_are_benjamini_and_hochbergs() -> None:
    for _ in range(50):
        p = RNG.random(12) ** 3
        ordered, k = np.sort(p), 0
        for i in range(12):
            k = i + 1 if ordered[i] <= 0.2 * (i + 1) / 12 else k
        assert discoveries(p, 0.2).sum() == k and (p[discoveries(p, 0.2)] <= (ordered[k - 1] if k else -1)).all()
    assert not len(discoveries(np.zeros(0), 0.1)) and adjusted(np.array([0.3])).tolist() == [0.3]
    for level in (0.0, 1.0, -1.0, 2.0, math.nan):
        with pytest.raises(UsageError, match="between 0 and 1"):
            discoveries(p, level)


@pytest.mark.parametrize(("n", "k", "m", "fdr"), [(19, 5, 30, 0.3), (99, 2, 20, 0.1), (199, 2, 60, 0.15), (499, 3, 300, 0.2)])
def test_p_values_on_the_boundary_itself_are_alarms(n: int, k: int, m: int, fdr: float) -> None:
    p = p_values(np.arange(n), np.r_[np.full(k, n + 5.0), np.full(m - k, -1.0)])
    assert k * fdr / m == pytest.approx(1 / (n + 1)) and discoveries(p, fdr).sum() == k == least_alarms(n, m, fdr)
    assert discoveries(p, fdr * (1 - 1e-9)).sum() == 0


def test_false_discoveries_stay_below_their_rate_and_a_planted_shift_is_found() -> None:
    rng, level, rows = np.random.default_rng(3), 0.2, 100
    shares, power = [], []
    for _ in range(600):
        strange = np.arange(rows) < 15
        found = discoveries(p_values(rng.normal(size=300), rng.normal(size=rows) + 4 * strange), level)
        shares.append((found & ~strange).sum() / max(1, found.sum()))
        power.append(found[strange].mean())
    error = np.std(shares) / math.sqrt(len(shares))
    assert np.mean(shares) <= level + 2 * error and abs(np.mean(shares) - 0.85 * level) < 0.05  # the share of usual rows times the rate
    assert np.mean(power) > 0.85


@pytest.mark.parametrize("level", [0.5, 0.3, 0.1, 0.05, 0.01, 0.001])
def test_how_many_calibration_rows_a_level_needs(level: float) -> None:
    n = needed(level)
    assert p_values(np.zeros(n), np.ones(1))[0] <= level + 1e-12 and (n == 1 or p_values(np.zeros(n - 1), np.ones(1))[0] > level)
    require_enough(n, level)
    with pytest.raises(UsageError, match=f"at least {n} are needed"):
        require_enough(n - 1, level)


def test_how_many_rows_must_be_strange_before_the_first_alarm() -> None:
    for n, m, q in ((200, 500, 0.1), (19, 100, 0.2), (1000, 10, 0.1)):
        first = next(k for k in range(1, m + 1) if discoveries(np.repeat([1 / (n + 1), 1.0], [k, m - k]), q).any())
        assert least_alarms(n, m, q) == first


def test_the_martingale_is_the_simple_jumper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks and capital by the definition, one row after the other, with ties."""
    calibration, scores = RNG.integers(0, 5, 20).astype(float), RNG.integers(0, 8, 60).astype(float)
    random, seen, capital, log = np.random.default_rng(7), calibration.tolist(), {-1: 1 / 3, 0: 1 / 3, 1: 1 / 3}, []
    for s in scores:
        p = (sum(c > s for c in seen) + random.random() * (1 + sum(c == s for c in seen))) / (len(seen) + 1)
        total = sum(capital.values())
        capital = {e: (0.99 * c + 0.01 / 3 * total) * (1 + e * (p - 0.5)) for e, c in capital.items()}
        log.append(math.log(sum(capital.values())))
        seen.append(s)
    monkeypatch.setattr(drift, "HELD", 8)
    whole, parts = Drift(calibration, 20.0, 7), Drift(calibration, 20.0, 7)
    np.testing.assert_allclose(whole.push(scores), log, atol=1e-12)
    np.testing.assert_array_equal(np.concatenate([parts.push(s) for s in np.split(scores, [1, 1, 30])]), Drift(calibration, 20.0, 7).push(scores))
    assert whole.rows == 60 and whole.alarm == next((i for i, v in enumerate(log) if v >= math.log(20)), None)


def test_smoothed_p_values_of_a_stream_are_independent_and_uniform() -> None:
    watch = Drift(np.random.default_rng(4).normal(size=100))
    p = np.array([watch._smoothed(s) for s in np.random.default_rng(9).normal(size=3000)])
    assert stats.kstest(p, "uniform").pvalue > 0.01 and abs(np.corrcoef(p[1:], p[:-1])[0, 1]) < 0.05


def test_drift_is_false_as_rarely_as_promised_and_told_when_it_comes() -> None:
    rng, false, late = np.random.default_rng(6), 0, []
    for seed in range(200):
        draws = rng.normal(size=200)
        watch = Drift(draws[:80], 10.0, seed)
        watch.push(draws[80:])
        false += watch.alarm is not None
    assert false / 200 <= 1 / 10 + 2 * math.sqrt(0.1 * 0.9 / 200)
    for seed in range(10):
        watch = Drift(rng.normal(size=200), 100.0, seed)
        watch.push(np.concatenate([rng.normal(size=50), rng.normal(size=150) + 2]))
        late.append(watch.alarm)
    assert all(a is not None and 50 <= a < 130 for a in late)
    assert Drift(np.zeros(3)).push(np.zeros(2000)).shape == (2000,)  # nothing overflows


@pytest.mark.parametrize("threshold", [1.0, 0.5, math.nan])
def test_a_drift_alarm_needs_a_threshold_and_numbers(threshold: float) -> None:
    with pytest.raises(UsageError, match="above 1"):
        Drift(np.zeros(3), threshold)
    for calibration in (np.zeros(0), np.array([math.nan])):
        with pytest.raises(UsageError, match="calibration scores"):
            Drift(calibration)
    with pytest.raises(UsageError, match="score 1 of the stream is not a number"):
        Drift(np.zeros(3)).push(np.array([0.0, math.nan]))


def test_scores_are_the_exact_density_of_a_linear_gaussian(line: Run) -> None:
    x = torch.cat([LINE.evidence.sample((40,)), 3 * LINE.evidence.sample((10,))]).float()
    found = detect(line, x, 0.2, "likelihood")
    np.testing.assert_allclose(found.scores, -LINE.evidence.log_prob(x.double()).numpy(), atol=1e-6)
    held = -LINE.evidence.log_prob(found.by.held.double()).numpy()
    np.testing.assert_allclose(found.by.calibration, held, atol=1e-6)
    np.testing.assert_array_equal(found.p, p_values(found.by.calibration, found.scores))
    np.testing.assert_array_equal(found.alarms, discoveries(found.p, 0.2))
    assert len(held) == 120  # all validation rows, for nothing was chosen
    for level in (0.05, 0.2, 0.5):
        limit = found.by.threshold(level)
        np.testing.assert_array_equal(found.scores > limit, found.p <= level)
    assert found.by.threshold(0.001) == math.inf


def test_the_self_test_is_the_areas_of_spoilt_rows(run: Run, by: Detector) -> None:
    assert by.choice is not None
    good, protocol = by.held[:40], Protocol("validation", 100, 10)
    usual = usual_rows(run, protocol)
    found = choose(run, good, usual, protocol)
    bad = spoilt(run.field, good, 100, 0)
    assert set(found.areas[found.score]) == set(bad) == {"permuted", "noise", "crossed", "far"}
    rows = subject(run, torch.cat([good, *bad.values()]), protocol)
    for name in ("elbo", "kl"):
        scores = strangeness(name, rows, usual)
        for part, kind in zip(np.split(scores[40:], 4), bad, strict=True):
            assert found.areas[name][kind].value == pytest.approx(roc_auc_score(np.repeat([0, 1], [40, 100]), np.concatenate([scores[:40], part])))
    assert found.mean(found.score) >= max(map(found.mean, found.areas)) - found.error(max(found.areas, key=found.mean)) and found.mean(found.score) > 0.85
    assert "complexity" in found.refused and "squared_error" in found.refused and found.why[0].startswith(f"Score: {found.score} (")
    assert choose(run, good, usual, protocol) == found


def test_a_fooled_score_is_not_chosen_and_is_told(line: Run) -> None:
    """A score that finds spoilt rows less strange: the words say so, and another one is taken."""
    areas = choose(line, LINE.evidence.sample((50,)), usual_rows(line, USUAL), USUAL, ["kl", "likelihood"]).areas
    assert set(areas) == {"kl", "likelihood"}
    swapped = Choice("likelihood", {**areas, "kl": {k: a._replace(value=0.1, high=0.2) for k, a in areas["kl"].items()}}, 50)
    assert any(s.startswith("Fooled: kl finds ") for s in swapped.why)
    assert detector(line).scorer.names != ("kl",)


def test_planted_rows_are_alarms_and_the_same_every_time(run: Run, by: Detector) -> None:
    new = frame(5, 120)
    new["b"][:15] += 12
    found = vaestro.detect(run, new, 0.2)
    assert found.alarms[:15].mean() > 0.9 and found.alarms[15:].sum() <= 8
    assert set(found.ranked[:10]) <= set(range(15)) and found.by.scorer == by.scorer
    again = detect(run, pl.DataFrame(new), 0.2)
    np.testing.assert_array_equal(again.scores, found.scores)
    table = found.frame()
    assert table.columns == ["row", "alarm", "p", "adjusted_p", "score"] and table["score"].is_sorted(descending=True) and len(table) == 120
    assert "rows are alarms" in found.findings[-1] and json.loads(json.dumps(found.to_json()))["alarms"][0]["row"] == int(found.ranked[0])
    few = detected(by, found.rows[20:60], 0.1)
    assert not few.alarms.any() or few.p[few.alarms].max() <= 0.1


def test_a_stream_in_parts_is_the_stream_at_once(run: Run, by: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaestro.uses.detect.calibrated.BLOCK", 50)
    monkeypatch.setattr("vaestro.uses.detect.stream.BLOCK", 50)
    x, _ = rows_of(run, frame(6, 130))
    parts, whole = Stream(by, 0.05), Stream(by, 0.05).push_rows(x)
    said = [parts.push_rows(part) for part in x.split([1, 49, 0, 30, 50])]
    np.testing.assert_array_equal(whole.scores, by.score(x))
    for name in ("scores", "p", "alarms", "evidence"):
        np.testing.assert_array_equal(np.concatenate([getattr(s, name) for s in said]), getattr(whole, name))
    assert [s.first for s in said] == [0, 1, 50, 50, 80] and (whole.alarms == (whole.p <= 0.05)).all()
    away = Stream(by, 0.05, 50.0)
    away.push(frame(7, 40) | {"b": (np.full(40, 60.0)).tolist()})
    assert away.drift.alarm is not None and away.drift.alarm < 40


def test_columns_of_the_users_own_get_free_names(by: Detector) -> None:
    each = np.array([0.5, 0.1])
    found = Detection(by, 0.1, torch.zeros(2, 1), -each, each, each, each > 0.2)
    once = alarms_frame(found, (), pl.DataFrame({"p": [7, 8], "p_": [5, 6], "own": [1, 2]}))
    assert once.columns == ["row", "alarm", "p", "adjusted_p", "score", "p__", "p_", "own"]
    assert once.row(0) == (1, False, 0.1, 0.1, -0.1, 8, 6, 2)
    thrice = alarms_frame(found, (), alarms_frame(found, (), once))
    assert len(set(thrice.columns)) == 18 and thrice["p__"].to_list() == [8, 7]  # the alarms of alarms of alarms


def test_labels_choose_a_score_or_weigh_several(run: Run) -> None:
    new = frame(8, 60)
    new["b"][:12] -= 9
    truth = np.arange(60) < 12
    one = detector(run, labelled=Labelled({k: v[11:40] for k, v in new.items()}, truth[11:40]))
    assert len(one.scorer.names) == 1 and "1 labelled anomalies" in one.why[0]
    many = detector(run, labelled=Labelled(new, truth))
    test = frame(9, 80)
    test["b"][:20] -= 9
    scores = many.score(rows_of(run, test)[0])
    assert roc_auc_score(np.arange(80) < 20, scores) > 0.95
    usual = p_values(many.calibration, many.score(rows_of(run, frame(10, 400))[0]))
    assert abs((usual <= 0.2).mean() - 0.2) < 0.12  # weighing leaves p-values what they are


def test_weighed_scores_are_their_sum(run: Run) -> None:
    from vaestro.uses.detect.labels import _weighed

    rng = np.random.default_rng(0)
    truth = np.arange(200) >= 180
    useless, half = rng.normal(size=200), rng.normal(size=200) + 2 * truth
    other = rng.normal(size=200) + 2 * truth
    scorer, area = _weighed({"kl": useless, "elbo": half, "likelihood": other}, truth, 150)
    each = np.stack([useless, half, other], 1)
    by_hand = sum(w * np.arcsinh((s - c) / k) for w, s, c, k in zip(scorer.weights, each.T, scorer.centres, scorer.scales, strict=True))
    np.testing.assert_allclose(scorer.features(each) @ np.array(scorer.weights), by_hand)
    assert area > max(roc_auc_score(truth, s) for s in each.T) and abs(scorer.weights[0]) < min(scorer.weights[1:]) and " + " in scorer.name


@pytest.mark.parametrize(
    ("labels", "words"),
    [([0] * 5, "no labelled row is an anomaly"), ([1] * 4, "one truth a row"), ([0, 1, 2, 0, 0], "0 or 1"), ([0, 1, math.nan, 0, 0], "0 or 1")],
)
def test_labels_that_are_none(run: Run, labels: list[float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        detect(run, frame(1, 5), labelled=(frame(2, 5), labels))


def _without(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda rows: {k: v for k, v in rows.items() if k != name}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without("b"), "no column 'b'"),
        (lambda r: {("bb" if k == "b" else k): v for k, v in r.items()}, "no column 'b'.*did you mean bb"),
        (lambda r: r | {"kind": ["z"] * 5}, "no category 'z'"),
        (lambda r: r | {"a": [math.inf] * 5}, "'a' is inf"),
        (lambda r: {k: v[:0] for k, v in r.items()}, "no rows"),
        (lambda r: r | {"a": ["word"] * 5}, "'a' holds numbers"),
    ],
)
def test_rows_that_do_not_fit(run: Run, change: Callable[[dict[str, Any]], dict[str, Any]], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        detect(run, change(frame(1, 5)))


def test_further_columns_and_gaps_are_noted(run: Run, by: Detector) -> None:
    found = detect(run, frame(1, 3) | {"more": [1, 2, 3], "a": [None, 1.0, 2.0]}, 0.1, "elbo")
    assert any("'more'" in n for n in found.notes) and np.isfinite(found.scores).all()
    blank = detected(by, torch.full((1, 4), math.nan), 0.1)
    assert any("no entry that was seen" in n for n in blank.notes) and len(blank.scores) == 1


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (np.zeros((3, 4)), "shaped"),
        (np.zeros((0, 5)), "no rows"),
        (torch.zeros(5), "shaped"),
        (torch.tensor([[0.0] * 5, [math.nan] * 5]), "row 1 holds a value that is not finite"),
        ([], "one path or more"),
        (3.0, "a float holds no rows"),
        ("none.npy", "there is no file none.npy"),
    ],
)
def test_arrays_that_do_not_fit(line: Run, source: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        detect(line, source)


def test_levels_and_labels_of_the_wrong_type_are_refused() -> None:
    for level in ("0.1", None, math.nan, 1.5):
        with pytest.raises(UsageError, match="the rate is .*, and it is a share between 0 and 1"):
            require_level(level, "the rate")
    rows = {"a": [1.0]}
    assert labelled_of(None) is None and labelled_of((rows, [1])) == labelled_of(Labelled(rows, [1])) == Labelled(rows, [1])
    for wrong in (pl.DataFrame(rows), rows, (rows,)):
        with pytest.raises(UsageError, match=r"labelled rows are a pair, and a .* is none; give \(rows, labels\)"):
            labelled_of(wrong)


def test_what_is_refused_in_words(run: Run, line: Run, tmp_path: Path) -> None:
    x = torch.zeros(2, 5)
    for level in (0.0, 1.0, 1.5):
        with pytest.raises(UsageError, match="false-discovery rate is .* between 0 and 1"):
            detect(line, x, level)
    with pytest.raises(UsageError, match="at least 999 are needed"):
        detect(line, x, 0.001, "likelihood")
    with pytest.raises(UsageError, match="did you mean"):
        detect(line, x, score="likelihod")
    with pytest.raises(UsageError, match="labels choose the score"):
        detect(line, x, score="elbo", labelled=(x, [0, 1]))
    with pytest.raises(UsageError, match="cannot calibrate"):
        detector(line, protocol=Protocol("train"))
    with pytest.raises(UsageError, match="two latent sites"):
        detect(line, x, score="hierarchical_ratio")
    digits = from_arrays("few", {"x": RNG.integers(2, size=(90, 1, 8, 8)), "label": np.arange(90) % 3})
    told = vaestro.train("cvae:latents=2,hidden=4", digits, steps=1, out=tmp_path / "told")
    with pytest.raises(UsageError, match="is told label beside x"):
        detect(told, np.zeros((2, 1, 8, 8)))
    gan = vaestro.train("gan:latents=2,hidden=4", digits, steps=1, out=tmp_path / "gan")
    with pytest.raises(UsageError, match="no score of strangeness"):
        detect(gan, np.zeros((2, 1, 8, 8)))


def replace_prior(mean: float) -> nn.Module:
    """The linear-Gaussian model with another prior mean."""
    model = LINE.model(0.0, 1.0)
    model.prior = Law(lambda: Independent(Normal(torch.full((2,), mean, dtype=torch.float64), 1.0, validate_args=False), 1, validate_args=False))
    model.register_parameter("exact", nn.Parameter(torch.zeros(1, dtype=torch.float64)))
    return model


def test_broken_weights_are_named(line: Run) -> None:
    whole = detector(line, "likelihood")
    broken = replace(whole.run, recipe=replace(line.recipe, parts=nn.ModuleDict({"model": replace_prior(math.nan)})))
    with pytest.raises(VaestroError, match="rows 0 to 2"):
        replace(whole, run=broken).score(torch.zeros(3, 5, dtype=torch.float64))


def test_pictures_without_a_density(tmp_path: Path) -> None:
    digits = from_arrays("few", {"x": RNG.integers(2, size=(200, 1, 8, 8))})
    made = vaestro.train("ae:latents=2,hidden=8", digits, steps=5, out=tmp_path / "ae")
    found = detect(made, digits.split("test").arrays["x"])
    assert found.by.scorer.name == "squared_error" and found.by.choice is not None and "likelihood" in found.by.choice.refused


def test_the_command(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    new = pl.DataFrame(frame(11, 150))
    new = new.with_columns(b=pl.when(pl.int_range(pl.len()) < 20).then(pl.col("b") + 15).otherwise(pl.col("b")))
    new.write_csv("new.csv")
    calls, one = CliRunner(), str(run.folder)
    words = ["detect", one, "new.csv", "--fdr", "0.2", "-o", "alarms.csv", "--repair", "2", "--score", "elbo"]
    done = calls.invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "rows are alarms" in done.output and "would be usual with" in done.output
    alarms = pl.read_csv("alarms.csv")
    assert {"row", "alarm", "p", "repair", "a", "kind"} <= set(alarms.columns) and len(alarms) == 150
    assert set(alarms["row"][:10]) <= set(range(20)) and alarms["b"][0] == pytest.approx(new["b"][alarms["row"][0]])
    told = json.loads(calls.invoke(app, [*words, "--json"]).stdout)
    assert told["fdr"] == 0.2 and len(told["repairs"]) == 2 and told["score"] == "elbo"
    done = calls.invoke(app, ["detect", one, "new.csv", "--stream", "--rate", "0.02", "-o", "stream.parquet", "--score", "elbo"])
    assert done.exit_code == 0, done.output
    assert "Drift: an alarm at row" in done.output and pl.read_parquet("stream.parquet")["row"].to_list() == list(range(150))
    new.with_columns(odd=pl.int_range(pl.len()) < 20).write_csv("known.csv")
    done = calls.invoke(app, ["detect", one, "new.csv", "--labelled", "known.csv", "--truth", "odd", "--json"])
    assert done.exit_code == 0, done.output
    for more, words_ in (
        (["--fdr", "1"], "between 0 and 1"),
        (["-o", "alarms.txt"], "written as .csv or .parquet"),
        (["--picture", "p.png"], "are no pictures"),
        (["--labelled", "known.csv"], "no column 'anomaly'"),
        (["--stream", "--rate", "0"], "between 0 and 1"),
        (["--stream", "--rate", "0.05", "--threshold", "1"], "above 1"),
    ):
        wrong = calls.invoke(app, ["detect", one, "new.csv", *more])
        assert wrong.exit_code == 2 and words_ in wrong.output and "Traceback" not in wrong.output, wrong.output
