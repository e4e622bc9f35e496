"""Challenges, entrants and runs of an arena: what is refused, what is recorded, and that nothing is lost when processes are killed."""

import hashlib
import html
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from vaestro.arena import CHALLENGES, board, check, forget_failures, load_challenge, new, report, run
from vaestro.arena import result as results
from vaestro.arena.challenge import FILE, SHIPPED
from vaestro.arena.display import Lines, Quiet, last_line, outcome, progress
from vaestro.arena.engine import PATIENCE, Here, Local, Standing, _Slot
from vaestro.arena.entry import Job, entrants, identity, own_entrant
from vaestro.arena.folder import Arena, open_arena
from vaestro.arena.running import compete, resolve
from vaestro.arena.scoring import plane
from vaestro.data import load
from vaestro.errors import UsageError, VaestroError
from vaestro.evaluation.metrics import METRICS
from vaestro.evaluation.scope import fixed_rows
from vaestro.recipes import RECIPES
from vaestro.training.files import file_sha256
from vaestro.training.process import STOPPED
from vaestro.training.runs import open_run

pytestmark = pytest.mark.usefixtures("as_it_was")
TINY = ("vae:latents=3,hidden=16", "ae:latents=3,hidden=16")
HERE = Path(__file__).parent


def tiny(folder: Path, steps: int = 20, **changes: str) -> Path:
    """A challenge folder of the small digits with a budget of a few steps."""
    folder.mkdir(parents=True, exist_ok=True)
    text = (SHIPPED / "digits-dynamic.toml").read_text()
    text = re.sub(r"^seconds = \d+", f"steps = {steps}", text, flags=re.M).replace("samples = 100\n", "samples = 20\n")
    for old, fresh in changes.items():
        text = re.sub(f"^{old} = .*", f"{old} = {fresh}", text, flags=re.M)
    (folder / FILE).write_text(text)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """An arena of two entrants with two seeds, run in this process."""
    place = tmp_path_factory.mktemp("small")
    challenge = load_challenge(tiny(place / "challenge"))
    return compete(Arena(place / "arena", challenge, "quick"), entrants(TINY, ()), Here(), Quiet())


@pytest.mark.parametrize("name", CHALLENGES)
def test_shipped_challenges_are_declared_whole(name):
    rules = load_challenge(name).rules
    assert rules.name == name
    assert {"quick", "standard"} <= set(rules.tiers)
    assert rules.headline.metric in rules.metrics
    assert len(rules.entrants) == 8
    assert len(rules.tier("quick").seeds) == 2
    assert len(rules.tier("standard").seeds) == 3
    assert all(p.protocol and p.source for p in rules.published)
    needed = {m.rpartition("_")[0] for m in load_challenge(name).rules.metrics}
    assert {"frechet", "coverage"} <= needed or {"modes", "on"} <= needed, "quality and diversity, by features or by known modes"


def test_shipped_digits_have_their_hash():
    assert load_challenge("digits").open_data().sha256 == load_challenge("digits-dynamic").rules.data.sha256


