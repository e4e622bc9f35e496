"""A training step never waits for the device: what would make it wait is counted, for one and for several players.

    python benchmarks/profile_step.py          # seconds; writes benchmarks/results/profile_step.json

On a CPU, reading a number out of a tensor (`aten::item`, `_local_scalar_dense`, `is_nonzero`) is counted in the profile of whole steps, batches included:
each would be a wait on a GPU. Apart from it stands what the fused optimisers' CPU kernels read inside themselves: the step count, which lies in host memory
there; the CUDA kernels read theirs on the device. On CUDA torch itself refuses every call that synchronises (`set_sync_debug_mode("error")`) while the same
steps are taken. Where the time goes is shown beside it.
"""

import argparse
import time
from typing import Any

import numpy as np
import torch
from measure import about, keep
from torch.profiler import ProfilerActivity, profile

import vaestro
from vaestro.data.rows import Batches, Rows
from vaestro.recipes import parse
from vaestro.testing.waiting import reads
from vaestro.training.device import choose
from vaestro.training.loop import Loop

CALLS = (
    "vae:latents=16,hidden=512",
    "vae:latents=16,hidden=512,clip=1,ema=0.99,optimizer=adamw",
    "iwae:samples=5",
    "vamp:components=100",
    "top_down",
    "vae_gan:batch=16",
)


def stepping(call: str, device: torch.device) -> tuple[Loop, Any]:
    """A loop for a call on random binary pictures, some steps into its training, and how it is fetched its batches."""
    pixels = np.random.default_rng(0).integers(0, 2, (600, 1, 28, 28), np.uint8)
    data = vaestro.load(pixels)
    recipe = parse(call).cook(data.schema)
    rows = Rows(data.split("train"), data.schema, recipe.fields, device)
    batches = Batches(rows.rows, recipe.training.batch, 0, device)
    loop = Loop(recipe, 0, 1000, device)

    def fetch(step: int) -> Any:
        index = batches.batch_index(step)
        return lambda: rows.batch(index)

    for _ in range(3):
        loop.step(fetch(loop.n))
    return loop, fetch


def on_cpu(call: str, steps: int) -> dict[str, Any]:
    """Waits counted in a profile, and where the time of a step goes."""
    loop, fetch = stepping(call, torch.device("cpu"))
    start = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(steps):
            loop.step(fetch(loop.n))
    seconds = time.perf_counter() - start
    waits, inside = reads(seen)
    events = seen.key_averages()
    longest = sorted(events, key=lambda e: e.self_cpu_time_total, reverse=True)[:6]
    total = sum(e.self_cpu_time_total for e in events)
    return {
        "waits": len(waits),
        "reads_inside_fused_kernels": len(inside),
        "ms_a_step_profiled": round(1000 * seconds / steps, 2),
        "share_of_time": {e.key: round(e.self_cpu_time_total / total, 3) for e in longest},
    }


def on_cuda(call: str, steps: int) -> dict[str, Any]:
    """Steps under a mode in which a call that synchronises is an error."""
    loop, fetch = stepping(call, torch.device("cuda"))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        start = time.perf_counter()
        for _ in range(steps):
            loop.step(fetch(loop.n))
        queued = time.perf_counter() - start
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    return {"synchronising_calls": 0, "ms_a_step_queued": round(1000 * queued / steps, 3), "ms_a_step": round(1000 * (time.perf_counter() - start) / steps, 3)}


DEVICES = {"cpu": on_cpu, "cuda": on_cuda}


def main() -> None:
    """Profile every call and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=DEVICES, default=choose().type)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--calls", nargs="+", default=list(CALLS))
    arguments = parser.parse_args()
    found = {call: DEVICES[arguments.device](call, arguments.steps) for call in arguments.calls}
    name = {"cpu": "profile_step", "cuda": "profile_step_cuda"}[arguments.device]
    keep(name, {**about(), "device": arguments.device, "steps": arguments.steps, "calls": found})


if __name__ == "__main__":
    main()
