"""Folders and archives of pictures: every mode, every breakage, and rules that the report states in words."""

import contextlib
import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from vaestro.cli.app import app
from vaestro.data import Dataset, load, prepare_images, verify
from vaestro.data.prepare.pictures import Unreadable, open_picture
from vaestro.data.schema import Binary, Category, Integer
from vaestro.errors import UsageError, VaestroError

SPLITS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def put(folder: Path, name: str, pixels: np.ndarray) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / name)


def rows(data: Dataset) -> set[bytes]:
    return {row.tobytes() for s in SPLITS for row in data.split(s).arrays["x"]}


def stored(image: Image.Image, form: str = "PNG", **options: object) -> np.ndarray:
    file = io.BytesIO()
    image.save(file, form, **options)  # type: ignore[arg-type]
    return np.asarray(open_picture(file.getvalue()).image)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i in range(12):
        put(tmp_path / "photos", f"{i:02}.png", noise(i, 10, 8))
    return tmp_path / "photos"


def test_pictures_of_one_size_stay_as_they_are(photos: Path, cache: Path) -> None:
    data = load(str(photos))
    assert rows(data) == {noise(i, 1, 10, 8).tobytes() for i in range(12)}
    assert data.schema["x"].kind == Integer(256) and data.schema["x"].shape == (1, 10, 8) and data.name == "photos" and "label" not in data.schema
    assert data.report.rule == "All pictures are 10x8 and stay so. Stored in grey, 256 levels. Split by content, 80 / 10 / 10."
    assert (data.report.read, data.report.skipped, data.report.ignored) == (12, (), 0)
    assert data.folder is not None and data.folder.parent == cache / "data"
    verify(data)


def test_second_call_opens_nothing_and_a_change_is_seen(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare_images(photos)
    monkeypatch.setattr("vaestro.data.prepare.images.open_picture", lambda data: pytest.fail("a picture was read again"))
    again = prepare_images(photos)
    assert again.sha256 == first.sha256 and again.report == first.report
    monkeypatch.undo()
    put(photos, "new.png", noise(99, 10, 8))
    assert sum(prepare_images(photos).schema.rows.values()) == 13
    assert prepare_images(photos, size=(5, 4)).schema["x"].shape == (1, 5, 4)


def test_broken_files_are_named_and_never_fatal(photos: Path) -> None:
    good = (photos / "00.png").read_bytes()
    (photos / "cut.png").write_bytes(good[:60])
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "text.png").write_text("not a picture")
    (photos / "bent.png").write_bytes(good[:50] + bytes(20) + good[70:])
    Image.fromarray(np.ones((4, 4), np.float32)).save(photos / "float.tiff")
    Image.fromarray(np.full((4, 4), 70_000, np.int32)).save(photos / "long.tiff")
    (photos / "gone.png").symlink_to(photos / "nowhere.png")
    (photos / "notes.txt").write_text("ignored")
    (photos / "README").write_text("ignored, for it has no ending and is no picture")
    (photos / ".hidden.png").write_bytes(good)
    data = prepare_images(photos)
    reasons = dict(data.report.skipped)
    assert set(reasons) == {"cut.png", "empty.jpg", "text.png", "bent.png", "float.tiff", "long.tiff", "gone.png"} and all(reasons.values())
    assert reasons["empty.jpg"] == "it is empty" and reasons["text.png"] == "it is no picture in a known format"
    assert "floating values" in reasons["float.tiff"] and "32-bit integers" in reasons["long.tiff"] and "not a plain file" in reasons["gone.png"]
    assert data.report.read == 12 and data.report.ignored == 3 and len(rows(data)) == 12
    lines = data.report.lines()
    assert lines[0] == "12 files read, 7 skipped, 3 other files ignored" and "skipped empty.jpg: it is empty" in lines


def test_too_many_pixels(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(photos, "large.png", noise(0, 40, 40))
    put(photos, "larger.png", noise(0, 80, 80))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    data = prepare_images(photos)
    reason = "it has more than 1000 pixels, the limit of Image.MAX_IMAGE_PIXELS"
    assert data.report.skipped == (("large.png", reason), ("larger.png", reason)) and data.report.read == 12


def test_grey_modes() -> None:
    grey = noise(1, 6, 5)
    assert (stored(Image.fromarray(grey)) == grey).all()
    assert (stored(Image.fromarray(grey > 127)) == (grey > 127) * 255).all()
    deep = np.random.default_rng(2).integers(0, 65536, (6, 5)).astype(np.uint16)
    assert (stored(Image.fromarray(deep)) == deep >> 8).all(), "16 bits are shifted, not clipped"
    assert (stored(Image.fromarray(deep), "TIFF") == deep >> 8).all()
    alpha = noise(3, 6, 5)
    expected = np.rint(grey * (alpha / 255) + 255 * (1 - alpha / 255))
    got = stored(Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha))))
    assert got.shape == (6, 5) and np.abs(got - expected).max() <= 1


