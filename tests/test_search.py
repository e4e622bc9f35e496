"""A search: what it may change, what it reads, how it halves, when it stops, and that it goes on where it was."""

import json
import math
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
import torch
from annotated_types import Gt, Le
from typer.testing import CliRunner

from vaestro.cli.app import app
from vaestro.cli.searching import seconds
from vaestro.data import load
from vaestro.data.store import Dataset
from vaestro.errors import UsageError, VaestroError
from vaestro.recipes import RECIPES, files, parse
from vaestro.recipes.calls import call_of
from vaestro.training.budget import Budget
from vaestro.uses.search import attempt as attempts
from vaestro.uses.search import halving as searches
from vaestro.uses.search.attempt import Attempt, Outcome, attempt, done_by, outcome
from vaestro.uses.search.halving import UNITS, Searching, search, unit_of
from vaestro.uses.search.space import WIDTHS, OneOf, Real, Whole, defaults, merged, ranges

TINY = "vae:hidden=8"
SCHEMA = load("digits-dynamic").schema
PAIRED = replace(SCHEMA, fields=(*SCHEMA.fields, replace(SCHEMA["x"], name="x2")))  # for what learns from pairs


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_ranges_follow_from_types_and_defaults():
    found = ranges(parse("vae"), SCHEMA)
    assert found == {
        "learning_rate": Real(2e-4, 2e-2, True), "latents": Whole(10, 160), "hidden": OneOf(WIDTHS), "warm_up": Real(0.0, 0.98, False),
    }  # fmt: skip
    assert ranges(parse("beta_vae:beta=2,learning_rate=1e-3"), SCHEMA).keys() == {"latents", "hidden"}
    assert ranges(parse("beta_vae"), SCHEMA)["beta"] == Real(0.5, 32.0, True)
    assert ranges(parse("iwae"), SCHEMA, ["samples", "batch", "ema"]) == {"samples": Whole(1, 40), "batch": Whole(16, 1024), "ema": Real(0.0, 0.98, False)}


@pytest.mark.parametrize("name", [e.name for e in RECIPES.values() if type(SCHEMA["x"].kind) in e.fits])
def test_every_range_holds_the_default_and_legal_values(name):
    call = parse(name)
    found = ranges(call, PAIRED)
    for key, value in defaults(call, found, PAIRED).items():
        r = found[key]
        ends = r.values if isinstance(r, OneOf) else (r.low, r.high)
        assert value in ends if isinstance(r, OneOf) else ends[0] <= value <= ends[1]
        for end in ends:
            merged(call, {key: end})  # a call checks types and bounds


def test_a_recipe_without_bounds_has_ranges_of_whole_numbers_from_one():
    """As docs/own.md writes recipes: the annotation is a bare type, or bounds a number on one side alone."""

    def mine(schema, latents: int = 6, words: str = "", width: Annotated[int, Le(20)] = 5, most: Annotated[int, Gt(2.5)] = 4):
        return RECIPES["vae"].build(schema, latents=latents)

    found = ranges(call_of(mine, {}), SCHEMA, ["latents", "width", "most"])
    assert found == {"latents": Whole(1, 24), "width": Whole(1, 20), "most": Whole(3, 32)}


def test_what_cannot_be_searched_is_refused_in_words():
    for text, over, words in (
        ("vae", ["latent"], "'latent' is no keyword of vae; did you mean latents"),
        ("vae", ["network"], "'network' has no range to search of vae"),
        ("vae:latents=3", ["latents"], "latents is fixed by the call vae:latents=3"),
        ("vae", [], "fixes every keyword that could be searched"),
    ):
        with pytest.raises(UsageError, match=words):
            ranges(parse(text), SCHEMA, over)


def test_a_merged_call_is_a_call():
    call = merged(parse("vae:hidden=8,likelihood=bernoulli"), {"latents": 7, "learning_rate": 0.00123456, "hidden": "none"})
    assert str(call) == "vae:latents=7,likelihood=bernoulli,learning_rate=0.00123" or call.training == {"learning_rate": 0.00123}
    assert call.keywords["latents"] == 7
    assert call.keywords["hidden"] is None


def test_budgets_are_divided_or_refused():
    assert unit_of(Budget(steps=UNITS * 7 + 3), 2).steps == 7
    assert unit_of(Budget(seconds=1200.0), 2).seconds == pytest.approx(0.85 * 2400 / UNITS)
    with pytest.raises(UsageError, match=f"{UNITS - 1} steps are too few"):
        unit_of(Budget(steps=UNITS - 1), 1)
    with pytest.raises(UsageError, match="3 seconds are too few for a search; give at least 48"):
        unit_of(Budget(seconds=3.0), 1)
    assert [seconds(t) for t in ("90s", "20m", "1.5h", "7")] == [90, 1200, 5400, 7]
    with pytest.raises(UsageError, match="'soon' is no time"):
        seconds("soon")


