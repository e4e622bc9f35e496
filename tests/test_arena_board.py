"""The board on made-up results, whose statistics are known."""

import hashlib
import io
import json
import math
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from vaestro.arena import check, page, report
from vaestro.arena import result as results
from vaestro.arena.board import Column, Entry, Value, board, make
from vaestro.arena.challenge import FILE, SHIPPED, Rules, load_challenge
from vaestro.arena.folder import Arena, start
from vaestro.arena.result import About, Cell, Result
from vaestro.arena.text import render, short
from vaestro.arena.verdicts import standing
from vaestro.arena.words import cell, headline, number, winners
from vaestro.errors import UsageError, VaestroError
from vaestro.evaluation import intervals
from vaestro.evaluation.metrics import METRICS, Report
from vaestro.evaluation.metrics.base import Score

ROWS = 200


def rules(seeds: int = 3, metrics: tuple[str, ...] = ("nll", "frechet_pca64"), headline: str = "nll") -> Rules:
    """The rules of the digits with this many seeds."""
    base = load_challenge("digits").rules.model_dump(mode="json")
    base["tiers"]["quick"]["seeds"] = list(range(seeds))
    changed = {**base, "metrics": list(metrics), "headline": {"metric": headline, "rule": "declared"}}
    return Rules.model_validate_json(json.dumps(changed))


def made(call: str, seed: int, of: Rules, scores: np.ndarray | None, sets: dict[str, tuple[float, float]] | None = None) -> Entry:
    """A result of a call with these per-row scores of the headline metric and these values of set metrics."""
    about = About(name=of.name, version=of.version, tier="quick", sha256=of.sha256("quick"), data=of.data.sha256)
    cells = {}
    if scores is not None:
        cells["nll"] = described("nll", float(scores.mean()), float(scores.std(ddof=1) / math.sqrt(len(scores))), True)
    cells |= {name: described(name, value, error, False) for name, (value, error) in (sets or {}).items()}
    own = {"metrics": cells, "refused": {} if scores is not None else {"nll": f"{call} has no density"}}
    name = f"{call.partition(':')[0]}-{hashlib.sha256(f'{call} {seed}'.encode()).hexdigest()[:8]}"
    found = Result(format=1, id=name, challenge=about, call=call, keywords={}, recipe=results.Paper(), seed=seed, status="done", reason="budget", **own)
    return Entry(found, {} if scores is None else {"nll": scores})


def described(name: str, value: float, error: float, per_row: bool) -> Cell:
    """A cell with the metric's own words."""
    m = METRICS[name]
    return Cell(value=value, error=error, title=m.title, unit=m.unit, direction=m.direction.value, protocol=m.protocol, per_row=per_row)


