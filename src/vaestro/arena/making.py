"""A challenge of one's own data in one command: the data prepared, split and hashed, baselines that fit them, and two tiers."""

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vaestro.arena.challenge import FILE, Challenge, load_challenge
from vaestro.data import load
from vaestro.data.schema import Binary, Real, Schema, Table
from vaestro.data.sources import SOURCES
from vaestro.data.store import Dataset
from vaestro.data.writing import save
from vaestro.errors import UsageError, VaestroError
from vaestro.recipes import parse

SMALL = 4096  # numbers in a row up to which networks of linear layers are the baselines
BASELINES = ("vae", "ae", "iwae", "vamp", "top_down", "listing_conv", "listing_mse")
LARGE = ("vae", "ae", "beta_vae", "iwae", "top_down")  # with convolutions
METRICS = ("nll", "reconstruction_mse", "kl", "frechet_pca64", "density_pca64", "coverage_pca64", "blur", "active_units")
MORE = ("parameters", "seconds", "steps", "elbo", "cross_entropy", "bound_gap")
LEAST = 2  # test rows
BETTER = "significantly better (paired, Holm, 5 %)"
TIERS: tuple[tuple[str, int, tuple[int, ...], int, int], ...] = (("quick", 30, (0, 1), 1000, 100), ("standard", 600, (0, 1, 2), 2000, 100))


def new(data: Any, out: Path | str | None = None, name: str | None = None) -> Challenge:
    """Make a challenge of a folder or archive of pictures, a file of arrays, arrays, or a named data set, and return it.

    `out` is the new folder, by default NAME-challenge; the data are copied into it, split by content and hashed, unless they have a name of their own.
    The folder appears only when it is whole. Raises UsageError for data that are none, fewer than two test rows, or a folder that is taken.
    """
    dataset = load(data)
    title = (name or _slug(Path(str(data)).stem if isinstance(data, str | Path) else dataset.schema.name)).encode(errors="replace").decode()
    folder = Path(out) if out is not None else Path(f"{title}-challenge")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists already; name another folder with --out, or delete it first")
    if dataset.split("test").rows < LEAST:
        raise UsageError(f"a challenge needs at least {LEAST} test rows, and {title!r} has {dataset.split('test').rows}; give more rows")
    named = isinstance(data, str) and data in SOURCES
    temporary = folder.parent / f".{folder.name}.{os.getpid()}.partial"
    try:
        temporary.mkdir(parents=True)
        held = dataset if named else save(replace(dataset, schema=replace(dataset.schema, name=title)), temporary / "data")
        (temporary / FILE).write_text(rules(title, held, str(data) if named else "data"), encoding="utf-8")
        load_challenge(temporary)  # what cannot be read again must not stay
        temporary.replace(folder)
    except OSError as error:
        raise VaestroError(f"{folder} could not be written ({error.strerror or error}); free some space or choose another folder with --out") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return load_challenge(folder)


def _slug(text: str) -> str:
    """A name of small letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "data"


def baselines(schema: Schema) -> list[str]:
    """Calls of the book that fit these data; raises UsageError where none does."""
    large = schema["x"].size > SMALL
    calls = [f"{name}:network=convolutional" for name in LARGE] if large and len(schema["x"].shape) == 3 else list(BASELINES)
    found, reasons = [], []
    for text in calls:
        try:
            parse(text).cook(schema)
            found.append(text)
        except UsageError as error:
            reasons.append(str(error))
    if not found:
        raise UsageError(f"no baseline fits these data: {reasons[0]}")
    return found


def measures(schema: Schema) -> tuple[str, list[str]]:
    """The headline metric and all metrics for data of this kind and shape."""
    x = schema["x"]
    has_bits = not (isinstance(x.kind, Table) or (isinstance(x.kind, Real) and x.kind.step is None))
    picture = len(x.shape) == 3
    names = [n for n in (*METRICS, *MORE) if n != "blur" or picture]
    headline = "bits_per_dim" if has_bits and not isinstance(x.kind, Binary) else "nll"
    names += ["bits_per_dim"] if has_bits else []
    return headline, [headline, *(n for n in names if n != headline)]


def rules(title: str, data: Dataset, source: str) -> str:
    """The text of `challenge.toml`."""
    headline, names = measures(data.schema)
    kind = type(data.schema["x"].kind).__name__
    rows = ", ".join(f"{n:,} {split}" for split, n in data.schema.rows.items())
    unit = "bits per dimension" if headline == "bits_per_dim" else "nats"
    rule = f"The lowest negative log-likelihood in {unit} on the scored test rows ranks first; an entry is placed below those that are {BETTER}."
    about = f"{kind} rows of shape {data.schema['x'].shape}: {rows}. {data.report.rule}".strip()
    names_it = {"format": 1, "name": _slug(title), "version": "1", "title": title, "about": about}
    top = names_it | {"metrics": names, "entrants": baselines(data.schema)}
    parts = {
        "data": {"source": source, "sha256": data.sha256, "binarisation": f"the rows are {kind} as they were given, and the test rows are stored"},
        "headline": {"metric": headline, "rule": rule},
        **{f"tiers.{name}": _tier(seconds, seeds, scored, samples) for name, seconds, seeds, scored, samples in TIERS},
    }
    return "\n".join([_lines(top), *(f"[{part}]\n{_lines(values)}" for part, values in parts.items())])


def _tier(seconds: int, seeds: Sequence[int], rows: int, samples: int) -> dict[str, Any]:
    demonstration = "a demonstration: " if len(seeds) < 3 else ""
    label = f"{demonstration}{seconds} seconds of training a run, {len(seeds)} seeds, at most {rows:,} fixed test rows with {samples} importance samples"
    return {"label": label, "seconds": seconds, "seeds": list(seeds), "rows": rows, "samples": samples}


def _lines(values: dict[str, Any]) -> str:
    """Keys and values as TOML, whose strings, numbers and lists are written as JSON writes them, but for one character that TOML wants escaped."""
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items()).replace("\x7f", "\\u007f")
