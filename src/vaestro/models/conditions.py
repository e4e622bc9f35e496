"""What a model is told: how a condition becomes numbers, and which conditions there were."""

from collections.abc import Callable, Mapping
from functools import singledispatch
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaestro.conditional import through
from vaestro.core import Batch, Seen, prepare
from vaestro.data.schema import Category, Field
from vaestro.errors import UsageError
from vaestro.networks import convolutional, mlp
from vaestro.registry import Registry

REMEMBERED = 1000  # conditions that a model keeps, so that it can dream without being told
NUMBERS = 2**18  # in all of them at most
EMBEDDING, FEATURES, SMALL = 16, 64, 64

Code: TypeAlias = Callable[[Field], nn.Module]  # a field to a module: its values [*lead, *shape] to [*lead, width], with `width` as an attribute
CODES: Registry[Code] = Registry("code of a condition")


class OneHot(nn.Module):
    """A class 0 .. n-1 as n numbers: 1 at its place, else 0."""

    one: Tensor

    def __init__(self, n: int) -> None:
        super().__init__()
        self.width = n
        self.register_buffer("one", torch.ones(()), persistent=False)

    def forward(self, c: Tensor) -> Tensor:
        """[*lead] to [*lead, n], in the model's own precision; raises RuntimeError for a class out of range."""
        return F.one_hot(c.long(), self.width).to(self.one.dtype)


class Embedded(nn.Embedding):
    """A class as learned numbers."""

    def __init__(self, n: int, width: int) -> None:
        super().__init__(n, width)
        self.width = width


class Numbers(nn.Module):
    """Numbers as they are, flattened, less the mean and over the scale of the training rows."""

    mean: Tensor
    scale: Tensor

    def __init__(self, field: Field) -> None:
        super().__init__()
        self.name, self.width, self.dims = field.name, field.size, len(field.shape)
        self.register_buffer("mean", torch.zeros(field.size))
        self.register_buffer("scale", torch.ones(field.size))

    def forward(self, c: Tensor) -> Tensor:
        """[*lead, *shape] to [*lead, numbers]."""
        return (c.reshape(*c.shape[: c.dim() - self.dims], self.width) - self.mean) / self.scale


class Features(nn.Module):
    """A condition as what a network finds in it: for pictures and long vectors."""

    def __init__(self, field: Field) -> None:
        super().__init__()
        self.width = FEATURES
        self.net = (convolutional if len(field.shape) == 3 else mlp)(field.shape, (FEATURES,))

    def forward(self, c: Tensor) -> Tensor:
        """[*lead, *shape] to [*lead, 64]."""
        return F.silu(through(self.net, c))


def _classes(field: Field, code: str) -> int:
    if not isinstance(field.kind, Category):
        raise UsageError(f"code={code} is for classes, and field {field.name!r} holds {type(field.kind).__name__} values; use code=numbers or code=features")
    return field.kind.n


def _no_classes(field: Field, code: str) -> Field:
    if isinstance(field.kind, Category):
        raise UsageError(f"code={code} is for numbers, and field {field.name!r} holds classes, whose numbers have no order; use code=one_hot or code=embedding")
    return field


@CODES.register
def one_hot(field: Field) -> nn.Module:
    """A class as n numbers of which one is 1."""
    return OneHot(_classes(field, "one_hot"))


@CODES.register
def embedding(field: Field) -> nn.Module:
    """A class as 16 learned numbers: for hundreds of classes."""
    return Embedded(_classes(field, "embedding"), EMBEDDING)


@CODES.register
def numbers(field: Field) -> nn.Module:
    """Numbers as they are, standardised by the training rows."""
    return Numbers(_no_classes(field, "numbers"))


@CODES.register
def features(field: Field) -> nn.Module:
    """64 numbers that a network finds: convolutional on pictures, else dense."""
    return Features(_no_classes(field, "features"))


def default_code(field: Field) -> nn.Module:
    """`one_hot` for a class, `numbers` for up to 64 numbers, `features` for more."""
    if isinstance(field.kind, Category):
        return one_hot(field)
    return numbers(field) if field.size <= SMALL else features(field)


CODES.add("default", default_code)


class Memory(nn.Module):
    """Up to 1,000 conditions of training rows: what a model is told when nobody says. Until it has seen any, classes in turn, or zeros."""

    rows: Tensor

    def __init__(self, field: Field, rows: int) -> None:
        super().__init__()
        self.name = field.name
        keep = max(1, min(REMEMBERED, rows, NUMBERS // max(1, field.size)))
        first = torch.arange(keep) % field.kind.n if isinstance(field.kind, Category) else torch.zeros(keep, *field.shape)
        self.register_buffer("rows", first)

    def forward(self, n: int) -> Tensor:
        """`n` of them, drawn with equal chances: [n, *shape]."""
        return self.rows[torch.randint(len(self.rows), (n,), device=self.rows.device)]


@prepare.register
@torch.no_grad()
def _(part: Memory, data: Mapping[str, Tensor]) -> None:
    rows = data[part.name]
    part.rows.copy_(rows[torch.arange(len(part.rows), device=rows.device) % len(rows)])


@prepare.register
@torch.no_grad()
def _(part: Numbers, data: Mapping[str, Tensor]) -> None:
    rows = data[part.name].double().reshape(-1, part.width)
    scale = rows.std(0, correction=0)
    part.mean.copy_(rows.mean(0))
    part.scale.copy_(torch.where(scale > 0, scale, 1.0))  # a number that never changes tells nothing, and is left as it is


def told(batch: Batch | None, name: str) -> Tensor:
    """The condition `name` of a batch; raises UsageError where it is missing, in whole or in part: a model that is told something never draws it."""
    if batch is None or name not in batch:
        raise UsageError(f"this model is told {name!r} and cannot draw it; give it beside x, as {{'x': ..., {name!r}: ...}}, or by given={{{name!r}: ...}}")
    value = batch[name]
    if isinstance(value, Seen):
        raise UsageError(f"{name!r} was seen in part, and this model must be told it for every row; m2 draws the labels that are missing")
    return value


@singledispatch
def conditions_of(model: nn.Module) -> tuple[str, ...]:
    """The fields that a model is told: its program reads and never yields them. Open; most models are told nothing."""
    return ()
