"""Likeness of pictures against scikit-image and closed forms, and distances in features."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torch.distributions import Independent, Normal

from vaestro.core import Batch, Model, Program, Site, content
from vaestro.data.schema import Binary, Field, Integer, Kind, Real
from vaestro.evaluation.judge import Pca
from vaestro.evaluation.metrics import Subject, measure
from vaestro.families.perceptual import ms_ssim, scales, ssim


class Darker(Model):
    """The reconstruction is `gain` times the row."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def program(self, batch: Batch | None = None) -> Program:
        q = None if batch is None else Independent(Normal(content(batch["x"]), 0.1), 3)
        z = yield Site("z", Independent(Normal(torch.zeros(2, 24, 26), 1.0), 3), q)
        yield Site("x", Independent(Normal(self.gain * z, 0.1), 3))


@pytest.fixture
def x() -> Tensor:
    smooth = torch.rand(9, 2, 6, 7, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(smooth, (24, 26), mode="bilinear")


def subject(model: Model, x: Tensor, kind: Kind | None = None, **more: object) -> Subject:
    def rows() -> Iterator[Batch]:
        return ({"x": part} for part in x.split(4))

    return Subject(model, rows, Field("x", kind or Integer(256), tuple(x.shape[1:])), **more)  # type: ignore[arg-type]


def test_ssim_is_that_of_scikit_image(x: Tensor) -> None:
    y = (x + 0.2 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    due = [
        structural_similarity(a.numpy(), b.numpy(), data_range=1, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
        for a, b in zip(x.double(), y.double(), strict=True)
    ]
    np.testing.assert_allclose(ssim(x.double(), y.double()).numpy(), due, rtol=1e-6)
    torch.testing.assert_close(ssim(x, x), torch.ones(9))


def test_the_metrics_are_means_over_rows(x: Tensor) -> None:
    scores = measure(["psnr", "ssim", "ms_ssim"], subject(Darker(0.5), x)).scores
    back = 0.5 * x
    due = {
        "psnr": [peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=1) for a, b in zip(x, back, strict=True)],
        "ssim": ssim(x.double(), back.double()).tolist(),
        "ms_ssim": ms_ssim(x.double(), back.double()).tolist(),
    }
    for name, values in due.items():
        rows = scores[name].rows
        assert rows is not None
        np.testing.assert_allclose(rows, values, rtol=1e-5)
        assert scores[name].error == pytest.approx(np.std(values, ddof=1) / 3, rel=1e-4)


def test_an_exact_row_counts_as_a_hundred_decibels(x: Tensor) -> None:
    scores = measure(["psnr", "ssim"], subject(Darker(1.0), x)).scores
    assert (scores["psnr"].value, scores["psnr"].error) == (100, 0)
    assert scores["ssim"].value == pytest.approx(1)


def test_what_has_no_peak_or_is_no_picture_is_refused(x: Tensor) -> None:
    assert "no brightest" in measure(["psnr"], subject(Darker(1.0), x, Real(1.0))).refused["psnr"]
    vectors = Subject(Darker(1.0), lambda: [{"x": x}], Field("x", Binary(), (1248,)))
    assert "pictures [C, H, W]" in measure(["ssim"], vectors).refused["ssim"]
    small = Subject(Darker(1.0), lambda: [{"x": x}], Field("x", Binary(), (1, 21, 30)))
    assert "a second takes 22 pixels" in measure(["ms_ssim"], small).refused["ms_ssim"]
    assert [scales(side, 300) for side in (5, 21, 22, 44, 175, 176, 999)] == [1, 1, 2, 3, 4, 5, 5]


def test_feature_distances_are_those_of_the_named_network(x: Tensor) -> None:
    pca = Pca.fit(torch.rand(40, 2, 24, 26, generator=torch.Generator().manual_seed(2)), 5)
    score = measure(["feature_distance_pca64"], subject(Darker(0.5), x, features={"pca64": pca})).scores["feature_distance_pca64"]
    due = (pca.features(x) - pca.features(0.5 * x)).square().sum(1)
    assert score.rows is not None
    np.testing.assert_allclose(score.rows, due.numpy(), rtol=1e-4)
    missing = measure(["feature_distance_judge"], subject(Darker(0.5), x, features={"pca64": pca})).refused
    assert "features called 'judge' were not given" in missing["feature_distance_judge"]
