"""Intervals cover, differences are paired, ranks follow Holm."""

import time

import numpy as np
import pytest
from scipy import stats

from vaestro.errors import UsageError
from vaestro.evaluation import intervals
from vaestro.evaluation.intervals import detectable, holm, of_recipe, of_rows, of_values, p_values, pairwise, pairwise_values, ranks, recipe, values


def crossed(rng: np.random.Generator, shape: tuple[int, int, int], share: float, rest: float = 1.0) -> np.ndarray:
    """Scores [worlds, seeds, rows] of mean 2: `share` is what seeds bring to the variance of the mean."""
    n, s, r = shape
    rows = 1 / r + rest / (s * r)
    seed = s * rows * share / (1 - share)
    normal = rng.normal
    return 2 + np.sqrt(seed) * normal(size=(n, s, 1)) + normal(size=(n, 1, r)) + np.sqrt(rest) * normal(size=(n, s, r))


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.97])
def test_recipes_are_covered(seeds: int, share: float) -> None:
    """Small, equal and large variance of seeds: 93 to 97 %, three seeds at least 92 %."""
    rng = np.random.default_rng(1)
    covered = np.concatenate([recipe(crossed(rng, (1500, seeds, 120), share)).covers(2.0) for _ in range(4)])
    least = 0.92 if seeds == 3 else 0.93
    assert least - 0.004 <= covered.mean() <= 0.974  # 0.004: more than one standard error of 6,000 worlds


@pytest.mark.parametrize(("seeds", "least"), [(3, 0.92), (5, 0.935), (10, 0.94)])
@pytest.mark.parametrize("rest", [0.2, 5.0])
def test_recipes_are_covered_wherever_the_share_of_seeds_lies(seeds: int, least: float, rest: float) -> None:
    """The mean squares of a thousand rows are chi-squares, so that 60,000 worlds cost nothing; the worst share lies near nine tenths."""
    rng, rows, worlds = np.random.default_rng(seeds), 1000, 60_000
    for share in (0.0, 0.25, 0.5, 0.75, 0.85, 0.9, 0.95, 0.99):
        seed = seeds * (1 / rows + rest / (seeds * rows)) * share / (1 - share)
        free = np.array([seeds - 1, rows - 1, (seeds - 1) * (rows - 1)])
        squares = rng.chisquare(free, (worlds, 3)) * np.array([rest + rows * seed, rest + seeds, rest])
        variance, df = intervals._crossed(*squares.T, (seeds, rows))
        mean = rng.normal(size=worlds) * np.sqrt(seed / seeds + 1 / rows + rest / (seeds * rows))
        covered = intervals.Estimate(mean, np.asarray(variance), np.asarray(df), seeds).covers(0.0).mean()
        assert least - 0.002 <= covered <= 0.965, share


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_differences_are_covered(seeds: int) -> None:
    rng = np.random.default_rng(2)
    covered = []
    for _ in range(2500):
        common = rng.normal(size=(1, 1, 80)) * 10
        scores = common + crossed(rng, (2, seeds, 80), 0.4)
        covered.append(pairwise(scores).covers(0.0)[0, 1])
    assert (0.92 if seeds == 3 else 0.93) - 0.005 <= np.mean(covered) <= 0.975


def anova(y: np.ndarray) -> tuple[float, float]:
    s, r = y.shape
    a = r * ((y.mean(1) - y.mean()) ** 2).sum() / (s - 1)
    b = s * ((y.mean(0) - y.mean()) ** 2).sum() / (r - 1)
    e = ((y - y.mean(1, keepdims=True) - y.mean(0) + y.mean()) ** 2).sum() / ((s - 1) * (r - 1))
    v = a + max(b - e, 0)
    return v / (s * r), max(v**2 / (a**2 / (s - 1) + b**2 / (r - 1) + e**2 / ((s - 1) * (r - 1))), s - 1)


def test_recipe_is_the_textbook_analysis_of_variance() -> None:
    y = crossed(np.random.default_rng(3), (1, 4, 30), 0.3)[0]
    variance, df = anova(y)
    found = of_recipe(y, 0.9)
    assert (found.error**2, found.df, found.mean) == (pytest.approx(variance), pytest.approx(df), pytest.approx(y.mean()))
    assert found.high - found.mean == pytest.approx(stats.t.ppf(0.95, df) * np.sqrt(variance))
    assert found.seeds == 4 and not found.these_runs_only and found.level == 0.9


def test_one_run_is_a_t_interval_over_rows() -> None:
    y = np.random.default_rng(4).normal(size=40)
    found = of_rows(y)
    low, high = stats.t.interval(0.95, 39, y.mean(), stats.sem(y))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.these_runs_only


