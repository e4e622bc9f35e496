"""Codes of binary pictures by enumeration, neighbours against scikit-learn, places among usual rows by hand: column by column, and combined."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

import vaestro
from vaestro.core import Batch, Model
from vaestro.data import from_arrays, from_table
from vaestro.data.schema import Binary, Field, Real
from vaestro.errors import UsageError
from vaestro.evaluation.columns import nats_of_entries
from vaestro.evaluation.discrimination import Area
from vaestro.evaluation.metrics import Subject
from vaestro.evaluation.outliers import strangeness
from vaestro.evaluation.outliers.complexity import bits, lengths
from vaestro.evaluation.outliers.contexts import adaptive_bits
from vaestro.evaluation.outliers.placed import shares, tail
from vaestro.testing.linear import LinearGaussian
from vaestro.training.runs import Run
from vaestro.uses.detect import choice
from vaestro.uses.detect.calibrated import USUAL, usual_rows
from vaestro.uses.detect.choice import Choice
from vaestro.uses.detect.scores import subject as of_run
from vaestro.uses.evaluate import Protocol

RNG = np.random.default_rng(0)
LINE = LinearGaussian()
FIELD = Field("x", Real(), (5,))


def subject(model: Model, x: Tensor, field: Field = FIELD) -> Subject:
    def rows() -> Iterator[Batch]:
        return ({"x": part} for part in x.split(7))

    return Subject(model, rows, field, samples=50)


def by_definition(picture: np.ndarray) -> float:
    """The bits of one channel [H, W], pixel by pixel."""
    seen: dict[tuple[int, ...], list[float]] = {}
    total = 0.0
    for y, x in np.ndindex(*picture.shape):
        places = ((y, x - 1), (y - 1, x), (y - 1, x - 1), (y - 1, x + 1))
        context = tuple(int(picture[p]) if p[0] >= 0 and 0 <= p[1] < picture.shape[1] else 0 for p in places)
        counts = seen.setdefault(context, [0.5, 0.5])
        total -= math.log2(counts[picture[y, x]] / sum(counts))
        counts[picture[y, x]] += 1
    return total


def test_adaptive_bits_are_those_of_the_definition() -> None:
    x = RNG.integers(2, size=(6, 2, 5, 7)).astype(np.uint8)
    x[0], x[1, :, :, ::2] = 0, 1
    np.testing.assert_allclose(adaptive_bits(x), [sum(map(by_definition, row)) for row in x])
    assert adaptive_bits(np.zeros((1, 1, 1, 1), np.uint8)) == [1.0] and adaptive_bits(x[:0]).shape == (0,)
    np.testing.assert_array_equal(adaptive_bits(np.repeat(x, 500, 0))[::500], adaptive_bits(x))  # in parts


@pytest.mark.parametrize("shape", [(1, 3, 3), (2, 2, 2), (1, 1, 8)])
def test_adaptive_bits_are_a_code(shape: tuple[int, ...]) -> None:
    """The probabilities of all pictures sum to 1 (Kraft's sum is not beaten)."""
    every = np.array(list(itertools.product((0, 1), repeat=math.prod(shape))), np.uint8).reshape(-1, *shape)
    assert np.exp2(-adaptive_bits(every)).sum() == pytest.approx(1.0)


def test_simple_pictures_have_short_codes_and_small_ones_no_header() -> None:
    flat, noise = np.zeros((1, 1, 28, 28), np.uint8), RNG.integers(2, size=(1, 1, 28, 28)).astype(np.uint8)
    disc = (np.hypot(*(np.mgrid[:28, :28] - 13.5)) < 9).astype(np.uint8)[None, None]
    field = Field("x", Binary(), (1, 28, 28))
    short, middle, long = (float(adaptive_bits(v)[0]) for v in (flat, disc, noise))
    assert short < 10 < middle < 250 < 784 < long < 900
    assert middle < 0.6 * bits(disc[0], field) and lengths(disc, field) == [middle] and lengths(flat, field) == [short]


def test_neighbours_are_scikit_learns() -> None:
    x, usual = LINE.evidence.sample((30,)), LINE.evidence.sample((40,))
    a, b = subject(LINE.right, x), subject(LINE.right, usual)
    codes = [LINE.right.posterior(v).mean.detach().numpy() for v in (x, usual)]
    near = NearestNeighbors(n_neighbors=6).fit(codes[1])
    np.testing.assert_allclose(strangeness("neighbours", a, b), near.kneighbors(codes[0])[0][:, 4], rtol=1e-9)
    np.testing.assert_allclose(strangeness("neighbours", b, b), near.kneighbors(codes[1])[0][:, 5], rtol=1e-9)  # a row is not its own neighbour
    few = subject(LINE.right, usual[:3])
    np.testing.assert_allclose(strangeness("neighbours", a, few), np.linalg.norm(codes[0][:, None] - codes[1][:3], axis=2).max(1), rtol=1e-9)
    one = subject(LINE.right, usual[:1])
    with pytest.raises(UsageError, match="no usual rows beside this one"):
        strangeness("neighbours", one, one)


def test_a_tail_is_a_share_and_beyond_it_a_law() -> None:
    usual = RNG.permutation(np.arange(200.0))
    inside = np.array([-1.0, 0.0, 50.5, 99.0, 180.0])
    np.testing.assert_allclose(tail(usual, inside), [-math.log(((usual > s).sum() + 0.5 * (usual == s).sum() + 0.5) / 201) for s in inside])
    u, share = 0.95 * 199, 10.5 / 201  # ten lie above, by 0.95 to 9.95
    half = np.median(np.arange(190, 200) - u)
    beyond = np.array([u, 195.0, 199.0, 500.0, 1e6])
    np.testing.assert_allclose(tail(usual, beyond), -np.log(share / (1 + (beyond - u) / half)))
    many = np.random.default_rng(1).standard_cauchy(4000)  # whose tail is such a law
    p = np.exp(-tail(many, np.random.default_rng(2).standard_cauchy(4000)))
    assert stats.kstest(p, "uniform").statistic < 0.03
    strange = tail(usual, np.array([1e6, math.inf, -math.inf]))
    assert np.isfinite(strange).all() and strange[1] > strange[0] and strange[2] == strange.min()
    same = tail(np.full(50, 3.0), np.array([2.0, 3.0, 3.0 + 1e-12, 4.0]))
    assert (np.diff(same) >= 0).all() and same[2] - same[1] < 4 and same[3] > same[2] + 5
    np.testing.assert_allclose(tail(7 * usual - 3, 7 * beyond - 3), tail(usual, beyond))  # whatever the unit


def test_combined_is_the_harmonic_mean_of_the_p_values() -> None:
    """Rows far out on the plane of the model are explained, and their codes are far from all others; the exact density of the model finds neither alone."""
    usual = LINE.evidence.sample((400,))
    plane = LINE.W @ torch.tensor([4.0, 4.0], dtype=torch.float64)
    x = torch.cat([LINE.evidence.sample((60,)), LINE.evidence.sample((20,)) + plane])
    a, b = subject(LINE.right, x), subject(LINE.right, usual)
    found = strangeness("combined", a, b)
    p = [np.exp(-tail(strangeness(n, b, b), strangeness(n, a, b))) for n in ("elbo", "neighbours")]  # real numbers have no code, and are no table
    np.testing.assert_allclose(found, -np.log(stats.hmean(p)))
    assert roc_auc_score(np.arange(80) >= 60, found) > 0.95
    alone = strangeness("combined", subject(LINE.right, x[-1:]), b)
    np.testing.assert_allclose(alone, found[-1:], atol=0.1)  # a row's place does not depend on the others


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Run:
    rng = np.random.default_rng(0)
    a = rng.normal(size=900)
    rows = {"a": a, "b": a + 0.2 * rng.standard_cauchy(900), "kind": np.where(rng.random(900) < 0.9, "x", "y").tolist()}
    with pytest.MonkeyPatch.context() as m:
        m.setenv("VAESTRO_CACHE", str(tmp_path_factory.mktemp("cache")))
        data = from_table(rows, {"a": "real", "b": "real"})
    return vaestro.train("vae:latents=2,hidden=16", data, steps=60, out=tmp_path_factory.mktemp("run") / "table")


def test_columns_are_placed_one_by_one(table: Run) -> None:
    data = table.data()
    x, known = (torch.from_numpy(np.array(data.split(s).arrays["x"])) for s in ("test", "train"))
    x[0, 1], x[1, 0], x[2] = 1e4, math.nan, math.nan
    rows, usual = of_run(table, x, Protocol(samples=5)), of_run(table, known, Protocol(samples=5))
    now, before = nats_of_entries(rows), nats_of_entries(usual)
    assert now is not None and before is not None
    found = strangeness("columns", rows, usual)
    n = len(before)
    by_hand = np.zeros(len(now))
    for i, c in np.ndindex(*now.shape):
        p = ((before[:, c] > now[i, c]).sum() + 0.5 * (before[:, c] == now[i, c]).sum() + 0.5) / (n + 1)
        by_hand[i] += 1.0 if math.isnan(now[i, c]) else -math.log(p)
    np.testing.assert_allclose(found, by_hand)
    assert found[2] == 3.0 and found[0] < 3 * math.log(2 * (n + 1)) < strangeness("reconstruction", rows, usual)[0]  # one far entry cannot drown the others
    assert shares(np.zeros(0), np.zeros(2)).tolist() == [0.5, 0.5]
    combined = strangeness("combined", rows, usual)
    p = [np.exp(-tail(strangeness(m, usual, usual), strangeness(m, rows, usual))) for m in ("elbo", "neighbours", "columns")]
    np.testing.assert_allclose(combined, -np.log(stats.hmean(p)))


def test_what_is_left_of_a_model_that_cannot_bear_two(tmp_path: Path) -> None:
    digits = from_arrays("few", {"x": RNG.integers(2, size=(120, 1, 8, 8))})
    codes = vaestro.train("vq_vae:codes=4,dimension=2", digits, steps=2, out=tmp_path / "codes")
    x = torch.from_numpy(np.asarray(digits.split("test").arrays["x"])).float()
    rows = of_run(codes, x, Protocol())
    with pytest.raises(UsageError, match="numbers of entries, which have no distance"):
        strangeness("neighbours", rows, rows)
    with pytest.raises(UsageError, match="its rows are no table"):
        strangeness("columns", rows, rows)
    plain = vaestro.train("ae:latents=2,hidden=8", digits, steps=2, out=tmp_path / "plain")
    rows = of_run(plain, x, Protocol())
    with pytest.raises(UsageError, match="two or more of elbo, neighbours, columns, complexity, and there are 1"):
        strangeness("combined", rows, rows)


def test_a_choice_of_the_combined_score_says_why() -> None:
    area = {"noise": Area(0.95, 0.01, 0.93, 0.97)}
    made = Choice("combined", {"elbo": area, "combined": {"noise": Area(0.945, 0.01, 0.92, 0.96)}}, 50)
    assert "not clearly above it and blind to more kinds" in made.why[1]


def test_the_combined_score_is_taken_unless_another_is_clearly_better(table: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is less than three standard errors better gives way to it, more does not, and without it the cheapest of the best is taken."""
    good, usual = torch.from_numpy(np.array(table.data().split("validation").arrays["x"])), usual_rows(table, USUAL)

    def by(better: float, without: str = "") -> str:
        told = {n: v for n, v in {"elbo": 0.8 + better, "likelihood": 0.81 + better, "combined": 0.8, "kl": 0.5}.items() if n != without}
        areas = {n: {"noise": Area(v, 0.02, v - 0.04, v + 0.04)} for n, v in told.items()}
        monkeypatch.setattr(choice, "_tried", lambda names, *rest: ({n: areas[n] for n in names if n in areas}, {}))
        return choice.choose(table, good, usual, USUAL).score

    assert by(0.01) == "combined" and by(0.04) == "combined" and by(0.06) == "elbo"
    assert by(0.01, "combined") == "elbo"