@pytest.mark.parametrize(
    ("old", "fresh", "words"),
    [
        ("headline", "headlines", "headlines is an unknown key; did you mean headline"),
        ("source = ", "sourc = ", "data.source is missing|data.sourc is an unknown key; did you mean source"),
        ("version = \"1\"", "version = 1", "version: Input should be a valid string"),
        ("steps = 20", "steps = 20\nseconds = 3", "either seconds or steps"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "a seed is given once"),
        ("seeds = [0, 1]", "seeds = []", "tiers.quick.seeds"),
        ("seeds = [0, 1]", "seeds = [18446744073709551616]", "tiers.quick.seeds.0: Input should be less than 18446744073709551616"),
        ("rows = 1000\n", "rows = 0\n", "tiers.quick.rows: Input should be greater than or equal to 1"),
        ("rows = 1000", "row = 1000", "tiers.quick.rows is missing|tiers.quick.row is an unknown key; did you mean rows"),
        ('"nll", "recon', '"nil", "recon', "metrics names 'nil', which is no metric"),
        ('metric = "nll"', 'metric = "precision_judge"', "is not among the metrics"),
        ("steps = 20", 'steps = 20\nmetrics = ["pnsr"]', "metrics names 'pnsr', which is no metric; did you mean psnr"),
        ("steps = 20", 'steps = 20\nmetrics = ["nll"]', "metric 'nll' is named twice"),
        ("steps = 20", 'steps = 20\nmetrics = ["kernel_judge"]', "need data.judge"),
        ('"frechet_pca64"', '"frechet_judge"', "need data.judge"),
        ('source = "digits-dynamic"', 'source = "../elsewhere"', "a path inside the challenge's own folder"),
        ('source = "digits-dynamic"', 'source = "/tmp/data"', "a path inside the challenge's own folder"),
        ('"iwae"', '"iwea"', "there is no recipe called 'iwea'; did you mean iwae"),
        ('sha256 = "0', 'sha256 = "', "data.sha256"),
        ("format = 1", "format = 2", "format: Input should be 1"),
        ("format = 1", "format = ", "cannot be read as TOML"),
    ],
)  # fmt: skip
def test_a_wrong_challenge_is_refused_in_one_sentence(tmp_path, old, fresh, words):
    file = tiny(tmp_path / "c") / FILE
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, fresh))
    with pytest.raises(UsageError, match=words) as refusal:
        load_challenge(tmp_path / "c")
    assert str(file) in str(refusal.value)


def test_names_of_challenges_and_tiers_that_are_not_there(tmp_path):
    with pytest.raises(UsageError, match="no challenge called 'mnist-dynamc'; did you mean mnist-dynamic"):
        load_challenge("mnist-dynamc")
    with pytest.raises(UsageError, match="has no tier 'quik'; did you mean quick"):
        load_challenge("digits").rules.tier("quik")
    with pytest.raises(UsageError, match=r"has no challenge.toml; `vaestro arena new"):
        load_challenge(tmp_path)
    with pytest.raises(UsageError, match="jobs is 0"):
        run("digits", out=tmp_path / "a", jobs=0)
    assert not (tmp_path / "a").exists()


def test_the_hash_of_the_rules_covers_what_binds_and_nothing_else(tmp_path):
    base = load_challenge(tiny(tmp_path / "a")).rules
    words = load_challenge(tiny(tmp_path / "b", title='"Another title"', about='"x"', entrants='["vae"]', metrics='["nll"]')).rules
    assert words.sha256("quick") == base.sha256("quick")
    changed = [("rows", "10"), ("samples", "7"), ("sha256", f'"{"0" * 64}"'), ("version", '"2"')]
    hashes = [load_challenge(tiny(tmp_path / k, **{k: v})).rules.sha256("quick") for k, v in changed]
    assert len({base.sha256("quick"), base.sha256("standard"), *hashes}) == len(changed) + 2


def test_a_tier_may_have_entrants_of_its_own(tmp_path):
    rules = load_challenge("mnist-dynamic").rules
    assert rules.calls("quick") == (*rules.entrants, *rules.classical)
    assert rules.calls("standard") == (*rules.entrants, "gan", *rules.classical)
    file = tiny(tmp_path / "c") / FILE
    file.write_text(file.read_text().replace('entrants = ["gan"]', 'entrants = ["gann"]'))
    with pytest.raises(UsageError, match="gann.*did you mean gan"):
        load_challenge(file.parent)


def test_changed_data_are_refused(tmp_path):
    challenge = load_challenge(tiny(tmp_path / "c", sha256=f'"{"0" * 64}"'))
    with pytest.raises(VaestroError, match="their hash differs"):
        challenge.open_data()


def test_quick_falls_back_to_the_digits_and_says_so(monkeypatch):
    monkeypatch.setattr("vaestro.arena.challenge.load", lambda s: load(s) if s.startswith("digits") else _none(s))
    found, notes = resolve("quick")
    assert found.rules.name == "digits-dynamic"
    assert len(notes) == 1
    assert "no place has it" in notes[0]
    assert "running digits-dynamic in its place" in notes[0]


def _none(name: str):
    raise VaestroError(f"{name}: no place has it")


