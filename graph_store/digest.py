"""Digests: a sum, modulo 2**128, of a hash of each logical entry. Order does not matter, and shards add up.

An entry is hashed as 64-bit words, two independent lanes of multiply-and-fold; only the bytes of the fields that the
array's dtype names count. So a view of some fields of a table, `rows[["key", "weight"]]`, is digested where it lies.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .hash import SEED_ID, SEED_ID2, hash_text, mix64
from .kernel import kernel

_C1 = np.uint64(0x9E3779B97F4A7C15)
_C2 = np.uint64(0xBF58476D1CE4E5B9)
_S29, _S32 = np.uint64(29), np.uint64(32)


@kernel
def _digest(words, columns, masks, seed, seed2, numbered):  # type: ignore[no-untyped-def]
    """(low, high) of the sum; one kernel for both kinds, for a call with arrays for each entry costs more than its
    hash."""
    total, carried = np.uint64(0), np.uint64(0)
    for j in range(words.shape[0]):
        a, b = seed, seed2
        if numbered:
            empty = True
            for c in range(columns.shape[0]):
                if words[j, columns[c]] & masks[c] != np.uint64(0):
                    empty = False
                    break
            if empty:
                continue
            number = mix64(np.uint64(j))
            a, b = seed ^ number, seed2 + number
        for c in range(columns.shape[0]):
            w = words[j, columns[c]] & masks[c]
            a = (a ^ w) * _C1
            a ^= a >> _S32
            b = (b + w) * _C2
            b ^= b >> _S29
        low, high = mix64(a), mix64(b ^ (a << _S32))
        total += low
        carried += high + (np.uint64(1) if total < low else np.uint64(0))
    return total, carried


class Numbered(NamedTuple):
    """A table whose entries are (row number, row), rows of zeros left out: weights, say, most of them never touched."""

    rows: np.ndarray[Any, np.dtype[Any]]


def digest_entries(table: str, entries: np.ndarray[Any, np.dtype[Any]] | Numbered) -> int:
    """Sum modulo 2**128 of a hash of each entry of `entries`, under the table's name.

    Parameters
    ----------
    entries : array [n, ...]; of a structured array only the fields that its dtype names count, not the bytes between.
        Or `Numbered`: then a row's number is part of the entry, and rows of zeros are none.

    >>> a = np.array([3, 1, 2], np.int64)
    >>> digest_entries("t", a) == digest_entries("t", a[::-1])
    True
    >>> (digest_entries("t", a[:1]) + digest_entries("t", a[1:])) % 2**128 == digest_entries("t", a)
    True
    """
    rows = entries.rows if isinstance(entries, Numbered) else entries
    if len(rows) == 0:
        return 0
    seeds = np.uint64(hash_text(table, SEED_ID)), np.uint64(hash_text(table, SEED_ID2))
    low, high = _digest(*_as_words(rows), *seeds, isinstance(entries, Numbered))
    return (int(high) << 64 | int(low)) % 2**128


def _as_words(
    entries: np.ndarray[Any, np.dtype[Any]],
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
    """The entries as uint64[n, words], the words that hold fields, and the bits of each that count."""
    flat = np.ascontiguousarray(entries)
    width = flat.nbytes // len(flat)
    used = np.zeros(-(-width // 8) * 8, np.uint8)
    if flat.dtype.fields is None:
        used[:width] = 0xFF
    else:
        for dtype, offset, *_ in flat.dtype.fields.values():
            used[offset : offset + dtype.itemsize] = 0xFF
    data = flat.view(np.uint8).reshape(len(flat), width)
    if width % 8:
        padded = np.zeros((len(flat), len(used)), np.uint8)
        padded[:, :width] = data
        data = padded
    masks = used.view(np.uint64)
    columns = np.flatnonzero(masks)
    return data.view(np.uint64), columns, masks[columns]
