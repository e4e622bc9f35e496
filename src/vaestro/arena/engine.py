"""Where jobs run: one small contract, and local processes behind it that die with their runner and whose jobs are taken up again."""

import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias, runtime_checkable

from vaestro.arena.entry import Job
from vaestro.arena.result import read
from vaestro.arena.worker import STOPPED, do, failed

PATIENCE = 10  # deaths of a job's process in one session before it counts as failed
PAUSE = 0.1  # seconds between looks at the processes
PARTING = 15.0  # seconds that a stopped worker has to leave a checkpoint


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
    process: subprocess.Popen[bytes]


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
            _stop(slots)

    def _start(self, job: Job, standing: Standing) -> _Slot:
        own = replace(job, threads=self.threads)
        job.log.parent.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        with job.log.open("ab") as log:
            command = [sys.executable, "-m", "vaestro.arena.worker"]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True)
        assert process.stdin is not None, "it was asked for"
        with suppress(BrokenPipeError):  # it died already, and will be found so
            process.stdin.write(json.dumps(own.to_json()).encode() + b"\n")
            process.stdin.flush()  # and it stays open: its end tells the worker that we are gone
        standing.running[job.id] = (own, standing.running.get(job.id, (own, time.time()))[1])
        return _Slot(own, process)

    def _ended(self, slot: _Slot, standing: Standing) -> bool:
        """Whether the job of an ended process is settled; if not, it is to be started again."""
        job, status = slot.job, slot.process.returncode
        _close(slot)
        if not job.result.is_file():
            self.deaths[job.id] = self.deaths.get(job.id, 0) + 1
            stopped = status < 0 or status == STOPPED
            if stopped and self.deaths[job.id] < PATIENCE:
                return False
            times = f"was ended by signal {-status} {PATIENCE} times, perhaps for lack of memory" if stopped else f"ended with status {status}"
            failed(job, f"its process {times}{_last_words(job)}")
        _tidy(job)
        standing.finish(job)
        return True


def cores() -> int:
    """The processor's cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _last_words(job: Job) -> str:
    """The last line that a process wrote, and where the rest stands."""
    said = job.log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if job.log.is_file() else []
    return f" ({said[-1]}; all that it said stands in {job.log.parent.name}/{job.log.name})" if said else ""


def _tidy(job: Job) -> None:
    """Forget the log of a process that said nothing."""
    if job.log.is_file() and not job.log.stat().st_size:
        job.log.unlink()


def _close(slot: _Slot) -> None:
    if slot.process.stdin is not None:
        with suppress(BrokenPipeError):
            slot.process.stdin.close()


def _stop(slots: Sequence[_Slot]) -> None:
    """Ask every process to leave a checkpoint, and end those that do not within a while."""
    for slot in slots:
        slot.process.terminate()
    end = time.monotonic() + PARTING
    for slot in slots:
        try:
            slot.process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            slot.process.kill()
            slot.process.wait()
        _close(slot)