def test_colour_modes() -> None:
    rgb, alpha = noise(1, 6, 5, 3), noise(2, 6, 5)
    image = Image.fromarray(rgb)
    assert (stored(image) == rgb).all() and (stored(image, "BMP") == rgb).all() and (stored(image, "WEBP", lossless=True) == rgb).all()
    over = stored(Image.merge("RGBA", (*image.split(), Image.fromarray(alpha))))
    weight = alpha[..., None] / 255
    assert np.abs(over - (rgb * weight + 255 * (1 - weight))).max() <= 1
    assert (stored(Image.merge("RGBA", (*image.split(), Image.new("L", image.size, 0)))) == 255).all()
    palette = image.quantize(16)
    assert (stored(palette) == np.asarray(palette.convert("RGB"))).all()
    assert (stored(palette, transparency=palette.getpixel((0, 0)))[0, 0] == 255).all()
    cmyk = image.convert("CMYK")
    assert (stored(cmyk, "TIFF") == np.asarray(cmyk.convert("RGB"))).all()
    assert np.abs(stored(image.resize((64, 64)), "JPEG", quality=100).astype(int) - np.asarray(image.resize((64, 64)))).mean() < 8


def test_orientation_and_frames(tmp_path: Path) -> None:
    image = Image.fromarray(noise(0, 4, 6))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it turned by 90 degrees clockwise
    assert (stored(image, exif=exif) == np.rot90(noise(0, 4, 6), -1)).all()
    frames = [Image.fromarray(noise(i, 4, 6)).convert("P") for i in range(3)]
    for i in range(4):
        frames[0].save(tmp_path / f"{i}.gif", save_all=True, append_images=frames[1:])
        Image.fromarray(noise(i, 4, 6)).save(tmp_path / f"{i}.png", exif=exif)
    notes = prepare_images(tmp_path).notes
    assert "4 pictures were of several frames, of which the first was used" in notes
    assert "4 pictures were turned upright as their EXIF orientation says" in notes


def test_unreadable_is_the_only_error() -> None:
    """Whatever bytes a file has, it is a picture or it is Unreadable."""
    rng, kinds = np.random.default_rng(0), ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM", "TGA")
    for form in kinds:
        file = io.BytesIO()
        Image.fromarray(noise(0, 9, 9, 3)).save(file, form)
        for _ in range(25):
            data = bytearray(file.getvalue())
            for place in rng.integers(0, len(data), 6):
                data[place] = rng.integers(0, 256)
            with contextlib.suppress(Unreadable):  # any other error fails the test
                assert open_picture(bytes(data)).image.mode in ("L", "RGB")


def test_colour_if_any_has_colour(tmp_path: Path) -> None:
    for i in range(4):
        put(tmp_path / "mixed", f"grey{i}.png", noise(i, 6, 6))
        put(tmp_path / "mixed", f"rgb-of-grey{i}.png", np.repeat(noise(i + 10, 6, 6, 1), 3, 2))
    data = prepare_images(tmp_path / "mixed")
    assert data.schema["x"].shape == (1, 6, 6), "three equal channels are grey"
    assert rows(data) == {noise(i, 1, 6, 6).tobytes() for i in (0, 1, 2, 3, 10, 11, 12, 13)}
    put(tmp_path / "mixed", "colour.png", noise(50, 6, 6, 3))
    data = prepare_images(tmp_path / "mixed")
    assert data.schema["x"].shape == (3, 6, 6) and "Stored in colour" in data.report.rule
    assert np.repeat(noise(0, 1, 6, 6), 3, 0).tobytes() in rows(data) and noise(50, 6, 6, 3).transpose(2, 0, 1).tobytes() in rows(data)
    forced = prepare_images(tmp_path / "mixed", channels=1)
    assert np.asarray(Image.fromarray(noise(50, 6, 6, 3)).convert("L")).tobytes() in rows(forced)


