"""A table at the terminal: its columns as they were found, for correction."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaestro.cli.shared import console, print_table
from vaestro.errors import UsageError

if TYPE_CHECKING:
    from vaestro.data import Dataset


def read(data: str, columns: list[str] | None) -> "Dataset":
    """The data that `data` means, a table with the kinds of columns that are declared; raises UsageError where these are declared for what is no file."""
    from vaestro.cli.cards import progress
    from vaestro.data import SOURCES, load, prepare_table
    from vaestro.data.prepare.tables import declared

    if columns and (data in SOURCES or Path(data).is_dir()):
        raise UsageError(
            f"--columns declares the columns of a table in a file, and {data} is {'a named data set' if data in SOURCES else 'a folder'}; leave it out"
        )
    with progress() as told:
        return prepare_table(data, declared(columns), progress=told) if columns else load(data, progress=told)


def tabled(data: str, columns: list[str] | None, quiet: bool) -> Any:
    """What is trained on: the data themselves, or a table with declared columns; the columns of a table are shown first, unless `quiet`."""
    from vaestro.data import SOURCES
    from vaestro.data.prepare.frames import is_table

    if not columns and (data in SOURCES or not is_table(Path(data))):
        return data
    dataset = read(data, columns)
    if not quiet:
        print_columns(dataset)
    return dataset if columns else data


def print_columns(dataset: "Dataset") -> None:
    """A row for each column of a table: kind, range or levels, the share that was not seen, an example; nothing for other data."""
    from vaestro.data.prepare.tables import cards
    from vaestro.data.schema import Table

    if not isinstance(dataset.schema["x"].kind, Table):
        return
    rows = [(c.column, c.kind, c.extent, "" if c.missing is None else f"{c.missing:.1%}", c.example) for c in cards(dataset)]
    print_table(("column", "kind", "range or levels", "unseen", "example"), rows, numbers=(3,))
    console().print("Correct a kind with --columns NAME=KIND; kinds: " + ", ".join(kinds()) + ".", markup=False)


def kinds() -> list[str]:
    """The words that declare a kind of column."""
    from vaestro.data.prepare.inferring import DECLARED

    return list(DECLARED)
