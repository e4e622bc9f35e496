"""The judge learns, is the same when read again, and its features tell pictures apart; principal components are scikit-learn's."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from torch import Tensor

from vaestro.errors import UsageError, VaestroError
from vaestro.evaluation import judge as judging
from vaestro.evaluation.judge import Card, Judge, Pca, data_hash, judges, load, open_judge, save, train
from vaestro.evaluation.metrics import frechet


def bars(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy pictures with a bright row (0) or a bright column (1)."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 90, size=(n, 1, 8, 8), dtype=np.uint8)
    y = rng.integers(0, 2, size=n)
    at = rng.integers(0, 8, size=n)
    for i in range(n):
        x[i, 0][(at[i], slice(None)) if y[i] == 0 else (slice(None), at[i])] = 250
    return torch.from_numpy(x), torch.from_numpy(y)


@pytest.fixture(scope="module")
def small() -> Judge:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "LEAST", 150)
        return train("bars", bars(600, 0), bars(300, 1), seed=3)


def test_training_learns_and_repeats(small: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "LEAST", 150)
    state = torch.get_rng_state()
    again = train("bars", bars(600, 0), bars(300, 1), seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert small.card.accuracy > 0.95 and small.card.classes == 2
    assert float(small.features(bars(600, 0)[0]).var(0).mean()) == pytest.approx(1, abs=0.002)
    assert all(torch.equal(a, b) for a, b in zip(small.state_dict().values(), again.state_dict().values(), strict=True))
    x, y = bars(200, 7)
    assert float((small(judging.unit(x)).argmax(1) == y).float().mean()) > 0.95
    assert small.card.data_sha256 == data_hash(*bars(600, 0)) != data_hash(*bars(600, 1))


def test_a_saved_judge_reads_back_alike(small: Judge, tmp_path: Path) -> None:
    path = tmp_path / "bars.safetensors"
    save(small, path)
    again = open_judge(path)
    x, _ = bars(20, 5)
    assert torch.equal(again.features(x), small.features(x)) and again.card == small.card
    assert [p.name for p in tmp_path.iterdir()] == ["bars.safetensors"]
    assert torch.equal(small.features(x), small.features(x.float() / 255))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(VaestroError, match="not a judge network"):
        open_judge(path)
    with pytest.raises(VaestroError, match="not a judge network"):
        open_judge(tmp_path / "none.safetensors")


def test_features_have_their_shape_and_refuse_others(small: Judge) -> None:
    assert small.features(torch.zeros(2500, 1, 8, 8)).shape == (2500, 64)
    assert small.features(torch.zeros(0, 1, 8, 8)).shape == (0, 64)
    with pytest.raises(UsageError, match=r"reads pictures of shape \(1, 8, 8\)"):
        small.features(torch.zeros(2, 1, 9, 9))


def test_shipped_judges_are_small_and_say_what_they_are() -> None:
    assert judges() == ["digits", "fashion-mnist", "mnist"]
    for name, accuracy, binary in (("mnist", 0.985, 0.98), ("fashion-mnist", 0.89, 0.85), ("digits", 0.97, 0.9)):
        path = judging.JUDGES / f"{name}.safetensors"
        assert path.stat().st_size < 150_000
        found = load(name)
        assert found.card.accuracy > accuracy and found.card.accuracy_binary > binary and len(found.card.data_sha256) == 64
        assert not any(p.requires_grad for p in found.parameters()) and 0.1 < float(found.scale) < 1


def test_versions_of_the_same_pictures_share_a_judge() -> None:
    for name in ("mnist-dynamic", "mnist-static", "mnist-grey", "digits-dynamic", "fashion-mnist-grey"):
        assert load(name).card.data in name
    with pytest.raises(UsageError, match="pca64"):
        load("cats")
    with pytest.raises(UsageError, match="did you mean mnist"):
        load("mnits")


def test_the_digits_judge_tells_worse_pictures() -> None:
    """The features' distance grows with noise and blur: what the judge is for."""
    x = torch.from_numpy(load_digits().images.astype(np.float32) / 16)[:, None]
    eye = load("digits")
    a, b = eye.features(x[:900]), eye.features(x[900:1796])
    noise = torch.rand(x[900:1796].shape, generator=torch.Generator().manual_seed(0))
    near, mid, far = (frechet(a, eye.features((1 - w) * x[900:1796] + w * noise)) for w in (0.0, 0.3, 0.7))
    assert frechet(a, b) == pytest.approx(near) and near < 0.5 * mid < 0.5 * far


def test_principal_components_are_those_of_scikit_learn() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1500, 3, 2, 2, generator=g) * torch.arange(1, 13).view(3, 2, 2)
    ours = Pca.fit(x, 5).features(x[:50])
    theirs = PCA(5).fit(x.flatten(1).numpy()).transform(x[:50].flatten(1).numpy())
    np.testing.assert_allclose(ours.abs().numpy(), np.abs(theirs), rtol=1e-3, atol=1e-3)
    whole = torch.randint(0, 256, (70, 1, 4, 4), dtype=torch.uint8, generator=g)
    assert Pca.fit(whole).features(whole).shape == (70, 16)
    assert Pca.fit(whole[:3]).features(whole).shape == (70, 2)
    torch.testing.assert_close(Pca.fit(whole).features(whole), Pca.fit(whole.float() / 255).features(whole.float() / 255), atol=1e-5, rtol=0)
    with pytest.raises(UsageError, match="at least 2 rows"):
        Pca.fit(whole[:1])
    with pytest.raises(UsageError, match="read 16 numbers"):
        Pca.fit(whole).features(torch.zeros(3, 9))


def test_the_command_trains_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(judging, "JUDGES", tmp_path / "judges")
    monkeypatch.setattr(judging, "LEAST", 20)
    judging.main(["train", "digits", "--seed", "1"])
    card = json.loads(capsys.readouterr().out)
    assert card["seed"] == 1 and card["data"] == "digits"
    assert open_judge(tmp_path / "judges" / "digits.safetensors").card == Card(**{**card, "shape": (1, 8, 8)})
