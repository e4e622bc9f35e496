"""How to get sharper images: from the blurred listing upwards, one change at a time, at equal time on grey MNIST.

    python benchmarks/ladder.py            # about an hour on two cores; stopped, it goes on from where it was
    python benchmarks/ladder.py --table    # the page and the picture again, from the results that are there

The runs are an arena (tier `zoo`) in `--out`/ladder; the page is ladder.md, the picture goes into the docs.
"""

import argparse
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from measure import about
from PIL import Image, ImageDraw
from zoo import TIER, cell, cells

from vaestro.arena import board, run
from vaestro.recipes import parse
from vaestro.training.files import write_bytes
from vaestro.uses.rows.pictures import grid

CHALLENGE = "mnist-grey"
PICTURE = Path("docs/pictures/ladder.png")
SHOWN = 10  # pictures of each kind in a row
MARGIN, HEADING, GAP = 24, 18, 16  # pixels
MEASURED = {"bits_per_dim": 3, "frechet_judge": 1, "blur": 3, "density_judge": 2, "coverage_judge": 2, "steps": 0}  # and how many digits
HEADS = ("rung", "what changed", "call", "bits/dim", "Frechet (judge)", "blur (1 is as sharp as the data)", "density", "coverage", "steps")


class Rung(NamedTuple):
    """One change, and the call that it leads to."""

    change: str
    call: str


DEEP = "hidden=512x256"
LADDER = (
    Rung("the listing: squared error as a Gaussian of scale 1", "listing_mse"),
    Rung("likelihood: the scale is learned", "vae:hidden=128,latents=256,likelihood=gaussian_shared"),
    Rung("likelihood: mixtures of discretised logistics", "vae:hidden=128,latents=256,likelihood=logistic_mixture"),
    Rung("deeper net", f"vae:{DEEP},likelihood=gaussian_shared"),
    Rung("richer prior: Vamp", f"vamp:{DEEP},likelihood=gaussian_shared"),
    Rung("hierarchy: three groups of latents", "top_down:layers=3,likelihood=gaussian_shared"),
    Rung("optimiser: AdamW at twice the rate, averaged weights", f"vamp:{DEEP},likelihood=gaussian_shared,optimizer=adamw,learning_rate=0.004,ema=0.999"),
    Rung("convolutions", "vae:network=convolutional,hidden=32x64,likelihood=gaussian_shared"),
    Rung("adversary: VAE-GAN on the same convolutions", "vae_gan:hidden=32x64"),
)


def lines(out: Path) -> Iterator[str]:
    """The page."""
    made = board(out)
    found = {line.call: cells(line, MEASURED) for line in made.lines}
    yield "# Sharper images, one change at a time\n"
    yield f"Made by `make ladder`: {CHALLENGE}, {made.label}. {about()['date']}, {about()['machine']}, no GPU. These runs only: the intervals are over rows.\n"
    yield f"| {' | '.join(HEADS)} |\n{'|---' * len(HEADS)}|"
    for i, rung in enumerate(LADDER):
        row = found.get(str(parse(rung.call)))
        if row is None:
            yield f"| {i} | {rung.change} | `{rung.call}` | not run | | | | | |"
            continue
        shown = [cell(row, metric, digits) for metric, digits in MEASURED.items()]
        yield f"| {i} | {rung.change} | `{rung.call}` | {' | '.join(shown)} |"


def picture(out: Path) -> Image.Image:
    """A strip a rung: reconstructions of test rows, then samples, of its first seed."""
    strips = []
    for line in board(out).lines:
        rung = next((i for i, r in enumerate(LADDER) if str(parse(r.call)) == line.call), None)
        file = out / "results" / f"{line.ids[0]}.show.npz"
        if rung is not None and file.exists():
            with np.load(file, allow_pickle=False) as show:
                strips.append((rung, [grid(torch.from_numpy(show[k][:SHOWN]).float() / 255, SHOWN) for k in ("reconstructions", "samples")]))
    strips.sort(key=lambda pair: pair[0])
    width, height = strips[0][1][0].size
    sheet = Image.new("L", (MARGIN + 2 * width + GAP, HEADING + len(strips) * height), 255)
    pen = ImageDraw.Draw(sheet)
    lefts = (MARGIN, MARGIN + width + GAP)
    for left, title in zip(lefts, ("test rows, given back", "samples"), strict=True):
        pen.text((left, 3), title, fill=0)
    for place, (rung, pair) in enumerate(strips):
        top = HEADING + place * height
        pen.text((8, top + height // 2 - 6), str(rung), fill=0)
        for left, strip in zip(lefts, pair, strict=True):
            sheet.paste(strip, (left, top))
    return sheet


def main() -> None:
    """Do what is still to do; write the page and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread")
    parser.add_argument("--out", type=Path, default=Path("results/ladder"))
    parser.add_argument("--table", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    if not arguments.table:
        run(CHALLENGE, TIER, arguments.out, jobs=arguments.jobs, only=[str(parse(r.call)) for r in LADDER])
    text = "\n".join(lines(arguments.out)) + "\n"
    write_bytes(arguments.out.with_suffix(".md"), text.encode())
    file = io.BytesIO()
    picture(arguments.out).save(file, "PNG", optimize=True)
    write_bytes(PICTURE, file.getvalue())
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
