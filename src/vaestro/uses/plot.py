"""A map of the latents: two directions, every row a point, classes in colours, and how far the map can be trusted in its caption."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from vaestro.errors import UsageError
from vaestro.evaluation.metrics.neighbourhoods import MOST, NEIGHBOURS, intrusion, ranks
from vaestro.evaluation.scope import fixed_rows
from vaestro.evaluation.sure import Sure, mean
from vaestro.registry import Registry
from vaestro.training.files import write_bytes
from vaestro.training.finding import by_name
from vaestro.training.runs import Run, title
from vaestro.uses.embed import codes
from vaestro.uses.rows.lots import USUAL, Lot, Wish, lot

ENDINGS = (".png", ".pdf", ".svg")
LEGEND = 20  # classes, of which colours can still be told apart
CELLS = 200  # across, of the grid on which the density of points is counted

Project: TypeAlias = Callable[[np.ndarray, int], tuple[np.ndarray, tuple[str, str]]]  # (latents, seed): a plane [n, 2] and what its axes are
PROJECTIONS: Registry[Project] = Registry("projection")


@PROJECTIONS.register
def pca(z: np.ndarray, seed: int) -> tuple[np.ndarray, tuple[str, str]]:
    """The two directions of greatest variance (Pearson 1901), the sign such that the largest loading is positive; one latent stands beside zeros."""
    middle = z - z.mean(0)
    values, vectors = np.linalg.eigh(middle.T @ middle / max(1, len(z) - 1))
    first = vectors[:, ::-1][:, :2]
    first = first * np.where(np.take_along_axis(first, np.abs(first).argmax(0)[None], 0) < 0, -1.0, 1.0)
    shares = values[::-1][: first.shape[1]] / (values.sum() or 1.0)
    plane = middle @ first
    names = [f"component {i + 1} ({share:.0%} of the variance)" for i, share in enumerate(shares)]
    if plane.shape[1] == 1:
        return np.concatenate([plane, np.zeros_like(plane)], 1), (names[0], "")
    return plane, (names[0], names[1])


@PROJECTIONS.register
def umap(z: np.ndarray, seed: int) -> tuple[np.ndarray, tuple[str, str]]:
    """UMAP (McInnes et al. 2018) with 15 neighbours and its other defaults: near rows stay near; distances between groups mean little."""
    if find_spec("umap") is None:
        raise UsageError("umap is not installed, and it is heavy; run `pip install 'vaestro[umap]'`, or choose --by pca")
    if len(z) < 4:
        raise UsageError(f"a UMAP of {len(z)} rows shows nothing; give more rows, or choose --by pca")
    import warnings

    from umap import UMAP

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own libraries
        found = UMAP(n_neighbors=min(15, len(z) - 1), random_state=seed, n_jobs=1).fit_transform(z.astype(np.float32))
    return np.asarray(found, dtype=np.float64), ("UMAP 1", "UMAP 2")


@dataclass(frozen=True)
class Map:
    """Rows in a plane [n, 2] with their classes, and trustworthiness and continuity of the plane as a map of the latents, on at most 2,000 rows."""

    run: str
    rows: Lot
    by: str
    plane: np.ndarray
    axes: tuple[str, str]
    trustworthiness: Sure | None
    continuity: Sure | None
    notes: tuple[str, ...] = ()

    @property
    def caption(self) -> str:
        """What stands below the map."""
        if self.trustworthiness is None:
            return f"{self.rows.size:,} {self.rows.name}; too few rows to say how far the map can be trusted"
        t, c = self.trustworthiness, self.continuity
        return f"{self.rows.size:,} {self.rows.name}; of {NEIGHBOURS} neighbours: trustworthiness {t}, continuity {c}"

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        about = {"run": self.run, "rows": self.rows.size, "data": self.rows.name, "by": self.by, "axes": list(self.axes), "notes": list(self.notes)}
        numbers = {"trustworthiness": self.trustworthiness, "continuity": self.continuity}
        return {**about, **{n: None if s is None else s._asdict() for n, s in numbers.items()}}


def chart(run: Run, rows: Any = None, by: str = "pca", wish: Wish = USUAL, seed: int = 0) -> Map:
    """The posterior means of rows in a plane, by the name of a projection in `PROJECTIONS`.

    Trustworthiness: neighbours on the map are neighbours in the latents; continuity: the other way round (Venna & Kaski 2001; 12 neighbours, Euclidean, at most
    2,000 fixed rows), with the t-interval over rows. Raises UsageError for an unknown projection, latents that do not vary, and where `lot` does.
    """
    project = PROJECTIONS[by]
    of = lot(run, rows, wish)
    z = codes(run, of)
    if not z.std(0).any():
        raise UsageError(f"the latents of all {len(z)} rows are equal, so there is no map; give other rows, or see `vaestro diagnose {run.name}`")
    plane, axes = project(z, seed)
    some = fixed_rows(len(z), MOST).numpy()
    if len(some) <= 3 * NEIGHBOURS:
        return Map(run.name, of, by, plane, axes, None, None, of.notes)
    true, shown = ranks(z[some]), ranks(plane[some])
    return Map(run.name, of, by, plane, axes, mean(intrusion(true, shown)), mean(intrusion(shown, true)), of.notes)


def require_plotter(path: Path) -> None:
    """Raises UsageError where a map cannot be drawn to `path`: another ending, no such folder, or no matplotlib."""
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"cannot draw {path}: a map is written as {', '.join(ENDINGS)}")
    if not path.parent.is_dir():
        raise UsageError(f"cannot draw {path}: there is no folder {path.parent}; make it first, or choose another")
    if find_spec("matplotlib") is None:
        raise UsageError("maps are drawn with matplotlib, which is not installed; run `pip install 'vaestro[science]'`")


def opacity(plane: np.ndarray) -> np.ndarray:
    """How opaque each point is, [n], 0.06 to 0.9: full where points are few, less with the square root of how many share its cell of a 200 by 200 grid."""
    low, high = plane.min(0), plane.max(0)
    cell = ((plane - low) / np.where(high > low, high - low, 1.0) * (CELLS - 1)).astype(np.int64)
    _, index, counts = np.unique(cell[:, 0] * CELLS + cell[:, 1], return_inverse=True, return_counts=True)
    return np.asarray(np.clip(0.9 / np.sqrt(counts[index]), 0.06, 0.9))


def draw_map(path: Path, made: Map, heading: str | None = None) -> None:
    """The map as a picture: points rasterised, in random order, so that no class lies above the others; a legend of at most 20 classes."""
    require_plotter(path)
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 7.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    order = np.random.default_rng(0).permutation(len(made.plane))
    labels = made.rows.labels
    present = np.unique(labels) if labels is not None else np.zeros(0, np.int64)
    palette = colormaps["tab10" if len(present) <= 10 else "tab20" if len(present) <= LEGEND else "turbo"]
    place = np.searchsorted(present, labels) if labels is not None else np.zeros(len(order), np.int64)
    of = [palette(i) if len(present) <= LEGEND else palette(i / (len(present) - 1)) for i in range(max(1, len(present)))]
    colours = np.asarray(of)[place]
    colours[:, 3] = opacity(made.plane)
    size = float(np.clip(40_000 / len(order), 1.5, 24.0))
    axes.scatter(made.plane[order, 0], made.plane[order, 1], s=size, c=colours[order], linewidths=0, rasterized=True)
    axes.set(xlabel=made.axes[0], ylabel=made.axes[1], title=heading or made.run)
    axes.spines[["top", "right"]].set_visible(False)
    if 2 <= len(present) <= LEGEND:
        for i, c in enumerate(present):
            axes.scatter([], [], s=36, color=of[i], label=made.rows.classes[c] if made.rows.classes else str(c))
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.supxlabel(made.caption, fontsize=8, color="0.35")
    file = io.BytesIO()
    figure.savefig(file, format=path.suffix[1:].lower())
    write_bytes(path, file.getvalue())


@by_name
def plot(run: Run, path: Path | str, rows: Any = None, by: str = "pca", wish: Wish = USUAL, seed: int = 0) -> Map:
    """`chart`, drawn to a .png, .pdf or .svg file."""
    path = Path(path)
    require_plotter(path)
    made = chart(run, rows, by, wish, seed)
    draw_map(path, made, f"{title(run.about)} on {run.schema.name}")
    return made
