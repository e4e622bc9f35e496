"""Training: exact resume after real kills, skipped steps, checkpoints, budgets, refusals."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vaestro import api
from vaestro.data import load
from vaestro.errors import UsageError, VaestroError
from vaestro.optimizers import OPTIMIZERS
from vaestro.plays import Move
from vaestro.recipes import call_of, parse
from vaestro.recipes.book import Recipe, Training
from vaestro.recipes.own import from_modules
from vaestro.schedules import RATES
from vaestro.seeds import mix
from vaestro.training import runs, train
from vaestro.training.budget import Budget, core, wall
from vaestro.training.diagnosis import diagnose
from vaestro.training.files import load_tensors, locked, save_tensors
from vaestro.training.listing import listing
from vaestro.training.loop import Loop, weights
from vaestro.training.record import cut_back, read_lines, tensorboard
from vaestro.training.train import Plan
from vaestro.uses.evaluate import Protocol, evaluate

SMALL = "vae:hidden=16,latents=2,batch=32"
TWO_PLAYERS = "vae_gan:hidden=4x4,latents=2,batch=16,clip=1,ema=0.9"


def plan(call: str = SMALL, steps: int = 30, seed: int = 0) -> Plan:
    return Plan(parse(call), load("digits-dynamic"), Budget(steps=steps), seed, "cpu")


def trained(folder: Path, call: str = SMALL, steps: int = 30, seed: int = 0) -> runs.Run:
    return runs.train(plan(call, steps, seed), folder, source="digits-dynamic")


def same(a: Path, b: Path) -> bool:
    left, right = (load_tensors(f / "model.safetensors")[0] for f in (a, b))
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from pathlib import Path
from vaestro.training import train, runs
train.EVERY = 0.02
sys.path.insert(0, sys.argv[4])
from test_training import plan
folder = Path(sys.argv[1])
if (folder / "run.json").exists():
    runs.resume(folder)
else:
    runs.train(plan(sys.argv[2], int(sys.argv[3])), folder, source="digits-dynamic")
"""


def start(folder: Path, call: str, steps: int) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(folder), call, str(steps), str(Path(__file__).parent)])


@pytest.mark.parametrize(("call", "steps"), [(SMALL + ",ema=0.99,patience=9", 500), (TWO_PLAYERS, 60)], ids=["one player", "three players"])
def test_killed_at_random_and_resumed_it_ends_with_equal_bits(tmp_path, call, steps):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    torch.set_num_threads(1)
    trained(whole, call, steps)
    kills, chance = 0, random.Random(7)
    for _ in range(12):
        process = start(cut, call, steps)
        deadline = time.monotonic() + 60
        while kills < 2 and not (cut / "run.json").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        if kills < 2:
            time.sleep(chance.uniform(0.05, 0.6))
            process.send_signal(signal.SIGKILL)
        process.wait(timeout=120)
        kills += process.returncode == -signal.SIGKILL
        if (cut / "run.json").exists() and json.loads((cut / "run.json").read_text())["status"] == "done":
            break
    assert kills >= 1
    assert same(whole, cut)
    keep = lambda f: [{k: v for k, v in line.items() if k != "seconds"} for line in read_lines(f / "metrics.jsonl")]  # noqa: E731
    assert [line["step"] for line in keep(cut)] == [line["step"] for line in keep(whole)]


def test_the_loop_returns_to_a_state_exactly():
    data, x = load("digits-dynamic"), torch.rand(16, 1, 8, 8).round()
    for call in (*(f"{SMALL},optimizer={name},learning_rate=0.0001" for name in OPTIMIZERS), TWO_PLAYERS):
        loops = [Loop(parse(call).cook(data.schema), 3, 20, torch.device("cpu")) for _ in range(2)]
        for _ in range(4):
            loops[0].step(lambda: {"x": x})
        state = {n: t.clone() for n, t in loops[0].state().items()}
        loops[1].load(state)
        for loop in loops:
            for _ in range(3):
                loop.step(lambda: {"x": x})
        a, b = (loop.state() for loop in loops)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[n], b[n]) for n in a), call


