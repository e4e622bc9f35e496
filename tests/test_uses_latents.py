"""Rows as codes, maps and clusters: values against closed forms, scikit-learn and brute force; what is streamed; what is refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from scipy import stats
from sklearn.cluster import HDBSCAN
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from typer.testing import CliRunner

import vaestro
from vaestro.cli.app import app
from vaestro.core import content
from vaestro.data import from_arrays, from_table
from vaestro.errors import UsageError, VaestroError
from vaestro.evaluation.metrics.subject import central
from vaestro.evaluation.sure import left_out, mean, share, shares
from vaestro.training.files import whole
from vaestro.training.runs import Run
from vaestro.uses import embed as embedding
from vaestro.uses.cluster import CLUSTERINGS, Setting, cluster, clusters, has_clusters
from vaestro.uses.embed import READINGS, Codes, codes, grouped, levelled, write_codes
from vaestro.uses.plot import Map, chart, draw_map, opacity, plot
from vaestro.uses.rows.lots import Lot, Wish, lot


def bars(seed: int, rows: int = 240) -> dict[str, np.ndarray]:
    """Binary 1x6x6 pictures of three classes: the lit third of the rows, each pixel flipped with probability 0.03."""
    rng = np.random.default_rng(seed)
    label = rng.integers(3, size=rows)
    x = np.zeros((rows, 1, 6, 6), np.uint8)
    for i, c in enumerate(label):
        x[i, 0, 2 * c : 2 * c + 2] = 1
    return {"x": x ^ (rng.random(x.shape) < 0.03), "label": label.astype(np.uint8)}


@pytest.fixture(scope="module")
def data() -> Any:
    return from_arrays("bars", bars(0))


@pytest.fixture(scope="module")
def run(data: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return vaestro.train("vae:latents=3,hidden=16", data, steps=150, out=tmp_path_factory.mktemp("run") / "bars")


@pytest.fixture(scope="module")
def deep(data: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return vaestro.train("ladder_vae:latents=2x3,hidden=8x8", data, steps=4, out=tmp_path_factory.mktemp("deep") / "ladder")


def x_of(run: Run, split: str = "test") -> torch.Tensor:
    return torch.cat([content(b["x"]) for b in lot(run, None, Wish(split)).batches()])


def call(*words: object) -> Any:
    return CliRunner().invoke(app, [str(w) for w in words])


# numbers with intervals


def test_shares_are_exact_intervals_and_means_are_t_intervals() -> None:
    for k, n in ((0, 7), (3, 9), (20, 20)):
        exact = stats.binomtest(k, n).proportion_ci(0.95, "exact")
        assert share(np.arange(n) < k) == pytest.approx((k / n, exact.low, exact.high))
    assert share(np.zeros(0, bool))[1:] == (0.0, 1.0)
    scores = np.random.default_rng(0).normal(size=30)
    told = stats.ttest_1samp(scores, 0).confidence_interval(0.95)
    assert mean(scores) == pytest.approx((scores.mean(), told.low, told.high))
    assert mean(np.ones(1)).low == -np.inf
    assert shares(np.array([[True, False, True]])) == share(np.array([True, False, True]))
    same = shares(np.ones((3, 30), bool))
    assert same.value == same.high == 1 and same.low == pytest.approx(share(np.ones(30, bool)).low)  # no exception is no proof that there is none
    many = shares(np.random.default_rng(1).random((5, 40)) < 0.5)
    assert 0 <= many.low < many.value < many.high <= 1


def test_a_jackknife_covers_and_knows_nothing_of_few_rows() -> None:
    rng, hits = np.random.default_rng(0), 0
    for _ in range(200):
        x = rng.normal(2.0, 1.0, 60)
        found = left_out(lambda kept, x=x: np.array([x[kept].mean()]), 60)[0]
        hits += found.low <= 2.0 <= found.high
    assert stats.binomtest(hits, 200, 0.95).pvalue > 0.001
    assert left_out(lambda kept: np.array([1.0]), 5)[0].high == np.inf


# lots


def test_rows_come_in_their_order_with_what_is_known_of_them(run: Run, data: Any, tmp_path: Path) -> None:
    raw = np.asarray(data.split("test").arrays["x"])
    np.save(tmp_path / "x.npy", raw)
    for source in (None, data, raw, torch.from_numpy(raw), tmp_path / "x.npy", str(tmp_path / "x.npy")):
        of = lot(run, source)
        assert of.size == len(raw)
        assert np.array_equal(torch.cat([content(b["x"]) for b in of.batches()]).numpy(), raw)
    assert np.array_equal(lot(run).labelled(), data.split("test").arrays["label"]) and lot(run).classes == ("0", "1", "2")
    assert lot(run, None, Wish("train", 7)).size == 7
    for i, name in enumerate(("cat/a.png", "dog/b.png", "dog/c.png")):
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(raw[i, 0] * 255).save(tmp_path / "pets" / name)
    of = lot(run, tmp_path / "pets")
    assert of.files == ("cat/a.png", "dog/b.png", "dog/c.png") and of.classes == ("cat", "dog") and of.labelled().tolist() == [0, 1, 1]
    assert np.array_equal(torch.cat([content(b["x"]) for b in of.batches()]).numpy(), raw[:3])
    assert lot(run, tmp_path / "pets" / "cat" / "a.png").size == 1


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (np.zeros((0, 1, 6, 6)), "at least one row"),
        (np.zeros((3, 1, 5, 6)), "rows shaped"),
        (np.full((3, 1, 6, 6), np.nan), "NaN"),
        (np.full((3, 1, 6, 6), 7), "Binary"),
        ("nowhere", "no data set, folder or file"),
        (3.5, "is no rows"),
        (from_arrays("other", {"x": np.random.default_rng(0).integers(2, size=(30, 1, 5, 5), dtype=np.uint8)}), "same kind and shape"),
    ],
    ids=["none", "shape", "nan", "values", "missing", "number", "data"],
)
def test_what_is_no_rows_is_refused_in_words(run: Run, source: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        lot(run, source)
    with pytest.raises(UsageError, match="split"):
        lot(run, None, Wish("tset"))
    with pytest.raises(UsageError, match="no labels"):
        lot(run, np.zeros((2, 1, 6, 6))).labelled()


def test_an_empty_folder_and_pictures_of_another_size_are_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no pictures"):
        lot(run, tmp_path)
    Image.new("L", (9, 6)).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match="--resize"):
        lot(run, tmp_path)
    (tmp_path / "bad.npy").write_bytes(b"nothing")
    with pytest.raises(VaestroError, match="not an array"):
        lot(run, tmp_path / "bad.npy")


# embed


def test_streamed_codes_are_the_posterior_means(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = vaestro.embed(run, x_of(run)).numpy()
    for chunk in (500, 7):  # whatever the chunks
        monkeypatch.setattr(embedding, "AT_ONCE", chunk)
        made = write_codes(run, tmp_path / "c.npy")
        np.testing.assert_allclose(np.load(tmp_path / "c.npy"), wanted, atol=1e-6)
    assert made.columns == {"z": (0, 3)} and made.rows == len(wanted)
    monkeypatch.setattr(embedding, "PIECE", 10)  # so that several pieces are joined
    write_codes(run, tmp_path / "c.csv")
    write_codes(run, tmp_path / "c.parquet")
    for frame in (pl.read_csv(tmp_path / "c.csv"), pl.read_parquet(tmp_path / "c.parquet")):
        assert frame.columns == ["row", "label", "z_0", "z_1", "z_2"] and frame["row"].to_list() == list(range(len(wanted)))
        assert np.array_equal(frame["label"].cast(int).to_numpy(), lot(run).labelled())
        np.testing.assert_allclose(frame.select("^z_.*$").to_numpy(), wanted, atol=1e-6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.csv", "c.npy", "c.parquet"]


def test_groups_of_a_hierarchy_are_the_means_given_the_means_above(deep: Run, tmp_path: Path) -> None:
    x = x_of(deep)
    with torch.no_grad():
        upper = central(deep.model, {"x": x})
        top, *below = upper.latents
        by_hand = [upper[n].posterior.mean.flatten(1) for n in (top, *below)]  # of a run in which every group took its mean
    wanted = torch.cat(by_hand, 1)
    torch.testing.assert_close(vaestro.embed(deep, x), wanted)
    torch.testing.assert_close(vaestro.embed(deep, x[5:9]), wanted[5:9], atol=1e-6, rtol=1e-5)  # whatever rows stand beside them
    write_codes(deep, tmp_path / "c.npy")
    np.testing.assert_allclose(np.load(tmp_path / "c.npy"), wanted, atol=1e-6)
    torch.manual_seed(5)
    assert torch.equal(vaestro.embed(deep, x), vaestro.embed(deep, x))


def test_encoding_runs_no_decoder(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = codes(run)
    ran: list[int] = []
    decoder = run.model.get_submodule("likelihood")
    handle = decoder.register_forward_hook(lambda *_: ran.append(1))
    again = codes(run)
    handle.remove()
    assert np.array_equal(before, again) and len(ran) == 1  # once, on one row, to learn which latent is the last


def test_draws_follow_the_posterior_and_the_seed(run: Run) -> None:
    x = x_of(run)[:5]
    rows = x.repeat_interleave(400, 0).to(torch.uint8)
    found = np.concatenate([g["z"] for g in grouped(run, rows, READINGS["samples"], seed=1)]).reshape(5, 400, 3)
    again = np.concatenate([g["z"] for g in grouped(run, rows, READINGS["samples"], seed=1)]).reshape(5, 400, 3)
    with torch.no_grad():
        posterior = run.model.posterior(x).base_dist  # type: ignore[operator, union-attr]
    off = (found.mean(1) - posterior.mean.numpy()) / (posterior.stddev.numpy() / 20)
    assert np.array_equal(found, again) and np.abs(off).max() < 4.5
    np.testing.assert_allclose(found.std(1), posterior.stddev.numpy(), rtol=0.15)


def test_every_group_of_a_hierarchy_by_name(deep: Run, tmp_path: Path) -> None:
    with torch.no_grad():
        trace = central(deep.model.eval(), {"x": x_of(deep)})
    made = write_codes(deep, tmp_path / "all.npy")
    assert list(made.columns) == list(trace.latents)
    whole_array = np.load(tmp_path / "all.npy")
    for name, (first, end) in made.columns.items():
        np.testing.assert_allclose(whole_array[:, first:end], trace[name].value.flatten(1).numpy(), atol=1e-5)
        write_codes(deep, tmp_path / "one.npy", wanted=Codes(group=name))
        assert np.array_equal(np.load(tmp_path / "one.npy"), whole_array[:, first:end])
    with pytest.raises(UsageError, match="no latents called 'zz'"):
        write_codes(deep, tmp_path / "none.npy", wanted=Codes(group="zz"))


def test_codes_are_not_written_over_the_rows_that_are_read(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "rows.npy"
    np.save(file, x_of(run)[:4].numpy().astype(np.uint8))
    before = file.read_bytes()
    for rows in (file, str(file)):
        with pytest.raises(UsageError, match="it is read, and would be lost"):
            write_codes(run, str(file), rows)
    assert file.read_bytes() == before


def test_a_file_of_codes_is_whole_or_as_it_was(run: Run, tmp_path: Path) -> None:
    (tmp_path / "c.npy").write_bytes(b"old")

    def broken() -> Iterator[Any]:
        yield {"x": x_of(run)}
        raise VaestroError("the disk is gone")

    with pytest.raises(VaestroError, match="gone"):
        write_codes(run, tmp_path / "c.npy", Lot("rows", 2000, broken))
    assert (tmp_path / "c.npy").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(VaestroError, match="free some space"), whole(tmp_path / "c.npy"):
        raise OSError(28, "no space left")


def test_codes_of_a_table_and_of_models_without_any(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = {"a": rng.normal(size=60), "b": rng.choice(["u", "v"], 60), "label": rng.choice(["no", "yes"], 60)}
    run = vaestro.train("vae:latents=2,hidden=8", from_table(table, {"label": "label"}), steps=3, out=tmp_path / "table")
    pl.DataFrame(table).write_csv(tmp_path / "t.csv")
    of = lot(run, tmp_path / "t.csv")
    assert of.classes == ("no", "yes") and [of.classes[i] for i in of.labelled()] == table["label"].tolist() and not of.notes
    assert codes(run, of).shape == (60, 2)
    assert lot(run, pl.DataFrame({"a": [0.0], "b": ["u"]})).labels is None
    with pytest.raises(UsageError, match="reads a table"):
        lot(run, np.zeros((2, 2)))
    gan = vaestro.train("gan:latents=2,hidden=8", from_arrays("bars", bars(0)), steps=2, out=tmp_path / "gan")
    with pytest.raises(UsageError, match="no posterior"):
        codes(gan)


def test_one_scale_for_all_latents_keeps_idle_ones_small() -> None:
    train = np.random.default_rng(0).normal(size=(50, 3)) * (2.0, 1.0, 1e-3)
    near, far = levelled(train, train + 1)
    assert near.mean(0) == pytest.approx(np.zeros(3)) and near.var(0).mean() == pytest.approx(1) and near[:, 2].std() < 1e-2
    np.testing.assert_allclose(far - near, 1 / np.sqrt(train.var(0).mean()))
    assert np.array_equal(levelled(np.ones((3, 2)), np.ones((1, 2)))[0], np.zeros((3, 2)))


# cluster

SETTING = np.random.default_rng(3)
PLANTED = SETTING.integers(3, size=400)
POINTS = np.array([[0.0, 0], [8, 0], [0, 8]])[PLANTED] + SETTING.normal(size=(400, 2))


@pytest.mark.parametrize("name", ["gmm", "kmeans", "hdbscan"])
def test_planted_groups_and_their_number_are_found(name: str) -> None:
    found = CLUSTERINGS[name](Setting(POINTS[:300], POINTS[300:], None, 0))
    belong = found.belong(POINTS[300:])
    assert found.number == 3
    inside = belong.max(1) > 0
    assert inside.mean() > 0.9 and adjusted_rand_score(PLANTED[300:][inside], belong.argmax(1)[inside]) == 1
    if name != "hdbscan":
        np.testing.assert_allclose(belong.sum(1), 1)
        assert found.tried[1].value < found.tried[2].value < found.tried[3].value


def test_k_means_as_a_mixture_is_bayes_rule() -> None:
    found = CLUSTERINGS["kmeans"](Setting(POINTS, POINTS, 3, 0))
    belong = found.belong(POINTS)
    hard = belong.argmax(1)
    middle = np.array([POINTS[hard == c].mean(0) for c in range(3)])
    variance = np.square(POINTS - middle[hard]).sum() / POINTS.size + 1e-3
    density = np.stack([(hard == c).mean() * stats.multivariate_normal(middle[c], variance * np.eye(2)).pdf(POINTS) for c in range(3)], 1)
    np.testing.assert_allclose(belong, density / density.sum(1, keepdims=True), atol=1e-6)


def test_hdbscan_gives_training_rows_their_own_clusters() -> None:
    found = CLUSTERINGS["hdbscan"](Setting(POINTS, POINTS, None, 0))
    made = HDBSCAN(min_cluster_size=5, copy=True).fit(POINTS)
    belong = found.belong(POINTS)
    assert np.array_equal(np.where(belong.max(1) > 0, belong.argmax(1), -1), np.where(made.probabilities_ > 0, made.labels_, -1))
    with pytest.raises(UsageError, match="itself"):
        CLUSTERINGS["hdbscan"](Setting(POINTS, POINTS, 4, 0))


def test_clusters_of_latents_find_the_bars(run: Run, tmp_path: Path) -> None:
    made = clusters(run, by="gmm", number=3)
    labels = lot(run).labelled()
    assert made.agreement["nmi"].value == pytest.approx(normalized_mutual_info_score(labels, made.cluster))
    assert made.agreement["ari"].value == pytest.approx(adjusted_rand_score(labels, made.cluster)) and made.agreement["accuracy"].value > 0.8
    made.write(tmp_path / "c.csv")
    frame = pl.read_csv(tmp_path / "c.csv")
    assert frame.columns == ["row", "cluster", "probability", "label"] and np.array_equal(frame["cluster"].to_numpy(), made.cluster)
    assert np.array_equal(clusters(run, by="gmm", number=3).cluster, made.cluster)
    assert not clusters(run, lot(run).batches().__next__()["x"].numpy()[:1].astype(np.uint8), "gmm", 2).agreement  # one row, no labels


def test_a_prior_that_is_a_mixture_clusters_itself(data: Any, tmp_path: Path, run: Run) -> None:
    mixed = vaestro.train("gmm_prior:components=4,latents=2,hidden=8", data, steps=5, out=tmp_path / "gmm")
    assert has_clusters(mixed) and not has_clusters(run)
    made = clusters(mixed)
    belong = cluster(mixed, x_of(mixed)).numpy()
    assert made.by == "prior" and made.number == 4
    assert np.array_equal(made.cluster, belong.argmax(1)) and made.probability == pytest.approx(belong.max(1), abs=1e-5)
    with pytest.raises(UsageError, match="components"):
        clusters(mixed, number=3)
    with pytest.raises(UsageError, match="prior"):
        clusters(run, by="prior")


def test_no_clusters_where_latents_do_not_vary(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaestro.uses.cluster.codes", lambda run, of, **_: np.zeros((of.size, 3)))
    with pytest.raises(UsageError, match="collapsed"):
        clusters(run, by="gmm")
    with pytest.raises(UsageError, match="at least one cluster"):
        clusters(run, number=0)
    with pytest.raises(UsageError, match="way to cluster"):
        clusters(run, by="kmens")


# plot


def test_a_map_is_principal_components_and_says_how_far_to_trust_it(run: Run) -> None:
    of = np.unique(x_of(run, "train").numpy().astype(np.uint8), axis=0)  # equal rows are neighbours in an order that nobody defines
    made, z = chart(run, of), codes(run, of)
    theirs = PCA(2).fit(z)
    np.testing.assert_allclose(np.abs(made.plane), np.abs(theirs.transform(z)), atol=1e-8)
    assert f"{theirs.explained_variance_ratio_[0]:.0%}" in made.axes[0]
    assert made.trustworthiness is not None and made.continuity is not None
    assert made.trustworthiness.value == pytest.approx(trustworthiness(z, made.plane, n_neighbors=12))
    assert made.continuity.value == pytest.approx(trustworthiness(made.plane, z, n_neighbors=12))
    assert str(made.trustworthiness) in made.caption


def test_points_in_crowds_are_fainter_and_none_vanishes() -> None:
    plane = np.concatenate([np.zeros((900, 2)), [[5.0, 5.0]]])
    found = opacity(plane)
    assert found[-1] == 0.9 and np.allclose(found[:900], 0.06) and np.allclose(opacity(np.zeros((1, 2))), 0.9)


def test_maps_are_files_that_can_be_read(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plot(run, tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as image:
        assert image.size[0] > 1000 and len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 20
    many = Map("run", Lot("rows", 30, lambda: iter(()), np.arange(30)), "pca", np.random.default_rng(0).normal(size=(30, 2)), ("a", "b"), None, None)
    draw_map(tmp_path / "many.svg", many)  # more classes than colours: no legend
    assert b"<svg" in (tmp_path / "many.svg").read_bytes() and "too few" in many.caption
    with pytest.raises(UsageError, match="written as"):
        plot(run, tmp_path / "map.txt")
    monkeypatch.setattr("vaestro.uses.plot.find_spec", lambda name: None if name == "umap" else object())
    with pytest.raises(UsageError, match=r"vaestro\[umap\]"):
        chart(run, by="umap")
    with pytest.raises(UsageError, match="are equal"):
        chart(run, np.zeros((40, 1, 6, 6), np.uint8))


@pytest.mark.slow
def test_umap_keeps_groups_apart(run: Run) -> None:
    pytest.importorskip("umap")
    made = chart(run, None, "umap", Wish("train"))
    middles = [made.plane[made.rows.labelled() == c].mean(0) for c in range(3)]
    assert made.trustworthiness is not None and made.trustworthiness.value > 0.8
    assert min(np.linalg.norm(middles[i] - middles[j]) for i in range(3) for j in range(i)) > 1


# the commands


def test_embed_plot_and_cluster_on_the_command_line(run: Run, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    raw = np.asarray(data.split("test").arrays["x"])
    np.save("x.npy", raw)
    done = call("embed", run.folder, "x.npy", "-o", "c.npy", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"out": "c.npy", "rows": len(raw), "columns": {"z": [0, 3]}, "notes": []}
    assert call("embed", run.folder, "x.npy", "-o", "d.csv", "--read", "samples", "--group", "z").exit_code == 0
    assert "trustworthiness" in call("plot", run.folder, "x.npy", "-o", "map.png").stdout or len(raw) < 37
    monkeypatch.setattr("vaestro.training.runs.its_data", lambda about, held: data)  # arrays are kept in no file
    done = call("cluster", run.folder, "--by", "kmeans", "--number", "3", "-o", "k.csv")
    assert done.exit_code == 0 and "Agreement with labels, nmi" in done.stdout and Path("k.csv").is_file()
    for words, said in (
        (("embed", run.folder, "x.npy", "-o", "c.txt"), "ending"),
        (("embed", run.folder, "x.npy", "-o", "c.npy", "--read", "mean"), "means"),
        (("embed", run.folder, "gone.npy", "-o", "c.npy"), "no data set, folder or file"),
        (("plot", run.folder, "x.npy", "--by", "tsne"), "projection"),
        (("cluster", run.folder, "x.npy", "--by", "gmn"), "gmm"),
        (("cluster", run.folder, "x.npy", "-o", "k.npy"), ".csv or .parquet"),
    ):
        failed = call(*words)
        assert failed.exit_code == 2 and said in failed.stderr and len(failed.stderr.strip().splitlines()) == 1, failed.stderr
