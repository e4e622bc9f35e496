"""Who runs: a job is one call, one seed and one challenge; its name says so, and outsiders' code comes from a file that the user names."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from vaestro.arena.challenge import Challenge, load_challenge
from vaestro.errors import UsageError, VaestroError, did_you_mean
from vaestro.recipes import RECIPES, Call, parse
from vaestro.recipes.book import entry_of
from vaestro.recipes.files import execute
from vaestro.training.files import file_sha256

RUNS, RESULTS, LOGS, FEATURES = "runs", "results", "logs", "features"


@dataclass(frozen=True)
class Own:
    """The user's own file that an entry comes from, the function in it, and the hash of the file."""

    file: str
    function: str
    sha256: str


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know; it is sent as JSON."""

    id: str
    call: str
    seed: int
    challenge: str  # a shipped name or a path
    tier: str
    folder: str  # of the arena
    threads: int = 1
    own: Own | None = None

    @property
    def run_folder(self) -> Path:
        """Where it trains."""
        return Path(self.folder) / RUNS / self.id

    @property
    def result(self) -> Path:
        """Where its result will be."""
        return Path(self.folder) / RESULTS / f"{self.id}.json"

    @property
    def log(self) -> Path:
        """What its process said, if it said anything."""
        return Path(self.folder) / LOGS / f"{self.id}.txt"

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` turns back into an equal job."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Job":
        """The job that `to_json` wrote."""
        own = data["own"]
        return cls(**{**data, "own": Own(**own) if own else None})


@dataclass(frozen=True)
class Entrant:
    """One line of the board to be: a call, and the user's file if it comes from one."""

    call: Call
    own: Own | None = None

    def job(self, seed: int, challenge: Challenge, tier: str, folder: Path) -> Job:
        """This entrant's job for one seed."""
        name = identity(str(self.call), seed, challenge, tier)
        return Job(name, str(self.call), seed, challenge.where, tier, str(folder), own=self.own)


def identity(call: str, seed: int, challenge: Challenge, tier: str) -> str:
    """The recipe's name and eight hex digits of what makes a result this one and no other: equal on every machine."""
    rules = challenge.rules
    text = json.dumps([call, seed, rules.name, rules.version, tier])
    return f"{call.partition(':')[0]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def entrants(calls: Iterable[str], enter: Iterable[str]) -> list[Entrant]:
    """The calls of the book and those of the user's files, each once.

    `enter` are texts such as `my_models.py:mine` or `my_models.py:mine:latents=8`. Raises UsageError on a call given twice or that cannot be printed.
    """
    found = [Entrant(parse(text)) for text in calls] + [own_entrant(text) for text in enter]
    texts = [str(e.call) for e in found]
    for text in texts:
        if not text.isprintable():
            raise UsageError(f"the call {text!r} cannot be printed; leave its odd characters out")
        if texts.count(text) > 1:
            raise UsageError(f"{text!r} is entered twice; name each entrant once")
    if not found:
        raise UsageError("there are no entrants; name at least one recipe, such as vae")
    return found


def own_entrant(text: str) -> Entrant:
    """`FILE.py:FUNCTION` or `FILE.py:FUNCTION:key=value,...`: only this file, which the user named, is executed."""
    file, found, call = text.partition(".py:")
    if not found or not call:
        raise UsageError(f"{text!r} names no recipe of a file: write FILE.py:FUNCTION, for example my_models.py:mine")
    path = Path(file + ".py").expanduser().absolute()
    function = call.partition(":")[0]
    if not path.is_file():
        raise UsageError(f"there is no file {path}; give the path of your own Python file, then a colon and the function")
    own = Own(str(path), function, file_sha256(path))
    register(own)
    return Entrant(parse(call), own)


def register(own: Own) -> None:
    """Put the function of a user's file into the book under its name, so that its calls are read like any other.

    Raises UsageError where the file fails or lacks the function, VaestroError where it has changed since it was entered.
    """
    path = Path(own.file)
    if not path.is_file() or file_sha256(path) != own.sha256:
        raise VaestroError(f"{path} has changed or gone since it was entered; enter it again")
    known = own.function in RECIPES
    functions = vars(_module(own.file, own.sha256))
    build = functions.get(own.function)
    if not callable(build):
        named = [n for n, f in functions.items() if callable(f) and not n.startswith("_")]
        raise UsageError(f"{path} has no function {own.function!r}{did_you_mean(own.function, named)}")
    _add(own.function, build, known)


def _add(name: str, build: Callable[..., Any], known: bool) -> None:
    if name in RECIPES and RECIPES[name].build is build:  # decorated, or entered before
        return
    if known and RECIPES[name].group == "own":
        raise UsageError(f"{name!r} was entered before, from another file or from this one as it was then; start Python anew, or rename the function")
    if known:
        raise UsageError(f"{name!r} is already a recipe of the library; give your function another name")
    RECIPES.add(name, entry_of(build)._replace(name=name))


@cache
def _module(file: str, sha256: str) -> ModuleType:
    """The user's file as it is under this hash, executed once."""
    return execute(Path(file))


def call_of_job(job: Job) -> Call:
    """The job's call; a user's file is executed for it first."""
    if job.own is not None:
        register(job.own)
    return parse(job.call)


def challenge_of_job(job: Job) -> Challenge:
    """The job's challenge."""
    return load_challenge(job.challenge)