def test_fixed_rows_are_distinct_spread_and_the_same_for_everybody():
    found = fixed_rows(10_000, 1000)
    assert torch.equal(found, fixed_rows(10_000, 1000))
    assert len(found.unique()) == 1000
    assert torch.equal(found, found.sort().values)
    assert 4500 < found.double().mean() < 5500
    assert torch.equal(fixed_rows(7, 100), torch.arange(7))


def test_the_plane_is_the_principal_one():
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(500, 6)) @ np.diag([5, 3, 1, 0.5, 0.2, 0.1]) @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    flat = plane(codes)
    values = np.linalg.eigvalsh(np.cov(codes.T))[::-1]
    np.testing.assert_allclose(np.cov(flat.T), np.diag(values[:2]), atol=1e-9)
    np.testing.assert_array_equal(plane(-codes), -flat * np.sign((-flat * plane(-codes)).sum(0)))
    assert plane(codes[:, :1]).shape == (500, 2)


def test_identities_are_stable_and_different():
    challenge = load_challenge("digits")
    digest = hashlib.sha256(b'["vae", 0, "digits-dynamic", "1", "quick"]').hexdigest()
    assert identity("vae", 0, challenge, "quick") == f"vae-{digest[:8]}"
    names = {identity(c, s, challenge, t) for c in ("vae", "vae:latents=3") for s in (0, 1) for t in ("quick", "standard")}
    assert len(names) == 8


def test_results_hold_what_was_done(small):
    found = [results.read(p) for p in open_arena(small).results]
    assert sorted((r.call, r.seed) for r in found) == sorted((c, s) for c in TINY for s in (0, 1))
    vae = next(r for r in found if r.recipe.paper.startswith("Kingma") and r.seed == 0)
    rows = results.arrays(small / "results", vae, "rows")
    assert vae.steps == 20
    assert {"nll", "elbo", "kl", "reconstruction_mse"} <= set(rows)
    for name, values in rows.items():
        assert values.dtype == np.float64
        assert values.shape == (180,)
        assert vae.metrics[name].value == pytest.approx(values.mean(), rel=1e-12)
        assert vae.metrics[name].error == pytest.approx(values.std(ddof=1) / 180**0.5, rel=1e-9)
    model = open_run(small / "runs" / vae.id)
    assert vae.weights_sha256 == model.about["weights_sha256"]
    assert vae.parameters == sum(p.numel() for p in model.model.parameters())
    assert rows["nll"].mean() <= -rows["elbo"].mean()


def test_the_score_is_that_of_the_public_metric_on_the_same_rows(small):
    vae = next(r for r in map(results.read, open_arena(small).results) if r.call.startswith("vae") and r.seed == 1)
    model = open_run(small / "runs" / vae.id)
    x = torch.from_numpy(np.asarray(load("digits-dynamic").split("test").arrays["x"])).float()  # all 180 rows, in order
    from vaestro.evaluation.likelihood import importance

    found = importance(model.model, {"x": x}, 20, 0)
    np.testing.assert_allclose(-results.arrays(small / "results", vae, "rows")["nll"], found.log_px, rtol=1e-6)


def test_features_of_the_rows_are_kept_for_all_runs(small):
    kept = {p.name for p in (small / "features").iterdir()}
    assert "judge-test-180.safetensors" in kept or "pca64-test-180.safetensors" in kept


def test_an_autoencoder_has_no_nats(small):
    ae = next(r for r in map(results.read, open_arena(small).results) if r.call.startswith("ae"))
    assert not {"nll", "elbo", "kl", "bits_per_dim", "cross_entropy"} & set(ae.metrics)
    assert "its posterior of 'z' is a point" in ae.refused["nll"]
    assert "reconstruction_mse" in ae.metrics
    line = next(x for x in board(small).lines if x.call.startswith("ae"))
    assert line.state == "unranked"
    assert line.rank is None


def test_a_second_run_changes_nothing(small):
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(small.rglob("*")) if p.is_file() and "results" in p.parts}
    compete(Arena(small, load_challenge(small.parent / "challenge"), "quick"), entrants(TINY, ()), Here(), Quiet())
    assert before == {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in before}


