"""The report's verdicts on made-up boards whose answers are known, and its page: self-contained, with a word for every picture."""

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from test_arena_board import ROWS, field, made, rules
from vaestro.arena.board import Board, Column, Entry, Line, Value, make
from vaestro.arena.folder import Arena, open_arena
from vaestro.arena.plain import answers, cautions, names
from vaestro.arena.plots import Axis, Point, brief, by_class, crosses, labels_of, rate_distortion
from vaestro.arena.report import html
from vaestro.arena.result import Cell
from vaestro.arena.verdicts import can_test, copies, criteria, is_classical, standing, suspects, thrift, verdicts
from vaestro.evaluation.metrics import METRICS

RESULTS = Path(__file__).resolve().parents[1] / "results"


def entered(call: str, seed: int, of, nll: float | None, **sets: tuple[float, float | None]) -> Entry:
    """A run whose rows are its mean and noise of their own, with these set metrics."""
    scores = None if nll is None else nll + np.random.default_rng([seed, len(call)]).normal(0, 0.3, ROWS)
    found = made(call, seed, of, scores)
    cells = {
        n: Cell(value=v, error=e, title=METRICS[n].title, unit=METRICS[n].unit, direction=METRICS[n].direction.value, protocol=METRICS[n].protocol)
        for n, (v, e) in sets.items()
    }
    return Entry(found.result.model_copy(update={"metrics": {**found.result.metrics, **cells}}), found.rows)


def several(of, calls: dict[str, tuple[float | None, dict[str, tuple[float, float | None]]]]) -> list[Entry]:
    """Every seed of every call."""
    return [entered(c, s, of, nll, **sets) for c, (nll, sets) in calls.items() for s in of.tier("quick").seeds]


def told(board: Board, entries: list[Entry], job: str) -> str:
    """All that is said of one job."""
    return " ".join(next(a.told for a in answers(board, entries) if a.job == job))


def test_each_job_has_its_own_winner_with_what_it_cannot_do():
    of = rules(3, ("nll", "frechet_pca64", "reconstruction_mse", "linear_probe", "parameters"))
    sets = {"frechet_pca64": 9.0, "reconstruction_mse": 0.05, "linear_probe": 0.7}
    entries = several(of, {
        "vae": (80.0, {n: (v, 0.001) for n, v in sets.items()} | {"parameters": (1000.0, 0.0)}),
        "vamp": (85.0, {n: (v, 0.001) for n, v in (sets | {"frechet_pca64": 2.0}).items()} | {"parameters": (10.0, 0.0)}),
        "ae": (None, {n: (v, 0.001) for n, v in (sets | {"reconstruction_mse": 0.01, "linear_probe": 0.9}).items()} | {"parameters": (1000.0, 0.0)}),
    })  # fmt: skip
    board = make(of, "quick", entries)
    best = {a.job: a.best.call for a in answers(board, entries)}
    assert best == {"density": "vae", "samples": "vamp", "reconstruction": "ae", "representation": "ae", "cost": "vae"}
    assert "significantly better than the only other entry" in told(board, entries, "density")
    assert "In samples 1 entry beats it, vamp first." in told(board, entries, "density")
    assert "Not for density: it has no density." in told(board, entries, "reconstruction")
    assert "significantly better than all 2 others" in told(board, entries, "samples")
    cost = told(board, entries, "cost")
    assert "vae: 1,000 numbers (parameters)" in cost
    assert re.search(r"vamp \(10 numbers, 85.* nats\); vae \(1,000 numbers", cost)


def test_entries_that_are_not_told_apart_share_the_lead():
    of = rules()
    entries = field(0, {"ae": 90.0, "iwae": 80.0, "vae": 80.001}, of)
    said = told(make(of, "quick", entries), entries, "density")
    assert re.search(r"(iwae: .* from vae|vae: .* from iwae): any of them may be the best\. Significantly worse: ae\.", said)
    same = [Entry(e.result, e.rows) for e in field(1, {"vae": 80.0}, of)]
    twin = [made("iwae", e.result.seed, of, e.rows["nll"], {"frechet_pca64": (8.0, 0.2)}) for e in same]  # an exact tie
    board = make(of, "quick", same + twin)
    placed = standing(board, same + twin, "nll")
    assert placed is not None
    assert placed.better == frozenset()
    assert placed.level(placed.best) == tuple({"vae", "iwae"} - {placed.best.call})


