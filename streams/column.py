"""Typed Arrow columns, as Parquet gives them, to canonical columns: whole columns at once, value by value where rare.

Each reader returns (column, bad): an Arrow array of the canonical type, null where nothing is there or nothing could be
read, and the rows (bool [n]) whose value is no such thing, or None where there are none. What a value means is said
once, in `value` and `instant`; a vectorised branch here must agree with them, and tests compare the two. In a float
column NaN is nothing (that is how pandas writes a missing value), in an id column too.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, tzinfo
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .event import MAX_QUANTITY, RESERVED_TYPES, TYPE_NAMES, TYPES
from .instant import OUTSIDE, from_floats, from_integers, from_text
from .value import BAD, Bad, read_category, read_id, read_number, read_position, read_price, read_quantity

Bools = npt.NDArray[np.bool_]
Read = tuple[pa.Array, Bools | None]

UNKNOWN_TYPE, RESERVED_TYPE = -1, -2


def is_text(kind: pa.DataType) -> bool:
    """Whether an Arrow type is a plain string.

    >>> is_text(pa.large_string()), is_text(pa.dictionary(pa.int32(), pa.string()))
    (True, False)
    """
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _some(bad: Bools) -> Bools | None:
    return bad if bad.any() else None


def _each(array: pa.Array, read: Callable[[Any], Any | Bad], kind: pa.DataType) -> Read:
    """Value by value, each distinct value once where Arrow can tell them apart."""
    try:
        coded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
        distinct, indices = coded.dictionary, coded.indices
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        distinct, indices = array, pa.array(np.arange(len(array), dtype=np.int32))
    values = [read(_scalar(value)) for value in distinct]
    wrong = np.array([value is BAD for value in values] + [False], np.bool_)
    column = pa.array([None if value is BAD else value for value in values], kind).take(indices)
    at = indices.fill_null(len(values)).to_numpy(zero_copy_only=False)
    return column, _some(wrong[at])


def _scalar(value: pa.Scalar) -> Any:
    try:
        return value.as_py()
    except (ValueError, OverflowError, UnicodeDecodeError):
        return value  # no id, no number: the readers refuse it


def _nothing(array: pa.Array, kind: pa.DataType) -> Read:
    return pa.nulls(len(array), kind), None


def ids(array: pa.Array) -> Read:
    """Ids: text as it is (dictionary or plain), whole numbers from integer, float and decimal columns as digits.

    >>> column, bad = ids(pa.array([17850.0, None, 0.5]))
    >>> column.to_pylist(), bad.tolist()
    (['17850', None, None], [False, False, True])
    """
    kind = array.type
    if array.null_count == len(array):
        return _nothing(array, pa.string())
    if is_text(kind) or (pa.types.is_dictionary(kind) and is_text(kind.value_type)):
        return array, None
    if pa.types.is_integer(kind):
        return array.cast(pa.string()), None
    if pa.types.is_floating(kind):
        values = array.cast(pa.float64()).to_numpy(zero_copy_only=False)
        missing = np.isnan(values)
        whole = ~missing & (np.abs(values) < 2**53) & (np.trunc(values) == values)
        digits = pa.array(np.where(whole, values, 0).astype(np.int64), mask=~whole).cast(pa.string())
        return digits, _some(~whole & ~missing)
    return _each(array, read_id, pa.string())


def categories(array: pa.Array) -> Read:
    """Values of a categorical feature as text.

    >>> categories(pa.array([True, None]))[0].to_pylist()
    ['true', None]
    """
    kind = array.type
    if array.null_count == len(array):
        return _nothing(array, pa.string())
    if is_text(kind) or (pa.types.is_dictionary(kind) and is_text(kind.value_type)):
        return array, None
    if pa.types.is_integer(kind):
        return array.cast(pa.string()), None
    return _each(array, read_category, pa.string())


def _floats(array: pa.Array) -> tuple[npt.NDArray[np.float64], Bools]:
    values = np.asarray(array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)
    return values, np.isnan(values)


def _numbers(array: pa.Array, read: Callable[[Any], float | None | Bad], low: float) -> Read:
    kind = array.type
    if array.null_count == len(array):
        return _nothing(array, pa.float64())
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return _each(array, read, pa.float64())
    values, missing = _floats(array)
    bad = ~missing & ~(np.isfinite(values) & (values >= low))
    if not missing.any() and not bad.any():
        return pa.array(values), None
    return pa.array(values, mask=missing | bad), _some(bad)


def numbers(array: pa.Array) -> Read:
    """Values of a numeric feature: finite.

    >>> numbers(pa.array(["1e3", "x"]))[0].to_pylist()
    [1000.0, None]
    """
    return _numbers(array, read_number, -np.inf)


def prices(array: pa.Array) -> Read:
    """Prices: finite and not below 0.

    >>> prices(pa.array([5, -5]))[1].tolist()
    [False, True]
    """
    return _numbers(array, read_price, 0.0)


def _wholes(array: pa.Array, read: Callable[[Any], int | None | Bad], low: int, high: int, kind: pa.DataType) -> Read:
    if array.null_count == len(array):
        return _nothing(array, kind)
    if not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        return _each(array, read, kind)
    values, missing = _floats(array)
    good = ~missing & (values >= low) & (values <= high) & (np.trunc(values) == values)
    column = pa.array(np.where(good, values, 0).astype(np.int64), mask=~good).cast(kind)
    return column, _some(~good & ~missing)


def quantities(array: pa.Array) -> Read:
    """Units: whole, 1 to `event.MAX_QUANTITY`.

    >>> quantities(pa.array([3.0, 0.0, 1.5]))[0].to_pylist()
    [3, None, None]
    """
    return _wholes(array, read_quantity, 1, MAX_QUANTITY, pa.int64())


def positions(array: pa.Array) -> Read:
    """Places in a list: whole, from 0.

    >>> positions(pa.array([0, -1]))[0].to_pylist()
    [0, None]
    """
    return _wholes(array, read_position, 0, 2**31 - 1, pa.int32())


def texts(array: pa.Array) -> Read:
    """Free text (the currency): text as it is, nothing else."""
    return ids(array)


def times(array: pa.Array, unit: str = "auto", zone: tzinfo = UTC) -> pa.Array:
    """Times as int64 ms UTC, `OUTSIDE` where null or unreadable: there is no null.

    A typed column uses its own unit; without a zone of its own it is local time of `zone`. Integers and floats go by
    size (`instant`), text by its rules. A date column is no time.

    >>> times(pa.array([1774785600, None])).to_pylist() == [1774785600000, OUTSIDE]
    True
    """
    kind = array.type
    if array.null_count == len(array):
        return pa.array(np.full(len(array), OUTSIDE, np.int64))
    if pa.types.is_timestamp(kind):
        values = _from_timestamps(array, zone)
    elif pa.types.is_integer(kind) and kind != pa.uint64():
        values = from_integers(array.fill_null(0).cast(pa.int64()).to_numpy(zero_copy_only=False), unit)
    elif pa.types.is_floating(kind):
        values = from_floats(array.cast(pa.float64()).to_numpy(zero_copy_only=False), unit)
    else:
        read = _each(array, lambda value: _time(value, unit, zone), pa.int64())[0]
        values = read.fill_null(OUTSIDE).to_numpy(zero_copy_only=False)
    if array.null_count:
        values = np.where(array.is_null().to_numpy(zero_copy_only=False), OUTSIDE, values)
    return pa.array(values)


def _time(value: Any, unit: str, zone: tzinfo) -> int | Bad:
    if isinstance(value, str):
        return from_text(value, unit, zone)
    number = read_id(value)
    return from_text(number, unit, zone) if isinstance(number, str) else BAD


def _from_timestamps(array: pa.Array, zone: tzinfo) -> npt.NDArray[np.int64]:
    per = {"s": 1, "ms": 1, "us": 1000, "ns": 1_000_000}
    naive = array.type.tz is None
    raw = array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    if array.type.unit == "s":
        near = np.abs(raw) < 2**53
        values = np.where(near, np.where(near, raw, 0) * 1000, OUTSIDE)
    else:
        values = raw // per[array.type.unit]
    if not naive or zone is UTC:
        return np.asarray(values)
    return _localised(values, zone)


def _localised(values: npt.NDArray[np.int64], zone: tzinfo) -> npt.NDArray[np.int64]:
    near = (values > -(2**46)) & (values < 2**47)  # years 0 to 6400: beyond is out of bounds anyway
    local = pa.array(np.where(near, values, 0)).cast(pa.timestamp("ms"))
    there = pc.assume_timezone(local, str(zone), ambiguous="earliest", nonexistent="earliest")
    back = pc.local_timestamp(there).cast(pa.int64()).to_numpy(zero_copy_only=False)
    instant = there.cast(pa.int64()).to_numpy(zero_copy_only=False)
    same = near & (back == local.cast(pa.int64()).to_numpy(zero_copy_only=False))
    return np.asarray(np.where(same, instant, OUTSIDE))


def types(array: pa.Array | None, rows: int, default: int) -> npt.NDArray[np.int8]:
    """Types as int8 [rows]: `row.Type`, `UNKNOWN_TYPE` or `RESERVED_TYPE`; null and a missing column give `default`.

    Names in text columns, numbers of `row.Type` in integer columns.

    >>> types(pa.array(["click", None, "view"]), 3, 1).tolist()
    [2, 1, -1]
    """
    if array is None or array.null_count == rows:
        return np.full(rows, default, np.int8)
    if pa.types.is_integer(array.type):
        wide = array.cast(pa.int64(), safe=False).fill_null(default).to_numpy(zero_copy_only=False)
        known = np.isin(wide, list(TYPE_NAMES))
        return np.where(known, wide, UNKNOWN_TYPE).astype(np.int8)
    try:
        coded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return np.full(rows, UNKNOWN_TYPE, np.int8)
    table = np.array([type_code(_scalar(value), default) for value in coded.dictionary] + [default], np.int8)
    return table[coded.indices.fill_null(len(table) - 1).to_numpy(zero_copy_only=False)]


def type_code(value: object, default: int) -> int:
    """`row.Type` of a type's name; `default` for None and empty text; `UNKNOWN_TYPE`, `RESERVED_TYPE`.

    >>> type_code("click", -1), type_code(None, 1), type_code("Click", 1), type_code("forget", 1)
    (2, 1, -1, -2)
    """
    if value is None or value == "":
        return default
    if not isinstance(value, str):
        return UNKNOWN_TYPE
    if value in RESERVED_TYPES:
        return RESERVED_TYPE
    return int(TYPES[value]) if value in TYPES else UNKNOWN_TYPE
