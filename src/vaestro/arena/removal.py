"""Disqualification: an entry stays on the board with the reason and is compared with nobody. The acts are a sealed file beside the results."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from vaestro.arena.folder import named, open_arena
from vaestro.arena.result import Hash, Part, seal
from vaestro.errors import UsageError, VaestroError
from vaestro.training.files import locked, read_json, write_json

REMOVALS = "removals.json"


class Act(Part):
    """One decision of a referee."""

    act: Literal["disqualify", "reinstate"]
    call: str  # the entry with all its runs, for choosing among seeds would be another cheat
    why: Annotated[str, Field(min_length=1)]
    date: str


class Acts(Part):
    """All decisions, the oldest first; none is ever taken out."""

    format: Literal[1] = 1
    acts: tuple[Act, ...] = ()
    sha256: Hash = "0" * 64  # of all the rest


def disqualify(folder: Path | str, name: str, why: str) -> Act:
    """Take an entry out of the ranking for a reason that stays visible; `name` is its call, or the ID of one of its results.

    All its runs go out together. `reinstate` undoes it. Raises UsageError for a name that the arena has not, an empty reason, or an entry that is out already.
    """
    return _record(folder, name, "disqualify", why)


def reinstate(folder: Path | str, name: str, why: str) -> Act:
    """Rank a disqualified entry again; both acts stay in the file. Raises UsageError as `disqualify` does, and for an entry that is not out."""
    return _record(folder, name, "reinstate", why)


def _record(folder: Path | str, name: str, act: Literal["disqualify", "reinstate"], why: str) -> Act:
    arena = open_arena(folder)
    call, said = named(arena, name)[0].call, " ".join(why.split())
    if not said:
        raise UsageError(f"to {act} {call} takes a reason, which everybody may read; give --why 'REASON'")
    with locked(arena.folder):
        out = removed(arena.folder)
        if (call in out) == (act == "disqualify"):
            raise UsageError(f"{call} is disqualified already ({out[call]})" if call in out else f"{call} is not disqualified, so there is nothing to undo")
        made = Act(act=act, call=call, why=said, date=datetime.now(UTC).strftime("%Y-%m-%d"))
        file = Acts(acts=(*read(arena.folder).acts, made)).model_dump(mode="json")
        write_json(arena.folder / REMOVALS, file | {"sha256": seal(file)})
    return made


def read(folder: Path) -> Acts:
    """The decisions in an arena's folder; none where there is no file. Raises VaestroError where it is malformed or altered."""
    path = folder / REMOVALS
    if not path.is_file():
        return Acts()
    raw = read_json(path)
    try:
        found = Acts.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        first = error.errors()[0]
        raise VaestroError(f"{path} is malformed ({'.'.join(map(str, first['loc']))}: {first['msg']}); restore it from a copy") from None
    if seal(raw) != found.sha256:
        raise VaestroError(f"{path} was altered: its content does not match the hash it carries; restore it from a copy")
    return found


def removed(folder: Path) -> dict[str, str]:
    """The calls that are disqualified now, each with its reason; raises as `read` does."""
    out: dict[str, str] = {}
    for act in read(folder).acts:
        if act.act == "disqualify":
            out[act.call] = act.why
        else:
            out.pop(act.call, None)
    return out
