"""Which family scores which kind of data: densities on real numbers, masses on everything else."""

from collections.abc import Callable
from functools import wraps

from vaestro.data.schema import Count, Field, Kind, Real, Table, levels
from vaestro.errors import UsageError
from vaestro.families.base import Family
from vaestro.families.bernoulli import Bernoulli
from vaestro.families.beta_binomial import BetaBinomial
from vaestro.families.binned import Binned
from vaestro.families.categorical import Categorical
from vaestro.families.colour import ColourMixture
from vaestro.families.columns import student as heavy_tailed
from vaestro.families.counts import NegativeBinomial, Poisson
from vaestro.families.fields import Fields
from vaestro.families.gaussian import FixedGaussian, Gaussian, SharedGaussian
from vaestro.families.inflated import ZeroInflated
from vaestro.families.laplace import Laplace
from vaestro.families.logistic import Logistic, LogisticMixture
from vaestro.families.perceptual import Distance, FocalFrequency, MsSsim, Perceptual
from vaestro.families.point import Point, UnitPoint
from vaestro.families.scaled import TrackedGaussian
from vaestro.families.student import Student
from vaestro.families.unit import ContinuousBernoulli
from vaestro.registry import Registry

Likelihood = Callable[[Field], Family]
LIKELIHOODS: Registry[Likelihood] = Registry("likelihood")

_FITS: dict[str, Callable[[Kind], bool]] = {}


def fitting(kind: Kind) -> tuple[str, ...]:
    """The names of the likelihoods that describe data of this kind."""
    return tuple(name for name, fits in _FITS.items() if fits(kind))


def default_likelihood(field: Field) -> Family:
    """The family that a field gets when nobody names one.

    bernoulli on two levels, logistic on more, negative_binomial on counts, gaussian on real numbers, fields on tables.
    Raises UsageError for a kind that no likelihood describes.
    """
    if _two_levels(field.kind):
        return LIKELIHOODS["bernoulli"](field)
    if _counted(field.kind):
        return LIKELIHOODS["negative_binomial"](field)
    if _tabular(field.kind):
        return LIKELIHOODS["fields"](field)
    return LIKELIHOODS["logistic" if _discrete(field.kind) else "gaussian"](field)


LIKELIHOODS.add("default", default_likelihood)


def _two_levels(kind: Kind) -> bool:
    return levels(kind) == 2


def _counted(kind: Kind) -> bool:
    return isinstance(kind, Count)


def _tabular(kind: Kind) -> bool:
    return isinstance(kind, Table)


def _discrete(kind: Kind) -> bool:
    return levels(kind) >= 2


def _numeric(kind: Kind) -> bool:
    return _discrete(kind) or isinstance(kind, Real)


def _fits(fits: Callable[[Kind], bool], reason: str) -> Callable[[Likelihood], Likelihood]:
    """Registers a likelihood that refuses, for `reason`, the kinds of data that it does not fit, and names those likelihoods that do."""

    def decorate(build: Likelihood) -> Likelihood:
        @wraps(build)
        def checked(field: Field) -> Family:
            if fits(field.kind):
                return build(field)
            known = fitting(field.kind)
            remedy = f"those that fit it: {', '.join(known)}" if known else "give it to the model as a condition or a label"
            raise UsageError(f"the likelihood {build.__name__} does not fit field {field.name!r} of kind {field.kind}: {reason}; {remedy}")

        _FITS[build.__name__] = fits
        return LIKELIHOODS.register(checked)

    return decorate


_NUMBERS = "it describes levels and real numbers, not classes, and not counts, which have no top"
_COUNTS = "it gives a mass to every whole number, and these data are no counts"


def _honest(family: Family, field: Field) -> Family:
    """`family` as it is on real numbers, and the mass of its bins on discrete data, where a density would be unbounded."""
    return Binned(family, levels(field.kind)) if _discrete(field.kind) else family


@_fits(_two_levels, "it gives a mass to 0 and 1 only, and is not a density for grey values or real numbers")
def bernoulli(field: Field) -> Family:
    """x in {0, 1}: log p = x h - softplus(h), in nats."""
    return Bernoulli(len(field.shape))


@_fits(_discrete, "it is a density on [0, 1] only, and masses of its bins exist on discrete data")
def continuous_bernoulli(field: Field) -> Family:
    """The bins of the density exp(h x) h / (exp(h) - 1) on [0, 1] (Loaiza-Ganem & Cunningham 2019); nats."""
    return _honest(ContinuousBernoulli(len(field.shape)), field)


@_fits(_numeric, _NUMBERS)
def gaussian(field: Field) -> Family:
    """N(loc, scale^2), both predicted; the mass of its bin on discrete data; nats."""
    return _honest(Gaussian(len(field.shape)), field)


@_fits(_numeric, _NUMBERS)
def gaussian_fixed(field: Field) -> Family:
    """N(loc, 1): half the squared error and a constant; the mass of its bin on discrete data, of scale 1 in unit values; nats."""
    return _honest(FixedGaussian(1.0, len(field.shape)), field)


@_fits(_numeric, _NUMBERS)
def gaussian_shared(field: Field) -> Family:
    """N(loc, scale^2) with one learnt scale (Rybkin et al. 2021); the mass of its bin on discrete data; nats."""
    return _honest(SharedGaussian(len(field.shape)), field)