class Poison:
    """A play whose loss is NaN, or whose gradient is infinite, at one step."""

    def __init__(self, play, step: int, value: float) -> None:
        self.play, self.step, self.value = play, step, value

    def __call__(self, parts, batch, clock):
        for move in self.play(parts, batch, clock):
            yield move._replace(loss=move.loss * self.value) if clock.step == self.step else move


def by_paper(name, w, rate, steps):
    """The weight after some steps down w^2 / 2, whose gradient is w, by the formulas of the papers in float64."""
    b1, b2, tiny, decay = (0.5 if name == "adam_half" else 0.9), 0.999, 1e-8, 0.004
    m = v = u = 0.0
    share = 1.0  # of NAdam's momenta so far
    for t in range(1, steps + 1):
        g = w
        if name == "sgd":
            m = 0.9 * m + g
            w -= rate * (g + 0.9 * m)
            continue
        m, v, u = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g, max(b2 * u, abs(g) + tiny)
        first, second = m / (1 - b1**t), v / (1 - b2**t)
        if name in ("adam", "adam_half"):
            w -= rate * first / (second**0.5 + tiny)
        elif name == "adamw":
            w -= rate * 0.01 * w + rate * first / (second**0.5 + tiny)
        elif name == "adamax":
            w -= rate / (1 - b1**t) * m / u
        elif name == "nadam":
            now, then = (b1 * (1 - 0.5 * 0.96 ** (i * decay)) for i in (t, t + 1))
            share *= now
            w -= rate * ((1 - now) * g / (1 - share) + then * m / (1 - share * then)) / (second**0.5 + tiny)
        elif name == "radam":
            most = 2 / (1 - b2) - 1
            length = most - 2 * t * b2**t / (1 - b2**t)
            if length > 5:
                held = ((length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length)) ** 0.5
                w -= rate * first * held * (1 - b2**t) ** 0.5 / (v**0.5 + tiny)
            else:
                w -= rate * first
    return w


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_optimisers_are_those_of_their_papers(name):
    weight = nn.Parameter(torch.tensor([1.5], dtype=torch.float64))
    optimizer = OPTIMIZERS[name]([weight], 0.05)
    for _ in range(12):
        weight.grad = weight.detach().clone()
        optimizer.step()
    assert weight.detach().item() == pytest.approx(by_paper(name, 1.5, 0.05, 12), rel=1e-9)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_a_step_without_a_finite_gradient_is_skipped_and_counted(value, optimizer):
    data = load("digits-dynamic")
    recipe = parse(f"{SMALL},optimizer={optimizer},learning_rate=0.001,clip=1").cook(data.schema)
    loop = Loop(replace(recipe, play=Poison(recipe.play, 2, value)), 0, 10, torch.device("cpu"))
    x = torch.rand(16, 1, 8, 8).round()
    for n in range(4):
        before = {k: w.clone() for k, w in weights(loop.parts).items()}
        loop.step(lambda: {"x": x})
        moved = any(not torch.equal(before[k], w) for k, w in weights(loop.parts).items())
        assert moved == (n != 2)
    assert int(loop.skipped) == 1
    assert all(torch.isfinite(w).all() for w in weights(loop.parts).values())


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_a_first_step_that_is_skipped_leaves_no_trace(name):
    """The momentum of `sgd` was then whatever lay in memory, and the second step threw the weights anywhere."""

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(1000))

    def play(parts, batch, clock):
        yield Move("model", parts["model"].w.sum()[None] * (float("nan") if clock.step in batch["bad"].tolist() else 0.5))

    moved = []
    for bad in ([], [0]):
        training = Training(optimizer=OPTIMIZERS[name], learning_rate=0.01, rate=RATES["constant"])
        loop = Loop(Recipe(nn.ModuleDict({"model": Half()}), play, training=training), 0, 10, torch.device("cpu"))
        for _ in range(2 + len(bad)):
            junk = [torch.full((1000,), 1e6) for _ in range(20)]
            del junk  # its memory is what an unset tensor finds
            loop.step(lambda bad=bad: {"bad": torch.tensor(bad)})
        moved.append(loop.parts["model"].w.detach().clone())
    assert torch.equal(*moved)


