"""The store: what is written is read back, and whatever is not sound is refused in one sentence."""

import hashlib
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vaestro.data import Dataset, Encoding, from_arrays, open_dataset, save, store, verify, write_dataset
from vaestro.data.report import PrepareReport
from vaestro.data.schema import Binary, Category, Field, Integer, Real, Schema
from vaestro.data.writing import Writer
from vaestro.errors import UsageError, VaestroError

SCHEMA = Schema("toy", (Field("x", Binary(), (1, 2, 3)), Field("label", Category(3, ("a", "b", "c")))), {"train": 4, "test": 2})
PINNED = "ef81fde2fa075280ba33541118e9ef1cd61dec405afdf3f0b4279573de098bce"
TRAIN = (np.arange(24) * 11 % 256).astype(np.uint8).reshape(4, 1, 2, 3)


def fill(writer: Writer) -> None:
    for row in TRAIN:
        writer.append("train", "x", row[None], Encoding.INTENSITY)
    writer.append("test", "x", np.eye(6, dtype=bool)[:2].reshape(2, 1, 2, 3))
    writer.append("test", "label", np.array([2, 0]))
    writer.append("train", "label", np.array([0, 1, 2, 1]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "toy", SCHEMA, fill, PrepareReport("rule", ("note",), (("a.png", "broken"),), 5, 1, "key"))
    return tmp_path / "toy"


def test_round_trip(folder: Path) -> None:
    data = open_dataset(folder)
    assert data.schema == SCHEMA and data.name == "toy" and data.notes == ("note",)
    assert data.report == PrepareReport("rule", ("note",), (("a.png", "broken"),), 5, 1, "key")
    assert (data.split("train").arrays["x"] == TRAIN).all() and data.split("train").rows == 4
    assert data.split("train").encodings == {"x": Encoding.INTENSITY, "label": Encoding.VALUE}
    assert data.split("test").arrays["x"].reshape(2, 6).tolist() == np.eye(6)[:2].tolist()
    assert data.split("test").arrays["label"].tolist() == [2, 0] and data.split("test").arrays["label"].dtype == np.uint8
    verify(data)
    assert np.load(folder / "train.x.npy").tobytes() == TRAIN.tobytes(), "any NumPy reads the file"
    assert sorted(p.name for p in folder.parent.iterdir()) == ["toy"], "nothing temporary is left"


def test_hash_is_of_content_not_of_place_or_report(folder: Path, tmp_path: Path) -> None:
    data = open_dataset(folder)
    memory = Dataset(data.schema, data.splits)
    assert memory.sha256 == data.sha256 == save(memory, tmp_path / "copy").sha256
    assert data.sha256 == PINNED, "every stored data set and every result quotes such a hash: it never changes"
    assert data.entries["train"]["x"].sha256 == hashlib.sha256(TRAIN.tobytes()).hexdigest()
    other = Dataset(Schema("toy", SCHEMA.fields, SCHEMA.rows, "2"), data.splits)
    assert other.sha256 != data.sha256


def test_a_map_is_never_written_to(folder: Path) -> None:
    data = open_dataset(folder)
    with pytest.raises(ValueError, match="read-only"):
        data.split("train").arrays["x"][0] = 7
    assert (open_dataset(folder).split("train").arrays["x"] == TRAIN).all()


def test_did_you_mean(folder: Path) -> None:
    with pytest.raises(UsageError, match="no split called 'tain'; did you mean train"):
        open_dataset(folder).split("tain")


def _edit(change: Callable[[dict], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        head = json.loads((folder / "schema.json").read_text())
        change(head)
        (folder / "schema.json").write_text(json.dumps(head))

    return apply


def _resign(change: Callable[[dict], None]) -> Callable[[Path], None]:
    """An altered header with a fitting hash: the checks behind the hash must hold too."""

    def apply(folder: Path) -> None:
        _edit(change)(folder)
        schema, entries, report, _ = store._read_header(folder)
        (folder / "schema.json").write_text(json.dumps(store.header(schema, entries, report)))

    return apply


def _array(head: dict, split: str = "train", field: str = "x") -> dict:
    return head["arrays"][split][field]


def _object_array(folder: Path) -> None:
    (folder / "train.x.npy").unlink()
    np.save(folder / "train.x.npy", np.array([{}, {}, {}, {}], dtype=object), allow_pickle=True)


def _leaving_link(folder: Path) -> None:
    (folder / "train.x.npy").rename(folder.parent / "elsewhere.npy")
    (folder / "train.x.npy").symlink_to(folder.parent / "elsewhere.npy")


DAMAGE = {
    "truncated array": (lambda f: (f / "train.x.npy").write_bytes((f / "train.x.npy").read_bytes()[:-1]), "has 151 bytes where its header promises 152"),
    "longer array": (lambda f: (f / "train.x.npy").write_bytes((f / "train.x.npy").read_bytes() + b"1"), "has 153 bytes where"),
    "no array": (lambda f: (f / "train.x.npy").unlink(), "cannot be read"),
    "foreign array": (lambda f: (f / "train.x.npy").write_bytes(b"GIF89a" * 99), "is not an array file"),
    "empty array": (lambda f: (f / "train.x.npy").write_bytes(b""), "is not an array file"),
    "objects": (_object_array, "holds Python objects, which are never loaded"),
    "other array": (lambda f: np.save(f / "train.x.npy", TRAIN[:3]), r"holds \|u1 \(3, 1, 2, 3\), but schema.json says"),
    "columns first": (lambda f: np.save(f / "train.x.npy", np.asfortranarray(TRAIN)), "columns first"),
    "leaving link": (_leaving_link, "outside the folder"),
    "no header": (lambda f: (f / "schema.json").unlink(), "has no schema.json"),
    "broken header": (lambda f: (f / "schema.json").write_text('{"format": 1, '), "not the header of a data set"),
    "foreign header": (lambda f: (f / "schema.json").write_text("[1, 2]"), "not the header of a data set"),
    "binary header": (lambda f: (f / "schema.json").write_bytes(b"\xff\xfe\0"), "not the header of a data set"),
    "newer format": (_edit(lambda h: h.update(format=2)), "has format 2, and this version reads format 1"),
    "altered name": (_edit(lambda h: h.update(name="other")), "was altered"),
    "no splits": (_edit(lambda h: h.pop("arrays")), "not the header of a data set"),
    "unknown kind": (_edit(lambda h: h["fields"][0].update(kind={"is": "Binry"})), "did you mean Binary"),
    "unknown encoding": (_edit(lambda h: _array(h).update(encoding="odd")), "not the header of a data set"),
    "path above": (_resign(lambda h: _array(h).update(file="../x.npy")), "outside the folder"),
    "absolute path": (_resign(lambda h: _array(h).update(file="/etc/passwd")), "outside the folder"),
    "other rows": (_resign(lambda h: h["rows"].update(train=5)), r"but its schema wants \|u1 \(5, 1, 2, 3\)"),
    "other type": (_resign(lambda h: _array(h).update(dtype="<f4")), "but its schema wants"),
    "missing field": (_resign(lambda h: h["arrays"]["train"].pop("label")), "does not have the fields"),
    "missing split": (_resign(lambda h: h["arrays"].pop("train")), "other splits"),
    "intensities of a label": (_resign(lambda h: _array(h, "train", "label").update(encoding="intensity")), "only Binary"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_unsound_folders_are_refused(folder: Path, name: str) -> None:
    damage, words = DAMAGE[name]
    damage(folder)
    with pytest.raises(VaestroError, match=words) as caught:
        open_dataset(folder)
    assert "\n" not in str(caught.value)


def test_verify_finds_one_changed_bit(folder: Path) -> None:
    data = bytearray((folder / "test.x.npy").read_bytes())
    data[-1] ^= 1
    (folder / "test.x.npy").write_bytes(data)
    opened = open_dataset(folder)  # sizes agree, and content is not read
    with pytest.raises(VaestroError, match="test.x.npy in .* was altered"):
        verify(opened)


def test_what_does_not_fit_is_not_written(tmp_path: Path) -> None:
    def check(words: str, change: Callable[[Writer], None], schema: Schema = SCHEMA) -> None:
        with pytest.raises(UsageError, match=words):
            write_dataset(tmp_path / "bad", schema, lambda w: (fill(w), change(w))[0] if schema is SCHEMA else change(w))
        assert not list(tmp_path.iterdir())

    check("has 4 rows, but more", lambda w: w.append("train", "label", np.array([1])))
    check("no split called 'valid'", lambda w: w.append("valid", "label", np.array([1])))
    check("no field 'lable'; did you mean label", lambda w: w.append("test", "lable", np.array([1])))
    one = Schema("one", (Field("x", Integer(4), (2,)),), {"train": 2})
    check("has 2 rows, but 1 were given", lambda w: w.append("train", "x", np.array([[1, 2]])), one)
    check("was given no rows of field 'x'", lambda w: None, one)
    check("values 0 to 3 but holds 0 to 4", lambda w: w.append("train", "x", np.array([[0, 2], [3, 4]])), one)
    check("values 0 to 3 but holds -1 to 2", lambda w: w.append("train", "x", np.array([[-1, 2]])), one)
    check("holds fractions", lambda w: w.append("train", "x", np.array([[0.5, 2]])), one)
    check(r"rows of shape \(2,\), but rows of shape \(3,\)", lambda w: w.append("train", "x", np.zeros((1, 3), int)), one)
    check("only Binary fields", lambda w: w.append("train", "x", np.zeros((1, 2), np.uint8), Encoding.INTENSITY), one)
    real = Schema("real", (Field("x", Real(), (2,)),), {"train": 2})
    check("NaN or infinite values in 1 row, the first is row 1", lambda w: w.append("train", "x", np.array([[0, 2], [3, np.nan]])), real)


def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    schema = Schema("big", (Field("x", Integer(256), (1000,)),), {"train": 1000})
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, old[1]))
    try:
        with pytest.raises(VaestroError, match="could not be written .*; free some space or choose another folder") as caught:
            write_dataset(tmp_path / "big", schema, lambda w: w.append("train", "x", np.zeros((1000, 1000), np.uint8)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert caught.value.exit_code == 1 and not list(tmp_path.iterdir())


def test_taken_folder_and_missing_permission(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="exists already"):
        write_dataset(tmp_path / "taken", SCHEMA, fill)
    assert (tmp_path / "taken" / "thesis.txt").read_text() == "years of work"
    (tmp_path / "file").write_text("")
    with pytest.raises(VaestroError, match="could not be written"):
        write_dataset(tmp_path / "file" / "below", SCHEMA, fill)


def test_two_writers_of_the_same_data(tmp_path: Path) -> None:
    def slow(writer: Writer) -> None:
        fill(writer)
        write_dataset(tmp_path / "other", SCHEMA, fill)
        (tmp_path / "other").rename(tmp_path / "same")  # another process is faster

    assert write_dataset(tmp_path / "same", SCHEMA, slow).folder == tmp_path / "same"
    assert [p.name for p in tmp_path.iterdir()] == ["same"]


def test_memory_is_flat(tmp_path: Path) -> None:
    """300 MB are written and read in batches with less than 50 MB of anonymous memory beyond the start."""
    script = """
import sys, numpy as np
from pathlib import Path
from vaestro.data import write_dataset, open_dataset
from vaestro.data.schema import Schema, Field, Integer
anonymous = lambda: int(next(l for l in open("/proc/self/status") if l.startswith("RssAnon")).split()[1])
start = anonymous()
block = np.zeros((1000, 3000), np.uint8)
schema = Schema("big", (Field("x", Integer(256), (3000,)),), {"train": 100_000})
data = write_dataset(Path(sys.argv[1]), schema, lambda w: [w.append("train", "x", block) for _ in range(100)])
x = data.split("train").arrays["x"]
peak = 0
for i in range(0, 100_000, 1000):
    x[np.arange(i, i + 1000)].sum(); peak = max(peak, anonymous())
print(peak - start)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("anonymous memory is only told by Linux")
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "big")], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50_000, done.stdout


def test_saved_memory_data(tmp_path: Path) -> None:
    data = from_arrays("toy", {"x": np.random.default_rng(0).random((30, 4)), "label": np.arange(30) % 3})
    stored = save(data, tmp_path / "kept")
    assert stored.sha256 == data.sha256 and stored.notes == data.notes
    for name, split in data.splits.items():
        assert all((stored.split(name).arrays[f] == a).all() for f, a in split.arrays.items())