def field(seed: int, means: dict[str, float], of: Rules, spread: float = 0.05) -> list[Entry]:
    """Entries whose rows share their difficulty, as rows do."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(0, 10, ROWS)
    seeds = of.tier("quick").seeds
    return [
        made(c, s, of, m + hard + rng.normal(0, spread) + rng.normal(0, 0.5, ROWS), {"frechet_pca64": (m / 10, 0.2)}) for c, m in means.items() for s in seeds
    ]


def test_ranks_follow_paired_tests_with_holm():
    of = rules()
    found = make(of, "quick", field(0, {"ae": 90.0, "iwae": 80.0, "vae": 80.01}, of))
    assert [x.call for x in found.lines][2] == "ae"
    places = {x.call: (x.rank, x.rank_low, x.rank_high) for x in found.lines}
    assert places == {"iwae": (1, 1, 2), "vae": (1, 1, 2), "ae": (3, 3, 3)}
    assert set(found.better) == {("iwae", "ae"), ("vae", "ae")}
    assert not found.these_runs_only


def test_the_interval_is_the_crossed_one_of_seeds_and_rows():
    of = rules()
    entries = field(1, {"vae": 80.0}, of)
    scores = np.array([e.rows["nll"] for e in entries])
    s, r = scores.shape
    row, seed = scores.mean(0), scores.mean(1)
    ms_row = s * row.var(ddof=1)
    ms_seed = r * seed.var(ddof=1)
    rest = scores - row - seed[:, None] + scores.mean()
    ms_rest = (rest**2).sum() / (s - 1) / (r - 1)
    total = ms_seed + max(ms_row - ms_rest, 0)
    df = total**2 / (ms_seed**2 / (s - 1) + ms_row**2 / (r - 1) + ms_rest**2 / (s - 1) / (r - 1))
    half = stats.t.ppf(0.975, max(df, s - 1)) * math.sqrt(total / s / r)
    value = make(of, "quick", entries).lines[0].values["nll"]
    assert value.mean == pytest.approx(scores.mean())
    assert (value.low, value.high) == pytest.approx((scores.mean() - half, scores.mean() + half))


def test_a_head_names_the_feature_network_where_two_columns_differ_by_it_alone():
    made = make(rules(), "quick", field(0, {"ae": 90.0}, rules()))

    def heads(*names: str) -> list[str]:
        columns = tuple(Column(n, METRICS[n].title, METRICS[n].unit, METRICS[n].direction.value, "") for n in names)
        return [short(n, replace(made, columns=columns)) for n in names]

    assert heads("nll", "frechet_judge", "kernel_pca64") == ["nll", "frechet", "kernel"]
    assert heads("frechet_judge", "frechet_pca64", "kernel_pca64", "active_units") == ["frechet_judge", "frechet_pca64", "kernel", "active"]


def test_a_column_is_headed_by_the_protocol_of_its_cells_not_by_todays():
    of = rules()
    entries = field(0, {"ae": 90.0, "iwae": 80.0}, of)

    def under(words: str, entry: Entry) -> Entry:
        cells = {n: c.model_copy(update={"protocol": words}) if n == "nll" else c for n, c in entry.result.metrics.items()}
        return Entry(entry.result.model_copy(update={"metrics": cells}), entry.rows)

    old = [under("100 samples", e) for e in entries]
    assert make(of, "quick", old).column("nll").protocol == "100 samples"
    mixed = [under("500 samples", e) if e.result.call == "ae" else e for e in old]
    assert make(of, "quick", mixed).column("nll").protocol == "100 samples | 500 samples"
    assert make(of, "quick", entries).column("nll").protocol == METRICS["nll"].protocol


def test_two_seeds_speak_of_these_runs_only():
    of = rules(2)
    entries = field(2, {"vae": 80.0, "iwae": 79.0}, of)
    found = make(of, "quick", entries)
    assert found.these_runs_only
    scores = np.array([e.rows["nll"] for e in entries if e.result.call == "vae"])
    half = stats.t.ppf(0.975, ROWS - 1) * scores.mean(0).std(ddof=1) / math.sqrt(ROWS)
    vae = next(x for x in found.lines if x.call == "vae").values["nll"]
    assert (vae.low, vae.high) == pytest.approx((scores.mean() - half, scores.mean() + half))
    assert "these runs only" in headline(found)


def test_a_headline_on_a_set_metric_ranks_by_values_and_errors():
    of = rules(3, ("frechet_pca64", "nll"), "frechet_pca64")
    values = {"vae": 1.0, "iwae": 1.05, "ae": 9.0}
    entries = [made(c, s, of, None, {"frechet_pca64": (v + 0.01 * s, 0.05)}) for c, v in values.items() for s in range(3)]
    found = make(of, "quick", entries)
    assert [(x.call, x.rank) for x in found.lines] == [("vae", 1), ("iwae", 1), ("ae", 3)]
    losses = np.array([[v + 0.01 * s for s in range(3)] for v in (9.0, 1.05, 1.0)])
    expected = intervals.ranks(intervals.pairwise_values(losses, np.full((3, 3), 0.05)))
    assert expected.rank.tolist() == [3, 1, 1]


def test_where_more_is_better_the_order_turns():
    of = rules(3, ("coverage_pca64",), "coverage_pca64")
    entries = [made(c, s, of, None, {"coverage_pca64": (v, 0.01)}) for c, v in {"vae": 0.9, "iwae": 0.4}.items() for s in range(3)]
    assert [x.call for x in make(of, "quick", entries).lines] == ["vae", "iwae"]
    of = rules(3, ("blur",), "blur")  # nearer to one is better, on the scale of logarithms
    entries = [made(c, s, of, None, {"blur": (v, 0.001)}) for c, v in {"vae": 0.5, "iwae": 1.2, "ae": 3.0}.items() for s in range(3)]
    assert [x.call for x in make(of, "quick", entries).lines] == ["iwae", "vae", "ae"]


def test_a_ratio_of_nought_has_no_rank_and_takes_none_from_others():
    """|ln 0| is infinite: pictures without any detail have no place, and the board still stands."""
    of = rules(3, ("blur",), "blur")
    values = {"vae": 0.5, "iwae": 1.2, "ae": 0.0}
    found = make(of, "quick", [made(c, s, of, None, {"blur": (v, 0.001)}) for c, v in values.items() for s in range(3)])
    assert [(x.call, x.state, x.rank) for x in found.lines] == [("iwae", "ranked", 1), ("vae", "ranked", 2), ("ae", "unranked", None)]
    assert "ae is not ranked: its value is infinitely far from the best" in " ".join(render(found, 140).split())


def test_lines_without_a_rank_come_last_and_say_why():
    of = rules()
    entries = field(3, {"vae": 80.0, "iwae": 79.0}, of)
    entries += [made("ae", s, of, None) for s in range(3)]
    entries += [made("top_down", s, of, np.full(ROWS, 70.0) + s) for s in range(2)]
    lost = made("vamp", 0, of, None).result.model_copy(update={"status": "failed", "reason": "out of memory", "refused": {}})
    found = make(of, "quick", [*entries, Entry(lost, {})])
    assert [(x.call, x.state) for x in found.lines] == [
        ("iwae", "ranked"), ("vae", "ranked"), ("ae", "unranked"), ("top_down", "incomplete"), ("vamp", "failed"),
    ]  # fmt: skip
    assert found.lines[2].none["nll"] == "ae has no density"
    assert found.lines[4].reasons == ("seed 0: out of memory",)
    text = render(found, 140)
    for words in ("ae is not ranked: has no density.", "top_down is not ranked: only 2 runs of it finished.", "vamp failed, seed 0: out of memory."):
        assert words in text


def test_the_board_does_not_depend_on_the_order_of_results():
    of = rules()
    entries = field(4, {"vae": 80.0, "iwae": 79.0, "ae": 80.0, "vamp": 60.0}, of)
    first = make(of, "quick", entries)
    again = make(of, "quick", [entries[i] for i in np.random.default_rng(0).permutation(len(entries))])
    assert json.dumps(first.to_json()) == json.dumps(again.to_json())
    assert render(first) == render(again)


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_of_one_row_nothing_is_sure_unless_seeds_show_a_spread(seeds: int):
    """A single row has no error, which is not an error of nought."""
    of = rules(seeds)
    entries = [
        Entry(e.result.model_copy(update={"metrics": {"nll": e.result.metrics["nll"].model_copy(update={"error": None})}}), e.rows)
        for call, mean in {"vae": 80.0, "iwae": 79.0}.items()
        for s in range(seeds)
        for e in (made(call, s, of, np.repeat(mean + 0.01 * s, 2)),)
    ]
    found = make(of, "quick", [Entry(e.result, {"nll": e.rows["nll"][:1]}) for e in entries])
    sure = seeds >= intervals.SEEDS_FOR_A_RECIPE
    assert [(x.call, x.rank, x.rank_high) for x in found.lines] == [("iwae", 1, 1 if sure else 2), ("vae", 2 if sure else 1, 2)]
    assert found.better == ((("iwae", "vae"),) if sure else ()) and (found.detectable is None) != sure
    assert all((x.values["nll"].low, x.values["nll"].high) == (None, None) for x in found.lines)


def test_a_metric_may_look_at_fewer_rows_of_one_model_than_of_another():
    """Such as the mutual information of a hierarchy, whose pairs of rows cost a run each."""
    of = rules(3, ("nll", "mutual_information"))
    entries, rng = [], np.random.default_rng(9)
    for e in field(7, {"vae": 80.0, "top_down": 79.0, "iwae": 81.0}, of):
        few = rng.normal(5.0 if e.result.call == "vae" else 9.0, 1.0, 20 if e.result.call == "top_down" else 60)
        cell = described("mutual_information", float(few.mean()), float(few.std(ddof=1) / math.sqrt(len(few))), True)
        entries.append(Entry(e.result.model_copy(update={"metrics": {**e.result.metrics, "mutual_information": cell}}), {**e.rows, "mutual_information": few}))
    found = make(of, "quick", entries)
    assert found.rows == ROWS and [x.state for x in found.lines] == ["ranked"] * 3
    told = standing(found, entries, "mutual_information")
    assert told is not None and told.better == frozenset({("top_down", "vae"), ("iwae", "vae")})


def test_results_that_do_not_belong_together_are_refused():
    of = rules()
    entries = field(5, {"vae": 80.0}, of)
    with pytest.raises(VaestroError, match="'vae' with seed 1 has two results"):
        make(of, "quick", [*entries, Entry(entries[1].result.model_copy(update={"id": "vae-00000000"}), entries[1].rows)])
    with pytest.raises(VaestroError, match="has seed 7, which is none of the tier's seeds 0, 1, 2"):
        make(of, "quick", [*entries, made("iwae", 7, of, np.ones(ROWS))])
    with pytest.raises(VaestroError, match="unlike numbers of rows \\(150, 200\\)"):
        make(of, "quick", [*entries, made("iwae", 0, of, np.ones(150))])
    out = make(of, "quick", [*entries, made("iwae", 0, of, np.ones(250))], {"iwae": "scored on other rows"})
    assert [(x.call, x.state) for x in out.lines] == [("vae", "ranked"), ("iwae", "disqualified")]
    assert out.rows == ROWS
    with pytest.raises(UsageError, match="there are no results"):
        make(of, "quick", [])


@pytest.fixture
def arena(tmp_path) -> Path:
    """A folder of three sound results."""
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / FILE).write_text((SHIPPED / "digits-dynamic.toml").read_text().replace("seeds = [0, 1]", "seeds = [0, 1, 2]"))
    challenge = load_challenge(tmp_path / "c")
    start(Arena(tmp_path / "arena", challenge, "quick"))
    for entry in field(6, {"vae": 80.0}, challenge.rules):
        results.write(tmp_path / "arena" / "results", entry.result, entry.rows, {})
    assert len(board(tmp_path / "arena").lines) == 1
    return tmp_path / "arena"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("version", "2", "is of another version \\('2', and the board's is '1'\\)"),
        ("tier", "standard", "is of another tier"),
        ("data", "0" * 64, "is of another data hash"),
        ("name", "mnist-grey", "is of another challenge"),
        ("sha256", "0" * 64, "is of another hash of the rules"),
    ],
)
def test_results_of_something_else_are_refused(arena, key, value, words):
    path = sorted((arena / "results").glob("*.json"))[0]
    old = results.read(path)
    other = old.model_copy(update={"challenge": old.challenge.model_copy(update={key: value})}).sealed()
    path.write_text(json.dumps(other.model_dump(mode="json")))
    with pytest.raises(VaestroError, match=words):
        board(arena)


@pytest.mark.parametrize(
    ("old", "fresh", "words"),
    [
        ('"seed": 0', '"seed": 5', "was altered"),
        ('"status": "done"', '"status": "won"', "is malformed \\(status"),
        ('"status"', '"statue"', "is malformed"),
        ('"format": 1', '"format": 9', "is of format 9"),
        ("{", "", "cannot be read as a result"),
        ("{", "[{", "cannot be read as a result"),
    ],
)
def test_altered_and_malformed_results_are_refused(arena, old, fresh, words):
    path = next(p for p in (arena / "results").glob("*.json") if results.read(p).seed == 0)
    text = path.read_text()
    path.write_text(text.replace(old, fresh, 1))
    with pytest.raises(VaestroError, match=words):
        board(arena)


def test_altered_rows_and_names_are_refused(arena):
    path = sorted((arena / "results").glob("*.json"))[0]
    rows = path.with_name(f"{path.stem}.rows.npz")
    data = rows.read_bytes()
    rows.write_bytes(results.pack({"nll": np.zeros(ROWS)}))
    with pytest.raises(VaestroError, match="rows.npz was altered"):
        board(arena)
    rows.unlink()
    with pytest.raises(VaestroError, match="cannot be read"):
        board(arena)
    rows.write_bytes(data)
    path.rename(path.with_name("vae-12345678.json"))
    with pytest.raises(VaestroError, match="a result's file has its own name"):
        board(arena)


def test_numbers_have_the_digits_that_they_deserve():
    assert cell(Value(93.1234, 92.7134, 93.5334)) == "93.12 ±0.41"
    assert cell(Value(93.1234, 89.0, 97.2)) == "93.1 ±4.1"
    assert cell(Value(12345.6, 12000.0, 12691.0)) == "12,346 ±346"
    assert cell(Value(255744.0, None, None)) == "255,744"
    assert number(0.00123456) == "0.001235"
    assert number(3.855) == "3.855"
    assert cell(Value(0.00824, 0.00821, 0.00827)) == "0.008240 ±0.000030"
    assert cell(Value(3.2e-6, 3.1e-6, 3.3e-6)) == "3.20e-06 ±1.0e-07"
    assert cell(Value(3.36e61, 3.22e61, 3.5e61)) == "3.36e+61 ±1.4e+60"
    assert cell(Value(1.0, 1.0 - 2**-40, 1.0 + 2**-40)) == "1.000000e+00 ±9.1e-13"  # seven digits at most
    assert [number(v) for v in (123456789.0, 12345678912.0, 1e308, 3.2e-6, -2e12, math.inf)] == [
        "123,456,789",
        "1.235e+10",
        "1e+308",
        "3.2e-06",
        "-2e+12",
        "inf",
    ]
    assert (number(0.0, 1e-7), number(0.5, 2e9), number(2e300, 1e308)) == ("0.000000", "0", "2e+300")


def test_winners_leave_out_what_is_no_merit():
    of = rules(3, ("nll", "kl", "frechet_pca64"))
    entries = field(7, {"vae": 80.0, "iwae": 79.0}, of)
    names = [title for title, _, _ in winners(make(of, "quick", entries))]
    assert names == [METRICS["nll"].title, METRICS["frechet_pca64"].title]


def test_fifty_entries_of_many_rows_are_quick():
    import time

    of = rules()
    rng = np.random.default_rng(8)
    hard = rng.normal(0, 10, 20_000)
    entries = [made(f"vae:latents={i + 1}", s, of, 80 + i / 10 + hard + rng.normal(0, 1, 20_000)) for i in range(50) for s in range(3)]
    begun = time.perf_counter()
    found = make(of, "quick", entries)
    assert time.perf_counter() - begun < 5
    assert [x.call for x in found.lines][:2] == ["vae:latents=1", "vae:latents=2"]


def forged(arena: Path, files: dict[str, bytes] | None = None, **changes: object) -> Path:
    """The first result changed as a forger would who knows the seal: these files of arrays, and these keys."""
    path = sorted((arena / "results").glob("*.json"))[0]
    raw = json.loads(path.read_text()) | changes
    for kind, data in (files or {}).items():
        path.with_suffix(f".{kind}.npz").write_bytes(data)
        raw[f"{kind}_sha256"] = hashlib.sha256(data).hexdigest()
    path.write_text(json.dumps(raw | {"sha256": results.seal(raw)}))
    return path


def refused(arena: Path, *, shown: bool = False) -> str:
    """What the board says of a forged result, and `check` and the report with it; where it is `shown`, the last two alone."""
    if shown:
        assert board(arena).lines
    with pytest.raises(VaestroError) as error:
        report(arena) if shown else board(arena)
    assert str(error.value) in [c.problem for c in check(arena)]
    return str(error.value)


def test_a_result_has_an_id_of_its_own_kind(arena):
    """It becomes a link and an anchor of the report, so that markup in it would be run by whoever opens the page."""
    odd = 'x"><img src=x onerror=alert(1)>'
    old = forged(arena, id=odd)
    old.with_suffix(".rows.npz").rename(old.with_name(f"{odd}.rows.npz"))
    old.rename(old.with_name(f"{odd}.json"))
    assert "is malformed (id: String should match pattern" in refused(arena)
    line = replace(make(rules(), "quick", field(0, {"vae": 80.0}, rules())).lines[0], ids=(odd,))
    assert page.anchor(line) == "entry-x&quot;&gt;&lt;img src=x onerror=alert(1)&gt;"


def test_what_would_be_printed_as_a_command_of_the_terminal_is_refused_or_told(arena):
    assert r"is of the call 'vae\x1b[2J', which cannot be printed" in refused((forged(arena, call="vae\x1b[2J")).parents[1])
    forged(arena, call="vae", status="failed", reason="caf\u00e9 \x1b[2J\u202e \x9b", metrics={})
    assert "caf\u00e9 \\x1b[2J\\u202e \\x9b." in render(board(arena), 140)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("nll", {"value": -1e308, "error": None, "per_row": False}, "its nll is -1e+308 ±0, too large to be compared"),
        ("nll", {"value": 80.0, "error": 1e200}, "its nll is 80 ±1e+200, too large to be compared"),
        ("nll", {"error": -1.0}, "metrics.nll.error: Input should be greater than or equal to 0"),
    ],
)
def test_numbers_that_nothing_can_be_made_of_are_refused(arena, name, change, words):
    old = results.read(sorted((arena / "results").glob("*.json"))[0]).model_dump(mode="json")["metrics"]
    forged(arena, metrics=old | {name: old[name] | change})
    assert words in refused(arena)


def test_a_value_too_large_to_be_compared_is_none(arena):
    """So that an entrant of huge samples loses its own cell, and the others keep their board."""
    scores = {"nll": Score(1e120, 0.0, None), "kl": Score(2.0, 1e130, None), "elbo": Score(1.0, 0.1, np.array([1e120, -1e120]))}
    found, none = results.cells(Report(scores, {}))
    assert (found.keys(), found["kl"].error) == ({"kl"}, None)
    assert none["nll"] == "its value is 1e+120, which is no number to compare"


def test_an_endless_number_is_refused(arena):
    path = sorted((arena / "results").glob("*.json"))[0]
    path.write_text(path.read_text().replace('"seed": ', f'"steps": {"9" * 5000}, "seed": '))
    assert "cannot be read as a result (Exceeds the limit" in refused(arena)


def npz(**held: np.ndarray) -> bytes:
    return results.pack(held)


def bomb() -> bytes:
    """A few kilobytes that say that they are very many."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed, packed.open("samples.npy", "w") as member:
        for _ in range(300):
            member.write(bytes(2**20))
    return file.getvalue()