def test_clipping_bounds_the_step_of_plain_descent():
    data = load("digits-dynamic")
    recipe = parse(f"{SMALL},optimizer=sgd,learning_rate=0.5,clip=0.01").cook(data.schema)
    loop = Loop(recipe, 0, 10, torch.device("cpu"))
    before = {k: w.clone() for k, w in weights(loop.parts).items()}
    x = torch.rand(16, 1, 8, 8).round()
    loop.step(lambda: {"x": x})
    moved = torch.stack([(w - before[k]).square().sum() for k, w in weights(loop.parts).items()]).sum().sqrt()
    assert torch.isclose(moved, torch.tensor(0.5 * 0.01 * 1.9), rtol=1e-3)  # Nesterov's first step is 1 + momentum


def test_the_averaged_weights_follow_their_recursion():
    data = load("digits-dynamic")
    loop = Loop(parse(SMALL + ",ema=0.5").cook(data.schema), 0, 10, torch.device("cpu"))
    x = torch.rand(16, 1, 8, 8).round()
    expected = {k: w.clone() for k, w in weights(loop.parts).items()}
    for n in range(6):
        loop.step(lambda: {"x": x})
        decay = min(0.5, (1 + n) / (10 + n))
        expected = {k: decay * expected[k] + (1 - decay) * w for k, w in weights(loop.parts).items()}
    assert all(torch.allclose(loop.average[k], expected[k], atol=1e-6) for k in expected)
    trained_weights = {k: w.clone() for k, w in weights(loop.parts).items()}
    with loop.averaged():
        assert all(torch.equal(w, loop.average[k]) for k, w in weights(loop.parts).items())
    assert all(torch.equal(w, trained_weights[k]) for k, w in weights(loop.parts).items())


def test_mixed_precision_keeps_weights_and_losses_in_float32():
    data = load("digits-dynamic")
    loop = Loop(parse(SMALL + ",precision=bfloat16").cook(data.schema), 0, 10, torch.device("cpu"))
    x = torch.rand(64, 1, 8, 8).round()
    for _ in range(5):
        loop.step(lambda: {"x": x})
    exact = Loop(parse(SMALL).cook(data.schema), 0, 10, torch.device("cpu"))
    for _ in range(5):
        exact.step(lambda: {"x": x})
    assert all(w.dtype == torch.float32 for w in weights(loop.parts).values())
    a, b = loop.flush()["loss"], exact.flush()["loss"]
    assert a != b
    assert abs(a - b) < 0.01 * b


def test_a_run_is_a_folder_that_opens_again(tmp_path):
    run = trained(tmp_path / "r")
    again = runs.open_run(tmp_path / "r")
    x = torch.rand(5, 1, 8, 8).round()
    torch.manual_seed(0)
    a = run.model({"x": x}).log_w
    torch.manual_seed(0)
    assert torch.equal(a, again.model({"x": x}).log_w)
    assert not again.model.training
    about = json.loads((tmp_path / "r" / "run.json").read_text())
    assert about["call"] == "vae:latents=2,hidden=16,batch=32"
    assert about["keywords"]["hidden"] == "16"
    assert about["keywords"]["rate"] == "cosine"  # a default of training is recorded too
    assert about["status"] == "done"
    assert about["done_steps"] == about["steps"] == 30
    assert {"sha256", "schema", "source"} <= about["data"].keys()
    lines = list(read_lines(tmp_path / "r" / "metrics.jsonl"))
    assert lines[-1]["step"] == 30
    assert {"loss", "reconstruction", "kl", "validation", "active_units"} <= lines[-1].keys()


