"""Normalising flows as priors: a standard normal seen through learnt bijections."""

from torch import nn

from vaestro.data.schema import Field
from vaestro.flows import Flow, affine, autoregressive, coupling
from vaestro.flows import spline as spline_map
from vaestro.priors.base import PRIORS


@PRIORS.register
def flow(latents: int, posterior: nn.Module, field: Field, layers: int = 6) -> nn.Module:
    """`layers` affine couplings of N(0, I) over [latents], fast to score and to sample (Dinh et al. 2017)."""
    return Flow((latents,), coupling(latents, affine(), layers))


@PRIORS.register
def maf(latents: int, posterior: nn.Module, field: Field, layers: int = 3) -> nn.Module:
    """`layers` masked autoregressive maps of N(0, I) over [latents]; a sample takes `latents` passes a layer (Papamakarios et al. 2017)."""
    return Flow((latents,), autoregressive(latents, affine(), layers))


@PRIORS.register
def spline(latents: int, posterior: nn.Module, field: Field, layers: int = 4, bins: int = 8) -> nn.Module:
    """`layers` couplings of N(0, I) over [latents] by rational-quadratic splines of `bins` pieces (Durkan et al. 2019)."""
    return Flow((latents,), coupling(latents, spline_map(bins), layers))
