"""The classical models that every board compares with: fitted at once, from rows, without a gradient step."""

from vaestro.models.classical.clusters import Clusters, by_share, fit_k_means, fit_mixture, nearest
from vaestro.models.classical.common import Near
from vaestro.models.classical.direct import Coded, CodeLength, Direct, Marginals, fit_marginals, nothing_to_fit, png_coder, zlib_coder
from vaestro.models.classical.linear import Linear, factors, principal
from vaestro.models.classical.rows import Stored, by_kernel, fit_copies, fit_kernels, itself, kernel, to_nearest

__all__ = [
    "Clusters",
    "CodeLength",
    "Coded",
    "Direct",
    "Linear",
    "Marginals",
    "Near",
    "Stored",
    "by_kernel",
    "by_share",
    "factors",
    "fit_copies",
    "fit_k_means",
    "fit_kernels",
    "fit_marginals",
    "fit_mixture",
    "itself",
    "kernel",
    "nearest",
    "nothing_to_fit",
    "png_coder",
    "principal",
    "to_nearest",
    "zlib_coder",
]
