"""Canonical record batches to the rows that stages read: every string hashed straight from its Arrow buffer.

A row keeps two hashes of its event id, one hash of each other id, and `tie`, the hash of the whole canonical content
(the instant, the price as a float, the quantity with its default; not the event id and not the place). So two ways of
writing one event give one row, and two payloads under one id give two.

Feature codes
-------------
A categorical value's code is the low 32 bits of the hash of its text under a seed made from the feature's name; a
numeric value is put in a bin (`numeric_bin`) whose number is hashed the same way. Code 0 means absent: null, NaN and
the empty text. A present value never has code 0.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from thalweg.graph_store.hash import SEED_ID, SEED_ID2, hash_span, hash_strings, hash_text, mix64, pair64
from thalweg.graph_store.hash_index import find, put
from thalweg.graph_store.kernel import kernel

from .configuration import Configuration
from .event import CanonicalBatch
from .row import EVENT_ROW

U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]
F64 = npt.NDArray[np.float64]
Names = tuple[U64, pa.StringArray]

_HASHED = ("user_id", "item_id", "impression_id", "request_id", "order_id", "line", "currency")
"""Columns whose hashes stand behind the two of the event id, in the order that `_fill` reads them."""

_LOW = np.uint64(0xFFFFFFFF)
_HALF, _QUARTER, _THREE = 2.0**-0.5, 2.0**-0.75, 2.0**-0.25


def feature_seed(name: str) -> int:
    """Seed under which the values of the feature `name` are hashed.

    >>> feature_seed("channel") != feature_seed("device")
    True
    """
    return hash_text("feature:" + name)


def numeric_bin(value: float) -> int:
    """Bin of a number: its sign and the quarter octave of its size, so neighbours in a bin differ by at most 19 %.

    0 has bin 0; the bin of x > 0 is 1 + 4 * (e + 1100) + q where x = m * 2**e with m in [1/2, 1) and q in 0..3 counts
    which of 2**-0.75, 2**-0.5, 2**-0.25 are at or below m; the bin of -x is minus the bin of x. Comparisons only: no
    logarithm, so the bin is the same on every machine. ValueError where `value` is not finite.

    >>> numeric_bin(0.0), numeric_bin(1.0) - numeric_bin(0.5), numeric_bin(-3.0) == -numeric_bin(3.0)
    (0, 4, True)
    """
    if not math.isfinite(value):
        raise ValueError(f"{value} has no bin; leave the value out")
    return int(_bin(float(value)))


def category_code(name: str, text: str | None) -> int:
    """Code of a categorical value of the feature `name`; 0 where it is None or empty.

    >>> category_code("channel", None), category_code("channel", "mail") != category_code("device", "mail")
    (0, True)
    """
    return int(_low(np.uint64(hash_text(text, feature_seed(name))))) if text else 0


def numeric_code(name: str, value: float | None) -> int:
    """Code of a numeric value of the feature `name`; 0 where it is None or NaN.

    >>> numeric_code("age", 40.0) == numeric_code("age", 41.0) != numeric_code("age", 80.0)
    True
    """
    if value is None or math.isnan(value):
        return 0
    return int(_numeric_code(float(value), np.uint64(feature_seed(name))))


@kernel
def _bin(value):  # type: ignore[no-untyped-def]
    if value == 0.0:
        return np.int64(0)
    m, e = math.frexp(abs(value))
    q = np.int64(0)
    if m >= _THREE:
        q = np.int64(3)
    elif m >= _HALF:
        q = np.int64(2)
    elif m >= _QUARTER:
        q = np.int64(1)
    b = np.int64(1) + np.int64(4) * (np.int64(e) + np.int64(1100)) + q
    return b if value > 0.0 else -b


@kernel
def _low(h):  # type: ignore[no-untyped-def]
    code = h & _LOW
    return np.uint32(code) if code != np.uint64(0) else np.uint32(1)


@kernel
def _numeric_code(value, seed):  # type: ignore[no-untyped-def]
    return _low(pair64(seed, np.uint64(_bin(value))))


@kernel
def _numeric_codes(values, seed, out):  # type: ignore[no-untyped-def]
    for i in range(values.shape[0]):
        v = values[i]
        out[i] = np.uint32(0) if math.isnan(v) else _numeric_code(v, seed)


@kernel
def _text_codes(data, offsets, first, n, seed, out):  # type: ignore[no-untyped-def]
    for i in range(n):
        a, b = offsets[first + i], offsets[first + i + 1]
        out[i] = np.uint32(0) if a == b else _low(hash_span(data, a, b, seed))


@kernel
def _gather(values, indices, bits, first, out):  # type: ignore[no-untyped-def]
    if bits.shape[0] == 0:
        for i in range(indices.shape[0]):
            out[i] = values[indices[i]]
        return
    for i in range(indices.shape[0]):
        at = first + i
        if (bits[at >> 3] >> (at & 7)) & 1:  # no conditional expression: of uint64 and 0 numba makes a float
            out[i] = values[indices[i]]
        else:
            out[i] = 0


def _validity(array: pa.Array) -> npt.NDArray[np.uint8]:
    buffer = array.buffers()[0]
    return np.zeros(0, np.uint8) if buffer is None or array.null_count == 0 else np.frombuffer(buffer, np.uint8)


def _gathered(array: pa.DictionaryArray, values: npt.NDArray[np.generic], out: npt.NDArray[np.generic]) -> None:
    """out[i] = values[index of row i], 0 where the row is null."""
    indices = array.indices
    start, end = indices.offset, indices.offset + len(indices)
    raw = np.frombuffer(indices.buffers()[1], indices.type.to_pandas_dtype())[start:end]
    _gather(values, raw, _validity(indices), start, out)


def _plain_codes(array: pa.Array, seed: np.uint64, out: U32) -> None:
    wide = pa.types.is_large_string(array.type)
    _, offsets, data = array.buffers()
    text = np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    _text_codes(text, np.frombuffer(offsets, np.int64 if wide else np.int32), array.offset, len(array), seed, out)
    if array.null_count:
        out[array.is_null().to_numpy(zero_copy_only=False)] = 0


@kernel
def _hash_column(data, offsets, first, bits, seed, out):  # type: ignore[no-untyped-def]
    """Hash of each string into out; 0 where null (`bits` is the validity bitmap, empty: all valid)."""
    for i in range(out.shape[0]):
        at = first + i
        if bits.shape[0] and not (bits[at >> 3] >> (at & 7)) & 1:
            out[i] = np.uint64(0)
        else:
            out[i] = hash_span(data, offsets[at], offsets[at + 1], seed)


def _hash_into(array: pa.Array, out: U64, seed: np.uint64 = SEED_ID) -> None:
    if array.null_count == len(array):
        out[:] = 0
    elif pa.types.is_dictionary(array.type):
        _gathered(array, hash_strings(array.dictionary, seed), out)
    else:
        wide = pa.types.is_large_string(array.type)
        _, offsets, data = array.buffers()
        text = np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
        ends = np.frombuffer(offsets, np.int64 if wide else np.int32)
        _hash_column(text, ends, array.offset, _validity(array), seed, out)


@kernel
def _transpose(codes, out):  # type: ignore[no-untyped-def]
    """out[i, j] = codes[j, i]."""
    features, n = codes.shape
    for i in range(n):
        for j in range(features):
            out[i, j] = codes[j, i]


@kernel
def _fill(rows, event, number, price, price_bits, codes, odd, source, offsets):  # type: ignore[no-untyped-def]
    """event: uint64 [9, n] hashes; number: int64 [4, n] type, ts, position, quantity; odd: uint64 [12 + F] multipliers.

    The content hash is the multilinear sum of its words, mixed: two contents that differ in one word always differ.
    """
    n = rows.shape[0]
    features = codes.shape[1]
    for i in range(n):
        kind, ts, position, quantity = number[0, i], number[1, i], number[2, i], number[3, i]
        id1, user, item, impression, request = event[0, i], event[2, i], event[3, i], event[4, i], event[5, i]
        order, line = event[6, i], event[7, i]
        h = np.uint64(kind) * odd[0] + np.uint64(ts) * odd[1] + user * odd[2] + item * odd[3] + impression * odd[4]
        h += request * odd[5] + order * odd[6] + line * odd[7] + np.uint64(position) * odd[8] + price_bits[i] * odd[9]
        h += event[8, i] * odd[10] + np.uint64(quantity) * odd[11]
        for j in range(features):
            h += np.uint64(codes[i, j]) * odd[12 + j]
        if kind == 0:
            key = pair64(np.uint64(4), item)
        elif user != np.uint64(0):
            key = user
        elif order != np.uint64(0):
            key = pair64(np.uint64(1), order)
        elif request != np.uint64(0):
            key = pair64(np.uint64(2), request)
        else:
            key = pair64(np.uint64(3), id1)
        rows["ts"][i] = ts
        rows["rank"][i] = kind
        rows["id"][i] = id1
        rows["id2"][i] = event[1, i]
        rows["tie"][i] = mix64(h)
        rows["clock"][i] = 0
        rows["key"][i] = key
        rows["user"][i] = user
        rows["item"][i] = item
        rows["impression"][i] = id1 if kind == 1 and impression == np.uint64(0) else impression
        rows["request"][i] = request
        rows["order"][i] = order
        rows["line"][i] = line
        rows["price"][i] = price[i]
        rows["quantity"][i] = quantity
        rows["source"][i] = source
        rows["offset"][i] = offsets[i]


@kernel
def _distinct(hashes, keys, values, count, first):  # type: ignore[no-untyped-def]
    m = 0
    for i in range(hashes.shape[0]):
        h = hashes[i]
        if h != np.uint64(0) and find(keys, values, h) < 0:
            put(keys, values, count, h, np.int64(i))
            first[m] = i
            m += 1
    return m


def _multipliers(count: int) -> U64:
    """`count` fixed odd numbers that look random."""
    return np.array([mix64(np.uint64(j)) | np.uint64(1) for j in range(count)], np.uint64)


class Intake:
    """Turns canonical batches into rows; keeps its working arrays from batch to batch, since fresh pages are dear.

    Parameters
    ----------
    configuration : its features are the columns of the codes
    fresh : True: what `rows` returns is the caller's for good. False: it is overwritten by the next call
    """

    def __init__(self, configuration: Configuration, fresh: bool = True) -> None:
        self.configuration = configuration
        self.fresh = fresh
        self._seeds = [np.uint64(feature_seed(feature.name)) for feature in configuration.features]
        self._odd = _multipliers(12 + len(self._seeds))
        self._room = -1
        self._rows, self._by_row = np.empty(0, EVENT_ROW), np.empty((0, len(self._seeds)), np.uint32)

    def _reserve(self, n: int) -> None:
        """Working arrays for n rows."""
        if n <= self._room:
            return
        self._room, size = n, 1 << max(4, (2 * n - 1).bit_length())
        self._hashes = np.empty((9, n), np.uint64)
        self._numbers = np.empty((4, n), np.int64)
        self._price = np.empty(n, np.float64)
        self._codes = np.empty((len(self._seeds), n), np.uint32)
        self._keys, self._values = np.empty(size, np.uint64), np.empty(size, np.int64)
        self._first = np.empty(n, np.int64)
        if not self.fresh:
            self._rows, self._by_row = np.empty(n, EVENT_ROW), np.empty((n, len(self._seeds)), np.uint32)

    def rows(self, batch: CanonicalBatch, source_index: int) -> tuple[npt.NDArray[np.void], U32, Names]:
        """Rows, feature codes and item names of a batch; see `event_rows`."""
        events = batch.events
        n = len(events)
        self._reserve(n)
        hashes, numbers, price = self._hashes[:, :n], self._numbers[:, :n], self._price[:n]
        _hash_into(events.column("event_id"), hashes[0])
        _hash_into(events.column("event_id"), hashes[1], SEED_ID2)
        for row, name in enumerate(_HASHED, 2):
            _hash_into(events.column(name), hashes[row])
        numbers[0] = events.column("type").to_numpy(zero_copy_only=False)
        numbers[1] = events.column("ts").to_numpy(zero_copy_only=False)
        _integers_into(events.column("position"), -1, numbers[2])
        _integers_into(events.column("quantity"), 1, numbers[3])
        column = events.column("price")
        price[:] = np.nan if column.null_count == n else column.to_numpy(zero_copy_only=False)
        price += 0.0  # -0.0 becomes 0.0: one number, one content
        rows = np.empty(n, EVENT_ROW) if self.fresh else self._rows[:n]
        by_row = np.empty((n, len(self._seeds)), np.uint32) if self.fresh else self._by_row[:n]
        self._feature_codes(events, by_row)
        _fill(rows, hashes, numbers, price, price.view(np.uint64), by_row, self._odd, source_index, batch.offsets)
        return rows, by_row, self._item_names(events, hashes[3])

    def _feature_codes(self, events: pa.RecordBatch, out: U32) -> None:
        """Codes of the declared features into out [n, F]."""
        n = len(events)
        codes = self._codes[:, :n]
        for line, seed, feature in zip(codes, self._seeds, self.configuration.features, strict=True):
            array = events.column(feature.name)
            if array.null_count == n:
                line[:] = 0
            elif feature.kind == "numeric":
                _numeric_codes(array.to_numpy(zero_copy_only=False), seed, line)
            elif pa.types.is_dictionary(array.type):
                values = np.zeros(len(array.dictionary), np.uint32)
                _plain_codes(array.dictionary, seed, values)
                _gathered(array, values, line)
            else:
                _plain_codes(array, seed, line)
        _transpose(codes, out)

    def _item_names(self, events: pa.RecordBatch, hashes: U64) -> Names:
        """Hash and text of the distinct item ids, in order of first appearance."""
        n = len(hashes)
        size = 1 << max(4, (2 * n - 1).bit_length()) if n else 16
        keys, values = self._keys[:size], self._values[:size]
        keys[:] = 0
        m = _distinct(hashes, keys, values, np.zeros(1, np.int64), self._first)
        at = self._first[:m]
        text = events.column("item_id").take(pa.array(at))
        if pa.types.is_dictionary(text.type):
            text = text.dictionary_decode()
        return hashes[at], text.cast(pa.string())


def _integers_into(array: pa.Array, missing: int, out: npt.NDArray[np.int64]) -> None:
    if array.null_count == len(array):
        out[:] = missing
    else:
        out[:] = array.fill_null(missing).to_numpy(zero_copy_only=False)


def event_rows(
    batch: CanonicalBatch, configuration: Configuration, source_index: int
) -> tuple[npt.NDArray[np.void], U32, Names]:
    """Rows, feature codes and item names of a canonical batch of n events; `Intake` does many batches faster.

    Parameters
    ----------
    batch : its `events` are hashed, its `offsets` become the rows' `offset`
    source_index : index of the raw partition; becomes `source`

    Returns
    -------
    rows : EVENT_ROW [n], `clock` still 0 (the driver stamps it)
    codes : uint32 [n, F]
    names : (uint64 [m], string [m]) the distinct item ids of the batch

    >>> from .event import event_schema
    >>> event = {"event_id": "e1", "type": 1, "ts": 5, "item_id": "A"}
    >>> events = pa.RecordBatch.from_pylist([event], schema=event_schema(Configuration()))
    >>> batch = CanonicalBatch(0, 1, np.zeros(1, np.int64), events, [])
    >>> rows, codes, (hashes, names) = event_rows(batch, Configuration(), 0)
    >>> bool(rows["item"][0] == hashes[0] == hash_text("A")), codes.shape, names.to_pylist()
    (True, (1, 0), ['A'])
    """
    return Intake(configuration).rows(batch, source_index)
