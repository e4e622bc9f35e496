"""A folder or archive of pictures becomes a data set: one pass to look at every file, one to store it."""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from statistics import median_low
from typing import NamedTuple

import numpy as np

from vaestro.data.cache import Progress, prepared_folder, shown, silent
from vaestro.data.prepare.arrangement import Arrangement, Groups, GroupsFound, arrange, find_groups, read_groups
from vaestro.data.prepare.files import Member, members
from vaestro.data.prepare.pictures import ENDINGS, Unreadable, fitted, open_picture
from vaestro.data.report import PrepareReport
from vaestro.data.schema import Binary, Category, Field, Integer, Schema
from vaestro.data.splits import NAMES, carve, merge
from vaestro.data.store import HEADER, Dataset, open_dataset
from vaestro.data.writing import Writer, refuse_taken, write_dataset
from vaestro.errors import UsageError, VaestroError

RULES = 2  # raised when the rules change, so that no older result is taken from the cache
KEPT = 128  # pictures of one size are kept up to this side
SIDE = 64  # the largest side that is chosen without being asked
GROUPS_FILE = "groups.csv"


class Picked(NamedTuple):
    """What the first pass keeps of one picture."""

    place: int  # its number among all files
    name: str
    size: tuple[int, int]  # (H, W)
    colour: bool
    bits: bool
    digest: bytes


class Found(NamedTuple):
    """What the first pass found in all files."""

    pictures: Sequence[Picked]
    skipped: Sequence[tuple[str, str]]
    ignored: int
    done: Mapping[str, int]  # what was done to how many pictures
    groups: bytes | None  # the content of groups.csv


class Decision(NamedTuple):
    """How every picture is stored, and where."""

    fields: tuple[Field, ...]
    splits: list[str]
    labels: tuple[int, ...] | None
    bits: bool
    report: PrepareReport


def prepare_images(
    source: Path | str,
    out: Path | str | None = None,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    groups: Groups = None,
    progress: Progress = silent,
) -> Dataset:
    """A data set of the pictures in a folder, zip or tar, in `out` or in the cache, where a second call finds it at once.

    `x` is Integer(256), [channels, H, W], or Binary if all pictures are pure black and white and of one size. `size` is (H, W); without it, pictures of one
    size up to 128 stay, others become squares of the median shorter side, at most 64: cut at the centre, then Lanczos. Colour if any has colour, or as
    `channels` (1 or 3) says. Folders train, validation, test are the splits; else, and for what is missing, content decides, and equal pictures or those of one
    group stay together. Sub-folders are classes (`label`). Files that cannot be read are skipped and reported. `groups` is a function of the name or a file.
    Memory does not grow with the number of pictures but for their names. Raises UsageError for a source without three readable pictures.
    """
    source = Path(source).expanduser()
    _refuse(source, size, channels)
    given = find_groups(groups)  # before the key, lest a result without groups be taken for one with them
    key = _key(source, (size, channels), given)
    folder = Path(out) if out is not None else prepared_folder("images", source.resolve().stem, key)
    if (folder / HEADER).is_file() and (stored := open_dataset(folder)).report.key == key:
        return stored
    refuse_taken(folder)
    found = _look(source, progress)
    if len(found.pictures) < 3:
        raise _too_few(source, found)
    made = _decide(found, (size, channels), given)
    schema = Schema(shown(source.resolve().stem), made.fields, {s: made.splits.count(s) for s in NAMES})
    return write_dataset(folder, schema, lambda writer: _store(source, found, made, writer, progress), replace(made.report, key=key))


def _refuse(source: Path, size: tuple[int, int] | None, channels: int | None) -> None:
    if not source.exists():
        raise UsageError(f"there is no folder or archive {source}")
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise UsageError(f"size {size} is not (height, width), both 1 or more")
    if channels not in (None, 1, 3):
        raise UsageError(f"pictures have 1 channel (grey) or 3 (colour), not {channels}")


def _key(source: Path, wish: object, groups: GroupsFound) -> str:
    """A hash of everything the result depends on, without reading a picture: names, sizes and times, the wishes and the groups."""
    paths = sorted(Path(top, f) for top, _, files in os.walk(source) for f in files) if source.is_dir() else [source]
    digest = hashlib.sha256(repr((RULES, str(source.resolve()), wish, SIDE, KEPT)).encode())
    for path in paths:
        stat = path.stat() if path.exists() else path.lstat()  # of what a link leads to, which may change while the link does not
        digest.update(repr((path.relative_to(source).as_posix(), stat.st_size, stat.st_mtime_ns)).encode("utf-8", "surrogateescape"))
    if callable(groups):
        digest.update(repr([str(groups(member.name)) for member in members(source)]).encode())
    elif groups is not None:
        digest.update(groups.read_bytes())
    return digest.hexdigest()


def _look(source: Path, progress: Progress) -> Found:
    """The first pass: every file that may be a picture is opened; what cannot be read is noted and passed over."""
    pictures: list[Picked] = []
    skipped: list[tuple[str, str]] = []
    done: Counter[str] = Counter()
    table, ignored, total = None, 0, sum(1 for _ in members(source))
    for i, member in enumerate(members(source)):
        progress(f"reading {shown(source.name)}", i / total)
        path = PurePosixPath(member.name)
        named = member.linked or path.suffix.lower() in ENDINGS
        if path.name == GROUPS_FILE and table is None:
            table = member.read()
        elif "__MACOSX" in path.parts or any(part.startswith(".") and part != ".." for part in path.parts) or not (named or path.suffix == ""):
            ignored += 1
        else:
            try:
                picture = open_picture(_content(member))
                pictures.append(Picked(i, member.name, picture.image.size[::-1], picture.colour, picture.bits, picture.digest))
                done.update(picture.done)
            except Unreadable as reason:
                ignored += not named
                skipped += [(member.name, str(reason))] * named
    return Found(pictures, skipped, ignored, done, table)


