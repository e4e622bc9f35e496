"""What goes wrong, said in one sentence: the thing, the reason and the remedy."""

import difflib
from collections.abc import Iterable

MANY, FIRST = 30, 12  # names that a sentence holds at most, and those that stand for more


class VaestroError(Exception):
    """Something failed that the user can mend; the command line prints it and exits with code 1."""

    exit_code = 1


class UsageError(VaestroError):
    """The request itself was wrong: a misspelt name, a value out of range; exit code 2."""

    exit_code = 2


class NotFinite(VaestroError):
    """Numbers of a model are infinite or NaN where one measure needs them; others may still be taken."""


class Caveat(UserWarning):
    """What was asked for is given and is not what it seems to be; the command line prints it as a note."""


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """'; did you mean ...?' for a near miss among `options`, whatever its case, else the list of them, or the first of many."""
    names = sorted(options)
    alike = difflib.get_close_matches(name.lower(), {n.lower() for n in names}, n=3, cutoff=0.5)
    near = [n for low in alike for n in names if n.lower() == low]
    if near:
        return f"; did you mean {' or '.join(near)}?"
    if len(names) > MANY:
        return f"; known are {', '.join(names[:FIRST])} and {len(names) - FIRST} more"
    return f"; known are {', '.join(names)}" if names else ""
