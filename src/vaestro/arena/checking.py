"""Does everything that a board stands on still have the hash that it had?"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from vaestro.arena import result as results
from vaestro.arena.board import board, load
from vaestro.arena.challenge import load_challenge
from vaestro.arena.entry import RUNS
from vaestro.arena.folder import ARENA, Arena, open_arena
from vaestro.arena.removal import REMOVALS, removed
from vaestro.data.store import verify
from vaestro.errors import VaestroError
from vaestro.training.files import digest, load_tensors, read_json
from vaestro.training.runs import WEIGHTS


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; an empty `problem` means that it is sound."""

    what: str
    problem: str = ""

    def __str__(self) -> str:
        """One line."""
        return f"altered  {self.what}: {self.problem}" if self.problem else f"sound    {self.what}"


def check(folder: Path | str) -> list[Check]:
    """Verify the hash of every file that the board stands on, and that its results belong together.

    The files are the challenge, its data, results, rows, pictures, weights where they are kept, disqualifications and `board.json`; the results must be one of
    each call and seed, all of this version and tier.
    Raises UsageError where the folder is no arena; whatever was altered or lost is a Check with its problem.
    """
    if not (Path(folder) / ARENA).is_file():
        open_arena(folder)  # says so
    found = [_looked("the challenge", lambda: open_arena(folder))]
    if found[0].problem:
        return found
    arena = open_arena(folder)
    found.append(_looked("the data", lambda: _data(arena)))
    for path in arena.results:
        found.append(_looked(f"results/{path.name} and its arrays", lambda path=path: _result(arena, path)))  # type: ignore[misc]
        weights = arena.folder / RUNS / path.stem / WEIGHTS
        if weights.is_file():
            found.append(_looked(f"runs/{path.stem}/{WEIGHTS}", lambda path=path, weights=weights: _weights(path, weights)))  # type: ignore[misc]
    if (arena.folder / REMOVALS).is_file():
        found.append(_looked(REMOVALS, lambda: removed(arena.folder)))
    found.append(_looked("the results beside each other", lambda: board(arena.folder)))  # none is given twice or foreign
    if (arena.folder / "board.json").is_file():
        found.append(_looked("board.json", lambda: _board(arena)))
    return found


def _looked(what: str, look: Callable[[], object]) -> Check:
    try:
        look()
    except VaestroError as error:
        return Check(what, results.printable(str(error)))
    return Check(what)


def _data(arena: Arena) -> None:
    verify(replace(load_challenge(arena.challenge.where), rules=arena.challenge.rules).open_data())  # the data that its own rules name


def _result(arena: Arena, path: Path) -> None:
    entry = load(arena, path)
    results.arrays(path.parent, entry.result, "show")


def _weights(path: Path, weights: Path) -> None:
    if digest(load_tensors(weights)[0]) != results.read(path).weights_sha256:
        raise VaestroError("these are not the weights that the result was made with; run it again")


def _board(arena: Arena) -> None:
    if read_json(arena.folder / "board.json") != json.loads(json.dumps(board(arena.folder).to_json())):
        raise VaestroError("it is not the board of these results; make it again")
