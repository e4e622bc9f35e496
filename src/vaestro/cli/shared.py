"""What every command shares: its options, how it prints, and how an error becomes one sentence and an exit code."""

import json
import math
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

from vaestro.errors import Caveat, VaestroError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from vaestro.training.runs import Run

INTERRUPTED = 130  # 128 + SIGINT, as shells count

RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run: its folder, its name inside ./runs, the first letters of it, or `demo`.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Own = Annotated[
    Path | None, typer.Option("--from", metavar="FILE", help="Your own Python file, whose @vaestro.recipe functions join the book; it is executed.")
]
Seed = Annotated[int, typer.Option(min=0, max=2**64 - 1, help="The same seed gives the same result.")]
COLUMNS = "Kinds of a table's columns: amount=positive,city=category,id=skip; the others are found from their values. May be repeated."
Columns = Annotated[list[str] | None, typer.Option("--columns", metavar="NAME=KIND,...", help=COLUMNS)]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; chosen by itself if left out.")]


class Commands(TyperGroup):
    """The commands, with errors that the user can mend told in one sentence on stderr instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; VaestroError ends with its exit code, Ctrl-C with 130, and a caveat is printed as a note."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("always", Caveat)
                warnings.showwarning = noted
                return super().invoke(ctx)
        except VaestroError as error:
            typer.echo(f"vaestro: {error}", err=True)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            typer.echo("vaestro: stopped", err=True)
            raise typer.Exit(INTERRUPTED) from None


def noted(message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None, line: str | None = None) -> None:
    """A warning on stderr: a caveat as a note, any other as Python shows it."""
    typer.echo(f"Note: {message}" if issubclass(category, Caveat) else warnings.formatwarning(message, category, filename, lineno, line), err=True)


def console(err: bool = False) -> "Console":
    """A console that never breaks words such as paths into colours."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    return Console(file=stream, highlight=False, soft_wrap=not stream.isatty())


def finite(data: Any) -> Any:
    """The same data with null in place of NaN and infinities, which JSON does not have."""
    if isinstance(data, dict):
        return {k: finite(v) for k, v in data.items()}
    if isinstance(data, list | tuple):
        return [finite(v) for v in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def print_json(data: Any) -> None:
    """Indented JSON on stdout."""
    typer.echo(json.dumps(finite(data), indent=1, ensure_ascii=False))


def heading(text: str) -> None:
    """A line of its own above a table."""
    from rich.text import Text

    console().print(Text(text, style="bold"))


def print_block(block: "RenderableType", width: int = 160) -> None:
    """A table or grid, as wide as the terminal, or `width` where there is none; no line ends in blanks."""
    to = console()
    to.width, to.soft_wrap = (to.width if to.is_terminal else width), False
    with to.capture() as caught:
        to.print(block)
    typer.echo("\n".join(line.rstrip() for line in caught.get().splitlines()))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> None:
    """A plain table; the columns of `numbers` are set right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i in numbers else "left", overflow="fold", no_wrap=i in numbers)
    for row in rows:
        table.add_row(*map(Text, row))
    print_block(table)
    typer.echo()


def opened(name: str, own: Path | None = None, device: str | None = None) -> "Run":
    """The run called `name`, ready for use, the recipes of the user's own file known."""
    from vaestro.recipes.files import bring
    from vaestro.training.finding import find, open_found

    bring(own)
    return open_found(find(name), device)


def called(folder: Path) -> str:
    """How the command line may call a run: by its name inside ./runs, else by its path."""
    return folder.name if folder.parent == Path("runs") else str(folder)


def wrote(path: Path, what: str, notes: Iterable[str], err: bool = False) -> None:
    """Say which file was written, what it holds, and what to know of it; on stderr where stdout holds JSON."""
    typer.echo(f"Wrote {path}: {what}.", err=err)
    for note in dict.fromkeys(notes):
        typer.echo(f"Note: {note}", err=err)
