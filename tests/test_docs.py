"""The documentation runs: its code, its commands and its links; and everything that has a name is named in it.

A comment in the page, on the line before a fenced block, says how the block is treated:
`<!-- run -->` runs the lines of a console block that start with `$ vaestro`, in process, and looks for the output that the block shows;
`<!-- file: NAME.py -->` writes a Python block to a file, where a later block imports it or names it;
`<!-- not run: REASON -->` only compiles a Python block. Any other Python block runs, in the order of the page.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from typer.testing import CliRunner

import vaestro
from vaestro.arena import CHALLENGES
from vaestro.cli.app import app
from vaestro.data import SOURCES
from vaestro.evaluation.metrics import METRICS
from vaestro.evaluation.outliers import OUTLIER_SCORES
from vaestro.families import LIKELIHOODS
from vaestro.models import SLOPES
from vaestro.networks import NETWORKS
from vaestro.networks.entrance import ENTRANCES
from vaestro.objectives.disentangling import ESTIMATORS, INFERRED
from vaestro.objectives.regularisers import NORMS
from vaestro.optimizers import OPTIMIZERS, PRECISIONS
from vaestro.plays.denoising import NOISES
from vaestro.plays.pairs import AVERAGES
from vaestro.posteriors import POSTERIORS
from vaestro.posteriors.geometric import SPHERICAL
from vaestro.priors import PRIORS
from vaestro.priors.fitted import FITTED
from vaestro.priors.mixtures import COVARIANCES
from vaestro.recipes import RECIPES, parse
from vaestro.recipes import files as own
from vaestro.recipes.bounds import LAWS
from vaestro.recipes.calls import TRAINING
from vaestro.recipes.deterministic import RESTRAINTS
from vaestro.schedules import RATES
from vaestro.uses.inference.noises import CORRUPTIONS
from vaestro.uses.inference.posterior_draws import REFINEMENTS
from vaestro.uses.interpolate import PATHS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [p for p in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if p.exists()]
FENCE = re.compile(r"^(?:<!-- *(?P<mark>.*?) *-->\n+)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
OPEN = (RECIPES, PRIORS, FITTED, POSTERIORS, LIKELIHOODS, NETWORKS, SPHERICAL)  # a page may add parts to these; they are as before when it ends
SHORT_ENOUGH = 40  # lines of a block of own.md


class Block(NamedTuple):
    """A fenced block of a page."""

    mark: str  # the comment before it
    language: str
    text: str
    line: int  # of the page, where the text starts


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [Block(m["mark"] or "", m["language"], m["text"], text[: m.start("text")].count("\n")) for m in FENCE.finditer(text)]


def ident(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


every_page = pytest.mark.parametrize("page", PAGES, ids=ident)


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def commands(page: Path) -> Iterator[list[str]]:
    """Every command line of vaestro that a page shows, in a block or in the text, as words."""
    lines = [line for b in blocks(page) if b.language in ("console", "sh", "bash", "") for line in b.text.splitlines()]
    lines += re.findall(r"`(vaestro [^`]+)`", prose(page))
    for command in (c for line in lines for c in re.split(r"\s*(?:;|&&)\s*", line.removeprefix("$ ").partition(" #")[0])):
        if command.startswith("vaestro "):
            yield shlex.split(command)


def command_table(group: Any, above: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Each command by its words, such as ("data", "get")."""
    found = {}
    for name, command in group.commands.items():
        inside = getattr(command, "commands", None)
        found |= {(*above, name): command} if inside is None else command_table(command, (*above, name))
    return found


COMMANDS = command_table(typer.main.get_command(app))


def python(page: Path, block: Block, names: dict[str, Any]) -> None:
    """Run a block as if it stood at its place in the page, so that a traceback names the page's line."""
    code = compile("\n" * block.line + block.text, ident(page), "exec")
    if not block.mark.startswith("not run:"):
        exec(code, names)  # noqa: S102 (our own pages)


def write(block: Block) -> None:
    """Put a block into the file that its mark names."""
    Path(block.mark.removeprefix("file:").strip()).write_text(block.text, encoding="utf-8")


