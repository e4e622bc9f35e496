"""The folder of an arena: the rules that its results answer, so that it can be read anywhere and never be mixed with another."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaestro.arena.challenge import FILE, Challenge, read
from vaestro.arena.entry import RESULTS
from vaestro.arena.result import Result
from vaestro.arena.result import read as read_result
from vaestro.errors import UsageError, VaestroError, did_you_mean
from vaestro.training.files import read_json, write_bytes, write_json

ARENA = "arena.json"


@dataclass(frozen=True)
class Arena:
    """A folder of results with the challenge and the tier that they answer."""

    folder: Path
    challenge: Challenge
    tier: str

    @property
    def results(self) -> list[Path]:
        """The result files, in the order of their names; what a kill left half written, and other hidden files, are none."""
        return sorted((self.folder / RESULTS).glob("[!.]*.json"))


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


def named(arena: Arena, name: str) -> list[Result]:
    """The result of an ID, or all those of a call; raises UsageError where the arena has none of that name."""
    every = [read_result(path) for path in arena.results]
    found = [r for r in every if name in (r.id, r.call)]
    if not found:
        known = sorted({r.call for r in every} | {r.id for r in every})
        raise UsageError(f"{arena.folder} has no result of {name!r}{did_you_mean(name, known)}; give an entry's call, or the ID of one of its results")
    return found


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
