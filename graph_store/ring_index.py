"""Index from uint64 keys to entries of a ring: chains of numbers, without deletion; never persisted.

The ring drops its oldest entries, and each chain runs from new to old: a search ends at the first number below the
ring's tail, so dropping an entry costs nothing, and adding one touches a single cell. A key that is put again hides
the older entry.
"""

from __future__ import annotations

import numpy as np

from .kernel import kernel, lean_kernel
from .prefetch import prefetch
from .table import Ring

_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_S29, _S32 = np.uint64(29), np.uint64(32)


@kernel
def _bucket(heads, key):  # type: ignore[no-untyped-def]
    return np.int64(((key ^ (key >> _S29)) * _SPREAD) >> _S32) & (heads.shape[0] - 1)


@lean_kernel
def ring_put(heads, nexts, key, number):  # type: ignore[no-untyped-def]
    """Add entry `number` of the ring under `key`."""
    bucket = _bucket(heads, key)
    nexts[number & (nexts.shape[0] - 1)] = heads[bucket]
    heads[bucket] = number


@lean_kernel
def ring_prefetch(heads, key):  # type: ignore[no-untyped-def]
    """Fetch the cell that `ring_put` or `ring_find` of `key` will touch first."""
    prefetch(heads, _bucket(heads, key))


@lean_kernel
def ring_find(heads, nexts, rows, tail, key):  # type: ignore[no-untyped-def]
    """Number of the newest entry whose column `key` is `key`, not below `tail`; -1 where there is none."""
    mask = nexts.shape[0] - 1
    number = heads[_bucket(heads, key)]
    while number >= tail:
        if rows["key"][number & mask] == key:
            return number
        number = nexts[number & mask]
    return np.int64(-1)


@kernel
def _fill(heads, nexts, rows, ends):  # type: ignore[no-untyped-def]
    mask = nexts.shape[0] - 1
    for number in range(ends[0], ends[1]):
        ring_put(heads, nexts, rows["key"][number & mask], number)


class RingIndex:
    """The arrays of one index.

    Attributes
    ----------
    heads : int64[2 * capacity], newest number of each chain, -1 where it is empty
    nexts : int64[capacity], the number below each entry in its chain

    >>> ring = Ring("open", np.dtype([("key", "<u8")]))
    >>> ring.rows["key"][:2] = [7, 9]; ring.ends[1] = 2
    >>> index = RingIndex()
    >>> index.follow(ring); index.find(ring, 9), index.find(ring, 8)
    (1, -1)
    """

    def __init__(self) -> None:
        self.heads = np.full(2, -1, np.int64)
        self.nexts = np.zeros(1, np.int64)

    def follow(self, ring: Ring) -> None:
        """Index the ring anew where its capacity changed; call it after `ring.reserve`."""
        capacity = len(ring.rows)
        if len(self.nexts) != capacity:
            self.heads, self.nexts = np.full(2 * capacity, -1, np.int64), np.zeros(capacity, np.int64)
            _fill(self.heads, self.nexts, ring.rows, ring.ends)

    def find(self, ring: Ring, key: int) -> int:
        """Number of the entry under `key`, -1 where there is none."""
        return int(ring_find(self.heads, self.nexts, ring.rows, ring.ends[0], np.uint64(key)))