def test_two_seeds_speak_of_these_runs_only() -> None:
    y = np.random.default_rng(5).normal(size=(2, 40)) + np.array([[0.0], [100.0]])
    found = of_recipe(y)
    assert found.these_runs_only and found.error == pytest.approx(stats.sem(y.mean(0)))
    assert ranks(pairwise(np.stack([y, y + 1]))).these_runs_only
    assert not ranks(pairwise(np.random.default_rng(0).normal(size=(2, 3, 9)))).these_runs_only


@pytest.mark.parametrize("seeds", [1, 2, 3, 6])
def test_pairwise_is_recipe_of_the_differences(seeds: int) -> None:
    y = 1e3 * np.random.default_rng(6).normal(size=(1, 1, 50)) + np.random.default_rng(7).normal(size=(4, seeds, 50))
    every = pairwise(y)
    for i in range(4):
        for j in range(4):
            one = recipe(y[i] - y[j])
            assert every.mean[i, j] == pytest.approx(float(one.mean), abs=1e-9)
            assert every.variance[i, j] == pytest.approx(float(one.variance), rel=1e-6, abs=1e-15)
            if i != j:
                assert every.df[i, j] == pytest.approx(float(one.df), rel=1e-5)


@pytest.mark.parametrize("astray", [1e6, 1e9, 1e12])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_entry_that_has_gone_astray_does_not_blur_the_others(astray: float, place: int) -> None:
    """Nor does one that says the same of all rows."""
    rng = np.random.default_rng(16)
    y = 10 * rng.normal(size=(1, 3, 60)) + rng.normal(size=(4, 3, 60)) * np.array([1.0, 1.0, 1.0, 0.0])[:, None, None]
    y[3] = 7.0
    y[place] = astray * rng.normal(size=(3, 60))
    every, sound = pairwise(y), [i for i in range(3) if i != place]
    one = recipe(y[sound[0]] - y[sound[1]])
    found = (every.variance[sound[0], sound[1]], every.df[sound[0], sound[1]])
    assert found == pytest.approx((float(one.variance), float(one.df)), rel=1e-6)


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("apart", [1e-5, 1e-8, 1e-11])
def test_two_of_the_same_model_differ_by_rounding_alone(seeds: int, apart: float) -> None:
    """Their difference has its own error, not that of 1e5 less 1e5, which is often nought and made one of them significantly better."""
    rng = np.random.default_rng(17)
    y = 80 + rng.normal(size=(4, seeds, 400)) * np.array([10.0, 10.0, 15.0, 20.0])[:, None, None]
    y[1] = y[0] + apart * rng.normal(size=(seeds, 400))
    every, one = pairwise(y), recipe(y[0] - y[1])
    assert (every.variance[0, 1], every.df[0, 1]) == pytest.approx((float(one.variance), float(one.df)), rel=0.02)
    assert ranks(every).rank[:2].tolist() == [1, 1]


def test_pairing_removes_what_rows_share() -> None:
    rng = np.random.default_rng(8)
    y = 50 * rng.normal(size=(1, 1, 400)) + rng.normal(size=(2, 3, 400)) + np.array([0.0, 1.0])[:, None, None]
    assert recipe(y[0]).error > 1 > 10 * pairwise(y).error[0, 1]
    assert ranks(pairwise(y)).rank.tolist() == [1, 2]


def test_holm_by_hand_and_by_definition() -> None:
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.5, 0.9])), [1.0, 1.0])
    np.testing.assert_allclose(holm(np.array([])), [])
    p = np.random.default_rng(9).uniform(size=12) ** 3
    for alpha in (0.01, 0.05, 0.3):
        rejected = np.zeros(12, bool)
        for i, k in enumerate(np.argsort(p)):
            if p[k] > alpha / (12 - i):
                break
            rejected[k] = True
        assert ((holm(p) <= alpha) == rejected).all()


def test_families_of_equal_entries_seldom_differ() -> None:
    rng = np.random.default_rng(10)
    wrong = [(ranks(pairwise(rng.normal(size=(6, 5, 60)) + 3 * rng.normal(size=(1, 1, 60)))).rank > 1).any() for _ in range(500)]
    assert np.mean(wrong) < 0.08


def test_ranks_are_not_transitive_and_have_intervals() -> None:
    """A and B, and B and C, cannot be told apart; A and C can."""
    means, error = np.array([0.0, 2.0, 4.0]), 1.0
    found = ranks(intervals.Estimate(means[:, None] - means, np.full((3, 3), error), np.full((3, 3), 1000.0), 3))
    assert found.rank.tolist() == [1, 1, 2]
    assert found.low.tolist() == [1, 1, 2] and found.high.tolist() == [2, 3, 3]
    assert found.better.tolist() == [[False, False, True], [False] * 3, [False] * 3]
    assert found.p[0, 2] == pytest.approx(3 * 2 * stats.t.sf(4, 1000)) and found.p[2, 0] == found.p[0, 2]


