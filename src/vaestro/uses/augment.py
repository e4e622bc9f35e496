"""Extra rows for a rare class, and whether a classifier that learns from them too is better on real held-out rows."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vaestro.core import content
from vaestro.data.prepare.tables import unpacked
from vaestro.data.schema import Category, Field, Table
from vaestro.errors import UsageError, did_you_mean
from vaestro.evaluation.metrics.encodings import require_learners
from vaestro.evaluation.sure import Sure, mean, room, shares, within
from vaestro.progress import tell
from vaestro.registry import Registry
from vaestro.seeds import forked
from vaestro.training.finding import by_name
from vaestro.training.runs import Run
from vaestro.uses.classify import require_labels
from vaestro.uses.extra import MAKERS, Ask, Maker, smote
from vaestro.uses.rows.frames import require_frame_writer, write_frame
from vaestro.uses.rows.given import givable
from vaestro.uses.rows.lots import LABEL, Lot, Wish, lot, named
from vaestro.uses.rows.pictures import require_writer, visible, write

MOST = 10_000  # rows that a judge learns from, or is tried on
MARGIN = 0.01  # a gain that is surely smaller than this is none
REPEATS = 5


Judge: TypeAlias = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]  # (rows, labels, other rows, seed): the class of each other row
JUDGES: Registry[Judge] = Registry("judge of extra rows")


@JUDGES.register
def forest(rows: np.ndarray, labels: np.ndarray, held: np.ndarray, seed: int) -> np.ndarray:
    """A random forest of 100 trees (Breiman 2001), which takes gaps."""
    from sklearn.ensemble import RandomForestClassifier

    return np.asarray(RandomForestClassifier(100, random_state=seed).fit(rows, labels).predict(held))


@JUDGES.register
def logistic(rows: np.ndarray, labels: np.ndarray, held: np.ndarray, seed: int) -> np.ndarray:
    """Multinomial logistic regression on standardised numbers, gaps at the mean."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    made = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), LogisticRegression(max_iter=2000, tol=1e-3))
    return np.asarray(made.fit(rows, labels).predict(held))


class Line(NamedTuple):
    """A judge that learnt from some rows, on real held-out rows: balanced accuracy, recall of the class, and the first's gain over no extra rows."""

    balanced: Sure
    recall: Sure
    gain: Sure | None = None

    @property
    def verdict(self) -> str:
        """Whether the extra rows helped: the gain is surely above 0; surely below 0.01, which is no help; or neither is sure."""
        if self.gain is None:
            return ""
        return "helped" if self.gain.low > 0 else "did not help" if self.gain.high < MARGIN else "undecided"


class Augmenting(NamedTuple):
    """How rows are made (`MAKERS`; `conditional` where the model can be given a class, else `interpolation`), and judged: by what (`JUDGES`), how often."""

    by: str | None = None
    judge: str = "forest"
    repeats: int = REPEATS
    split: str = "test"
    seed: int = 0


USUAL = Augmenting()


@dataclass(frozen=True)
class Augmented:
    """Extra rows of a class [n, *shape] in unit values, and a line of proof for none, for these, and for SMOTE in the data."""

    run: str
    field: Field
    label: str
    by: str
    rows: Tensor
    real: int  # training rows of the class
    learnt: int  # training rows in all
    held: int  # real rows that the judges are tried on
    lines: dict[str, Line]
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """Whether these rows helped."""
        return self.lines[self.by].verdict

    @property
    def said(self) -> list[str]:
        """What was found, in words."""
        learnt = f"judges learnt {self.learnt:,} rows, {self.real:,} of them of the class, and were tried on {self.held:,} real ones"
        lines = [f"{len(self.rows):,} extra rows of class {self.label} by {self.by}; {learnt}."]
        for name, line in self.lines.items():
            gain = "" if line.gain is None else f"; gain {line.gain}: {line.verdict}"
            lines.append(
                f"{'without extra rows' if name == 'none' else f'with {name}'}: balanced accuracy {line.balanced}, recall of the class {line.recall}{gain}."
            )
        return lines

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        about = {"run": self.run, "class": self.label, "by": self.by, "rows": len(self.rows), "real_rows": self.real, "training_rows": self.learnt}
        lines = {}
        for name, line in self.lines.items():
            numbers = {k: None if v is None else v._asdict() for k, v in line._asdict().items()}
            lines[name] = {**numbers, "verdict": line.verdict}
        return {**about, "held_out_rows": self.held, "verdict": self.verdict, "judged": lines, "notes": list(self.notes)}


