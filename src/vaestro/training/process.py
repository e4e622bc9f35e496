"""Processes of this machine that work for another: each reads its work as one line, dies with its runner, and leaves a checkpoint when it is told to stop."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

STOPPED = 130  # the exit status of a process that was told to stop
PARTING = 15.0  # seconds that it has to leave a checkpoint
Worker: TypeAlias = subprocess.Popen[bytes]
Handler: TypeAlias = Callable[[int, FrameType | None], Any]


def cores() -> int:
    """The processor's cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def spawn(module: str, line: str, threads: int, log: Path) -> Worker:
    """A process that runs `python -m module`, reads `line` and writes to the end of `log` whatever it says; `serve` is its other half."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with log.open("ab") as file:
        process = subprocess.Popen([sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=file, stderr=file, env=environment, start_new_session=True)
    assert process.stdin is not None, "it was asked for"
    with suppress(BrokenPipeError):  # it died already, and will be found so
        process.stdin.write(line.encode() + b"\n")
        process.stdin.flush()  # and it stays open: its end tells the worker that we are gone
    return process


def close(process: Worker) -> None:
    """Let go of a process that has ended."""
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()


def stop(processes: Sequence[Worker]) -> None:
    """Ask every process to leave a checkpoint, and end those that do not within a while."""
    for process in processes:
        process.terminate()
    end = time.monotonic() + PARTING
    for process in processes:
        try:
            process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        close(process)


def last_words(log: Path) -> str:
    """The last line that a process wrote, and where the rest stands."""
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.is_file() else []
    return f" ({said[-1]}; all that it said stands in {log.parent.name}/{log.name})" if said else ""


def serve(work: Callable[[str], object]) -> int:
    """Do the work on the first line of the standard input, and return the exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells everybody; the runner decides
    pipe = sys.stdin.fileno()
    line = _first_line(pipe)
    threading.Thread(target=_die_with_the_runner, args=(pipe,), daemon=True).start()
    try:
        work(line)
    except KeyboardInterrupt:
        return STOPPED
    return 0


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """One process at a time: waits for a worker of a killed runner to be gone."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Signals:
    """Signals that wait for a moment at which they do no harm."""

    def __init__(self, handlers: Mapping[int, Handler]) -> None:
        self.handlers, self.waiting = handlers, list[int]()

    def hold(self, number: int, frame: FrameType | None) -> None:
        """Let a signal wait; a second one does not."""
        self.waiting.append(number)
        if len(self.waiting) > 1:
            self.handlers[number](number, frame)

    def release(self) -> None:
        """This is the moment: the signal that waits does what it would have done."""
        if self.waiting:
            number = self.waiting.pop()
            self.handlers[number](number, None)


@contextmanager
def held_back() -> Iterator[Signals]:
    """SIGINT and SIGTERM, where Python handles them, wait for `release`; a second one does at once what the first would have done."""
    told = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers: dict[int, Handler] = {number: handler for number, handler in told.items() if callable(handler)}
    signals = Signals(handlers)
    if threading.current_thread() is not threading.main_thread():  # signals come to the main thread alone
        yield signals
        return
    for number in handlers:
        signal.signal(number, signals.hold)
    try:
        yield signals
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    signals.release()


def _first_line(pipe: int) -> str:
    """The first line of a pipe, read without a buffer, whose lock would outlive the main thread."""
    text = b""
    while not text.endswith(b"\n") and (piece := os.read(pipe, 1)):
        text += piece
    return text.decode()


def _die_with_the_runner(pipe: int) -> None:
    """Ends this process at once when the runner is gone, which closes the pipe however it ended."""
    while os.read(pipe, 1):
        continue
    os._exit(STOPPED)
