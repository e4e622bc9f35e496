"""One trained call of a search, scored on validation rows: in this process, or in one of its own as `python -m vaestro.uses.search.attempt`."""

import json
import math
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vaestro.core import Batch
from vaestro.data import load
from vaestro.data.rows import Rows
from vaestro.errors import VaestroError
from vaestro.evaluation.metrics import METRICS, Subject, measure
from vaestro.evaluation.metrics.held import AT_ONCE
from vaestro.evaluation.scope import device_of, fixed_rows
from vaestro.progress import tell
from vaestro.recipes import parse
from vaestro.recipes.files import bring
from vaestro.training import runs
from vaestro.training.budget import Budget
from vaestro.training.files import read_json, write_json
from vaestro.training.process import STOPPED, Worker, alone, close, last_words, serve, spawn, stop
from vaestro.training.runs import ABOUT, Run, read_about
from vaestro.training.train import Plan

SCORE = "score.json"
LOOK, SAMPLES = 1000, 32  # validation rows, and importance samples of each
DEATHS, PAUSE = 3, 0.05  # of one attempt's process before it counts as failed; seconds between looks
RANKING = ("bits_per_dim", "nll")  # the first that the model and its data have; else the recipe's own validation loss


@dataclass(frozen=True)
class Attempt:
    """All that it takes to train and score one call; it is sent as JSON."""

    call: str
    data: str  # a name, or a path
    seed: int
    seconds: float | None
    steps: int | None
    folder: str
    threads: int = 1
    own: str = ""  # the user's file that the recipe comes from

    @property
    def score(self) -> Path:
        """Where its score will be."""
        return Path(self.folder) / SCORE


@dataclass(frozen=True)
class Outcome:
    """A score on validation rows, less being better; or why there is none."""

    metric: str = ""
    unit: str = ""
    value: float = math.nan
    rows: tuple[float, ...] = ()  # of each validation row, where the metric is a mean over rows
    seconds: float = 0.0
    steps: int = 0
    failed: str = ""


def outcome(attempt: Attempt) -> Outcome | None:
    """The stored outcome of an attempt, none if it was not brought to an end; raises VaestroError where the file is damaged."""
    if not attempt.score.is_file():
        return None
    raw = read_json(attempt.score)
    try:
        value = math.nan if raw["value"] is None else float(raw["value"])
        return Outcome(**{**raw, "value": value, "rows": tuple(float(v) for v in raw["rows"])})
    except (KeyError, TypeError, ValueError):
        raise VaestroError(f"{attempt.score} is damaged; delete its folder and search again") from None


def attempt(of: Attempt) -> Outcome:
    """Train and score, from wherever an earlier process left it; what goes wrong becomes an outcome with its reason."""
    with alone(Path(of.folder).with_suffix(".lock")):
        known = outcome(of)
        if known is not None:
            return known
        try:
            found = _scored(of)
        except Exception as error:  # a recipe may raise anything for odd keywords, and the search goes on
            first = (str(error).strip().splitlines() or ["no words"])[0]
            found = Outcome(failed=first if isinstance(error, VaestroError) else f"{type(error).__name__}: {first}")
        raw: dict[str, Any] = {**asdict(found), "value": found.value if math.isfinite(found.value) else None}
        of.score.parent.mkdir(parents=True, exist_ok=True)
        write_json(of.score, raw)
    return found


def _scored(of: Attempt) -> Outcome:
    bring(Path(of.own) if of.own else None)
    call, data, folder, before = parse(of.call), load(of.data), Path(of.folder), torch.get_num_threads()
    torch.set_num_threads(of.threads)
    try:
        if not (folder / ABOUT).is_file():
            run = runs.train(Plan(call, data, Budget(of.steps, of.seconds), of.seed), folder, source=of.data)
        elif read_about(folder)["status"] == "done":
            run = runs.open_run(folder, call)
        else:
            run = runs.resume(folder, data=data, call=call)
        torch.set_num_threads(run.about["threads"])
        return judged(run, Rows(data.split("validation"), data.schema, run.recipe.fields, device_of(run.model)))
    finally:
        torch.set_num_threads(before)


def judged(run: Run, held: Rows) -> Outcome:
    """A run's score on validation rows: bits per dimension, else nats, by importance sampling; else the recipe's own validation loss."""
    index, cost = fixed_rows(held.rows, LOOK), {"seconds": run.about["seconds"], "steps": run.about["done_steps"]}

    def rows() -> Iterable[Batch]:
        return (held.batch(i.to(held.device)) for i in index.split(AT_ONCE))

    report = measure(RANKING, Subject(run.model, rows, run.field, SAMPLES, 0, run.about["call"]))
    for name in (n for n in RANKING if n in report.scores):
        found = report.scores[name]
        each = () if found.rows is None else tuple(np.asarray(found.rows, dtype=np.float64).tolist())
        failed = "" if math.isfinite(found.value) else f"its {METRICS[name].title} is {found.value}"
        return Outcome(name, METRICS[name].unit, found.value, each, **cost, failed=failed)
    loss = math.nan if run.about["validation"] is None else float(run.about["validation"])
    return Outcome("validation", run.about["unit"], loss, (), **cost, failed="" if math.isfinite(loss) else f"its validation loss is {loss}")


def done_by(jobs: Sequence[Attempt], processes: int, what: str) -> list[Outcome]:
    """The outcomes of some attempts, in their order: one after another here, or by so many processes."""
    tell(what, 0.0)
    if processes == 1:
        found = []
        for i, job in enumerate(jobs):
            found.append(attempt(job))
            tell(what, (i + 1) / len(jobs))
        return found
    groups = [[j for j in jobs[i::processes] if outcome(j) is None] for i in range(processes)]  # a process does several, for starting one takes seconds
    running, deaths = [(g, _start(g)) for g in groups if g], dict[str, int]()
    try:
        while running:
            time.sleep(PAUSE)
            for group, process in [r for r in running if r[1].poll() is not None]:
                running.remove((group, process))
                close(process)
                left = [j for j in group if outcome(j) is None]
                if left and _given_up(left[0], process.returncode, deaths):
                    left = left[1:]
                if left:
                    running.append((left, _start(left)))
            tell(what, sum(j.score.is_file() for j in jobs) / len(jobs))
    finally:
        stop([process for _, process in running])
    lost = Outcome(failed="its process was ended, perhaps for lack of memory")  # kept nowhere, so that the next search tries it again
    return [outcome(j) or lost for j in jobs]


def _start(group: Sequence[Attempt]) -> Worker:
    return spawn("vaestro.uses.search.attempt", json.dumps([asdict(j) for j in group]), group[0].threads, _log(group[0]))


def _given_up(job: Attempt, status: int, deaths: dict[str, int]) -> bool:
    """Whether the attempt at which a process died is left aside; one that ended by itself has a fault of its own, which it has written into its log."""
    deaths[job.folder] = deaths.get(job.folder, 0) + 1
    if status >= 0 and status != STOPPED:
        raise VaestroError(f"a process of the search ended with status {status}{last_words(_log(job))}")
    return deaths[job.folder] >= DEATHS


def _log(job: Attempt) -> Path:
    return Path(job.folder).with_suffix(".txt")


def work(line: str) -> None:
    """Do the attempts that a line of JSON describes."""
    for each in json.loads(line):
        attempt(Attempt(**each))


if __name__ == "__main__":
    sys.exit(serve(work))
