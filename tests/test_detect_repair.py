"""Repairs name the entry that was spoilt; rows spoilt on purpose stay what rows of their kind may be."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent, Normal
from typer.testing import CliRunner

import vaestro
from vaestro.cli.app import app
from vaestro.data import from_arrays
from vaestro.data.schema import Binary, Count, Counted, Field, Integer, Kind, Measured, Named, Ordered, Real, Table
from vaestro.errors import UsageError
from vaestro.models import VAE
from vaestro.testing.linear import Law, LinearGaussian
from vaestro.training.runs import Run
from vaestro.uses.detect import Detector, detected, detector, repair
from vaestro.uses.detect.calibrated import USUAL
from vaestro.uses.detect.repairing import expected
from vaestro.uses.detect.spoiling import SPOILINGS, domain, spoilt
from vaestro.uses.detect.writing import write_repairs

LINE = LinearGaussian()
TABLE = Table((Measured("a", 0.0, 1.0), Counted("n", 1.0, 1.0), Ordered("o", ("1", "2", "3")), Named("c", ("x", "y", "z"))))


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    """The linear-Gaussian model with the exact posterior, made ready."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x = LINE.evidence.sample((1500,)).float().numpy()
    made = vaestro.train("vae:latents=2,hidden=4", from_arrays("line", {"x": x}), steps=1, out=tmp_path_factory.mktemp("run") / "line")
    model = LINE.right
    model.register_parameter("exact", nn.Parameter(torch.zeros(1, dtype=torch.float64)))
    run = replace(made, recipe=replace(made.recipe, parts=nn.ModuleDict({"model": model}).eval()))
    by = detector(run, "likelihood")
    return replace(by, held=by.held.double())


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    """Pictures of 10x10 bits, of which one latent says whether the upper or the lower half is white; the model knows them exactly."""
    rng = np.random.default_rng(0)
    upper = rng.integers(2, size=(900, 1, 1, 1)).astype(bool)
    half = np.zeros((1, 1, 10, 10), bool)
    half[..., :5, :] = True
    x = ((half == upper) ^ (rng.random((900, 1, 10, 10)) < 0.03)).astype(np.uint8)
    made = vaestro.train("vae:latents=1,hidden=4", from_arrays("bars", {"x": x}), steps=1, out=tmp_path_factory.mktemp("run") / "bars")
    sign = torch.tensor(np.where(half[0], 1.0, -1.0), dtype=torch.float32)

    def seen(bits: Tensor) -> Independent:
        side = ((bits - 0.5) * sign).flatten(1).mean(1, keepdim=True).sign()
        return Independent(Normal(side * 2.0, torch.full_like(side, 0.1)), 1)

    def told(z: Tensor) -> Independent:
        return Independent(Bernoulli(logits=3.4 * z.sign()[..., None, None] * sign), 3)

    model = VAE(Law(lambda: Independent(Normal(torch.zeros(1), torch.full((1,), 2.0)), 1)), Law(seen), Law(told))
    run = replace(made, recipe=replace(made.recipe, parts=nn.ModuleDict({"model": model}).eval()))
    return detector(run, "elbo")


def test_what_is_expected_is_the_mean_at_the_mean(line: Detector) -> None:
    x = LINE.evidence.sample((7,))
    by_hand = x @ LINE.W @ LINE.S / LINE.noise**2 @ LINE.W.T
    np.testing.assert_allclose(expected(line, x).numpy(), by_hand.numpy(), atol=1e-9)


def test_the_corrupted_entry_is_named_first(line: Detector) -> None:
    torch.manual_seed(3)
    x = LINE.evidence.sample((25,))
    places = torch.arange(25) % 5
    x[torch.arange(25), places] += 7.0
    found = repair(line, x, np.arange(25))
    assert [r.changes[0].place for r in found] == places.tolist() and [r.changes[0].name for r in found[:5]] == [f"x[{i}]" for i in range(5)]
    exact = -LINE.evidence.log_prob(torch.stack([r.after for r in found]))
    np.testing.assert_allclose([r.score[1] for r in found], exact, atol=1e-6)
    assert all(r.p[0] <= 1 / 120 and r.p[1] > r.p[0] and r.score[1] < r.score[0] for r in found)
    assert np.mean([r.p[1] >= 0.2 for r in found]) > 0.8 and np.mean([len(r.changes) for r in found]) < 2
    for r in found:  # one changed entry is the conditional mean of the model given the others
        if len(r.changes) == 1:
            cov, i = LINE.evidence.covariance_matrix, r.changes[0].place
            rest = [k for k in range(5) if k != i]
            mean = cov[i, rest] @ torch.linalg.solve(cov[rest][:, rest], r.before[rest])
            assert float(r.after[i]) == pytest.approx(float(mean), abs=0.15)
    assert repair(line, x, np.arange(2))[1].changes == found[1].changes  # deterministic