def test_two_seeds_speak_of_these_runs_and_unknown_errors_of_nothing():
    of = rules(2, ("nll", "frechet_pca64"))
    entries = several(of, {c: (m, {"frechet_pca64": (m / 10, None)}) for c, m in {"vae": 80.0, "iwae": 70.0}.items()})
    board = make(of, "quick", entries)
    assert "these runs only" in cautions(board, entries)[0]
    assert "significantly better than the only other" in told(board, entries, "density")
    assert "cannot be said, for errors of these numbers are not known" in told(board, entries, "samples")
    placed = standing(board, entries, "frechet_pca64")
    assert placed is not None
    assert (placed.best.call, placed.better, placed.over(placed.best), placed.level(placed.best)) == ("iwae", None, (), ())


def test_counts_are_no_sample_so_nothing_is_tested_of_them():
    of = rules(2, ("nll", "modes_caught", "parameters"))
    entries = several(of, {c: (80.0, {"modes_caught": (m, 0.0), "parameters": (m, 0.0)}) for c, m in {"vae": 20.0, "iwae": 25.0}.items()})
    groups = [[e for e in entries if e.result.call == c] for c in ("vae", "iwae")]
    assert not can_test("modes_caught", groups)  # two seeds without an error show no spread
    assert not can_test("parameters", groups)
    assert can_test("nll", groups)
    assert standing(make(of, "quick", entries), entries, "modes_caught").better is None


def test_a_classical_row_wins_ties_or_loses_in_so_many_words():
    of = rules()

    def said(classical: float) -> str:
        entries = several(of, {"mixture:components=20": (classical, {}), "vae": (80.0, {}), "vamp": (90.0, {})})
        return told(make(of, "quick", entries), entries, "density")

    assert is_classical("mixture:components=20")
    assert not is_classical("vae")
    assert not is_classical("mine_from_a_file")
    wins = said(70.0)
    assert wins.startswith("mixture:components=20: 70")
    assert re.search(r"A classical row wins: mixture:components=20 \(70.* nats\) is significantly better than the best of 2 trained entries", wins)
    between = said(85.0)
    assert "significantly worse than vae; it is still significantly better than vamp." in between
    assert "A classical row does as well" in said(80.001)
    alone = several(of, {"vae": (80.0, {}), "vamp": (90.0, {})})
    assert "nothing says that a model was needed" in told(make(of, "quick", alone), alone, "density")


def test_the_disqualified_the_unfinished_and_copiers_win_nothing():
    of = rules(3, ("nll", "frechet_pca64", "copied_pca64"))
    entries = several(of, {
        "vae": (80.0, {"frechet_pca64": (5.0, 0.1), "copied_pca64": (0.01, 0.005)}),
        "vamp": (82.0, {"frechet_pca64": (6.0, 0.1), "copied_pca64": (0.02, 0.005)}),
        "copier": (None, {"frechet_pca64": (0.1, 0.1), "copied_pca64": (0.99, 0.005)}),
        "iwae": (10.0, {"frechet_pca64": (0.2, 0.1), "copied_pca64": (0.0, 0.005)}),
    })  # fmt: skip
    entries += [entered("top_down", s, of, 5.0, frechet_pca64=(0.0, 0.1), copied_pca64=(0.0, 0.01)) for s in range(2)]
    board = make(of, "quick", entries, {"iwae": "tuned on the test rows"})
    assert {a.job: a.best.call for a in answers(board, entries)}["samples"] == "vae"
    assert {a.job: a.best.call for a in answers(board, entries)}["density"] == "vae"
    assert copies(board) == {"copier": "99% of its samples are copies of training rows"}
    warned = " ".join(cautions(board, entries))
    assert "For samples copier is left out: 99% of its samples are copies of training rows." in warned
    assert "iwae is disqualified and wins nothing: tuned on the test rows." in warned
    assert "top_down is not compared" in warned
    assert "iwae" not in {x.call for s in criteria(board, entries) for x in s.lines}


def test_a_gap_between_splits_that_others_lack_is_told():
    of = rules(3, ("nll", "split_gap"))
    entries = several(of, {c: (m, {"split_gap": (g, None)}) for c, m, g in (("vae", 80.0, 1.0), ("iwae", 82.0, 0.5), ("vamp", 70.0, 30.0))})
    board = make(of, "quick", entries)
    assert suspects(board) == ("vamp",)
    assert "vamp scores far better on test rows" in " ".join(cautions(board, entries))
    few = [e for e in entries if e.result.call != "iwae"]  # of two, who is odd?
    assert suspects(make(of, "quick", few)) == ()


