"""The table of a run: one line of `metrics.jsonl` a log, cut back to the checkpoint when a run is resumed."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vaestro.errors import VaestroError
from vaestro.training.files import write_bytes

Line = dict[str, Any]
Watch = Callable[[Line], None]  # what a live display is given


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a log, up to one that was cut short by a kill, or is none."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for text in file:
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                return
            if not isinstance(line, dict) or type(line.get("step")) is not int:
                return
            yield line


def cut_back(path: Path, step: int) -> None:
    """Forget what was logged after `step`, for a run that goes on from there."""
    kept = [line for line in read_lines(path) if line["step"] <= step]
    write_bytes(path, "".join(json.dumps(line) + "\n" for line in kept).encode())


class Log:
    """Appends lines to `metrics.jsonl` and shows them to a watcher."""

    def __init__(self, folder: Path, watch: Watch) -> None:
        self.path, self.watch = folder / "metrics.jsonl", watch

    def __call__(self, line: Line) -> None:
        """Write one line at once: an open file would lose its last lines in a kill. Raises VaestroError where it cannot be written."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise VaestroError(f"{self.path} could not be written ({error.strerror}); free some space, and go on with `vaestro resume`") from None
        self.watch(line)


def tensorboard(folder: Path) -> Watch:
    """A watcher that writes TensorBoard events beside the log; raises ImportError where the extra is missing."""
    from torch.utils.tensorboard.writer import SummaryWriter

    opened: list[SummaryWriter] = []

    def watch(line: Line) -> None:
        if not opened:  # a run that goes on writes anew what it wrote after its checkpoint
            opened.append(SummaryWriter(str(folder), purge_step=line["step"]))
        for name, value in line.items():
            if isinstance(value, int | float) and name != "step":
                opened[0].add_scalar(name, value, line["step"])
        opened[0].flush()

    return watch