def test_another_challenge_or_process_in_the_same_folder_is_refused(small, tmp_path):
    other = load_challenge(tiny(tmp_path / "c", version='"2"'))
    with pytest.raises(VaestroError, match="holds results of another challenge \\(version is '1', now '2'\\)"):
        compete(Arena(small, other, "quick"), entrants(TINY, ()), Here(), Quiet())
    from vaestro.training.files import locked

    with locked(small), pytest.raises(VaestroError, match="in use by another process"):
        compete(Arena(small, load_challenge(small.parent / "challenge"), "quick"), entrants(TINY, ()), Here(), Quiet())


def test_the_report_is_one_page_that_asks_for_nothing(small, tmp_path):
    text = report(small, tmp_path / "page.html").read_text()
    assert len(text) < 2_000_000
    assert "<script" not in text
    assert not re.findall(r"""(?:src|href)=["'](?!data:image/png;base64,|#)""", text)
    assert "@import" not in text
    assert "url(" not in text
    for words in ("demonstration", "Kingma &amp; Welling 2014", "log p(x) &gt;= E_q", "its posterior of", "20 steps", "Held-out rows", "sha256"):
        assert words in text, words
    for term in ("loss", "reconstruction", "kl", "validation", "active units"):
        assert f"<b>{term}</b>" in text, term
    assert text == report(small, tmp_path / "again.html").read_text()


def test_check_finds_what_was_altered(small, tmp_path):
    copy = tmp_path / "arena"
    shutil.copytree(small, copy)
    from vaestro.arena import write_board

    write_board(copy)
    assert [c for c in check(copy) if c.problem] == []
    victims = sorted((copy / "results").glob("*.npz"))
    victims[0].write_bytes(victims[0].read_bytes() + b"x")
    (copy / "board.json").write_text((copy / "board.json").read_text().replace('"rank": 1', '"rank": 2'))
    result = sorted((copy / "results").glob("*.json"))[-1]
    result.write_text(result.read_text().replace('"seed": ', '"seed": 1'))
    wrong = {c.what.split()[0] for c in check(copy) if c.problem}
    assert f"results/{victims[0].name.split('.')[0]}.json" in wrong
    assert f"results/{result.name}" in wrong
    assert "board.json" in wrong
    with pytest.raises(UsageError, match="is not the folder of an arena"):
        check(tmp_path)


OWN = '''
from vaestro.recipes import RECIPES, recipe

def mine(schema, latents: int = 3):
    """My own model."""
    return RECIPES["vae"].build(schema, latents=latents, hidden=(16,))

def broken(schema):
    raise RuntimeError("no such luck\\nsecond line")
'''


def test_own_models_stand_beside_the_others_and_failures_have_their_reason(tmp_path):
    file = tmp_path / "own_models.py"
    file.write_text(OWN)
    arena = Arena(tmp_path / "arena", load_challenge(tiny(tmp_path / "c", seeds="[0]")), "quick")
    who = entrants(("vae:latents=3,hidden=16",), (f"{file}:mine:latents=2", f"{file}:broken"))
    compete(arena, who, Here(), Quiet())
    lines = {x.call: x for x in board(arena.folder).lines}
    assert lines["mine:latents=2"].state == "ranked"
    assert lines["broken"].state == "failed"
    assert lines["broken"].reasons[0].startswith("seed 0: RuntimeError: no such luck (the trace stands in logs/broken-")
    mine = next(r for r in map(results.read, arena.results) if r.call.startswith("mine"))
    assert mine.own is not None
    assert mine.own.sha256 == file_sha256(file)
    assert mine.own.file == "own_models.py"
    assert mine.recipe.summary == "My own model."
    assert "no such luck" in report(arena.folder).read_text()
    stamps = {p: p.stat().st_mtime_ns for p in arena.results}
    compete(arena, who, Here(), Quiet())  # the failed one is not tried again
    assert stamps == {p: p.stat().st_mtime_ns for p in arena.results}
    assert forget_failures(arena.folder) == 1
    assert len(arena.results) == 2


