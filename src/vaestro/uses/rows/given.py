"""Values that a use of a run is given: which fields may be, and their values as the model reads them."""

import re
from collections.abc import Mapping, Sequence
from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaestro.data.kinds import check, storage, survey
from vaestro.data.rows import unit
from vaestro.data.schema import Binary, Category, Field, Kind, Table
from vaestro.errors import UsageError, did_you_mean
from vaestro.evaluation.scope import device_of
from vaestro.models import conditions_of
from vaestro.training.runs import Run

Given = Mapping[str, Any]
A_ROW = 8  # pictures of a class, where nobody says how many


def readable(run: Run, x: Tensor | np.ndarray, what: str = "rows") -> Tensor:
    """`x`, in unit values, on the device and in the precision of the model; raises UsageError unless it is [n, *shape] of the run's field, n at least 1."""
    try:
        rows = torch.as_tensor(x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"a {type(x).__name__} is none of the {what} that {run.name} takes ({error}); give a tensor [n, *shape] in unit values") from None
    if rows.shape[1:] != torch.Size(run.field.shape) or not len(rows):
        raise UsageError(f"{what} shaped {tuple(rows.shape)} are none of {run.name}, which takes {run.field.shape} each; give [n, *that], n at least 1")
    if not rows.is_floating_point() and not isinstance(run.field.kind, Binary):
        raise UsageError(f"{what} are whole numbers ({str(rows.dtype).removeprefix('torch.')}), and the model reads unit values; give floats, levels / top")
    like = next((p for p in run.model.parameters() if p.is_floating_point()), rows if rows.is_floating_point() else torch.zeros(()))
    return rows.to(like.device, like.dtype)


def require_rows(run: Run, x: Tensor | np.ndarray, what: str = "rows") -> Tensor:
    """`readable` rows without a gap; raises UsageError where some entry is not finite."""
    rows = readable(run, x, what)
    if not bool(rows.isfinite().all()):
        verb = "impute" if isinstance(run.field.kind, Table) else "complete"
        raise UsageError(f"some of the {what} hold NaN or infinite values; mend them first, or fill holes with `vaestro {verb}`")
    return rows


def givable(run: Run) -> tuple[str, ...]:
    """The fields that may be given beside x: the model's conditions, and its other observed sites."""
    return (*conditions_of(run.model), *(n for n in run.model.observed if n != run.field.name and n in run.schema))


def settle(run: Run, n: int, given: Given | None = None) -> dict[str, Tensor]:
    """The given values as the model reads them, [n, *shape] each; several classes are spread evenly over the rows, in their order.

    A class is given by its number or its name, numbers as the data store them, and either as one value or as n of them; as text, `0,1,2` or the path of a
    .npy file. Raises UsageError for a field that cannot be given, and for a value that is not one of the field's.
    """
    found = {}
    device = device_of(run.model)
    for name, value in (given or {}).items():
        able = (*givable(run), *(run.field.kind.names if isinstance(run.field.kind, Table) else ()))
        if name not in able:
            say = did_you_mean(name, able) if able else "; it is a model of x alone: train cvae or m2 for one that can be"
            raise UsageError(f"{run.about['call']} cannot be given {name!r}{say}")
        found[name] = rows_of(run.schema[name].kind, run.schema[name], _loaded(value), n).to(device)
    return found


def all_classes(run: Run, n: int, given: Given | None) -> dict[str, Any]:
    """`given`, with every class of a condition that nobody gave: so that a class-conditional model shows each of its classes."""
    said = dict(given or {})
    for name in conditions_of(run.model):
        kind = run.schema[name].kind
        if name not in said and isinstance(kind, Category) and n >= kind.n:
            said[name] = list(range(kind.n))
    return said


def of_columns(field: Field, given: Given | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is given of the columns of a table, and the rest, which are fields beside it."""
    said = dict(given or {})
    names = field.kind.names if isinstance(field.kind, Table) else ()
    return {n: said.pop(n) for n in names if n in said}, said


def arranged(run: Run, n: int | None, given: Given | None, usual: int) -> tuple[int, int | None]:
    """How many rows are made and how many stand side by side: a line for each class where there are several, and eight of each if `n` is not said."""
    shown = all_classes(run, n or 2**31, of_columns(run.field, given)[1])
    lists = [v for v in (_loaded(shown[name]) for name in givable(run) if name in shown) if isinstance(v, list | tuple)]
    several = max((len(v) for v in lists), default=1)
    n = n or (several * A_ROW if several > 1 else usual)
    return n, n // several if several > 1 and n % several == 0 else None


def texts(pairs: Sequence[str]) -> dict[str, str]:
    """`name=value` texts of the command line by name, several of them joined by commas or not; raises UsageError for one that is not."""
    found: dict[str, str] = {}
    for pair in (piece for text in pairs for piece in re.split(r",(?=[^,=]+=)", text)):
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise UsageError(f"{pair!r} gives nothing: write NAME=VALUE, for example label=7")
        if name in found:
            raise UsageError(f"{name!r} is given twice; give it once, several values as {name}=0,1,2")
        found[name] = value
    return found


def _loaded(value: Any) -> Any:
    """Text as what it names: the array in a .npy file, or the values between its commas."""
    if not isinstance(value, str):
        return value
    if value.endswith(".npy"):
        try:
            return np.load(Path(value).expanduser(), allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise UsageError(f"{value} is not an array file ({error}); write it with numpy.save") from None
    return value.split(",") if "," in value else value


@singledispatch
def rows_of(kind: Kind, field: Field, value: Any, n: int) -> Tensor:
    """A given value of a field as the model reads it, [n, *shape]: one for all rows, or n of them. Open; raises UsageError for what is none of its values."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise UsageError(f"field {field.name!r} holds numbers, and {value!r} is none; give {field.size or 1} of them") from None
    array = array.reshape(field.shape) if array.ndim == 0 and field.size == 1 else array
    if array.shape not in (field.shape, (1, *field.shape), (n, *field.shape)):
        wanted = f"shaped {field.shape}" if field.shape else "a single number"
        raise UsageError(f"field {field.name!r} is {wanted} a row, and the given values are shaped {array.shape}; give one row, or {n}")
    check(field, survey([np.atleast_1d(array)]), "given")
    stored = torch.from_numpy(np.broadcast_to(array, (n, *field.shape)).astype(storage(field.kind)))
    return unit(field.kind, stored)


@rows_of.register
def _(kind: Category, field: Field, value: Any, n: int) -> Tensor:
    values = value if isinstance(value, list | tuple) else value.reshape(-1).tolist() if isinstance(value, np.ndarray | Tensor) else [value]
    numbers = torch.tensor([_class(kind, field, v) for v in values])
    if not 1 <= len(numbers) <= n:
        raise UsageError(f"{len(numbers)} classes of {field.name!r} are given for {n} rows; ask for as many rows, or give fewer")
    return numbers[torch.arange(n) * len(numbers) // n]


def _class(kind: Category, field: Field, value: Any) -> int:
    name = str(value).strip()
    if name in kind.names:
        return kind.names.index(name)
    if name.isdecimal() and int(name) < kind.n:
        return int(name)
    known = f" or {', '.join(kind.names)}" if kind.names and any(not k.isdecimal() for k in kind.names) else ""
    raise UsageError(f"{value!r} is no class of {field.name!r}; its classes are 0 to {kind.n - 1}{known}")
