"""One class of MNIST or Fashion-MNIST against the nine others, and MNIST against Fashion-MNIST in both directions.

    nice -n 10 python benchmarks/one_class.py            # about ten minutes on one core; results/one_class.json and .md, written after every task

Pictures of 28x28 pixels, **binarised once** by their intensities, so the numbers published for grey pictures are no match. One-class: 2,000 training and 1,000
validation rows of one class; 400 test rows of that class against 405 of the others, 45 of each. Pairs: 5,000 and 1,000 rows of one set; 800 test rows of each.
The self-test chooses the score from validation rows alone. One seed: the interval is that of the mean over ten classes, and speaks of these ten. Rivals read
pixels, with scikit-learn's defaults; PCA is the error of a reconstruction that keeps 95 % of the variance.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measure import about
from scipy import stats
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


def task(parts: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], steps: int) -> dict[str, Any]:
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
        run = vaestro.train(CALL, data, steps=steps, seed=0, out=f"{folder}/run")
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


def one_class(name: str, label: int) -> dict[str, Any]:
    """One class against the others."""
    train, held, inside = (rows(name, s, label, n, 0) for s, n in (("train", 2000), ("validation", 1000), ("test", 400)))
    return {"kind": "one class", "data": name, "label": label, **task((train, held, inside, rows(name, "test", label, 405, 1, others=True)), STEPS)}


def pair(name: str, other: str) -> dict[str, Any]:
    """One data set against another."""
    parts = (rows(name, "train", None, 5000, 0), rows(name, "validation", None, 1000, 0), rows(name, "test", None, 800, 0), rows(other, "test", None, 800, 0))
    return {"kind": "pair", "data": name, "against": other, **task(parts, PAIR_STEPS)}


def interval(values: list[float]) -> str:
    """The mean and its 95 % t-interval over classes."""
    if len(values) < 2:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ± {stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5:.3f}"


def page(found: list[dict[str, Any]]) -> str:
    """The results as a page."""
    lines = ["# One class, and one data set against another", "", (__doc__ or "").split("\n\n")[2].replace("\n", " ").strip(), ""]
    lines += [f"Ours is `{CALL}`, {STEPS:,} steps (pairs: {PAIR_STEPS:,}), {SAMPLES} importance samples. {PUBLISHED}", "", "## One class, AUROC", ""]
    for name in SETS:
        some = [f for f in found if f["kind"] == "one class" and f["data"] == name]
        if not some:
            lines += [f"{name}: not run.", ""]
            continue
        lines += [f"### {name}, classes {', '.join(str(f['label']) for f in some)}", "", "| method | mean | each class |", "|---|---|---|"]
        methods = {"ours, score by self-test": [f["ours"] for f in some]}
        methods |= {f"ours, {s}": [f["each"][s] for f in some] for s in some[0]["each"] if all(s in f["each"] for f in some)}
        methods |= {r: [f["rivals"][r] for f in some] for r in some[0]["rivals"]}
        for label, values in methods.items():
            lines.append(f"| {label} | {interval(values)} | {', '.join(f'{v:.2f}' for v in values)} |")
        shares = [f["usual_rows_with_p_up_to_0.1"] for f in some]
        lines += ["", f"Chosen: {', '.join(f['chosen'] for f in some)}. Share of usual test rows with p <= 0.1: {interval(shares)}.", ""]
    lines += ["## One data set against another, AUROC", ""]
    for f in (f for f in found if f["kind"] == "pair"):
        each = ", ".join(f"{n} {v:.3f}" for n, v in f["each"].items())
        classical = ", ".join(f"{n} {v:.3f}" for n, v in f["rivals"].items())
        fooled = "the raw likelihood fails here" if f["each"]["likelihood"] < 0.5 else "the raw likelihood does not fail here"
        lines.append(f"- Trained on {f['data']}, shown {f['against']}: **{f['ours']:.3f}** by {f['chosen']} (self-test); {fooled}. All: {each}; {classical}.")
    if not any(f["kind"] == "pair" for f in found):
        lines.append("Not run.")
    when = about()
    return "\n".join([*lines, "", f"`python benchmarks/one_class.py`, {when['date']}, {when['machine']}.", ""])


def main() -> None:
    """Run what lacks, pairs first, and write after every task."""
    import torch

    parser = argparse.ArgumentParser()
    parser.add_argument("--labels", type=int, nargs="*", default=list(range(10)))
    parser.add_argument("--out", type=Path, default=RESULT)
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    found = json.loads(wanted.out.read_text())["runs"] if wanted.out.is_file() else []
    done = {(f["data"], f.get("label")) for f in found}
    work = [lambda a=a, b=b: pair(a, b) for a, b in (SETS, SETS[::-1]) if (a, None) not in done]
    work += [lambda d=d, c=c: one_class(d, c) for c in wanted.labels for d in SETS if (d, c) not in done]
    for each in work:
        found.append(each())
        sys.stdout.write(json.dumps(found[-1]) + "\n")
        sys.stdout.flush()
        wanted.out.write_text(json.dumps({"about": about(), "call": CALL, "runs": found}, indent=1) + "\n", encoding="utf-8")
        wanted.out.with_suffix(".md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