@pytest.mark.parametrize(
    ("sizes", "shape", "words"),
    [
        ([(100, 37)] * 4, (100, 37), "All pictures are 100x37 and stay so."),
        ([(200, 150)] * 4, (64, 64), "All pictures are 200x150, more than 128, so each becomes 64x64"),
        ([(20, 30), (40, 20), (22, 22), (90, 91)], (20, 20), "Pictures have 4 sizes, so each becomes 20x20"),
        ([(300, 200), (200, 300), (500, 500), (90, 91)], (64, 64), "Pictures have 4 sizes, so each becomes 64x64"),
    ],
)
def test_size_rule(tmp_path: Path, sizes: list[tuple[int, int]], shape: tuple[int, int], words: str) -> None:
    for i, size in enumerate(sizes):
        put(tmp_path / "sizes", f"{i}.png", noise(i, *size))
    data = prepare_images(tmp_path / "sizes")
    assert data.schema["x"].shape == (1, *shape) and words in data.report.rule
    with pytest.raises(UsageError, match=r"size \(0, 5\)"):
        prepare_images(tmp_path / "sizes", size=(0, 5))


def test_the_middle_is_kept_and_averaged(tmp_path: Path) -> None:
    wide = np.zeros((16, 48), np.uint8)
    wide[:, 16:24], wide[:, 24:32] = 100, 200  # the middle square: left half 100, right half 200
    for i in range(3):
        put(tmp_path / "wide", f"{i}.png", np.roll(wide, i, 0) + np.uint8(i))
    x = prepare_images(tmp_path / "wide", size=(4, 4)).split("train").arrays["x"][0, 0]
    assert (np.abs(x[:, [0, 3]].astype(int) - [100, 200]) < 12).all(), "outside the cut was black, so a squeezed picture would be darker"


def test_black_and_white_is_binary(tmp_path: Path) -> None:
    for i in range(5):
        Image.fromarray(noise(i, 6, 6) > 127).save(tmp_path / f"{i}.png")
    data = prepare_images(tmp_path)
    assert data.schema["x"].kind == Binary() and rows(data) == {(noise(i, 1, 6, 6) > 127).astype(np.uint8).tobytes() for i in range(5)}
    assert prepare_images(tmp_path, size=(3, 3)).schema["x"].kind == Integer(256), "resized pictures have greys"


def test_classes_and_own_splits(tmp_path: Path) -> None:
    root = tmp_path / "set" / "inner"
    for part, n in (("train", 18), ("Test", 4)):
        for i in range(n):
            put(root, f"{part}/{('cat', 'dog')[i % 2]}/{i}.png", noise(i + 100 * (part == "Test"), 6, 6))
    data = prepare_images(tmp_path / "set")
    assert dict(data.schema.rows) == {"train": 16, "validation": 2, "test": 4} and data.schema["label"].kind == Category(2, ("cat", "dog"))
    assert rows_of(data, "test") == {noise(100 + i, 1, 6, 6).tobytes(): i % 2 for i in range(4)}
    assert {**rows_of(data, "train"), **rows_of(data, "validation")} == {noise(i, 1, 6, 6).tobytes(): i % 2 for i in range(18)}
    assert "own splits are kept (test, train); validation rows are a ninth" in data.report.rule and "2 classes of the field 'label'" in data.report.rule
    put(root, "train/cat/leak.png", noise(101, 6, 6))
    data = prepare_images(tmp_path / "set")
    assert data.schema.rows["test"] == 4 and any(note.startswith("1 training pictures are equal to") for note in data.notes)


def rows_of(data: Dataset, split: str) -> dict[bytes, int]:
    arrays = data.split(split).arrays
    return {row.tobytes(): int(label) for row, label in zip(arrays["x"], arrays["label"], strict=True)}


def test_three_own_splits_and_one_class(tmp_path: Path) -> None:
    for i, part in enumerate(["training"] * 3 + ["val"] * 2 + ["testing"]):
        put(tmp_path / "a", f"{part}/all/{i}.png", noise(i, 6, 6))
    data = prepare_images(tmp_path / "a")
    assert dict(data.schema.rows) == {"train": 3, "validation": 2, "test": 1} and "label" not in data.schema
    for i, name in enumerate(["bus", "car", "train"] * 4):
        put(tmp_path / "b", f"{name}/{i}.png", noise(i, 6, 6))
    data = prepare_images(tmp_path / "b")
    assert data.schema["label"].kind == Category(3, ("bus", "car", "train")), "a class called train, without a test folder, is no split"
    put(tmp_path / "b", "loose.png", noise(77, 6, 6))
    assert any("1 file lies outside the sub-folders" in n for n in prepare_images(tmp_path / "b").notes)


