"""Gaps in tables filled in: ours beside IterativeImputer, KNNImputer, and the mean or median with the most frequent category.

    nice -n 10 python benchmarks/imputation.py      # about ten minutes on one core; stopped, it goes on; writes results/imputation.json and .md
    python benchmarks/imputation.py --seeds 0       # the page alone, from what was measured

Adult (2,000 training, 300 validation and 400 test rows, drawn anew for each seed) and hypothyroid (all 2,531, 316 and 316), three seeds. Of the entries that
were seen, 10, 30 or 50 % are hidden, in training, validation and test rows alike: `at random`, each with the same chance; `by others`, where a third of the
columns without gaps stay whole and an entry of another column is hidden with the chance logistic(2 s + b), s a random combination of those whole columns with
variance 1, b such that the share is met in that column. Every method learns from training rows with gaps and fills the same gaps of the same test rows. The
rivals have their defaults; they read numbers standardised and categories one-hot, of which the largest is taken. IterativeImputer also reads categories as
standardised codes, rounded afterwards: one-hot columns of one category determine each other and are hidden together, so that it learns them from each other
and leaves them at the most frequent category, while with codes the order of categories means something that it should not. Ours is chosen among CALLS for
each data set by the sum of RMSE and share of wrong categories on validation rows, 30 % hidden at random, with a seed that is not measured; test rows choose
nothing.

RMSE and MAE are those of numbers in their own units, each column divided by the standard deviation of its training entries, over all hidden entries; accuracy
is the share of hidden categories that are met. Ours is the mean of 200 draws for the RMSE (what `VAEImputer` makes of an array), their median for the MAE and
their most frequent category (what `vaestro impute` writes). Covered: the share of hidden numbers inside the 95 % interval of those draws, and beside the
accuracy the share of draws that the chosen category has, which should equal it. Intervals are 95 %, of seeds and of a jackknife over ten groups of rows, which
is taken as shared by the seeds (`intervals.values`); differences are paired on gaps.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gaps import MECHANISMS, RIVALS, SIZES, Array, Task, named, own, spread, task
from measure import about

from vaestro.evaluation import intervals
from vaestro.training.files import write_bytes

RESULT = Path(__file__).resolve().parents[1] / "results" / "imputation.json"
SHARES, SEEDS, CHOOSING = (0.1, 0.3, 0.5), 3, 100
NET = "latents=8,hidden=128,learning_rate=0.003,patience=5"
CALLS = (f"vae:{NET}", f"iwae:samples=8,{NET}", f"denoising_vae:strength=0.3,{NET}")
STEPS, DRAWS, SAMPLES, GROUPS = 1000, 200, 500, 10
PROTOCOL = {"sizes": SIZES, "calls": CALLS, "steps": STEPS, "draws": DRAWS, "samples": SAMPLES, "groups": GROUPS}
OURS = "vaestro"
Sums = dict[str, list[float]]


def trained(call: str, t: Task, seed: int, folder: str) -> Any:
    """A run on training rows with gaps; validation rows with gaps are what training may look at."""
    import vaestro
    from vaestro.data import from_arrays

    look = np.where(t.holes, np.nan, t.look).astype(np.float32)
    data = from_arrays("gaps", {"x": t.fit}, {"x": t.table}, validation={"x": look}, test={"x": look})
    return vaestro.train(call, data, steps=STEPS, seed=seed, out=f"{folder}/run")


def ours(run: Any, t: Task, rows: Array, holes: Array, seed: int) -> dict[str, Array]:
    """What a run makes of the gaps of some rows, in the table's own units: estimates, an interval, and the share of draws of a category."""
    import torch

    from vaestro.uses.inference.completing import complete_entries

    x = torch.from_numpy(np.where(holes, np.nan, rows).astype(np.float32))
    made = own(t.table, complete_entries(run, x, DRAWS, SAMPLES, seed).rows.numpy())
    low, median, high = np.quantile(made, [0.025, 0.5, 0.975], axis=0)
    found = {"mean": made.mean(0), "median": median, "low": low, "high": high, "claimed": np.zeros(rows.shape)}
    for i in np.flatnonzero(named(t.table)):
        counts = np.stack([(made[..., i] == level).mean(0) for level in range(len(t.table.columns[i].levels))])
        found["mean"][:, i], found["claimed"][:, i] = counts.argmax(0), counts.max(0)
    return found


