"""Training a run in its folder, and taking up one that was stopped."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from vaestro.core import prepare
from vaestro.data.rows import Rows
from vaestro.data.store import Dataset
from vaestro.errors import VaestroError
from vaestro.evaluation.scope import evaluating
from vaestro.recipes import Call, Recipe
from vaestro.seeds import forked, mix, seed_of
from vaestro.training.budget import Budget, quickest, seconds_a_step, wall
from vaestro.training.compiling import compile_model, uncompiled
from vaestro.training.device import choose
from vaestro.training.feed import ToldRows, feed
from vaestro.training.files import load_tensors, save_tensors
from vaestro.training.fitting import fit_at_once
from vaestro.training.loop import Fetch, Loop, weights
from vaestro.training.monitor import unit_of, vital_signs
from vaestro.training.process import held_back
from vaestro.training.record import Line, Log, cut_back

LOGS, CHECKS = 100, 20  # lines of the log and validations in a run
LOOK = 1000  # rows that a validation scores, and that `prepare` looks at
HOPELESS = 20  # gradients in a row that were not finite before a run is given up
EVERY = 20.0  # seconds between checkpoints
STATE, BEST = "state.safetensors", "best.safetensors"


@dataclass(frozen=True)
class Plan:
    """What is trained, on what and for how long: all that it takes to do it again."""

    call: Call
    data: Dataset
    budget: Budget
    seed: int = 0
    device: str | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", seed_of(self.seed))


@dataclass
class Progress:
    """The little that a run remembers beside its tensors."""

    total: int
    elapsed: float = 0.0
    best: float = math.inf
    waited: int = 0
    score: float = math.inf
    scored: int = -1  # the step of that score


class Trainer:
    """One run: steps, logs, validates and checkpoints until its budget, its patience or its deadline ends it."""

    def __init__(self, plan: Plan, folder: Path, log: Log) -> None:
        self.plan, self.folder, self.log = plan, folder, log
        self.device = choose(plan.device)
        self.recipe = plan.call.cook(plan.data.schema, plan.seed)
        rows, self.batches = feed(plan.data, self.recipe, plan.seed, self.device)
        held_out = Rows(plan.data.split("validation"), plan.data.schema, self.recipe.fields, self.device)
        self.rows: dict[str, Rows | ToldRows] = {"train": rows, "validation": held_out}
        self.skipped, self.stuck = 0, 0  # gradients that moved nothing: in all at the last log, and in a row
        self.loop: Loop
        self.progress: Progress

    def fetch(self, step: int) -> Fetch:
        """How the batch of a step is fetched: its rows are a pure function of the seed and the step."""
        index = self.batches.batch_index(step)
        return lambda: self.rows["train"].batch(index)

    def loop_of(self, recipe: Recipe, total: int) -> Loop:
        """A loop that stands before its first step, its model compiled where the plan says so."""
        loop = Loop(recipe, self.plan.seed, total, self.device)
        if self.plan.compile and recipe.fit is None:
            compile_model(recipe.model, self.fetch(0))
        return loop

    def trial(self) -> float:
        """Seconds a step, measured on a copy that is thrown away, at the number of threads that makes them fewest."""
        assert self.plan.budget.seconds is not None
        copy = self.loop_of(self.plan.call.cook(self.plan.data.schema, self.plan.seed), 1000)
        limit, clock = min(3.0, 0.2 + 0.04 * self.plan.budget.seconds), self.plan.budget.clock
        threads = {1, torch.get_num_threads()} if self.device.type == "cpu" else set()
        return quickest(lambda: seconds_a_step(copy, self.fetch, limit / 2, clock), threads)

    def begin(self, total: int | None = None, start: dict[str, Tensor] | None = None) -> None:
        """Stand before the first step: the budget becomes steps, parts look at some rows, or take over another run's weights."""
        fitted = self.recipe.fit is not None
        self.progress = Progress(0 if fitted else self.plan.budget.total(self.trial) if total is None else total)
        self.loop = self.loop_of(self.recipe, self.progress.total)
        with self._quiet(1):
            look = self.rows["train"].batch(torch.randperm(self.rows["train"].rows)[:LOOK])
            whole = {n: v for n, v in look.items() if isinstance(v, Tensor)}  # labels that are known in part are no business of a part's start
            for part in self.recipe.parts.modules():
                prepare(part, whole)
        if start is not None:
            adopt(self.recipe.parts, start)
        elif fitted:
            with self._quiet(4):
                self.progress.elapsed = fit_at_once(self.recipe, self.plan.data, self.plan.budget)
        self.loop.restart_average()

    def restore(self) -> None:
        """Stand where the last checkpoint was taken; raises VaestroError where it is another run's."""
        tensors, about = load_tensors(self.folder / STATE)
        try:
            same = about.pop("seed", self.plan.seed) == self.plan.seed  # those of before it was kept have none
            self.progress = Progress(**about)
            self.loop = self.loop_of(self.recipe, self.progress.total)
            self.loop.load(tensors)
        except (KeyError, TypeError, RuntimeError):
            same = False
        if not same:
            raise VaestroError(f"{self.folder / STATE} does not go with the run.json beside it: one of them was altered; restore the folder, or train anew")
        self.skipped = int(self.loop.skipped) + int(self.loop.too_large)
        cut_back(self.log.path, self.loop.n)

    def checkpoint(self) -> None:
        """Write all that the next step depends on, as one file."""
        save_tensors(self.folder / STATE, self.loop.state(), {**asdict(self.progress), "seed": self.plan.seed})

    def go(self) -> str:
        """Train to the end and say why it ended; an interruption leaves a checkpoint behind."""
        if self.recipe.fit is not None:
            self._write(self._validate())
            return "fitted at once, without steps"
        logs, checks = math.ceil(self.progress.total / LOGS), math.ceil(self.progress.total / self.checks)
        clock = self.plan.budget.clock
        base, last = clock() - self.progress.elapsed, wall()
        with held_back() as signals:  # half a step is no place to go on from
            try:
                while not (ended := self._ended()):
                    self.loop.step(self.fetch(self.loop.n))
                    n = self.loop.n
                    self.progress.elapsed = clock() - base
                    check = n % checks == 0 or n == self.progress.total
                    if check or n % logs == 0:
                        self._write(self._validate() if check else {})
                    signals.release()
                    if wall() - last > EVERY:
                        self.checkpoint()
                        last = wall()
                if self.progress.scored != self.loop.n:  # a deadline ends a run between two validations
                    self._write(self._validate())
            except KeyboardInterrupt:
                if not signals.waiting:  # else it did not wait for the step's end
                    self.checkpoint()
                raise
        return ended

    def _ended(self) -> str:
        """Why no further step is taken, if none is: the same before a stop and after it."""
        patience, n = self.recipe.training.patience, self.loop.n
        if patience is not None and self.progress.waited >= patience:
            return f"early stopping: {patience} validations without a better score"
        if self.progress.elapsed > self.plan.budget.deadline or n == self.plan.budget.stop:
            return f"deadline: slower than measured, stopped after {n} of {self.progress.total} steps"
        return "budget" if n >= self.progress.total else ""

    def unit(self) -> str:
        """What the validation score counts in, as it shows on a row."""
        with self._quiet(3), evaluating(self.recipe.parts):
            return unit_of(self.recipe, self.rows["validation"].batch(torch.arange(1)))

    @property
    def checks(self) -> int:
        """How often a run validates: at most `CHECKS` times, and so that validation stays a fiftieth of the work where a short run sees few rows."""
        trained = self.progress.total * min(self.batches.batch, self.batches.rows)
        return max(1, min(CHECKS, int(0.06 * trained / min(self.rows["validation"].rows, LOOK))))

    def final(self) -> tuple[dict[str, Tensor], float | None]:
        """The weights to use and their score: the best ones under early stopping, else the last or averaged ones; no score where it is not finite."""
        best = self.folder / BEST
        if self.recipe.training.patience is not None and best.exists():
            return load_tensors(best)[0], self.progress.best
        return self.loop.best(), self.progress.score if math.isfinite(self.progress.score) else None

    def _write(self, more: Line) -> None:
        moves = self.loop.counted * len(self.recipe.players)
        means = self.loop.flush()
        still = {"skipped": int(self.loop.skipped), "too_large": int(self.loop.too_large)}
        self.stuck = self.stuck + moves if moves and sum(still.values()) - self.skipped >= moves else 0
        self.skipped = sum(still.values())
        line = {"step": self.loop.n, "seconds": round(self.progress.elapsed, 3), **means, **{n: count for n, count in still.items() if count}, **more}
        self.log(line)
        if self.stuck >= HOPELESS and still["too_large"] > still["skipped"]:
            raise VaestroError(f"the last {self.stuck} gradients were longer than skip={self.recipe.training.skip}, so nothing moved; raise skip, or drop it")
        if self.stuck >= HOPELESS:
            raise VaestroError(f"the last {self.stuck} gradients were infinite or NaN; lower learning_rate, set clip=1, or look for broken values in the data")

    def _validate(self) -> Line:
        with self._quiet(2), self.loop.averaged(), evaluating(self.recipe.parts), uncompiled() if self.plan.compile else nullcontext():
            index = torch.arange(min(self.rows["validation"].rows, LOOK))
            signs = vital_signs(self.recipe, (self.rows["validation"].batch(i) for i in index.split(250)), self.loop.n / max(self.progress.total, 1))
        score = signs["validation"]
        self.progress.score, self.progress.scored = score, self.loop.n
        if self.loop.n < self.recipe.settled * self.progress.total:
            return signs
        better = score < self.progress.best
        self.progress.best, self.progress.waited = (score, 0) if better else (self.progress.best, self.progress.waited + 1)
        if better and self.recipe.training.patience is not None:
            save_tensors(self.folder / BEST, self.loop.best(), {"step": self.loop.n})
        return signs

    @contextmanager
    def _quiet(self, stream: int) -> Iterator[None]:
        """Random numbers of their own, without gradients, so that looking changes nothing."""
        with forked(self.device), torch.no_grad():
            torch.manual_seed(mix(self.plan.seed, -stream))
            yield


@torch.no_grad()
def adopt(parts: torch.nn.Module, tensors: dict[str, Tensor]) -> None:
    """Fill every weight by name; raises VaestroError where a name or a shape differs."""
    own = weights(parts)
    for name in own.keys() ^ tensors.keys():
        raise VaestroError(f"the weights do not fit the recipe: {name!r} is only on one side; use the recipe call that they were trained with")
    for name, w in own.items():
        if w.shape != tensors[name].shape:
            raise VaestroError(f"the weights do not fit the recipe: {name!r} is {tuple(tensors[name].shape)} in the file and {tuple(w.shape)} here")
        w.copy_(tensors[name])