def test_equal_pictures_and_groups_stay_together(tmp_path: Path) -> None:
    folder = tmp_path / "groups"
    for i in range(60):
        put(folder, f"{i}.png", noise(i, 6, 6))
        Image.fromarray(noise(i, 6, 6)).convert("RGB").save(folder / f"copy of {i}.bmp")  # the same pixels in another mode and format
    data = prepare_images(folder)
    sets = [{r.tobytes() for r in data.split(s).arrays["x"]} for s in SPLITS]
    assert len(rows(data)) == 60 and sum(map(len, sets)) == 60 and sum(data.schema.rows.values()) == 120
    pairs = prepare_images(folder, groups=lambda name: name.removeprefix("copy of ").split(".")[0][-1])  # the last digit
    digit = {noise(i, 1, 6, 6).tobytes(): i % 10 for i in range(60)}
    held = [{digit[r.tobytes()] for r in pairs.split(s).arrays["x"]} for s in SPLITS]
    assert all(held) and not (held[0] & held[1] or held[0] & held[2] or held[1] & held[2])
    (folder / "groups.csv").write_text("name,group\n" + "".join(f"{i}.png,{i % 10}\n" for i in range(60)))
    listed = prepare_images(folder)
    assert "Files of one group in groups.csv stay in one split (60 files are not listed)." in listed.report.rule
    held = [{digit[r.tobytes()] for r in listed.split(s).arrays["x"]} for s in SPLITS]
    assert not (held[0] & held[1] or held[0] & held[2] or held[1] & held[2]), "copies join their originals' groups"


def test_bad_groups(photos: Path, tmp_path: Path) -> None:
    for text, words in (("name;group\n1;2\n", "no columns called name and group"), ("", "no columns"), ("name,group\nother.png,1\n", "lists none of the 12")):
        (tmp_path / "table.csv").write_text(text)
        with pytest.raises(UsageError, match=words):
            prepare_images(photos, groups=tmp_path / "table.csv")
    with pytest.raises(UsageError, match="no file of groups"):
        prepare_images(photos, groups=tmp_path / "absent.csv")


@pytest.mark.parametrize("pack", ["zip", "tar", "tgz"])
def test_archives_give_the_same_data(photos: Path, tmp_path: Path, pack: str) -> None:
    (photos / "broken.png").write_bytes(b"\x89PNG")
    path = tmp_path / f"photos.{pack}"
    if pack == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in photos.iterdir():
                archive.write(file, f"photos/{file.name}")
            archive.writestr("__MACOSX/photos/._00.png", b"junk")
    else:
        with tarfile.open(path, "w:gz" if pack == "tgz" else "w") as archive:
            archive.add(photos, "../photos")  # such a name would leave the folder, were it ever written to the disk
    data, folder = load(path), prepare_images(photos)
    assert rows(data) == rows(folder) and data.schema.rows == folder.schema.rows and data.report.skipped[0][0].endswith("photos/broken.png")
    assert [{r.tobytes() for r in data.split(s).arrays["x"]} for s in SPLITS] == [{r.tobytes() for r in folder.split(s).arrays["x"]} for s in SPLITS]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VaestroError, match="broken|neither|no data|readable") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_errors_in_one_sentence(tmp_path: Path) -> None:
    def fails(words: str, kind: type[VaestroError] = UsageError) -> None:
        with pytest.raises(kind, match=words) as caught:
            prepare_images(tmp_path / "set")
        assert "\n" not in str(caught.value) and not list((tmp_path / "cache").rglob("*.npy"))

    fails("there is no folder or archive")
    (tmp_path / "set" / "deep").mkdir(parents=True)
    fails("is empty; put pictures into it")
    (tmp_path / "set" / "a.txt").write_text("a")
    fails("holds 1 files but no pictures")
    (tmp_path / "set" / "a.png").write_text("a")
    fails("none of the 1 pictures in .* can be read; the first is a.png: it is no picture", VaestroError)
    put(tmp_path / "set", "b.png", noise(0, 4, 4))
    put(tmp_path / "set", "c.png", noise(1, 4, 4))
    fails(r"has 2 readable pictures \(1 broken\); training, validation and test need at least 3")
    put(tmp_path / "set", "d.png", noise(1, 4, 4))
    fails("for rows that are equal or of one group stay together, cannot be split")
    with pytest.raises(UsageError, match="1 channel .grey. or 3 .colour., not 2"):
        prepare_images(tmp_path / "set", channels=2)


def test_out_is_respected(photos: Path, tmp_path: Path) -> None:
    data = prepare_images(photos, tmp_path / "out")
    assert data.folder == tmp_path / "out" and prepare_images(photos, tmp_path / "out").sha256 == data.sha256
    assert load(tmp_path / "out").report == data.report
    with pytest.raises(UsageError, match="exists already"):
        prepare_images(photos, tmp_path / "out", size=(3, 3))