def test_a_search_reads_no_test_row_trains_and_resumes(tmp_path, monkeypatch):
    """A real one, of one step a unit; stopped in its middle it goes on, trains nothing twice, and ends with the same table."""
    read, real, done = Counter[str](), Dataset.split, list[str]()
    for name, value in (("LOOK", 50), ("SAMPLES", 2)):
        monkeypatch.setattr(attempts, name, value)
    monkeypatch.setattr(searches, "BRACKETS", 1)
    monkeypatch.setattr(Dataset, "split", lambda self, name: (read.update([name]), real(self, name))[1])
    calm = search(TINY, "digits-dynamic", Budget(steps=UNITS), tmp_path / "calm", Searching(over=("learning_rate", "latents")))
    assert set(read) == {"train", "validation"}

    def interrupted(of: Attempt) -> Outcome:
        if len(done) == 10:
            raise KeyboardInterrupt
        done.append(of.call)
        return attempt(of)

    with monkeypatch.context() as m:
        m.setattr(attempts, "attempt", interrupted)
        with pytest.raises(KeyboardInterrupt):
            search(TINY, "digits-dynamic", Budget(steps=UNITS), tmp_path / "cut", Searching(over=("learning_rate", "latents")))
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "cut").rglob("model.safetensors")}
    assert len(stamps) == 10
    found = search(TINY, "digits-dynamic", Budget(steps=UNITS), tmp_path / "cut", Searching(over=("learning_rate", "latents")))
    assert (found.best, found.tried, found.interval, found.gain) == (calm.best, calm.tried, calm.interval, calm.gain)
    assert stamps == {p: p.stat().st_mtime_ns for p in stamps}
    with pytest.raises(UsageError, match=r"holds another search \(seed is 0, now 1\)"):
        search(TINY, "digits-dynamic", Budget(steps=UNITS), tmp_path / "cut", Searching(over=("learning_rate", "latents"), seed=1))


def test_the_score_is_importance_sampling_on_validation_rows(tmp_path):
    of = Attempt("vae:latents=3,hidden=8", "digits-dynamic", 0, None, 20, str(tmp_path / "a"))
    found = attempt(of)
    from vaestro.evaluation.likelihood import importance
    from vaestro.training.runs import open_run

    x = torch.from_numpy(np.asarray(load("digits-dynamic").split("validation").arrays["x"])).float()
    due = -importance(open_run(tmp_path / "a").model, {"x": x}, 32, 0).log_px / math.log(2) / 64
    assert (found.metric, found.steps, found.failed) == ("bits_per_dim", 20, "")
    np.testing.assert_allclose(found.rows, due, rtol=1e-5)
    assert found.value == pytest.approx(np.mean(found.rows))
    assert outcome(of) == found == attempt(of)
    (tmp_path / "a" / "score.json").write_text("{}")
    with pytest.raises(VaestroError, match="is damaged; delete its folder"):
        attempt(of)


def test_a_model_without_a_density_has_its_own_validation_loss_and_a_broken_call_its_reason(tmp_path):
    found = attempt(Attempt("ae:latents=3,hidden=8", "digits-dynamic", 0, None, 20, str(tmp_path / "a")))
    assert (found.metric, found.rows) == ("validation", ())
    assert math.isfinite(found.value)
    broken = attempt(Attempt("vae:learning_rate=1e30,hidden=8", "digits-dynamic", 0, None, 200, str(tmp_path / "b")))
    assert broken.failed
    assert outcome(Attempt("vae:learning_rate=1e30,hidden=8", "digits-dynamic", 0, None, 200, str(tmp_path / "b"))).failed == broken.failed


def test_processes_give_what_one_gives(tmp_path):
    calls = [f"vae:latents={n},hidden=8" for n in (2, 3)]
    here = done_by([Attempt(c, "digits-dynamic", 0, None, 10, str(tmp_path / f"here-{i}")) for i, c in enumerate(calls)], 1, "here")
    there = done_by([Attempt(c, "digits-dynamic", 0, None, 10, str(tmp_path / f"there-{i}")) for i, c in enumerate(calls)], 2, "there")
    assert [o.value for o in here] == pytest.approx([o.value for o in there], rel=1e-6)


class World:
    """Calls whose scores are known: a smooth function of their keywords, noise of rows that all share, and luck of seeds."""

    def __init__(self, depth: float, broken: bool = False) -> None:
        self.depth, self.broken, self.asked = depth, broken, list[Attempt]()
        self.hard = np.random.default_rng(0).normal(0, 0.3, 200)

    def __call__(self, jobs, processes, what):
        self.asked += jobs
        return [self.one(j) for j in jobs]

    def one(self, job: Attempt) -> Outcome:
        rate = dict(p.split("=") for p in job.call.partition(":")[2].split(",") if p).get("learning_rate", "0.002")
        if self.broken:
            return Outcome(failed="ValueError: no such luck")
        rng = np.random.default_rng([job.seed, round(float(rate) * 1e6)])
        loss = 1 + self.depth * (math.log10(float(rate)) + 2) ** 2
        rows = loss + self.hard + rng.normal(0, 0.01) + rng.normal(0, 0.05, 200)
        return Outcome("bits_per_dim", "bits", float(rows.mean()), tuple(rows), 1.0, job.steps or 1)


