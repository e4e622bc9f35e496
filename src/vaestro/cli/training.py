"""Commands that train."""

from pathlib import Path
from typing import Annotated

import typer

from vaestro.cli.shared import Columns, Device, Json, Own, RunName, Seed

Recipe = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe and its keywords, such as iwae:samples=5. `vaestro list` names them all.")]
DATA = "A named data set, or the path of a folder or archive of images, of an array file (.npy, .npz, IDX), or of a table (.csv, .parquet)."
Data = Annotated[str, typer.Argument(metavar="DATA", help=DATA)]
Board = Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard events into the run's folder, too.")]


def train(
    recipe: Recipe,
    data: Data,
    *,
    seconds: Annotated[float | None, typer.Option(help="Train this long; five minutes if no budget is named.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Train this long.")] = None,
    steps: Annotated[int | None, typer.Option(help="Train this many steps.")] = None,
    seed: Seed = 0,
    columns: Columns = None,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where the run goes; a new folder in ./runs if left out.")] = None,
    start: Annotated[str | None, typer.Option(metavar="RUN", help="Begin with the weights of this run.")] = None,
    device: Device = None,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="Processor threads; torch decides if left out.")] = None,
    compile: Annotated[bool, typer.Option("--compile", help="Fuse the model's kernels by torch.compile: for long trainings, above all on CUDA.")] = False,
    own: Own = None,
    tensorboard: Board = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only measure: parameters, seconds and memory; nothing is written.")] = False,
    as_json: Json = False,
) -> None:
    """Train a model on data: `vaestro train iwae:samples=5 mnist-dynamic --minutes 10`.

    Options of training are keywords of the recipe's call: `vae:batch=64,learning_rate=3e-4,ema=0.999`; `vaestro show vae` lists them.
    """
    from vaestro.cli.columns import tabled
    from vaestro.cli.sessions import planned, rehearse, run_training

    held = tabled(data, columns, as_json)
    plan = planned((recipe, held), (seconds, minutes, steps), (seed, device, threads, compile), own)
    if dry_run:
        rehearse(plan, as_json)
    else:
        run_training(plan, held, (out, start), tensorboard, as_json)


def resume(run: RunName, *, own: Own = None, tensorboard: Board = False, as_json: Json = False) -> None:
    """Go on with a run that was stopped; it ends with the same bits as if it had not been."""
    from vaestro.cli.sessions import go_on

    go_on(run, own, tensorboard, as_json)


def fit_prior(
    run: RunName,
    prior: Annotated[str, typer.Argument(metavar="PRIOR", help="A prior and its keywords, such as gmm:components=10; a wrong name lists them all.")],
    *,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where the new run goes; a new folder in ./runs if left out.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="At most so many steps, of a prior that is fitted by gradients; it stops early.")] = 3000,
    seed: Seed = 0,
    device: Device = None,
    own: Own = None,
    as_json: Json = False,
) -> None:
    """Fit a new prior to the latents of a trained run; the result is a run of its own, with better samples and the same model."""
    from vaestro.cli.fitting import run_fitting

    run_fitting((run, prior), (steps, seed, device), out, own, as_json)


def search(
    recipe: Recipe,
    data: Data,
    *,
    budget: Annotated[str | None, typer.Option(metavar="TIME", help="How long it may take: 90s, 20m, 2h; twenty minutes if nothing is named.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps in all, in place of a time.")] = None,
    over: Annotated[str | None, typer.Option(metavar="NAMES", help="The keywords to search, such as learning_rate,latents.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at a time; one a core if left out.")] = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where it is kept; ./searches/RECIPE-DATA if left out.")] = None,
    own: Own = None,
    as_json: Json = False,
) -> None:
    """Search a recipe's keywords by successive halving on validation rows; stopped and started again, it goes on."""
    from vaestro.cli.searching import run_search

    run_search((recipe, data), (budget, steps), (over, jobs, seed, own), out, as_json)
