"""Rows to codes: a million rows streamed within 2 GB of anonymous memory, and the speed beside pythae's `embed` on a network of the same sizes.

    pip install --no-deps pythae==0.1.2 cloudpickle imageio tqdm
    python benchmarks/embedding.py                  # a gigabyte of disk in --folder, some minutes of one core; writes benchmarks/results/embedding.json

Both sides read the same array of 784 numbers a row, encode with one hidden layer of 512 and 16 latents in float32 on one thread; ours writes the means to a
file, theirs returns what `embed` gives, rows in batches of 500. Rounds alternate, each side in a process of its own; seconds are those of the processor, which
other programs do not take. Ours streams a file of bytes; theirs is given a float tensor.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import ALONE, about, keep, ratios, side, spread
from memory import Peak

SHAPE, HIDDEN, LATENTS = (1, 28, 28), 512, 16
LIMIT = 2048  # MB


def rows(path: Path, n: int) -> None:
    """A file of n random binary pictures."""
    rng, made = np.random.default_rng(0), np.lib.format.open_memmap(path, "w+", np.uint8, (n, *SHAPE))
    for start in range(0, n, 50_000):
        made[start : start + 50_000] = rng.integers(0, 2, made[start : start + 50_000].shape, dtype=np.uint8)
    made.flush()


def ours(folder: Path, n: int, out: str) -> dict[str, Any]:
    """Processor seconds and peak anonymous memory of `write_codes` for the first n rows."""
    import vaestro
    from vaestro.uses.embed import write_codes

    run = folder / "run"
    if not run.exists():
        small = np.random.default_rng(0).integers(0, 2, (300, *SHAPE), dtype=np.uint8)
        vaestro.train(f"vae:latents={LATENTS},hidden={HIDDEN}", small, steps=1, out=run)
    opened = vaestro.open_run(run)
    array = np.load(folder / "rows.npy", mmap_mode="r")[:n]
    write_codes(opened, folder / "warm.npy", array[:1000])
    with Peak() as peak:
        start = time.process_time()
        write_codes(opened, folder / out, array)
        seconds = time.process_time() - start
    return {"seconds": seconds, "peak_mb": round(peak.most, 1)}


def theirs(folder: Path, n: int) -> dict[str, Any]:
    """Processor seconds of pythae's `embed` for the first n rows."""
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = torch.nn.Sequential(torch.nn.Linear(784, HIDDEN), torch.nn.SiLU())
            self.mean, self.log_var = torch.nn.Linear(HIDDEN, LATENTS), torch.nn.Linear(HIDDEN, LATENTS)

        def forward(self, x: torch.Tensor) -> Any:
            h = self.hidden(x.flatten(1))
            return ModelOutput(embedding=self.mean(h), log_covariance=self.log_var(h))

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            layers = (torch.nn.Linear(LATENTS, HIDDEN), torch.nn.SiLU(), torch.nn.Linear(HIDDEN, 784), torch.nn.Sigmoid())
            self.layers = torch.nn.Sequential(*layers)

        def forward(self, z: torch.Tensor) -> Any:
            return ModelOutput(reconstruction=self.layers(z).reshape(-1, *SHAPE))

    model = VAE(VAEConfig(input_dim=SHAPE, latent_dim=LATENTS, reconstruction_loss="bce"), Encoder(), Decoder()).eval()
    x = torch.from_numpy(np.load(folder / "rows.npy", mmap_mode="r")[:n].astype(np.float32))
    with torch.inference_mode():
        model.embed(x[:1000])
        start = time.process_time()
        z = torch.cat([model.embed(part) for part in x.split(500)])
        seconds = time.process_time() - start
    assert len(z) == n
    return {"seconds": seconds}


def main() -> None:
    """Measure both and keep the numbers; or one side, for a process of its own."""
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("--folder", type=Path, default=None)
    told.add_argument("--rows", type=int, default=1_000_000)
    told.add_argument("--beside", type=int, default=20_000, help="rows of the comparison")
    told.add_argument("--rounds", type=int, default=5)
    told.add_argument("--side", choices=("ours", "theirs", "both"), default="both")
    asked = told.parse_args()
    torch.set_num_threads(1)
    if asked.side != "both":
        import json

        found = ours(asked.folder, asked.rows, "codes.npy") if asked.side == "ours" else theirs(asked.folder, asked.rows)
        sys.stdout.write(json.dumps(found) + "\n")
        return
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        rows(Path(name) / "rows.npy", asked.rows)
        seen: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}
        for _ in range(asked.rounds):
            for who, found in seen.items():
                found.append(side(__file__, "--side", who, "--folder", name, "--rows", str(asked.beside), environment=ALONE))
        large = side(__file__, "--side", "ours", "--folder", name, "--rows", str(asked.rows), environment=ALONE)
    per_second = {who: [asked.beside / r["seconds"] for r in found] for who, found in seen.items()}
    speed = {f"{who}_rows_a_second": spread(v, 0) for who, v in per_second.items()}
    large = {"rows": asked.rows, "seconds": round(large["seconds"], 1), "peak_anonymous_mb": large["peak_mb"], "limit_mb": LIMIT}
    keep("embedding", {**about(), "rows": asked.beside, **speed, "ours_over_theirs": ratios(per_second["ours"], per_second["theirs"]), "large": large})


if __name__ == "__main__":
    main()
