"""A table of named parts: one kind of part, one registry, and 'did you mean' for a misspelt name."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from vaestro.errors import UsageError, did_you_mean

T = TypeVar("T")
P = TypeVar("P")


def says(function: Any, value: object) -> bool:
    """Whether an open function (`functools.singledispatch`) has more to say of a value than of any object."""
    return function.dispatch(type(value)) is not function.dispatch(object)


class Registry(Mapping[str, T]):
    """Names to parts. `what` is the kind of part in words, as error sentences call it."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._parts: dict[str, T] = {}

    def __getitem__(self, name: str) -> T:
        if name not in self._parts:
            raise UsageError(f"there is no {self.what} called {name!r}{did_you_mean(name, self._parts)}")
        return self._parts[name]

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def add(self, name: str, part: T) -> T:
        """Register `part`; a name is given once."""
        if name in self._parts:
            raise UsageError(f"two {self.what}s are called {name!r}; rename one of them")
        self._parts[name] = part
        return part

    def enter(self, *parts: T) -> None:
        """Register parts that carry their names themselves."""
        for part in parts:
            self.add(part.name, part)  # type: ignore[attr-defined]

    def register(self, part: P) -> P:
        """A decorator: the function's own name is the part's name, and its signature stays known."""
        self.add(part.__name__, part)  # type: ignore[attr-defined, arg-type]
        return part

    def name_of(self, part: object) -> str:
        """The name under which `part` is registered; raises KeyError for a stranger."""
        for name, known in self._parts.items():
            if known is part:
                return name
        raise KeyError(part)
