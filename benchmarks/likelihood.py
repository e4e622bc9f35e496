"""Importance-sampled likelihood: vaestro, pythae 0.1.2's `get_nll` and the matmul floor, interleaved, on one net with one set of weights.

    python benchmarks/likelihood.py            # about six minutes; writes benchmarks/results/likelihood.json

The net is pythae's default 784-512-16-512-784, trained for a moment on structured binary rows, so that both sides estimate the same, non-trivial number;
the file says how far apart the two estimates are, in their own Monte Carlo errors. What pythae calls `nll` is +log p, and it takes `batch_size` samples
where `n_samples` asks for fewer, so `n_samples` is a multiple of its batch here. `pythae` is `get_nll` called as its name invites, which keeps the graph
of a backward pass that never comes; `pythae_no_grad` is the same under `torch.no_grad()`. It encodes each row anew for every sample, so that it has at
least twice the matrix products of the decoder alone, which are the `floor`.
Speeds are rows x samples a second. `documented`: threads left to each side. `identical`: one thread and passive waiting for all.
Needs `pip install --no-deps pythae==0.1.2 cloudpickle imageio tqdm` beside the dev extra.
"""

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from measure import ALONE, about, keep, ratios, side, spread
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaestro.conditional import Conditional
from vaestro.evaluation.likelihood import importance
from vaestro.families import Bernoulli
from vaestro.models import VAE
from vaestro.networks import mlp
from vaestro.objectives import elbo
from vaestro.priors import StandardNormal

LATENTS, HIDDEN, SHAPE = 16, 512, (1, 28, 28)


class LogVariance:
    """A Gaussian whose network gives the mean and the log-variance, as pythae's does."""

    params, event_dims = 2, 1

    def __call__(self, h: Tensor) -> Distribution:
        """N(mean, exp(log-variance)) over the last axis."""
        mean, log_variance = h.chunk(2, -1)
        return Independent(Normal(mean, (log_variance / 2).exp(), validate_args=False), 1, validate_args=False)


def data(rows: int) -> Tensor:
    """Binary rows that eight factors explain, [rows, 1, 28, 28]."""
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, 8, generator=draws) @ torch.randn(8, 784, generator=draws) / 8 - 2
    return (torch.rand(rows, 784, generator=draws) < logits.sigmoid()).float().view(rows, *SHAPE)


def ours() -> VAE:
    """pythae's default networks as a vaestro model."""
    q = Conditional(mlp(SHAPE, (2 * LATENTS,), (HIDDEN,), nn.ReLU), LogVariance())
    return VAE(StandardNormal((LATENTS,)), q, Conditional(mlp((LATENTS,), SHAPE, (HIDDEN,), nn.ReLU), Bernoulli(3)))


def theirs() -> Any:
    """pythae's VAE with its default networks."""
    logging.disable(logging.CRITICAL)
    from pythae.models import VAE as PythaeVAE
    from pythae.models import VAEConfig

    return PythaeVAE(VAEConfig(input_dim=SHAPE, latent_dim=LATENTS, reconstruction_loss="bce")).eval()


def linears(model: nn.Module) -> list[nn.Linear]:
    """The linear layers of a network, in order."""
    return [m for m in model.modules() if isinstance(m, nn.Linear)]


def hand_over(source: VAE, target: Any) -> None:
    """Copy our weights into pythae's networks, whose mean and log-variance are two layers instead of one."""
    into, read = linears(source.posterior)
    for theirs, weight, bias in (
        (target.encoder.layers[0][0], into.weight, into.bias),
        (target.encoder.embedding, read.weight[:LATENTS], read.bias[:LATENTS]),
        (target.encoder.log_var, read.weight[LATENTS:], read.bias[LATENTS:]),
        *((layer[0], own.weight, own.bias) for layer, own in zip(target.decoder.layers, linears(source.likelihood), strict=True)),
    ):
        theirs.weight.data.copy_(weight)
        theirs.bias.data.copy_(bias)


def train(path: Path, rows: int, samples: int) -> dict[str, float]:
    """Weights that every side uses: a moment of training, so that posteriors are narrow and samples matter."""
    torch.manual_seed(0)
    model, x, objective = ours(), data(4000), elbo()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    for step in range(600):
        loss = objective(model({"x": x[torch.arange(step * 128, step * 128 + 128) % len(x)]})).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_file(model.state_dict(), path)
    return {}


