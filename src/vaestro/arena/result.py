"""A result is one JSON file with its hash, and arrays beside it: the rows' scores and what there is to see."""

import hashlib
import io
import json
import unicodedata
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vaestro.errors import VaestroError
from vaestro.evaluation.metrics import METRICS, Report
from vaestro.training.files import write_bytes, write_json

FORMAT = 1
Arrays: TypeAlias = Mapping[str, np.ndarray]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Id = Annotated[str, Field(pattern=r"^\w+-[0-9a-f]{8}$")]  # as `entry.identity` makes them; it is the name of files and a place in the report
LARGEST = 1e100  # of a value, an error or a row's score, whose square is still a number
UNPACKED, TIMES = 2**28, 10  # bytes that arrays may have, or times as many as their file
PICTURES = ("samples", "originals", "reconstructions")


class Part(BaseModel):
    """A table of a result: unknown keys and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Cell(Part):
    """One metric of one run; `error` is its standard error, none where it cannot be known."""

    value: float
    error: Annotated[float, Field(ge=0)] | None
    title: str
    unit: str
    direction: str
    protocol: str
    floor: float | None = None
    per_row: bool = False  # whether the rows file holds its rows


class About(Part):
    """The challenge that a result answers."""

    name: str
    version: str
    tier: str
    sha256: Hash  # of the rules that bind
    data: Hash


class Source(Part):
    """The user's own file that the recipe comes from."""

    file: str
    function: str
    sha256: Hash


class Paper(Part):
    """What the book says of the recipe."""

    summary: str = ""
    paper: str = ""
    formula: str = ""
    published: str = ""


class Result(Part):
    """Everything the board may know of a run; a failed one has its reason and nothing else."""

    format: Literal[1]
    id: Id
    challenge: About
    call: str
    keywords: dict[str, str]
    recipe: Paper
    seed: int
    status: Literal["done", "failed"]
    reason: str = ""  # why it failed, or how its training ended
    own: Source | None = None
    metrics: dict[str, Cell] = {}
    refused: dict[str, str] = {}  # what has no cell, and why
    parameters: int | None = None
    steps: int | None = None
    planned: int | None = None  # steps that the budget bought, which the schedules run over
    seconds: float | None = None
    samples_per_second: float | None = None
    weights_sha256: str | None = None
    machine: dict[str, str | int] = {}
    rows_sha256: str | None = None
    show_sha256: str | None = None
    sha256: str = ""  # of all the rest

    def sealed(self) -> "Result":
        """The same with its hash."""
        return self.model_copy(update={"sha256": seal(self.model_dump(mode="json"))})


def seal(content: Mapping[str, Any]) -> str:
    """The sha256 of a result's content but for the hash itself."""
    text = json.dumps({k: v for k, v in content.items() if k != "sha256"}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def printable(text: str) -> str:
    """The text with control characters, but for line breaks, as Python writes them: a terminal obeys them, and of some no file can be made."""
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c != "\n" else c for c in text)


def cells(report: Report) -> tuple[dict[str, Cell], dict[str, str]]:
    """The cells of what was measured, and the reasons for what was not; a value that is not finite, or too large to be squared, is no value."""
    found, refused = {}, dict(report.refused)
    for name, score in report.scores.items():
        if not abs(score.value) <= LARGEST or (score.rows is not None and np.abs(score.rows).max(initial=0.0) > LARGEST):
            refused[name] = f"its value is {score.value}, which is no number to compare"
            continue
        m = METRICS[name]
        error = score.error if score.error <= LARGEST else None
        words = {"title": m.title, "unit": m.unit, "direction": m.direction.value, "protocol": m.protocol}
        found[name] = Cell.model_validate({"value": score.value, "error": error, "floor": score.floor, "per_row": score.rows is not None, **words})
    return found, refused


def pack(arrays: Arrays, save: Callable[..., None] = np.savez) -> bytes:
    """Arrays as one npz, without pickle; equal arrays give equal bytes. Scores are noise that hardly shrinks: kept plain, they are read five times faster."""
    file = io.BytesIO()
    save(file, **dict(arrays))
    return file.getvalue()


