"""Where jobs run: one small contract, and local processes behind it that die with their runner and whose jobs are taken up again."""

import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias, runtime_checkable

from vaestro.arena.entry import Job
from vaestro.arena.result import read
from vaestro.arena.worker import do, failed
from vaestro.training.process import STOPPED, Worker, close, cores, last_words, spawn, stop

PATIENCE = 10  # deaths of a job's process in one session before it counts as failed
PAUSE = 0.1  # seconds between looks at the processes


@dataclass
class Standing:
    """How far a session is; what a display is shown."""

    total: int
    done: list[Job] = field(default_factory=list)
    failed: list[Job] = field(default_factory=list)
    running: dict[str, tuple[Job, float]] = field(default_factory=dict)  # by id, with the time it began

    def finish(self, job: Job) -> None:
        """Count a job whose result is there."""
        self.running.pop(job.id, None)
        (self.failed if read(job.result).status == "failed" else self.done).append(job)


Tell: TypeAlias = Callable[[Standing], None]


@runtime_checkable
class Engine(Protocol):
    """Brings every job to a result file, tells how it stands, and stops cleanly when it is interrupted."""

    def run(self, jobs: Sequence[Job], standing: Standing, tell: Tell) -> None:
        """Run the jobs; on an interruption leave every one in a state from which it can go on."""


class Here:
    """One job after another in this process: for tests, debuggers and notebooks."""

    def run(self, jobs: Sequence[Job], standing: Standing, tell: Tell) -> None:
        """Run the jobs in turn."""
        for job in jobs:
            standing.running[job.id] = (job, time.time())
            tell(standing)
            do(job)
            standing.finish(job)
            tell(standing)


@dataclass
class _Slot:
    """A process and its job."""

    job: Job
    process: Worker


class Local:
    """`jobs` processes of this machine with `threads` each, by default the cores shared out among them.

    A run that has seconds measures whether fewer threads are quicker. One that has steps keeps what it is given, for another number gives other last bits.
    """

    def __init__(self, jobs: int, threads: int | None = None) -> None:
        self.jobs, self.threads = jobs, threads or max(1, cores() // jobs)
        self.deaths: dict[str, int] = {}

    def run(self, jobs: Sequence[Job], standing: Standing, tell: Tell) -> None:
        """Keep `jobs` processes busy until every job has its result; a process that died is started again where its job stood."""
        waiting, slots = deque(jobs), list[_Slot]()
        try:
            while waiting or slots:
                while waiting and len(slots) < self.jobs:
                    slots.append(self._start(waiting.popleft(), standing))
                time.sleep(PAUSE)
                for slot in [s for s in slots if s.process.poll() is not None]:
                    slots.remove(slot)
                    if not self._ended(slot, standing):
                        waiting.appendleft(slot.job)
                tell(standing)
        finally:
            stop([s.process for s in slots])

    def _start(self, job: Job, standing: Standing) -> _Slot:
        own = replace(job, threads=self.threads)
        process = spawn("vaestro.arena", json.dumps(own.to_json()), self.threads, job.log)
        standing.running[job.id] = (own, standing.running.get(job.id, (own, time.time()))[1])
        return _Slot(own, process)

    def _ended(self, slot: _Slot, standing: Standing) -> bool:
        """Whether the job of an ended process is settled; if not, it is to be started again."""
        job, status = slot.job, slot.process.returncode
        close(slot.process)
        if not job.result.is_file():
            self.deaths[job.id] = self.deaths.get(job.id, 0) + 1
            stopped = status < 0 or status == STOPPED
            if stopped and self.deaths[job.id] < PATIENCE:
                return False
            often = f"was told to stop {PATIENCE} times" if status == STOPPED else f"was ended by signal {-status} {PATIENCE} times, perhaps for lack of memory"
            failed(job, f"its process {often if stopped else f'ended with status {status}'}{last_words(job.log)}")
        _tidy(job)
        standing.finish(job)
        return True


def _tidy(job: Job) -> None:
    """Forget the log of a process that said nothing."""
    if job.log.is_file() and not job.log.stat().st_size:
        job.log.unlink()
