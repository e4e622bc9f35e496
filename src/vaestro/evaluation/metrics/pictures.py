"""Metrics of reconstructed pictures: signal to noise, structural similarity, and distances in the features of a named network."""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from vaestro.data.schema import Binary, Field, Integer
from vaestro.errors import UsageError
from vaestro.evaluation.metrics.base import METRICS, Direction, Group, Metric, Need, Score
from vaestro.evaluation.metrics.reconstruction import THROUGH
from vaestro.evaluation.metrics.sets import DEAR
from vaestro.evaluation.metrics.subject import Subject, Way, is_picture
from vaestro.evaluation.networks import NETWORKS
from vaestro.families.perceptual import ms_ssim as similarity_of_scales
from vaestro.families.perceptual import scales
from vaestro.families.perceptual import ssim as similarity

EXACT = 100.0  # decibels: what a row without an error counts as


def require_pictures(field: Field) -> None:
    """Raises UsageError unless rows are pictures [C, H, W] whose values have a darkest and a brightest."""
    if not is_picture(field):
        raise UsageError(f"field {field.name!r} has shape {field.shape}, and this is a measure of pictures [C, H, W]; leave it out")
    if not isinstance(field.kind, Binary | Integer):
        raise UsageError(
            f"field {field.name!r} is {type(field.kind).__name__}, whose values have no brightest, and this measure is relative to it; use reconstruction_mse"
        )


def decibels(squared_error: np.ndarray) -> np.ndarray:
    """-10 log10 of mean squared errors in unit values, whose peak is 1; at most 100 dB, which an exact row has."""
    return np.asarray(-10 * np.log10(np.maximum(squared_error, 10 ** (-EXACT / 10))))


def psnr(subject: Subject) -> Score:
    """The peak signal-to-noise ratio of a row's reconstruction, 10 log10(1 / mse), dB; raises UsageError for rows that are no pictures of bounded values."""
    require_pictures(subject.field)
    return Score.of_rows(decibels(subject.reconstructions.squared_error))


def alike(subject: Subject) -> tuple[np.ndarray, ...]:
    """SSIM and MS-SSIM of every row and its reconstruction, from one pass, float64."""

    def read(way: Way) -> tuple[Tensor, ...]:
        pair = way.row.double(), way.back.double()
        return similarity(*pair), similarity_of_scales(*pair)

    require_pictures(subject.field)
    return subject.once("likeness of pictures", lambda: subject.through(read))


def ssim(subject: Subject) -> Score:
    """The structural similarity of a row and its reconstruction, at most 1; raises UsageError for rows that are no pictures of bounded values."""
    return Score.of_rows(alike(subject)[0])


def ms_ssim(subject: Subject) -> Score:
    """The same over several scales; raises UsageError also for pictures too small to have a second one (below 22 pixels)."""
    require_pictures(subject.field)
    if scales(*subject.field.shape[1:]) < 2:
        raise UsageError(f"pictures of {subject.field.shape[1]}x{subject.field.shape[2]} have one scale only, and a second takes 22 pixels; use ssim")
    return Score.of_rows(alike(subject)[1])


def feature_distance(subject: Subject, features: str) -> Score:
    """|f(x) - f(x')|^2 of a row x, its reconstruction x' and the features f of a named network; raises UsageError where that is missing."""
    network = subject.network(features)

    def read(way: Way) -> tuple[Tensor, ...]:
        pair = way.row, way.back.reshape(way.row.shape).masked_fill(way.row.isnan(), torch.nan)  # what was not seen has nothing to be compared with
        row, back = (network.features(v.cpu()).double() for v in pair)
        return ((row - back).square().sum(1),)

    (found,) = subject.through(read)
    if not np.isfinite(found).all():
        raise UsageError(f"the features {features!r} of some reconstructions are not finite, so there is no distance between them; leave this metric out")
    return Score.of_rows(found)


PICTURES = frozenset({Need.LATENTS, Need.PICTURES})
WANG = "Wang et al. 2004, equation 13"
METRICS.enter(
    Metric(
        "psnr", "peak signal-to-noise ratio of reconstructions", "dB", Direction.HIGHER, f"a mean over rows of 10 log10(1 / mse), an exact row counts as "
        f"{EXACT:.0f}; {THROUGH}", "Wang et al. 2004, section I", psnr, PICTURES, group=Group.RECONSTRUCTION,
    ),
    Metric(
        "ssim", "structural similarity of reconstructions", "similarity", Direction.HIGHER,
        f"Gaussian windows 11 wide, scale 1.5, inside the picture (narrower below 11 pixels); {THROUGH}", WANG, ssim, PICTURES, group=Group.RECONSTRUCTION,
    ),
    Metric(
        "ms_ssim", "structural similarity over scales", "similarity", Direction.HIGHER,
        f"as many of the five scales as leave 11 pixels, their exponents scaled to the same sum; {THROUGH}", "Wang et al. 2003, equation 7", ms_ssim, PICTURES,
        group=Group.RECONSTRUCTION,
    ),
)  # fmt: skip

for network in NETWORKS:
    METRICS.enter(
        Metric(
            f"feature_distance_{network}", f"feature distance of reconstructions ({network})", "squared features", Direction.LOWER,
            f"|f(x) - f(x')|^2 of each row; {THROUGH}", "Johnson et al. 2016, equation 2, on the last features",
            partial(feature_distance, features=network), frozenset({Need.LATENTS, Need.FEATURES}),
            dear=network in DEAR, group=Group.RECONSTRUCTION,
        ),
    )  # fmt: skip