def sums(t: Task, rows: Array, holes: Array, found: dict[str, Array]) -> Sums:
    """What ten groups of rows add up to, from which every measure and its jackknife is made."""
    truth, names = own(t.table, rows), named(t.table)
    numbers, words = holes & ~names, holes & names
    error, far = ((found[k] - truth) / spread(t) for k in ("mean", "median"))
    each = {"numbers": numbers, "squares": numbers * error**2, "far": numbers * abs(far), "words": words, "right": words * (found["mean"] == truth)}
    if "low" in found:
        each |= {"covered": numbers * (found["low"] <= truth) * (truth <= found["high"]), "claimed": words * found["claimed"]}
    return {k: [round(float(np.nansum(np.where(holes, v, 0)[g::GROUPS])), 4) for g in range(GROUPS)] for k, v in each.items()}


MEASURES: dict[str, Callable[[dict[str, Array]], Array]] = {
    "RMSE": lambda s: np.sqrt(s["squares"] / s["numbers"]),
    "MAE": lambda s: s["far"] / s["numbers"],
    "accuracy": lambda s: s["right"] / s["words"],
    "covered": lambda s: s["covered"] / s["numbers"],
    "claimed": lambda s: s["claimed"] / s["words"],
}


def jackknifed(measure: str, groups: Sums) -> tuple[float, Array]:
    """A measure, and what it is without each of the groups."""
    held = {k: np.array(v) for k, v in groups.items()}
    return float(MEASURES[measure]({k: v.sum() for k, v in held.items()})), MEASURES[measure]({k: v.sum() - v for k, v in held.items()})


def estimated(measure: str, first: list[Sums], second: list[Sums] | None = None) -> intervals.Interval:
    """A measure over seeds, or the paired difference of two methods."""
    values, errors = [], []
    for i, groups in enumerate(first):
        value, without = jackknifed(measure, groups)
        if second is not None:
            other, others = jackknifed(measure, second[i])
            value, without = value - other, without - others
        values.append(value)
        errors.append(float(np.sqrt((GROUPS - 1) * without.var())))
    return intervals.of_values(np.array(values), np.array(errors))


def chosen(name: str) -> dict[str, Any]:
    """The call for a data set: the least sum of error and share of wrong categories on validation rows."""
    t, losses = task(name, "at random", 0.3, CHOOSING), {}
    for call in CALLS:
        with tempfile.TemporaryDirectory() as folder:
            run = trained(call, t, CHOOSING, folder)
            found = sums(t, t.look, t.holes, ours(run, t, t.look, t.holes, CHOOSING))
        losses[call] = round(jackknifed("RMSE", found)[0] + 1 - jackknifed("accuracy", found)[0], 4)
        sys.stderr.write(f"{name} {call}: {losses[call]}\n")
    return {"call": min(losses, key=lambda c: losses[c]), "losses": losses}


def measured(job: tuple[str, str, float, int], call: str, methods: dict[str, Any]) -> dict[str, Any]:
    """One setting with every method; `methods` are those that were measured before."""
    t, seed = task(*job), job[3]
    for method in [m for m in (OURS, *RIVALS) if m not in methods]:
        start = time.process_time()
        if method == OURS:
            with tempfile.TemporaryDirectory() as folder:
                found = ours(trained(call, t, seed, folder), t, t.test, t.hidden, seed)
        else:
            one = RIVALS[method](t, seed)
            found = {"mean": one, "median": one}
        methods[method] = {"cpu": round(time.process_time() - start, 1), "sums": sums(t, t.test, t.hidden, found)}
    return {**dict(zip(("data", "mechanism", "share", "seed"), job, strict=True)), "methods": methods}


def said(found: intervals.Interval, sign: str = "") -> str:
    """A mean with half its interval; a difference in bold where the interval excludes none."""
    text = f"{found.mean:{sign}.3f} ± {found.high - found.mean:.3f}"
    return f"**{text}**" if sign and (found.low > 0 or found.high < 0) else text


def row(*cells: str) -> str:
    """A row of a table of Markdown."""
    return f"| {' | '.join(cells)} |"


def headed(*cells: str) -> str:
    """The head of a table of Markdown."""
    return row(*cells) + "\n" + "|---" * len(cells) + "|"


