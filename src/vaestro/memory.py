"""Memory that was freed is kept for the next step, where the system's allocator can be told to."""

import ctypes
import sys
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's names for mallopt
MOST = 2**30


@cache
def keep_freed_memory() -> bool:
    """Let glibc keep blocks of up to 1 GiB instead of giving them back: every step asks for the same ones, and fresh pages cost up to half of a step.

    True where it could be said; other systems are left as they are. Peak memory is what it was, but it is not given back before the process ends.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(TRIM_THRESHOLD, MOST)) and bool(mallopt(MMAP_THRESHOLD, MOST))
