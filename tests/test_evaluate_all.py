"""`evaluate --all`: what is measured, what is refused, what is kept; and the traps that make numbers incomparable."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import vaestro
from vaestro.cli.app import app
from vaestro.errors import UsageError
from vaestro.evaluation.metrics import METRICS, Group
from vaestro.evaluation.networks import NETWORKS, Networks, Setting
from vaestro.progress import watched
from vaestro.training.runs import Run
from vaestro.uses.compare import compare
from vaestro.uses.evaluate import NAMES, Protocol, chosen, evaluate, evaluated, every, files, store, stored
from vaestro.uses.maps import error_maps

SMALL = "vae:hidden=16,latents=4"
SHORT = Protocol(rows=40, samples=10)
FEW = ("kl", "psnr", "ssim", "mutual_information", "feature_distance_judge", "peak_memory", "generate_multiply_adds", "fid")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return vaestro.train(SMALL, "digits-dynamic", steps=20, out=tmp_path_factory.mktemp("all") / "one")


def test_every_metric_has_a_group_and_the_dear_ones_are_asked_for_by_name() -> None:
    assert not [m.name for m in METRICS.values() if m.group is Group.OTHER]
    assert {"ais", "bdmc_gap", "fid", "kid"}.isdisjoint(every())
    assert {"nll", "psnr", "frechet_judge", "mutual_information", "parameters"} <= set(every())
    assert chosen(False, [], None) is None
    assert chosen(False, ["ais", "kl", "ais"], None) == ("ais", "kl")
    assert chosen(False, [], Path("weights")) == (*NAMES, "fid", "kid")
    assert chosen(True, ["ais"], Path("weights")) == (*every(), "ais", "fid", "kid")
    with pytest.raises(UsageError, match="did you mean psnr"):
        chosen(True, ["psrn"], None)


def test_what_can_be_measured_is_and_the_rest_has_its_reason(run: Run) -> None:
    told: list[tuple[str, float]] = []
    with watched(lambda what, done: told.append((what, done))):
        found = evaluate(run, SHORT, FEW)
    assert set(found.scores) | set(found.about["refused"]) == set(FEW)
    assert set(found.about["refused"]) == {"fid"}
    assert found.scores["psnr"]["group"] == "reconstruction"
    assert found.scores["peak_memory"]["value"] > 50  # MiB: torch alone is more
    assert found.about["machine"]["threads"] >= 1
    assert ("1 of 8: kl", 0.0) in told and ("8 of 8: fid", 1.0) in told
    mse = evaluate(run, SHORT, ["reconstruction_mse"]).rows["reconstruction_mse"]
    np.testing.assert_allclose(found.rows["psnr"], -10 * np.log10(mse))


def test_networks_are_made_when_asked_for(run: Run) -> None:
    networks = Networks(Setting(run.data()))
    assert not networks.made
    assert networks["judge"] is networks["judge"]
    assert set(networks.made) == {"judge"} and set(networks) == set(NETWORKS) and "strange" not in networks
    grid = Networks(replace(networks.setting, judge="nothing"))
    with pytest.raises(UsageError, match="no judge network for 'nothing'"):
        grid["judge"]


def test_what_was_measured_before_is_kept(run: Run) -> None:
    for path in files(run.folder, "test"):
        path.unlink(missing_ok=True)
    store(evaluate(run, SHORT, ["ssim"]))
    assert stored(run, SHORT) is None, "the usual metrics are lacking, so a comparison measures them"
    whole = evaluated(run, SHORT)
    kept = json.loads(files(run.folder, "test")[0].read_text())
    assert {"ssim", *whole.scores} == set(kept["metrics"])
    with np.load(files(run.folder, "test")[1]) as rows:
        assert {"ssim", "nll"} <= set(rows.files)
    again = stored(run, SHORT)
    assert again is not None and "ssim" in again.scores
    store(evaluate(run, SHORT._replace(samples=3), ["ssim"]))
    assert set(json.loads(files(run.folder, "test")[0].read_text())["metrics"]) == {"ssim"}, "another protocol is another evaluation"


def test_on_the_command_line(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "maps.png"
    result = CliRunner().invoke(app, ["evaluate", str(run.folder), "--rows", "20", "--samples", "2", "--metric", "psnr", "--metric", "kl", "-o", str(out)])
    assert result.exit_code == 0, result.stderr
    assert result.stdout.index("Density") < result.stdout.index("Reconstruction") < result.stdout.index("psnr")
    row, back, error = error_maps(run, SHORT._replace(rows=20))
    assert len(row) == 16 and bool((error == (row - back).abs()).all())
    with Image.open(out) as sheet:
        pixels = np.asarray(sheet)
    cell = (len(pixels[0]) - 2) // 12
    for column, due in enumerate((row[0, 0], back[0, 0], error[0, 0] / error.max())):
        seen = pixels[2 : 2 + 8 * 4 : 4, 2 + column * cell : 2 + column * cell + 8 * 4 : 4]
        np.testing.assert_allclose(seen, due * 255, atol=0.51)
    for extra, words in ((["--metric", "ssmi"], "did you mean"), (["-o", "maps.csv"], "ends in .png"), (["-o", "none/maps.png"], "no folder")):
        refused = CliRunner().invoke(app, ["evaluate", str(run.folder), "--rows", "5", *extra])
        assert refused.exit_code == 2 and words in refused.stderr and "Traceback" not in refused.stderr


def trained(data: np.ndarray, place: Path) -> Run:
    return vaestro.train(SMALL, data, steps=2, out=place)


def test_other_levels_sizes_and_draws_share_no_comparison(run: Run, tmp_path: Path) -> None:
    """Traps 1, 3, 4 and 5: binarisation, 5 or 8 bits, and how pictures were resized make other data of one name, and never meet in a table."""
    r = np.random.default_rng(0)
    large = np.kron(r.integers(0, 256, (60, 1, 4, 4)), np.ones((2, 2))).astype(np.uint8)
    means = large.reshape(60, 1, 4, 2, 4, 2).mean((3, 5)).astype(np.uint8)
    corners = (means + np.uint8(1)).astype(np.uint8)  # as another filter would leave them
    bits = (large // 8).astype(np.int64)
    bits[0, 0, 0, 0] = 31
    eight, five, one, other = (trained(x, tmp_path / n) for n, x in (("eight", large), ("five", bits), ("one", means), ("other", corners)))
    for a, b in ((eight, five), (one, other), (eight, one), (run, eight)):
        with pytest.raises(UsageError, match="other data: their numbers are of different things and share no column"):
            compare([a, b], SHORT)
    static, dynamic = ((large > 127).astype(np.uint8), (large > r.integers(0, 256, large.shape)).astype(np.uint8))
    with pytest.raises(UsageError, match="share no column"):
        compare([trained(static, tmp_path / "static"), trained(dynamic, tmp_path / "dynamic")], SHORT)


def test_grey_pixels_have_no_bernoulli_likelihood() -> None:
    """Trap 2: a cross-entropy of grey values is no likelihood."""
    with pytest.raises(UsageError, match="bernoulli"):
        vaestro.train(f"{SMALL},likelihood=bernoulli", "digits", steps=1)


def test_a_distance_names_its_network_and_only_inception_makes_an_fid() -> None:
    """Trap 6: distances over other features have other names."""
    for name, metric in METRICS.items():
        if metric.group is Group.QUALITY and metric.unit == "squared features":
            assert any(network in name or network in metric.title for network in NETWORKS), name
    assert "inception" in METRICS["fid"].title
