"""Anomalies in tables: ours beside isolation forest, ECOD, k-NN, LOF, PCA, a one-class SVM, and PyOD's VAE and AutoEncoder with their defaults.

    nice -n 10 python benchmarks/anomalies.py            # about ten minutes on one core; results/anomalies.json and .md, written after every task

Needs `pip install -c constraints.txt 'vaestro[bench]'` beside the development extra.

Seven tasks, three seeds: `shuttle`, five tasks of KDD Cup 1999, each **attack against attack** with no normal traffic, and `transactions`, a simulator with
planted fraud. The protocol is one-class: three fifths of the usual rows (6,000 at most) are shown to every method, the others (4,000 at most) and anomalies in
their share of the data are test rows. A third of the rows shown are our validation rows: they stop training, choose the score and calibrate; the rivals fit on
all of them. Rivals read numbers standardised, categories one-hot, gaps as zero; ours reads the table. Which columns and categories there are is known from
the whole table; no label of a test row chooses anything. PyOD's VAE and AutoEncoder have their defaults, among them capacity 0, which clamps the VAE's KL term
to zero; PCA keeps 99 % of the variance, for its default divides by zero where columns depend on each other.
"""

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measure import about, interval
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

SEEDS, FIT, TEST, TOP, LEVEL = 3, 6000, 4000, 50, 0.1
CALL, STEPS = "vae:latents=8,hidden=128,learning_rate=0.003,patience=5", 1500
TASKS = (
    "shuttle",
    "transactions",
    "kdd-land-vs-satan",
    "kdd-land-vs-portsweep",
    "kdd-guess-passwd-vs-satan",
    "kdd-rootkit-imap-vs-back",
    "kdd-buffer-overflow-vs-back",
)
OURS = "vaestro vae, score by self-test"
RESULT = Path(__file__).resolve().parent.parent / "results" / "anomalies.json"


def packed(name: str) -> tuple[Any, np.ndarray, np.ndarray]:
    """The table, all its rows as they are held, and which are the rarer class."""
    from vaestro.data import load

    data = load(name)
    parts = [data.split(s).arrays for s in data.schema.rows]
    labels = np.concatenate([np.asarray(p["label"]) for p in parts])
    return data.schema["x"].kind, np.concatenate([np.asarray(p["x"]) for p in parts]), labels == np.bincount(labels).argmin()


