"""Tables from files and from other libraries as one frame of polars; what is wrong with a file is said in one sentence."""

import csv
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import singledispatch
from importlib.util import find_spec
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, TextIO, TypeAlias

import numpy as np

from vaestro.data.cache import shown
from vaestro.data.prepare.columns import cleaned
from vaestro.errors import UsageError, VaestroError

Frame: TypeAlias = Any  # polars.DataFrame; polars is imported where it is used
TEXT, PARQUET = (".csv", ".tsv"), (".parquet", ".pq")
DELIMITERS = "\t|;,"  # where several would do, the rarer within values: commas are in numbers and words
TRIED = 100  # rows by which the delimiter is found
COMMAS = r"^[+-]?(\d+|[1-9]\d{0,2}(\.\d{3})+)(,\d+)?$"  # 0.746 is no thousands: such a column has points already
LONGEST = 2**20  # bytes of a first line


def require_polars() -> None:
    """Raises UsageError, with the remedy, where polars is not installed."""
    if find_spec("polars") is None:
        raise UsageError("tables are read with polars, which is not installed; run `pip install 'vaestro[tables]'`")


def is_table(path: Path) -> bool:
    """Whether a file is named as a table: .csv, .tsv, .parquet, .pq."""
    return path.suffix.lower() in (*TEXT, *PARQUET)


def is_frame(value: object) -> bool:
    """Whether a value is a frame of polars or pandas, or of another library that narwhals knows and that is loaded; raises UsageError for a lazy one."""
    if find_spec("narwhals") is None:
        return False
    import narwhals

    given: Any = value
    try:
        frame = narwhals.from_native(given, pass_through=True)
    except narwhals.exceptions.DuplicateError:
        _refuse_twice(list(map(str, given.columns)), "the table")
        raise
    if isinstance(frame, narwhals.LazyFrame):
        raise UsageError("a lazy frame has no rows before it is collected; call its .collect() and give what that returns")
    return isinstance(frame, narwhals.DataFrame)


@singledispatch
def frame_of(source: object) -> Frame:
    """A table as a frame of polars: from a path, a frame, a mapping of columns, or a list of rows that are mappings. Open.

    Raises UsageError for what is no table, has no rows, or names a column twice, VaestroError for a file that cannot be read.
    """
    require_polars()
    if not is_frame(source):
        raise UsageError(f"a {type(source).__name__} is no table; give the path of a .csv or .parquet file, a frame of polars or pandas, or columns by name")
    import narwhals

    native: Any = source
    frame = narwhals.from_native(native, eager_only=True)
    _refuse_twice(list(map(str, native.columns)), "the table")
    if frame.implementation.is_polars():
        return _checked(native, "the table")
    return frame_of({str(column.name): _values(column) for column in frame.iter_columns()})


def _values(column: Any) -> Any:
    """A column of another library's frame: numbers as an array, else a list with None where it has nothing."""
    if column.dtype.is_numeric() and not column.is_null().any():
        return column.to_numpy()
    return [None if lacks else value for value, lacks in zip(column.to_list(), column.is_null().to_list(), strict=True)]


@frame_of.register
def _(source: Mapping) -> Frame:  # type: ignore[type-arg]
    require_polars()
    import polars as pl

    columns = {}
    for name, values in source.items():
        try:
            array = values if isinstance(values, list | tuple) else values.tolist() if isinstance(values, np.ma.MaskedArray) else np.asarray(values)
            if isinstance(array, np.ndarray) and array.ndim != 1:
                raise UsageError(f"column {name!r} is an array shaped {array.shape}, and a column has one value a row; give it as several columns")
            held = array.tolist() if isinstance(array, np.ndarray) and array.dtype.kind in "OUS" else array
            columns[str(name)] = pl.Series(str(name), held, strict=False)
        except (TypeError, ValueError, RuntimeError, pl.exceptions.PolarsError) as error:  # torch: a tensor with a gradient
            raise UsageError(f"column {name!r} cannot be read ({str(error).splitlines()[0]}); give numbers, words or dates, or None") from None
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise UsageError(f"the columns have unequal numbers of rows ({', '.join(f'{c}: {n}' for c, n in lengths.items())})")
    return _checked(pl.DataFrame(columns), "the table")


@frame_of.register(list)
def _(source: Sequence[Any]) -> Frame:
    if not all(isinstance(row, Mapping) for row in source):
        raise UsageError("a list is a table only where every row is a mapping of column names to values")
    names = list(dict.fromkeys(str(name) for row in source for name in row))
    return frame_of({name: [row.get(name) for row in source] for name in names})


