"""Running a challenge in a folder that can be stopped at any moment and started again."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vaestro.arena import result as results
from vaestro.arena.challenge import FILE, Challenge, load_challenge, read
from vaestro.arena.display import Display, shown
from vaestro.arena.engine import Engine, Local, Standing, cores
from vaestro.arena.entry import RESULTS, Entrant, Job, entrants
from vaestro.errors import UsageError, VaestroError
from vaestro.training.files import locked, read_json, write_bytes, write_json

ARENA = "arena.json"
QUICK = ("mnist-dynamic", "digits-dynamic")  # what `quick` means: the first whose data are to be had
MOST_JOBS = 16


@dataclass(frozen=True)
class Arena:
    """A folder of results with the challenge and the tier that they answer."""

    folder: Path
    challenge: Challenge
    tier: str

    @property
    def results(self) -> list[Path]:
        """The result files, in the order of their names."""
        return sorted((self.folder / RESULTS).glob("*.json"))


def run(
    challenge: str | Path, tier: str = "quick", out: Path | None = None, enter: Sequence[str] = (), jobs: int | None = None, only: Sequence[str] | None = None
) -> Path:
    """Run a challenge and return the folder of its results: train, score and record every entrant with every seed of the tier.

    `challenge` is a shipped name, a folder, or `quick` (MNIST, or the small digits where no source answers). `out` is `arena/CHALLENGE-TIER` unless given.
    `enter` adds recipes of your own files (`my_models.py:mine`), `only` replaces the challenge's entrants; `jobs` is the number of processes.
    Stopped at any moment and called again, it goes on: finished results are kept, stopped runs resumed. Failed entries stay failed until `forget_failures`.
    Raises UsageError on anything misspelt, VaestroError where the data are not to be had or the folder is in use or of another challenge.
    """
    found, notes = resolve(challenge)
    settings = found.rules.tier(tier)
    who = entrants(found.rules.entrants if only is None else only, enter)
    workers = default_jobs() if jobs is None else jobs
    if workers < 1:
        raise UsageError(f"jobs is {jobs}, and at least 1 process is needed; leave it out to use all {cores()} cores")
    folder = (out or Path("arena") / f"{found.rules.name}-{tier}").absolute()
    with shown(settings, workers) as display:
        for note in notes:
            display.note(note)
        return compete(Arena(folder, found, tier), who, Local(workers), display)


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
        seeds = arena.challenge.rules.tier(arena.tier).seeds
        jobs = [e.job(seed, arena.challenge, arena.tier, arena.folder) for seed in seeds for e in who]
        standing = Standing(len(jobs))
        waiting = []
        for job in jobs:
            if settled(job):
                standing.finish(job)
            else:
                waiting.append(job)
        engine.run(waiting, standing, display.tell)
    return arena.folder


def settled(job: Job) -> bool:
    """Whether a job has its result; what an older version of the user's file left is dropped."""
    if not job.result.is_file():
        return False
    old = results.read(job.result).own
    if job.own is None or (old is not None and old.sha256 == job.own.sha256):
        return True
    drop(job.result, job.run_folder)
    return False


def drop(file: Path, run_folder: Path) -> None:
    """Delete a result and its run, the JSON first, so that no result is ever without its arrays."""
    file.unlink()
    for kind in ("rows", "show"):
        file.with_name(f"{file.stem}.{kind}.npz").unlink(missing_ok=True)
    shutil.rmtree(run_folder, ignore_errors=True)


def start(arena: Arena) -> None:
    """Make the folder, or compare an old one's challenge with this one; raises VaestroError where they differ."""
    about = identity(arena)
    try:
        arena.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VaestroError(f"cannot make the folder {arena.folder}: {error.strerror}; choose another with --out") from None
    if not (arena.folder / ARENA).is_file():
        write_bytes(arena.folder / FILE, arena.challenge.file.read_bytes())
        write_json(arena.folder / ARENA, about)
        return
    old = read_json(arena.folder / ARENA)
    differ = [k for k in ("challenge", "version", "tier", "sha256") if old.get(k) != about[k]]
    if differ:
        changed = f"{differ[0]} is {old.get(differ[0])!r}, now {about[differ[0]]!r}"
        raise VaestroError(f"{arena.folder} holds results of another challenge ({changed}); choose another folder with --out")
    write_bytes(arena.folder / FILE, arena.challenge.file.read_bytes())  # words, entrants and published rows may have changed
    write_json(arena.folder / ARENA, about)


def identity(arena: Arena) -> dict[str, Any]:
    """What `arena.json` says."""
    rules = arena.challenge.rules
    about = {"format": 1, "challenge": rules.name, "version": rules.version, "tier": arena.tier}
    return about | {"sha256": rules.sha256(arena.tier), "where": arena.challenge.where}


def open_arena(folder: Path | str) -> Arena:
    """The arena in a folder; raises UsageError where there is none, VaestroError where its challenge was altered."""
    folder = Path(folder)
    if not (folder / ARENA).is_file():
        raise UsageError(f"{folder} is not the folder of an arena, for it has no {ARENA}; `vaestro arena run CHALLENGE` makes one")
    about = read_json(folder / ARENA)
    challenge = read(folder / FILE, str(about.get("where", "")))
    arena = Arena(folder, challenge, str(about.get("tier", "")))
    if {k: v for k, v in identity(arena).items() if k != "where"} != {k: about.get(k) for k in identity(arena) if k != "where"}:
        raise VaestroError(f"{folder / FILE} is not the challenge that {ARENA} describes; put the original back, or run it into another folder")
    return arena


def forget_failures(folder: Path | str) -> int:
    """Delete the failed results of an arena and their runs, so that the next `run` tries them again; returns how many there were."""
    arena = open_arena(folder)
    with locked(arena.folder):
        broken = [p for p in arena.results if results.read(p).status == "failed"]
        for path in broken:
            drop(path, arena.folder / "runs" / path.stem)
    return len(broken)