def parted(x: np.ndarray, strange: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows to fit on, test rows, and which of these are anomalies."""
    rng = np.random.default_rng(seed)
    good, bad = rng.permutation(np.flatnonzero(~strange)), rng.permutation(np.flatnonzero(strange))
    cut = len(good) * 3 // 5
    fit, test = good[: min(cut, FIT)], good[cut : cut + TEST]
    if len(test) < len(good) - cut:
        bad = bad[: round(len(bad) / len(good) * len(test))]  # their share in the data is kept
    return x[fit], x[np.concatenate([test, bad])], np.repeat([False, True], [len(test), len(bad)])


def numbers(table: Any, x: np.ndarray) -> np.ndarray:
    """Rows as the rivals read them: numbers as they are held (counts by their logarithm), categories one-hot, gaps zero."""
    from vaestro.data.schema import Counted, Named

    columns = []
    for i, column in enumerate(table.columns):
        v = x[:, i]
        if isinstance(column, Named):
            columns += [(v == level).astype(float) for level in range(len(column.levels))]
        else:
            columns.append(np.nan_to_num(np.log1p(v) if isinstance(column, Counted) else v))
    return np.stack(columns, 1)


def rivals(seed: int) -> dict[str, Callable[[], Any]]:
    """Every rival with its defaults."""
    from pyod.models.auto_encoder import AutoEncoder
    from pyod.models.ecod import ECOD
    from pyod.models.iforest import IForest
    from pyod.models.knn import KNN
    from pyod.models.lof import LOF
    from pyod.models.ocsvm import OCSVM
    from pyod.models.pca import PCA
    from pyod.models.vae import VAE

    return {
        "isolation forest": lambda: IForest(random_state=seed),
        "ECOD": ECOD,
        "k-NN": KNN,
        "LOF": LOF,
        "PCA": lambda: PCA(n_components=0.99, svd_solver="full", random_state=seed),
        "one-class SVM": OCSVM,
        "PyOD VAE (capacity 0)": lambda: VAE(random_state=seed, verbose=0),
        "PyOD AutoEncoder": lambda: AutoEncoder(random_state=seed, verbose=0),
    }


def measured(scores: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """AUROC, average precision, and the share of anomalies among the 50 strangest; infinite scores are ranked last of all."""
    scores = stats.rankdata(np.nan_to_num(scores, nan=-np.inf), method="average")
    top = np.argsort(-scores, kind="stable")[:TOP]
    return {"auroc": float(roc_auc_score(truth, scores)), "ap": float(average_precision_score(truth, scores)), "top": float(truth[top].mean())}


def ours(table: Any, fit: np.ndarray, test: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Scores of the test rows, which of them are alarms at the false-discovery rate 0.1, and the score that the self-test chose."""
    import torch

    import vaestro
    from vaestro.data import from_arrays
    from vaestro.uses.detect import detect

    cut = len(fit) * 2 // 3
    data = from_arrays("task", {"x": fit[:cut]}, {"x": table}, validation={"x": fit[cut:]}, test={"x": test})
    with tempfile.TemporaryDirectory() as folder:
        run = vaestro.train(CALL, data, steps=STEPS, seed=seed, out=f"{folder}/run")
        found = detect(run, torch.from_numpy(test), LEVEL)
    return found.scores, found.alarms, found.by.scorer.name


def task(name: str, seed: int, known: dict[str, Any] | None = None) -> dict[str, Any]:
    """Every method on one task and seed; where the rivals' numbers are `known` and the rows are as many, ours alone."""
    table, x, strange = packed(name)
    fit, test, truth = parted(x, strange, seed)
    out: dict[str, Any] = {"task": name, "seed": seed, "rows": {"fit": len(fit), "test": int((~truth).sum()), "anomalies": int(truth.sum())}, "methods": {}}
    start = time.process_time()
    scores, alarms, chosen = ours(table, fit, test, seed)
    false = int((alarms & ~truth).sum())
    out["methods"][OURS] = measured(scores, truth) | {
        "score": chosen,
        "alarms": int(alarms.sum()),
        "false": false,
        "cpu": round(time.process_time() - start, 1),
    }
    if known is not None and known["rows"] == out["rows"]:
        return out | {"methods": {**known["methods"], **out["methods"]}}
    a, b = numbers(table, fit), numbers(table, test)
    for label, make in rivals(seed).items():
        start = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rival = make().fit(a)
            found = measured(rival.decision_function(b), truth)
        out["methods"][label] = found | {"cpu": round(time.process_time() - start, 1)}
    return out


def page(found: list[dict[str, Any]]) -> str:
    """The results as a page."""
    tasks = list(dict.fromkeys(f["task"] for f in found))
    methods = list(found[0]["methods"])
    lines = ["# Anomalies in tables", "", (__doc__ or "").split("\n\n")[3].replace("\n", " ").strip(), ""]
    lines += [f"Ours is `{CALL}`, {STEPS} steps. Means over seeds with 95 % t-intervals; mean ranks over tasks and seeds, 1 is best."]
    for key, title in (("auroc", "AUROC"), ("ap", "Average precision"), ("top", "Share of anomalies among the 50 strangest rows")):
        ranks = {m: [] for m in methods}
        for f in found:
            for m, r in zip(methods, stats.rankdata([-f["methods"][m][key] for m in methods]), strict=True):
                ranks[m].append(r)
        lines += ["", f"## {title}", "", "| method | mean rank | mean | " + " | ".join(tasks) + " |", "|---" * (len(tasks) + 3) + "|"]
        for m in sorted(methods, key=lambda m: np.mean(ranks[m])):
            cells = [interval([f["methods"][m][key] for f in found if f["task"] == t]) for t in tasks]
            every = np.mean([f["methods"][m][key] for f in found])
            lines.append(f"| {m} | {np.mean(ranks[m]):.2f} | {every:.4f} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "## Alarms at a false-discovery rate of 0.1",
        "",
        "| task | test rows | anomalies | score chosen | alarms | false | share that is false |",
        "|---" * 7 + "|",
    ]
    for t in tasks:
        some = [f for f in found if f["task"] == t]
        own = [f["methods"][OURS] for f in some]
        shares = [o["false"] / max(1, o["alarms"]) for o in own]
        chosen, alarms, false = (", ".join(str(o[k]) for o in own) for k in ("score", "alarms", "false"))
        lines.append(f"| {t} | {some[0]['rows']['test']} | {some[0]['rows']['anomalies']} | {chosen} | {alarms} | {false} | {interval(shares)} |")
    every = [f["methods"][OURS]["false"] / max(1, f["methods"][OURS]["alarms"]) for f in found]
    lines += ["", f"All {len(every)} runs: {interval(every)}. The promise is that the mean over draws is at most 0.1."]
    when = about()
    return "\n".join([*lines, "", f"`python benchmarks/anomalies.py`, {when['date']}, {when['machine']}.", ""])


def main() -> None:
    """Run what lacks, and write after every task."""
    import torch

    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", default=TASKS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--rivals", type=Path, help="an earlier result, of which the rivals' numbers are kept: they depend on seeds alone")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    found = json.loads(wanted.out.read_text())["runs"] if wanted.out.is_file() else []
    known = {} if wanted.rivals is None else {(f["task"], f["seed"]): f for f in json.loads(wanted.rivals.read_text())["runs"]}
    done = {(f["task"], f["seed"]) for f in found}
    for seed in range(wanted.seeds):
        for name in wanted.only:
            if (name, seed) not in done:
                found.append(task(name, seed, known.get((name, seed))))
                sys.stdout.write(json.dumps(found[-1]) + "\n")
                sys.stdout.flush()
                wanted.out.write_text(json.dumps({"about": about(), "call": CALL, "steps": STEPS, "runs": found}, indent=1) + "\n", encoding="utf-8")
    wanted.out.with_suffix(".md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