def test_a_plausible_row_is_hardly_changed_and_limits_are_kept(line: Detector) -> None:
    x = torch.zeros(1, 5, dtype=torch.float64)
    found = repair(line, x, np.array([0]))[0]
    assert len(found.changes) <= 1 and found.p[0] > 0.9
    wild = torch.full((1, 5), 30.0, dtype=torch.float64) * torch.tensor([1, -1, 1, -1, 1])
    assert len(repair(line, wild, np.array([0]), at_most=2)[0].changes) <= 2 and repair(line, wild, np.zeros(0, int)) == []
    with pytest.raises(UsageError, match="plausibility of a repair"):
        repair(line, x, np.array([0]), plausible=1.0)
    with pytest.raises(UsageError, match="changes at least one"):
        repair(line, x, np.array([0]), at_most=0)


def test_a_field_of_a_table_is_named_with_its_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 2, 1500)
    a = rng.normal(size=1500) + 5 * kind
    rows = {"a": a, "b": 2 * a + 0.2 * rng.normal(size=1500), "kind": np.array(["calm", "wild"])[kind].tolist()}
    run = vaestro.train("vae:latents=2,hidden=64,learning_rate=0.005", rows, steps=700, out=tmp_path / "run")
    by = detector(run, "elbo")
    new = {"a": [0.0, 5.0, 0.0, None], "b": [0.0, -30.0, 0.1, 1.0], "kind": ["calm", "wild", "wild", "calm"]}
    from vaestro.data.prepare.tables import rows_of_table

    x = torch.from_numpy(rows_of_table(run.field, new)[0])
    found = {r.row: r for r in repair(by, x, np.array([1, 2, 3]))}
    assert found[1].changes[0].name == "b" and found[1].changes[0].before == pytest.approx(-30, abs=1e-3) and 6 < found[1].changes[0].after < 14
    assert found[1].text.startswith("b -30 -> ") and found[2].changes[0].name == "kind" and found[2].changes[0].after == "calm"
    assert found[1].to_json()["changes"][0]["name"] == "b" and all(c.name != "a" for c in found[3].changes)  # what was not seen is not changed
    noisy = detected(detector(run, "likelihood", protocol=USUAL._replace(samples=2)), torch.from_numpy(rows_of_table(run.field, rows)[0]), 0.1)
    chosen = np.r_[noisy.ranked[:3], noisy.ranked[700:708]]
    made = repair(noisy.by, noisy.rows, chosen, plausible=0.95)
    assert all(c.before != c.after and c.gain > 0 for r in made for c in r.changes) and any(r.changes for r in made)
    np.testing.assert_array_equal([r.score[0] for r in made], noisy.scores[chosen])  # as the detection itself has them
    np.testing.assert_array_equal([r.p[0] for r in made], noisy.p[chosen])
    np.testing.assert_allclose([r.score[0] - r.score[1] for r in made], [sum(c.gain for c in r.changes) for r in made], atol=1e-9)


def test_a_patch_of_a_picture_is_found(bars: Detector, tmp_path: Path) -> None:
    picture = torch.zeros(1, 1, 10, 10)
    picture[..., :5, :] = 1
    spoilt_ = picture.clone()
    spoilt_[..., 6:9, 2:6] = 1
    found = repair(bars, spoilt_, np.array([0]))[0]
    assert torch.equal(found.after, picture[0]) and {c.place for c in found.changes} == {10 * r + c for r in (6, 7, 8) for c in (2, 3, 4, 5)}
    assert found.changes[0].name.startswith("x[0, ") and found.p[1] > found.p[0]
    assert found.text.startswith("12 entries: x[0, ") and found.text.count("->") == 5
    assert replace(found, changes=()).text.startswith("nothing")
    notes = write_repairs(tmp_path / "repairs.png", bars.run.field, [found])
    image = np.asarray(Image.open(tmp_path / "repairs.png"))
    assert image.shape == (44, 3 * 42 + 2) and "left to right" in notes[0]
    assert image[30, 20] == 255 and image[30, 62] == 0 and image[30, 104] == 255  # white, repaired to black, changed
    assert write_repairs(tmp_path / "none.png", bars.run.field, []) == ["no row was repaired, so no picture was written"]


def test_pictures_at_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAESTRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    vaestro.train("vae:latents=2,hidden=16", "digits-dynamic", steps=30, out="runs/one")
    np.save("new.npy", np.random.default_rng(0).integers(2, size=(4, 1, 8, 8)).astype(np.uint8))
    done = CliRunner().invoke(app, ["detect", "one", "new.npy", "--score", "elbo", "--repair", "2", "--picture", "repairs.png"])
    assert done.exit_code == 0 and "Wrote repairs.png: 2 repairs" in done.output and (tmp_path / "repairs.png").is_file(), done.output
    wrong = CliRunner().invoke(app, ["detect", "one", "absent.npy"])
    assert wrong.exit_code == 2 and "there is no file absent.npy" in wrong.output


