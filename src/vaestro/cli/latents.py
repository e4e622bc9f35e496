"""Commands that use the latents of rows."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaestro.cli.shared import Device, Json, Own, RunName, Seed

if TYPE_CHECKING:
    from vaestro.uses.classify import Classified
    from vaestro.uses.cluster import Clustered
    from vaestro.uses.recognise import Recognised
    from vaestro.uses.rows.lots import Wish

ROWS = "Rows: a data set's name, a folder of pictures, a .npy file, a table (.csv, .parquet); the run's own data if left out."
Rows = Annotated[str | None, typer.Argument(metavar="[DATA]", help=ROWS)]
SplitName = Annotated[str, typer.Option(help="Which rows of data with splits: train, validation or test.")]
Resize = Annotated[bool, typer.Option("--resize", help="Bring pictures to the run's size and colours first.")]
Table = Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE", help="A row for each row (.csv, .parquet).")]


def wished(split: str, resize: bool) -> "Wish":
    """Which rows a command asks for, and how pictures are brought to the run's size."""
    from vaestro.uses.rows.inputs import exact, fitting
    from vaestro.uses.rows.lots import Wish

    return Wish(split, bring=fitting if resize else exact)


def told(about: dict[str, Any], as_json: bool, lines: list[str], out: Path | None = None) -> None:
    """What was found, as JSON, or in lines with its notes."""
    from vaestro.cli.shared import print_json
    from vaestro.cli.tables import say

    if as_json:
        print_json({"out": None if out is None else str(out), **about})
        return
    for line in [*lines, *(f"Note: {note}." for note in about.get("notes", []))]:
        say(line)
    if out is not None:
        say(f"Wrote {out}.")


def tabled(make: Callable[[], "Clustered | Classified | Recognised"], out: Path | None, as_json: bool, *read: str | None) -> None:
    """Find something for each row, under the eyes of the user, and write it as a table where one is asked for; never over a file that is `read`."""
    from vaestro.cli.cards import watching
    from vaestro.uses.cluster import require_table_writer

    if out is not None:
        require_table_writer(out, *(Path(file) for file in read if file is not None))
    with watching():
        made = make()
    if out is not None:
        made.write(out)
    told(made.to_json(), as_json, made.lines, out)


def embed(
    run: RunName,
    data: Rows = None,
    *,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="Numbers alone (.npy), or named columns (.csv, .parquet).")],
    read: Annotated[str, typer.Option("--read", metavar="means|samples", help="The middle of each posterior, or one draw from it.")] = "means",
    group: Annotated[str | None, typer.Option(metavar="NAME", help="One latent group of a hierarchy; all of them if left out.")] = None,
    split: SplitName = "test",
    resize: Resize = False,
    seed: Seed = 0,
    device: Device = None,
    own: Own = None,
    as_json: Json = False,
) -> None:
    """Write the latents of rows, group by group, streamed: memory does not grow with the rows."""
    from vaestro.cli.cards import watching
    from vaestro.cli.shared import opened
    from vaestro.uses.embed import READINGS, Codes, require_writer, write_codes

    require_writer(out, *([] if data is None else [Path(data)]))
    wanted = Codes(READINGS[read], group, seed)
    with watching():
        made = write_codes(opened(run, own, device), out, data, wished(split, resize), wanted)
    groups = ", ".join(f"{name} in columns {first} to {end - 1}" for name, (first, end) in made.columns.items())
    told(made.to_json(), as_json, [f"{made.rows:,} rows; {groups}."], out)


def plot(
    run: RunName,
    data: Rows = None,
    *,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="A picture (.png, .pdf, .svg).")] = Path("map.png"),
    by: Annotated[str, typer.Option(metavar="pca|umap", help="Straight directions, or neighbourhoods (needs the extra `umap`, and minutes).")] = "pca",
    split: SplitName = "test",
    resize: Resize = False,
    seed: Seed = 0,
    own: Own = None,
    as_json: Json = False,
) -> None:
    """Draw a map of the latents, classes in colours, and say how far it can be trusted."""
    from vaestro.cli.cards import watching
    from vaestro.cli.shared import opened
    from vaestro.uses.plot import PROJECTIONS, require_plotter
    from vaestro.uses.plot import plot as draw

    require_plotter(out)
    PROJECTIONS[by]  # a misspelt one is told before anything is computed
    with watching():
        made = draw(opened(run, own), out, data, by, wished(split, resize), seed)
    told(made.to_json(), as_json, [f"{made.caption}."], out)


