"""The numbers of the estimators, against closed forms, scikit-learn and the run's own uses; frames, saving, and what is refused."""

import json
import pickle
from datetime import time

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import torch
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.datasets import load_digits, make_blobs
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

import vaestro
from vaestro.errors import Caveat, UsageError, VaestroError
from vaestro.estimators import VAEClassifier, VAEClusterer, VAEDensity, VAEDetector, VAEImputer, VAETransformer
from vaestro.estimators.scoring import log_density
from vaestro.evaluation.likelihood import importance
from vaestro.recipes import RECIPES, call_of
from vaestro.uses.cluster import cluster

W = np.array([[1.0, 0.0], [0.8, 0.5], [-0.6, 0.7], [0.2, -1.0], [0.5, 0.5]])


def linear_rows(n, seed=0):
    """Rows of a linear-Gaussian model, far from standardised."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2)) @ W.T + 0.4 * rng.normal(size=(n, 5))
    return x * [1.0, 10.0, 0.01, 3.0, 1.0] + [0.0, 100.0, 5.0, -1.0, 0.0]


def principal(x, latents):
    """W W^T and s^2 of probabilistic PCA by numpy, with the covariance over n."""
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    rest = values[:-latents].mean()
    u = vectors[:, -latents:] * np.sqrt(values[-latents:] - rest)
    return u, rest


def fitted(x, **more):
    return VAEDensity("ppca", latents=2, steps=1, samples=3, validation_fraction=0, random_state=0, **more).fit(x)


def test_the_density_of_a_linear_model_is_the_closed_form_and_that_of_pca():
    x, new = linear_rows(600), linear_rows(50, 1)
    density = fitted(x)
    loc, scale = x.mean(0), x.std(0)
    u, rest = principal((x - loc) / scale, 2)
    exact = multivariate_normal(np.zeros(5), u @ u.T + rest * np.eye(5)).logpdf((new - loc) / scale) - np.log(scale).sum()
    assert np.allclose(density.score_samples(new), exact, atol=2e-3)
    pca = PCA(2).fit((x - loc) / scale).score_samples((new - loc) / scale) - np.log(scale).sum()
    assert np.allclose(density.score_samples(new), pca, atol=0.05)  # PCA divides by n - 1
    assert density.score(new) == pytest.approx(exact.mean(), abs=2e-3)


def test_samples_have_the_moments_of_the_density():
    x = linear_rows(600)
    density = fitted(x)
    made = density.sample(20_000)
    loc, scale = x.mean(0), x.std(0)
    u, rest = principal((x - loc) / scale, 2)
    covariance = u @ u.T + rest * np.eye(5)
    held = (made - loc) / scale
    assert np.abs(held.mean(0)).max() < 5 * np.sqrt(covariance.diagonal().max() / 20_000)
    assert np.abs(np.cov(held.T) - covariance).max() < 5 * covariance.max() * np.sqrt(2 / 20_000)
    assert np.array_equal(density.sample(5), density.sample(5))
    with pytest.raises(ValueError, match="n_samples is 2.5"):
        density.sample(2.5)
    assert not np.array_equal(density.sample(5, random_state=1), density.sample(5))


def test_the_density_of_a_vae_agrees_with_the_evaluation_and_each_row_stands_alone():
    x = linear_rows(200)
    density = VAEDensity("vae:hidden=16", latents=2, steps=60, samples=400, random_state=0).fit(x)
    held = torch.from_numpy(density._reader.pack(x[:20]))
    ours, theirs = density.score_samples(x[:20]), importance(density.run_.model, {"x": held}, 400).log_px - density._reader.log_volume
    assert np.abs(ours - theirs).max() < 0.5
    assert abs((ours - theirs).mean()) < 0.1
    assert np.array_equal(density.score_samples(x[7:8]), ours[7:8])
    assert np.array_equal(density.score_samples(x[:20][::-1])[::-1], ours)


def test_posteriors_that_share_no_noise_are_scored_row_by_row():
    x = linear_rows(40)
    density = VAEDensity("planar:hidden=8,flows=2", latents=2, steps=3, samples=5, random_state=0).fit(x)
    assert np.array_equal(density.score_samples(x[5:6]), density.score_samples(x)[5:6])


def test_a_transformed_row_is_the_embedding_of_the_run():
    x = linear_rows(100)
    transformer = VAETransformer("vae:hidden=16", latents=3, steps=20, random_state=0).fit(x)
    held = torch.from_numpy(transformer._reader.pack(x))
    assert np.allclose(transformer.transform(x), vaestro.embed(transformer.run_, held).numpy(), atol=1e-5)
    assert transformer.transform(x.astype(np.float32)).dtype == np.float32
    assert list(transformer.get_feature_names_out()) == ["vaetransformer0", "vaetransformer1", "vaetransformer2"]


def test_back_from_the_latents_of_a_linear_model_is_the_closed_form():
    x = linear_rows(300)
    transformer = VAETransformer("ppca", steps=1, validation_fraction=0, random_state=0).fit(x)
    loc, scale = x.mean(0), x.std(0)
    held = (x - loc) / scale
    u, rest = principal(held, 2)
    exact = held @ u @ np.linalg.inv(u.T @ u + rest * np.eye(2)) @ u.T * scale + loc
    assert np.allclose(transformer.inverse_transform(transformer.transform(x)), exact, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="X has 3 latents, and VAETransformer has 2"):
        transformer.inverse_transform(np.zeros((2, 3)))


def test_gaps_are_filled_by_the_exact_conditional_of_a_gaussian():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    imputer = VAEImputer(call_of(RECIPES["vae"], {"hidden": ()}), latents=1, steps=1, draws=2000, samples=4000, random_state=0).fit(x)
    loc, scale, w, noise = np.array(imputer._reader.loc), np.array(imputer._reader.scale), np.array([1.0, -0.8, 0.5]), 0.5
    with torch.no_grad():  # x = w z + noise, in the units that rows are held in
        encoder, layer = (next(m for m in part.modules() if isinstance(m, torch.nn.Linear)) for part in imputer.run_.model.children() if [*part.parameters()])
        encoder.weight.zero_(), encoder.bias.zero_()  # q(z | x) is the prior, and importance weights do the rest
        layer.weight.zero_()
        layer.weight[:3, 0] = torch.from_numpy(w).float()
        layer.bias.zero_()
        layer.bias[3:] = float(np.log(np.expm1(noise - 1e-4)) - np.log(np.expm1(1.0)))
    covariance = np.outer(w, w) + noise**2 * np.eye(3)
    rows = np.array([[1.0, np.nan, np.nan], [np.nan, 0.5, -1.0], [2.0, np.nan, 1.0], [np.nan] * 3]) * scale + loc
    filled, draws = imputer.transform(rows), np.stack(imputer.draw(rows, 2000))
    for row, full, many in zip((rows - loc) / scale, (filled - loc) / scale, np.swapaxes((draws - loc) / scale, 0, 1), strict=True):
        s, m = ~np.isnan(row), np.isnan(row)
        gain = covariance[np.ix_(m, s)] @ np.linalg.inv(covariance[np.ix_(s, s)])
        assert np.allclose(full[m], gain @ row[s], atol=0.1)
        assert np.allclose(np.cov(many[:, m].T), covariance[np.ix_(m, m)] - gain @ covariance[np.ix_(s, m)], atol=0.12)
    assert np.array_equal(filled[~np.isnan(rows)], rows[~np.isnan(rows)])


def test_a_trained_imputer_beats_the_mean():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 1)) * [1.0, 2.0, -3.0] + 0.3 * rng.normal(size=(400, 3))
    holed = np.where(rng.random(x.shape) < 0.2, np.nan, x)
    imputer = VAEImputer("denoising_vae:hidden=32,strength=0.2,learning_rate=0.01", latents=2, steps=300, random_state=0).fit(holed)
    gaps = np.isnan(holed) & ~np.isnan(holed).all(1, keepdims=True)
    error = ((imputer.transform(holed) - x) / x.std(0))[gaps]
    assert np.sqrt(np.square(error).mean()) < 0.6  # the mean's is 1
    assert np.array_equal(imputer.transform(holed), imputer.transform(holed))


def test_p_values_and_the_offset_are_those_of_split_conformal():
    x = linear_rows(400)
    detector = VAEDetector("ppca", latents=2, steps=1, samples=2, level=0.1, random_state=0).fit(x)
    new = np.concatenate([linear_rows(50, 3), linear_rows(5, 4) * 3])
    scores, calibration = detector.score_samples(new), detector.calibration_scores_
    assert len(calibration) == 100
    brute = np.array([(1 + sum(c <= s for c in calibration)) / 101 for s in scores])
    assert np.array_equal(detector.p_values(new), brute)
    assert np.array_equal(detector.predict(new), np.where(brute <= 0.1, -1, 1))
    assert np.allclose(detector.decision_function(new), scores - detector.offset_)
    assert (detector.predict(new)[-5:] == -1).all()


def test_the_alarm_rate_holds_over_calibration_sets():
    new, shares = linear_rows(2000, 99), []
    for seed in range(15):
        detector = VAEDetector("marginals", steps=1, samples=1, calibration=0.5, level=0.1, random_state=seed).fit(linear_rows(98, seed))
        shares.append((detector.predict(new) == -1).mean())
    m, k = 49, 5  # of 50 places, five: the share is Beta(5, 45) distributed
    spread = np.sqrt(k * (m + 1 - k) / ((m + 1) ** 2 * (m + 2)) / 15)
    assert abs(np.mean(shares) - k / (m + 1)) < 4 * spread


def test_too_few_calibration_rows_are_told_of_and_flag_nothing():
    with pytest.warns(Caveat, match="10 calibration rows are too few for level 0.05, so nothing will be flagged; give 19 or more"):
        detector = VAEDetector("marginals", steps=1, samples=1, random_state=0).fit(linear_rows(40))
    assert detector.offset_ == -np.inf
    assert (detector.predict(linear_rows(9, 2) * 1e6) == 1).all()


def test_probabilities_of_classes_are_those_of_the_run_and_beat_chance_with_few_labels():
    x, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    some = np.where(rng.random(1200) < 0.15, y[:1200], -1)
    classifier = VAEClassifier("m2:hidden=64,width=64,learning_rate=0.005,alpha=10", latents=8, steps=150, random_state=0).fit(x[:1200], some)
    held = torch.from_numpy(classifier._reader.pack(x[1200:]))
    assert np.allclose(classifier.predict_proba(x[1200:]), vaestro.classify(classifier.run_, held).numpy(), atol=1e-5)
    assert classifier.score(x[1200:], y[1200:]) > 0.6  # chance is 0.1
    assert list(classifier.classes_) == list(range(10))


def test_words_are_classes_too_and_minus_one_stands_among_them():
    x, y = make_blobs(60, centers=2, random_state=0, cluster_std=0.3)
    names = np.where(y == 0, "calm", "storm").astype(object)
    names[::3] = -1
    classifier = VAEClassifier("m2:hidden=16,width=8,learning_rate=0.03", latents=2, steps=40, random_state=0).fit(x, names)
    assert (classifier.predict(x) == np.where(y == 0, "calm", "storm")).mean() > 0.9


def test_clusters_are_those_of_the_prior_by_size():
    x, _ = make_blobs(150, centers=3, n_features=4, random_state=1)
    clusterer = VAEClusterer(5, recipe="vade:hidden=32,learning_rate=0.01", latents=2, steps=200, random_state=0).fit(x)
    held = torch.from_numpy(clusterer._reader.pack(x))
    theirs = vaestro.cluster(clusterer.run_, held, draws=400).numpy()[:, clusterer.order_]
    assert np.abs(clusterer.predict_proba(x) - theirs).mean() < 0.02
    sizes = np.bincount(clusterer.labels_, minlength=5)
    assert (np.diff(sizes) <= 0).all()
    assert np.array_equal(clusterer.fit_predict(x), clusterer.labels_)


def mixed(n=120, seed=0):
    rng = np.random.default_rng(seed)
    age = rng.integers(18, 80, n)
    return {
        "age": age.tolist(),
        "amount": np.round(np.exp(rng.normal(age / 30, 1)), 2).tolist(),
        "city": rng.choice(["Bonn", "Graz", "Lyon"], n).tolist(),
    }


@pytest.mark.parametrize("library", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
def test_frames_of_mixed_columns_go_in_and_come_out(library):
    holes = mixed()
    holes["city"][3], holes["amount"][4] = None, None
    frame = library(holes)
    imputer = VAEImputer("vae:hidden=16", latents=2, steps=20, draws=5, samples=20, random_state=0).fit(frame)
    full = imputer.transform(frame)
    assert isinstance(full, library)
    assert list(full.columns) == ["age", "amount", "city"]
    assert full["city"][3] in {"Bonn", "Graz", "Lyon"}
    assert full["amount"][4] > 0
    assert list(full["amount"])[:4] == holes["amount"][:4]
    assert len(imputer.draw(frame, 3)) == 3
    if library is pd.DataFrame:
        assert list(imputer.transform(frame.iloc[3:6]).index) == [3, 4, 5]
    assert list(imputer.feature_names_in_) == list(imputer.get_feature_names_out()) == ["age", "amount", "city"]
    density = VAEDensity("vae:hidden=16", latents=2, steps=5, samples=5, random_state=0).fit(frame)
    assert np.isfinite(density.score_samples(frame)).all()
    assert set(density.sample(9)["city"]) <= {"Bonn", "Graz", "Lyon"}
    transformer = VAETransformer("vae:hidden=16", steps=5, random_state=0).fit(frame)
    assert set(transformer.inverse_transform(transformer.transform(frame))["city"]) <= {"Bonn", "Graz", "Lyon"}
    with pytest.raises(ValueError, match="city"):
        density.score_samples(library({k: v for k, v in mixed(9).items() if k != "city"}))


def odd_frame(n=60):
    rng = np.random.default_rng(0)
    columns = {
        "x": rng.normal(size=n),
        "kind": pd.Categorical(np.where(rng.random(n) > 0.5, "u", "v")),
        "n": pd.array(rng.poisson(30, n), dtype="Int64"),
        "yes": pd.array(rng.random(n) > 0.5, dtype="boolean"),
        "took": pd.to_timedelta(rng.normal(9, 1, n), unit="s").astype("timedelta64[ns]"),
        "konst": 2.5,
        "id": [f"id{i}" for i in range(n)],
    }
    return pd.DataFrame(columns, index=np.arange(n)[::-1])


def test_filled_frames_keep_their_types_and_what_stays_empty_is_told():
    frame = odd_frame()
    holed = frame.copy()
    holed.iloc[2:5] = None
    holed = holed.astype(frame.dtypes.to_dict())
    imputer = VAEImputer("vae:hidden=8", latents=1, steps=3, draws=3, samples=5, random_state=0).fit(holed)
    with pytest.warns(Caveat, match=r"'konst' has one value, 2\.5; gaps filled with it: 3; the gaps of columns that are not modelled stay: 'id' \(3\)"):
        full = imputer.transform(holed)
    assert full.dtypes.equals(frame.dtypes)
    assert full.isna().sum().to_dict() == {**dict.fromkeys(frame.columns, 0), "id": 3}
    assert full["konst"].eq(2.5).all()
    assert full["took"].iloc[2:5].between(pd.Timedelta(5, "s"), pd.Timedelta(13, "s")).all()  # seconds, as it is held, are no microseconds
    assert imputer.transform(frame).equals(frame)
    empty = pl.DataFrame({"x": [1.0, None, 3.0] * 20, "t": [time(1), None, time(2)] * 20, "no": pl.Series([None] * 60, dtype=pl.Int64)})
    with pytest.warns(Caveat, match=r"not modelled stay: 'no' \(60\)"):
        full = imputer.fit(empty).transform(empty)
    assert full.schema == empty.schema
    assert full["t"].null_count() == 0


def test_declared_columns_and_frames_of_numbers():
    frame = pd.DataFrame({"a": np.arange(40) % 3, "b": np.random.default_rng(0).normal(size=40)})
    assert VAEDensity("vae:hidden=8", steps=2, samples=2).fit(frame).run_.schema["x"].kind == vaestro.estimators.readers.Real()
    density = VAEDensity("vae:hidden=8", steps=2, samples=2, columns={"a": "category", "b": "real"}).fit(frame)
    assert type(density.run_.schema["x"].kind["a"]).__name__ == "Named"


def test_pipelines_searches_clones_and_set_output():
    x = linear_rows(80)
    frame = pd.DataFrame(x, columns=list("abcde"))
    pipe = make_pipeline(MinMaxScaler(), VAETransformer("vae:hidden=8", steps=3, random_state=0)).set_output(transform="pandas")
    assert list(pipe.fit_transform(frame).columns) == ["vaetransformer0", "vaetransformer1"]
    search = GridSearchCV(VAEDensity("ppca", steps=1, samples=1, random_state=0), {"latents": [1, 2]}, cv=3).fit(x)
    assert search.best_params_ == {"latents": 2}
    again = clone(search.best_estimator_).fit(x)
    assert np.array_equal(again.score_samples(x), search.best_estimator_.score_samples(x))
    filled = VAEImputer("vae:hidden=8", steps=2, draws=2, samples=2).set_output(transform="polars").fit(frame).transform(frame)
    assert isinstance(filled, pl.DataFrame)


FITTED = {
    "transformer": (VAETransformer("vae:hidden=8", steps=3, random_state=0), "transform"),
    "density": (VAEDensity("vae:hidden=8", latents=2, steps=3, samples=3, random_state=0), "score_samples"),
    "detector": (VAEDetector("vae:hidden=8", latents=2, steps=3, samples=3, level=0.2, random_state=0), "predict"),
    "clusterer": (VAEClusterer(3, recipe="vade:hidden=8", latents=2, steps=6, random_state=0), "predict_proba"),
    "imputer": (VAEImputer("vae:hidden=8", latents=2, steps=3, draws=3, samples=5, random_state=0), "transform"),
    "classifier": (VAEClassifier("m2:hidden=8,width=8", latents=2, steps=3, random_state=0), "predict"),
}


@pytest.mark.parametrize("name", list(FITTED))
def test_saved_and_pickled_estimators_say_the_same(name, tmp_path):
    estimator, method = FITTED[name]
    frame = pd.DataFrame(linear_rows(60), columns=list("abcde"))
    estimator.fit(frame, np.where(np.arange(60) % 2, "odd", "even"))
    new = frame.iloc[:9].mask(np.eye(9, 5, dtype=bool)) if name == "imputer" else frame.iloc[:9]
    said = getattr(estimator, method)(new)
    folder = estimator.to_folder(tmp_path / name)
    back = type(estimator).from_folder(folder)
    for other in (back, pickle.loads(pickle.dumps(estimator))):  # noqa: S301 (its own)
        assert np.array_equal(getattr(other, method)(new), said)
        assert list(other.feature_names_in_) == list("abcde")
        assert other.get_params() == estimator.get_params()
    assert vaestro.open_run(folder).about["call"] == estimator.run_.about["call"]
    assert sorted(p.name for p in folder.iterdir()) == ["estimator.json", "model.safetensors", "run.json"]
    with pytest.raises(UsageError, match="already holds a run"):
        estimator.to_folder(folder)
    other = VAEDensity if name != "density" else VAETransformer
    with pytest.raises(UsageError, match=f"holds a {type(estimator).__name__}; open it with {type(estimator).__name__}.from_folder"):
        other.from_folder(folder)


def test_a_frame_of_mixed_columns_is_saved_with_its_columns(tmp_path):
    frame = pd.DataFrame(mixed())
    density = VAEDensity("vae:hidden=8", steps=3, samples=3, random_state=0, columns={"age": "real"}).fit(frame)
    back = VAEDensity.from_folder(density.to_folder(tmp_path / "d"))
    assert np.array_equal(back.score_samples(frame), density.score_samples(frame))


def own(schema, latents: int = 2):
    return RECIPES["vae"].build(schema, latents=latents, hidden=(8,))


def test_recipes_of_ones_own_are_given_again(tmp_path):
    x = linear_rows(30)
    density = VAEDensity(own, latents=3, steps=2, samples=2, random_state=0).fit(x)
    assert np.array_equal(pickle.loads(pickle.dumps(density)).score_samples(x), density.score_samples(x))  # noqa: S301 (its own)
    folder = density.to_folder(tmp_path / "own")
    assert np.array_equal(VAEDensity.from_folder(folder, own).score_samples(x), density.score_samples(x))
    with pytest.raises(UsageError, match="not in the book"):
        VAEDensity.from_folder(folder)


def test_damaged_folders_are_refused(tmp_path):
    density = fitted(linear_rows(30))
    folder = density.to_folder(tmp_path / "d")
    about = json.loads((folder / "estimator.json").read_text())
    del about["sha256"]  # as older versions wrote it
    (folder / "estimator.json").write_text(json.dumps({k: v for k, v in about.items() if k != "reader"}))
    with pytest.raises(VaestroError, match="lacks reader"):
        VAEDensity.from_folder(folder)
    (folder / "estimator.json").write_text(json.dumps(about | {"reader": {"is": "os.system"}}))
    with pytest.raises(UsageError, match=r"reads its rows by 'os\.system', which this version does not know"):
        VAEDensity.from_folder(folder)
    with pytest.raises(UsageError, match="holds no estimator"):
        VAEDensity.from_folder(tmp_path)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-8] + b"\0" * 8)
    (folder / "estimator.json").write_text(json.dumps(about))
    with pytest.raises(VaestroError, match="altered"):
        VAEDensity.from_folder(folder)


ALTERED = {
    "fitted": [[], {}, {"n_features_in_": 5, "offset_": -3.5}, {"array": [1]}],
    "reader": [None, {"is": ["Numbers"], "loc": [0.0] * 5, "scale": [1.0] * 5}, {"is": "Numbers", "loc": ["0"] * 5, "scale": [1.0] * 5}],
    "seed": ["x"],
    "params": [[]],
}


def test_altered_descriptions_are_refused(tmp_path):
    detector = VAEDetector("ppca", latents=1, steps=1, samples=2, level=0.2, random_state=0).fit(linear_rows(60))
    folder = detector.to_folder(tmp_path / "d")
    file, about = folder / "estimator.json", json.loads((folder / "estimator.json").read_text())
    file.write_text(json.dumps(about | {"params": about["params"] | {"samples": "x"}}))
    with pytest.raises(VaestroError, match=r"estimator\.json is not as it was written \(its hash differs\)"):
        VAEDetector.from_folder(folder)
    del about["sha256"]
    fitted, reader = about["fitted"], about["reader"]
    lacks = [fitted | {"offset_": "x"}, {n: v for n, v in fitted.items() if n != "offset_"}]
    lacks += [fitted | {"calibration_scores_": {"array": [1.0], **dtype}} for dtype in ({}, {"dtype": ["a"]}, {"dtype": "zz"})]
    flat = [reader | {"loc": reader["loc"][:1]}, reader | {"scale": [0.0] * 5}]
    for name, values in {**ALTERED, "fitted": ALTERED["fitted"] + lacks, "reader": ALTERED["reader"] + flat}.items():
        for value in values:
            file.write_text(json.dumps(about | {name: value}))
            with pytest.raises(VaestroError) as caught:
                VAEDetector.from_folder(folder)
            assert "altered: restore it from a copy" in str(caught.value) or "does not know" in str(caught.value), value
    file.write_text(json.dumps(about))
    assert np.array_equal(VAEDetector.from_folder(folder).predict(linear_rows(9)), detector.predict(linear_rows(9)))


def test_classes_of_every_type_are_kept_or_refused(tmp_path):
    x, odd = linear_rows(40), np.arange(40) % 2 == 1
    classifier = VAEClassifier("m2:hidden=8,width=8", latents=1, steps=1, random_state=0)
    days = np.where(odd, np.datetime64("2020-01-01T05", "h"), np.datetime64("2021-01-01", "h"))
    for i, y in enumerate((days, np.where(odd, "long word", "short"), np.where(odd, "a", "b").astype(object), odd, odd * 2.0, odd.astype(np.int8))):
        fitted = classifier.fit(x, y)
        back = VAEClassifier.from_folder(fitted.to_folder(tmp_path / str(i)))
        assert back.classes_.dtype == fitted.classes_.dtype
        assert np.array_equal(back.predict(x), fitted.predict(x))
    fitted.classes_ = np.array([b"a", b"b"])
    with pytest.raises(UsageError, match="is not kept in a folder"):
        fitted.to_folder(tmp_path / "bytes")
    assert not (tmp_path / "bytes").exists()


@pytest.mark.parametrize(
    ("estimator", "words"),
    [
        (VAEDensity("vea"), "no recipe called 'vea'; did you mean vae"),
        (VAEDensity("ae", steps=1), "recipe 'ae' has no density: its posterior is a point"),
        (VAEDensity("vae", steps=0), "steps is 0, and must be at least 1"),
        (VAEDensity("vae", samples=0), "samples is 0"),
        (VAEDensity("vae", latents=0), "latents should be greater than or equal to 1"),
        (VAEDensity("vae", validation_fraction=1.0), "validation_fraction is 1.0"),
        (VAEDensity("ppca", latents=9), "9 linear latents are no fewer than the 5 numbers"),
        (VAEDetector("vae", level=1.5), "level is 1.5, and is a share"),
        (VAEClusterer(3, recipe="vae"), "no keyword 'components'"),
        (VAEImputer("vae", draws=0), "draws is 0"),
        (VAETransformer("gan", steps=10**9), "recipe 'gan' has no reconstruction: it has no posterior, so no row has latents; use a recipe such as vae"),
        (VAEImputer("ae", steps=10**9), "recipe 'ae' has no density: its posterior is a point"),
        (VAEImputer("ppca"), "fits Binary or Integer or Real data"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(estimator, words):
    with pytest.raises(UsageError) as caught:
        estimator.fit(linear_rows(20))
    assert words in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


def test_a_classifier_needs_a_recipe_with_classes():
    for recipe in ("vae", "cvae", own):
        with pytest.raises(ValueError, match=r"does not learn classes from the rows whose class is known; use m2 or m1_m2"):
            VAEClassifier(recipe).fit(linear_rows(20), np.arange(20) % 2)


@pytest.mark.parametrize("recipe", ["mixture", "k_means"])
def test_models_that_are_mixtures_of_rows_cluster(recipe):
    x, truth = make_blobs(150, centers=3, cluster_std=0.3, random_state=1)
    clusterer = VAEClusterer(3, recipe=recipe, steps=1, random_state=0).fit(x)
    assert len(np.unique(clusterer.labels_ * 3 + truth)) == 3  # the blobs, under other numbers
    assert np.array_equal(clusterer.predict(x), clusterer.labels_)
    own = cluster(clusterer.run_, torch.from_numpy(clusterer._reader.pack(x)))
    assert np.allclose(clusterer.predict_proba(x), own[:, clusterer.order_], atol=1e-5)


def test_odd_rows():
    x = linear_rows(50)
    with pytest.raises(TypeError, match="[Ss]parse"):
        fitted(x).score_samples(scipy.sparse.csr_matrix(x))
    with pytest.raises(ValueError, match="NaN"):
        fitted(np.where(np.eye(50, 5, dtype=bool), np.nan, x))
    with pytest.raises(ValueError, match="column 1 of X has no entry that was seen"):
        VAEImputer("vae", steps=1).fit(np.array([[1.0, np.nan], [2.0, np.nan]]))
    with pytest.raises(ValueError, match="two columns called 'a'"):
        fitted(pd.DataFrame(x, columns=list("aacde")))
    with pytest.raises(ValueError, match="y has 1 class among the rows"):
        VAEClassifier(steps=1).fit(x, np.where(np.arange(50) < 9, 1, -1))
    one = VAEDensity("vae:hidden=8", latents=1, steps=2, samples=2, random_state=0)
    assert np.isfinite(one.fit(x[:1]).score_samples(x[:1])).all()
    assert np.isfinite(one.fit(x[:, :1]).score_samples(x[:, :1])).all()
    assert np.isfinite(one.fit(np.full((20, 2), 7.0)).score_samples(np.full((3, 2), 7.0))).all()
    huge = one.fit(x * 1e200)
    assert np.allclose(huge.score_samples(x * 1e200), one.fit(x).score_samples(x) - 5 * 200 * np.log(10), atol=1e-2)
    far = one.fit(x).score_samples(np.concatenate([x[:3], np.full((1, 5), 1e300)]))
    assert np.array_equal(far[:3], one.score_samples(x[:3]))
    assert far[3] == far.min()


def test_fitting_leaves_the_global_generators_alone():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    density = fitted(linear_rows(30))
    log_density(density.run_, torch.zeros(3, 5), 4, 0)
    density.sample(3)
    assert torch.equal(torch.get_rng_state(), state)
