"""Published numbers against ours, gaps between methods at equal steps: rows A1 to A4, A4e and A7 of `anchors.py`.

    python benchmarks/reproduce.py                                          # many hours on two cores; stopped, it goes on from where it was
    python benchmarks/reproduce.py --only A1 A7 --steps 2000 --rows 500 --samples 100 --seeds 1 --out /tmp/trial

Each training is a run folder below `--runs`, resumed or reused; each score a JSON file below `--out`/reproduce with the likelihood of every row beside it,
reused as long as weights and protocol are the same. `--out`/reproduce.json and .md hold every row of which all scores are there.
"""

import argparse
import io
import math
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from anchors import ANCHORS, ARMS, Anchor, Arm, Scores
from measure import ALONE, about, child

from vaestro.data import load
from vaestro.data.rows import Rows
from vaestro.evaluation.intervals import of_recipe
from vaestro.evaluation.likelihood import importance
from vaestro.evaluation.scope import fixed_rows
from vaestro.recipes import parse
from vaestro.training import runs
from vaestro.training.budget import Budget
from vaestro.training.files import read_json, write_bytes, write_json
from vaestro.training.runs import Run
from vaestro.training.train import Plan

FULL_ROWS, FULL_SAMPLES, FULL_STEPS = 10_000, 5_000, 40_000  # 40,000 steps of 128 rows are 102 epochs


@dataclass(frozen=True)
class Protocol:
    """How long is trained and how finely is scored, and where all of it lies."""

    steps: int
    rows: int
    samples: int
    runs: Path
    out: Path

    def run(self, arm: str, seed: int) -> Path:
        """The run folder of an arm and a seed."""
        return self.runs / f"{arm}-{self.steps}-{seed}"

    def score(self, arm: str, seed: int) -> Path:
        """The score of an arm and a seed."""
        return self.out / "reproduce" / f"{arm}-{self.steps}-{seed}-{self.rows}x{self.samples}.json"


def trained(arm: Arm, seed: int, protocol: Protocol, folder: Path) -> Run:
    """The run of an arm, trained, gone on with, or taken as it is; raises RuntimeError if the folder holds another call."""
    call = parse(arm.call)
    if not (folder / runs.ABOUT).exists():
        return runs.train(Plan(call, load(arm.data), Budget(steps=protocol.steps), seed, "cpu"), folder, source=arm.data)
    found = runs.read_about(folder)
    if found["call"] != str(call):
        raise RuntimeError(f"{folder} was made by {found['call']}, and {call} is wanted; delete or move the folder")
    return runs.open_run(folder, device="cpu") if found["status"] == "done" else runs.resume(folder)


def scored(run: Run, protocol: Protocol) -> tuple[dict[str, Any], bytes]:
    """The likelihood of the fixed test rows: what is told of it, and -log p(x) of each row at 1, 100 and all samples."""
    data = run.data()
    split = Rows(data.split("test"), data.schema, run.recipe.fields)
    index = fixed_rows(split.rows, protocol.rows)
    start = time.perf_counter()
    found = importance(run.model, ({"x": split.batch(i)["x"]} for i in index.split(250)), protocol.samples, name=run.about["call"])
    kept = {"all": found.log_px} | {str(k): found.ladder[k] for k in (1, 100) if k in found.ladder}
    packed = io.BytesIO()
    np.savez_compressed(packed, **{k: (-v).astype(np.float32) for k, v in kept.items()})  # type: ignore[arg-type]
    told = {
        "call": run.about["call"],
        "data": run.schema.name,
        "data_sha256": run.about["data"]["sha256"],
        "seed": run.about["seed"],
        "steps": run.about["done_steps"],
        "parameters": run.about["parameters"],
        "seconds": {"training": run.about["seconds"], "scoring": round(time.perf_counter() - start, 1)},
        "machine": run.about["machine"],
        "weights_sha256": run.about["weights_sha256"],
        "protocol": found.protocol,
        "nll": -found.mean,
        "error": found.standard_error,
        "ladder": {str(k): -float(v.mean()) for k, v in sorted(found.ladder.items())},
        "sampling_error": float(np.sqrt(np.square(found.sampling_error).sum()) / len(found.log_px)),
        "kl": float(found.kl.mean()),
    }
    return told, packed.getvalue()


