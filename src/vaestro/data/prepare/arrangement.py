"""What the names of files say: the user's own splits, classes and groups."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from vaestro.data.cache import shown
from vaestro.data.splits import NAMES
from vaestro.errors import UsageError

SPLITS = {"train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test", "testing": "test"}
Groups = Callable[[str], str] | Path | str | None
GroupsFound = Callable[[str], str] | Path | None  # the file is there


class Arrangement(NamedTuple):
    """For each file: its split if the user chose one, and its class; with the rules in words."""

    splits: tuple[str, ...] | None
    labels: tuple[int, ...] | None
    classes: tuple[str, ...]
    rules: tuple[str, ...]
    notes: tuple[str, ...]


def arrange(names: Sequence[str]) -> Arrangement:
    """Reads splits and classes from the folders of `names`.

    A folder that holds all others is passed over. Top folders called train, validation (val, valid) or test are splits if there is a test or a validation
    folder and something beside it. Below them, first-level folders are classes if each file is in one and there are two or more.
    """
    parts = [PurePosixPath(name).parts for name in names]
    parts = _without_common(parts)
    splits, rules, notes = _splits(parts)
    if splits is not None:
        parts = _without_common([p[1:] if len(p) > 1 and p[0].lower() in SPLITS else p for p in parts])
    inside = [p[0] for p in parts if len(p) > 1]
    classes = tuple(sorted(set(inside)))
    if len(inside) < len(parts) or len(classes) < 2:
        if inside and len(inside) < len(parts):
            loose = len(parts) - len(inside)
            notes.append(f"{loose} {'file lies' if loose == 1 else 'files lie'} outside the sub-folders, so these were not read as classes")
        return Arrangement(splits, None, (), tuple(rules), tuple(notes))
    index = {name: i for i, name in enumerate(classes)}
    rules.append(f"The sub-folders are the {len(classes)} classes of the field 'label'.")
    return Arrangement(splits, tuple(index[name] for name in inside), classes, tuple(rules), tuple(notes))


def _without_common(parts: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    parts = list(parts)
    while parts and all(len(p) > 1 and p[0] == parts[0][0] for p in parts):
        parts = [p[1:] for p in parts]
    return parts


def _splits(parts: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...] | None, list[str], list[str]]:
    found = [SPLITS.get(p[0].lower(), "") if len(p) > 1 else "" for p in parts]
    held = {"validation", "test"} & set(found)
    if not held or set(found) <= held:
        return None, [], []
    splits = tuple(name or "train" for name in found)
    outside = found.count("")
    notes = [f"{outside} files outside the folders of the splits were taken as training rows"] if outside and "train" in found else []
    missing = [name for name in NAMES if name not in splits]
    rest = f"; {missing[0]} rows are a ninth of the training rows, chosen by content" if missing else ""
    return splits, [f"The folders' own splits are kept ({', '.join(sorted(set(splits)))}){rest}."], notes


def find_groups(groups: Groups) -> GroupsFound:
    """What the user gave as groups, its path as one to a file that is there; raises UsageError where it is not."""
    if groups is None or callable(groups):
        return groups
    path = Path(groups).expanduser()
    if not path.is_file():
        raise UsageError(f"there is no file of groups {path}; give a table with the columns name,group")
    return path


def read_groups(groups: GroupsFound, table: bytes | None, names: Sequence[str]) -> tuple[list[str] | None, str]:
    """The group of each file, and the rule in words: from a function of the name, a file of `name,group`, or `table`, the groups.csv found among the files.

    A file that the table does not list, or lists without a group, is a group of its own. Raises UsageError for a table without these two columns, one
    that puts a file into two groups, or in which no file is listed.
    """
    if groups is None and table is None:
        return None, ""
    if callable(groups):
        return [str(groups(name)) for name in names], "Files that the given function puts in one group stay in one split."
    if groups is not None:
        table = groups.read_bytes()
    given = _table(table or b"", str(groups or "groups.csv"))
    keys = [given.get(name, given.get("/".join(PurePosixPath(name).parts[1:]))) for name in names]
    if not any(key is not None for key in keys):
        raise UsageError(f"{groups or 'groups.csv'} lists none of the {len(names)} pictures, such as {names[0]!r}; names are relative to the folder, with /")
    out = [f"file {name}" if key is None else f"group {key}" for name, key in zip(names, keys, strict=True)]
    return out, f"Files of one group in {shown(Path(groups or 'groups.csv').name)} stay in one split ({keys.count(None)} files are not listed)."


def _table(data: bytes, where: str) -> dict[str, str]:
    try:
        rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{where} is no table of text ({error}); give one with the columns name,group") from error
    if not rows or not {"name", "group"} <= set(rows[0]):
        raise UsageError(f"{where} has no columns called name and group; give a table whose first line is name,group")
    found: dict[str, str] = {}
    for row in rows:
        name, group = str(row["name"]).strip().replace("\\", "/"), (row["group"] or "").strip()
        if found.setdefault(name, group) != group:
            raise UsageError(f"{where} puts {name!r} into two groups, {found[name]!r} and {group!r}; keep one of them")
    return {name: group for name, group in found.items() if group}
