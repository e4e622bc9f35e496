"""Plays of autoencoders that are charged for something beside their error."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeAlias, cast

import torch
from torch import Tensor, nn

from vaestro.core import Batch, Model, Trace, content
from vaestro.errors import UsageError
from vaestro.objectives import Objective
from vaestro.objectives.regularisers import Norm, codes
from vaestro.plays.moves import Clock, Move, Play, terms_of

Charge: TypeAlias = Callable[[Model, Trace], Tensor]  # what rows cost beside their error: [b], or one number for all of them


class Weighed(NamedTuple):
    """A charge and its weight, 0 or more."""

    weight: float
    charge: Charge


Charges: TypeAlias = Mapping[str, Weighed]


def of_trace(term: Callable[[Trace], Tensor]) -> Charge:
    """A charge that reads the trace alone."""
    return lambda model, trace: term(trace)


def decay(part: str) -> Charge:
    """The sum of squares of all parameters of the model's part of this name, one number: what keeps a decoder from undoing the charges on its codes."""

    def charge(model: Model, trace: Trace) -> Tensor:
        return torch.stack([p.square().sum() for p in model.get_submodule(part).parameters()]).sum()

    return charge


def twice(charge: Charge) -> Charge:
    """A charge that differentiates the model, so that training differentiates it twice. Raises UsageError for a compiled model, which cannot be."""

    def checked(model: Model, trace: Trace) -> Tensor:
        if model._compiled_call_impl is not None:
            raise UsageError("the loss takes a slope of the model, and the compiler cannot differentiate what it compiled twice; leave --compile out")
        return charge(model, trace)

    return checked


def check_weight(name: str, weight: float) -> None:
    """Raises UsageError for a negative weight."""
    if not weight >= 0:
        raise UsageError(f"the weight of the {name} cannot be {weight}, which would reward what it should charge for; give 0 or more")


def charged(objective: Objective, charges: Charges, model: Model, trace: Trace) -> Move:
    """The move of the player `model` on `objective` plus weight times each charge; the table shows the charges by name, without their weights."""
    loss, told = objective(trace), terms_of(trace)
    for name, (weight, charge) in charges.items():
        if weight:
            cost = charge(model, trace)
            loss = loss + weight * cost
            told[name] = cost.mean().detach()
    return Move("model", loss, told, trace)


def regularised(objective: Objective, charges: Charges, samples: int = 1) -> Play:
    """One player on `objective` plus weighed charges, nats per row: `regularised(reconstruction(), {"mismatch": Weighed(10, of_trace(mismatch(mmd())))})`.

    With every weight at 0 it is `alone(objective, samples)`. Raises UsageError for a negative weight.
    """
    for name, (weight, _) in charges.items():
        check_weight(name, weight)

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        model = cast(Model, parts["model"])
        yield charged(objective, charges, model, model(batch, samples))

    return play


def contractive(objective: Objective, norm: Norm, weight: float, charges: Charges | None = None) -> Play:
    """One player on `objective` plus weight |d z / d x|_F^2, z the centres of the posteriors (Rifai et al. 2011, eq. 1), and other charges; nats per row.

    The slope of a row is by all that the encoder reads of it. Raises UsageError for a negative weight, and for a compiled model.
    """
    more = charges or {}
    for name, amount in {"contraction": weight, **{n: w for n, (w, _) in more.items()}}.items():
        check_weight(name, amount)

    def play(parts: nn.ModuleDict, batch: Batch, clock: Clock) -> Iterator[Move]:
        model, x = cast(Model, parts["model"]), content(batch["x"]).detach().requires_grad_()
        trace = model({**batch, "x": x}, given=model.observations(batch))
        slope = twice(of_trace(lambda t: norm(codes(t), x, 1)))
        yield charged(objective, {"contraction": Weighed(weight, slope), **more}, model, trace)

    return play
