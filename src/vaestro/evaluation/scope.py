"""Seeded scopes, rows in chunks of one shape, and models run no further than is asked: what makes a number the same whenever it is computed again."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from itertools import chain

import torch
from torch import Tensor, nn

from vaestro.core import Batch, Choose, Program, Seen, Trace, Value
from vaestro.data.rows import order
from vaestro.errors import UsageError
from vaestro.memory import keep_freed_memory
from vaestro.seeds import mix


@cache
def accelerated() -> bool:
    """Whether there is any device but the CPU."""
    return torch.cuda.is_available() or torch.backends.mps.is_available()


def reseed_everywhere(seed: int) -> None:
    """Seed the generators of all devices that there are; `torch.manual_seed` also queues calls for absent ones, half a millisecond each time."""
    (torch.manual_seed if accelerated() else torch.default_generator.manual_seed)(seed)


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; every module's own mode is restored afterwards. Gradients, such as those of latents, are as the caller has them."""
    keep_freed_memory()
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode and without gradients; every module's own mode is restored afterwards."""
    with at_rest(model), torch.inference_mode():
        yield


def device_of(model: nn.Module) -> torch.device:
    """Where the model's numbers live; a model without any is on the CPU."""
    held: Tensor | None = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if held is None else held.device


def until(program: Program, choose: Choose, last: str) -> Trace:
    """The trace of a program up to the site `last`: what comes after, such as the decoder, is not run."""
    trace = Trace()
    site = next(program)
    while site.name != last:
        trace[site.name] = choose(site)
        site = program.send(trace[site.name].value)
    trace[last] = choose(site)
    program.close()
    return trace


def each(value: Value, f: Callable[[Tensor], Tensor]) -> Value:
    """`f` of a value's tensors: of the value itself, or of what was seen and its mask."""
    return f(value) if isinstance(value, Tensor) else Seen(f(value.value), f(value.mask))


def count(batch: Batch) -> int:
    """Rows in a batch."""
    first = next(iter(batch.values()))
    return len(first if isinstance(first, Tensor) else first.value)


def no_rows(name: str) -> UsageError:
    """What is wrong where there is nothing to score `name` on."""
    return UsageError(f"there are no rows to score {name} on; give at least one batch with a row")


def _join(parts: list[Value]) -> Value:
    tensors = [p for p in parts if isinstance(p, Tensor)]
    if tensors:
        return torch.cat(tensors)
    seen = [p for p in parts if isinstance(p, Seen)]
    return Seen(torch.cat([s.value for s in seen]), torch.cat([s.mask for s in seen]))


def slice_rows(batch: Batch, start: int, stop: int) -> Batch:
    """The rows from `start` up to `stop`."""
    return {n: each(v, lambda t: t[start:stop]) for n, v in batch.items()}


def seeded(batches: Batch | Iterable[Batch], seed: int) -> Iterator[Batch]:
    """The batches, each read under its own seed, so that data drawn anew at every reading are the same rows every time."""
    if isinstance(batches, Mapping):
        yield batches
        return
    source = iter(batches)
    for number in range(2**62):
        reseed_everywhere(mix(seed, number, 0))
        batch = next(source, None)
        if batch is None:
            return
        yield batch


def chunked(batches: Iterable[Batch], rows: int) -> Iterator[tuple[Batch, int]]:
    """The same rows in chunks of exactly `rows`, each with the number that is real; the last is filled up with copies of its last row.

    One shape for all: a row's random numbers, and the rounding of its matrix products, then depend on its place alone, not on how many rows follow it.
    """
    held: list[Batch] = []
    have = 0
    for batch in batches:
        start, n = 0, count(batch)
        while have + n - start >= rows:
            stop = start + rows - have
            held.append(slice_rows(batch, start, stop))
            yield {name: _join([b[name] for b in held]) for name in batch}, rows
            start, have, held = stop, 0, []
        if start < n:
            held.append(slice_rows(batch, start, n))
            have += n - start
    if have:
        last = {name: _join([b[name] for b in held]) for name in held[0]}
        filler = torch.arange(rows).clamp(max=have - 1)
        yield {name: each(v, lambda t: t[filler.to(t.device)]) for name, v in last.items()}, have


def fixed_rows(total: int, wanted: int) -> Tensor:
    """Which of `total` rows are read, ascending: one random choice for everybody, for files are often sorted by difficulty."""
    return order(total, min(total, wanted), 0, 0)[0].sort().values
