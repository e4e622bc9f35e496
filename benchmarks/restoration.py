"""Holes completed and noise removed by plain VAEs, beside classical methods, on held-out pictures: PSNR and SSIM with intervals.

    python benchmarks/restoration.py [--runs FOLDER]   # half an hour; writes results/restoration.json and .md, and docs/pictures/restoration-*.png

Three runs (seeds 0, 1, 2) of one call on each data set, made in FOLDER unless they are there. 50 fixed test rows. Tasks: `noise`, Gaussian of scale 0.3;
`box`, a square of half the side hidden in the middle; `dots`, 70 % of the pixels hidden at random. Ours is the posterior mean: `vaestro.denoise`, told the
noise, and `vaestro.complete`. PSNR is in dB with a range of 1; where pixels are hidden it is that of the hidden ones alone. SSIM is scikit-image's (7x7
windows, range 1), over whole pictures. The strength of each classical denoiser is the one with the least squared error on 30 validation rows. Intervals are
95 %: of a classical method over rows, of ours over rows and seeds (`intervals.recipe`). Noise and dots are the same for everybody. The
classical methods know nothing of the kind of picture; ours has seen 50,000 of them, and of emoji 3,000.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from measure import about
from skimage.metrics import structural_similarity
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle, denoise_wavelet, inpaint_biharmonic

import vaestro
from vaestro.evaluation import intervals
from vaestro.training.files import write_bytes
from vaestro.training.runs import Run
from vaestro.uses.complete import complete, nearest
from vaestro.uses.denoise import denoise
from vaestro.uses.inference.noises import GaussianNoise
from vaestro.uses.inference.posterior_draws import Effort
from vaestro.uses.rows.lines import held_rows, with_hole, write_lines

ROOT = Path(__file__).resolve().parents[1]
CALLS = {
    "mnist-grey": ("vae:likelihood=gaussian_shared,latents=32,hidden=400x400,batch=128,learning_rate=0.002", 1500),
    "fashion-mnist-grey": ("vae:likelihood=gaussian_shared,latents=32,hidden=400x400,batch=128,learning_rate=0.002", 1500),
    "emoji-64": ("vae:likelihood=gaussian_shared,latents=32,hidden=400,batch=128,learning_rate=0.002", 500),
}
SEEDS, ROWS, TUNING, SHOWN = 3, 50, 30, 8
SCALE, DOTS = 0.3, 0.7
EFFORT = Effort(128, 8, 12)
STRENGTHS = {"TV (Chambolle)": (0.05, 0.1, 0.2, 0.3, 0.4), "non-local means": (0.3, 0.5, 0.8, 1.0, 1.3), "wavelets (BayesShrink)": (0.5, 0.75, 1.0, 1.3)}
Array = np.ndarray


class Task(NamedTuple):
    """Clean rows [n, C, H, W] and what is given of them: noisy ones, or a mask of what is seen (none for noise)."""

    clean: torch.Tensor
    shown: torch.Tensor
    seen: torch.Tensor | None


def tasks(x: torch.Tensor, seed: int) -> dict[str, Task]:
    """The three tasks on some rows."""
    rng = np.random.default_rng(seed)
    noisy = x + SCALE * torch.from_numpy(rng.normal(size=x.shape)).float()
    box, (tall, wide) = torch.ones(x.shape, dtype=torch.bool), x.shape[-2:]
    box[..., tall // 4 : tall // 4 + tall // 2, wide // 4 : wide // 4 + wide // 2] = False
    dots = torch.from_numpy(rng.random((len(x), 1, tall, wide)) > DOTS).expand(x.shape)
    return {"noise": Task(x, noisy, None), "box": Task(x, with_hole(x, box), box), "dots": Task(x, with_hole(x, dots), dots)}


def each(f: Callable[[Array], Array], x: torch.Tensor) -> torch.Tensor:
    """`f` of every picture, as [H, W] or [H, W, C]."""
    rows = [f(v.permute(1, 2, 0).squeeze(-1).double().numpy()) for v in x]
    return torch.from_numpy(np.stack(rows)).float().reshape(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)


def denoiser(name: str, strength: float) -> Callable[[Array], Array]:
    """A classical denoiser of one picture."""

    def run(v: Array) -> Array:
        axis = -1 if v.ndim == 3 else None
        if name.startswith("TV"):
            return np.asarray(denoise_tv_chambolle(v, weight=strength, channel_axis=axis))
        if name.startswith("non"):
            return np.asarray(denoise_nl_means(v, patch_size=5, patch_distance=6, h=strength * SCALE, sigma=SCALE, channel_axis=axis))
        return np.asarray(denoise_wavelet(v, sigma=strength * SCALE, channel_axis=axis, rescale_sigma=False))

    return run


def classical(task: Task, tuning: Task) -> dict[str, torch.Tensor]:
    """What each classical method makes of a task; strengths are chosen on other rows."""
    if task.seen is None:
        found = {}
        for name, strengths in STRENGTHS.items():
            errors = [float((each(denoiser(name, s), tuning.shown) - tuning.clean).square().mean()) for s in strengths]
            best = strengths[int(np.argmin(errors))]
            found[f"{name}, {best:g}"] = each(denoiser(name, best), task.shown)
        return {"as given": task.shown, **found}
    masks = iter(~task.seen[:, 0].numpy())
    smooth = each(lambda v: np.asarray(inpaint_biharmonic(v, next(masks), channel_axis=-1 if v.ndim == 3 else None)), torch.where(task.seen, task.clean, 0.0))
    mean = tuning.clean.mean(0).expand(task.clean.shape)
    filled = {"mean of other rows": mean, "nearest pixel": nearest(torch.where(task.seen, task.clean, 0.0), task.seen), "biharmonic": smooth}
    return {name: torch.where(task.seen, task.clean, made) for name, made in filled.items()}


def ours(run: Run, task: Task) -> torch.Tensor:
    """The posterior mean."""
    if task.seen is None:
        return denoise(run, task.shown, GaussianNoise(SCALE), EFFORT).rows
    return complete(run, task.clean, task.seen, EFFORT).mean


def scores(task: Task, made: torch.Tensor) -> tuple[Array, Array]:
    """PSNR of each row in dB, of hidden pixels where there are any, and SSIM of the whole picture."""
    made = made.clamp(0, 1)
    error, hidden = (made - task.clean).square().double(), torch.ones_like(made, dtype=torch.bool) if task.seen is None else ~task.seen
    mse = torch.where(hidden, error, 0.0).flatten(1).sum(1) / hidden.flatten(1).sum(1)
    pairs = zip(task.clean.permute(0, 2, 3, 1).double().numpy(), made.permute(0, 2, 3, 1).double().numpy(), strict=True)
    ssim = [structural_similarity(a, b, data_range=1.0, channel_axis=-1) for a, b in pairs]
    return (-10 * mse.clamp(min=1e-8).log10()).numpy(), np.array(ssim)


def runs_of(data: str, folder: Path) -> list[Run]:
    """Three runs, opened or trained."""
    call, steps = CALLS[data]
    places = [folder / f"{data}-{seed}" for seed in range(SEEDS)]
    return [vaestro.open_run(p) if (p / "run.json").exists() else vaestro.train(call, data, steps=steps, seed=i, out=p) for i, p in enumerate(places)]


def line(rows: list[tuple[Array, Array]]) -> dict[str, Any]:
    """Both scores of a method with their intervals, from one or several seeds."""
    found = {}
    for name, each_seed in zip(("psnr", "ssim"), zip(*rows, strict=True), strict=True):
        i = intervals.of_recipe(np.stack(each_seed))
        found[name] = {"mean": i.mean, "low": i.low, "high": i.high}
    return found | {"seeds": len(rows)}


def measure(data: str, folder: Path, rows: int) -> dict[str, Any]:
    """Every method on every task of a data set; a picture of each task beside it."""
    runs = runs_of(data, folder)
    test, tuning = (tasks(held_rows(runs[0], n, split)[0], seed) for n, split, seed in ((rows, "test", 0), (TUNING, "validation", 1)))
    found: dict[str, Any] = {}
    shown: list[torch.Tensor] = []
    for name, task in test.items():
        made = classical(task, tuning[name])
        table = {method: line([scores(task, x)]) for method, x in made.items()}
        by_seed = [ours(run, task) for run in runs]
        table["VAE, posterior mean"] = line([scores(task, x) for x in by_seed])
        found[name] = table
        last = next(x for method, x in made.items() if method.startswith(("TV", "biharmonic")))
        shown += [x[:SHOWN] for x in ((task.clean,) if name == "noise" else ()) + (task.shown, last, by_seed[0])]
        print(json.dumps({"data": data, "task": name, **{m: (round(t["psnr"]["mean"], 2), round(t["ssim"]["mean"], 3)) for m, t in table.items()}}), flush=True)
    words = ("clean", "noise 0.3", "TV", "VAE", "box", "biharmonic", "VAE", "dots", "biharmonic", "VAE")
    write_lines(ROOT / "docs" / "pictures" / f"restoration-{data}.png", runs[0].field, torch.stack(shown).clamp(0, 1).transpose(0, 1), words=words)
    return found


def markdown(found: dict[str, Any]) -> str:
    """The tables as a page."""
    head = (__doc__ or "").split("\n\n", 2)[2].strip()
    lines = ["# Restoration", "", head, "", f"Effort: {EFFORT.samples} importance samples, {EFFORT.draws} draws, {EFFORT.moves} Hamiltonian moves each.", ""]
    for data, by_task in found["data"].items():
        lines += [f"## {data}", "", f"`vaestro train {CALLS[data][0]} {data} --steps {CALLS[data][1]}`, {found['rows']} test rows.", ""]
        for task, table in by_task.items():
            lines += [f"| {task} | PSNR, dB | SSIM |", "|---|---|---|"]
            for method, t in table.items():
                p, s = t["psnr"], t["ssim"]
                lines.append(f"| {method} | {p['mean']:.2f} ({p['low']:.2f} to {p['high']:.2f}) | {s['mean']:.3f} ({s['low']:.3f} to {s['high']:.3f}) |")
            lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs") / "restoration")
    parser.add_argument("--data", nargs="+", choices=sorted(CALLS), default=["mnist-grey", "fashion-mnist-grey"])
    parser.add_argument("--rows", type=int, default=ROWS)
    given = parser.parse_args()
    if math.isnan(given.rows) or given.rows < 2:
        sys.exit("an interval needs 2 rows or more")
    path = ROOT / "results" / "restoration.json"
    before = json.loads(path.read_text())["data"] if path.exists() else {}
    for data in given.data:
        before |= {data: measure(data, given.runs, given.rows)}
        found = {**about(), "rows": given.rows, "effort": EFFORT._asdict(), "data": before}
        write_bytes(path, (json.dumps(found, indent=1) + "\n").encode())
        write_bytes(path.with_suffix(".md"), markdown(found).encode())


if __name__ == "__main__":
    main()
