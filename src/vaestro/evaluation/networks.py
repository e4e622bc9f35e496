"""The feature networks that set metrics and feature distances read, by name: an open table of makers, so that a command and a challenge find the same ones."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import singledispatch
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaestro.data import stacked
from vaestro.data.rows import Rows
from vaestro.data.schema import Table
from vaestro.data.store import Dataset
from vaestro.errors import UsageError
from vaestro.evaluation.imagenet import Pooled, inception_v3, lite0
from vaestro.evaluation.judge import Features, Pca, load
from vaestro.evaluation.scope import fixed_rows
from vaestro.networks.judge import ByChannel, Judge
from vaestro.networks.reading import Columns
from vaestro.registry import Registry
from vaestro.seeds import forked

LOOK = 10_000  # training rows that principal components are fitted to
SEED = 0  # one for all, so that everybody's features are the same


@dataclass(frozen=True)
class Setting:
    """What a maker may ask: the data, whose judge network is to judge them (the data's own name by default), and weights that the user brought."""

    data: Dataset
    judge: str = ""
    inception: Path | None = None


Maker = Callable[[Setting], Features]  # raises UsageError where the network is not to be had
NETWORKS: Registry[Maker] = Registry("feature network")


@dataclass(frozen=True)
class Networks(Mapping[str, Features]):
    """Every registered feature network for one setting, made when it is first asked for; raises UsageError then, where it is not to be had."""

    setting: Setting
    made: dict[str, Features] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Features:
        if name not in self.made:
            self.made[name] = NETWORKS[name](self.setting)
        return self.made[name]

    def __contains__(self, name: object) -> bool:
        return name in NETWORKS

    def __iter__(self) -> Iterator[str]:
        return iter(NETWORKS)

    def __len__(self) -> int:
        return len(NETWORKS)


STACKED = {stacked.NAME: "mnist"}  # data whose channels a judge of grey pictures looks at one by one


def judge(setting: Setting) -> Features:
    """The shipped judge of the data, or the one that the setting names; of stacked pictures, one that looks at each channel by itself."""
    name = setting.data.name
    found = load(setting.judge or STACKED.get(name, name))
    return ByChannel(found, stacked.CHANNELS) if name in STACKED else found


class TablePca:
    """Principal components of rows of a table as encoders read them: numbers standardised, categories one-hot or embedded, and what was seen."""

    name = "pca64"

    def __init__(self, table: Table, rows: Tensor) -> None:
        self.reader = Columns(table, nn.Identity()).requires_grad_(False)
        self.pca = Pca.fit(self.reader(rows))

    def features(self, images: Tensor) -> Tensor:
        """Rows [n, columns] as the table holds them to coordinates [n, components], float32."""
        return self.pca.features(self.reader(images))


def components(setting: Setting) -> Features:
    """The first 64 principal components of at most 10,000 fixed training rows, as models see them."""
    if "x" not in setting.data.schema:
        raise UsageError(f"data {setting.data.name!r} have no field 'x' to take principal components of; leave out the metrics on pca64")
    rows = Rows(setting.data.split("train"), setting.data.schema)
    with forked(torch.device("cpu")):
        torch.manual_seed(SEED)
        x, kind = rows.batch(fixed_rows(rows.rows, LOOK))["x"], setting.data.schema["x"].kind
        return TablePca(kind, x) if isinstance(kind, Table) else Pca.fit(x)


class Made(NamedTuple):
    """What a network's features depend on beside the rows."""

    weights: Mapping[str, Tensor]
    preprocessing: str  # what is done to a row before the network sees it, in words that change when it does


@singledispatch
def made(network: Features) -> Made:
    """What a network is made of, by which kept features are known to be its own. Open; raises UsageError for a network that does not say."""
    raise UsageError(
        f"features by {network.name!r} cannot be kept, for {type(network).__name__} does not say what it is made of; register it with @made.register"
    )


@made.register
def _(network: Judge) -> Made:
    return Made(network.state_dict(), "unit values, 2 x - 1")


@made.register
def _(network: ByChannel) -> Made:
    return Made(network.judge.state_dict(), f"each of {network.channels} channels by itself: unit values, 2 x - 1")


@made.register
def _(network: Pca) -> Made:
    return Made(network.state_dict(), "unit values")


@made.register
def _(network: TablePca) -> Made:
    return Made(
        {**dict(network.reader.named_buffers()), **dict(network.reader.named_parameters()), **network.pca.state_dict()}, "columns as encoders read them"
    )


@made.register
def _(network: Pooled) -> Made:
    return Made(network.weights, network.preparation.words)


NETWORKS.add("pca64", components)  # first, for what looks at one network alone should find one that nearly all data have
NETWORKS.add("judge", judge)
NETWORKS.add("effnetlite0", lambda _: lite0())
NETWORKS.add("inception", lambda setting: inception_v3(setting.inception))