def kept(path: Path, arm: Arm) -> bool:
    """Whether a score is of this call on the data of today."""
    told = read_json(path)
    return bool((told["call"], told["data_sha256"]) == (str(parse(arm.call)), load(arm.data).sha256))


def work(arm: str, seed: int, protocol: Protocol) -> None:
    """Train and score one arm with one seed, as far as that is still to do; a score is kept also where its run is no longer there."""
    path, folder = protocol.score(arm, seed), protocol.run(arm, seed)
    if path.exists() and not folder.exists() and kept(path, ARMS[arm]):
        return
    run = trained(ARMS[arm], seed, protocol, folder)
    if path.exists() and read_json(path)["weights_sha256"] == run.about["weights_sha256"]:
        return
    told, rows = scored(run, protocol)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path.with_suffix(".rows.npz"), rows)  # the rows first: the JSON is there only when both are
    write_json(path, told)


def all_work(wanted: list[str], seeds: int, protocol: Protocol, jobs: int) -> list[str]:
    """Every arm and seed of the wanted rows, `jobs` at a time, in processes of one thread; what failed is returned in words."""
    arms = dict.fromkeys(arm for row in wanted for arm in ANCHORS[row].arms)
    options = ("--steps", protocol.steps, "--rows", protocol.rows, "--samples", protocol.samples, "--runs", protocol.runs, "--out", protocol.out)
    failures = []
    with ThreadPoolExecutor(jobs) as pool:
        tasks: dict[Future[str], str] = {}
        for seed in range(seeds):  # all arms of a seed before the next seed: stopped early, the rows that are there can be compared
            for arm in arms:
                command = [sys.executable, __file__, "--work", arm, "--seed", str(seed), *map(str, options)]
                tasks[pool.submit(child, command, ALONE)] = f"{arm}, seed {seed}"
        try:
            for number, task in enumerate(as_completed(tasks), 1):
                error = task.exception()
                failures += [f"{tasks[task]}: {str(error).splitlines()[-1]}"] if error else []
                sys.stdout.write(f"{time.strftime('%H:%M')}  {number} of {len(tasks)}  {tasks[task]}: {'failed' if error else 'done'}\n")
                sys.stdout.flush()
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    return failures


def seeds_of(row: Anchor, seeds: int, protocol: Protocol) -> list[int]:
    """The seeds of which every arm of a row was scored."""
    return [s for s in range(seeds) if all(protocol.score(arm, s).exists() for arm in row.arms)]


def read_scores(row: Anchor, seeds: list[int], protocol: Protocol) -> Scores:
    """-log p(x) by arm and by bound, [seeds, rows]."""
    found = {}
    for arm in row.arms:
        loaded = [np.load(protocol.score(arm, s).with_suffix(".rows.npz"), allow_pickle=False) for s in seeds]
        found[arm] = {k: np.stack([file[k] for file in loaded]).astype(np.float64) for k in loaded[0].files}
    return found


def verdict(low: float, high: float, reached: tuple[float, float]) -> str:
    """Reached if the whole interval lies in the range, not reached if none of it does, else undecided."""
    if reached[0] <= low and high <= reached[1]:
        return "reached"
    return "not reached" if high < reached[0] or low > reached[1] else "undecided"


def result(name: str, seeds: int, protocol: Protocol) -> dict[str, Any] | None:
    """One row of the table, or None while scores are missing."""
    row = ANCHORS[name]
    there = seeds_of(row, seeds, protocol)
    if not there:
        return None
    scores = read_scores(row, there, protocol)
    found = row.quantity(scores, row.arms)
    ours = {}
    for arm in row.arms:
        interval = of_recipe(scores[arm]["all"])
        ladder = {k: round(float(v.mean()), 3) for k, v in scores[arm].items()}
        ours[arm] = {"call": ARMS[arm].call, "data": ARMS[arm].data, "nll": round(interval.mean, 3), "interval": _pair(interval.low, interval.high), **ladder}
    return {
        "title": row.title,
        "published": dict(row.published),
        "source": row.source,
        "ours": ours,
        "quantity": {"what": row.what, "published": row.said, "ours": round(found.mean, 3), "interval": _pair(found.low, found.high)},
        "range": [None if math.isinf(bound) else bound for bound in row.reached],
        "verdict": verdict(found.low, found.high, row.reached),
        "seeds": there,
        "these_runs_only": found.these_runs_only,
        "differs": row.differs,
    }


