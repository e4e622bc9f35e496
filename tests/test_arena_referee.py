"""What a referee may ask: is this row made as it says, may it stand, is it small enough, and what of columns that were declared later."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from test_arena import OWN, tiny
from vaestro.arena import board, check, disqualify, load_challenge, reinstate, render, replay, report, write_board
from vaestro.arena import result as results
from vaestro.arena.challenge import FILE
from vaestro.arena.display import Quiet
from vaestro.arena.engine import Here, Local
from vaestro.arena.entry import Job, entrants
from vaestro.arena.folder import Arena, open_arena
from vaestro.arena.removal import REMOVALS
from vaestro.arena.result import Result, seal
from vaestro.arena.running import compete
from vaestro.arena.worker import do
from vaestro.cli.app import app
from vaestro.errors import UsageError, VaestroError
from vaestro.recipes import RECIPES
from vaestro.training import train as training
from vaestro.training.files import file_sha256

pytestmark = pytest.mark.usefixtures("as_it_was")
CALLS = ("vae:latents=3,hidden=16", "iwae:latents=3,hidden=16")
METRICS = '["nll", "elbo", "active_units", "seconds", "steps"]'


@pytest.fixture(scope="module")
def held(tmp_path_factory) -> Path:
    """An arena of two entrants with two seeds."""
    place = tmp_path_factory.mktemp("held")
    challenge = load_challenge(tiny(place / "challenge", metrics=METRICS))
    return compete(Arena(place / "arena", challenge, "quick"), entrants(CALLS, ()), Here(), Quiet())


@pytest.fixture
def copy(held, tmp_path) -> Path:
    """A copy that a test may spoil."""
    shutil.copytree(held, tmp_path / "arena")
    return tmp_path / "arena"


def reseal(path: Path, **changes: object) -> None:
    """Change a result as a forger would who knows the seal."""
    raw = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(raw | {"sha256": seal(raw)}))


def of(folder: Path, call: str, seed: int) -> Result:
    return next(r for r in map(results.read, open_arena(folder).results) if (r.call, r.seed) == (call, seed))


def test_a_replay_gives_the_same_bits(held):
    before = {p: p.stat().st_mtime_ns for p in held.rglob("*")}
    found = replay(held, CALLS[0])
    assert [(r.seed, r.equal, r.same_machine, r.sound, r.steps) for r in found] == [(0, True, True, True, 20), (1, True, True, True, 20)]
    assert {s.metric for s in found[0].scores} == {"nll", "elbo", "active_units"}  # what only a clock says is not compared
    assert all(s.replayed == pytest.approx(s.recorded, rel=1e-6) for r in found for s in r.scores)
    assert before == {p: p.stat().st_mtime_ns for p in held.rglob("*")}
    cell, again = of(held, CALLS[0], 0).metrics["nll"], found[0].scores[0]
    assert (again.high - again.low) / 2 == pytest.approx(1.972 * cell.error, rel=2e-2)


def test_a_replay_without_a_name_is_of_the_leader(held):
    found = replay(held)
    assert {r.call for r in found} == {board(held).ranked[0].call}
    assert len(found) == 2


def test_a_score_that_was_made_up_does_not_come_again(copy):
    path = copy / "results" / f"{of(copy, CALLS[0], 0).id}.json"
    raw = json.loads(path.read_text())
    better = 10 * raw["metrics"]["nll"]["error"]
    raw["metrics"]["nll"]["value"] -= better
    rows = results.arrays(path.parent, of(copy, CALLS[0], 0), "rows")
    data = results.pack(rows | {"nll": rows["nll"] - better})
    path.with_suffix(".rows.npz").write_bytes(data)
    reseal(path, metrics=raw["metrics"], weights_sha256="0" * 64, rows_sha256=hashlib.sha256(data).hexdigest())
    (found,) = replay(copy, path.stem)
    assert not found.sound
    assert not found.equal
    assert [s.metric for s in found.scores if not s.within] == ["nll"]
    out = CliRunner().invoke(app, ["arena", "replay", str(copy), path.stem])
    assert out.exit_code == 1
    assert "1 run of 1 did not come again" in out.output
    assert "NO" in out.output


def test_another_machine_is_judged_by_scores_alone(copy):
    path = copy / "results" / f"{of(copy, CALLS[0], 0).id}.json"
    reseal(path, machine={"torch": "1.0", "threads": 1}, weights_sha256="0" * 64)
    (found,) = replay(copy, path.stem)
    assert (found.equal, found.same_machine, found.sound) == (False, False, True)


def test_a_run_that_met_its_deadline_is_stopped_at_the_same_step(copy, monkeypatch):
    """The schedules run over the planned steps, so 12 of 20 are other weights than 12 of 12."""
    challenge = load_challenge(tiny(copy.parent / "d", metrics=METRICS, seeds="[0]"))
    monkeypatch.setattr(training.Trainer, "go", _late(training.Trainer.go))
    folder = compete(Arena(copy.parent / "late", challenge, "quick"), entrants(CALLS[:1], ()), Here(), Quiet())
    monkeypatch.undo()
    made = of(folder, CALLS[0], 0)
    assert (made.steps, made.planned) == (12, 20)
    assert made.reason.startswith("deadline")
    (found,) = replay(folder, made.id)
    assert (found.steps, found.equal) == (12, True)


def _late(go):
    def stopped(self):
        object.__setattr__(self.plan.budget, "stop", 12)
        return go(self)

    return stopped


def test_what_cannot_be_replayed_is_refused_in_words(copy):
    with pytest.raises(UsageError, match="has no result of 'vae:latents=3,hidden=17'; did you mean vae:latents=3,hidden=16"):
        replay(copy, "vae:latents=3,hidden=17")
    path = copy / "results" / f"{of(copy, CALLS[0], 0).id}.json"
    reseal(path, planned=None, reason="early stopping: 3 validations")
    shutil.rmtree(copy / "runs" / path.stem)
    with pytest.raises(UsageError, match="does not say how many steps"):
        replay(copy, path.stem)
    reseal(path, status="failed", reason="no memory")
    with pytest.raises(UsageError, match="failed \\(no memory\\), so there is nothing to replay"):
        replay(copy, path.stem)
    reseal(path, seed=7, status="done")
    arena = json.loads((copy / "arena.json").read_text())
    (copy / "arena.json").write_text(json.dumps(arena | {"sha256": "0" * 64}))
    with pytest.raises(VaestroError, match="is not the challenge that arena.json describes"):
        replay(copy, path.stem)


def test_an_own_file_is_named_again_and_must_be_the_same(tmp_path):
    file = tmp_path / "own_models.py"
    file.write_text(OWN)
    challenge = load_challenge(tiny(tmp_path / "c", metrics=METRICS, seeds="[0]"))
    folder = compete(Arena(tmp_path / "arena", challenge, "quick"), entrants((), (f"{file}:mine:latents=2",)), Here(), Quiet())
    with pytest.raises(UsageError, match=r"comes from own_models.py, which is code of yours; name the file with --from"):
        replay(folder)
    assert replay(folder, own=file)[0].equal
    file.write_text(OWN + "\n")
    with pytest.raises(VaestroError, match="its hash differs"):
        replay(folder, own=file)


def test_a_disqualified_entry_stays_visible_and_ranks_nobody(copy):
    leader, other = [x.call for x in board(copy).ranked]
    values = dict(board(copy).lines[0].values)
    made = disqualify(copy, of(copy, leader, 1).id, "  tuned on\nthe test rows ")
    assert (made.call, made.why) == (leader, "tuned on the test rows")
    found = board(copy)
    line = found.lines[-1]
    assert (line.call, line.state, line.rank, line.reasons) == (leader, "disqualified", None, ("tuned on the test rows",))
    assert dict(line.values) == values
    assert [(x.call, x.rank, x.rank_high) for x in found.ranked] == [(other, 1, 1)]
    assert found.better == ()
    assert f"{leader} is disqualified: tuned on the test rows." in render(found)
    assert f"{leader} failed" not in render(found)
    assert "is disqualified: tuned on the test rows" in report(copy).read_text()
    write_board(copy)
    assert not [c for c in check(copy) if c.problem]
    assert REMOVALS in {c.what for c in check(copy)}
    with pytest.raises(UsageError, match="is disqualified already \\(tuned on the test rows\\)"):
        disqualify(copy, leader, "again")
    reinstate(copy, leader, "the logs cleared it")
    assert [x.call for x in board(copy).ranked] == [leader, other]
    assert [a["act"] for a in json.loads((copy / REMOVALS).read_text())["acts"]] == ["disqualify", "reinstate"]


def test_decisions_are_refused_in_words_and_sealed(copy):
    for name, why, words in (("nobody", "x", "has no result of 'nobody'"), (CALLS[0], "  ", f"to disqualify {CALLS[0]} takes a reason")):
        with pytest.raises(UsageError, match=words):
            disqualify(copy, name, why)
    with pytest.raises(UsageError, match="is not disqualified, so there is nothing to undo"):
        reinstate(copy, CALLS[0], "why not")
    assert not (copy / REMOVALS).exists()
    disqualify(copy, CALLS[0], "a copy")
    path = copy / REMOVALS
    path.write_text(path.read_text().replace("a copy", "no copy"))
    with pytest.raises(VaestroError, match=r"removals.json was altered"):
        board(copy)
    assert REMOVALS in {c.what for c in check(copy) if c.problem}
    path.write_text(path.read_text().replace("disqualify", "praise"))
    with pytest.raises(VaestroError, match=r"removals.json is malformed"):
        board(copy)


def test_the_commands_of_a_referee(copy):
    shell = CliRunner()
    out = shell.invoke(app, ["arena", "disqualify", str(copy), CALLS[0], "--why", "a copy"])
    assert out.exit_code == 0, out.output
    assert f"{CALLS[0]} is out: a copy." in out.output
    assert shell.invoke(app, ["arena", "check", str(copy)]).exit_code == 0
    assert json.loads((copy / "board.json").read_text())["lines"][-1]["state"] == "disqualified"
    assert shell.invoke(app, ["arena", "disqualify", str(copy), CALLS[0], "--why", "a copy"]).exit_code == 2
    assert "is back: cleared" in shell.invoke(app, ["arena", "reinstate", str(copy), CALLS[0], "--why", "cleared"]).output
    out = shell.invoke(app, ["arena", "replay", str(copy), of(copy, CALLS[0], 0).id, "--json"])
    assert out.exit_code == 0
    (said,) = json.loads(out.stdout)
    assert said["equal"]
    assert said["sound"]
    assert said["scores"][0]["metric"] == "nll"


def test_check_finds_two_results_of_one_call_and_seed(copy):
    path = copy / "results" / f"{of(copy, CALLS[0], 0).id}.json"
    raw = json.loads(path.read_text()) | {"id": "vae-00000000"}
    (path.parent / "vae-00000000.json").write_text(json.dumps(raw | {"sha256": seal(raw)}))
    for kind in ("rows", "show"):
        shutil.copy(path.with_name(f"{path.stem}.{kind}.npz"), path.with_name(f"vae-00000000.{kind}.npz"))
    (wrong,) = [c for c in check(copy) if c.problem]
    assert "with seed 0 has two results" in wrong.problem


def test_an_entrant_with_too_many_parameters_fails_before_it_trains(tmp_path):
    file = tiny(tmp_path / "c", metrics=METRICS, seeds="[0]") / "challenge.toml"
    free = load_challenge(tmp_path / "c").rules
    file.write_text(file.read_text().replace("[tiers.quick]", "[tiers.quick]\nparameters = 3000"))
    challenge = load_challenge(tmp_path / "c")
    assert challenge.rules.sha256("quick") != free.sha256("quick")
    assert challenge.rules.sha256("standard") == free.sha256("standard")
    small, large = "vae:latents=3,hidden=16", "vae:latents=3,hidden=64"
    folder = compete(Arena(tmp_path / "arena", challenge, "quick"), entrants((small, large), ()), Here(), Quiet())
    assert of(folder, small, 0).parameters == 64 * 16 + 16 + 16 * 6 + 6 + 3 * 16 + 16 + 16 * 64 + 64
    lost = of(folder, large, 0)
    assert lost.status == "failed"
    count = 64 * 64 + 64 + 64 * 6 + 6 + 3 * 64 + 64 + 64 * 64 + 64
    assert lost.reason == f"{large} trains {count:,} parameters, and the tier allows 3,000; enter it with smaller hidden or latents"
    assert not (folder / "runs" / lost.id).exists()


def test_a_run_of_another_budget_seed_or_call_is_not_scored_as_this_one(copy):
    """A longer run, trained elsewhere and laid into the folder, was scored as if it had kept to the budget."""
    first, other = of(copy, CALLS[0], 0), of(copy, CALLS[0], 1)
    about = json.loads((copy / "runs" / first.id / "run.json").read_text())
    job = Job(first.id, CALLS[0], 0, str(copy), "quick", str(copy))
    for changes, words in (
        ({"budget": {"steps": 999, "seconds": None}}, r"another budget \(.*999.*not .*20.*`vaestro arena run --retry` trains it anew"),
        ({"seed": other.seed}, "another seed"),
        ({"call": CALLS[1]}, "another call"),
        ({"done_steps": 999}, "it took 999 steps, and the tier allows 20"),
    ):
        job.result.unlink(missing_ok=True)
        (copy / "runs" / first.id / "run.json").write_text(json.dumps(about | changes))
        result = do(job)
        assert result.status == "failed" and re.search(words, result.reason), result.reason


def test_a_result_beyond_the_budget_is_on_no_board(copy):
    reseal(copy / "results" / f"{of(copy, CALLS[0], 0).id}.json", steps=21)
    with pytest.raises(VaestroError, match=r"it took 21 steps, and the tier allows 20; delete it and run the challenge again"):
        board(copy)
    timed = load_challenge("digits").rules.tier("quick")
    assert timed.excess(10**6, 9.9, 10**9) == ""  # a last step may end late
    assert timed.excess(0, 11.0, None) == "it took 11.0 seconds, and the tier allows 5.0"
    assert timed.model_copy(update={"parameters": 5}).excess(0, 1.0, 6) == "it took 6 parameters, and the tier allows 5"


def test_an_unfinished_run_of_an_older_file_is_begun_anew(tmp_path, monkeypatch):
    """It was gone on with, half of it trained by the old file, and passed for a run of the new one."""
    file = tmp_path / "own_models.py"
    file.write_text(OWN)
    arena = Arena(tmp_path / "arena", load_challenge(tiny(tmp_path / "c", metrics=METRICS, seeds="[0]")), "quick")
    compete(arena, entrants((), (f"{file}:mine",)), Here(), Quiet())
    [old] = [results.read(p) for p in arena.results]
    arena.results[0].unlink()  # as if it had been killed before it was scored
    file.write_text(OWN.replace("hidden=(16,)", "hidden=(8,)").replace("@recipe()", ""))
    with pytest.raises(UsageError, match="'mine' was entered before, from another file or from this one as it was then; start Python anew"):
        entrants((), (f"{file}:mine",))
    RECIPES._parts.pop("mine")
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # as if it were killed while it deletes: nothing half there is taken for the run
    compete(arena, entrants((), (f"{file}:mine",)), Here(), Quiet())
    [new] = [results.read(p) for p in arena.results]
    assert (old.status, new.status) == ("done", "done")
    assert new.own is not None and new.own.sha256 == file_sha256(file)
    assert new.parameters < old.parameters


def test_a_limit_that_is_not_set_leaves_the_hash_of_the_rules_alone():
    digits = load_challenge("digits").rules
    held = {"name": digits.name, "version": digits.version, "data": digits.data.model_dump(), "headline": digits.headline.metric}
    tier = digits.tier("quick").model_dump(exclude={"label", "parameters", "entrants", "metrics"})
    import hashlib

    assert digits.sha256("quick") == hashlib.sha256(json.dumps(held | {"tier": tier}, sort_keys=True).encode()).hexdigest()


def test_results_that_lack_a_new_metric_are_scored_again_from_their_runs(copy):
    challenge = load_challenge(tiny(copy.parent / "more", metrics='["nll", "elbo", "kl", "active_units", "seconds", "steps"]'))
    gone = of(copy, CALLS[1], 1)
    shutil.rmtree(copy / "runs" / gone.id)
    weights = {p: p.stat().st_mtime_ns for p in copy.rglob("model.safetensors")}
    before = of(copy, CALLS[0], 0)
    compete(Arena(copy, challenge, "quick"), entrants(CALLS, ()), Here(), Quiet())
    again = of(copy, CALLS[0], 0)
    assert "kl" not in before.metrics
    assert {**again.metrics, "seconds": 0} == {**before.metrics, "kl": again.metrics["kl"], "seconds": 0}
    assert again.weights_sha256 == before.weights_sha256
    assert weights == {p: p.stat().st_mtime_ns for p in copy.rglob("model.safetensors")}  # nothing was trained
    assert of(copy, CALLS[1], 1) == gone  # its run is no more, so its result stands as it is
    lines = {x.call: x for x in board(copy).lines}
    assert "kl" in lines[CALLS[0]].values
    assert lines[CALLS[1]].none["kl"] == "it was not measured"
    stamp = {p: p.stat().st_mtime_ns for p in copy.glob("results/*")}
    compete(Arena(copy, challenge, "quick"), entrants(CALLS, ()), Here(), Quiet())
    assert stamp == {p: p.stat().st_mtime_ns for p in copy.glob("results/*")}


def test_a_tier_measures_more_than_the_others(copy):
    text = (tiny(copy.parent / "more", metrics=METRICS) / FILE).read_text().replace("[tiers.quick]\n", '[tiers.quick]\nmetrics = ["psnr", "weights_size"]\n')
    (copy.parent / "more" / FILE).write_text(text)
    challenge = load_challenge(copy.parent / "more")
    assert challenge.rules.sha256("quick") == open_arena(copy).challenge.rules.sha256("quick")
    assert challenge.rules.measured(challenge.rules.tier("standard")) == challenge.rules.metrics
    before = board(copy)
    compete(Arena(copy, challenge, "quick"), entrants(CALLS, ()), Here(), Quiet())
    made = board(copy)
    assert [c.name for c in made.columns] == [*(c.name for c in before.columns), "psnr", "weights_size"]
    assert all({"psnr", "weights_size"} <= set(line.values) for line in made.lines)
    page = report(copy).read_text()
    assert re.findall(r"<h4>(Reconstruction|Cost|Density)</h4>", page) == ["Reconstruction", "Cost"]  # the columns of all tiers stand in the board itself
    first, other = page.index("<h2>The board</h2>"), page.index("<h4>Reconstruction</h4>")
    assert "<small>nats</small>" in page[first:other]
    assert "<small>dB</small>" in page[other:]
    assert "<small>dB</small>" not in page[first:other]
    assert replay(copy, CALLS[0])[0].sound


def test_a_run_whose_weights_were_altered_is_not_scored_again(copy):
    challenge = load_challenge(tiny(copy.parent / "more", metrics='["nll", "elbo", "kl", "active_units", "seconds", "steps"]'))
    first, other = of(copy, CALLS[0], 0), of(copy, CALLS[1], 0)
    shutil.copy(copy / "runs" / other.id / "model.safetensors", copy / "runs" / first.id / "model.safetensors")
    compete(Arena(copy, challenge, "quick"), entrants(CALLS, ()), Here(), Quiet())
    assert of(copy, CALLS[0], 0) == first


def test_threads_are_shared_out_or_given():
    assert Local(1000).threads == 1
    assert Local(2, 3).threads == 3
