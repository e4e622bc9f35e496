"""Doubles between splits by brute force, and what cannot be compared."""

import json

import numpy as np
import pytest

from vaestro.data import from_arrays, load
from vaestro.data.duplicates import doubles
from vaestro.data.schema import Integer, Real
from vaestro.errors import UsageError


def brute(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sqrt(((a[:, None] - b[None]) ** 2).reshape(len(a), len(b), -1).mean(2))


@pytest.mark.parametrize("kind", [Integer(256), Real()])
def test_doubles_by_brute_force(kind: Integer | Real, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaestro.data.duplicates.BLOCK", 7)
    rng = np.random.default_rng(0)
    train = rng.integers(0, 256, (60, 1, 3, 3)).astype(np.uint8)
    test = rng.integers(0, 256, (20, 1, 3, 3)).astype(np.uint8)
    test[3], test[4] = train[50], train[9]
    test[4, 0, 0, 0] ^= 8
    scale = np.array(255.0)
    if isinstance(kind, Real):
        train, test = train.astype(np.float32), test.astype(np.float32)
        scale = train.std(0)
    data = from_arrays("own", {"x": train}, {"x": kind}, test={"x": test}, validation={"x": train[:2]})
    validation, found = doubles(data)
    assert (validation.split, validation.equal, validation.near) == ("validation", 2, 2)
    assert (found.split, found.rows, found.equal, found.near) == ("test", 20, 1, 2) and [p[:2] for p in found.pairs] == [(3, 50), (4, 9)]
    far = brute(test / scale, train / scale)
    (wide,) = (d for d in doubles(data, 0.3) if d.split == "test")
    assert wide.near == int((far.min(1) <= 0.3).sum())
    np.testing.assert_allclose([p[2] for p in wide.pairs], np.sort(far.min(1))[: len(wide.pairs)], rtol=1e-4, atol=1e-6)
    assert "1 of 20 rows are equal to a training row, 2 differ from one by at most 0.05; such as row 3, training row 50" in found.line()
    assert json.loads(json.dumps(found.to_json()))["near"] == 2


def test_constant_columns_huge_values_and_gaps_are_borne() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([np.full((30, 1), 1e30), rng.normal(size=(30, 2)) * [1e-20, 1]], 1).astype(np.float32)
    data = from_arrays("own", {"x": x}, {"x": Real()}, test={"x": x[:4]}, validation={"x": x[4:6]})
    assert [d.equal for d in doubles(data, 0)] == [2, 4]


def test_the_digits_share_no_row() -> None:
    assert all(d.equal == 0 for d in doubles(load("digits")))


def test_what_cannot_be_compared_is_refused_in_words() -> None:
    with pytest.raises(UsageError, match="drawn anew at each reading, so none is ever equal; check the grey version"):
        doubles(load("digits-dynamic"))
    with pytest.raises(UsageError, match="holds classes"):
        doubles(load("digits"), field="label")
    with pytest.raises(UsageError, match="within=-1 is no distance"):
        doubles(load("digits"), -1)
    with pytest.raises(UsageError, match="within=nan is no distance"):
        doubles(load("digits"), float("nan"))
