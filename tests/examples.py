"""One tiny example of every public part; `test_every_part_has_an_example` fails for a part without one."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaestro import families as f
from vaestro.conditional import Conditional
from vaestro.data.schema import Binary, Field
from vaestro.families import Family
from vaestro.families.perceptual import FocalFrequency, MsSsim
from vaestro.networks import mlp
from vaestro.priors import PRIORS
from vaestro.testing import Grid, levels, line


class Example(NamedTuple):
    """A family, parameters [6, params, ...] of single values, and where these values lie."""

    family: Family
    h: Tensor
    grid: Grid


def example(family: Family, grid: Grid, spread: float = 0.7) -> Example:
    """`family` with random parameters."""
    shape = (6, family.params, *[1] * (family.event_dims - 1))
    return Example(family, torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * spread, grid)


def counts(most: int) -> Grid:
    """The counts 0 to `most`, each of weight 1."""
    return Grid(torch.arange(most + 1, dtype=torch.float64), torch.ones(most + 1, dtype=torch.float64))


def halfline() -> Grid:
    """Positive numbers, evenly spaced in their logs, for densities that rise without end towards 0."""
    u = line(-60, 6)
    return Grid(u.values.exp(), u.weights * u.values.exp())


FAMILIES: dict[str, Example] = {
    "Gaussian": example(f.Gaussian(1), line(-20, 20)),
    "Gaussian of images": example(f.Gaussian(3), line(-20, 20)),
    "FixedGaussian": example(f.FixedGaussian(0.3, 3), line(-6, 6)),
    "SharedGaussian": example(f.SharedGaussian(2, 0.5), line(-8, 8)),
    "CommittedGaussian": example(f.CommittedGaussian(0.5, 1), line(-12, 12)),
    "CommittedGaussian of images": example(f.CommittedGaussian(0.0, 3), line(-12, 12)),
    "TrackedGaussian": example(f.TrackedGaussian(2, 0.5), line(-8, 8)),
    "Binned TrackedGaussian": example(f.Binned(f.TrackedGaussian(3, 0.1), 256), levels(256)),
    "Laplace": example(f.Laplace(1), line(-40, 40, 80_000)),
    "Logistic": example(f.Logistic(3), line(-60, 60, 60_000)),
    "LogisticMixture": example(f.LogisticMixture(3, 3), line(-60, 60, 60_000)),
    "Bernoulli": example(f.Bernoulli(3), levels(2)),
    "ContinuousBernoulli": example(f.ContinuousBernoulli(3), line(0, 1), 4.0),
    "Categorical": example(f.Categorical(7, 3), levels(7)),
    "BetaBinomial": example(f.BetaBinomial(11, 3), levels(11), 1.5),
    "BetaBinomial of two levels": example(f.BetaBinomial(2, 1), levels(2)),
    "BetaBinomial of 256 levels": example(f.BetaBinomial(256, 3), levels(256), 2.0),
    "Student": example(f.Student(1), line(-400, 400, 100_000), 0.3),
    "Student of many degrees": example(f.Student(3, 30.0), line(-40, 40)),
    "Binned Student": example(f.Binned(f.Student(3), 256), levels(256)),
    "Binned Student of two levels": example(f.Binned(f.Student(1), 2), levels(2)),
    "Poisson": example(f.Poisson(3), counts(200), 1.0),
    "NegativeBinomial": example(f.NegativeBinomial(3), counts(4000)),
    "NegativeBinomial of vectors": example(f.NegativeBinomial(1), counts(4000)),
    "ZeroInflated": example(f.ZeroInflated(f.Poisson(3)), counts(200)),
    "ZeroInflated NegativeBinomial": example(f.ZeroInflated(f.NegativeBinomial(1)), counts(4000)),
    "Gamma": example(f.Gamma(1), halfline()),
    "Gamma of images": example(f.Gamma(3), halfline()),
    "Point": example(f.Point(1), line(-5, 5)),
    "UnitPoint": example(f.UnitPoint(3), line(0, 1)),
    "Perceptual": example(f.Perceptual(MsSsim(), 2.0), line(0, 1)),
    "Perceptual by frequency": example(f.Perceptual(FocalFrequency(), 2.0), line(0, 1)),
    "Binned": example(f.Binned(f.Gaussian(3), 256), levels(256)),
    "Binned of two levels": example(f.Binned(f.Gaussian(1), 2), levels(2)),
    "Binned FixedGaussian": example(f.Binned(f.FixedGaussian(1.0, 3), 16), levels(16)),
    "Binned SharedGaussian": example(f.Binned(f.SharedGaussian(3, 0.1), 256), levels(256)),
    "Binned Laplace": example(f.Binned(f.Laplace(3), 256), levels(256)),
    "Binned Logistic": example(f.Binned(f.Logistic(3), 256), levels(256)),
    "Binned Logistic of two levels": example(f.Binned(f.Logistic(3), 2), levels(2)),
    "Binned LogisticMixture": example(f.Binned(f.LogisticMixture(2, 3), 32), levels(32)),
    "Binned ContinuousBernoulli": example(f.Binned(f.ContinuousBernoulli(3), 256), levels(256), 4.0),
}

NETWORKS: dict[str, tuple[int, ...]] = {
    "mlp": (8, 5),
    "gated_mlp": (8, 5),
    "convolutional": (6, 8),
    "residual": (6, 8),
    "by_shape": (6, 8),
}  # their hidden widths


def prior(name: str) -> nn.Module:
    """A prior of three latents."""
    posterior = Conditional(mlp((1, 2, 2), (6,), (5,)), f.Gaussian())
    return PRIORS[name](3, posterior, Field("x", Binary(), (1, 2, 2)))