def test_less_is_better_and_equal_entries_share_a_rank() -> None:
    rng = np.random.default_rng(11)
    y = rng.normal(size=(1, 3, 200)) * 0.1 + np.array([3.0, 1.0, 2.0])[:, None, None] + 0.01 * rng.normal(size=(3, 3, 200))
    assert ranks(pairwise(y)).rank.tolist() == [3, 1, 2]
    same = np.stack([y[0], y[0]])
    assert ranks(pairwise(same)).rank.tolist() == [1, 1] and p_values(pairwise(same))[0, 1] == 1
    apart = np.stack([y[0], y[0] + 1])  # no noise in the difference at all
    assert ranks(pairwise(apart)).rank.tolist() == [1, 2]
    alone = ranks(pairwise(y[:1]))
    assert alone.rank.tolist() == [1] and alone.high.tolist() == [1] and np.isnan(alone.detectable)


def test_what_can_be_detected_is_detected_four_times_in_five() -> None:
    rng = np.random.default_rng(12)
    noise = lambda: rng.normal(size=(2, 5, 60))  # noqa: E731
    size = np.mean([detectable(pairwise(noise())) for _ in range(200)])
    found = [ranks(pairwise(noise() + np.array([0.0, size])[:, None, None])).rank.tolist() == [1, 2] for _ in range(600)]
    assert 0.7 < np.mean(found) < 0.92


def test_values_with_errors_are_covered_where_the_error_is_shared() -> None:
    rng = np.random.default_rng(13)
    for spread in (0.1, 1.0, 5.0):
        shared = rng.normal(size=(6000, 1))
        v = 7 + shared + spread * rng.normal(size=(6000, 3))
        errors = np.sqrt(rng.chisquare(9, size=(6000, 1)) / 9).repeat(3, 1)
        assert 0.92 <= values(v, errors).covers(7.0).mean() <= 0.975
    one = of_values(np.array([2.0]), np.array([0.5]))
    assert one.these_runs_only and one.error == 0.5
    three = of_values(np.array([1.0, 2.0, 3.0]), np.array([0.3, 0.3, 0.3]))
    assert three.error**2 == pytest.approx(1 / 3 + 0.09) and three.mean == 2


def test_an_error_that_is_not_known_is_no_certainty() -> None:
    scores, unknown = np.array([[1.0, 1.1], [3.0, 3.2]]), np.array([[np.nan, 0.1], [0.1, 0.1]])
    assert p_values(pairwise_values(scores, unknown)).tolist() == [[1, 1], [1, 1]]
    found = ranks(pairwise_values(scores, unknown))
    assert found.rank.tolist() == [1, 1] and found.high.tolist() == [2, 2] and np.isinf(found.detectable)
    assert of_values(np.array([1.0, 1.1]), np.array([np.nan, 0.1])).high == np.inf
    three = np.array([1.0, 1.1, 1.3])
    assert of_values(three, np.full(3, np.nan)) == of_values(three, np.zeros(3))
    assert of_values(three, np.array([0.5, np.nan, 0.5])) == of_values(three, np.full(3, 0.5))


def test_pairwise_values_by_hand() -> None:
    v, e = np.array([[1.0, 2.0, 3.0], [2.0, 2.5, 4.5]]), np.full((2, 3), 0.1)
    found = pairwise_values(v, e)
    d = v[0] - v[1]
    assert found.mean[0, 1] == pytest.approx(d.mean()) and found.mean[1, 0] == pytest.approx(-d.mean())
    assert found.variance[0, 1] == pytest.approx(d.var(ddof=1) / 3 + 0.02)


def test_a_large_board_is_quick() -> None:
    scores = np.random.default_rng(14).normal(size=(50, 1, 100_000))
    start = time.perf_counter()
    found = ranks(pairwise(scores))
    assert time.perf_counter() - start < 5
    assert found.rank.shape == (50,)


def test_what_has_no_interval_is_refused_in_words() -> None:
    for function in (recipe, lambda y: pairwise(y[None])):
        with pytest.raises(UsageError, match="at least 2 rows"):
            function(np.zeros((3, 1)))
        with pytest.raises(UsageError, match="not finite"):
            function(np.array([[0.0, np.nan], [1.0, 2.0], [1.0, 2.0]]))
    with pytest.raises(UsageError, match="not finite"):
        of_values(np.array([1.0, np.inf, 1.0]), np.ones(3))
    still = of_recipe(np.ones((3, 5)))
    assert (still.low, still.high) == (1.0, 1.0)
