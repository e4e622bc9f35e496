"""How long a run may take: steps, or seconds turned into steps once, so that a resumed or replayed run does the same."""

import math
import numbers
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import torch

from vaestro.errors import UsageError
from vaestro.registry import Registry
from vaestro.training.loop import Fetch, Loop

WARM = 3  # the first steps allocate memory and are slower
SHARE = 0.9  # of the seconds go to steps; the rest to validation, checkpoints and noise
GRACE = 1.25  # a run that is this much slower than measured is stopped

Clock: TypeAlias = Callable[[], float]  # seconds since some moment
CLOCKS: Registry[Clock] = Registry("clock")


@CLOCKS.register
def wall() -> float:
    """The seconds that a person waits."""
    return time.monotonic()


@CLOCKS.register
def core() -> float:
    """The seconds that the training thread had of its core: what the wall clock says on a quiet machine, so that a busy one is no handicap."""
    return time.thread_time()


@dataclass(frozen=True)
class Budget:
    """Steps or seconds of training, by a clock; exactly one is given. Raises UsageError otherwise.

    `stop` ends a run before its last step, as a deadline once did: the schedules still run over all of them.
    """

    steps: int | None = None
    seconds: float | None = None
    clock: Clock = wall
    stop: int | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.seconds is None):
            raise UsageError("a budget is either steps or seconds: give exactly one of them")
        name, given = ("steps", self.steps) if self.seconds is None else ("seconds", self.seconds)
        if isinstance(given, bool) or not isinstance(given, numbers.Real):
            raise UsageError(f"{name} is {given!r}, which is no number; give some steps or seconds")
        if not 0 < given < math.inf:
            raise UsageError(f"a budget must be positive and finite, and got {given}; give some steps or seconds")
        if self.seconds is None and given != int(given):
            raise UsageError(f"steps are counted, and {given} is no whole number; give {int(given)}")
        object.__setattr__(self, name, int(given) if self.seconds is None else float(given))  # NumPy's numbers are no JSON

    def total(self, trial: Callable[[], float]) -> int:
        """The number of steps that this budget buys; `trial` measures seconds a step and is called only if it must be."""
        if self.steps is not None:
            return self.steps
        assert self.seconds is not None
        return max(10, int(SHARE * self.seconds / trial()))

    @property
    def deadline(self) -> float:
        """Seconds after which a run is stopped, whatever is left."""
        return float("inf") if self.seconds is None else GRACE * self.seconds


def seconds_a_step(loop: Loop, fetch: Callable[[int], Fetch], limit: float, clock: Clock = time.perf_counter) -> float:
    """The median time of a step of a throw-away loop, measured for about `limit` seconds of the clock."""
    times: list[float] = []
    start = clock()
    while len(times) < WARM + 3 or (clock() - start < limit and len(times) < 200):
        before = clock()
        loop.step(fetch(loop.n))
        if loop.device.type != "cpu":
            loop.flush()
        times.append(clock() - before)
    return statistics.median(times[WARM:])


def quickest(measure: Callable[[], float], threads: Iterable[int]) -> float:
    """What `measure` says at the number of threads that makes it least, which is then kept: on shared cores one thread often beats two."""
    times = {}
    for n in sorted(threads):
        torch.set_num_threads(n)
        times[n] = measure()
    if not times:
        return measure()
    best = min(times, key=lambda n: times[n])
    torch.set_num_threads(best)
    return times[best]
