"""Rows as tensors: kept as their smallest integers, gathered where the model is, and turned into what models read."""

import hashlib
import warnings
from collections.abc import Callable, Sequence
from functools import singledispatch

import torch
from torch import Tensor

from vaestro.data.kinds import Array, Encoding
from vaestro.data.schema import Binary, Category, Count, Integer, Kind, Real, Schema, Table
from vaestro.data.store import Split
from vaestro.errors import UsageError

Gather = Callable[[Tensor], Tensor]


@singledispatch
def unit(kind: Kind, stored: Tensor) -> Tensor:
    """Stored numbers as models read them. Open: a new kind of data registers its own."""
    raise UsageError(f"values of kind {type(kind).__name__} have no tensor form; say how with @unit.register")


@unit.register(Binary)
@unit.register(Count)
@unit.register(Real)
@unit.register(Table)
def _(kind: Binary | Count | Real | Table, stored: Tensor) -> Tensor:
    return stored.to(torch.float32)


@unit.register
def _(kind: Integer, stored: Tensor) -> Tensor:
    return stored.to(torch.float32).div_(max(1, kind.levels - 1))


@unit.register
def _(kind: Category, stored: Tensor) -> Tensor:
    return stored.to(torch.int64)


def binary_draw(intensities: Tensor) -> Tensor:
    """A fresh float32 draw of x in {0, 1} with P(x = 1) = intensity / 255 exactly, from the global generator of the tensor's device.

    x = (u < intensity) with u uniform on 0..254. On a CPU, u is a byte of a random word, and words with a byte 255 are drawn again: a fifth of the time.
    """
    u = _UNIFORM.get(intensities.device.type, _uniform_anywhere)(intensities)
    return torch.lt(u, intensities, out=torch.empty(intensities.shape, dtype=torch.float32, device=intensities.device))


def _uniform_anywhere(like: Tensor) -> Tensor:
    return torch.randint(0, 255, like.shape, dtype=torch.uint8, device=like.device)


def _uniform_on_cpu(like: Tensor) -> Tensor:
    words = _words((like.numel() + 7) // 8)
    wrong = (words.view(torch.uint8) == 255).view(torch.int64).nonzero()[:, 0]
    while len(wrong):
        again = _words(len(wrong))
        words[wrong] = again
        wrong = wrong[(again.view(torch.uint8) == 255).view(torch.int64) != 0]
    return words.view(torch.uint8)[: like.numel()].view(like.shape)


def _words(n: int) -> Tensor:
    return torch.empty(n, dtype=torch.int64).random_(-(2**63), None)


_UNIFORM: dict[str, Callable[[Tensor], Tensor]] = {"cpu": _uniform_on_cpu}  # the redrawing waits for the device, which only a CPU may


class Rows:
    """The rows of one split, ready to be gathered in batches on `device`.

    On a CPU the arrays are the memory map itself. On another device they are copied there if they take less than half of its free memory; else each batch is
    gathered by the host and sent. Raises UsageError for a field that the data do not have.
    """

    def __init__(self, split: Split, schema: Schema, fields: Sequence[str] = ("x",), device: torch.device | str = "cpu") -> None:
        self.rows, self.fields, self.device = split.rows, tuple(fields), torch.device(device)
        self.kinds = {name: schema[name].kind for name in fields}
        self.encodings = {name: split.encodings[name] for name in fields}
        stored = {name: _tensor(split.arrays[name]) for name in fields}
        gather = _gatherer(self.device, sum(t.numel() * t.element_size() for t in stored.values()))
        self._gather = {name: gather(t) for name, t in stored.items()}

    def batch(self, index: Tensor) -> dict[str, Tensor]:
        """The rows `index` [b] (int64) of every field, [b, *shape]: Binary, Count and Real as float32, Integer as value / (levels - 1), Category as int64.

        Rows that are stored as intensities are drawn anew, from torch's global generator of the device.
        """
        return {name: self._value(name, self._gather[name](index)) for name in self.fields}

    def _value(self, name: str, stored: Tensor) -> Tensor:
        return binary_draw(stored) if self.encodings[name] is Encoding.INTENSITY else unit(self.kinds[name], stored)


def _tensor(array: Array) -> Tensor:
    """The array's own memory as a tensor. A mapped file is read-only, of which torch warns; rows are only ever gathered from it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array)


def _gatherer(device: torch.device, size: int) -> Callable[[Tensor], Gather]:
    """How rows of `size` bytes in all get to `device`."""
    if device.type == "cpu":
        return lambda t: lambda index: t.index_select(0, index)
    if device.type != "cuda" or size < torch.cuda.mem_get_info(device)[0] // 2:
        return lambda t: _resident(t.to(device))
    return lambda t: lambda index: t.index_select(0, index.cpu()).pin_memory().to(device, non_blocking=True)


def _resident(t: Tensor) -> Gather:
    return lambda index: t.index_select(0, index.to(t.device, non_blocking=True))


def order(rows: int, batch: int, seed: int, epoch: int) -> Tensor:
    """The rows of one epoch, [batches, size] (int64): a permutation that depends on (seed, epoch) alone.

    size = min(batch, rows); the last partial batch is left out.
    """
    size = min(batch, rows)
    digest = hashlib.blake2b(f"order {seed} {epoch}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
    return torch.randperm(rows, generator=generator)[: rows - rows % size].view(-1, size)


class Batches:
    """Which rows each step reads, as a pure function of (seed, step), so that a resumed run goes on exactly.

    Raises UsageError for a batch below one row. A batch larger than the data is all rows at every step, and `note` says so.
    """

    def __init__(self, rows: int, batch: int, seed: int = 0, device: torch.device | str = "cpu") -> None:
        if batch < 1:
            raise UsageError(f"a batch of {batch} rows is no batch; give 1 or more")
        self.rows, self.batch, self.seed, self.device = rows, batch, seed, torch.device(device)
        self.steps = max(1, rows // batch)  # in an epoch
        self.note = f"the batch of {batch} is larger than the data: each step reads all {rows} rows" if batch > rows else ""
        self._epoch, self._order = -1, torch.empty(0)

    def batch_index(self, step: int) -> Tensor:
        """The rows of step 0, 1, ..., [min(batch, rows)] (int64), on the device."""
        epoch, within = divmod(step, self.steps)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, order(self.rows, self.batch, self.seed, epoch).to(self.device)
        return self._order[within]
