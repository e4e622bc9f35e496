"""The panel: who is told apart and who is fooled, in words and numbers; what is refused; the command."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from typer.testing import CliRunner

import vaestro
from vaestro.cli.app import app
from vaestro.data import from_arrays
from vaestro.errors import UsageError
from vaestro.evaluation.discrimination import Area
from vaestro.evaluation.outliers import OUTLIER_SCORES, strangeness
from vaestro.training.runs import Run
from vaestro.uses.evaluate import Protocol
from vaestro.uses.panel import Line, Panel, panel, panels, scored

FEW = Protocol(rows=60, samples=5)


def stripes(seed: int, rows: int = 300, p: float = 0.95) -> Any:
    """Binary pictures: the left half is one value, the right half the other; each pixel is right with probability p."""
    rng = np.random.default_rng(seed)
    x = np.zeros((rows, 1, 8, 8), np.uint8)
    x[..., :4] = 1
    x ^= rng.integers(2, size=(rows, 1, 1, 1), dtype=np.uint8)
    return from_arrays(f"stripes{seed}", {"x": x ^ (rng.random(x.shape) > p)})


def blank(seed: int, rows: int = 300) -> Any:
    rng = np.random.default_rng(seed)
    return from_arrays(f"blank{seed}", {"x": (rng.random((rows, 1, 8, 8)) < 0.01).astype(np.uint8)})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return vaestro.train("vae:latents=2,hidden=16", stripes(0), steps=150, out=tmp_path_factory.mktemp("run") / "stripes")


def test_a_panel_is_the_areas_of_every_score_and_the_same_every_time(run: Run) -> None:
    other = blank(1)
    found = vaestro.panel(run, other, FEW)
    assert set(found.refused) == {"hierarchical_ratio", "columns"} and {line.name for line in found.lines} == set(OUTLIER_SCORES) - set(found.refused)
    usual = scored(run, run.data(), FEW._replace(split="train", rows=1000))
    for line in found.lines:
        inside, outside = (strangeness(line.name, scored(run, data, FEW), usual) for data in (run.data(), other))
        assert len(inside) == found.rows[0] == 30 and len(outside) == found.rows[1]
        truth, scores = np.repeat([0, 1], found.rows), np.concatenate([inside, outside])
        assert line.auroc.value == pytest.approx(roc_auc_score(truth, scores)) and line.auroc.low <= line.auroc.value <= line.auroc.high
        assert line.precision.value == pytest.approx(average_precision_score(truth, scores))
    assert vaestro.panel(run, other, FEW) == found


def test_other_rows_are_strange_and_rows_of_the_same_law_are_not(run: Run) -> None:
    away = {line.name: line for line in panel(run, from_arrays("noise", {"x": np.random.default_rng(5).integers(2, size=(300, 1, 8, 8))}), FEW).lines}
    assert all(away[n].right for n in ("elbo", "likelihood", "reconstruction", "squared_error", "typicality"))
    same = panel(run, stripes(7), FEW)
    assert sum(line.right or line.wrong for line in same.lines) <= 2  # of ten scores at 95 %


def test_a_score_that_is_fooled_is_said_to_be(run: Run) -> None:
    """A cleaner version of the training data has a higher likelihood, and typicality alone still finds it strange."""
    found = panel(run, stripes(3, p=0.995), Protocol(rows=60, samples=20))
    lines = {line.name: line for line in found.lines}
    assert lines["likelihood"].wrong and lines["elbo"].wrong and not lines["typicality"].wrong
    said = [s for s in found.findings if s.startswith("By likelihood, rows of stripes3 look less strange than stripes0, on which the run was trained")]
    assert len(said) == 1 and "pair" in said[0]
    assert found.to_json()["scores"]["likelihood"]["wrong_way_round"] is True


def test_what_the_findings_say() -> None:
    def of(*values: tuple[float, float, float]) -> Panel:
        lines = tuple(Line(n, Area(v, 0.01, low, high), Area(v, 0.01, low, high)) for n, (v, low, high) in zip("abc", values, strict=False))
        return Panel("run", "vae", "in", "out", "test", (9, 9), 5, lines)

    assert of((0.5, 0.4, 0.6)).findings == ["No score surely tells rows of out from those of in."]
    first, best = of((0.2, 0.1, 0.3), (0.9, 0.8, 1.0), (0.8, 0.7, 0.9)).findings
    assert first == "By a, rows of out look less strange than in, on which the run was trained: in 80% of pairs."
    assert best == "Best on this pair is b (AUROC 0.900); seen on this pair, so no promise for another."
    assert "in practically every pair" in of((0.0, 0.0, 0.1)).findings[0]


def test_models_without_a_density_or_with_several_latents(tmp_path: Path) -> None:
    found = panel(vaestro.train("ae:latents=2,hidden=16", stripes(0), steps=20, out=tmp_path / "ae"), blank(1), FEW)
    assert {line.name for line in found.lines} == {"squared_error", "neighbours"} and "no density" in found.refused["elbo"]
    found = panel(vaestro.train("top_down:width=16", stripes(0), steps=20, out=tmp_path / "stairs"), blank(1), FEW)
    assert set(found.refused) == {"regret", "columns"} and "hierarchical_ratio" in {line.name for line in found.lines}
    found = panel(vaestro.train("copier", stripes(0), steps=1, out=tmp_path / "copier"), blank(1), FEW)  # it has no parameters
    assert set(found.refused) | {line.name for line in found.lines} == set(OUTLIER_SCORES)


def test_what_cannot_be_compared_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="stripes0 is what stripes was trained on"):
        panel(run, run.data(), FEW)
    for x in (np.zeros((30, 1, 8, 8)) + np.arange(30).reshape(-1, 1, 1, 1), np.random.default_rng(0).integers(2, size=(30, 1, 4, 4))):
        with pytest.raises(UsageError, match="give data of the same kind and shape"):
            panel(run, from_arrays("else", {"x": x}), FEW)
    with pytest.raises(UsageError, match="no split called 'tset'"):
        panel(run, blank(1), FEW._replace(split="tset"))
    with pytest.raises(UsageError, match="was trained on stripes0, not on blank1, so it is not the other direction"):
        panels([run, run], blank(1), FEW)
    with pytest.raises(UsageError, match="one run or two, not 0"):
        panels([], blank(1), FEW)
    labelled = from_arrays("labelled", {"x": np.asarray(stripes(0).split("train").arrays["x"]), "label": np.arange(240) % 2})
    told = vaestro.train("cvae:latents=2,hidden=16", labelled, steps=5, out=tmp_path / "told")
    with pytest.raises(UsageError, match="is told label beside x"):
        panel(told, blank(1), FEW)


def test_both_directions(run: Run, tmp_path: Path) -> None:
    back = vaestro.train("vae:latents=2,hidden=16", blank(1), steps=50, out=tmp_path / "blank")
    there, home = panels([run, back], blank(1), FEW)
    assert (there.data, there.other) == (home.other, home.data) == ("stripes0", "blank1")
    assert home == panel(back, run.data(), FEW)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    vaestro.train("vae:latents=2,hidden=16", "digits-dynamic", steps=20, out="runs/one")
    x = np.random.default_rng(0).integers(2, size=(200, 1, 8, 8)).astype(np.uint8)
    np.save("noise.npy", x)
    words = ["panel", "one", "--against", "noise.npy", "--rows", "30", "--samples", "3"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "score, higher = stranger" in done.output and "Not given: hierarchical_ratio" in done.output and "This run only." in done.output
    told = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert len(told) == 1 and told[0]["data"] == "digits-dynamic" and 0 <= told[0]["scores"]["elbo"]["auroc"]["low"] <= 1
    wrong = CliRunner().invoke(app, ["panel", "one", "--against", "digits"])
    assert wrong.exit_code == 2 and "same kind and shape" in wrong.output and "Traceback" not in wrong.output