@frame_of.register(str)
@frame_of.register(Path)
def _(source: str | Path) -> Frame:
    require_polars()
    path = Path(source).expanduser()
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    if not is_table(path):
        raise UsageError(f"{path} is no table, for its name ends neither in .csv, .tsv nor .parquet")
    import polars as pl

    try:
        return _checked(_read_text(path) if path.suffix.lower() in TEXT else pl.read_parquet(_readable(path)), str(path))
    except UnicodeDecodeError as error:
        raise VaestroError(f"{path} is no UTF-8 text (it holds the byte 0x{error.object[error.start]:02x}); save it as UTF-8") from None
    except (pl.exceptions.PolarsError, OSError, csv.Error) as error:
        raise VaestroError(f"{path} cannot be read as a table ({str(error).strip().splitlines()[0]}); correct the file") from None


def _readable(path: Path) -> Path | BytesIO:
    """What polars reads a file by: its path, or its bytes where the path is no UTF-8, which polars refuses."""
    return path if shown(str(path)) == str(path) else BytesIO(path.read_bytes())


def _read_text(path: Path) -> Frame:
    """Every column as text: what it means is decided column by column, and codes such as 00123 keep their zeros."""
    import polars as pl

    delimiter, names = _lines(path)
    frame = pl.read_csv(_readable(path), separator=delimiter, infer_schema=False, encoding="utf8")
    if frame.width != len(names):
        raise UsageError(f"the lines of {path} end in carriage returns alone; save it with lines that end as those of other text files do")
    frame.columns = names  # polars leaves quotes within names doubled
    return _pointed(frame) if delimiter == ";" else frame


def _pointed(frame: Frame) -> Frame:
    """Decimal commas as points: spreadsheets that separate values by semicolons write 1.234,50 for 1234.5, and then 1.234 for 1234 in every column."""
    seen = {text.name: cleaned(text).drop_nulls() for text in frame.iter_columns()}
    numeric = [name for name, text in seen.items() if text.str.contains(COMMAS).all()]
    if not any(seen[name].str.contains(",", literal=True).any() for name in numeric):
        return frame
    return frame.with_columns(frame[name].str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True) for name in numeric)


def _lines(path: Path) -> tuple[str, list[str]]:
    """The delimiter and the names, after every line was counted: raises UsageError for an empty file, names given twice, and a line of another length."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline(LONGEST)
        if not first.strip():
            raise UsageError(f"{path} is empty, or its first line is; its first line must name the columns")
        delimiter = _delimiter(file, path.suffix.lower() == ".tsv")
        file.seek(0)
        rows = csv.reader(file, delimiter=delimiter)
        names = next(rows)
        _refuse_twice([name.strip() for name in names], str(path))
        for row in rows:
            if row and len(row) != len(names):
                raise UsageError(f"line {rows.line_num} of {path} has {len(row)} values, and the first line names {len(names)} columns; correct that line")
    return delimiter, names


def _delimiter(file: TextIO, tabs: bool) -> str:
    """The one by which the first rows have equally many values, two or more; where there is none, a tab if `tabs`, else the one of the first row."""

    def widths(delimiter: str, rows: int, strict: bool) -> set[int]:
        file.seek(0)
        return {len(row) for row in islice(csv.reader(file, delimiter=delimiter, strict=strict), rows) if row}

    for delimiter in DELIMITERS:
        with suppress(csv.Error):  # something else than this delimiter follows a closing quote
            if len(found := widths(delimiter, TRIED, True)) == 1 and found != {1}:
                return delimiter
    return "\t" if tabs else max(reversed(DELIMITERS), key=lambda delimiter: max(widths(delimiter, 1, False)))


def _refuse_twice(names: Sequence[str], where: str) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"{where} has two columns called {twice!r}; rename one of them")
    if "" in names:
        raise UsageError(f"column {list(names).index('') + 1} of {where} has no name; give it one")


def _checked(frame: Frame, where: str) -> Frame:
    names = [name.removeprefix("\ufeff").strip() for name in frame.columns]
    _refuse_twice(names, where)
    frame = frame.rename(dict(zip(frame.columns, names, strict=True)))
    if not frame.width:
        raise UsageError(f"{where} has no columns; give at least one")
    if not frame.height:
        raise UsageError(f"{where} has no rows; give at least one")
    return frame
