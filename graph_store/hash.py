"""64-bit hashes of ids and bytes: what joins, shards and orders are made of.

Ids are strings outside and 64-bit hashes inside. Two ids of ten million collide with a probability below 3e-6; rows
are ordered by two hashes of the event id with independent seeds (128 bits), so no bytes need to be kept.

The mix is the finaliser of SplitMix64 (Steele, Lea, Flood 2014); strings are folded eight bytes at a time with the
multiply-and-fold step of wyhash's family, in 64-bit arithmetic only so that numba and plain Python agree.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .kernel import kernel

U64 = npt.NDArray[np.uint64]

_C1 = np.uint64(0x9E3779B97F4A7C15)
_C2 = np.uint64(0xBF58476D1CE4E5B9)
_C3 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S29, _S32 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(29), np.uint64(32)
SEED_ID = np.uint64(0x7468616C77656701)
SEED_ID2 = np.uint64(0x7468616C77656702)


@kernel
def mix64(x):  # type: ignore[no-untyped-def]
    """Bijective 64-bit mix (SplitMix64's finaliser) of a uint64.

    >>> int(mix64(np.uint64(1))) == int(mix64(np.uint64(1))) != 0
    True
    """
    z = x + _C1
    z = (z ^ (z >> _S30)) * _C2
    z = (z ^ (z >> _S27)) * _C3
    return z ^ (z >> _S31)


@kernel
def pair64(a, b):  # type: ignore[no-untyped-def]
    """Hash of an ordered pair of uint64 values; never 0, which hash indexes keep for "empty".

    >>> int(pair64(np.uint64(1), np.uint64(2))) != int(pair64(np.uint64(2), np.uint64(1)))
    True
    """
    h = mix64(mix64(a) * _C3 + b)
    return h if h != np.uint64(0) else _C1


@kernel
def hash_span(data, start, end, seed):  # type: ignore[no-untyped-def]
    """Hash of `data[start:end]` (uint8) under a uint64 seed; never 0."""
    h = seed ^ (np.uint64(end - start) * _C1)
    i = start
    while i + 8 <= end:
        w = np.uint64(0)
        for k in range(8):
            w |= np.uint64(data[i + k]) << np.uint64(8 * k)
        h = (h ^ mix64(w)) * _C2
        h ^= h >> _S29
        i += 8
    w = np.uint64(0)
    k = 0
    while i < end:
        w |= np.uint64(data[i]) << np.uint64(8 * k)
        k += 1
        i += 1
    h = mix64(h ^ mix64(w ^ _C3))
    return h if h != np.uint64(0) else _C1


@kernel
def _hash_offsets(data, offsets, first, n, seed, out):  # type: ignore[no-untyped-def]
    for j in range(n):
        out[j] = hash_span(data, offsets[first + j], offsets[first + j + 1], seed)


def hash_bytes(data: bytes, seed: int | np.uint64 = SEED_ID) -> int:
    """64-bit hash of some bytes, as a Python int; never 0.

    >>> hash_bytes(b"phone") == hash_text("phone")
    True
    """
    return int(hash_span(np.frombuffer(data, np.uint8), 0, len(data), np.uint64(seed)))


def hash_text(text: str, seed: int | np.uint64 = SEED_ID) -> int:
    """64-bit hash of a string's UTF-8 bytes: the id of an item, user, order inside the state.

    >>> hash_text("a") != hash_text("b")
    True
    """
    return hash_bytes(text.encode(), seed)


def hash_strings(array: pa.Array | pa.ChunkedArray, seed: int | np.uint64 = SEED_ID) -> U64:
    """Hash each string of an Arrow array (string, large_string or dictionary of string); null gives 0.

    Returns uint64[n]. Reads the offsets and data buffers where they lie: no Python string is made.

    >>> hash_strings(pa.array(["a", None])).tolist() == [hash_text("a"), 0]
    True
    """
    if isinstance(array, pa.ChunkedArray):
        if array.num_chunks == 0:
            return np.zeros(0, np.uint64)
        return np.concatenate([hash_strings(chunk, seed) for chunk in array.chunks])
    if pa.types.is_dictionary(array.type):
        values = np.append(hash_strings(array.dictionary, seed), np.uint64(0))
        codes = array.indices.fill_null(len(values) - 1).to_numpy(zero_copy_only=False)
        return np.asarray(values[codes])
    if pa.types.is_null(array.type):
        return np.zeros(len(array), np.uint64)
    out = np.empty(len(array), np.uint64)
    if len(array) == 0:
        return out
    wide = pa.types.is_large_string(array.type)
    if not (wide or pa.types.is_string(array.type)):
        raise TypeError(f"hash_strings wants strings, got {array.type}; cast the column first")
    _, offset_buffer, data_buffer = array.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64 if wide else np.int32)
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer is not None else np.zeros(0, np.uint8)
    _hash_offsets(data, offsets, array.offset, len(array), np.uint64(seed), out)
    if array.null_count:
        out[array.is_null().to_numpy(zero_copy_only=False)] = 0
    return out