@by_name
def augment(run: Run, label: str | int, n: int, how: Augmenting = USUAL) -> Augmented:
    """`n` extra rows of the class `label`, and whether they help a classifier on real rows of a split that made none of them.

    A judge learns from at most 10,000 training rows, without and with the extra ones; each held-out row's being right counts as much as its class is rare, so
    that the mean is the balanced accuracy. The gain is paired by row; its interval counts repeats (new extra rows, a new judge) and rows as crossed. Beside it
    stands SMOTE in the data. The run itself may have been trained on the class' training rows. Raises UsageError for data without labels, an unknown class,
    fewer than 2 training rows of it, none held out, n below 1, and ways that the model cannot go.
    """
    require_learners()
    judge, by = JUDGES[how.judge], how.by or ("conditional" if LABEL in givable(run) else "interpolation")
    makers = {by: MAKERS[by], "smote": smote}
    if n < 1 or how.repeats < 1:
        raise UsageError(f"{n} rows and {how.repeats} repeats were asked for; at least one of each is made")
    train, held = (lot(run, None, Wish(split, MOST)) for split in ("train", how.split))
    labels, truth = require_labels(train), held.labelled()
    c = class_of(run, label)
    own = np.flatnonzero(labels == c)
    for rows, least, of in ((len(own), 2, train), (int((truth == c).sum()), 1, held)):
        if rows < least:
            raise UsageError(f"the {of.name} have {rows} of class {train.classes[c]}, and at least {least} are needed; give another class, or more data")
    x, test = values(train, run), values(held, run)
    ask = Ask(run, x[own], c, n, how.seed)
    made = makers[by](ask)
    lines = _proof((x, labels), (test, truth), ask, makers, judge, how.repeats)
    return Augmented(run.name, run.field, train.classes[c], by, made, len(own), len(x), len(test), lines)


def _proof(
    train: tuple[Tensor, np.ndarray], held: tuple[Tensor, np.ndarray], ask: Ask, makers: dict[str, Maker], judge: Judge, repeats: int
) -> dict[str, Line]:
    """A judge on held-out rows, without extra rows and with those of each maker; each repeat makes new ones."""
    rows, labels = train[0].flatten(1).numpy(), train[1]
    test, truth = held[0].flatten(1).numpy(), held[1]
    counts = np.bincount(truth)
    weight = len(truth) / (np.count_nonzero(counts) * counts[truth])  # so that every class counts alike
    right: dict[str, list[np.ndarray]] = {name: [] for name in ("none", *makers)}
    for i in range(repeats):
        tell("judges", i / repeats)
        right["none"].append(judge(rows, labels, test, i) == truth)
        for name, maker in makers.items():
            extra = maker(ask._replace(seed=ask.seed + i)).flatten(1).numpy()
            more = np.concatenate([labels, np.full(len(extra), ask.label)])
            right[name].append(judge(np.concatenate([rows, extra]), more, test, i) == truth)
    tell("judges", 1.0)
    without, of = np.array(right["none"], dtype=np.float64), truth == ask.label
    lines = {}
    for name, found in right.items():
        scores = np.array(found, dtype=np.float64)
        gain = None if name == "none" else room(mean((scores - without) * weight), len(truth), weight.max())
        lines[name] = Line(within(room(mean(scores * weight), len(truth), weight.max())), shares(np.array(found)[:, of]), gain)
    return lines


def class_of(run: Run, label: str | int) -> int:
    """The number of a class by name or number; raises UsageError, with what was probably meant, for another."""
    kind = run.schema[LABEL].kind
    assert isinstance(kind, Category), "labels are classes"
    names = named(kind)
    if str(label) not in names and not (str(label).isdecimal() and int(label) < kind.n):
        raise UsageError(f"there is no class {label!r}{did_you_mean(str(label), names)}")
    return names.index(str(label)) if str(label) in names else int(label)


def values(of: Lot, run: Run) -> Tensor:
    """All rows of a lot in unit values [n, *shape], drawn under a fixed seed where they are stored as intensities."""
    with forked(torch.device("cpu")):
        torch.manual_seed(0)
        return torch.cat([content(b[run.field.name]) for b in of.batches()])


def write_rows(path: Path, made: Augmented) -> list[str]:
    """The extra rows to a file by its ending (`pictures.write`), of a table with its label's column; or to a new folder of pictures, where `path` has none.

    Raises UsageError for an unknown ending, a folder that is there already, and rows that are no pictures for a folder.
    """
    kind = made.field.kind
    if not path.suffix:
        return _folder(path, made)
    if isinstance(kind, Table):
        import polars as pl

        name = next((a.name for a in kind.aside if a.reason == LABEL), LABEL)
        write_frame(path, unpacked(kind, made.rows.numpy()).with_columns(pl.lit(made.label).alias(name)))
        return []
    return write(path, made.field, made.rows)


def require_out(path: Path, run: Run) -> None:
    """Raises UsageError where `write_rows` could not write: said before anything is made."""
    if path.suffix:
        (require_frame_writer if isinstance(run.field.kind, Table) else require_writer)(path)
        return
    if len(run.field.shape) != 3 or run.field.shape[0] not in (1, 3):
        raise UsageError(f"the rows of {run.name} are shaped {run.field.shape} and are no pictures; write them to a file, -o extra.csv")
    if path.exists() or not path.parent.is_dir():
        reason = "it is there already" if path.exists() else f"there is no folder {path.parent}"
        raise UsageError(f"cannot make the folder {path}: {reason}; choose another")


def _folder(path: Path, made: Augmented) -> list[str]:
    shown, notes = visible(made.field.kind, made.rows)
    pixels = (shown.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        inside = Path(folder) / path.name
        inside.mkdir()
        for i, picture in enumerate(pixels):
            Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(inside / f"{made.label}-{i:05}.png".replace("/", "-"))
        inside.rename(path)
    return notes
