"""Open-addressing hash index from uint64 keys to int64 values, in flat arrays; never persisted, rebuilt on load.

Linear probing; deletion shifts back, so there are no tombstones and no degradation. A key of 0 marks an empty cell:
callers' keys come from `hash.pair64`, which never gives 0. `find`, `put` and `delete` are kernels for kernels; they
must not be called from Python in a loop. Growth happens between kernels: call `reserve` before the kernel that
inserts.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .kernel import kernel
from .prefetch import prefetch

_EMPTY = np.uint64(0)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_S29 = np.uint64(29)


@kernel
def _home(key, mask):  # type: ignore[no-untyped-def]
    z = (key ^ (key >> _S29)) * _SPREAD
    return np.int64(z >> np.uint64(32)) & mask


@kernel
def find(keys, values, key):  # type: ignore[no-untyped-def]
    """Value stored under `key`, or -1."""
    mask = keys.shape[0] - 1
    i = _home(key, mask)
    while keys[i] != _EMPTY:
        if keys[i] == key:
            return values[i]
        i = (i + 1) & mask
    return np.int64(-1)


@kernel
def prefetch_key(keys, values, key):  # type: ignore[no-untyped-def]
    """Ask for the cells that `find`, `put` or `delete` of `key` will touch first."""
    home = _home(key, keys.shape[0] - 1)
    prefetch(keys, home)
    prefetch(values, home)


@kernel
def put(keys, values, count, key, value):  # type: ignore[no-untyped-def]
    """Store `value` under `key`; the old value, or -1. `count[0]` is the number of keys."""
    mask = keys.shape[0] - 1
    i = _home(key, mask)
    while keys[i] != _EMPTY:
        if keys[i] == key:
            old = values[i]
            values[i] = value
            return old
        i = (i + 1) & mask
    keys[i] = key
    values[i] = value
    count[0] += 1
    return np.int64(-1)


@kernel
def delete(keys, values, count, key):  # type: ignore[no-untyped-def]
    """Remove `key`; the value it had, or -1."""
    mask = keys.shape[0] - 1
    i = _home(key, mask)
    while keys[i] != key:
        if keys[i] == _EMPTY:
            return np.int64(-1)
        i = (i + 1) & mask
    old = values[i]
    count[0] -= 1
    j = i
    while True:
        j = (j + 1) & mask
        if keys[j] == _EMPTY:
            break
        home = _home(keys[j], mask)
        if ((j - home) & mask) >= ((j - i) & mask):
            keys[i] = keys[j]
            values[i] = values[j]
            i = j
    keys[i] = _EMPTY
    return old


@kernel
def _refill(old_keys, old_values, keys, values, count):  # type: ignore[no-untyped-def]
    for i in range(old_keys.shape[0]):
        if old_keys[i] != _EMPTY:
            put(keys, values, count, old_keys[i], old_values[i])


@kernel
def _find_many(keys, values, wanted, out):  # type: ignore[no-untyped-def]
    for i in range(wanted.shape[0]):
        out[i] = find(keys, values, wanted[i])


@kernel
def _put_many(keys, values, count, new_keys, new_values):  # type: ignore[no-untyped-def]
    for i in range(new_keys.shape[0]):
        put(keys, values, count, new_keys[i], new_values[i])


class HashIndex:
    """The arrays of one index, and its growth.

    Attributes
    ----------
    keys : uint64[capacity], values : int64[capacity], count : int64[1]

    >>> index = HashIndex()
    >>> index.put_many(np.array([7, 9], np.uint64), np.array([1, 2]))
    >>> index.find_many(np.array([9, 7, 8], np.uint64)).tolist(), len(index)
    ([2, 1, -1], 2)
    """

    def __init__(self, capacity: int = 1024) -> None:
        size = 1 << max(4, (int(capacity) - 1).bit_length())
        self.keys = np.zeros(size, np.uint64)
        self.values = np.zeros(size, np.int64)
        self.count = np.zeros(1, np.int64)

    def __len__(self) -> int:
        return int(self.count[0])

    def reserve(self, more: int) -> None:
        """Make room for `more` further keys at a load of at most one half."""
        need = 2 * (int(self.count[0]) + int(more))
        if need <= len(self.keys):
            return
        size = 1 << (need - 1).bit_length()
        keys, values = self.keys, self.values
        self.keys, self.values = np.zeros(size, np.uint64), np.zeros(size, np.int64)
        self.count[0] = 0
        _refill(keys, values, self.keys, self.values, self.count)

    def find_many(self, wanted: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Values under `wanted` (uint64[n]), -1 where there is none."""
        out = np.empty(len(wanted), np.int64)
        _find_many(self.keys, self.values, wanted, out)
        return out

    def put_many(self, keys: npt.NDArray[np.uint64], values: npt.NDArray[np.int64]) -> None:
        """Store `values` under `keys`, later ones over earlier ones."""
        self.reserve(len(keys))
        _put_many(self.keys, self.values, self.count, keys, values)