def test_a_picture_that_vanishes_between_the_passes(photos: Path, cache: Path) -> None:
    def vanish(what: str, done: float) -> None:
        if what.startswith("storing") and (photos / "07.png").exists():
            (photos / "07.png").unlink()

    with pytest.raises(VaestroError, match="changed while it was being read"):
        prepare_images(photos, progress=vanish)
    assert not list((cache / "data").iterdir())


def test_a_groups_file_that_is_not_there_is_never_passed_over(photos: Path, tmp_path: Path) -> None:
    prepare_images(photos)  # the same pictures without groups, in the cache
    for absent in (tmp_path / "typo.csv", str(tmp_path / "typo.csv")):
        with pytest.raises(UsageError, match="there is no file of groups .*typo.csv; give a table with the columns name,group"):
            prepare_images(photos, groups=absent)
    (tmp_path / "g.csv").write_text("name,group\n" + "".join(f"{i:02}.png,{i % 4}\n" for i in range(12)))
    grouped = prepare_images(photos, groups=str(tmp_path / "g.csv"))
    group = {noise(i, 1, 10, 8).tobytes(): i % 4 for i in range(12)}
    held = [{group[r.tobytes()] for r in grouped.split(s).arrays["x"]} for s in SPLITS]
    assert all(held) and not (held[0] & held[1] or held[0] & held[2] or held[1] & held[2])
    assert prepare_images(photos, groups=tmp_path / "g.csv").sha256 == grouped.sha256


def test_pictures_of_32_bits(tmp_path: Path) -> None:
    grey = noise(1, 6, 5)
    assert (stored(Image.fromarray(grey.astype(np.int32)), "TIFF") == grey).all(), "they were all black"
    wide = np.random.default_rng(2).integers(256, 65536, (6, 5)).astype(np.int32)
    assert (stored(Image.fromarray(wide), "TIFF") == wide >> 8).all()
    assert (stored(Image.fromarray(grey.astype(np.uint16)), "TIFF") == 0).all(), "of 16 bits, and dark"
    dark = b"P5 2 1 65535\n" + np.array([7, 255], ">u2").tobytes()
    assert np.asarray(open_picture(dark).image).tolist() == [[0, 0]], "Pillow holds the 16 bits of a .pgm in 32"
    for i in range(3):
        (tmp_path / "set").mkdir(exist_ok=True)
        Image.fromarray(noise(i, 6, 5).astype(np.int32)).save(tmp_path / "set" / f"{i}.tif")
    data = prepare_images(tmp_path / "set")
    assert data.notes == ("3 pictures were of 32 bits per value, none above 255, and were taken as 8 bits",) and len(rows(data)) == 3
    assert rows(data) == {noise(i, 1, 6, 5).tobytes() for i in range(3)}


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    top = tmp_path / os.fsdecode(b"set\xff")
    for i in range(8):
        put(top / os.fsdecode((b"b", b"caf\xe9")[i % 2]), f"{i}.png", noise(i, 6, 6))
    (top / "b" / os.fsdecode(b"br\xff.png")).write_bytes(b"junk")
    data = prepare_images(top)
    assert data.schema["label"].kind == Category(2, ("b", "caf\\xe9")) and data.name == "set\\xff"
    assert data.report.skipped == (("b/br\\xff.png", "it is no picture in a known format"),)
    assert str(data.folder).encode() and (data.split("train").arrays["label"] < 2).all()
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(top, "set")
    assert load(tmp_path / "set.tar").schema["label"].kind == data.schema["label"].kind
    top.rename(tmp_path / "set")
    for words in (
        ["data", "show", str(tmp_path / "set")],
        ["data", "show", str(tmp_path / "set"), "--json"],
        ["train", "vae:hidden=8", str(tmp_path / "set"), "--steps", "1", "--out", str(tmp_path / "run")],
    ):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, (words, done.output, done.exception)
    done = CliRunner().invoke(app, ["evaluate", str(tmp_path / "run"), "--rows", "1", "--samples", "2"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("name", ["L" * 237, "\N{CJK UNIFIED IDEOGRAPH-6F22}" * 75], ids=["237 letters", "225 bytes"])
def test_long_names(name: str, tmp_path: Path, cache: Path) -> None:
    for i in range(5):
        put(tmp_path / name, f"{i}.png", noise(i, 6, 6))
    first = load(tmp_path / name)
    assert first.name == name and first.folder is not None and load(tmp_path / name).folder == first.folder
    assert first.folder.name.startswith(f"images-{name[: 60 // len(name[0].encode())]}-") and len(first.folder.name.encode()) < 90
