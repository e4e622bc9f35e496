"""A challenge is a folder with `challenge.toml`: data with their hash, budgets, metrics and a headline rule, all declared before anybody runs."""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vaestro.data import load
from vaestro.data.sources import SOURCES
from vaestro.data.store import Dataset
from vaestro.errors import UsageError, VaestroError, did_you_mean
from vaestro.evaluation.metrics import METRICS
from vaestro.recipes import parse
from vaestro.training.budget import Budget, core

FILE = "challenge.toml"
SHIPPED = Path(str(files("vaestro.arena") / "challenges"))
SHORT = {"digits": "digits-dynamic"}  # names for the impatient
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]*$")]
Whole = Annotated[int, Field(ge=1)]
LATE = 2.0  # times the seconds of a tier: only a step that no deadline can cut short takes a run beyond them


class Part(BaseModel):
    """A table of the file: unknown keys and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Data(Part):
    """Where the rows come from, and the hash that they must have."""

    source: str  # the name of a data set, or a path inside the challenge's folder
    sha256: Hash
    binarisation: str  # in words; other words mean other data
    judge: str = ""  # whose feature network judges the pictures; none is needed for principal components


class Tier(Part):
    """How much each run may use, and how it is scored."""

    label: str
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**64)], ...], Field(min_length=1)]
    rows: Whole  # test rows that are scored, fixed
    samples: Whole  # importance samples a row
    seconds: Annotated[float, Field(gt=0)] | None = None
    steps: Whole | None = None
    parameters: Whole | None = None  # that a run may train; more of them are refused before the first step
    entrants: tuple[str, ...] = ()  # of this tier alone, beside those of all tiers
    metrics: tuple[str, ...] = ()  # measured in this tier alone, beside those of all tiers

    @model_validator(mode="after")
    def _one_budget(self) -> "Tier":
        if (self.seconds is None) == (self.steps is None):
            raise ValueError("a tier gives each run either seconds or steps: write exactly one of them")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed is given once")
        return self

    @property
    def budget(self) -> Budget:
        """What a run may use; its seconds are those of its own core, so that no entrant pays for what else the machine does."""
        return Budget(self.steps, self.seconds, core)

    def excess(self, steps: int | None, seconds: float | None, parameters: int | None) -> str:
        """Why a run of so many steps, seconds and parameters is beyond this tier, in words; nothing where it keeps within it."""
        most: dict[str, float | None] = {"steps": self.steps, "seconds": self.seconds, "parameters": self.parameters}
        took: dict[str, float | None] = {"steps": steps, "seconds": seconds, "parameters": parameters}
        for what, allowed in most.items():
            used = took[what]
            if used is not None and allowed is not None and used > (LATE if what == "seconds" else 1) * allowed:
                return f"it took {used:,} {what}, and the tier allows {allowed:,}"
        return ""


class Headline(Part):
    """The rule that ranks, declared before the runs."""

    metric: str
    rule: str


class Published(Part):
    """A number from a paper, shown in grey with the protocol it was made under."""

    name: str
    value: float
    unit: str
    protocol: str
    source: str


class Rules(Part):
    """The content of `challenge.toml`."""

    format: Literal[1]
    name: Name
    version: str
    title: str
    about: str = ""
    metrics: Annotated[tuple[str, ...], Field(min_length=1)]
    entrants: Annotated[tuple[str, ...], Field(min_length=1)]
    classical: tuple[str, ...] = ()  # what the entrants are compared with: fitted in seconds, and run unless others are named
    data: Data
    headline: Headline
    tiers: Annotated[dict[str, Tier], Field(min_length=1)]
    published: tuple[Published, ...] = ()

    def tier(self, name: str) -> Tier:
        """A tier by name; raises UsageError, with the names there are."""
        if name not in self.tiers:
            raise UsageError(f"challenge {self.name!r} has no tier {name!r}{did_you_mean(name, self.tiers)}")
        return self.tiers[name]

    def calls(self, tier: str) -> tuple[str, ...]:
        """Who runs in a tier unless others are named: the entrants, those of this tier alone, and the classical rows."""
        return (*self.entrants, *self.tier(tier).entrants, *self.classical)

    def measured(self, tier: Tier) -> tuple[str, ...]:
        """The metrics of a tier: those of all tiers, then its own."""
        return (*self.metrics, *tier.metrics)

    def sha256(self, tier: str) -> str:
        """The hash of all that a result depends on: data, headline and one tier, not the words, the entrants, the published rows or what else is measured.

        A column that is added later reads "not measured" for the results that are older than it; each cell carries its own protocol.
        """
        held = {"name": self.name, "version": self.version, "data": self.data.model_dump()}
        free = {"label", "entrants", "metrics"} | ({"parameters"} if self.tier(tier).parameters is None else set())  # a limit that is not set binds nothing
        bound = held | {"headline": self.headline.metric, "tier": self.tier(tier).model_dump(exclude=free)}
        return hashlib.sha256(json.dumps(bound, sort_keys=True).encode()).hexdigest()


PARTS: dict[str, type[Part]] = {"data": Data, "tiers": Tier, "headline": Headline, "published": Published}


@dataclass(frozen=True)
class Challenge:
    """The rules and the place they were read from; `where` finds it again: a shipped name, or a path."""

    rules: Rules
    file: Path
    where: str

    @property
    def source(self) -> str:
        """Where its data are, as a command names them: the name of a data set, or a path in the challenge's own folder."""
        source, place = self.rules.data.source, Path(self.where)
        return source if source in SOURCES else str((place.parent if place.is_file() else place) / source)

    def open_data(self) -> Dataset:
        """The data, their hash compared; raises VaestroError where they are not to be had or have changed."""
        source = self.rules.data.source
        data = load(source) if source in SOURCES else load(self.file.parent / source)
        if data.sha256 != self.rules.data.sha256:
            raise VaestroError(
                f"the data {source!r} are not those of challenge {self.rules.name!r} (their hash differs); bring the old ones back, or make a new challenge"
            )
        return data