def cluster(
    run: RunName,
    data: Rows = None,
    *,
    by: Annotated[str | None, typer.Option(metavar="NAME", help="prior (where it is a mixture: the default there), gmm, kmeans or hdbscan.")] = None,
    number: Annotated[int | None, typer.Option(min=1, help="How many clusters; by the likelihood of validation rows if left out.")] = None,
    out: Table = None,
    split: SplitName = "test",
    resize: Resize = False,
    seed: Seed = 0,
    own: Own = None,
    as_json: Json = False,
) -> None:
    """Put rows in clusters, by the prior itself or among the latents, and compare them with labels where there are some."""
    from vaestro.cli.shared import opened
    from vaestro.uses.cluster import clusters

    tabled(lambda: clusters(opened(run, own), data, by, number, wished(split, resize), seed), out, as_json, data)


def classify(
    run: RunName,
    data: Rows = None,
    *,
    labels: Annotated[int | None, typer.Option(min=1, help="How many labels of training rows a probe may read; all of them if left out.")] = None,
    by: Annotated[str | None, typer.Option(metavar="NAME", help="own (a model that has classes: the default there), linear or knn.")] = None,
    out: Table = None,
    split: SplitName = "test",
    resize: Resize = False,
    seed: Seed = 0,
    own: Own = None,
    as_json: Json = False,
) -> None:
    """Tell the classes of rows, with calibrated probabilities, from few labels or many."""
    from vaestro.cli.shared import opened
    from vaestro.uses.classify import Probing, classified

    tabled(lambda: classified(opened(run, own), data, Probing(by, labels, seed=seed), wished(split, resize)), out, as_json, data)


def recognise(
    run: RunName,
    gallery: Annotated[str, typer.Argument(metavar="GALLERY", help="Rows of known classes: a folder with a sub-folder for each, or labelled data.")],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="Rows to recognise.")],
    *,
    by: Annotated[str, typer.Option(metavar="NAME", help="euclidean, or mahalanobis with a covariance that classes share.")] = "euclidean",
    shots: Annotated[int | None, typer.Option(min=1, help="Rows of a class that make it known; half of them if left out. The others calibrate.")] = None,
    reject: Annotated[float, typer.Option(help="How many rows of known classes may be called unknown, as a share.")] = 0.05,
    out: Table = None,
    split: SplitName = "test",
    resize: Resize = False,
    seed: Seed = 0,
    own: Own = None,
    as_json: Json = False,
) -> None:
    """Tell the nearest known class of each row, or that it is of none, at a stated rate of false rejections."""
    from vaestro.cli.shared import opened
    from vaestro.uses.recognise import Recognising
    from vaestro.uses.recognise import recognise as nearest

    tabled(lambda: nearest(opened(run, own), gallery, query, Recognising(by, shots, reject, seed), wished(split, resize)), out, as_json, gallery, query)


def augment(
    run: RunName,
    *,
    label: Annotated[str, typer.Option("--class", metavar="CLASS", help="The class, by its name or number.")],
    n: Annotated[int, typer.Option("-n", min=1, help="How many extra rows.")] = 500,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE", help="Rows (.csv, .parquet, .npy, .png), or a new folder of pictures.")] = None,
    by: Annotated[
        str | None, typer.Option(metavar="NAME", help="conditional (the default of models told a class), interpolation, kde, mixture, smote.")
    ] = None,
    judge: Annotated[str, typer.Option(metavar="NAME", help="forest or logistic.")] = "forest",
    repeats: Annotated[int, typer.Option(min=1, help="New rows and new judges, for the interval.")] = 5,
    split: SplitName = "test",
    seed: Seed = 0,
    own: Own = None,
    as_json: Json = False,
) -> None:
    """Make extra rows of a class, and prove on real held-out rows whether they help a classifier."""
    from vaestro.cli.cards import watching
    from vaestro.cli.shared import opened
    from vaestro.uses.augment import Augmenting, require_out, write_rows
    from vaestro.uses.augment import augment as make

    of = opened(run, own)
    if out is not None:
        require_out(out, of)
    with watching():
        made = make(of, label, n, Augmenting(by, judge, repeats, split, seed))
    notes = [] if out is None else write_rows(out, made)
    told(made.to_json(), as_json, [*made.said, *(f"Note: {note}." for note in notes)], out)