def test_a_model_without_posterior_repairs_nothing(line: Detector) -> None:
    class Blind(VAE):
        def program(self, batch=None):
            from vaestro.core import Site

            z = yield Site("z", self.prior())
            yield Site("x", self.likelihood(z))

    blind = Blind(LINE.prior, LINE.right.posterior, LINE.likelihood)
    run: Run = replace(line.run, recipe=replace(line.run.recipe, parts=nn.ModuleDict({"model": blind})))
    with pytest.raises(UsageError, match="has no posterior, so it expects nothing"):
        expected(replace(line, run=run), torch.zeros(1, 5, dtype=torch.float64))


KINDS: list[tuple[Kind, tuple[int, ...]]] = [
    (Binary(), (1, 8, 8)), (Integer(17), (1, 8, 8)), (Integer(256), (3, 9, 7)), (Real(), (1, 6, 6)), (Real(), (5,)), (Real(0.5), (5,)),
    (Count(), (6,)), (Binary(), (9,)), (Real(), (1,)), (TABLE, (4,)), (Real(), ()),
]  # fmt: skip


def rows(kind: Kind, shape: tuple[int, ...], n: int = 30) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    u = torch.rand((n, *shape), generator=rng)
    if isinstance(kind, Table):
        x = torch.stack([u[:, 0], (9 * u[:, 1]).floor(), (3 * u[:, 2]).floor(), (3 * u[:, 3]).floor()], 1)
        x[::7, 0] = math.nan
        x[3, 3] = math.nan
        return x
    if isinstance(kind, Integer):
        return (u * kind.levels).floor() / (kind.levels - 1)
    if isinstance(kind, Real):
        return u if kind.step is None else (4 * u).round() * kind.step
    return (u * (2 if isinstance(kind, Binary) else 9)).floor()


@pytest.mark.parametrize(("kind", "shape"), KINDS, ids=lambda v: str(v)[:22])
def test_spoilt_rows_stay_rows_of_their_kind(kind: Kind, shape: tuple[int, ...]) -> None:
    field, x = Field("x", kind, shape), rows(kind, shape)
    before = torch.random.get_rng_state()
    found = spoilt(field, x, 25, 1)
    assert torch.equal(before, torch.random.get_rng_state()) and "noise" in found
    able = domain(kind, x)
    for name, made in found.items():
        assert made.shape == (25, *shape) and not made.isinf().any(), name
        legal = torch.where(made.isnan(), 0.0, made)
        assert torch.allclose(able.snapped(legal), legal, atol=1e-5), name
        assert isinstance(kind, Table) or not made.isnan().any(), name
        if isinstance(kind, Count):
            assert (legal >= 0).all()
    again = spoilt(field, x, 25, 1)
    assert all(torch.equal(again[n].nan_to_num(-9.0), found[n].nan_to_num(-9.0)) for n in found)
    assert set(found) == {n for n, way in SPOILINGS.items() if way.fits(field)}
    assert all(w.title and w.function.__doc__ and w.name == n for n, w in SPOILINGS.items())


def test_each_way_does_what_it_says() -> None:
    pictures = rows(Integer(17), (1, 8, 8), 200)
    found = spoilt(Field("x", Integer(17), (1, 8, 8)), pictures, 200, 0)
    assert (found["constant"].flatten(1).std(1) == 0).all() and len(found["smooth"][0].unique()) <= 16
    vectors = rows(Real(), (5,), 200)
    found = spoilt(Field("x", Real(), (5,)), vectors, 200, 0)
    for i in range(5):  # every entry is one of the column's
        assert torch.isin(found["permuted"][:, i], vectors[:, i]).all() and torch.isin(found["crossed"][:, i], vectors[:, i]).all()
    low, high = vectors.amin(0), vectors.amax(0)
    moved = ((found["far"] < low) | (found["far"] > high)).sum(1)
    assert ((moved >= 1) & (moved <= 3)).all() and (found["noise"] >= low).all() and (found["noise"] <= high).all()
    shuffled = spoilt(Field("x", Integer(17), (1, 8, 8)), pictures, 50, 0)["shuffled"].flatten(1).sort(1).values
    assert all((shuffled[i] == pictures.flatten(1).sort(1).values).all(1).any() for i in range(50))
    one = spoilt(Field("x", Real(), (5,)), vectors[:1], 3, 0)  # one row alone
    assert torch.equal(one["permuted"], vectors[:1].expand(3, 5)) and all(len(v) == 3 for v in one.values())