def shipped() -> list[str]:
    """The names of the challenges that come with the package."""
    return sorted(p.stem for p in SHIPPED.glob("*.toml"))


def load_challenge(name: str | Path) -> Challenge:
    """The challenge of a shipped name, a folder with `challenge.toml`, or such a file.

    Raises UsageError for a name or file that is none, unknown keys (did you mean), wrong types, metrics or entrants that there are not.
    """
    text = SHORT.get(str(name), str(name))
    if text in shipped():
        return read(SHIPPED / f"{text}.toml", text)
    path = Path(text).expanduser()
    if path.is_dir() and not (path / FILE).is_file():
        raise UsageError(f"{path} has no {FILE}; `vaestro arena new {path}` makes a challenge of the data in it")
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"there is no challenge called {text!r}{did_you_mean(text, [*shipped(), *SHORT])}")
    return read(file, str(path.absolute()))


def read(file: Path, where: str) -> Challenge:
    """The challenge in a file, checked as `load_challenge` says."""
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read as TOML ({error}); mend the file") from None
    try:
        rules = Rules.model_validate_json(json.dumps(raw, default=str))  # JSON has no tuples, so arrays may stand for them in strict mode
    except ValidationError as error:
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # a misspelt key says more than the one it leaves missing
        raise UsageError(f"{file}: {_sentence(first)}; mend the file") from None
    for problem in _problems(rules):
        raise UsageError(f"{file}: {problem}; mend the file")
    return Challenge(rules, file, where)


def _problems(rules: Rules) -> list[str]:
    """What types alone cannot see."""
    named = [*rules.metrics, *(m for tier in rules.tiers.values() for m in tier.metrics)]
    found = [f"metrics names {m!r}, which is no metric{did_you_mean(m, METRICS)}" for m in named if m not in METRICS]
    found += [f"metric {m!r} is named twice, for all tiers and for one" for tier in rules.tiers.values() for m in tier.metrics if m in rules.metrics]
    if rules.headline.metric not in rules.metrics:
        found.append(f"the headline's metric {rules.headline.metric!r} is not among the metrics{did_you_mean(rules.headline.metric, rules.metrics)}")
    if not rules.data.judge and any(m.endswith("_judge") for m in named):
        found.append("metrics on the judge's features need data.judge, the name of a feature network")
    path = Path(rules.data.source)
    if rules.data.source not in SOURCES and (path.is_absolute() or ".." in path.parts):
        found.append(f"data.source is {rules.data.source!r}: name a data set, or a path inside the challenge's own folder")
    for text in (*rules.entrants, *rules.classical, *(call for tier in rules.tiers.values() for call in tier.entrants)):
        try:
            parse(text)
        except UsageError as error:
            found.append(str(error))
    return found


def _sentence(error: Mapping[str, Any]) -> str:
    """pydantic's first complaint in words that name the key."""
    *parents, key = error["loc"] or ("the file",)
    where = ".".join(str(p) for p in error["loc"]) or "the file"
    if error["type"] == "extra_forbidden":
        part = PARTS.get(str((parents or [""])[0]), Rules)
        return f"{where} is an unknown key{did_you_mean(str(key), part.model_fields)}"
    if error["type"] == "missing":
        return f"{where} is missing"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}"