def _pair(low: float, high: float) -> list[float]:
    return [round(low, 3), round(high, 3)]


def _within(bounds: list[float | None]) -> str:
    low, high = bounds
    return f"at most {high:g}" if low is None else f"{low:g} to {high:g}"


def lines(table: dict[str, Any]) -> Iterator[str]:
    """The page of the results."""
    yield "# Published numbers against ours\n"
    yield f"Made by `make reproduce`; {table['protocol']}. {table['date']}, {table['machine']}. Nats a row, lower is better; 95 % intervals over rows,"
    yield "and over seeds where there are three or more.\n"
    yield "| row | what | published | ours | counts as reached | verdict | steps | seeds |\n|---|---|---|---|---|---|---|---|"
    for name, row in table["rows"].items():
        if row is None:
            yield f"| {name} | {ANCHORS[name].title}: {ANCHORS[name].what} | {ANCHORS[name].said:g} | not run | | | | |"
            continue
        q = row["quantity"]
        ours = f"{q['ours']:.2f} ({q['interval'][0]:.2f} to {q['interval'][1]:.2f})"
        seeds = f"{len(row['seeds'])}{', these runs only' if row['these_runs_only'] else ''}"
        cells = (name, f"{row['title']}: {q['what']}", f"{q['published']:g}", ours, _within(row["range"]), row["verdict"], f"{table['steps']:,}", seeds)
        yield f"| {' | '.join(cells)} |"
    for name, row in table["rows"].items():
        if row is not None:
            yield f"\n## {name}: {row['title']}\n"
            yield f"Published: {', '.join(f'{k} {v:.2f}' for k, v in row['published'].items())}. {row['source'][0].upper()}{row['source'][1:]}.\n"
            yield "| ours | data | 1 sample | 100 samples | all samples | interval |\n|---|---|---|---|---|---|"
            for arm in row["ours"].values():
                cells = [f"{arm[k]:.2f}" if k in arm else "" for k in ("1", "100", "all")]
                yield f"| `{arm['call']}` | {arm['data']} | {' | '.join(cells)} | {arm['interval'][0]:.2f} to {arm['interval'][1]:.2f} |"
            yield f"\nWhat differs: {row['differs']}."


def report(seeds: int, protocol: Protocol) -> None:
    """Write the table of all rows as JSON and as a page."""
    full = (protocol.rows, protocol.samples, protocol.steps) == (FULL_ROWS, FULL_SAMPLES, FULL_STEPS)
    words = f"{protocol.rows:,} test rows, {protocol.samples:,} importance samples, {protocol.steps:,} steps" + ("" if full else "; **a shrunken trial**")
    table = {**about(), "protocol": words, "steps": protocol.steps, "rows": {name: result(name, seeds, protocol) for name in ANCHORS}}
    protocol.out.mkdir(parents=True, exist_ok=True)
    write_json(protocol.out / "reproduce.json", table)
    text = "\n".join(lines(table)) + "\n"
    write_bytes(protocol.out / "reproduce.md", text.encode())
    sys.stdout.write(text)


def main() -> None:
    """Do what is still to do, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=ANCHORS, default=list(ANCHORS))
    parser.add_argument("--steps", type=int, default=FULL_STEPS, help="of every method alike")
    parser.add_argument("--rows", type=int, default=FULL_ROWS, help="test rows")
    parser.add_argument("--samples", type=int, default=FULL_SAMPLES, help="importance samples a row")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread")
    parser.add_argument("--runs", type=Path, default=Path("runs/reproduce"))
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--work", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    protocol = Protocol(arguments.steps, arguments.rows, arguments.samples, arguments.runs, arguments.out)
    if arguments.work:
        work(arguments.work, arguments.seed, protocol)
        return
    failures = all_work(arguments.only, arguments.seeds, protocol, arguments.jobs)
    report(arguments.seeds, protocol)
    if failures:
        sys.exit("failed: " + "; ".join(failures) + "; the same command tries them again")


if __name__ == "__main__":
    main()
