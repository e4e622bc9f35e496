"""Emoji: pictures cut from a sheet, subjects in one split each."""

import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from vaestro.data.emoji import CELL, CLASSES, SHEET, SIDE, TABLE, emoji, listed
from vaestro.data.fetch import Origin
from vaestro.errors import VaestroError


def package(monkeypatch, tmp_path, subjects=20):
    """A package of a small sheet, with a decoy of the same name, and where it comes from; subject i has a second skin."""
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))
    sheet = np.zeros((2 * CELL, subjects * CELL, 4), np.uint8)
    table = []
    for i in range(subjects):
        for row in range(2):
            sheet[row * CELL + 1 : row * CELL + 1 + SIDE, i * CELL + 1 : i * CELL + 1 + SIDE] = (10 * i, 100 * row, 7, 255 if i else 0)
        place = {"sheet_x": i, "sheet_y": 0, "has_img_google": True}
        tone = {"1F3FB": {"sheet_x": i, "sheet_y": 1, "has_img_google": i != 3}}
        table.append({"unified": f"1F{i:03X}-FE0F", "category": CLASSES[i % 10], "skin_variations": tone, **place})
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "PNG")
    there = json.dumps(table).encode()
    files = {
        "package/emoji.json": there,
        "package/img/google/sheets-128/64.png": b"x",
        "package/img/google/sheets/64.png": file.getvalue(),
    }
    with tarfile.open(tmp_path / "package.tgz", "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    hashes = {TABLE: hashlib.sha256(there).hexdigest(), SHEET: hashlib.sha256(file.getvalue()).hexdigest()}
    return Origin("tiny-emoji", hashes, inside={SHEET: "/img/google/sheets/64.png"}), tmp_path / "package.tgz"


def test_pictures_are_cut_laid_on_white_and_split_by_subject(monkeypatch, tmp_path):
    origin, path = package(monkeypatch, tmp_path)
    raw = emoji(origin)(path, True, lambda what, share: None)
    assert sum(len(x) for x, _ in raw.values()) == 39  # one skin has no picture
    subjects = {split: {int(v) for v in x[:, 0].max((1, 2))} for split, (x, _) in raw.items()}
    assert not subjects["train"] & subjects["test"] and not subjects["validation"] & subjects["test"] and not subjects["train"] & subjects["validation"]
    for x, labels in raw.values():
        assert x.shape[1:] == (3, SIDE, SIDE) and x.dtype == np.uint8
        for picture, label in zip(x, labels, strict=True):
            number = 0 if picture[0, 0, 0] == 255 else int(picture[0, 0, 0]) // 10
            assert (picture == picture[:, :1, :1]).all() and label == number % 10
    assert any((x == 255).all((1, 2, 3)).any() for x, _ in raw.values())  # what was transparent is white


def test_a_table_that_is_none_is_refused():
    for text in (b"no JSON", b"[1]", b'[{"unified": "1F600"}]'):
        with pytest.raises(VaestroError, match="not the table of emoji"):
            listed(text)
