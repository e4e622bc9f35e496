"""Features of data rows in files: read again to the bit, and refused where anything that they depend on is another."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import vaestro
from vaestro.cli.app import app
from vaestro.data import from_arrays
from vaestro.errors import UsageError, VaestroError
from vaestro.evaluation.imagenet import FOR_INCEPTION, FOR_LITE0, Pooled
from vaestro.evaluation.judge import Pca
from vaestro.evaluation.metrics.base import METRICS, Group
from vaestro.evaluation.metrics.held import Held
from vaestro.evaluation.networks import NETWORKS, Setting, made
from vaestro.training.files import save_tensors
from vaestro.training.runs import Run
from vaestro.uses.evaluate import Protocol, evaluate, every, subject_of
from vaestro.uses.features import FeatureFolder, described, load_features, save_features

SHORT = Protocol(rows=40, samples=2)
NAMES = ("frechet_judge", "copied_judge", "frechet_pca64")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return vaestro.train("vae:hidden=16,latents=4", "digits-dynamic", steps=5, out=tmp_path_factory.mktemp("features") / "one")


def rows_of(width: int = 3, seed: int = 0) -> Held:
    rng = np.random.default_rng(seed)
    parts = {s: {"x": rng.normal(size=(n, width)).astype(np.float32)} for s, n in (("train", 60), ("validation", 20), ("test", 20))}
    return Held(from_arrays("cloud", parts["train"], test=parts["test"], validation=parts["validation"]), "test", np.arange(20))


def test_an_evaluation_reads_what_another_one_kept(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = evaluate(run, SHORT, NAMES)
    first = evaluate(run, SHORT, NAMES, features=tmp_path / "kept")
    kept = sorted(p.name for p in (tmp_path / "kept").iterdir())
    assert kept == [f"{n}.safetensors" for n in ("judge-test-180", "judge-test-40", "judge-train-1437", "judge-validation-180", "pca64-test-40")]
    written = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "kept").iterdir()}
    seen: list[int] = []
    network = type(subject_of(run).network("judge"))
    usual = network.features
    monkeypatch.setattr(network, "features", lambda self, x: (seen.append(len(x)), usual(self, x))[1])
    again = evaluate(run, SHORT, NAMES, features=tmp_path / "kept")
    assert sum(seen) == 250, "of the generated rows alone, which are made 250 at a time"
    assert written == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "kept").iterdir()}
    values = [{n: (s["value"], s["error"]) for n, s in e.scores.items()} for e in (plain, first, again)]
    assert values[0] == values[1] == values[2] and set(values[0]) == set(NAMES)


@pytest.mark.parametrize("data", ["digits-dynamic", "gaussian-grid"])
def test_a_folder_of_features_costs_no_metric(data: str, tmp_path: Path) -> None:
    of = vaestro.train("vae:hidden=16,latents=2", data, steps=5, out=tmp_path / "run")
    names = [n for n in every() if METRICS[n].group in {Group.QUALITY, Group.MODES, Group.HONESTY}]
    plain, kept = evaluate(of, SHORT, names), evaluate(of, SHORT, names, features=tmp_path / "kept")
    assert {"energy", "class_histogram", "modes_caught"} <= set(plain.scores)
    assert {n: s["value"] for n, s in plain.scores.items()} == {n: s["value"] for n, s in kept.scores.items()}


def test_a_law_whose_mean_is_a_parameter_has_modes(tmp_path: Path) -> None:
    found = evaluate(vaestro.train("marginals", "gaussian-grid", steps=1, out=tmp_path / "run"), SHORT, ["class_histogram", "on_modes"])
    assert found.scores["on_modes"]["value"] in (0.0, 1.0)  # all rows are shown as one mean


def test_the_kept_features_are_those_of_the_rows(tmp_path: Path) -> None:
    held = rows_of()
    network = NETWORKS["pca64"](Setting(held.data))
    x = torch.from_numpy(np.array(held.data.split("test").arrays["x"]))
    shelf = FeatureFolder(tmp_path)
    sought = held.sought("x", None, None, (0, "cpu"))
    assert torch.equal(shelf(network, sought, lambda: network.features(x)), network.features(x))
    assert torch.equal(shelf(network, sought, lambda: pytest.fail("kept features are read")), network.features(x))
    assert torch.equal(load_features(tmp_path / "pca64-test-20.safetensors"), network.features(x))


def test_features_of_something_else_are_refused(run: Run, tmp_path: Path) -> None:
    held = rows_of()
    network = NETWORKS["pca64"](Setting(held.data))
    sought = held.sought("x", None, None, (0, "cpu"))
    path, features = tmp_path / "a.safetensors", torch.randn(20, 3)
    save_features(path, features, described(network, sought))
    other = rows_of(seed=1)
    turned = Pca(network.mean, network.basis.flip(1))
    for asked, words in (
        ((turned, sought), "features of another network of that name"),
        ((NETWORKS["judge"](Setting(held.data, "digits")), sought), r"features of another network \(pca64, not judge\)"),
        ((network, other.sought("x", None, None, (0, "cpu"))), "features of other data"),
        ((network, replace(sought, rows_sha256="0")), "features of other rows"),
        ((network, replace(sought, drawn="seed 1 on cpu")), "features of another draw of the rows"),
    ):
        with pytest.raises(VaestroError, match=words) as told:
            load_features(path, described(*asked))
        assert str(told.value).count(". ") == 0 and "another folder" in str(told.value)
    weights = {"a": torch.ones(2)}
    lite, inception = (Pooled("net", lambda x: x, weights, way, 2) for way in (FOR_LITE0, FOR_INCEPTION))
    save_features(path, features, described(lite, sought))
    with pytest.raises(VaestroError, match="prepared in another way"):
        load_features(path, described(inception, sought))


def test_another_seed_draws_other_rows_of_intensities_alone(run: Run) -> None:
    held = subject_of(run, SHORT).beside
    assert held.sought("x", "train", 9, (0, "cpu")) != held.sought("x", "train", 9, (1, "cpu")), "training rows are drawn anew"
    assert held.sought("x", None, None, (0, "cpu")) == held.sought("x", None, None, (1, "cpu")), "test rows were drawn once"
    assert rows_of().sought("x", None, None, (0, "cpu")) == rows_of().sought("x", None, None, (1, "cpu"))


def test_files_that_are_no_features_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for tensors, about in (
        ({"features": torch.zeros(3, 2)}, {"rows": 4}),
        ({"features": torch.zeros(3)}, {"rows": 3}),
        ({"features": torch.zeros(3, 2, dtype=torch.float64)}, {"rows": 3}),
        ({"features": torch.zeros(3, 2), "more": torch.zeros(1)}, {"rows": 3}),
        ({"weights": torch.zeros(3, 2)}, {"rows": 3}),
        ({"features": torch.zeros(3, 2)}, {}),
        ({"features": torch.full((3, 2), torch.nan)}, {"rows": 3}),
        ({"features": torch.zeros(1, 100_001)}, {"rows": 1}),
    ):
        save_tensors(path, tensors, about)
        with pytest.raises(VaestroError, match="delete it, so that it is made anew"):
            load_features(path)
    save_file({"features": torch.zeros(3, 2)}, path, {"about": json.dumps({"rows": 3}), "sha256": "0"})
    with pytest.raises(VaestroError, match="was altered"):
        load_features(path)
    path.write_bytes(b"nothing")
    with pytest.raises(VaestroError, match="is no file of features"):
        load_features(path)
    with pytest.raises(UsageError, match="are not kept"):
        save_features(path, torch.zeros(3, 2), {"rows": 4})


def test_every_network_says_what_it_is_made_of_and_a_foreign_one_is_asked_to() -> None:
    held = rows_of()
    assert set(made(NETWORKS["pca64"](Setting(held.data))).weights) == {"mean", "basis"}
    judge = NETWORKS["judge"](Setting(held.data, "digits"))
    assert "scale" in made(judge).weights

    class Own:
        name = "own"

        def features(self, images):
            return images

    with pytest.raises(UsageError, match="does not say what it is made of"):
        made(Own())


def test_on_the_command_line(run: Run, tmp_path: Path) -> None:
    call = ["evaluate", str(run.folder), "--samples", "2", "--metric", "copied_judge", "--features", str(tmp_path), "--rows", "30"]
    told = [CliRunner().invoke(app, [*call, "--json"]) for _ in range(2)]
    assert [t.exit_code for t in told] == [0, 0], told[0].stderr
    refused = CliRunner().invoke(app, [*call, "--seed", "1"])
    assert refused.exit_code == 1 and "another draw of the rows (seed 0 on cpu, not seed 1 on cpu)" in " ".join(refused.stderr.split())
    assert "Traceback" not in refused.stderr
