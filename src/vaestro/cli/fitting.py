"""A fit of a prior at the terminal: a bar while it goes on, and what came of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vaestro.cli.shared import called, console, opened, print_json
from vaestro.training.record import Line, Watch
from vaestro.training.runs import Run
from vaestro.uses.fitting import fit_prior


def run_fitting(what: tuple[str, str], how: tuple[int, int, str | None], out: Path | None, own: Path | None, as_json: bool) -> None:
    """Fit (run, prior) with (steps, seed, device), and say where the new run is and what it gained."""
    (name, prior), (steps, seed, device) = what, how
    of = opened(name, own, device)
    with bar(console(err=True)) as watch:
        run = fit_prior(of, prior, out=out, steps=steps, seed=seed, watch=watch)
    if as_json:
        print_json({"run": str(run.folder), **run.about})
    else:
        finish(of, run)


@contextmanager
def bar(to: Console) -> Iterator[Watch]:
    """A watcher that shows how far a fit is; nothing where there is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps,"), TimeRemainingColumn())
    with Progress(*columns, console=to, disable=not to.is_terminal, transient=True) as progress:
        task = progress.add_task("fitting")

        def watch(line: Line) -> None:
            said = f"fitting: validation latents {line['merit']:.3f}, best {line['best']:.3f} nats"
            progress.update(task, completed=line["step"], total=line["total"], description=said)

        yield watch


def finish(first: Run, run: Run) -> None:
    """What was fitted, what it gained on validation rows, and what to do next."""
    stage, to = run.about["stages"][-1], console()
    nats, taken = stage["log_density"], f" in {stage['steps']} steps" if "steps" in stage else ""
    drawn = f"{stage['rows']['rows']:,} training rows, each drawn {stage['rows']['draws']} times"
    to.print(f"Fitted {stage['prior']} to {first.name}{taken}, {stage['seconds']:.1f} s: {drawn}.", markup=False)
    to.print(f"log p(z) on validation rows: {nats['after']:.2f} nats, and {nats['before']:.2f} under the old prior.", markup=False)
    if nats["after"] <= nats["before"]:
        to.print("Note: the old prior suits validation rows as well or better; try another one, or more of its components or rows.", markup=False)
    to.print(f"Folder: {run.folder}", markup=False)
    name, picture = called(run.folder), "grid.png" if len(run.field.shape) == 3 else "rows.csv"
    to.print(f"Next:   vaestro compare {called(first.folder)} {name}\n        vaestro generate {name} -n 64 -o {picture}", markup=False)
