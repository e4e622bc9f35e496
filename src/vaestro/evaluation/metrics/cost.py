"""What a model took to make, and what it takes to use."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from vaestro.core import Batch, Draw, Site, draw
from vaestro.errors import UsageError
from vaestro.evaluation.likelihood import standard_error
from vaestro.evaluation.metrics.base import METRICS, Direction, Group, Metric, Need, Score
from vaestro.evaluation.metrics.subject import AT_ONCE, Cost, Subject
from vaestro.evaluation.scope import at_rest, device_of, evaluating, until
from vaestro.seeds import forked, mix

TIMED = 5  # batches that are generated against the clock, after one that is not


def _read(read: Callable[[Cost], float]) -> Callable[[Subject], Score]:
    def function(subject: Subject) -> Score:
        if subject.cost is None:
            raise UsageError(f"nobody said what {subject.name} took to train; give Subject(cost=Cost(parameters, seconds, steps))")
        return Score(float(read(subject.cost)), 0.0)

    return function


def peak_memory(subject: Subject) -> Score:
    """The most memory that training held at once, MiB; raises UsageError for runs that did not record it."""
    if subject.cost is None or subject.cost.memory is None:
        raise UsageError(f"the training of {subject.name} recorded no peak of memory; runs trained from now on do")
    return Score(subject.cost.memory / 2**20, 0.0)


def weights_size(subject: Subject) -> Score:
    """The size of the model's parameters and buffers as they stand in memory, MiB."""
    held = {id(t): t for t in (*subject.model.parameters(), *subject.model.buffers())}
    return Score(sum(t.numel() * t.element_size() for t in held.values()) / 2**20, 0.0)


class Operations(TorchDispatchMode):
    """Counts the operations of matrix products and convolutions while it lasts, by torch's own formulas."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet in flop_registry:
            self.number += flop_registry[packet](*args, **(kwargs or {}), out_val=out)
        return out


def multiply_adds(subject: Subject, work: Callable[[], object]) -> Score:
    """The multiply-adds of some work on one row: those of matrix products and convolutions, half of the operations that torch counts there."""
    with forked(device_of(subject.model)), at_rest(subject.model), torch.no_grad(), Operations() as counter:
        torch.manual_seed(mix(subject.seed, 7))
        work()
    return Score(counter.number / 2, 0.0)


def _drawn(site: Site) -> Draw:
    """A draw without its score under the prior, which encoding does not need."""
    source = site.prior if site.posterior is None else site.posterior
    value, log_q = draw(source, (1, 1)[: 2 - len(source.batch_shape)])
    return Draw(value, site.prior, site.posterior, 0.0, log_q, False)


def conditions(subject: Subject) -> Batch:
    """One row of what the model is told, such as a class: all that is no site of its own."""
    return {n: v for n, v in subject.some(1).items() if n not in subject.model.observed}


def generating(subject: Subject) -> Score:
    """The multiply-adds of drawing one row: the prior and the decoder."""
    told = conditions(subject)
    return multiply_adds(subject, lambda: subject.model.generate(1, conditions=told or None))


def encoding(subject: Subject) -> Score:
    """The multiply-adds of one row's posterior: all that runs up to the last latent; raises UsageError for a model without a posterior."""
    if not subject.encodes:
        raise UsageError(f"{subject.name} has no posterior, so it encodes nothing")
    row = subject.some(1)
    with forked(device_of(subject.model)), evaluating(subject.model):
        last = list(subject.model(row, 1).latents)[-1]
    return multiply_adds(subject, lambda: until(subject.model.program(row), _drawn, last))


def samples_per_second(subject: Subject) -> Score:
    """Generated rows a second: the mean of five batches after a first one, and their standard error. A timing, so it differs from run to run."""
    device, told = device_of(subject.model), conditions(subject)
    many = {n: v.expand(AT_ONCE, *v.shape[1:]) for n, v in told.items() if isinstance(v, torch.Tensor)}
    rates = []
    with forked(device), evaluating(subject.model):
        for trial in range(TIMED + 1):
            torch.manual_seed(mix(subject.seed, trial, 8))
            start = time.perf_counter()
            subject.model.generate(AT_ONCE, conditions=many or None)[subject.field.name].value.cpu()
            rates.append(AT_ONCE / (time.perf_counter() - start))
    timed = np.array(rates[1:])
    return Score(float(timed.mean()), standard_error(timed))


CLOCKED = "training alone, on the machine that the result names, by the clock of its budget: core seconds in an arena, elsewhere the wall clock"
COUNTED = "matrix products and convolutions, by torch's counter of operations, divided by two"
for name, title, unit, protocol, read in (
    ("parameters", "parameters", "numbers", "trained numbers of the model, each counted once", lambda c: c.parameters),
    ("seconds", "training time", "seconds", CLOCKED, lambda c: c.seconds),
    ("steps", "training steps", "steps", "optimiser steps of the first player", lambda c: c.steps),
):
    METRICS.enter(Metric(name, title, unit, Direction.LOWER, protocol, "counted", _read(read), frozenset({Need.COST}), group=Group.COST))

METRICS.enter(
    Metric(
        "peak_memory", "peak memory of training", "MiB", Direction.LOWER, "the most that the training process held at once: resident memory, Python and torch "
        "included, or on CUDA what torch allocated there", "counted", peak_memory, frozenset({Need.COST}), group=Group.COST,
    ),
    Metric("weights_size", "size of the model", "MiB", Direction.LOWER, "parameters and buffers, each once", "counted", weights_size, group=Group.COST),
    Metric(
        "generate_multiply_adds", "multiply-adds of generating a row", "multiply-adds", Direction.LOWER, f"one draw of the prior, decoded; {COUNTED}",
        "counted", generating, group=Group.COST,
    ),
    Metric(
        "encode_multiply_adds", "multiply-adds of encoding a row", "multiply-adds", Direction.LOWER, f"all that runs up to the last latent; {COUNTED}",
        "counted", encoding, frozenset({Need.LATENTS}), group=Group.COST,
    ),
    Metric(
        "samples_per_second", "speed of generating", "rows a second", Direction.HIGHER, f"a timing: {TIMED} batches of {AT_ONCE} rows after a first one, "
        "on the machine and threads that the result names", "timed", samples_per_second, group=Group.COST,
    ),
)  # fmt: skip