@pytest.mark.parametrize("kind", ["rows", "show"])
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lambda: b"", "File is not a zip file"),
        (lambda: b"hello", "File is not a zip file"),
        (lambda: npz(nll=np.zeros(3))[:-40], "File is not a zip file"),
        (lambda: npz(nll=np.array([{}], dtype=object)), "Object arrays cannot be loaded"),
        (bomb, "bytes unpack to 314,572,800, and no more than 268,435,456 are read"),
    ],
    ids=["empty", "text", "cut", "objects", "bomb"],
)
def test_files_that_hold_no_arrays_are_refused(arena, kind, data, words):
    forged(arena, {kind: data()})
    said = refused(arena, shown=kind == "show")
    assert f".{kind}.npz cannot be read as arrays (" in said
    assert words in said


@pytest.mark.parametrize(
    ("held", "words"),
    [
        ({"samples": np.zeros((3, 4), np.uint8)}, "its array 'samples' holds uint8 values shaped (3, 4)"),
        ({"samples": np.zeros((3, 1, 4, 4))}, "its array 'samples' holds float64"),
        ({"map": np.zeros(3, np.float32)}, "its array 'map' holds float32 values shaped (3,)"),
        ({"map": np.zeros((3, 2), np.float32), "labels": np.arange(4)}, "its array 'labels' holds int64 values shaped (4,)"),
        ({"map": np.zeros((3, 2), np.float32), "labels": np.arange(3) - 1}, "its array 'labels' holds"),
        ({"map": np.zeros((3, 2), np.float32), "labels": np.array(["a"] * 3)}, "its array 'labels' holds <U1"),
        ({"curve.loss": np.zeros(3, np.float32)}, "its array 'curve.loss' holds"),
        ({"originals": np.zeros((2, 1, 4, 4), np.uint8)}, "its originals are shaped (2, 1, 4, 4) and its reconstructions ()"),
    ],
)  # fmt: skip
def test_arrays_that_no_report_can_show_are_refused(arena, held, words):
    forged(arena, {"show": npz(**held)})
    assert words in refused(arena, shown=True)


