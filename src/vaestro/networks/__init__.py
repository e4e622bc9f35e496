"""Networks: rows to rows, of any image size; no distributions in here."""

from vaestro.networks.base import Build, Network
from vaestro.networks.convolutional import convolutional
from vaestro.networks.fitting import by_shape
from vaestro.networks.made import Constant, Made
from vaestro.networks.mlp import gated_mlp, mlp
from vaestro.networks.residual import residual
from vaestro.registry import Registry

NETWORKS: Registry[Build] = Registry("network")
for _build in (mlp, gated_mlp, convolutional, residual, by_shape):
    NETWORKS.add(_build.__name__, _build)

__all__ = ["NETWORKS", "Build", "Constant", "Made", "Network", "by_shape", "convolutional", "gated_mlp", "mlp", "residual"]
