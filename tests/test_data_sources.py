"""Named data: the places they come from, in order, and the very bits that are stored."""

import gzip
import hashlib
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from vaestro.data import SOURCES, Encoding, get, load, verify
from vaestro.data.fetch import Origin
from vaestro.data.schema import Binary, Category, Integer
from vaestro.data.sources import SEED, Source, binarise, idx_images, static
from vaestro.data.store import HEADER
from vaestro.errors import UsageError, VaestroError
from vaestro.registry import Registry

NAMES = ["mnist-dynamic", "mnist-static", "mnist-grey", "fashion-mnist-dynamic", "fashion-mnist-static", "fashion-mnist-grey", "fashion-mnist"]
HASHES = {
    "mnist-dynamic": "644e53ccbf99765385ff16aac1f8675497590ed19ac448f0e085fd3d66a927f5",
    "mnist-static": "4f7c6471c28964dfe02f9bf0a2e024375fad8db83f639f50f33999a91247cf79",
    "fashion-mnist-grey": "d8c1b205ce367fcbaf88714a7827d72816af1f10ad9ce9fb2323317de9001c3e",
    "digits": "07d810ba950a96c81ca09f4758877ebf90649f03a345dcb54fae24abe76ad102",
    "digits-dynamic": "0cb08fd990f6a9fa3c507f214e9987a971aac55a31291b2b8b794f4ee50c83bc",
}
BITS = "3867e11d14f8134e1319283b950c85545b105788a56e1104ebdbc8a9b9e97669"
FILES = {"train-images-idx3-ubyte": b"images" * 50, "train-labels-idx1-ubyte": b"labels"}
ORIGIN = Origin("toy", {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()})


def cached(name: str) -> None:
    if not (SOURCES[name].folder / HEADER).is_file():
        pytest.skip(f"{name} is not in the cache; `vaestro data get {name}` brings it")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def quiet(what: str, done: float) -> None:
    assert what and 0 <= done <= 1


@pytest.mark.parametrize("name", ["mnist-dynamic", "mnist-static", "fashion-mnist-grey"])
def test_stored_bits_never_change(name: str) -> None:
    cached(name)
    data = load(name)
    assert data.sha256 == HASHES[name]
    verify(data)
    assert dict(data.schema.rows) == {"train": 50_000, "validation": 10_000, "test": 10_000}
    assert data.split("train").encodings["x"] is (Encoding.INTENSITY if "dynamic" in name else Encoding.VALUE)
    assert [np.bincount(s.arrays["label"], minlength=10).sum() for s in data.splits.values()] == [50_000, 10_000, 10_000]


def test_dynamic_and_static_share_held_out_rows_and_follow_the_grey_values() -> None:
    for name in ("mnist-dynamic", "mnist-static", "mnist-grey"):
        cached(name)
    dynamic, fixed, grey = load("mnist-dynamic"), load("mnist-static"), load("mnist-grey")
    assert (dynamic.split("train").arrays["x"] == grey.split("train").arrays["x"]).all()
    for split in ("validation", "test"):
        bits, shade = dynamic.split(split).arrays["x"], grey.split(split).arrays["x"]
        assert (bits == fixed.split(split).arrays["x"]).all() and not bits[shade == 0].any() and bits[shade == 255].all()
        middle = (shade > 0) & (shade < 255)
        p = shade[middle] / 255
        assert abs(bits[middle].sum() - p.sum()) < 6 * (p * (1 - p)).sum() ** 0.5