def test_halving_keeps_a_third_and_finds_what_is_better(tmp_path, monkeypatch):
    world = World(0.5)
    monkeypatch.setattr(searches, "done_by", world)
    found = search("vae", "digits-dynamic", Budget(steps=UNITS * 10), tmp_path, Searching(over=("learning_rate",)))
    first = world.asked[:18]
    assert [(j.steps, j.seed) for j in first] == [(90, s) for s in range(3)] + [(10, 0)] * 9 + [(30, 0)] * 3 + [(90, s) for s in range(3)]
    rungs = [sorted({j.call for j in part}, key=lambda c: world.one(Attempt(c, "", 0, None, 1, "")).value) for part in (first[3:12], first[12:15], first[15:])]
    assert rungs[0][:3] == rungs[1]
    assert rungs[1][0] == rungs[2][0]
    assert sum(j.steps for j in world.asked) <= UNITS * 10
    assert abs(math.log10(parse(found.best).training["learning_rate"]) + 2) < 0.2  # the optimum is 0.01, the default 0.002
    due = 0.5 * (math.log10(0.002) + 2) ** 2 - 0.5 * (math.log10(parse(found.best).training["learning_rate"]) + 2) ** 2
    assert found.gain.low - 0.02 < due < found.gain.high + 0.02
    assert found.gain.low > 0
    assert found.tried[0].call == found.best
    assert json.loads((tmp_path / "found.json").read_text())["best"] == found.best


def test_it_stops_when_the_interval_says_that_more_cannot_help(tmp_path, monkeypatch):
    world = World(0.0)
    monkeypatch.setattr(searches, "done_by", world)
    found = search("vae", "digits-dynamic", Budget(steps=UNITS * 10), tmp_path, Searching(over=("learning_rate",)))
    assert "2 brackets in a row found nothing" in found.ended
    assert found.gain is None or found.gain.low <= 0
    assert len({j.folder for j in world.asked}) <= 3 + 2 * 15


def test_a_search_ends_with_its_time(tmp_path, monkeypatch):
    monkeypatch.setattr(searches, "done_by", World(0.5))
    clock = iter(np.arange(0, 1e6, 400.0))
    monkeypatch.setattr(searches.time, "monotonic", lambda: float(next(clock)))
    found = search("vae", "digits-dynamic", Budget(seconds=1200.0), tmp_path, Searching(over=("learning_rate",)))
    assert found.ended == "the budget is spent"


def test_where_every_call_fails_the_reason_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(searches, "done_by", World(0.5, broken=True))
    with pytest.raises(VaestroError, match="every call failed, the first with: ValueError: no such luck"):
        search("vae", "digits-dynamic", Budget(steps=UNITS), tmp_path)


def test_without_optuna_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match=r"pip install 'vaestro\[search\]'"):
        search("vae", "digits-dynamic", Budget(steps=UNITS), tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(searches, "done_by", World(0.5))
    monkeypatch.chdir(tmp_path)
    out = CliRunner().invoke(app, ["search", "vae", "digits-dynamic", "--steps", str(UNITS), "--over", "learning_rate"])
    assert out.exit_code == 0, out.output
    for words in ("Best:    vae:learning_rate=0.0", "Gain:    0.2", "Next:    vaestro train vae:learning_rate=", "Ended:"):
        assert words in out.output, words
    assert Path("searches/vae-digits-dynamic/found.json").is_file()
    again = CliRunner().invoke(app, ["search", "vae", "digits-dynamic", "--steps", str(UNITS), "--over", "learning_rate", "--json"])
    assert json.loads(again.stdout)["best"] in out.output
    both = CliRunner().invoke(app, ["search", "vae", "digits-dynamic", "--steps", "9", "--budget", "9s"])
    assert both.exit_code == 2
    assert "give only one of them" in both.output


OWN = """
import vaestro
from vaestro.recipes import RECIPES
@vaestro.recipe
def mine_to_search(schema, latents: int = 3):
    return RECIPES["vae"].build(schema, latents=latents, hidden=(8,))
"""


def test_scores_of_an_own_file_are_those_of_the_file_as_it_is(tmp_path, monkeypatch):
    """A changed file is another search, and the next command names the file."""
    monkeypatch.setattr(searches, "done_by", World(0.5))
    monkeypatch.setattr(RECIPES, "_parts", dict(RECIPES._parts))
    monkeypatch.setattr(files, "_BROUGHT", {})
    file = tmp_path / "my models.py"
    file.write_text(OWN)
    asked = ["search", "mine_to_search", "digits-dynamic", "--steps", str(UNITS), "--over", "learning_rate", "--from", str(file), "--out", str(tmp_path / "s")]
    out = CliRunner().invoke(app, asked)
    assert out.exit_code == 0, out.output
    assert re.search(f"Next:    vaestro train mine_to_search:learning_rate=[0-9.]+ digits-dynamic --from '{file}'\n", out.output)
    assert CliRunner().invoke(app, asked).exit_code == 0  # the same file goes on
    file.write_text(OWN + "# mended\n")
    again = CliRunner().invoke(app, asked)
    assert again.exit_code == 2
    assert "holds another search (own file is '" in again.output
