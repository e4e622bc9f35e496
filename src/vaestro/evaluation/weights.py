"""Weights of networks that others trained: read as numbers and nothing else."""

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from vaestro.errors import UsageError, VaestroError

LARGEST = 2**30  # bytes; Inception v3 has 0.1 GB
COUNTER = "num_batches_tracked"  # of training steps, which no output depends on


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a `.pth` by torch's own reader of weights, which knows tensors and plain containers and runs no code.

    Raises UsageError where there is no such file or it is larger than 1 GiB, VaestroError where it does not hold named tensors alone.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}; give the path of a network's weights (.safetensors or .pth)")
    if path.stat().st_size > LARGEST:
        raise UsageError(f"{path} is larger than 1 GiB, which no feature network is; give the path of its weights alone")
    try:
        found = _safetensors(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file raises whatever its reader stumbles over
        raise VaestroError(f"{path.name} holds no weights that can be read without running code ({type(error).__name__}); give a safetensors file") from error
    if not isinstance(found, dict) or not found or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items()):
        raise VaestroError(f"{path.name} is no table of named tensors; give the state of a network (its state_dict) alone")
    return found


def _safetensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def fill(network: nn.Module, weights: dict[str, Tensor], name: str, spare: tuple[str, ...] = ()) -> None:
    """Put weights into a network and hold them fixed; tensors whose names begin with one of `spare` are left out.

    Raises VaestroError where names or shapes are those of another network, or a number is not finite.
    """
    wanted = network.state_dict()
    kept = {k: v for k, v in weights.items() if not k.startswith(spare)} if spare else dict(weights)
    kept |= {k: v for k, v in wanted.items() if k.endswith(COUNTER) and k not in kept}
    strange = sorted(set(kept) ^ set(wanted)) or [k for k, v in wanted.items() if v.shape != kept[k].shape]
    if strange:
        raise VaestroError(f"{name} holds the weights of another network ({strange[0]} does not fit); give those of {type(network).__name__}")
    if not all(bool(v.isfinite().all()) for v in kept.values()):
        raise VaestroError(f"{name} holds numbers that are not finite; take it again from its source")
    network.load_state_dict(kept)
    network.eval().requires_grad_(False)