def test_digits(cache: Path) -> None:
    data, drawn = load("digits"), load("digits-dynamic")
    assert (data.sha256, drawn.sha256) == (HASHES["digits"], HASHES["digits-dynamic"])
    assert data.schema["x"].kind == Integer(17) and data.schema["x"].shape == (1, 8, 8) and drawn.schema["x"].kind == Binary()
    assert data.schema["label"].kind == Category(10, tuple("0123456789"))
    assert sum(data.schema.rows.values()) == 1797 and data.folder == cache / "data" / "digits-1"
    x, shade = data.split("train").arrays["x"], drawn.split("train").arrays["x"]
    assert (shade == np.rint(x.astype(float) * 255 / 16)).all() and x.max() == 16 and shade.max() == 255
    sets = [{r.tobytes() for r in s.arrays["x"]} for s in data.splits.values()]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    with pytest.raises(UsageError, match="digits come with scikit-learn"):
        get("digits", cache)


def test_binarise_is_exact_and_fixed() -> None:
    shades = np.repeat(np.arange(256, dtype=np.uint8)[None], 20_000, 0)
    counts = binarise(shades, (1, 2)).sum(0, dtype=np.int64)
    low, high = binom.interval(1 - 1e-9, 20_000, np.arange(256) / 255)
    assert counts[0] == 0 and counts[255] == 20_000 and (counts >= low).all() and (counts <= high).all()
    assert hashlib.sha256(binarise(shades[:1500], (SEED, 2)).tobytes()).hexdigest() == BITS, "the blocks of 1,000 rows leave no seam, and the bits stay"
    raw = np.random.Philox(np.random.SeedSequence((SEED, 2))).random_raw(1500 * 256).reshape(1500, 256)
    assert (binarise(shades[:1500], (SEED, 2)) == (raw % 255 < shades[:1500])).all()
    assert (static("test", shades[:9])[0] == binarise(shades[:9], (SEED, 2))).all()


def test_every_source_is_described() -> None:
    assert set(NAMES) | {"digits", "digits-dynamic", "dsprites", "dsprites-full", "gaussian-grid", "stacked-mnist"} <= set(SOURCES)
    assert SOURCES["fashion-mnist"] is SOURCES["fashion-mnist-grey"]
    for name, source in SOURCES.items():
        assert name.startswith(source.name[:5]) and all((source.title, source.licence, source.size, source.fetched, source.rule, source.version))
        assert "arochelle" not in f"{source.title} {source.rule}"


def test_places_are_asked_in_order(cache: Path, tmp_path: Path) -> None:
    """System before web before package; the first that has the genuine files wins, and then the cache answers alone."""
    web, system = tmp_path / "web", tmp_path / "system"
    for folder in (web, system):
        folder.mkdir()
    made = f"import tarfile; t = tarfile.open('toy.tgz', 'w:gz'); t.add({str(tmp_path / 'raw')!r}, 'package/data'); t.close()"
    origin = replace(ORIGIN, system=(system,), web=(f"file://{web}/",), package=(sys.executable, "-c", made))
    with pytest.raises(VaestroError, match=r"tried: the folder .*lacks train-images.*; file://.*; `.*`") as caught:
        origin.bring(None, False, quiet)
    assert "\n" not in str(caught.value) and not cache.exists()
    (tmp_path / "raw").mkdir()
    for name, data in FILES.items():
        (tmp_path / "raw" / name).write_bytes(data)
        (web / f"{name}.gz").write_bytes(gzip.compress(data))
    with pytest.raises(VaestroError, match="tried: the folder [^;]*$"):
        origin.bring(None, True, quiet)
    for clear in (web, None):
        files = origin.bring(None, False, quiet)
        assert {n: p.read_bytes() for n, p in files.items()} == FILES and files["train-labels-idx1-ubyte"].parent == cache / "raw" / "toy"
        assert sorted(p.name for p in (cache / "raw" / "toy").iterdir()) == sorted(FILES), "nothing temporary is left"
        for path in files.values():
            path.unlink()
        if clear:
            for path in clear.iterdir():
                path.unlink()  # so that the package is asked
    (system / "deep").mkdir()
    for name, data in FILES.items():
        (system / "deep" / f"{name.replace('-idx', '.idx')}.gz").write_bytes(gzip.compress(data))
    assert {n: p.read_bytes() for n, p in origin.bring(None, True, quiet).items()} == FILES
    assert origin.bring(None, True, lambda *_: pytest.fail("the cache needs no progress"))