def trained(path: Path) -> VAE:
    """The model with these weights."""
    model = ours()
    model.load_state_dict(load_file(path))
    return model.eval()


def timed(work: Callable[[], dict[str, float]], draws: int) -> dict[str, float]:
    """What `work` found, and its draws a second."""
    start = time.perf_counter()
    found = work()
    return {"speed": draws / (time.perf_counter() - start), **found}


def vaestro(path: Path, rows: int, samples: int) -> dict[str, float]:
    """`importance`, as the library calls it."""
    model, x = trained(path), data(rows)
    importance(model, {"x": x[:4]}, 100)

    def work() -> dict[str, float]:
        found = importance(model, {"x": x}, samples)
        return {"log_px": found.mean, "error": float((found.sampling_error**2).sum() ** 0.5 / rows), "ess": float(found.ess.mean())}

    return timed(work, rows * samples)


def pythae(path: Path, rows: int, samples: int) -> dict[str, float]:
    """`get_nll` as it stands."""
    return _get_nll(path, rows, samples, nullcontext())


def pythae_no_grad(path: Path, rows: int, samples: int) -> dict[str, float]:
    """`get_nll` without gradients."""
    return _get_nll(path, rows, samples, torch.no_grad())


def _get_nll(path: Path, rows: int, samples: int, scope: Any) -> dict[str, float]:
    model, x = theirs(), data(rows)
    hand_over(trained(path), model)
    torch.manual_seed(1)
    with scope:
        model.get_nll(x[:1], n_samples=200)
        return timed(lambda: {"log_px": float(model.get_nll(x, n_samples=samples))}, rows * samples)


def floor(path: Path, rows: int, samples: int) -> dict[str, float]:
    """The decoder's own matrix products and nothing else, a thousand draws at a time."""
    weights = [layer.weight.detach().T for layer in linears(trained(path).likelihood)]
    inputs = [torch.randn(1000, len(w)) for w in weights]

    def work() -> dict[str, float]:
        for _ in range(max(1, rows * samples // 1000)):
            for a, w in zip(inputs, weights, strict=True):
                a @ w
        return {}

    with torch.inference_mode():
        work()
        return timed(work, max(1, rows * samples // 1000) * 1000)


SIDES = {f.__name__: f for f in (vaestro, pythae, pythae_no_grad, floor)}
WORK = {"train": train, **SIDES}
MODES = {"documented": {}, "identical": ALONE}


def measure(name: str, arguments: argparse.Namespace, environment: dict[str, str]) -> dict[str, float]:
    """One side's numbers from a process of its own."""
    options = ("--weights", str(arguments.weights), "--rows", str(arguments.rows), "--samples", str(arguments.samples))
    return side(__file__, "--side", name, *options, environment=environment)


def compare(arguments: argparse.Namespace, environment: dict[str, str]) -> dict[str, Any]:
    """Every side in turn, `rounds` times."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in SIDES}
    for _ in range(arguments.rounds):
        for name, values in found.items():
            values.append(measure(name, arguments, environment))
    speeds = {name: [v["speed"] for v in values] for name, values in found.items()}
    us, them = found["vaestro"][0], found["pythae"][0]
    apart = abs(us["log_px"] - them["log_px"]) / (us["error"] * 2**0.5)
    return {
        "rows x samples a second": {name: spread(values, 0) for name, values in speeds.items()},
        "vaestro over": {name: ratios(speeds["vaestro"], values) for name, values in speeds.items() if name != "vaestro"},
        "log p(x), nats": {"vaestro": us["log_px"], "pythae": them["log_px"], "apart, in Monte Carlo errors": round(apart, 2)},
        "effective samples a row": round(us["ess"], 1),
    }


def main() -> None:
    """Interleave the sides and write medians, ratios and their spread."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", choices=WORK, help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--samples", type=int, default=1000, help="a multiple of 100, pythae's batch")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    arguments = parser.parse_args()
    if arguments.side:
        sys.stdout.write(json.dumps(WORK[arguments.side](arguments.weights, arguments.rows, arguments.samples)) + "\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        arguments.weights = Path(folder) / "weights.safetensors"
        measure("train", arguments, ALONE)
        modes = {name: compare(arguments, MODES[name]) for name in arguments.modes}
    net = {"net": "784-512-16-512-784", "rows": arguments.rows, "samples": arguments.samples, "rounds": arguments.rounds}
    keep("likelihood", {**about(), **net, **modes})


if __name__ == "__main__":
    main()
