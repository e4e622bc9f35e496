"""Classes from latents: calibrated probes, the nearest known class and the unknown, extra rows and whether they help; characters no training saw."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, log_loss
from typer.testing import CliRunner

import vaestro
from vaestro.cli.app import app
from vaestro.data import from_arrays, from_table
from vaestro.data.fetch import Origin
from vaestro.data.hanzi import SIDE, drawn, hanzi, outline, writings, written
from vaestro.data.schema import Binary, Category, Count, Counted, Integer, Measured, Named, Real, Table
from vaestro.errors import UsageError
from vaestro.evaluation.conformal import ranked as p_values
from vaestro.evaluation.sure import Sure
from vaestro.training.runs import Run
from vaestro.uses import augment as augmenting
from vaestro.uses.augment import JUDGES, Augmenting, Line, augment, write_rows
from vaestro.uses.classify import CLASSIFIERS, Probing, classified, classify
from vaestro.uses.cluster import CLUSTERINGS
from vaestro.uses.embed import READINGS, codes, levelled
from vaestro.uses.extra import MAKERS, Ask
from vaestro.uses.plot import PROJECTIONS
from vaestro.uses.recognise import MEASURES, Episodes, Recognising, few_shot, halves, recognise
from vaestro.uses.rows.legal import legal
from vaestro.uses.rows.lots import Wish, lot


def bars(seed: int, rows: int = 240, shares: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3), flip: float = 0.05) -> dict[str, np.ndarray]:
    """Binary 1x6x6 pictures of three classes: the lit third of the rows, each pixel flipped with probability `flip`."""
    rng = np.random.default_rng(seed)
    label = rng.choice(3, rows, p=shares)
    x = np.zeros((rows, 1, 6, 6), np.uint8)
    for i, c in enumerate(label):
        x[i, 0, 2 * c : 2 * c + 2] = 1
    return {"x": x ^ (rng.random(x.shape) < flip), "label": label.astype(np.uint8)}


@pytest.fixture(scope="module")
def data() -> Any:
    return from_arrays("bars", bars(0), {"x": Binary(), "label": Category(3, ("top", "middle", "bottom"))})


@pytest.fixture(scope="module")
def run(data: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return vaestro.train("vae:latents=3,hidden=16", data, steps=150, out=tmp_path_factory.mktemp("run") / "bars")


@pytest.fixture(scope="module")
def semi(data: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return vaestro.train("m2:labels=30,latents=2,hidden=16", data, steps=30, out=tmp_path_factory.mktemp("run") / "m2")


def call(*words: object) -> Any:
    return CliRunner().invoke(app, [str(w) for w in words])


# classify


def test_a_probe_is_logistic_regression_at_the_temperature_that_left_out_folds_like_best() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=300)
    z = np.eye(3)[labels] + rng.normal(size=(300, 3))
    theirs = LogisticRegression(max_iter=5000, tol=1e-3).fit(z[:60], labels[:60])
    p = CLASSIFIERS["linear"](z[:60], labels[:60], 0)(z[60:])
    np.testing.assert_allclose(p.sum(1), 1)
    assert np.array_equal(p.argmax(1), theirs.predict(z[60:]))  # a temperature changes no order
    scores, logs = theirs.decision_function(z[60:]), np.log(p)
    ratio = (logs[:, 0] - logs[:, 1]) / (scores[:, 0] - scores[:, 1])
    np.testing.assert_allclose(ratio, ratio[0])
    two = CLASSIFIERS["linear"](z[:60], (labels[:60] > 0).astype(int), 0)(z[60:])
    assert two.shape == (240, 2) and np.allclose(two.sum(1), 1)
    alone = CLASSIFIERS["linear"](z[:3], np.array([0, 1, 2]), 0)(z[60:])  # a label a class: no folds, temperature 1
    np.testing.assert_allclose(alone, LogisticRegression(max_iter=5000, tol=1e-3).fit(z[:3], [0, 1, 2]).predict_proba(z[60:]), atol=1e-6)


def test_calibration_lowers_the_loss_of_an_overconfident_classifier() -> None:
    rng, gains = np.random.default_rng(1), []
    for _ in range(8):
        labels = rng.integers(2, size=640)
        z = np.concatenate([labels[:, None] + rng.normal(size=(640, 1)), rng.normal(size=(640, 60))], 1) * 3  # far more numbers than labels tell apart
        ours = CLASSIFIERS["linear"](z[:40], labels[:40], 0)(z[40:])
        raw = LogisticRegression(max_iter=5000).fit(z[:40], labels[:40]).predict_proba(z[40:])
        gains.append(log_loss(labels[40:], raw) - log_loss(labels[40:], ours))
    assert np.mean(gains) > 3 * np.std(gains) / np.sqrt(8) > 0


def test_neighbours_count_each_class_once_more() -> None:
    z, labels = np.arange(12.0)[:, None], np.repeat([0, 1], 6)
    p = CLASSIFIERS["knn"](z, labels, 0)(np.array([[0.0]]))
    np.testing.assert_allclose(p, [[7 / 8, 1 / 8]])  # 6 neighbours, as many as a class has
    alone = CLASSIFIERS["knn"](z[[0, -1]], np.array([0, 1]), 0)(np.array([[9.0]]))
    np.testing.assert_allclose(alone, [[1 / 3, 2 / 3]])


def test_many_and_few_labels(run: Run, tmp_path: Path) -> None:
    train, test = lot(run, None, Wish("train")), lot(run)
    z, held = levelled(codes(run, train), codes(run, test))
    every = classified(run)
    np.testing.assert_allclose(every.probabilities, CLASSIFIERS["linear"](z, train.labelled(), 0)(held), atol=1e-9)
    assert every.by == "linear" and every.labels == train.size and every.accuracy is not None and every.log_loss is not None
    assert every.accuracy.value == (every.predicted == test.labelled()).mean() > 0.8
    assert every.log_loss.value == pytest.approx(log_loss(test.labelled(), every.probabilities))
    few = classified(run, how=Probing(labels=6, draws=4))
    assert few.accuracy is not None and few.accuracy.low < few.accuracy.value <= few.accuracy.high <= 1
    assert np.array_equal(classified(run, how=Probing(labels=6, draws=4)).probabilities, few.probabilities)
    every.write(tmp_path / "p.csv")
    frame = pl.read_csv(tmp_path / "p.csv")
    assert frame.columns == ["row", "predicted", "p_top", "p_middle", "p_bottom", "label"]
    assert frame["predicted"].to_list() == [every.classes[i] for i in every.predicted]
    bare = classified(run, np.zeros((1, 1, 6, 6), np.uint8), Probing(labels=6))
    assert bare.accuracy is None and bare.probabilities.shape == (1, 3)


def test_a_model_with_classes_says_them_itself(semi: Run) -> None:
    made = classified(semi)
    x = torch.cat([b["x"] for b in lot(semi).batches()])  # type: ignore[misc]
    np.testing.assert_allclose(made.probabilities, classify(semi, x).numpy(), atol=1e-6)
    assert made.by == "own" and made.labels is None and made.classes == ("top", "middle", "bottom")
    with pytest.raises(UsageError, match="its own labels"):
        classified(semi, how=Probing(labels=10))
    assert classified(semi, how=Probing("linear", 9, 2)).by == "linear"


def test_labels_that_make_no_classifier_are_refused(run: Run, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for how, words in (
        (Probing(labels=2), "fewer than the 3 classes"),
        (Probing(labels=9999), "more than the"),
        (Probing("svm"), "no classifier"),
        (Probing(draws=0), "draws"),
    ):
        with pytest.raises(UsageError, match=words):
            classified(run, how=how)
    bare = from_arrays("bare", {"x": bars(0)["x"]})
    with pytest.raises(UsageError, match="no labels"):
        classified(vaestro.train("vae:latents=2,hidden=4", bare, steps=1, out=tmp_path / "bare"))
    one = from_arrays("one", bars(0) | {"label": np.zeros(240, np.uint8)}, {"x": Binary(), "label": Category(2)})
    with pytest.raises(UsageError, match="one class"):
        classified(vaestro.train("vae:latents=2,hidden=4", one, steps=1, out=tmp_path / "one"))
    told = vaestro.train("cvae:latents=2,hidden=4", data, steps=1, out=tmp_path / "cvae")
    with pytest.raises(UsageError, match="is told the label"):
        classified(told)
    monkeypatch.setattr("vaestro.uses.classify.codes", lambda run, of: np.ones((of.size, 2)))
    with pytest.raises(UsageError, match="collapsed"):
        classified(run)


def test_classes_that_the_run_never_saw_count_as_wrong(run: Run, tmp_path: Path) -> None:
    raw = bars(3, 40)["x"]
    for i, name in enumerate(["top"] * 20 + ["sideways"] * 20):
        (tmp_path / name).mkdir(exist_ok=True)
        Image.fromarray(raw[i, 0] * 255).save(tmp_path / name / f"{i}.png")
    made = classified(run, tmp_path)
    assert made.accuracy is not None and made.accuracy.value <= 0.5 and "sideways" in made.notes[-1]


# recognise


def test_p_values_are_ranks_and_cover_as_promised() -> None:
    held, found = np.array([3.0, 1.0, 2.0, 2.0]), np.array([0.5, 2.0, 2.5, 9.0])
    np.testing.assert_allclose(p_values(held, found), [(1 + np.sum(held >= f)) / 5 for f in found])
    assert p_values(np.zeros(0), found).tolist() == [1.0] * 4  # nothing can be said without calibration
    rng, rejected = np.random.default_rng(0), 0
    for _ in range(4000):  # one query beside 30 rows of its kind
        rejected += p_values(rng.normal(size=30), rng.normal(size=1))[0] <= 0.1
    assert stats.binomtest(rejected, 4000, 3 / 31).pvalue > 0.001  # floor(0.1 x 31) / 31


def test_distances_are_those_of_their_formulas() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 400)
    spread = np.array([[2.0, 0.6], [0.6, 0.5]])
    z = np.array([[0.0, 0], [3, 3]])[labels] + rng.multivariate_normal([0, 0], spread, 800)
    middle = np.stack([z[labels == c].mean(0) for c in (0, 1)])
    asked = rng.normal(size=(5, 2))
    np.testing.assert_allclose(MEASURES["euclidean"](z, labels)(asked), np.linalg.norm(asked[:, None] - middle, axis=2))
    within = z - middle[labels]
    inverse = np.linalg.inv(within.T @ within / 798)
    apart = asked[:, None] - middle
    exact = np.sqrt(np.einsum("nci,ij,ncj->nc", apart, inverse, apart))
    np.testing.assert_allclose(MEASURES["mahalanobis"](z, labels)(asked), exact, rtol=0.02)  # shrinkage is slight with 800 rows
    with pytest.raises(UsageError, match="single known row"):
        MEASURES["mahalanobis"](z[:2], np.array([0, 1]))
    flat = np.concatenate([z, np.ones((800, 1))], 1)
    assert np.isfinite(MEASURES["mahalanobis"](flat, labels)(np.ones((1, 3)))).all()


def test_queries_of_known_classes_are_seldom_rejected_and_others_often(run: Run, tmp_path: Path) -> None:
    rows = bars(7, 400)
    known, query = (np.flatnonzero(rows["label"] < 2)[:200], np.arange(260, 400))
    for folder, index in (("gallery", known), ("query", query)):
        for i in index:
            place = tmp_path / folder / ("top", "middle", "odd")[rows["label"][i]]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rows["x"][i, 0] * 255).save(place / f"{i}.png")
    made = recognise(run, tmp_path / "gallery", tmp_path / "query", Recognising(reject=0.1))
    names = np.array(made.rows.classes)[made.rows.labelled()]
    assert made.classes == ("middle", "top") and made.accuracy is not None and made.rejected is not None and made.caught is not None
    assert made.accuracy.value > 0.9 and made.rejected.low <= 0.1 and made.caught.value > made.rejected.high
    assert made.rejected.value == np.mean([said == "unknown" for said, name in zip(made.said, names, strict=True) if name != "odd"])
    made.write(tmp_path / "r.csv")
    assert pl.read_csv(tmp_path / "r.csv")["said"].to_list() == made.said
    few = recognise(run, tmp_path / "gallery", tmp_path / "query", Recognising(shots=1, reject=0.001))
    assert not few.unknown.any() and "so nothing is ever called unknown at a rate of 0.001, which takes 999" in few.notes[-1]
    assert few.lines[0].endswith("0 unknown, as too few rows calibrate for any to be.") and made.lines[0].endswith(" unknown.")
    for how, words in (
        (Recognising(shots=999), "fewer than the 999 shots"),
        (Recognising(reject=1.0), "below 1"),
        (Recognising(by="cosine"), "distance"),
        (Recognising(shots=0), "at least"),
    ):
        with pytest.raises(UsageError, match=words):
            recognise(run, tmp_path / "gallery", tmp_path / "query", how)
    with pytest.raises(UsageError, match="no labels"):
        recognise(run, rows["x"][:5], tmp_path / "query")


def test_halves_share_no_row_and_every_class_is_known() -> None:
    labels = np.array([0, 0, 0, 1, 2, 2])
    inside, rest = halves(labels, None, 0)
    assert sorted([*inside, *rest]) == list(range(6)) and np.bincount(labels[inside]).tolist() == [2, 1, 1]
    assert np.bincount(labels[halves(labels, 1, 0)[0]]).tolist() == [1, 1, 1]


def test_few_shot_episodes_know_planted_classes_and_guess_noise() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(30), 10)
    assert few_shot(10.0 * labels[:, None] + rng.normal(size=(300, 1)) * 0.1, labels, Episodes(5, 1, 3, 20)).value == 1
    chance = few_shot(rng.normal(size=(300, 8)), labels, Episodes(5, 1, 3, 400))
    assert chance.low - 0.02 < 0.2 < chance.high + 0.02 and abs(chance.value - 0.2) < 0.04
    with pytest.raises(UsageError, match="needs 40 classes"):
        few_shot(rng.normal(size=(300, 8)), labels, Episodes(ways=40))


# augment


def test_interpolated_rows_lie_between_a_row_and_a_near_one(run: Run) -> None:
    rng = np.random.default_rng(0)
    table = from_table({"a": rng.normal(size=80), "b": rng.choice(["u", "v"], 80), "label": rng.choice(["no", "yes"], 80)}, {"label": "label"})
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 1.0], [float("nan"), 1.0]])
    made = MAKERS["smote"](Ask(_of(run, table), x, 0, 200, 0)).numpy()
    assert np.nanmin(made[:, 0]) >= 0 and np.nanmax(made[:, 0]) <= 2 and set(np.unique(made[:, 1])) <= {0.0, 1.0}
    assert len(np.unique(made[:, 0])) > 50 and np.array_equal(MAKERS["smote"](Ask(_of(run, table), x, 0, 200, 0)).numpy(), made, equal_nan=True)


def _of(run: Run, table: Any) -> Run:
    """A run of a table in name only, for what reads no more of it than the field."""
    return Run(run.folder, run.about, run.recipe, table.schema)


@pytest.mark.parametrize("by", ["interpolation", "kde", "mixture", "smote", "conditional"])
def test_extra_rows_are_of_their_class(run: Run, semi: Run, by: str) -> None:
    of = semi if by == "conditional" else run
    made = augment(of, "middle", 40, Augmenting(by, "logistic", repeats=1))
    assert made.rows.shape == (40, 1, 6, 6) and set(made.rows.unique().tolist()) <= {0.0, 1.0}
    if by != "conditional":
        assert (made.rows[:, 0, 2:4].mean((1, 2)) > made.rows[:, 0, :2].mean((1, 2))).float().mean() > 0.85
    assert torch.equal(augment(of, 1, 40, Augmenting(by, "logistic", repeats=1)).rows, made.rows)


def test_the_proof_is_a_paired_balanced_accuracy(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[np.ndarray] = []

    def judge(rows: np.ndarray, labels: np.ndarray, held: np.ndarray, seed: int) -> np.ndarray:
        guess = np.random.default_rng(len(rows)).integers(3, size=len(held))
        said.append(guess)
        return guess

    monkeypatch.setattr(augmenting, "JUDGES", {"guess": judge})
    made = augment(run, "top", 5, Augmenting("interpolation", "guess", repeats=1))
    truth = lot(run).labelled()
    wanted = [balanced_accuracy_score(truth, guess) for guess in said]
    assert [made.lines[n].balanced.value for n in ("none", "interpolation", "smote")] == pytest.approx(wanted)
    gain = made.lines["interpolation"].gain
    assert gain is not None and gain.value == pytest.approx(wanted[1] - wanted[0])


def test_verdicts_follow_the_interval() -> None:
    some = Sure(0.5, 0.4, 0.6)
    verdicts = [Line(some, some, Sure(0, low, high)).verdict for low, high in ((0.01, 0.2), (-0.2, 0.005), (-0.1, 0.1), (0.0, 0.0))]
    assert verdicts == ["helped", "did not help", "undecided", "did not help"] and Line(some, some).verdict == ""


def test_extra_rows_help_where_the_class_is_rare_and_the_judge_is_told_so(tmp_path: Path) -> None:
    rare = from_arrays("rare", bars(1, 900, (0.49, 0.503, 0.007), 0.2), {"x": Binary(), "label": Category(3)}, test=bars(2, 300, flip=0.2))
    run = vaestro.train("vae:latents=3,hidden=16", rare, steps=200, out=tmp_path / "rare")
    made = augment(run, 2, 200, Augmenting("interpolation", "forest", repeats=2))
    line = made.lines["interpolation"]
    assert made.verdict == "helped" and line.recall.value > made.lines["none"].recall.value and made.real < 12


def test_what_cannot_be_augmented_is_refused(run: Run, data: Any, tmp_path: Path) -> None:
    for label, n, how, words in (
        ("botom", 5, Augmenting(), "no class 'botom'"),
        (7, 5, Augmenting(), "no class 7"),
        (0, 0, Augmenting(), "at least one"),
        (0, 5, Augmenting("conditional"), "cannot be given a class"),
        (0, 5, Augmenting("gan"), "way to make"),
        (0, 5, Augmenting(judge="svm"), "judge"),
    ):
        with pytest.raises(UsageError, match=words):
            augment(run, label, n, how)
    discrete = vaestro.train("categorical_vae:hidden=4", data, steps=1, out=tmp_path / "d")
    with pytest.raises(UsageError, match="nothing between"):
        augment(discrete, 0, 5, Augmenting("kde", repeats=1))
    alone = bars(0)
    alone["label"][:] = 0
    alone["label"][:1] = 2
    short = from_arrays("short", alone, {"x": Binary(), "label": Category(3)}, test=bars(1, 30))
    with pytest.raises(UsageError, match="at least"):
        augment(vaestro.train("vae:latents=2,hidden=4", short, steps=1, out=tmp_path / "s"), 1, 5)


def test_extra_rows_are_written_as_files_and_folders(run: Run, tmp_path: Path) -> None:
    made = augment(run, "top", 3, Augmenting("smote", "logistic", repeats=1))
    write_rows(tmp_path / "more", made)
    found = sorted((tmp_path / "more").iterdir())
    assert [p.name for p in found] == [f"top-{i:05}.png" for i in range(3)]
    with Image.open(found[0]) as image:
        assert np.array_equal(np.asarray(image), made.rows[0, 0].numpy() * 255)
    write_rows(tmp_path / "more.npy", made)
    assert np.array_equal(np.load(tmp_path / "more.npy"), made.rows.numpy())
    with pytest.raises(UsageError, match="already"):
        augmenting.require_out(tmp_path / "more", run)
    rng = np.random.default_rng(0)
    labels = np.where(np.arange(120) % 6 == 0, "yes", "no")
    table = from_table({"a": rng.normal(size=120) + (labels == "yes"), "b": rng.choice(["u", "v"], 120), "ill": labels}, {"ill": "label"})
    of = vaestro.train("vae:latents=2,hidden=8", table, steps=30, out=tmp_path / "table")
    extra = augment(of, "yes", 4, Augmenting(repeats=1))
    write_rows(tmp_path / "more.csv", extra)
    frame = pl.read_csv(tmp_path / "more.csv")
    assert frame.columns == ["a", "b", "ill"] and frame["ill"].to_list() == ["yes"] * 4 and set(frame["b"]) <= {"u", "v"}


def test_legal_values_are_the_nearest() -> None:
    x = torch.tensor([[-0.3, 0.49, 0.5, 1.7]])
    assert legal(Binary(), x).tolist() == [[0, 0, 1, 1]] and legal(Real(), x) is x and legal(Count(), x).tolist() == [[0, 0, 0, 2]]
    torch.testing.assert_close(legal(Integer(5), x), torch.tensor([[0.0, 0.5, 0.5, 1.0]]))
    table = Table((Measured("a", 0, 1), Counted("b", 0, 1), Named("c", ("u", "v")), Measured("d", 0, 1)))
    assert legal(table, x).tolist() == [[pytest.approx(-0.3), 0, 0, pytest.approx(1.7)]]


# characters


def test_strokes_are_drawn_where_they_are() -> None:
    square = outline("M 256 644 L 768 644 L 768 132 L 256 132 Z")
    np.testing.assert_allclose(square, [[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]])
    wanted = np.zeros((SIDE, SIDE), np.uint8)
    wanted[7:21, 7:21] = 1
    assert np.array_equal(drawn([square])[0], wanted)
    curve = outline("M 0 900 Q 512 900 512 388 C 512 100 300 0 0 0 Z")
    t = 2 / 6
    np.testing.assert_allclose(curve[2], [(2 * t * (1 - t) + t**2) * 0.5, t**2 * 0.5])
    assert np.array_equal(written([square], np.zeros(10))[0], square)
    for wrong in ("M 1 2 A 3 4 5 6", "M 1"):
        with pytest.raises(ValueError, match="path|points|reshape"):
            outline(wrong)
    assert np.array_equal(writings([square], 3), writings([square], 3)) and len(np.unique(writings([square], 3), axis=0)) > 10


def test_no_character_is_in_two_splits(tmp_path: Path) -> None:
    folder = tmp_path / "package"
    folder.mkdir()
    for i in range(12):
        side = 300 + 20 * i
        (folder / f"{chr(0x4E00 + i)}.json").write_text(json.dumps({"strokes": [f"M 100 800 L {side} 800 L {side} 300 L 100 300 Z"]}))
    import tarfile

    archive = tmp_path / "hanzi-writer-data-2.0.1.tgz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(folder, "package")
    origin = Origin("small", {archive.name: hashlib.sha256(archive.read_bytes()).hexdigest()})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))
        for path in (archive, tmp_path):  # the file itself, or a folder that holds it
            raw = hanzi(origin)(path, True, lambda what, share: None)
    seen = [set(labels.tolist()) for _, labels in raw.values()]
    assert sum(map(len, seen)) == 12 == len(set.union(*seen)) and all(x.shape[1:] == (1, 28, 28) for x, _ in raw.values())


# the page


def test_every_named_part_stands_on_the_page() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "uses-latents.md").read_text(encoding="utf-8")
    every = [name for parts in (READINGS, PROJECTIONS, CLUSTERINGS, CLASSIFIERS, MEASURES, MAKERS, JUDGES) for name in parts]
    assert not [name for name in every if f"`{name}`" not in page and f"--by {name}`" not in page and f"--read {name}`" not in page]


# the commands


def test_classify_recognise_and_augment_on_the_command_line(run: Run, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vaestro.training.runs.its_data", lambda about, held: data)  # arrays are kept in no file
    done = call("classify", run.folder, "--labels", 6, "-o", "p.parquet", "--json")
    assert done.exit_code == 0, done.output
    about = json.loads(done.stdout)
    assert about["labels"] == 6 and about["accuracy"]["low"] < about["accuracy"]["high"] and len(pl.read_parquet("p.parquet")) == about["rows"]
    for i, row in enumerate(bars(9, 30)["x"]):
        place = Path("known") / ("a" if row[0, 0].mean() > 0.5 else "b")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(row[0] * 255).save(place / f"{i}.png")
    done = call("recognise", run.folder, "known", "known", "--reject", "0.2", "-o", "r.csv")
    assert done.exit_code == 0 and "called unknown" in done.stdout and Path("r.csv").is_file(), done.output
    done = call("augment", run.folder, "--class", "top", "-n", 5, "--judge", "logistic", "--repeats", 2, "-o", "more")
    assert done.exit_code == 0 and any(v in done.stdout for v in ("helped", "did not help", "undecided")) and len(list(Path("more").iterdir())) == 5
    for words, said in (
        (("classify", run.folder, "--labels", 2), "fewer than the 3 classes"),
        (("recognise", run.folder, "gone", "known"), "no data set, folder or file"),
        (("augment", run.folder, "--class", "tap"), "did you mean top"),
        (("augment", run.folder, "--class", "top", "-o", "more"), "already"),
    ):
        failed = call(*words)
        assert failed.exit_code == 2 and said in failed.stderr and len(failed.stderr.strip().splitlines()) == 1, failed.stderr
