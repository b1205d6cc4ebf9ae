"""Tells the C library to keep the memory of freed blocks, for the next block to be made in.

A replay makes and frees arrays of some megabytes for every block. By default glibc maps each anew and gives it back,
and the operating system clears every page again: a tenth of a replay of 2 million events. Elsewhere than on glibc this
does nothing.
"""

from __future__ import annotations

import ctypes
import gc
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of mallopt(3)
KEEP = 256 << 20
"""Bytes of free memory at the heap's end beyond which it is given back."""
LARGE = 32 << 20
"""Arrays from so many bytes on are mapped on their own, and given back when freed: tables, not blocks."""


def keep_freed_memory() -> bool:
    """Set both thresholds for this process; True where the C library took them.

    >>> keep_freed_memory() in (True, False)
    True
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, LARGE) and mallopt(_TRIM_THRESHOLD, KEEP))


def give_back_memory() -> None:
    """Free what only cycles hold, such as a state that was closed, and give free memory back to the operating system.

    >>> give_back_memory()
    """
    gc.collect()  # stages and their timers point at each other
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)
