"""One class of MNIST or Fashion-MNIST against the nine others, and MNIST against Fashion-MNIST in both directions.

    nice -n 10 python benchmarks/one_class.py            # about forty minutes on one core; results/one_class.json and .md, written after every task

Pictures of 28x28 pixels, **binarised once** by their intensities, so the numbers published for grey pictures are no match. One-class: 2,000 training and 1,000
validation rows of one class; 400 test rows of that class against 405 of the others, 45 of each. Pairs: 5,000 and 1,000 rows of one set; 800 test rows of each.
The self-test chooses the score from validation rows alone. A seed draws rows and weights anew; the interval is that of a mean over seeds (of the mean over ten
classes, which are these ten). Rivals read pixels, with scikit-learn's defaults; PCA is the error of a reconstruction that keeps 95 % of the variance.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from measure import about, interval
from sklearn.metrics import roc_auc_score

CALL, STEPS, PAIR_STEPS, SAMPLES = "vae:latents=16,hidden=256,learning_rate=0.002", 1000, 2500, 10
SETS = ("mnist-dynamic", "fashion-mnist-dynamic")
RESULT = Path(__file__).resolve().parent.parent / "results" / "one_class.json"
PUBLISHED = (
    "Published mean AUROCs on grey pictures, as collected in the project's notes: MNIST: one-class SVM 0.913, isolation forest 0.923, Deep SVDD 0.948, "
    "a VAE 0.877, OCGAN 0.975; Fashion-MNIST: Deep SVDD 0.848, DASVDD 0.926."
)


def rows(name: str, split: str, label: int | None, n: int, seed: int, others: bool = False) -> np.ndarray:
    """Up to n binary pictures of a split, of one class, of all, or n / 9 of each of the other nine."""
    import torch

    from vaestro.data import load
    from vaestro.data.rows import Rows

    data, rng = load(name), np.random.default_rng(seed)
    part = data.split(split)
    labels = np.asarray(part.arrays["label"])
    wanted = [None] if label is None else [c for c in range(10) if (c != label) == others]
    found = [rng.permutation(np.arange(len(labels)) if c is None else np.flatnonzero(labels == c))[: n // len(wanted)] for c in wanted]
    torch.manual_seed(seed)
    x = Rows(part, data.schema, ("x",)).batch(torch.from_numpy(np.concatenate(found)))["x"]
    return x.numpy().astype(np.uint8)


def area(inside: np.ndarray, outside: np.ndarray) -> float:
    """The AUROC of scores, higher = stranger."""
    return float(roc_auc_score(np.repeat([0, 1], [len(inside), len(outside)]), np.concatenate([inside, outside])))


def rivals(fit: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> dict[str, float]:
    """AUROCs of classical rows on pixels."""
    from sklearn.decomposition import PCA
    from sklearn.ensemble import IsolationForest
    from sklearn.svm import OneClassSVM

    a, b, c = (v.reshape(len(v), -1).astype(np.float32) for v in (fit, inside, outside))
    found = {}
    for name, model in (("isolation forest", IsolationForest(random_state=0)), ("one-class SVM", OneClassSVM())):
        model.fit(a)
        found[name] = area(-model.score_samples(b), -model.score_samples(c))
    pca = PCA(0.95, random_state=0).fit(a)
    found["PCA"] = area(*(np.square(v - pca.inverse_transform(pca.transform(v))).sum(1) for v in (b, c)))
    return found


def task(parts: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], steps: int, seed: int) -> dict[str, Any]:
    """Ours and the rivals on (training, validation, inside, outside)."""
    import vaestro
    from vaestro.data import from_arrays
    from vaestro.data.schema import Binary
    from vaestro.errors import VaestroError
    from vaestro.evaluation.outliers import OUTLIER_SCORES, strangeness
    from vaestro.uses.detect import detector
    from vaestro.uses.detect.calibrated import USUAL
    from vaestro.uses.detect.choice import DEAR
    from vaestro.uses.detect.scores import rows_of, subject

    start = time.process_time()
    fit, held, inside, outside = parts
    data = from_arrays("task", {"x": fit}, {"x": Binary()}, validation={"x": held}, test={"x": inside})
    out: dict[str, Any] = {"each": {}}
    with tempfile.TemporaryDirectory() as folder:
        run = vaestro.train(CALL, data, steps=steps, seed=seed, out=f"{folder}/run")
        by = detector(run, protocol=USUAL._replace(samples=SAMPLES))
        a, b = (subject(run, rows_of(run, v)[0], by.protocol) for v in (inside, outside))
        chosen = by.scorer.name
        for name in [n for n in OUTLIER_SCORES if n not in DEAR or n == chosen]:
            try:
                out["each"][name] = area(strangeness(name, a, by.usual), strangeness(name, b, by.usual))
            except VaestroError:
                continue
        p = by.p_values(strangeness(chosen, a, by.usual))
    assert by.choice is not None
    out |= {"chosen": chosen, "ours": out["each"][chosen], "self_test": by.choice.mean(chosen), "usual_rows_with_p_up_to_0.1": float((p <= 0.1).mean())}
    out |= {"cpu": round(time.process_time() - start, 1)}
    return out | {"rivals": rivals(fit[:2000], inside, outside)}


def one_class(name: str, label: int, seed: int) -> dict[str, Any]:
    """One class against the others."""
    train, held, inside = (rows(name, s, label, n, seed) for s, n in (("train", 2000), ("validation", 1000), ("test", 400)))
    parts = (train, held, inside, rows(name, "test", label, 405, seed + 1, others=True))
    return {"kind": "one class", "data": name, "label": label, "seed": seed, **task(parts, STEPS, seed)}


def pair(name: str, other: str, seed: int) -> dict[str, Any]:
    """One data set against another."""
    own = [rows(name, split, None, n, seed) for split, n in (("train", 5000), ("validation", 1000), ("test", 800))]
    parts = (own[0], own[1], own[2], rows(other, "test", None, 800, seed))
    return {"kind": "pair", "data": name, "against": other, "seed": seed, **task(parts, PAIR_STEPS, seed)}


def means(some: list[dict[str, Any]], by: str, of: Callable[[dict[str, Any]], float]) -> list[float]:
    """A number's mean over the tasks of every seed, or of every label."""
    return [float(np.mean([of(f) for f in some if f[by] == key])) for key in sorted({f[by] for f in some})]