def write(folder: Path, result: Result, rows: Arrays, show: Arrays) -> Result:
    """Write a result: the arrays first and the JSON last, so that a result is there only when it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    hashes = {}
    for kind, arrays, save in (("rows", rows, np.savez), ("show", show, np.savez_compressed)):
        if arrays:
            data = pack(arrays, save)
            write_bytes(folder / f"{result.id}.{kind}.npz", data)
            hashes[f"{kind}_sha256"] = hashlib.sha256(data).hexdigest()
    sealed = result.model_copy(update=hashes).sealed()
    write_json(folder / f"{result.id}.json", sealed.model_dump(mode="json"))
    return sealed


def read(path: Path) -> Result:
    """The result in a file; raises VaestroError where it is malformed, of another format, misnamed or altered."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(raw, dict) and raw.get("format") != FORMAT:
            raise VaestroError(f"{path} is of format {raw.get('format')!r}, and this version reads format {FORMAT}; open it with the version that made it")
        result = Result.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"]) or "its content"
        raise VaestroError(f"{path} is malformed ({where}: {first['msg']}); delete it and run the challenge again") from None
    except (OSError, ValueError, RecursionError) as error:
        raise VaestroError(f"{path} cannot be read as a result ({error}); delete it and run the challenge again") from None
    if not result.call.isprintable():
        raise VaestroError(f"{path} is of the call {result.call!r}, which cannot be printed; delete it and run the challenge again")
    for name, cell in result.metrics.items():
        if max(abs(cell.value), cell.error or 0.0) > LARGEST:
            raise VaestroError(f"{path}: its {name} is {cell.value:g} ±{cell.error or 0.0:g}, too large to be compared; delete it and run the challenge again")
    if result.id != path.stem:
        raise VaestroError(f"{path} holds the result {result.id!r}; a result's file has its own name: put the original back")
    if seal(raw) != result.sha256:
        raise VaestroError(f"{path} was altered: its content does not match the hash it carries; delete it and run the challenge again")
    return result


def arrays(folder: Path, result: Result, kind: Literal["rows", "show"]) -> dict[str, np.ndarray]:
    """The arrays beside a result, their hash compared; none where it has none. Raises VaestroError where they are missing or altered."""
    due = {"rows": result.rows_sha256, "show": result.show_sha256}[kind]
    if due is None:
        return {}
    path = folder / f"{result.id}.{kind}.npz"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise VaestroError(f"{path} cannot be read ({error.strerror}); delete {result.id}.json and run the challenge again") from None
    if hashlib.sha256(data).hexdigest() != due:
        raise VaestroError(f"{path} was altered: its hash is not the one in {result.id}.json; delete both and run the challenge again")
    try:
        found = _unpacked(data)
    except Exception as error:  # a file that was made up may break its readers anywhere
        raise VaestroError(f"{path} cannot be read as arrays ({error}); delete {result.id}.json and run the challenge again") from None
    if kind == "show" and (wrong := _misshapen(found)):
        raise VaestroError(f"{path}: {wrong}; delete {result.id}.json and run the challenge again")
    return found


def _unpacked(data: bytes) -> dict[str, np.ndarray]:
    """The arrays of an npz, which a few bytes must not make fill the memory."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        size = sum(member.file_size for member in file.infolist())
    if size > max(UNPACKED, TIMES * len(data)):
        raise ValueError(f"its {len(data):,} bytes unpack to {size:,}, and no more than {max(UNPACKED, TIMES * len(data)):,} are read")
    with np.load(io.BytesIO(data), allow_pickle=False) as held:
        return {name: np.asarray(held[name]) for name in held.files}


def _misshapen(seen: Arrays) -> str:
    """Why some arrays are not those that a report shows, if they are not; what a later version adds is left alone."""
    points = len(seen["map"]) if "map" in seen and seen["map"].ndim else 0
    due: dict[str, tuple[str, tuple[int | None, ...]]] = {
        **dict.fromkeys(PICTURES, ("u", (None,) * 4)),
        **{name: ("f", (None, 2)) for name in seen if name == "map" or name.startswith("curve.")},
        "labels": ("i", (points,)),
        "classes": ("U", (None,)),
    }
    for name, (kind, shape) in due.items():
        a = seen.get(name)
        if a is None:
            continue
        fits = a.ndim == len(shape) and all(n == m if m is not None else n > 0 for n, m in zip(a.shape, shape, strict=True))
        if not fits or a.dtype.kind != kind or (name == "labels" and (a < 0).any()):
            return f"its array {name!r} holds {a.dtype} values shaped {a.shape}, which no report can show"
    originals, copies = (seen[n].shape if n in seen else () for n in PICTURES[1:])
    return "" if originals == copies else f"its originals are shaped {originals} and its reconstructions {copies}, which no report can show"