def test_seeds_with_unlike_numbers_of_rows_have_a_mean_over_seeds(arena):
    """Of a metric that is not the headline's; the interval then stands on each seed's own mean."""
    of = rules(3, ("nll", "mutual_information"))
    rng, entries, cells = np.random.default_rng(4), [], []
    for e, n in zip(field(7, {"vae": 80.0}, of), (20, 60, 60), strict=True):
        few = rng.normal(5.0, 1.0, n)
        cells.append(described("mutual_information", float(few.mean()), float(few.std(ddof=1) / math.sqrt(n)), True))
        entries.append(
            Entry(e.result.model_copy(update={"metrics": {**e.result.metrics, "mutual_information": cells[-1]}}), {**e.rows, "mutual_information": few})
        )
    found = make(of, "quick", entries).lines[0].values["mutual_information"]
    due = intervals.of_values(np.array([c.value for c in cells]), np.array([c.error for c in cells]))
    assert (found.mean, found.low, found.high) == pytest.approx((due.mean, due.low, due.high))


def test_rows_that_no_cell_claims_are_left_alone(arena):
    path = sorted((arena / "results").glob("*.json"))[0]
    rows = results.arrays(path.parent, results.read(path), "rows")
    forged(arena, {"rows": npz(**rows, other=np.array(3.0))})
    assert board(arena).rows == ROWS