def settings(runs: list[dict[str, Any]], name: str) -> Iterator[tuple[str, dict[str, list[Sums]]]]:
    """Every setting of a data set that was run, with the sums of each method, a seed each."""
    for mechanism in MECHANISMS:
        for share in SHARES:
            own_runs = [r for r in runs if (r["data"], r["mechanism"], r["share"]) == (name, mechanism, share)]
            if own_runs:
                yield f"{share:.0%} {mechanism} (seeds: {len(own_runs)})", {m: [r["methods"][m]["sums"] for r in own_runs] for m in (OURS, *RIVALS)}


def lines(told: dict[str, Any]) -> Iterator[str]:
    """The page."""
    yield "# Gaps in tables filled in\n"
    yield from (__doc__ or "").split("\n\n", 2)[2].strip().splitlines()
    yield "\nDifferences are ours less the rival's; bold where their interval excludes 0. For RMSE and MAE less is better, for accuracy more."
    yield "With fewer than three seeds an interval speaks of these runs alone."
    yield from (f"\n{name} was not run yet." for name in SIZES if name not in told["chosen"])
    for name, choice in told["chosen"].items():
        losses = ", ".join(f"`{call}` {loss}" for call, loss in choice["losses"].items())
        yield f"\n## {name}\n\nOurs: `{choice['call']}`, {STEPS:,} steps at most. Losses on validation rows: {losses}."
        cpu = {m: np.mean([r["methods"][m]["cpu"] for r in told["runs"] if r["data"] == name]) for m in (OURS, *RIVALS)}
        yield f"\nMean CPU seconds to learn and fill: {', '.join(f'{m} {s:.1f}' for m, s in cpu.items())}."
        every = list(settings(told["runs"], name))
        for measure in ("RMSE", "MAE", "accuracy"):
            yield f"\n### {measure}\n\n" + headed("hidden", "ours", *RIVALS, *(f"ours less {m}" for m in RIVALS))
            for label, sides in every:
                yield row(
                    label, *(said(estimated(measure, s)) for s in sides.values()), *(said(estimated(measure, sides[OURS], sides[m]), "+") for m in RIVALS)
                )
        yield "\n### Is our doubt right?\n\n" + headed("hidden", "numbers covered, of 0.95", "share of draws of the category", "its accuracy")
        for label, sides in every:
            yield row(label, *(said(estimated(m, sides[OURS])) for m in ("covered", "claimed", "accuracy")))
    yield f"\n`python benchmarks/imputation.py`, {told['about']['date']}, {told['about']['machine']}."


def write(out: Path, told: dict[str, Any]) -> None:
    """Both files, whole or not at all; a line a run."""
    runs = ",\n".join(json.dumps(r) for r in told["runs"])
    head = json.dumps({k: v for k, v in told.items() if k != "runs"}, indent=1)
    write_bytes(out, f'{head[:-2]},\n "runs": [\n{runs}\n]}}\n'.encode())
    if told["runs"]:
        write_bytes(out.with_suffix(".md"), ("\n".join(lines(told)) + "\n").encode())


def main() -> None:
    """Run what lacks, and write after every setting."""
    import torch

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--only", nargs="*", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--out", type=Path, default=RESULT)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    protocol = json.loads(json.dumps(PROTOCOL))
    told = json.loads(wanted.out.read_text(encoding="utf-8")) if wanted.out.is_file() else {}
    if told.get("protocol") != protocol:
        told = {"about": about(), "protocol": protocol, "chosen": {}, "runs": []}  # what was measured otherwise is no part of it
    done = {(r["data"], r["mechanism"], r["share"], r["seed"]): r for r in told["runs"]}
    for seed in range(wanted.seeds):
        for name in wanted.only:
            told["chosen"][name] = told["chosen"].get(name) or chosen(name)
            for job in [(name, m, s, seed) for m in MECHANISMS for s in SHARES]:
                held = done.get(job, {"methods": {}})["methods"]
                if not {OURS, *RIVALS} <= set(held):
                    done[job] = measured(job, told["chosen"][name]["call"], held)
                    write(wanted.out, told | {"runs": list(done.values())})
                    sys.stderr.write(f"{job}: {done[job]['methods'][OURS]['cpu']} s\n")
    told["runs"] = list(done.values())
    write(wanted.out, told)
    sys.stdout.write(wanted.out.with_suffix(".md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
