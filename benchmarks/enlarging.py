"""How much faster is a resize with its convolution as one transposed convolution? Beside the two in a row, and the matrix products alone.

    python benchmarks/enlarging.py            # about a minute; writes benchmarks/results/enlarging.json

Milliseconds of one thread for a batch of maps, forward and forward with backward, the sides in turn in processes of their own, medians over rounds. The floor
is what the 4 products a number of the large map cost as one matrix product of their size, forward alone.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import torch
from measure import ALONE, about, keep, ratios, side, spread
from torch import Tensor, nn

from vaestro.networks.convolutional import Enlarged

CASES = {
    "64 to 32 channels, 14x14 to 28x28": (250, 64, 32, 14),
    "128 to 64 channels, 8x8 to 16x16": (128, 128, 64, 8),
    "64 to 1 channel, 14x14 to 28x28": (250, 64, 1, 14),
}
TIMES = 5


def plain(layer: nn.Conv2d, size: tuple[int, int]) -> nn.Module:
    """What it replaces."""
    return nn.Sequential(nn.Upsample(size=size, mode="nearest"), layer)


SIDES: dict[str, Callable[[nn.Conv2d, tuple[int, int]], nn.Module]] = {"vaestro": Enlarged, "in_a_row": plain}


def milliseconds(f: Callable[[], object]) -> float:
    """The median of a few calls after a first one."""
    f()
    times = []
    for _ in range(TIMES):
        start = time.perf_counter()
        f()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def measured(name: str) -> dict[str, float]:
    """Milliseconds of every case, forward (`f`) and trained (`t`)."""
    found = {}
    for case, (n, inputs, outputs, h) in CASES.items():
        torch.manual_seed(0)
        x, layer = torch.randn(n, inputs, h, h), nn.Conv2d(inputs, outputs, 3, padding=1)
        if name == "floor":
            a, b = torch.randn(n * h * h, 4 * inputs), torch.randn(4 * inputs, 4 * outputs)
            found[f"f {case}"] = milliseconds(lambda a=a, b=b: a @ b)  # type: ignore[misc]
            continue
        net = SIDES[name](layer, (2 * h, 2 * h))

        def trained(net: nn.Module = net, x: Tensor = x) -> None:
            net(x.clone().requires_grad_()).sum().backward()

        with torch.no_grad():
            found[f"f {case}"] = milliseconds(lambda net=net, x=x: net(x))  # type: ignore[misc]
        found[f"t {case}"] = milliseconds(trained)
    return found


def main() -> None:
    """Interleave the sides and write medians, ratios and their spread."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", choices=[*SIDES, "floor"])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.side:
        sys.stdout.write(json.dumps(measured(arguments.side)) + "\n")
        return
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in (*SIDES, "floor")}
    for _ in range(arguments.rounds):
        for name, rounds in seen.items():
            rounds.append(side(__file__, "--side", name, environment=ALONE))
    rows = {}
    for key in seen["vaestro"][0]:
        times = {name: [r[key] for r in rounds if key in r] for name, rounds in seen.items()}
        words = ("forward" if key[0] == "f" else "forward and backward") + ", " + key[2:]
        rows[words] = {name: spread(t, 1) for name, t in times.items() if t} | {"in a row over vaestro": ratios(times["in_a_row"], times["vaestro"])}
    keep("enlarging", {**about(), "unit": "ms", "rounds": arguments.rounds, "cases": rows})


if __name__ == "__main__":
    main()