def test_what_is_worth_its_cost_is_better_than_all_that_is_cheaper():
    of = rules(3, ("nll", "seconds", "parameters"))
    costs = {"ppca": (150.0, 0.2), "vae": (90.0, 30.0), "vamp": (100.0, 40.0), "iwae": (80.0, 70.0), "top_down": (80.0001, 300.0)}
    entries = several(of, {c: (m, {"seconds": (s, 0.0), "parameters": (5.0, 0.0)}) for c, (m, s) in costs.items()})
    found = thrift(make(of, "quick", entries))
    assert found is not None
    assert (found.metric, [x.call for x in found.front], found.unbeaten.call) == ("seconds", ["ppca", "vae", "iwae"], "iwae")
    equal = several(of, {c: (m, {"seconds": (30.0, 0.0), "parameters": (s, 0.0)}) for c, (m, s) in costs.items()})
    assert thrift(make(of, "quick", equal)).metric == "parameters"  # a budget in seconds makes times alike
    assert thrift(make(rules(), "quick", field(0, {"vae": 80.0, "iwae": 70.0}, rules()))) is None
    keeps = several(of, {c: (m, {"seconds": (30.0, 0.0), "parameters": (0.0 if c == "ppca" else s, 0.0)}) for c, (m, s) in costs.items()})
    assert [x.call for x in thrift(make(of, "quick", keeps)).front] == ["vae", "iwae"]  # what keeps the training rows has no parameters, and is not cheap


def test_an_entry_whose_seeds_are_all_over_is_not_the_thrifty_choice():
    of = rules(3, ("nll", "seconds"))
    sets = {"seconds": (30.0, 0.0)}
    means = {"vae": 80.0, "vamp": 80.001, "ae": 90.0, "gmm_prior": 95.0, "ppca": 150.0}
    steady = several(of, {call: (nll, sets) for call, nll in means.items()})
    wild = [entered("iwae", seed, of, nll, seconds=(5.0, 0.0)) for seed, nll in zip(of.tier("quick").seeds, (81.0, 200.0, 320.0), strict=True)]
    board = make(of, "quick", [*steady, *wild])
    assert next(x for x in board.ranked if x.call == "iwae").rank_low == 1  # nothing is significantly better
    assert thrift(board).unbeaten.call == "vae"
    assert "nor leads by more than the" in told(board, [*steady, *wild], "cost")


def test_nothing_is_concluded_from_one_entry_or_without_a_finished_one():
    of = rules()
    lone = field(2, {"vae": 80.0}, of)
    assert answers(make(of, "quick", lone), lone) == ()
    lost = Entry(made("vamp", 0, of, None).result.model_copy(update={"status": "failed", "reason": "out of memory", "refused": {}}), {})
    board = make(of, "quick", [lost])
    assert answers(board, [lost]) == ()
    assert "vamp is not compared" in " ".join(cautions(board, [lost]))
    assert verdicts(board, [lost]) == ()


def test_a_ratio_of_nought_has_no_place_where_one_is_best():
    of = rules(3, ("nll", "blur"))
    entries = several(of, {c: (80.0, {"blur": (b, 0.01)}) for c, b in {"vae": 0.5, "iwae": 0.0, "vamp": 1.1}.items()})
    placed = standing(make(of, "quick", entries), entries, "blur")
    assert [x.call for x in placed.lines] == ["vamp", "vae"]


def test_verdicts_do_not_depend_on_the_order_of_results():
    of = rules()
    entries = field(4, {"vae": 80.0, "iwae": 79.0, "ae": 80.0, "vamp": 60.0}, of)
    mixed = [entries[i] for i in np.random.default_rng(0).permutation(len(entries))]
    assert answers(make(of, "quick", entries), entries) == answers(make(of, "quick", mixed), mixed)


def test_names_in_a_sentence():
    assert [names(list("abcdef")[:n]) for n in (1, 2, 4, 6)] == ["a", "a and b", "a, b, c and d", "a, b, c and 3 others"]


def test_axes_put_values_where_they_belong():
    straight = Axis([0.0, 10.0], (0.0, 112.0))
    assert [round(straight.at(v), 6) for v in (0.0, 5.0, 10.0)] == [6.0, 56.0, 106.0]
    logarithmic = Axis([1.0, 100.0], (0.0, 112.0))
    assert logarithmic.log
    assert logarithmic.at(10.0) == pytest.approx(56.0)
    assert logarithmic.ticks == [1.0, 3.0, 10.0, 30.0, 100.0]
    assert not Axis([0.0, 100.0], (0.0, 1.0)).log  # nought has no logarithm
    assert math.isfinite(Axis([2.0, 2.0], (0.0, 1.0)).at(2.0))
    assert [brief(v) for v in (0.5, 1500.0, 2e6)] == ["0.5", "1.5k", "2M"]