def test_own_entries_that_are_none(tmp_path):
    file = tmp_path / "models.py"
    file.write_text("def mine(schema): ...\n")
    for text, words in (
        ("mine", "names no recipe of a file"),
        (f"{tmp_path}/no.py:mine", "there is no file"),
        (f"{file}:main", "has no function 'main'; did you mean mine"),
    ):
        with pytest.raises(UsageError, match=words):
            own_entrant(text)
    file.write_text("1 / 0\n")
    with pytest.raises(VaestroError, match="models.py, line 1: ZeroDivisionError: division by zero; mend it"):
        own_entrant(f"{file}:mine")
    file.write_text("import functools\ndef mine(schema, words: str = ''): ...\npart = functools.partial(mine, words='a')\n")
    with pytest.raises(UsageError, match="a recipe is a function, and this is a partial, which has no name; write a function"):
        own_entrant(f"{file}:part")
    with pytest.raises(UsageError, match=r"the call 'mine:words=a.x1bb' cannot be printed; leave its odd characters out"):
        entrants((), (f"{file}:mine:words=a\x1bb",))
    with pytest.raises(UsageError, match="'vae' is entered twice"):
        entrants(("vae", "vae"), ())


def test_a_file_does_not_take_the_place_of_another_with_the_same_function(tmp_path):
    arena = Arena(tmp_path / "arena", load_challenge(tiny(tmp_path / "c", seeds="[0]", metrics='["nll", "steps"]')), "quick")
    files = [tmp_path / name / "m.py" for name in ("first", "other")]
    for file, latents in zip(files, (2, 3), strict=True):
        file.parent.mkdir()
        file.write_text(OWN.replace("latents: int = 3", f"latents: int = {latents}"))

    def compete_anew(file: Path) -> str:
        """The hash of the file that the result was made with, as a session of its own leaves it."""
        RECIPES._parts.pop("mine", None)
        compete(arena, entrants((), (f"{file}:mine",)), Here(), Quiet())
        return results.read(arena.results[0]).own.sha256

    assert compete_anew(files[0]) == file_sha256(files[0])
    before = {p: p.read_bytes() for p in arena.folder.rglob("*") if p.is_file() and {"runs", "results"} & set(p.parts)}
    with pytest.raises(UsageError, match=f"has runs of 'mine' from {files[0]}, not from {files[1]}; rename the function, or choose another folder"):
        compete_anew(files[1])
    assert before == {p: p.read_bytes() for p in before}
    files[0].write_text(files[0].read_text() + "# changed\n")
    assert compete_anew(files[0].parent / ".." / "first" / "m.py") == file_sha256(files[0])  # the same file by another name is begun anew
    shutil.rmtree(arena.folder / "runs")  # then the name of the file is all that is known
    renamed = files[0].with_name("n.py")
    renamed.write_text(files[1].read_text())
    with pytest.raises(UsageError, match="has runs of 'mine' from m.py, not from .*n.py"):
        compete_anew(renamed)


def test_a_recipe_is_decorated_with_words_or_without(tmp_path):
    file = tmp_path / "bare_model.py"
    file.write_text("import vaestro\n@vaestro.recipe\ndef bare(schema):\n    'Bare.'\n@vaestro.recipe()\ndef called(schema):\n    'Called.'\n")
    assert [e.call.entry.summary for e in entrants((), (f"{file}:bare", f"{file}:called"))] == ["Bare.", "Called."]
    assert RECIPES["bare"].group == "own"


def test_a_reason_that_no_file_can_hold_is_told_all_the_same(tmp_path, capsys):
    file = tmp_path / "odd_models.py"
    file.write_text("def odd(schema):\n    raise ValueError('odd \\ud800 \\x1b[2J words')\n")
    arena = Arena(tmp_path / "arena", load_challenge(tiny(tmp_path / "c", seeds="[0]")), "quick")
    who = entrants((), (f"{file}:odd",))
    compete(arena, who, Here(), Quiet())
    said = r"ValueError: odd \ud800 \x1b[2J words"
    assert results.read(arena.results[0]).reason.startswith(f"{said} (the trace stands in logs/odd-")
    job = who[0].job(0, arena.challenge, "quick", arena.folder)
    assert said in job.log.read_text(encoding="utf-8")
    assert said in outcome(job)