@_fits(_numeric, _NUMBERS)
def gaussian_tracked(field: Field) -> Family:
    """N(loc, scale^2) with one stored scale, the root mean squared error of training (Rybkin et al. 2021); the mass of its bin on discrete data; nats."""
    return _honest(TrackedGaussian(len(field.shape)), field)


@_fits(_numeric, _NUMBERS)
def laplace(field: Field) -> Family:
    """exp(-|x - loc| / scale) / (2 scale); the mass of its bin on discrete data; nats."""
    return _honest(Laplace(len(field.shape)), field)


@_fits(_numeric, _NUMBERS)
def student(field: Field) -> Family:
    """Student's t with 4 degrees of freedom, loc and scale predicted, which forgives outliers; the mass of its bin on discrete data; nats."""
    return _honest(Student(len(field.shape)), field)


@_fits(_discrete, "it needs a finite number of levels")
def beta_binomial(field: Field) -> Family:
    """C(N, n) B(n + a, N - n + b) / B(a, b): two numbers a value, with one smooth hill, a slope or two ends (Townsend et al. 2019); nats."""
    return BetaBinomial(levels(field.kind), len(field.shape))


@_fits(_counted, _COUNTS)
def poisson(field: Field) -> Family:
    """Counts whose variance is their mean: log p = x h - exp(h) - ln x!, in nats."""
    return Poisson(len(field.shape))


@_fits(_counted, _COUNTS)
def negative_binomial(field: Field) -> Family:
    """Counts of mean m and variance m + m^2 / r, both predicted (Lopez et al. 2018, scVI); nats."""
    return NegativeBinomial(len(field.shape))


@_fits(_counted, _COUNTS)
def zero_inflated_poisson(field: Field) -> Family:
    """A Poisson count, or 0 with a predicted probability (Lambert 1992); nats."""
    return ZeroInflated(Poisson(len(field.shape)))


@_fits(_counted, _COUNTS)
def zero_inflated_negative_binomial(field: Field) -> Family:
    """A negative binomial count, or 0 with a predicted probability (Lopez et al. 2018, scVI); nats."""
    return ZeroInflated(NegativeBinomial(len(field.shape)))


@_fits(_discrete, "it needs a finite number of levels")
def categorical(field: Field) -> Family:
    """A free mass for each level; nats."""
    return Categorical(levels(field.kind), len(field.shape))


@_fits(_numeric, _NUMBERS)
def logistic(field: Field) -> Family:
    """The logistic density; the discretised logistic on discrete data (Kingma et al. 2016); nats."""
    return _honest(Logistic(len(field.shape)), field)


@_fits(_numeric, _NUMBERS)
def logistic_mixture(field: Field) -> Family:
    """Five logistics a value; the mass of the bin on discrete data (Salimans et al. 2017); nats."""
    return _honest(LogisticMixture(5, len(field.shape)), field)


@_fits(_discrete, "it needs a finite number of levels")
def colour_mixture(field: Field) -> Family:
    """Five logistics a pixel, whose channels share a component and lean on those before them (Salimans et al. 2017, PixelCNN++, eq. 3); pictures only; nats."""
    if len(field.shape) != 3:
        raise UsageError(f"the likelihood colour_mixture describes pictures [C, H, W], and field {field.name!r} is shaped {field.shape}; use logistic_mixture")
    return ColourMixture(field.shape[0], levels(field.kind))


@_fits(lambda kind: False, "its log p is 0 whatever the decoder says, so that nothing would be learnt, and the squared error is gaussian_fixed")
def point(field: Field) -> Family:
    """All mass on one value: no likelihood to be trained by, and refused as one."""
    return Point(len(field.shape))


_COLUMNS = "it describes the columns of a table, each by its own kind"


def _table(field: Field) -> Table:
    assert isinstance(field.kind, Table), "other kinds were refused"
    return field.kind


@_fits(_tabular, _COLUMNS)
def fields(field: Field) -> Family:
    """Rows of a table: Gaussian, log-normal, negative binomial, discretised logistic or free masses, by the kind of each column; nats in their own units."""
    return Fields(_table(field))


@_fits(_tabular, _COLUMNS)
def fields_student(field: Field) -> Family:
    """Rows of a table, with Student's t of 4 degrees of freedom for its measured columns, which forgives outliers; nats in their own units."""
    return Fields(_table(field), heavy_tailed)


_PICTURES = "it compares pictures in unit values, which have a black and a white"


def _perceptual(distance: Distance, field: Field) -> Family:
    if len(field.shape) != 3:
        raise UsageError(f"field {field.name!r} is shaped {field.shape}, and a perceptual likelihood compares pictures [C, H, W]; use likelihood=default")
    return Perceptual(distance)


@_fits(_discrete, _PICTURES)
def ms_ssim(field: Field) -> Family:
    """The multi-scale structural similarity of pictures (Wang et al. 2003), as C H W (1 - MS-SSIM); not a density, so no report calls it nats."""
    return _perceptual(MsSsim(), field)


@_fits(_discrete, _PICTURES)
def focal_frequency(field: Field) -> Family:
    """The squared error of each frequency, the worst ones weighing most (Jiang et al. 2021); not a density, so no report calls it nats."""
    return _perceptual(FocalFrequency(), field)


def generated(field: Field) -> Family:
    """What a generator without a likelihood makes of a field: a point, in unit values where the data have levels."""
    return (UnitPoint if _discrete(field.kind) else Point)(len(field.shape))
