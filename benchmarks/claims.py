"""What each method claims, tested: two recipes at equal steps, three seeds, one difference with its interval, one verdict.

    python benchmarks/claims.py                       # hours on two cores; stopped, it goes on from where it was
    python benchmarks/claims.py --only vamp iwae      # these claims
    python benchmarks/claims.py --table               # the page again, from the results that are there

The runs are an arena (tier `claims`) in `--out`/claims-CHALLENGE, each result a file that is kept; claims.json and claims.md hold every claim of which
all results are there.
"""

import argparse
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measure import about

from vaestro.arena import run
from vaestro.arena.board import Entry, differences, load
from vaestro.arena.folder import open_arena
from vaestro.evaluation.intervals import Estimate
from vaestro.evaluation.metrics import METRICS
from vaestro.recipes import parse
from vaestro.training.files import write_bytes, write_json

TIER = "claims"
NET = "latents=40,hidden=300x300"


@dataclass(frozen=True)
class Claim:
    """A method, what it is said to be better than, and in which metric."""

    says: str
    method: str
    than: str
    metric: str = "nll"
    published: str = "none"
    challenge: str = "mnist-dynamic"


VAE = f"vae:{NET}"
CLAIMS: dict[str, Claim] = {
    "vamp": Claim("a VampPrior beats the standard normal", f"vamp:{NET}", VAE, published="-2.0 nats (Tomczak & Welling 2018, gated net, to the end)"),
    "iwae": Claim("IWAE with 5 samples beats the ELBO", f"iwae:{NET}", VAE, published="-1.2 nats (Burda et al. 2016, table 1)"),
    "flow-prior": Claim("a flow as prior beats the standard normal", f"flow_prior:{NET}", VAE, published="-3.1 nats, one static conv net (Xu et al. 2019)"),
    "iaf": Claim("a flow as posterior beats the Gaussian one", f"iaf:{NET}", VAE, published="none on this net (Kingma et al. 2016)"),
    "exemplar": Claim("exemplars beat the VampPrior", f"exemplar:{NET}", f"vamp:{NET}", published="-0.34 nats (Norouzi et al. 2020, gated net, to the end)"),
    "gmm": Claim("a learned mixture of Gaussians beats the standard normal", f"gmm_prior:{NET}", VAE, published="between the standard normal and Vamp"),
    "dreg": Claim("DReG beats the usual gradient of IWAE", f"dreg:{NET}", f"iwae:{NET}", published="curves only (Tucker et al. 2019)"),
    "stl": Claim("sticking the landing beats the usual gradient", f"stl:{NET}", VAE, published="none with this protocol (Roeder et al. 2017)"),
    "free-bits": Claim("free bits keep latents in use", f"free_bits_vae:{NET}", VAE, "active_units", "none in numbers (Kingma et al. 2016)"),
    "warm-up": Claim("KL warm-up keeps latents in use", f"vae:{NET},warm_up=0.2", VAE, "active_units", "none in numbers (Soenderby et al. 2016)"),
    "cyclical": Claim("cyclical annealing keeps latents in use", f"cyclical:{NET}", VAE, "active_units", "none: the numbers are of text (Fu et al. 2019)"),
    "curriculum": Claim("easy rows first learn faster than shuffled ones", f"curriculum:{NET}", VAE, published="none for VAEs"),
}


def verdict(low: float, high: float) -> str:
    """Holds where the whole interval of the loss's difference lies below zero, fails where it lies above."""
    return "holds" if high < 0 else "fails" if low > 0 else "undecided"


def runs_of(call: str, entries: list[Entry], seeds: tuple[int, ...]) -> list[Entry] | None:
    """The finished runs of a call by seed, or None while one is missing."""
    text = str(parse(call))
    found = {e.result.seed: e for e in entries if e.result.call == text and e.result.status == "done"}
    return [found[s] for s in seeds] if all(s in found for s in seeds) else None


def result(claim: Claim, out: Path) -> dict[str, Any] | None:
    """A claim beside what was measured, or None while results are missing."""
    folder = out / f"claims-{claim.challenge}"
    if not folder.exists():
        return None
    arena = open_arena(folder)
    entries = [load(arena, path) for path in arena.results]
    pair = [runs_of(call, entries, arena.challenge.rules.tier(TIER).seeds) for call in (claim.method, claim.than)]
    if pair[0] is None or pair[1] is None:
        return None
    found = differences([pair[0], pair[1]], claim.metric)
    interval = Estimate(found.mean[0, 1], found.variance[0, 1], found.df[0, 1], found.seeds).interval()
    metric = METRICS[claim.metric]
    means = [float(np.mean([e.result.metrics[claim.metric].value for e in runs])) for runs in pair if runs is not None]
    seconds = [float(np.mean([e.result.seconds or math.nan for e in runs])) for runs in pair if runs is not None]
    told = {"method_value": means[0], "than_value": means[1], "difference": interval.mean, "low": interval.low, "high": interval.high}
    cost = {"method_seconds": round(seconds[0], 1), "than_seconds": round(seconds[1], 1)}
    return {**asdict(claim), "unit": metric.unit, "better": metric.direction.value, **told, "verdict": verdict(interval.low, interval.high), **cost}


def lines(table: dict[str, Any]) -> Iterator[str]:
    """The page."""
    yield "# What methods claim, and what was measured\n"
    yield f"Made by `make claims` ({table['protocol']}). {table['date']}, {table['machine']}. Differences are of losses, negative where the method is better,"
    yield "with 95 % intervals over seeds and rows, each claim tested by itself. Equal steps do not cost the same: the seconds a run stand beside.\n"
    yield "| claim | method | than | metric | published | method, than | difference | verdict | seconds |\n|---|---|---|---|---|---|---|---|---|"
    for name, row in table["claims"].items():
        claim = CLAIMS[name]
        if row is None:
            yield f"| {claim.says} | `{claim.method}` | `{claim.than}` | {claim.metric} | {claim.published} | not run | | | |"
            continue
        values = f"{row['method_value']:.2f}, {row['than_value']:.2f} {row['unit']}"
        difference = f"{row['difference']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
        seconds = f"{row['method_seconds']:.0f}, {row['than_seconds']:.0f}"
        cells = (claim.says, f"`{claim.method}`", f"`{claim.than}`", claim.metric, claim.published, values, difference, row["verdict"], seconds)
        yield f"| {' | '.join(cells)} |"


def report(out: Path) -> None:
    """Write the table as JSON and as a page."""
    protocol = "10,000 steps, three seeds, 2,000 fixed test rows, 200 importance samples"
    table = {**about(), "protocol": protocol, "claims": {n: result(c, out) for n, c in CLAIMS.items()}}
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "claims.json", table)
    text = "\n".join(lines(table)) + "\n"
    write_bytes(out / "claims.md", text.encode())
    sys.stdout.write(text)


def main() -> None:
    """Do what is still to do, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CLAIMS, default=list(CLAIMS))
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--table", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    wanted = [CLAIMS[name] for name in arguments.only]
    for challenge in dict.fromkeys(c.challenge for c in wanted) if not arguments.table else ():
        calls = list(dict.fromkeys(str(parse(call)) for c in wanted if c.challenge == challenge for call in (c.method, c.than)))
        run(challenge, TIER, arguments.out / f"claims-{challenge}", jobs=arguments.jobs, only=calls)
    report(arguments.out)


if __name__ == "__main__":
    main()