def console(page: Path, block: Block) -> None:
    """Run the commands of a block; the lines after each must be in its output in this order, and `...` stands for anything within a line."""
    shown = re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]
    assert shown, f"{ident(page)}:{block.line}: a block that runs shows its commands as `$ vaestro ...`"
    for command, *lines in (part.splitlines() for part in shown):
        program, *words = shlex.split(command)
        assert program == "vaestro", f"{ident(page)}:{block.line}: only vaestro runs here, not {program}"
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, f"{ident(page)}:{block.line}: {command}\n{done.output}{done.exception or ''}"
        said = re.sub(r"[ \t]+", " ", done.output)
        wanted = [r"[^\n]*?".join(map(re.escape, " ".join(line.split()).split("..."))) for line in lines if line.strip()]
        assert re.search(r".*?".join(wanted), said, re.DOTALL), f"{ident(page)}:{block.line}: {command} does not say what the page shows, but\n{done.output}"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all pages, so that the digits are stored once and the user's own cache is left alone."""
    return tmp_path_factory.mktemp("cache")


@every_page
def test_code_runs(page: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAESTRO_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for registry in OPEN:
        monkeypatch.setattr(registry, "_parts", dict(registry._parts))
    monkeypatch.setattr(own, "_BROUGHT", {})
    names: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page):
        if block.mark.startswith("file:"):
            write(block)
        elif block.language == "python":
            python(page, block, names)
        elif block.language == "console" and block.mark == "run":
            console(page, block)


@every_page
def test_commands_exist(page: Path) -> None:
    for words in commands(page):
        name = next((tuple(words[1 : 1 + n]) for n in (2, 1) if tuple(words[1 : 1 + n]) in COMMANDS), ())
        if not name:
            group = len(words) == 2 and words[1] in {n[0] for n in COMMANDS}
            assert group or words[1].startswith("-"), f"{' '.join(words)}: there is no such command"
            continue
        known = {o for p in COMMANDS[name].params for o in (*p.opts, *p.secondary_opts)} | {"--help", "-h"}
        assert not [w for w in words if re.match(r"--?[a-z]", w) and w.partition("=")[0] not in known], " ".join(words)
        if name == ("train",) and len(words) > 2 and "--from" not in words and not re.match(r"-|NAME|[A-Z]+$", words[2]):
            parse(words[2])


@every_page
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{ident(page)} links to {target}, which is not there"
        if anchor and place.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", prose(place), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}, (
                f"{ident(page)} links to {target}, a heading that is not there"
            )


def test_every_page_is_on_the_map() -> None:
    linked = set(re.findall(r"\]\(([\w.-]+\.md)\)", (ROOT / "docs" / "index.md").read_text(encoding="utf-8")))
    assert {p.name for p in PAGES} - {"README.md", "index.md"} <= linked


def test_parts_of_your_own_are_short() -> None:
    assert all(len(b.text.splitlines()) < SHORT_ENOUGH for b in blocks(ROOT / "docs" / "own.md"))


NAMED: Mapping[str, Any] = {
    "recipe": tuple(RECIPES), "likelihood": LIKELIHOODS, "network": NETWORKS, "prior": PRIORS, "prior to fit": FITTED, "covariance": COVARIANCES,
    "posterior": POSTERIORS, "law of latents": LAWS, "metric": METRICS, "score of strangeness": OUTLIER_SCORES, "challenge": CHALLENGES, "data set": SOURCES,
    "optimiser": OPTIMIZERS, "learning-rate schedule": RATES, "precision": PRECISIONS, "keyword of training": TRAINING,
    "slope": SLOPES, "noise": NOISES, "norm of a Jacobian": NORMS, "restraint of a decoder": RESTRAINTS,
    "law of directions": SPHERICAL, "entrance": ENTRANCES, "estimator": ESTIMATORS, "covariance of inferred latents": INFERRED,
    "average of posteriors": AVERAGES, "path": PATHS, "refinement": REFINEMENTS, "known noise": CORRUPTIONS,
}  # fmt: skip


@pytest.mark.parametrize("what", NAMED)
def test_everything_with_a_name_is_documented(what: str) -> None:
    text = "\n".join(p.read_text(encoding="utf-8") for p in PAGES)
    assert not [name for name in NAMED[what] if f"`{name}`" not in text], f"name each {what} in README.md or docs/, as `name`"


def test_every_command_is_documented() -> None:
    text = "\n".join(p.read_text(encoding="utf-8") for p in PAGES)
    assert not [" ".join(name) for name in COMMANDS if not re.search(rf"vaestro {' '.join(name)}\b", text)]


def test_every_public_name_is_documented() -> None:
    text = "\n".join(p.read_text(encoding="utf-8") for p in PAGES)
    assert not [name for name in vaestro.__all__ if not re.search(rf"\b{name}\b", text)]
