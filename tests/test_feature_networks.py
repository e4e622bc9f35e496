"""Networks that others trained: read as numbers, built like the originals, refused where they are others."""

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from vaestro.data import from_arrays
from vaestro.data.cache import cache_folder
from vaestro.errors import UsageError, VaestroError
from vaestro.evaluation import imagenet
from vaestro.evaluation.imagenet import for_inception, inception_v3, lite0
from vaestro.evaluation.networks import NETWORKS, Setting
from vaestro.evaluation.weights import fill, read_weights
from vaestro.networks.efficientnet import EfficientNetLite0, Same
from vaestro.networks.inception import Average, Inception, Mixed, resized, step


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("old", "new"), [(5, 9), (32, 299), (64, 32)])
def test_resizing_reads_pixel_i_at_i_times_the_ratio(old: int, new: int) -> None:
    x = some(1, 1, old, old).double()
    found = resized(x, new)
    at = torch.arange(new) * (old / new)
    low = at.long()
    high, part = (low + 1).clamp(max=old - 1), at - low
    for i in (0, new // 3, new - 1):
        for j in (0, new // 2, new - 1):
            corners = [(low[i], low[j]), (low[i], high[j]), (high[i], low[j]), (high[i], high[j])]
            weights = [(1 - part[i]) * (1 - part[j]), (1 - part[i]) * part[j], part[i] * (1 - part[j]), part[i] * part[j]]
            expected = sum(float(w) * float(x[0, 0, r, c]) for w, (r, c) in zip(weights, corners, strict=True))
            assert float(found[0, 0, i, j]) == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(resized(x, old), x)


def test_means_leave_the_padding_out_and_forks_are_joined() -> None:
    assert (Average()(torch.ones(1, 2, 4, 5)) == 1).all()
    block = Mixed(4, [[step("a", 3)], [step("b", 5, 3, 3), step("c", 2, 1, 3) + step("d", 6, 3, 1)]], nn.MaxPool2d(3, 1, 1), 7).eval()
    assert block(some(2, 4, 6, 6)).shape == (2, 3 + 8 + 7, 6, 6) and {n for n, _ in block.named_children()} == {"a", "b", "c", "d", "pool", "branch_pool"}


@pytest.mark.parametrize(("size", "stride", "kernel"), [(8, 2, 3), (7, 2, 3), (8, 2, 5), (9, 1, 3)])
def test_same_padding_puts_the_odd_pixel_last(size: int, stride: int, kernel: int) -> None:
    conv = Same(1, 1, kernel, stride)
    x = some(1, 1, size, size)
    lack = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    padded = torch.zeros(1, 1, size + lack, size + lack)
    padded[..., lack // 2 : lack // 2 + size, lack // 2 : lack // 2 + size] = x
    torch.testing.assert_close(conv(x), F.conv2d(padded, conv.weight, None, stride))


def inception_weights(path: Path) -> dict[str, Tensor]:
    torch.manual_seed(0)
    weights = {n: v.clone().contiguous() for n, v in Inception().state_dict().items()} | {"fc.weight": torch.zeros(3, 2), "fc.bias": torch.zeros(3)}
    if path.suffix == ".pth":
        torch.save({k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}, path)
    else:
        save_file(weights, path)
    return weights


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_inception_from_a_file_of_the_user(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"inception{suffix}"
    inception_weights(path)
    data = from_arrays("own", {"x": torch.zeros(40, 3, 8, 8).numpy().astype("uint8") + torch.arange(40).numpy()[:, None, None, None].astype("uint8")})
    network = NETWORKS["inception"](Setting(data, inception=path))
    x = some(2, 3, 20, 24)
    torch.manual_seed(0)
    expected = Inception().eval()(for_inception(x))
    torch.testing.assert_close(network.features(x), expected.detach())
    assert network.name == "inception" and network.features(x).shape == (2, 2048)
    grey = some(1, 1, 9, 9)
    torch.testing.assert_close(network.features(grey), network.features(grey.expand(-1, 3, -1, -1)))
    torch.testing.assert_close(for_inception(torch.full((1, 3, 4, 4), 0.5)), torch.zeros(1, 3, 299, 299), atol=0.002, rtol=0)
    with pytest.raises(UsageError, match="not rows of shape"):
        network.features(some(2, 4))


def test_inception_without_a_file_or_with_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs the weights of Inception v3"):
        inception_v3(None)
    with pytest.raises(UsageError, match="there is no file"):
        inception_v3(tmp_path / "absent.pth")
    torch.save(EfficientNetLite0().state_dict(), tmp_path / "lite.pth")
    with pytest.raises(VaestroError, match=r"lite.pth holds the weights of another network \(.* does not fit\); give those of Inception"):
        inception_v3(tmp_path / "lite.pth")


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("touched"),))


def test_no_file_of_weights_runs_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"a": Evil()}))
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    with zipfile.ZipFile(tmp_path / "empty.pth", "w") as archive:
        archive.writestr("other", "text")
    for name in ("evil", "plain", "empty"):
        with pytest.raises(VaestroError, match="holds no weights that can be read without running code"):
            read_weights(tmp_path / f"{name}.pth")
    with pytest.raises(VaestroError, match="no table of named tensors"):
        read_weights(tmp_path / "list.pth")
    assert not Path("touched").exists()
    network = nn.Linear(2, 2)
    with pytest.raises(VaestroError, match="not finite"):
        fill(network, {"weight": torch.full((2, 2), torch.nan), "bias": torch.zeros(2)}, "a.pth")
    with pytest.raises(VaestroError, match="bias does not fit"):
        fill(network, {"weight": torch.zeros(2, 2), "bias": torch.zeros(3)}, "a.pth")


def test_a_file_that_is_not_to_be_had_refuses_its_metrics_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path))
    monkeypatch.setattr(imagenet, "LITE0", imagenet.Origin("nothing", {imagenet.FILE: "0"}, package=("no-such-client",)))
    with pytest.raises(UsageError, match="no-such-client is not installed"):
        lite0()


@pytest.mark.data
def test_efficientnet_lite0_tells_a_picture_from_its_noise() -> None:
    if not (cache_folder() / "raw" / imagenet.LITE0.name / imagenet.FILE).is_file():
        pytest.skip("the weights of EfficientNet-Lite0 are not in the cache; `vaestro evaluate RUN --metric fd_effnetlite0` brings them")
    network = lite0()
    found = network.features(some(2, 3, 64, 64))
    assert found.shape == (2, 1280) and bool(found.isfinite().all()) and bool((found >= 0).all())
    assert float(found[0].sum()) == pytest.approx(LITE0_SUM, rel=1e-4)


LITE0_SUM = 116.24560546875