@pytest.mark.parametrize("pack", ["folder", "zip", "tgz"])
def test_a_path_of_the_user(cache: Path, tmp_path: Path, pack: str) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for name, data in FILES.items():
        (raw / name).write_bytes(data)
    path = {"folder": raw, "zip": tmp_path / "a.zip", "tgz": tmp_path / "a.tgz"}[pack]
    if pack == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in FILES.items():
                archive.writestr(f"inside/{name}", data)
    if pack == "tgz":
        with tarfile.open(path, "w:gz") as archive:
            archive.add(raw, "../../escape")
    files = ORIGIN.bring(path, False, quiet)
    assert {n: p.read_bytes() for n, p in files.items()} == FILES and not (tmp_path.parent / "escape").exists()


def test_wrong_paths_and_wrong_files(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        ORIGIN.bring(tmp_path / "absent", False, quiet)
    (tmp_path / "raw").mkdir()
    with pytest.raises(UsageError, match="lacks train-images-idx3-ubyte, train-labels-idx1-ubyte"):
        ORIGIN.bring(tmp_path / "raw", False, quiet)
    for name in FILES:
        (tmp_path / "raw" / name).write_bytes(b"not genuine")
    with pytest.raises(VaestroError, match="is not the genuine file, for its sha256 differs"):
        ORIGIN.bring(tmp_path / "raw", False, quiet)
    (tmp_path / "raw" / "train-images-idx3-ubyte").write_bytes(b"\x1f\x8bbroken")
    with pytest.raises(VaestroError, match="a compressed file is broken"):
        ORIGIN.bring(tmp_path / "raw", False, quiet)
    (tmp_path / "note.txt").write_text("hello")
    with pytest.raises(UsageError, match="neither a folder nor an archive"):
        ORIGIN.bring(tmp_path / "note.txt", False, quiet)
    assert not cache.exists()


def test_silent_address_and_missing_client(cache: Path) -> None:
    origin = replace(ORIGIN, web=("http://127.0.0.1:9/",), package=("no-such-client", "pack"))
    with pytest.raises(VaestroError, match=r"http://127.0.0.1:9/ \(.*refused.*\); `no-such-client pack` \(no-such-client is not installed\)"):
        origin.bring(None, False, quiet)
    origin = replace(ORIGIN, package=(sys.executable, "-c", "import sys; sys.exit('first line\\nlast line')"))
    with pytest.raises(VaestroError, match=r"\(last line\)"):
        origin.bring(None, False, quiet)


def _one_source(monkeypatch: pytest.MonkeyPatch, source: Source) -> None:
    registry: Registry[Source] = Registry("data set")
    registry.enter(source)
    monkeypatch.setattr("vaestro.data.sources.SOURCES", registry)


def test_parts_are_entered_under_their_own_names_and_once() -> None:
    registry: Registry[Any] = Registry("data set")
    registry.enter(SOURCES["digits"], SOURCES["mnist-grey"])
    assert list(registry.values()) == [SOURCES["digits"], SOURCES["mnist-grey"]] and list(registry) == ["digits", "mnist-grey"]
    with pytest.raises(UsageError, match="two data sets are called 'digits'; rename one of them"):
        registry.enter(SOURCES["digits"])


def test_get_says_the_remedy(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _one_source(monkeypatch, replace(SOURCES["mnist-dynamic"], bring=idx_images(replace(ORIGIN, web=("http://127.0.0.1:9/",)))))
    with pytest.raises(VaestroError, match="tried: .*; fetch them by other means, then run `vaestro data get mnist-dynamic --path FOLDER`"):
        get("mnist-dynamic")
    with pytest.raises(UsageError, match="no data set called 'mnist-dynamik'; did you mean mnist-dynamic"):
        get("mnist-dynamik")


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "file"))
    with pytest.raises(VaestroError, match="could not be written"):
        get("digits")
