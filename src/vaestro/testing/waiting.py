"""Whether a step would wait for a device: the numbers that it reads out of tensors, counted in a profile."""

from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import profile

READS = ("aten::item", "aten::_local_scalar_dense", "aten::is_nonzero")


def reads(seen: profile) -> tuple[list[str], list[str]]:
    """The reads of a number out of a tensor in a profile: those that a GPU would wait for, and those inside a fused optimiser.

    The optimisers' CPU kernels read their own step count, which lies in host memory there; the CUDA kernels read theirs on the device.
    """
    found = [(e.name, _in_fused_kernel(e)) for e in seen.events() or [] if e.name in READS]
    return [name for name, inside in found if not inside], [name for name, inside in found if inside]


def _in_fused_kernel(event: FunctionEvent) -> bool:
    parent = event.cpu_parent
    return parent is not None and (parent.name.startswith("aten::_fused_") or _in_fused_kernel(parent))
