"""Arrays and array files: which kind they are, how images lie, and what is refused."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vaestro.data import from_arrays, load, prepare_arrays
from vaestro.data.prepare.idx import read_idx
from vaestro.data.schema import Binary, Category, Integer, Kind, Real
from vaestro.errors import UsageError, VaestroError

RNG = np.random.default_rng(0)
SPLITS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))


def together(data: object, field: str = "x") -> np.ndarray:
    return np.concatenate([data.split(s).arrays[field] for s in SPLITS])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("array", "kind", "note"),
    [
        (RNG.random((30, 4)) < 0.5, Binary(), ""),
        (RNG.integers(0, 2, (30, 4)), Binary(), ""),
        (RNG.integers(0, 2, (30, 4)).astype(np.float32), Binary(), ""),
        (RNG.integers(0, 200, (30, 4)).astype(np.uint8), Integer(256), ""),
        (RNG.integers(0, 2, (30, 4)).astype(np.uint8) * 255, Integer(256), "only the values 0 and 255"),
        (np.arange(120).reshape(30, 4) % 17, Integer(17), ""),
        (np.arange(120, dtype=np.uint16).reshape(30, 4), Integer(120), ""),
        (np.arange(120).reshape(30, 4) - 5, Real(1.0), "whole numbers from -5 to 114"),
        (np.arange(120).reshape(30, 4) * 10**6, Real(1.0), "Real"),
        (RNG.normal(size=(30, 4)), Real(), ""),
        (RNG.random((30, 4)), Real(), "should come as uint8"),
        (np.arange(120.0).reshape(30, 4), Real(), "should come as uint8"),
        (RNG.normal(size=(30, 4)).astype(np.float16), Real(), ""),
    ],
)
def test_kinds_are_found(array: np.ndarray, kind: Kind, note: str) -> None:
    data = from_arrays("toy", {"x": array})
    assert data.schema["x"].kind == kind and note in " ".join(data.notes) and bool(data.notes) == bool(note)
    expected = array.astype(np.float32) if isinstance(kind, Real) else array
    assert sorted(map(tuple, together(data).tolist())) == sorted(map(tuple, expected.astype(together(data).dtype).tolist()))


def test_declared_kinds_are_kept_and_checked() -> None:
    x = RNG.integers(0, 4, (30, 4))
    assert from_arrays("toy", {"x": x}, {"x": Integer(16)}).schema["x"].kind == Integer(16)
    assert from_arrays("toy", {"x": x.astype(float)}, {"x": Integer(16)}).split("train").arrays["x"].dtype == np.uint8
    for kind, words in ((Integer(3), "values 0 to 2 but holds 0 to 3"), (Binary(), "values 0 to 1 but holds 0 to 3")):
        with pytest.raises(UsageError, match=words):
            from_arrays("toy", {"x": x}, {"x": kind})
    with pytest.raises(UsageError, match="holds fractions"):
        from_arrays("toy", {"x": x + 0.5}, {"x": Integer(16)})
    with pytest.raises(UsageError, match="no such array; did you mean x"):
        from_arrays("toy", {"x": x}, {"xx": Binary()})


def test_labels_numbers_words_and_one_class() -> None:
    x, y = RNG.random((40, 3)), np.arange(40) % 5
    assert from_arrays("toy", {"x": x, "label": y}).schema["label"].kind == Category(5)
    assert from_arrays("toy", {"x": x, "label": y % 2 == 0}).schema["label"].kind == Category(2)
    data = from_arrays("toy", {"x": x, "label": np.array(["cat", "bird", "dog", "ant", "eel"])[y]})
    assert data.schema["label"].kind == Category(5, ("ant", "bird", "cat", "dog", "eel"))
    words = {tuple(a): ["cat", "bird", "dog", "ant", "eel"][b] for a, b in zip(x.astype(np.float32), y, strict=True)}
    names = data.schema["label"].kind.names  # type: ignore[union-attr]
    assert all(words[tuple(a)] == names[b] for a, b in zip(together(data), together(data, "label"), strict=True)), "rows and labels stay together"
    assert any("all rows of 'label' are of one class" in note for note in from_arrays("toy", {"x": x, "label": y * 0}).notes)


@pytest.mark.parametrize(
    ("shape", "stored", "turned"),
    [
        ((20, 6, 5), (1, 6, 5), lambda x: x[:, None]),
        ((20, 6, 5, 3), (3, 6, 5), lambda x: x.transpose(0, 3, 1, 2)),
        ((20, 6, 5, 1), (1, 6, 5), lambda x: x.transpose(0, 3, 1, 2)),
        ((20, 3, 6, 5), (3, 6, 5), lambda x: x),
        ((20, 1, 6, 5), (1, 6, 5), lambda x: x),
        ((20, 2, 6, 5), (2, 6, 5), lambda x: x),
        ((20, 4, 4, 1), (1, 4, 4), lambda x: x.transpose(0, 3, 1, 2)),
        ((20, 4, 4, 3), (3, 4, 4), lambda x: x.transpose(0, 3, 1, 2)),
        ((20, 1, 4, 4), (1, 4, 4), lambda x: x),
        ((20, 3, 3, 3), (3, 3, 3), lambda x: x),
        ((20, 7), (7,), lambda x: x),
        ((20,), (1,), lambda x: x[:, None]),
        ((20, 2, 3, 4, 5), (2, 3, 4, 5), lambda x: x),
    ],
)
def test_layouts(shape: tuple[int, ...], stored: tuple[int, ...], turned: object) -> None:
    x = RNG.integers(0, 256, shape).astype(np.uint8)
    data = from_arrays("toy", {"x": x})
    assert data.schema["x"].shape == stored
    expected = {row.tobytes() for row in np.ascontiguousarray(turned(x))}  # type: ignore[operator]
    assert {row.tobytes() for row in together(data)} == expected


@pytest.mark.parametrize("last", [True, False])
def test_rgba_is_laid_over_white_as_pillow_does(last: bool) -> None:
    x = RNG.integers(0, 256, (10, 9, 8, 4)).astype(np.uint8)
    x[0, ..., 3], x[1, ..., 3] = 0, 255
    data = from_arrays("toy", {"x": x if last else x.transpose(0, 3, 1, 2)})
    assert data.schema["x"].shape == (3, 9, 8) and any("laid over white" in n for n in data.notes)
    expected = np.rint((x[..., :3] * (x[..., 3:] / 255.0)) + 255 * (1 - x[..., 3:] / 255.0)).astype(np.uint8).transpose(0, 3, 1, 2)
    assert {r.tobytes() for r in together(data)} == {np.ascontiguousarray(r).tobytes() for r in expected}


def test_torch_tensors_lists_pictures_and_datasets() -> None:
    x, y = RNG.integers(0, 256, (30, 5, 4, 3)).astype(np.uint8), np.arange(30) % 3
    want = from_arrays("toy", {"x": x, "label": y})
    turned = torch.from_numpy(x).permute(0, 3, 1, 2)
    pairs = torch.utils.data.TensorDataset(turned, torch.from_numpy(y))
    pictures = [(Image.fromarray(a), int(b)) for a, b in zip(x, y, strict=True)]
    dicts = [{"x": a, "label": b} for a, b in zip(x, y, strict=True)]
    for spec in ((x, y), {"x": list(x), "label": y.tolist()}, {"x": torch.from_numpy(x), "label": y}, pairs, pictures, dicts, (turned, y)):
        got = load(spec)
        assert got.schema.fields == want.schema.fields
        for s in SPLITS:
            assert all((got.split(s).arrays[f] == want.split(s).arrays[f]).all() for f in ("x", "label")), "and the split is that of the content"
    assert (together(load(x)) == together(load(torch.from_numpy(x)))).all() and load(want) is want
    palette = Image.fromarray(x[0]).quantize(4)
    assert load([palette] * 2 + [Image.fromarray(a) for a in x]).schema["x"].shape == (3, 5, 4), "a palette is looked up, not taken for grey"


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.where(np.arange(40).reshape(10, 4) % 21 == 13, np.nan, 1.5)}, "NaN or infinite values in 2 rows, the first is row 3"),
        ({"x": np.array([[1.5], [np.inf], [2.5], [0.1]])}, "in 1 row, the first is row 1"),
        ({"x": np.full((5, 2), np.nan)}, "in 5 rows, the first is row 0"),
        ({"x": np.zeros((1, 4))}, "1 rows cannot be split into train, validation, test; give at least 3"),
        ({"x": np.zeros((0, 4))}, "have no rows"),
        ({"x": np.zeros((9, 4))}, "9 rows of 1 kind, for rows that are equal or of one group stay together, cannot be split"),
        ({"x": np.zeros((9, 0))}, "holds no numbers"),
        ({"x": []}, "have no rows"),
        ({}, "no train arrays were given"),
        ({"x": np.float64(3)}, r"with shape \(\); give numbers with one row along the first axis"),
        ({"x": np.zeros((9, 2), complex)}, "an array of type complex128"),
        ({"x": np.array([object()] * 9)}, "an array of type object"),
        ({"x": np.arange(18).reshape(9, 2), "label": np.arange(8)}, r"unequal numbers of rows \(x: 9, label: 8\)"),
        ({"x": [np.zeros((4, 4)), np.zeros((4, 4)), np.zeros((4, 4, 3))]}, r"row 2 of 'x' has shape \(4, 4, 3\), but row 0 has \(4, 4\)"),
        ({"x": torch.zeros(9, 2, requires_grad=True)}, "'x' cannot be read as an array"),
        ({"x": np.array([[1e300], [2.5], [1.5]])}, "too large for 32-bit"),
    ],
)
def test_refusals(arrays: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        from_arrays("toy", arrays)
    assert "\n" not in str(caught.value)


def test_held_out_rows_of_the_user() -> None:
    x, t, v = (RNG.integers(0, 17, (n, 4)) for n in (90, 7, 5))
    x[0, 0], t[0, 0] = 16, 0
    data = from_arrays("toy", {"x": x}, test={"x": t})
    assert (data.split("test").arrays["x"] == t).all() and dict(data.schema.rows) == {"train": 80, "validation": 10, "test": 7}
    data = from_arrays("toy", {"x": x}, test={"x": t}, validation={"x": v})
    assert (data.split("train").arrays["x"] == x).all() and (data.split("validation").arrays["x"] == v).all()
    with pytest.raises(UsageError, match=r"the test rows of 'x' have shape \(3,\)"):
        from_arrays("toy", {"x": x}, test={"x": t[:, :3]})
    with pytest.raises(UsageError, match="the test rows have the fields y"):
        from_arrays("toy", {"x": x}, test={"y": t})
    with pytest.raises(UsageError, match="field 'x' of the test rows is Integer with values 0 to 16 but holds 0 to"):
        from_arrays("toy", {"x": x}, {"x": Integer(17)}, test={"x": t * 9})


def test_each_part_may_lie_in_its_own_way() -> None:
    x = RNG.integers(0, 256, (30, 3, 6, 5)).astype(np.uint8)
    data = from_arrays("toy", {"x": x}, test={"x": x[:4].transpose(0, 2, 3, 1)})
    assert (data.split("test").arrays["x"] == x[:4]).all()


def test_duplicates_stay_together_and_split_is_deterministic() -> None:
    x = RNG.normal(size=(60, 3))[RNG.integers(0, 60, 400)]
    data, again = from_arrays("toy", {"x": x}, seed=1), from_arrays("toy", {"x": x[::-1]}, seed=1)
    sets = [{r.tobytes() for r in data.split(s).arrays["x"]} for s in SPLITS]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    assert sets == [{r.tobytes() for r in again.split(s).arrays["x"]} for s in SPLITS]
    assert data.sha256 == from_arrays("toy", {"x": x}, seed=1).sha256 != from_arrays("toy", {"x": x}, seed=2).sha256


def idx(array: np.ndarray, code: int) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape) + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize(("dtype", "code"), [("u1", 8), ("i1", 9), ("i2", 11), ("i4", 12), ("f4", 13), ("f8", 14)])
def test_idx_of_every_type(tmp_path: Path, dtype: str, code: int) -> None:
    array = RNG.integers(0, 100, (7, 3, 2)).astype(dtype)
    (tmp_path / "a").write_bytes(idx(array, code))
    (tmp_path / "b.gz").write_bytes(gzip.compress(idx(array, code)))
    for name in ("a", "b.gz"):
        got = read_idx(tmp_path / name)
        assert (got == array).all() and got.dtype == np.dtype(dtype) and got.dtype.isnative


GOOD = idx(np.arange(60, dtype=np.uint8).reshape(10, 6), 8)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (GOOD[:-1], "has 59 bytes of numbers where its header .* promises 60"),
        (GOOD + b"\0", "has more bytes of numbers"),
        (GOOD[:7], "ends within its header"),
        (b"", "is not an IDX file"),
        (b"\x89PNG123", "is not an IDX file"),
        (b"\0\0\x0a\x01" + GOOD[4:], "is not an IDX file"),
        (gzip.compress(GOOD)[:-12], "is broken"),
        (gzip.compress(GOOD)[:14] + b"\xff" * 20, "is broken"),
        (struct.pack(">HBB4I", 0, 8, 4, *[2**32 - 1] * 4), "has 0 bytes of numbers"),
    ],
    ids=["short", "long", "half a header", "empty", "a picture", "unknown type", "cut gzip", "altered gzip", "a size without end"],
)
def test_broken_idx(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(VaestroError, match=words):
        read_idx(tmp_path / "file")


def test_array_files(tmp_path: Path) -> None:
    x, y = RNG.integers(0, 256, (50, 6, 5)).astype(np.uint8), np.arange(50) % 4
    want = from_arrays("data", {"x": x})
    np.save(tmp_path / "data.npy", x)
    (tmp_path / "data.idx3-ubyte").write_bytes(idx(x, 8))
    (tmp_path / "data-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(x, 8)))
    np.savez(tmp_path / "data.npz", x)
    for path in sorted(p for p in tmp_path.glob("data*")):
        data = load(str(path))
        assert all((data.split(s).arrays["x"] == want.split(s).arrays["x"]).all() for s in SPLITS), path
        assert load(path).folder == data.folder
    np.savez_compressed(tmp_path / "two.npz", images=x, y=y)
    assert load(tmp_path / "two.npz").schema.fields == from_arrays("two", {"x": x, "label": y}).schema.fields
    np.savez(tmp_path / "keras.npz", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    data = prepare_arrays(tmp_path / "keras.npz", tmp_path / "out")
    assert (data.split("test").arrays["x"][:, 0] == x[40:]).all() and data.split("test").arrays["label"].tolist() == y[40:].tolist()
    assert data.folder == tmp_path / "out" and dict(data.schema.rows) == {"train": 36, "validation": 4, "test": 10}
    assert prepare_arrays(tmp_path / "keras.npz", tmp_path / "out").sha256 == data.sha256
    with pytest.raises(UsageError, match="exists already"):
        prepare_arrays(tmp_path / "keras.npz", tmp_path / "out", seed=1)


def test_changed_file_is_read_anew(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.arange(40.0).reshape(20, 2) + 0.5)
    first = load(tmp_path / "data.npy")
    np.save(tmp_path / "data.npy", np.arange(60.0).reshape(30, 2) + 0.5)
    assert sum(first.schema.rows.values()) == 20 and sum(load(tmp_path / "data.npy").schema.rows.values()) == 30


def test_broken_array_files(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}, 1]), allow_pickle=True)
    np.save(tmp_path / "cut.npy", np.zeros((9, 9)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-8])
    np.savez(tmp_path / "names.npz", first=np.zeros(3), second=np.zeros(3))
    np.savez(tmp_path / "cut.npz", x=np.zeros((99, 9)), y=np.arange(99))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:-80])
    (tmp_path / "text.txt").write_text("hello world")
    (tmp_path / "empty").write_bytes(b"")
    for name, words in (
        ("objects.npy", "holds Python objects, which are never loaded"),
        ("cut.npy", "is broken"),
        ("cut.npz", "is broken"),
        ("names.npz", "has the arrays first, second; call the data `x`"),
        ("text.txt", "is no data; give a folder or archive of pictures"),
        ("empty", "is no data"),
        ("absent.npy", "there is no"),
    ):
        with pytest.raises(VaestroError, match=words) as caught:
            load(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache" / "data").iterdir())


def test_load_refuses_what_is_no_data() -> None:
    for spec, words in (
        ("mnist-dynamc", "no data set, folder or file called 'mnist-dynamc'; did you mean mnist-dynamic"),
        ("", "no data set, folder or file called ''"),
        (3, "a int is no data"),
        (None, "a NoneType is no data"),
        ((np.zeros(3),) * 3, "a tuple of 3 is no data"),
        ([{"x": [1]}, {"y": [1]}], "row 1 has the fields y, but row 0 has x"),
    ):
        with pytest.raises(UsageError, match=words):
            load(spec)


@pytest.mark.parametrize("pixels_first", [True, False])
def test_splits_of_unlike_scales_are_refused(pixels_first: bool) -> None:
    rng = np.random.default_rng(0)
    pixels, shares = rng.integers(0, 256, (40, 8, 8)).astype(np.uint8), rng.random((40, 8, 8))
    train, test = (pixels, shares) if pixels_first else (shares, pixels)
    with pytest.raises(UsageError, match="whole numbers up to 255, but the (train|test) rows are fractions of 0 to 1"):
        from_arrays("mixed", {"x": train}, test={"x": test})
    for both in (pixels, shares, (shares > 0.5).astype(float)):  # of one scale, and black and white beside either
        from_arrays("like", {"x": both}, test={"x": both[:9]})
    from_arrays("bits", {"x": shares}, test={"x": (shares > 0.5).astype(np.uint8)})


@pytest.mark.parametrize("dtype", [np.int64, np.uint32])
def test_whole_numbers_that_lose_digits_are_told(dtype: type) -> None:
    few = RNG.integers(0, 2**31, (30, 4)).astype(dtype)
    lost = "field 'x': whole numbers beyond 16,777,216 lose their last digits as 32-bit numbers; take a common start away from them"
    assert lost in from_arrays("toy", {"x": few}).notes and lost in from_arrays("toy", {"x": few}, {"x": Real()}).notes
    assert lost not in from_arrays("toy", {"x": few % 2**24}).notes and lost not in from_arrays("toy", {"x": few.astype(float)}).notes
    near = (2**32 - 1 - np.arange(30)).astype(dtype)
    with pytest.raises(UsageError, match="30 rows of 1 kind, .*; field 'x': whole numbers beyond 16,777,216 lose their last digits"):
        from_arrays("toy", {"x": near})


def test_an_array_whose_name_is_no_part_of_a_files_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", **{"x": RNG.random((20, 3)), "meta/id": np.arange(20)})
    with pytest.raises(UsageError, match="the array 'meta/id' cannot be stored, for its name would be part of a file's name; give it one without /"):
        load(tmp_path / "two.npz")
    assert not list((tmp_path / "cache").rglob("*.npy"))


@pytest.mark.parametrize("spec", [memoryview(np.zeros((9, 2))), b"digits", bytearray(b"digits")], ids=["memoryview", "bytes", "bytearray"])
def test_bytes_are_no_data(spec: object) -> None:
    with pytest.raises(UsageError, match=f"{type(spec).__name__} are no data, for they do not say what their rows are") as caught:
        load(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", ["csv", "npy"])
def test_long_names_of_files(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"{'q' * 225}.{ending}"
    if ending == "csv":
        path.write_text("a,b\n" + "".join(f"{a:.3f},{b:.3f}\n" for a, b in RNG.normal(size=(30, 2))))
    else:
        np.save(path, RNG.normal(size=(30, 2)))
    data = load(path)
    assert data.name == "q" * 225 and data.folder is not None and f"-{'q' * 60}-" in data.folder.name and load(path).folder == data.folder