def test_a_process_that_is_told_to_stop_again_and_again_is_given_up_in_words(tmp_path):
    challenge = load_challenge(tiny(tmp_path / "c"))
    for status, words in ((STOPPED, "its process was told to stop 10 times"), (-9, "its process was ended by signal 9 10 times, perhaps for lack of memory")):
        job = entrants(("vae",), ())[0].job(0, challenge, "quick", tmp_path / str(status))
        (engine := Local(1)).deaths[job.id] = PATIENCE - 1
        process = subprocess.Popen(["sh", "-c", "kill -9 $$" if status < 0 else f"exit {status}"], stdin=subprocess.PIPE)
        process.wait()
        assert engine._ended(_Slot(job, process), Standing(1))
        assert results.read(job.result).reason == words


def test_the_display_follows_the_files_of_a_run(small, capsys):
    job = next(Job(p.stem, results.read(p).call, 0, "digits", "quick", str(small)) for p in open_arena(small).results)
    shown = progress(job)
    assert shown.steps == "20/20"
    assert "loss" in shown.terms
    assert last_line(small / "nothing") == {}
    from rich.console import Console

    lines = Lines(Console(width=200))
    standing = Standing(2, running={job.id: (job, 0.0)})
    lines.tell(standing)
    lines.tell(standing)
    standing.finish(job)
    lines.tell(standing)
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(f"[0/2] begins: {job.call}, seed 0")
    assert out[1].startswith(f"[1/2] done: {job.call}, seed 0: reconstruction_mse 0.")
    assert len(out) == 2


RUNNER = "import sys; from vaestro.arena import run; run(sys.argv[1], out=__import__('pathlib').Path(sys.argv[2]), jobs=2, only=sys.argv[3:])"


def test_killed_at_any_moment_nothing_is_lost_or_counted_twice(tmp_path):
    """A worker is killed under its runner, then the runner itself; the third session ends with the weights of an undisturbed run."""
    calls = ["vae:latents=3,hidden=16", "vae:latents=4,hidden=16"]
    challenge = tiny(tmp_path / "c", steps=800, seeds="[0]", metrics='["nll", "steps"]')
    command = [sys.executable, "-c", RUNNER, str(challenge), str(tmp_path / "arena"), *calls]
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(HERE.parent / "src")}
    runner = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    workers = _training(tmp_path / "arena", runner)
    workers[0].kill()
    deadline = time.monotonic() + 60
    while workers[0].pid in [w.pid for w in psutil.Process(runner.pid).children()] and time.monotonic() < deadline:
        time.sleep(0.05)
    children = psutil.Process(runner.pid).children()
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    _, alive = psutil.wait_procs(children, 30)
    assert not alive, "workers outlive their runner"
    subprocess.run(command, env=environment, check=True, timeout=120, stderr=subprocess.DEVNULL)
    found = [results.read(p) for p in open_arena(tmp_path / "arena").results]
    assert sorted(r.call for r in found) == calls
    assert {r.status for r in found} == {"done"}
    calm = Arena(tmp_path / "calm", load_challenge(challenge), "quick")
    compete(calm, entrants(calls, ()), Here(), Quiet())
    assert {r.id: r.weights_sha256 for r in found} == {r.id: r.weights_sha256 for r in map(results.read, calm.results)}
    assert {r.id: r.metrics["nll"].value for r in found} == {r.id: r.metrics["nll"].value for r in map(results.read, calm.results)}


