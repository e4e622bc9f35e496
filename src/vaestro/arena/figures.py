"""Figures of the report, as plain SVG and PNG inside the page: no scripts, no fonts, nothing from a network."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from PIL import Image

from vaestro.arena.board import Board
from vaestro.arena.words import number

COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#d4a72c", "#b07aa1", "#ff9da7", "#9c755f", "#8a8f98")
SEEDS = ("#0b5fa5", "#c4561b", "#2c7f4f", "#7a4fa3", "#777777")
WARM_UP = 0.05  # of a curve, which may run off the scale


def picture(images: np.ndarray, columns: int) -> str:
    """Images uint8 [n, C, H, W] as a grid in one PNG, as a data address; other than three channels are shown as grey, the first of them."""
    n, channels, height, width = images.shape
    rows = -(-n // columns)
    shown = images if channels == 3 else images[:, :1].repeat(3, 1)
    sheet = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, 3), 225, np.uint8)
    for i, image in enumerate(shown):
        top, left = (i // columns) * (height + 1) + 1, (i % columns) * (width + 1) + 1
        sheet[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray(sheet).quantize(64).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def scatter(points: np.ndarray, labels: np.ndarray | None, classes: Sequence[str], title: str) -> str:
    """Points [n, 2] coloured by class, each class named at its middle and in a legend."""
    size, edge = 360, 14
    low, high = np.quantile(points, 0.002, 0), np.quantile(points, 0.998, 0)
    scale = (size - 2 * edge) / max(float((high - low).max()), 1e-9)
    xy = np.clip((points - (low + high) / 2) * scale * (1, -1) + size / 2, 2, size - 2)
    groups = np.zeros(len(points), np.int64) if labels is None else labels
    parts, names = [], []
    for c in np.unique(groups):
        colour, own = COLOURS[c % len(COLOURS)], xy[groups == c]
        dots = "".join(f"M{x:.0f} {y:.0f}h0" for x, y in own)
        parts.append(f'<path d="{dots}" stroke="{colour}" stroke-width="5" stroke-linecap="round" stroke-opacity=".65" fill="none"/>')
        if labels is not None and c < len(classes):
            x, y = np.median(own, 0)
            names.append(f'<text x="{x:.0f}" y="{y + 4:.0f}" class="in-map">{escape(classes[c][:12])}</text>')
    legend = "" if labels is None else "".join(_key(COLOURS[c % len(COLOURS)], classes[c] if c < len(classes) else str(c)) for c in np.unique(groups))
    body = f'<svg viewBox="0 0 {size} {size}" role="img" aria-label="{escape(title)}" class="map">{"".join(parts)}{"".join(names)}</svg>'
    return body + (f'<p class="legend">{legend}</p>' if legend else "")


def _key(colour: str, name: str) -> str:
    return f'<span><i style="background:{colour}"></i>{escape(name)}</span>'


def curve(term: str, lines: Mapping[int, np.ndarray]) -> str:
    """One term of the loss over the steps, [points, 2] for each seed; the start may run off the top."""
    width, height = 220, 84
    held = {seed: p[np.isfinite(p).all(1)] for seed, p in lines.items()}
    held = {seed: p for seed, p in held.items() if len(p)}
    if not held:
        return ""
    settled = np.concatenate([p[int(WARM_UP * len(p)) :, 1] for p in held.values()])
    low, high = float(settled.min()), float(settled.max())
    span, most = (high - low) or 1.0, max(float(p[-1, 0]) for p in held.values()) or 1.0
    drawn = []
    for i, p in enumerate(held.values()):
        y = np.clip(height - 6 - (p[:, 1] - low) / span * (height - 12), 0, height)
        dots = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(p[:, 0] / most * (width - 4) + 2, y, strict=True))
        drawn.append(f'<polyline points="{dots}" fill="none" stroke="{SEEDS[i % len(SEEDS)]}" stroke-width="1.6" stroke-opacity=".85"/>')
    last = " / ".join(number(float(f"{p[-1, 1]:.4g}")) for p in held.values())
    ends = f'<span class="ends">{number(float(f"{low:.3g}"))} to {number(float(f"{high:.3g}"))}; {int(most):,} steps</span>'
    label = escape(term.replace("_", " "))
    ground = f'<rect width="{width}" height="{height}" class="plot"/>'
    svg = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label} over the steps">{ground}{"".join(drawn)}</svg>'
    return f'<figure class="curve"><figcaption><b>{label}</b> <span>{last}</span></figcaption>{svg}{ends}</figure>'


def intervals(board: Board) -> str:
    """The headline metric of every ranked entry with its interval, published numbers as grey marks below."""
    lines = board.ranked
    values = [line.values[board.headline] for line in lines]
    unit = board.column(board.headline).unit
    grey = [p for p in board.published if p.unit == unit]
    marks = [v for x in values for v in (x.mean, x.low, x.high) if v is not None] + [p.value for p in grey]
    if not lines:
        return ""
    low, high = min(marks), max(marks)
    low, high = low - 0.04 * (high - low or 1), high + 0.04 * (high - low or 1)
    row, left, width = 24, 150, 720

    def at(v: float) -> float:
        return left + (v - low) / (high - low) * (width - left - 16)

    bottom = row * (len(lines) + (1 if grey else 0)) + 8
    parts = [f'<line x1="{at(t):.1f}" x2="{at(t):.1f}" y1="0" y2="{bottom}" class="tick"/>' for t in ticks(low, high)]
    parts += [f'<text x="{at(t):.1f}" y="{bottom + 14}" class="axis">{number(t)}</text>' for t in ticks(low, high)]
    for i, (line, value) in enumerate(zip(lines, values, strict=True)):
        y = row * i + 16
        parts.append(f'<text x="{left - 10}" y="{y + 4}" class="name">{escape(line.call[:22])}</text>')
        if value.low is not None and value.high is not None:
            parts.append(f'<line x1="{at(value.low):.1f}" x2="{at(value.high):.1f}" y1="{y}" y2="{y}" class="whisker"/>')
        parts.append(f'<circle cx="{at(value.mean):.1f}" cy="{y}" r="4.5" class="dot"/>')
    for p in grey:
        y = row * len(lines) + 16
        parts.append(f'<circle cx="{at(p.value):.1f}" cy="{y}" r="4" class="grey"><title>{escape(p.name)}: {p.value:g} {escape(p.unit)}</title></circle>')
    if grey:
        parts.append(f'<text x="{left - 10}" y="{row * len(lines) + 20}" class="name grey-text">published</text>')
    label = f"{escape(board.headline)} of each entry with its interval"
    return f'<svg viewBox="0 0 {width} {bottom + 20}" role="img" aria-label="{label}" class="intervals">{"".join(parts)}</svg>'


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers between two ends."""
    rough = (high - low) / about
    step = 10 ** math.floor(math.log10(rough))
    step *= next(m for m in (1, 2, 5, 10) if m * step >= rough)
    first = math.ceil(low / step)
    return [round(i * step, 10) for i in range(first, math.floor(high / step) + 1)]