def test_equal_seeds_train_equal_weights_and_others_do_not(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        trained(tmp_path / name, seed=seed)
    assert same(tmp_path / "a", tmp_path / "b")
    assert not same(tmp_path / "a", tmp_path / "c")


def damaged(folder: Path, how: str) -> None:
    weights_file = folder / "model.safetensors"
    data = bytearray(weights_file.read_bytes())
    match how:
        case "cut":
            weights_file.write_bytes(data[: len(data) // 2])
        case "altered":
            data[-3] ^= 1
            weights_file.write_bytes(data)
        case "foreign weights":
            from safetensors.torch import save_file

            save_file({"a": torch.zeros(2)}, weights_file)
        case "other weights":
            save_tensors(weights_file, {"a": torch.zeros(2)}, {})
        case "no json":
            (folder / "run.json").unlink()
        case "bad json":
            (folder / "run.json").write_text("{")
        case "other format":
            about = json.loads((folder / "run.json").read_text())
            (folder / "run.json").write_text(json.dumps(about | {"format": 99}))
        case "lacking":
            about = json.loads((folder / "run.json").read_text())
            (folder / "run.json").write_text(json.dumps({k: v for k, v in about.items() if k != "seed"}))
        case "recipe":
            about = json.loads((folder / "run.json").read_text())
            (folder / "run.json").write_text(json.dumps(about | {"call": "__import__:x=1"}))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("cut", "cut or damaged"),
        ("altered", "was altered"),
        ("foreign weights", "not written by vaestro"),
        ("other weights", "are not those"),
        ("no json", "run.json is missing"),
        ("bad json", "cannot be read"),
        ("other format", "is of format 99"),
        ("lacking", "lacks seed"),
        ("recipe", "recipe '__import__', which is not in the book"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_sentence(tmp_path, how, words):
    trained(tmp_path / "r", steps=5)
    damaged(tmp_path / "r", how)
    with pytest.raises(VaestroError) as caught:
        runs.open_run(tmp_path / "r")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_in_use_finished_or_absent_are_refused(tmp_path):
    trained(tmp_path / "r", steps=5)
    with pytest.raises(UsageError, match="already holds a run"):
        trained(tmp_path / "r")
    with pytest.raises(UsageError, match="is finished"):
        runs.resume(tmp_path / "r")
    with pytest.raises(UsageError, match="there is no run at"):
        runs.open_run(tmp_path / "nowhere")
    with locked(tmp_path / "r"), pytest.raises(VaestroError, match="in use by another process"), locked(tmp_path / "r"):
        pass


def test_an_untrained_run_is_refused(tmp_path):
    trained(tmp_path / "r", steps=5)
    about = json.loads((tmp_path / "r" / "run.json").read_text())
    (tmp_path / "r" / "run.json").write_text(json.dumps(about | {"status": "running"}))
    for name in ("model.safetensors", "state.safetensors"):
        (tmp_path / "r" / name).unlink()
    with pytest.raises(VaestroError, match="no trained weights yet"):
        runs.open_run(tmp_path / "r")


def test_changed_data_are_refused(tmp_path):
    x = np.random.default_rng(0).random((60, 1, 4, 4)).astype(np.float32)
    run = api.train("vae:hidden=8,latents=2", x, steps=5, out=tmp_path / "r")
    with pytest.raises(VaestroError, match="their hash differs"):
        runs.its_data(run.about, load(x + 1))


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    from vaestro.training import files

    files.write_json(tmp_path / "a.json", {"old": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(VaestroError, match="No space left on device"):
        files.write_json(tmp_path / "a.json", {"new": 2})
    assert json.loads((tmp_path / "a.json").read_text()) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_budgets_become_steps_once(tmp_path):
    with pytest.raises(UsageError, match="either steps or seconds"):
        Budget()
    with pytest.raises(UsageError, match="must be positive"):
        Budget(steps=0)
    assert Budget(steps=7).total(lambda: 1 / 0) == 7
    assert Budget(seconds=10).total(lambda: 0.01) == 900
    run = api.train(SMALL, "digits-dynamic", seconds=1.5, out=tmp_path / "r")
    assert 10 <= run.about["done_steps"] <= run.about["steps"]  # fewer where the machine became slower than it was measured
    assert (run.about["done_steps"] == run.about["steps"]) == (run.about["ended"] == "budget")


def test_a_busy_machine_takes_nothing_from_a_budget_of_the_core(tmp_path):
    before = core(), wall()
    time.sleep(0.3)
    assert core() - before[0] < 0.1 < 0.25 < wall() - before[1]
    run = runs.train(replace(plan(SMALL, 1), budget=Budget(seconds=0.5, clock=core)), tmp_path / "r")
    assert run.about["budget"] == {"steps": None, "seconds": 0.5, "clock": "core"}


def test_early_stopping_keeps_the_best_weights(tmp_path):
    run = trained(tmp_path / "r", "vae:hidden=64,latents=2,batch=8,learning_rate=0.05,rate=constant,patience=2", 3000)
    assert run.about["ended"].startswith("early stopping")
    assert run.about["done_steps"] < 3000
    lines = [line for line in run.log() if "validation" in line]
    assert lines[-3]["validation"] == min(line["validation"] for line in lines)
    assert load_tensors(tmp_path / "r" / "model.safetensors")[0].keys() == load_tensors(tmp_path / "r" / "best.safetensors")[0].keys()


@pytest.mark.parametrize(
    ("call", "settled"),
    [
        ("two_stage:latents=2,hidden=16,width=8,first=0.6", 0.6),
        ("vade:latents=2,hidden=16,components=3,settle=0.5", 0.5),
        ("vae:latents=2,warm_up=0.7,hidden=16", 0.7),
    ],
)
def test_patience_begins_when_the_score_tells_where_training_leads(tmp_path, call, settled):
    """The first stage of two moves latents away from what the second, untrained, expects: patience=1 would end it there."""
    run = trained(tmp_path / "r", call + ",batch=32,patience=1", 200)
    assert run.about["done_steps"] > settled * 200
    scores = {line["step"]: line["validation"] for line in run.log() if "validation" in line and line["step"] >= settled * 200}
    assert load_tensors(tmp_path / "r" / "best.safetensors")[1]["step"] == min(scores, key=lambda step: scores[step])


def test_the_score_is_that_of_the_weights_that_are_kept(tmp_path):
    x = np.random.default_rng(0).normal(size=(120, 20)).astype(np.float32)
    call = "vae:hidden=256,latents=16,likelihood=gaussian,patience=3,batch=96,learning_rate=0.003,rate=constant"
    run = api.train(call, x, steps=1500, out=tmp_path / "r")
    scores = [line["validation"] for line in run.log() if "validation" in line]
    assert run.about["ended"].startswith("early stopping") and scores[-1] > scores[0]
    assert run.about["validation"] == min(scores) < scores[-1]
    assert not {"divergence", "overfitting"} & {finding.name for finding in diagnose(run).findings}


def test_a_run_that_a_deadline_ends_is_scored_where_it_ended(tmp_path):
    slow = iter([0.5])
    run = api.train(SMALL, "digits-dynamic", seconds=0.2, out=tmp_path / "r", watch=lambda line: time.sleep(next(slow, 0.0)))
    assert run.about["ended"].startswith("deadline") and run.log()[-1]["step"] == run.about["done_steps"]
    assert run.about["validation"] == run.log()[-1]["validation"]


ODD = """
import numpy as np, pathlib
from vaestro import api, errors
asked = [{"steps": True}, {"steps": "3"}, {"steps": 2.5}, {"seconds": "1"}, {"steps": 1, "seed": 1.0}, {"steps": 1, "seed": True},
         {"steps": 1, "seed": None}, {"steps": 1, "seed": -1}, {"steps": 1, "seed": 2**64}, {"steps": 1, "device": "meta"}]
for given in asked:
    try:
        api.train("vae:hidden=16,latents=2", "digits-dynamic", out="r", **given)
    except errors.UsageError as error:
        print(error)
    assert not pathlib.Path("r").exists(), given
a = api.train("vae:hidden=16,latents=2", "digits-dynamic", steps=3.0, seed=4, out="a")
b = api.train("vae:hidden=16,latents=2", "digits-dynamic", steps=np.int64(3), seed=np.uint8(4), out="b")
assert a.about["weights_sha256"] == b.about["weights_sha256"] and api.open_run("b").about["budget"] == a.about["budget"]
"""


def test_numbers_that_are_none_are_refused_and_those_of_numpy_are_numbers(tmp_path):
    """In a process of its own, where annotations are not checked, as for users."""
    done = subprocess.run([sys.executable, "-c", ODD], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    says = ("steps is True", "steps is '3'", "no whole number", "seconds is '1'", "seed is 1.0", "seed is True", "seed is None", "seed is -1", "2^64", "'meta'")
    assert len(done.stdout.splitlines()) == len(says) and all(w in line for w, line in zip(says, done.stdout.splitlines(), strict=True))


def test_a_log_that_cannot_be_written_ends_the_run_in_words(tmp_path):
    def spoil(line):
        (tmp_path / "r" / "metrics.jsonl").unlink()
        (tmp_path / "r" / "metrics.jsonl").mkdir()

    with pytest.raises(VaestroError, match="metrics.jsonl could not be written"):
        runs.train(plan(), tmp_path / "r", watch=spoil)
    assert json.loads((tmp_path / "r" / "run.json").read_text())["status"] == "failed"


@pytest.mark.parametrize("change", [{"validation": "x"}, {"done_steps": "x"}, {"skipped": "x"}, {"parameters": "1"}])
def test_an_altered_number_is_told_and_hides_no_other_run(tmp_path, change):
    for name in "ab":
        trained(tmp_path / name, steps=2)
    about = json.loads((tmp_path / "b" / "run.json").read_text()) | change
    (tmp_path / "b" / "run.json").write_text(json.dumps(about))
    rows = {row["name"]: row["status"] for row in listing(tmp_path)}
    assert rows["a"] == "done" and "holds no measures" in rows["b"]


def test_a_run_of_a_device_that_is_not_here_is_told_where_it_goes_on(tmp_path):
    trained(tmp_path / "r", steps=2)
    about = json.loads((tmp_path / "r" / "run.json").read_text()) | {"device": "cuda:99", "status": "running"}
    (tmp_path / "r" / "run.json").write_text(json.dumps(about))
    with pytest.raises(UsageError, match=r"trained on 'cuda:99', and this machine has .*--start"):
        runs.resume(tmp_path / "r")


def test_a_board_forgets_what_is_written_again(tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for steps in ((1, 2, 3, 4), (3, 4, 5)):
        watch = tensorboard(tmp_path)
        for step in steps:
            watch({"step": step, "loss": float(step)})
        time.sleep(1.1)  # the names of two files of events differ by their second
    events = event_accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert [e.step for e in events.Scalars("loss")] == [1, 2, 3, 4, 5]


def test_a_diverging_run_fails_with_a_reason(tmp_path):
    with pytest.raises(VaestroError, match="gradients were infinite or NaN"):
        trained(tmp_path / "r", "vae:hidden=16,latents=2,learning_rate=1e30,optimizer=sgd", 400)
    assert json.loads((tmp_path / "r" / "run.json").read_text())["status"] == "failed"


def test_fine_tuning_starts_from_the_weights_of_a_run(tmp_path):
    first = trained(tmp_path / "a", steps=40)
    tuned = runs.train(plan(SMALL + ",learning_rate=0.0000001", 1, 5), tmp_path / "b", source="digits-dynamic", start=tmp_path / "a")
    for (_, a), (_, b) in zip(weights(first.recipe.parts).items(), weights(tuned.recipe.parts).items(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    with pytest.raises(VaestroError, match="do not fit the recipe"):
        runs.train(plan("vae:hidden=17,latents=2", 1), tmp_path / "c", source="digits-dynamic", start=tmp_path / "a")


def test_your_own_modules_and_arrays_need_no_registry(tmp_path):
    x = (np.random.default_rng(0).random((50, 1, 6, 6)) > 0.5).astype(np.uint8)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(36, 8))
    decoder = nn.Linear(4, 36)
    run = api.train((encoder, decoder), x, steps=6, out=tmp_path / "r")
    assert run.model.generate(3)["x"].value.shape == (3, 1, 6, 6)
    again = api.open_run(tmp_path / "r", (encoder, decoder))
    assert torch.equal(weights(run.recipe.parts)["model.likelihood.net.module.weight"], weights(again.recipe.parts)["model.likelihood.net.module.weight"])
    scores = evaluate(run, Protocol(rows=5, samples=3)).scores
    assert evaluate(api.open_run(tmp_path / "r", (encoder, decoder), data=x), Protocol(rows=5, samples=3)).scores == scores
    with pytest.raises(UsageError, match="trained on arrays"):
        evaluate(again)
    with pytest.raises(VaestroError, match="their hash differs"):
        api.open_run(tmp_path / "r", (encoder, decoder), data=1 - x)
    with pytest.raises(UsageError, match=r"returns 5 numbers a row"):
        api.train((encoder, nn.Linear(4, 5)), x, steps=6, out=tmp_path / "s")
    with pytest.raises(UsageError, match="2 \\* latents"):
        call_of(from_modules(nn.Sequential(nn.Flatten(), nn.Linear(36, 7)), decoder), {}).cook(load(x).schema)
    assert not (tmp_path / "s" / "model.safetensors").exists()


def test_parameters_without_an_owner_are_named():
    data = load("digits-dynamic")
    recipe = parse(SMALL).cook(data.schema)
    with pytest.raises(UsageError, match="belongs to no player"):
        Loop(replace(recipe, players={"model": ("model.likelihood",)}), 0, 1, torch.device("cpu"))
    with pytest.raises(UsageError, match="owns no trainable parameter"):
        Loop(replace(recipe, players={"model": ("model",), "ghost": ("ghost",)}), 0, 1, torch.device("cpu"))


def test_a_log_is_cut_back_to_its_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": n}) + "\n" for n in range(1, 6)) + '{"step": 6, "lo')
    cut_back(path, 3)
    assert [line["step"] for line in read_lines(path)] == [1, 2, 3]


def test_seeds_are_mixed_without_collisions():
    assert len({mix(s, n) for s in range(100) for n in range(200)}) == 20_000
    assert 0 <= mix(2**70, -1) < 2**63


def test_checkpoints_survive_a_kill_between_two_files(tmp_path, monkeypatch):
    """The last weights are written, run.json is not: resuming ends with the same weights."""
    whole = trained(tmp_path / "a")
    monkeypatch.setattr(train, "EVERY", 0.0)
    trained(tmp_path / "b")
    about = json.loads((tmp_path / "b" / "run.json").read_text())
    early = {k: v for k, v in about.items() if k not in ("ended", "done_steps", "weights_sha256")}
    (tmp_path / "b" / "run.json").write_text(json.dumps(early | {"status": "running"}))
    runs.resume(tmp_path / "b")
    assert same(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "b")
    assert Move("model", torch.zeros(1)).trace is None
    assert whole.name == "a"
