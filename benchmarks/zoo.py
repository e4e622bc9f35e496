"""Every recipe at equal time, judged: one row each on MNIST, binary where the recipe takes it, else grey.

    python benchmarks/zoo.py                    # hours on two cores; stopped, it goes on from where it was
    python benchmarks/zoo.py --only vamp iaf    # these recipes
    python benchmarks/zoo.py --table            # the page again, from the results that are there

The runs are an arena (tier `zoo`) in `--out`/zoo-CHALLENGE. The rows also go into the package, where `vaestro show NAME` reads them.
"""

import argparse
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from measure import about

from vaestro.arena import board, run
from vaestro.arena.board import Board, Line
from vaestro.data.schema import Binary, Integer
from vaestro.recipes import RECIPES, parse
from vaestro.recipes.rows import FILE
from vaestro.training.files import write_bytes, write_json

TIER = "zoo"
CHALLENGES = {"mnist-dynamic": Binary, "mnist-grey": Integer}  # a recipe runs in the first that it fits
PAIRED = {"ada_gvae"}  # recipes that learn from pairs of rows, which neither challenge has
SHOWN = ("nll", "bits_per_dim", "reconstruction_mse", "frechet_judge", "density_judge", "coverage_judge", "active_units", "parameters", "steps")


def home(name: str) -> str | None:
    """The challenge that a recipe runs in; None where it fits neither."""
    return next((challenge for challenge, kind in CHALLENGES.items() if kind in RECIPES[name].fits and name not in PAIRED), None)


def cells(line: Line, shown: Collection[str] = SHOWN) -> dict[str, Any]:
    """The numbers of a line, means with their intervals, and the reasons for those that are lacking."""
    found = {n: {"mean": v.mean, "low": v.low, "high": v.high} for n, v in line.values.items() if n in shown}
    return {"values": found, "none": {n: why for n, why in line.none.items() if n in shown}, "state": line.state, "reasons": list(line.reasons)}


def rows_of(made: Board) -> dict[str, dict[str, Any]]:
    """The rows of a board, by recipe."""
    command = f"vaestro arena run {made.challenge} --tier {TIER} --only"
    told = {"challenge": made.challenge, "protocol": made.label}
    return {
        line.call.partition(":")[0]: {"call": line.call, **told, "command": f"{command} {line.call}", "seeds": list(line.seeds), **cells(line)}
        for line in made.lines
    }


def table(out: Path) -> dict[str, dict[str, Any]]:
    """Every row of which there are results."""
    found: dict[str, dict[str, Any]] = {}
    for challenge in CHALLENGES:
        folder = out / f"zoo-{challenge}"
        if (folder / "results").is_dir():
            found |= rows_of(board(folder))
    return {name: found[name] for name in RECIPES if name in found}


def cell(row: dict[str, Any], metric: str, digits: int) -> str:
    """A number with half its interval, or a dash."""
    value = row["values"].get(metric)
    if value is None:
        return "none"
    half = f" ± {(value['high'] - value['low']) / 2:.{digits}f}" if value["low"] is not None else ""
    return f"{value['mean']:.{digits}f}{half}"


def lines(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The page: one table a challenge, by group."""
    yield "# The zoo, at equal time\n"
    yield f"Made by `make zoo`. {about()['date']}, {about()['machine']}, no GPU. Intervals are over test rows and speak of these runs only."
    yield "Two minutes of one core favour what is cheap; `claims.md` compares at equal steps.\n"
    for challenge in CHALLENGES:
        mine = {name: row for name, row in found.items() if row["challenge"] == challenge}
        if not mine:
            continue
        yield f"## {challenge}\n\n{next(iter(mine.values()))['protocol']}.\n"
        headline, digits = ("nll", 2) if challenge == "mnist-dynamic" else ("bits_per_dim", 3)
        heads = ("group", "recipe", headline, "squared error", "Frechet (judge)", "density", "coverage", "active units", "steps", "seeds")
        yield f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|"
        for name, row in sorted(mine.items(), key=lambda pair: (RECIPES[pair[0]].group, pair[0])):
            shown = [cell(row, headline, digits), cell(row, "reconstruction_mse", 4), cell(row, "frechet_judge", 1), cell(row, "density_judge", 2)]
            shown += [cell(row, "coverage_judge", 2), cell(row, "active_units", 0), cell(row, "steps", 0), str(len(row["seeds"]))]
            yield f"| {RECIPES[name].group} | `{row['call']}` | {' | '.join(shown)} |"
            if row["reasons"]:
                yield f"| | failed: {'; '.join(row['reasons'])} | | | | | | | | |"
        yield ""
    missing = [name for name in RECIPES if name not in found]
    if missing:
        yield f"Not run: {', '.join(f'`{n}`' for n in missing)}."


def report(out: Path) -> None:
    """Write the page, and the rows that the package ships."""
    found = table(out)
    out.mkdir(parents=True, exist_ok=True)
    write_json(FILE, {**about(), "rows": found})
    text = "\n".join(lines(found)) + "\n"
    write_bytes(out / "zoo.md", text.encode())
    sys.stdout.write(text)


def main() -> None:
    """Do what is still to do, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--table", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    for challenge in CHALLENGES if not arguments.table else ():
        calls = [str(parse(name)) for name in arguments.only if home(name) == challenge]
        if calls:
            run(challenge, TIER, arguments.out / f"zoo-{challenge}", jobs=arguments.jobs, only=calls)
    report(arguments.out)


if __name__ == "__main__":
    main()
