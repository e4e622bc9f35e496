"""The table of commands."""

from collections.abc import Callable
from typing import Annotated

import typer

from vaestro.cli import panels
from vaestro.cli.arena import app as arena
from vaestro.cli.book import list_all, show
from vaestro.cli.data import app as data
from vaestro.cli.detecting import detect
from vaestro.cli.explaining import explain
from vaestro.cli.images import arithmetic, interpolate, traverse, vary
from vaestro.cli.latents import augment, classify, cluster, embed, plot, recognise
from vaestro.cli.looking import compare, diagnose, evaluate, runs
from vaestro.cli.making import export, generate, impute, reconstruct
from vaestro.cli.restoring import complete, denoise
from vaestro.cli.shared import Commands
from vaestro.cli.training import fit_prior, resume, search, train

HELP = """Variational autoencoders: train, judge and use them.

A recipe is called by its name and keywords, `iwae:samples=5,latents=40`; the options of training are keywords too, `vae:batch=64,ema=0.999`.
A run is named by its folder, its name inside ./runs, or the first letters of it; `demo` is a small trained run that came with the package.
"""
NARROW = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(cls=Commands, help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, context_settings=NARROW)


def _version(asked: bool) -> bool:
    if asked:
        import vaestro

        typer.echo(f"vaestro {vaestro.__version__}")
        raise typer.Exit
    return asked


@app.callback()
def options(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False) -> None:
    """What stands before the command."""


PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Train": (train, resume, fit_prior, search),
    "Judge": (evaluate, diagnose, compare, panels.panel, runs),
    "Use": (generate, reconstruct, vary, interpolate, traverse, arithmetic, explain, denoise, complete, impute, detect, export),
    "Use latents": (embed, plot, cluster, classify, recognise, augment),
    "Know": (list_all, show),
}
for panel, commands in PANELS.items():
    for command in commands:
        app.command(name=command.__name__.removesuffix("_all").replace("_", "-"), rich_help_panel=panel)(command)
app.add_typer(data, name="data", rich_help_panel="Know")
app.add_typer(arena, name="arena", rich_help_panel="Judge")
