"""How far slow work has come, told to whoever watches; nobody does unless asked."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_WATCHER: ContextVar[Callable[[str, float], None]] = ContextVar("watcher", default=lambda what, done: None)


def tell(what: str, done: float) -> None:
    """Say that the part `done`, 0 to 1, of some work is done; `what` names the work, for example as a bar's title."""
    _WATCHER.get()(what, done)


@contextmanager
def watched(by: Callable[[str, float], None]) -> Iterator[None]:
    """While this lasts, `by` is told what slow work says of itself; other threads are not heard."""
    token = _WATCHER.set(by)
    try:
        yield
    finally:
        _WATCHER.reset(token)
