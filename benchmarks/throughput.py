"""Training throughput: vaestro, pythae 0.1.2, a hand-written step and the matmul floor, interleaved in one run.

    python benchmarks/throughput.py            # about six minutes; writes benchmarks/results/throughput.json

The net is 784-512-16-512-784, batch 128, Adam at 1e-3, on 12,800 random binary rows; images a second of whole steps, medians over rounds.
`documented`: each library as its own documentation says, threads and waiting left to it. `identical`: one thread and passive waiting for all.
Needs `pip install --no-deps pythae==0.1.2 cloudpickle imageio tqdm` beside the dev extra.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ROWS, BATCH, EPOCHS = 12_800, 128, 3


def rows() -> "torch.Tensor":
    """Random binary rows, the same for every side."""
    import torch

    return (torch.rand(ROWS, 1, 28, 28, generator=torch.Generator().manual_seed(0)) < 0.13).float()


def trained(call: str) -> float:
    """Images a second of `vaestro.train`, from the first step to the last, with its log, validation and monitor."""
    import numpy as np

    import vaestro as v

    with tempfile.TemporaryDirectory() as folder:
        run = v.train(call, rows().numpy().astype(np.uint8), steps=EPOCHS * ROWS // BATCH, out=f"{folder}/run")
        return run.about["done_steps"] * BATCH / run.about["seconds"]


def vaestro() -> float:
    """In float32, as the others are."""
    return trained("vae:latents=16,hidden=512,batch=128")


def vaestro_bfloat16() -> float:
    """In mixed precision, which this processor may have instructions for: not the same arithmetic as the others'."""
    return trained("vae:latents=16,hidden=512,batch=128,precision=bfloat16")


def vaestro_compiled() -> float:
    """In float32 with the model's call compiled; without the first three steps, in which the compiler works."""
    import numpy as np

    import vaestro as v

    with tempfile.TemporaryDirectory() as folder:
        pixels = rows().numpy().astype(np.uint8)
        first, *_, last = v.train("vae:latents=16,hidden=512,batch=128", pixels, steps=EPOCHS * ROWS // BATCH, out=f"{folder}/run", compile=True).log()
    return (last["step"] - first["step"]) * BATCH / (last["seconds"] - first["seconds"])


def pythae() -> float:
    """Images a second of pythae's trainer with its default VAE networks, as its README trains."""
    import contextlib
    import io
    import logging

    logging.disable(logging.CRITICAL)
    import torch
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    model = VAE(VAEConfig(input_dim=(1, 28, 28), latent_dim=16, reconstruction_loss="bce"))
    data = BaseDataset(rows(), torch.ones(ROWS))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        config = BaseTrainerConfig(output_dir=folder, num_epochs=EPOCHS, learning_rate=1e-3, per_device_train_batch_size=BATCH, no_cuda=True)
        trainer = BaseTrainer(model=model, train_dataset=data, training_config=config)
        start = time.perf_counter()
        trainer.train()
        return EPOCHS * ROWS / (time.perf_counter() - start)


def by_hand() -> float:
    """Images a second of a step written out in plain PyTorch with the same optimiser."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    x = rows()
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 512), nn.SiLU(), nn.Linear(512, 32))
    decoder = nn.Sequential(nn.Linear(16, 512), nn.SiLU(), nn.Linear(512, 784))
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 1e-3, fused=True)

    def epoch() -> None:
        for index in torch.randperm(ROWS).split(BATCH):
            batch = x[index]
            mean, raw = encoder(batch).chunk(2, -1)
            scale = F.softplus(raw) + 1e-4
            logits = decoder(mean + scale * torch.randn_like(mean))
            log_px = -F.binary_cross_entropy_with_logits(logits, batch.flatten(1), reduction="none").sum(-1)
            kl = 0.5 * (mean.square() + scale.square() - 1 - 2 * scale.log()).sum(-1)
            optimizer.zero_grad()
            (kl - log_px).mean().backward()
            optimizer.step()

    epoch()
    start = time.perf_counter()
    for _ in range(EPOCHS):
        epoch()
    return EPOCHS * ROWS / (time.perf_counter() - start)


def floor() -> float:
    """Images a second if nothing but the net's own matrix products, forward and backward, had to be done."""
    import torch

    sizes = [(784, 512), (512, 32), (16, 512), (512, 784)]
    w = [(torch.randn(BATCH, i), torch.randn(i, o), torch.randn(BATCH, o)) for i, o in sizes]

    def step() -> None:
        for n, (a, b, g) in enumerate(w):
            a @ b
            a.T @ g
            if n:
                g @ b.T

    for _ in range(20):
        step()
    start = time.perf_counter()
    for _ in range(300):
        step()
    return 300 * BATCH / (time.perf_counter() - start)


SIDES = {f.__name__: f for f in (vaestro, vaestro_bfloat16, vaestro_compiled, pythae, by_hand, floor)}


def child(side: str, environment: dict[str, str]) -> float:
    """One measurement in a process of its own."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "MKL_"))}
    done = subprocess.run([sys.executable, __file__, "--side", side], env=clean | environment, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Interleave the sides and write medians, ratios and their spread."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    if arguments.side:
        sys.stdout.write(f"{SIDES[arguments.side]()}\n")
        return
    found: dict[str, object] = {"net": "784-512-16-512-784", "batch": BATCH, "rounds": arguments.rounds, "unit": "images a second"}
    found |= {"date": time.strftime("%Y-%m-%d"), "cores": os.cpu_count()}
    for mode, environment in {"documented": {}, "identical": {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}}.items():
        speeds: dict[str, list[float]] = {side: [] for side in SIDES}
        for _ in range(arguments.rounds):
            for side, values in speeds.items():
                values.append(child(side, environment))
        ratios = {side: [a / b for a, b in zip(speeds["vaestro"], speeds[side], strict=True)] for side in SIDES if side != "vaestro"}
        found[mode] = {
            "median": {s: round(statistics.median(v)) for s, v in speeds.items()},
            "spread": {s: [round(min(v)), round(max(v))] for s, v in speeds.items()},
            "vaestro over": {s: {"median": round(statistics.median(r), 2), "min": round(min(r), 2), "max": round(max(r), 2)} for s, r in ratios.items()},
        }
    out = Path(__file__).parent / "results" / "throughput.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    sys.stdout.write(out.read_text())


if __name__ == "__main__":
    main()