def _content(member: Member) -> bytes:
    try:
        return member.read()
    except (OSError, ValueError, RuntimeError, EOFError) as error:  # RuntimeError: an encrypted zip
        raise Unreadable(f"its bytes cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _too_few(source: Path, found: Found) -> VaestroError:
    if found.skipped and not found.pictures:
        name, reason = found.skipped[0]
        return VaestroError(f"none of the {len(found.skipped)} pictures in {source} can be read; the first is {name}: {reason}")
    if found.pictures:
        return UsageError(f"{source} has {len(found.pictures)} readable pictures ({len(found.skipped)} broken); training, validation and test need at least 3")
    if found.ignored:
        return UsageError(f"{source} holds {found.ignored} files but no pictures; known endings are {', '.join(sorted(ENDINGS))}")
    return UsageError(f"{source} is empty; put pictures into it, or name another folder")


def _decide(found: Found, wish: tuple[tuple[int, int] | None, int | None], groups: GroupsFound) -> Decision:
    """Size, colour, classes and splits, each with its rule in words."""
    pictures = found.pictures
    names, arranged = [p.name for p in pictures], arrange([p.name for p in pictures])
    size, size_rule = _size([p.size for p in pictures], wish[0])
    channels = wish[1] or (3 if any(p.colour for p in pictures) else 1)
    bits = channels == 1 and all(p.bits and p.size == size for p in pictures)
    colour_rule = "Pure black and white: values 0 and 1." if bits else f"Stored in {'colour' if channels == 3 else 'grey'}, 256 levels."
    grouped, group_rule = read_groups(groups, found.groups, names)
    splits, notes = _place(arranged, merge([p.digest for p in pictures], grouped or range(len(pictures))))
    fields = [Field("x", Binary() if bits else Integer(256), (channels, *size))]
    fields += [Field("label", Category(len(arranged.classes), arranged.classes))] if arranged.labels else []
    rules = [size_rule, colour_rule, *arranged.rules, group_rule, "" if arranged.splits else "Split by content, 80 / 10 / 10."]
    done = [f"{count} pictures were {what}" for what, count in sorted(found.done.items())]
    report = PrepareReport(" ".join(filter(None, rules)), (*done, *arranged.notes, *notes), tuple(found.skipped), len(pictures), found.ignored)
    return Decision(tuple(fields), splits, arranged.labels, bits, report)


def _size(sizes: Sequence[tuple[int, int]], wish: tuple[int, int] | None) -> tuple[tuple[int, int], str]:
    """(H, W), and the rule in words."""
    (height, width), rest = sizes[0], "cut at the centre to this aspect, then resized (Lanczos)"
    if wish is not None:
        return (int(wish[0]), int(wish[1])), f"Every picture is {wish[0]}x{wish[1]} as asked: {rest}."
    if len(set(sizes)) == 1 and max(sizes[0]) <= KEPT:
        return sizes[0], f"All pictures are {height}x{width} and stay so."
    side = min(SIDE, median_low(min(s) for s in sizes))
    which = f"All pictures are {height}x{width}, more than {KEPT}" if len(set(sizes)) == 1 else f"Pictures have {len(set(sizes))} sizes"
    return (side, side), f"{which}, so each becomes {side}x{side} (the median shorter side, at most {SIDE}; give size=(height, width) for another): {rest}."


def _place(arranged: Arrangement, keys: Sequence[bytes]) -> tuple[list[str], list[str]]:
    """The split of each picture, and what to tell of it. The user's own splits stand, even where they share pictures."""
    own = arranged.splits or ("train",) * len(keys)
    splits = list(own)
    training = [i for i, split in enumerate(own) if split == "train"]
    for split, rows in carve([keys[i] for i in training], set(own) - {"train"}).items():
        for row in rows:
            splits[training[row]] = split
    held = {key for key, split in zip(keys, splits, strict=True) if split != "train"}
    shared = sum(key in held for key, split in zip(keys, splits, strict=True) if split == "train")
    note = f"{shared} training pictures are equal to, or of one group with, a validation or test picture; the folders' own splits were kept all the same"
    return splits, [note] * bool(shared)


def _store(source: Path, found: Found, made: Decision, writer: Writer, progress: Progress) -> None:
    """The second pass: each picture that could be read is brought to its form and written."""
    place = {picture.place: row for row, picture in enumerate(found.pictures)}
    field = made.fields[0]
    for i, member in enumerate(members(source)):
        if i not in place:
            continue
        row = place[i]
        progress(f"storing {shown(source.name)}", row / len(place))
        try:
            pixels = fitted(open_picture(_content(member)).image, field.shape)
        except Unreadable as reason:
            raise VaestroError(f"{member.name} in {source} changed while it was being read ({reason}); run it again") from reason
        writer.append(made.splits[row], "x", (pixels > 127 if made.bits else pixels)[None])
        if made.labels:
            writer.append(made.splits[row], "label", np.asarray([made.labels[row]]))
    progress(f"storing {shown(source.name)}", 1.0)
