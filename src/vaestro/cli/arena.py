"""Commands of the arena."""

import typer

app = typer.Typer(help="Competitions: entrants, budgets, a board and a report.", no_args_is_help=True)


@app.callback()
def arena() -> None:
    """What stands before the command."""