def _training(arena: Path, runner: subprocess.Popen) -> list[psutil.Process]:
    """The workers, once one of them has begun to train."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(arena.glob("runs/*/metrics.jsonl")):
        assert runner.poll() is None, "the runner ended early"
        time.sleep(0.05)
    return psutil.Process(runner.pid).children()


def test_a_challenge_of_ones_own_pictures(tmp_path):
    rng = np.random.default_rng(0)
    x = (rng.random((120, 9, 7)) * 255).astype(np.uint8)
    np.savez(tmp_path / "mine.npz", x=x, label=np.arange(120) % 3)
    made = new(tmp_path / "mine.npz", tmp_path / "challenge")
    rules = made.rules
    assert rules.name == "mine"
    assert rules.headline.metric == "bits_per_dim"
    assert {"frechet_pca64", "coverage_pca64", "blur"} <= set(rules.metrics)
    assert all(m in METRICS for m in rules.metrics)
    assert {"vae", "ae", "iwae", "vamp", "top_down"} <= set(rules.entrants)
    data = made.open_data()
    assert data.sha256 == rules.data.sha256
    assert sum(data.schema.rows.values()) == 120
    moved = tmp_path / "moved 'and' quoted"
    (tmp_path / "challenge").rename(moved)
    assert load_challenge(moved).open_data().sha256 == rules.data.sha256  # nothing in it names its place
    with pytest.raises(UsageError, match="exists already"):
        new(tmp_path / "mine.npz", moved)
    file = moved / FILE
    file.write_text(file.read_text().replace("seconds = 30", "steps = 15").replace("samples = 100", "samples = 10"))
    arena = Arena(tmp_path / "arena", load_challenge(moved), "quick")
    compete(arena, entrants(("vae:latents=2,hidden=8",), ()), Here(), Quiet())
    assert board(arena.folder).ranked[0].values["bits_per_dim"].mean > 0
    assert [c for c in check(arena.folder) if c.problem] == []
    page = report(arena.folder).read_text()
    assert "data:image/png" in page
    again = shlex.split(html.unescape(re.search("<code>(vaestro train .*?)</code>", page)[1]))
    assert again == ["vaestro", "train", "vae:latents=2,hidden=8", f"{moved}/data", "--steps", "15", "--seed", "0"]
    assert load(again[3]).sha256 == rules.data.sha256
    other, about = new(x[::-1].copy(), tmp_path / "other"), arena.folder / "arena.json"  # sound data, and not those of these rules
    about.write_text(about.read_text().replace(str(moved), other.where))
    assert [c.what for c in check(arena.folder) if c.problem] == ["the data"]


def test_a_challenge_of_vectors_and_of_too_little(tmp_path, monkeypatch):
    x = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    made = new(x, tmp_path / "vectors", "my vectors")
    assert made.rules.name == "my-vectors"
    assert made.rules.headline.metric == "nll"
    assert not {"blur", "bits_per_dim"} & set(made.rules.metrics)
    with pytest.raises(UsageError, match="at least 2 test rows"):
        new(x[:4], tmp_path / "few")
    monkeypatch.setattr("vaestro.arena.making.rules", lambda *_: "no rules")
    with pytest.raises(UsageError, match="cannot be read as TOML"):
        new(x, tmp_path / "broken")
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["vectors"]
    odd = [new(x, tmp_path / f"odd{i}", name).rules for i, name in enumerate(("a\x7fb", "b\udce9d", 'c"\\\n\U0001f600'))]
    assert [(r.name, r.title) for r in odd] == [("a-b", "a\x7fb"), ("b-d", "b?d"), ("c", 'c"\\\n\U0001f600')]
    named = new("digits", tmp_path / "named")
    assert named.rules.data.source == "digits"
    assert not (tmp_path / "named" / "data").exists()
    assert json.dumps(sorted(p.name for p in (tmp_path / "named").iterdir())) == '["challenge.toml"]'


def test_classical_rows_without_latents_or_samples_stand_in_the_report(tmp_path):
    challenge = load_challenge(tiny(tmp_path / "challenge"))
    folder = compete(Arena(tmp_path / "arena", challenge, "quick"), entrants((TINY[0], "marginals", "png", "copier"), ()), Here(), Quiet())
    page = report(folder).read_text(encoding="utf-8")
    assert all(f">{name}" in page for name in ("marginals", "png", "copier"))
    for path in (folder / "results").glob("marginals-*.show.npz"):
        with np.load(path) as seen:
            assert seen["samples"].shape == (64, 1, 8, 8)
