"""Running a challenge in a folder that can be stopped at any moment and started again."""

from collections.abc import Sequence
from pathlib import Path

import torch

from vaestro.arena import result as results
from vaestro.arena.challenge import Challenge, load_challenge
from vaestro.arena.display import Display, shown
from vaestro.arena.engine import Engine, Local, Standing
from vaestro.arena.entry import Entrant, Job, Own, entrants
from vaestro.arena.folder import Arena, open_arena, start
from vaestro.arena.result import Result
from vaestro.errors import UsageError, VaestroError
from vaestro.training.files import digest, load_tensors, locked, vanish
from vaestro.training.process import cores
from vaestro.training.runs import WEIGHTS, read_about

QUICK = ("mnist-dynamic", "digits-dynamic")  # what `quick` means: the first whose data are to be had
MOST_JOBS = 16


def run(
    challenge: str | Path, tier: str = "quick", out: Path | None = None, enter: Sequence[str] = (), jobs: int | None = None, only: Sequence[str] | None = None
) -> Path:
    """Run a challenge and return the folder of its results: train, score and record every entrant with every seed of the tier.

    `challenge` is a shipped name, a folder, or `quick` (MNIST, or the small digits where no source answers). `out` is `arena/CHALLENGE-TIER` unless given.
    `enter` adds recipes of your own files (`my_models.py:mine`), `only` replaces the challenge's entrants and classical rows; `jobs` is how many processes.
    Stopped at any moment and called again, it goes on: finished results are kept, stopped runs resumed. Failed entries stay failed until `forget_failures`.
    Results that lack a metric which the challenge has declared since are scored again where their trained runs are still there.
    A run of fixed steps has one thread, so that its weights do not depend on how many run beside it.
    Raises UsageError on anything misspelt, VaestroError where the data are not to be had or the folder is in use or of another challenge.
    """
    found, notes = resolve(challenge)
    fixed = found.rules.tier(tier).steps is not None  # and an unknown tier is refused before anything is made
    who = entrants(found.rules.calls(tier) if only is None else only, enter)
    workers = default_jobs() if jobs is None else jobs
    if workers < 1:
        raise UsageError(f"jobs is {jobs}, and at least 1 process is needed; leave it out to use all {cores()} cores")
    folder = (out or Path("arena") / f"{found.rules.name}-{tier}").absolute()
    with shown() as display:
        for note in notes:
            display.note(note)
        return compete(Arena(folder, found, tier), who, Local(workers, 1 if fixed else None), display)


def resolve(challenge: str | Path) -> tuple[Challenge, list[str]]:
    """The challenge, its data brought, and what is to be said of the choice."""
    if challenge != "quick":
        found = load_challenge(challenge)
        found.open_data()
        return found, []
    notes: list[str] = []
    for name in QUICK[:-1]:
        try:
            found = load_challenge(name)
            found.open_data()
            return found, notes
        except UsageError:
            raise
        except VaestroError as error:
            notes.append(f"{name} cannot be run ({error}); running {QUICK[-1]} in its place")
    found = load_challenge(QUICK[-1])
    found.open_data()
    return found, notes


def default_jobs() -> int:
    """As many processes as cores, at most 16; one where an accelerator does the work."""
    return 1 if torch.cuda.is_available() or torch.backends.mps.is_available() else min(cores(), MOST_JOBS)


def compete(arena: Arena, who: Sequence[Entrant], engine: Engine, display: Display) -> Path:
    """Bring every entrant with every seed to a result, in `arena.folder`."""
    start(arena)
    with locked(arena.folder):
        rules = arena.challenge.rules
        tier = rules.tier(arena.tier)
        jobs = [e.job(seed, arena.challenge, arena.tier, arena.folder) for seed in tier.seeds for e in who]
        standing = Standing(len(jobs))
        waiting = []
        for job in jobs:
            if has_result(job, rules.measured(tier)):
                standing.finish(job)
            else:
                waiting.append(job)
        engine.run(waiting, standing, display.tell)
    return arena.folder


def has_result(job: Job, metrics: Sequence[str]) -> bool:
    """Whether a job has its result; what an older version of the user's file left is dropped, and what lacks a metric is let go of to be scored again."""
    require_its_file(job)
    if not job.result.is_file():
        return False
    old = results.read(job.result)
    if job.own is not None and (old.own is None or old.own.sha256 != job.own.sha256):
        drop(job.result, job.run_folder)
        return False
    lacks = old.status == "done" and any(m not in old.metrics and m not in old.refused for m in metrics)
    if lacks and kept(job, old):
        job.result.unlink()  # the run stays, and a process that is stopped meanwhile loses nothing that cannot be scored again
        return False
    return True


def require_its_file(job: Job) -> None:
    """Raises UsageError where the runs under a job's name come from another file of the user's: neither takes the place of the other."""
    old = None if job.own is None else _made_by(job)
    if job.own is None or old is None or old.sha256 == job.own.sha256:
        return
    before, now = Path(old.file), Path(job.own.file)
    if (before.resolve() != now.resolve()) if before.is_absolute() else (before.name != now.name):
        raise UsageError(f"{job.folder} has runs of {job.call!r} from {before}, not from {now}; rename the function, or choose another folder with --out")


def _made_by(job: Job) -> Own | None:
    """The user's file that a job's runs come from: a run has its path, a result its name."""
    try:
        return Own(**read_about(job.run_folder)["arena"]["own"])
    except (VaestroError, KeyError, TypeError):  # there is no run, or it does not say
        old = results.read(job.result).own if job.result.is_file() else None
    return None if old is None else Own(old.file, old.function, old.sha256)


def kept(job: Job, result: Result) -> bool:
    """Whether the run behind a result is still there, with just the weights that were scored."""
    try:
        return digest(load_tensors(job.run_folder / WEIGHTS)[0]) == result.weights_sha256 and read_about(job.run_folder)["status"] == "done"
    except VaestroError:
        return False


def drop(file: Path, run_folder: Path) -> None:
    """Delete a result and its run, the JSON first, so that no result is ever without its arrays."""
    file.unlink()
    for kind in ("rows", "show"):
        file.with_name(f"{file.stem}.{kind}.npz").unlink(missing_ok=True)
    vanish(run_folder)


def forget_failures(folder: Path | str) -> int:
    """Delete the failed results of an arena and their runs, so that the next `run` tries them again; returns how many there were."""
    arena = open_arena(folder)
    with locked(arena.folder):
        broken = [p for p in arena.results if results.read(p).status == "failed"]
        for path in broken:
            drop(path, arena.folder / "runs" / path.stem)
    return len(broken)
