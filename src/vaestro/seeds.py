"""Random numbers as pure functions of whole numbers: no generator state is ever saved."""

import numbers
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vaestro.errors import UsageError

MOST = 2**64 - 1
CPU = torch.device("cpu")
ALONE = threading.RLock()  # torch's generators belong to the process: two threads that seeded them at once would draw each other's numbers


@contextmanager
def forked(device: torch.device = CPU) -> Iterator[None]:
    """A scope whose random numbers on the CPU and on `device` are no other thread's, and leave the global generators as they were."""
    accelerators = [] if device.type == "cpu" else [device.index or 0]
    with ALONE, torch.random.fork_rng(accelerators, device_type="cuda" if device.type == "cpu" else device.type):
        yield


def seed_of(seed: object) -> int:
    """A seed as a whole number; raises UsageError for one that is none, or not from 0 to 2^64 - 1."""
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or not 0 <= int(seed) <= MOST:
        raise UsageError(f"seed is {seed!r}, and is a whole number from 0 to 2^64 - 1; give one such as 0")
    return int(seed)


def mix(seed: int, *numbers: int) -> int:
    """One well-mixed 63-bit seed from whole numbers such as (seed, step); SplitMix64's finaliser, equal on every machine."""
    state = int(seed)  # NumPy's would overflow
    for n in numbers:
        state = (state * 0x9E3779B97F4A7C15 + n + 1) & (2**64 - 1)
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        state ^= state >> 31
    return state >> 1


def places(n: int, of: int, device: torch.device) -> torch.Tensor:
    """`n` places among `of` at random, [n]; none comes twice before every one has come."""
    return torch.randperm(max(n, of), device=device)[:n] % of


def reseed(seed: int, device: torch.device) -> None:
    """Seed the generators of the CPU and of `device` only: `torch.manual_seed` also queues calls for absent devices, half a millisecond each time."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):  # else a model on another than the current device would draw unseeded noise
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