def classes(name: str, some: list[dict[str, Any]]) -> Iterator[str]:
    """The table of one data set."""
    yield from (f"### {name}, classes {', '.join(str(c) for c in sorted({f['label'] for f in some}))}", "", "| method | mean | each class |", "|---|---|---|")
    methods: dict[str, Callable[[dict[str, Any]], float]] = {"ours, score by self-test": itemgetter("ours")}
    methods |= {f"ours, {s}": lambda f, s=s: f["each"][s] for s in some[0]["each"] if all(s in f["each"] for f in some)}  # type: ignore[misc]
    methods |= {r: lambda f, r=r: f["rivals"][r] for r in some[0]["rivals"]}  # type: ignore[misc]
    for label, of in methods.items():
        yield f"| {label} | {interval(means(some, 'seed', of))} | {', '.join(f'{v:.2f}' for v in means(some, 'label', of))} |"
    chosen = ", ".join(f"{n} {s}" for s, n in Counter(f["chosen"] for f in some).most_common())
    shares = interval(means(some, "seed", itemgetter("usual_rows_with_p_up_to_0.1")))
    yield from ("", f"Chosen: {chosen}. Share of usual test rows with p <= 0.1: {shares}.", "")


def pairs(some: list[dict[str, Any]]) -> str:
    """What was found in one direction."""
    each, classical = (", ".join(f"{n} {interval([f[k][n] for f in some])}" for n in some[0][k]) for k in ("each", "rivals"))
    fails = sum(f["each"]["likelihood"] < 0.5 for f in some)
    chosen = ", ".join(dict.fromkeys(f["chosen"] for f in some))
    return (
        f"- Trained on {some[0]['data']}, shown {some[0]['against']}: **{interval([f['ours'] for f in some])}** by {chosen} (self-test); "
        f"the raw likelihood fails in {fails} of {len(some)}. All: {each}; {classical}."
    )


def page(found: list[dict[str, Any]]) -> str:
    """The results as a page."""
    lines = ["# One class, and one data set against another", "", (__doc__ or "").split("\n\n")[2].replace("\n", " ").strip(), ""]
    lines += [f"Ours is `{CALL}`, {STEPS:,} steps (pairs: {PAIR_STEPS:,}), {SAMPLES} importance samples. {PUBLISHED}", "", "## One class, AUROC", ""]
    for name in SETS:
        some = [f for f in found if f["kind"] == "one class" and f["data"] == name]
        lines += classes(name, some) if some else [f"{name}: not run.", ""]
    lines += ["## One data set against another, AUROC", ""]
    lines += [pairs(some) for d in SETS if (some := [f for f in found if f["kind"] == "pair" and f["data"] == d])] or ["Not run."]
    when = about()
    return "\n".join([*lines, "", f"`python benchmarks/one_class.py`, {when['date']}, {when['machine']}.", ""])


def main() -> None:
    """Run what lacks, pairs first, and write after every task."""
    import torch

    parser = argparse.ArgumentParser()
    parser.add_argument("--labels", type=int, nargs="*", default=list(range(10)))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=RESULT)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    found = json.loads(wanted.out.read_text())["runs"] if wanted.out.is_file() else []
    done = {(f["data"], f.get("label"), f["seed"]) for f in found}
    for seed in wanted.seeds:
        work = [partial(pair, a, b, seed) for a, b in (SETS, SETS[::-1]) if (a, None, seed) not in done]
        work += [partial(one_class, d, c, seed) for c in wanted.labels for d in SETS if (d, c, seed) not in done]
        for each in work:
            found.append(each())
            sys.stdout.write(json.dumps(found[-1]) + "\n")
            sys.stdout.flush()
            wanted.out.write_text(json.dumps({"about": about(), "call": CALL, "runs": found}, indent=1) + "\n", encoding="utf-8")
            wanted.out.with_suffix(".md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
