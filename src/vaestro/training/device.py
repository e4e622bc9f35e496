"""Where a run computes: the device is chosen by itself, threads are set once."""

import os
import sys

import torch

from vaestro.errors import UsageError


def choose(name: str | None = None) -> torch.device:
    """The named device, else CUDA, else Apple's MPS, else the CPU. Raises UsageError for one that is not there."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" holds no numbers
    except (RuntimeError, AssertionError, NotImplementedError):
        raise UsageError(f"there is no device {name!r} here, which has {', '.join(present())}; leave --device out to choose by itself") from None
    return device


def present() -> list[str]:
    """The devices of this machine, the best one first."""
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def machine() -> dict[str, str | int]:
    """What a result says of the machine and the libraries that it was made with."""
    import platform

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "gpu": gpu,
    }


def peak_memory(device: torch.device) -> int | None:
    """The most bytes held at once so far: on CUDA what torch allocated there, else the whole process's resident memory; none where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # no Unix
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # in KiB elsewhere