def test_a_point_outside_reach_and_a_lone_point():
    points = [Point("vae", Value(1.0, 0.5, 1.5), Value(3.0, None, None)), Point("ppca", Value(2.0, None, None), Value(4.0, 3.0, 5.0))]
    drawn = crosses(points, "rate (nats)", "lost (nats)", "Rate <and> distortion")
    assert drawn.count("<circle") == 2
    assert drawn.count('stroke-width="1.5"') == 2  # one arm each
    assert drawn.count('class="hollow"') == 1  # the classical row
    assert "Rate &lt;and&gt; distortion: vae 1.00 ±0.50, 3; ppca 2, 4.0 ±1.0" in drawn
    assert crosses(points[:1], "", "", "") == ""


def test_rate_stands_against_nats_where_they_are_known():
    values = {"kl": Value(20.0, None, None), "reconstruction_mse": Value(0.1, None, None)}
    lines = tuple(Line(c, "unranked", None, None, None, values, {}, (0,), (c,), ()) for c in ("vae", "iwae"))
    columns = tuple(Column(n, METRICS[n].title, METRICS[n].unit, METRICS[n].direction.value, "") for n in ("kl", "cross_entropy", "reconstruction_mse"))
    board = Board("c", "1", "t", "quick", "l", "kl", "r", 2, True, None, columns, lines, (), ())
    assert "squared unit values" in rate_distortion(board)  # no line has the cross-entropy
    assert rate_distortion(Board("c", "1", "t", "quick", "l", "kl", "r", 2, True, None, columns[:1], lines, (), ())) == ""


def test_scores_by_class_are_the_means_of_their_rows():
    of = rules()
    scores = np.concatenate([np.full(ROWS // 2, 10.0), np.full(ROWS // 2, 30.0)])
    entries = [made("vae", s, of, scores + np.tile([-1.0, 1.0], ROWS // 2)) for s in range(3)]
    labels = np.repeat([0, 2], ROWS // 2)
    drawn = by_class(make(of, "quick", entries), entries, labels, ["zero", "one", "two"])
    assert [float(x) for x in re.findall(r"<td[^>]*>(\d+\.\d+) <small>", drawn)] == [10.0, 30.0]
    assert re.search(r"class=worst>30", drawn)
    assert "100 rows" in drawn
    assert by_class(make(of, "quick", entries), entries, np.zeros(ROWS, int), ["zero"]) == ""
    assert by_class(make(of, "quick", entries), entries, labels[:-1], ["zero"]) == ""  # labels of other rows
    assert labels_of([{}, {"labels": labels, "classes": np.array(["a", "b"])}], ROWS)[1] == ["a", "b"]
    assert labels_of([{"labels": labels}], ROWS + 1) is None


class Page(HTMLParser):
    """What a page loads, and the words for its pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.mute: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """One tag."""
        found = dict(attrs)
        self.tags.append(tag)
        wanted = [found.get(n) for n in ("src", "href", "srcset", "data", "action", "poster", "background", "xlink:href")]
        self.loads += [v[:60] for v in wanted if v and not v.startswith(("#", "data:image/png;base64,"))]
        if (tag == "img" and not found.get("alt")) or (tag == "svg" and not (found.get("role") == "img" and found.get("aria-label"))):
            self.mute.append(str(attrs)[:80])


@pytest.fixture(scope="module")
def page() -> str:
    """The report of the committed demonstration."""
    return html(open_arena(RESULTS / "mnist-dynamic-quick"))


def test_the_page_loads_nothing_and_every_figure_has_words(page):
    seen = Page()
    seen.feed(page)
    assert seen.loads == []
    assert seen.mute == []
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(seen.tags)
    assert {"img", "svg", "table"} <= set(seen.tags)
    assert not re.findall(r"url\(|@import|@font-face|\bon\w+=", page.partition("</style>")[0])
    assert len(page) < 3_000_000


def test_the_page_answers_prints_and_fits_a_phone(page):
    headings = ("Which entry for which job", "Winners by criterion", "Scores by class", "What these answers do not say")
    for words in (*headings, "Rate and distortion", "Quality against time"):
        assert words in page, words
    for rule in ("width=device-width", "@media print", "prefers-color-scheme: dark", "overflow-x: auto"):
        assert rule in page, rule
    assert page.count('<div class="scroll">') >= page.count("<table")  # a wide table scrolls in its own box
    assert "nan" not in re.findall(r"[a-z]+", re.sub(r"base64,[^\"]*", "", page))


def test_words_of_strangers_are_escaped():
    arena = open_arena(RESULTS / "mnist-dynamic-quick")
    rules_ = arena.challenge.rules.model_copy(update={"title": "<script>alert(1)</script>"})
    assert "<script" not in html(Arena(arena.folder, replace(arena.challenge, rules=rules_), arena.tier))
