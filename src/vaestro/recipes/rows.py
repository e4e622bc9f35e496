"""What was measured of each recipe, as the package ships it; `make zoo` writes it."""

import json
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent.parent / "shipped" / "zoo.json"


@cache
def rows() -> dict[str, dict[str, Any]]:
    """The measured row of each recipe by name: its call, challenge, protocol, values with their intervals, and the command that made it."""
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))["rows"] if FILE.is_file() else {}
    return found


def ours(name: str) -> str:
    """Our number of a recipe in words, with its protocol and the command that made it; says so where there is none."""
    row = rows().get(name)
    if row is None:
        return "not measured yet; `make zoo` does"
    headline, unit = ("nll", "nats") if row["challenge"] == "mnist-dynamic" else ("bits_per_dim", "bits/dim")
    value = row["values"].get(headline)
    said = f"no {unit}: {row['none'].get(headline, 'the run failed')}" if value is None else f"{value['mean']:.4g} {unit}"
    interval = f" ({value['low']:.4g} to {value['high']:.4g})" if value is not None and value["low"] is not None else ""
    seeds = f"{len(row['seeds'])} seed{'s' if len(row['seeds']) > 1 else ''}"
    return f"{said}{interval} of {seeds}, {row['challenge']}, {row['protocol']}; {row['command']}"
