"""Typed columns agree with reading value by value."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.streams import column, value
from thalweg.streams.decode import read_column, read_time
from thalweg.streams.instant import OUTSIDE

INTEGERS = st.one_of(
    st.none(), st.integers(-5, 5), st.integers(-(2**62), 2**62), st.sampled_from([10**6, 10**6 + 1, 2**31])
)
FLOATS = st.one_of(st.none(), st.integers(-5, 5).map(float), st.floats(), st.sampled_from([1.5, 2.0**53, 1e300]))
TEXTS = st.one_of(
    st.none(), st.text(max_size=4), st.sampled_from(["3", "3.0", "1e3", "6,795", "1_0", "-1", "nan", "", "0.5"])
)
KINDS: dict[str, tuple[Callable[[pa.Array], column.Read], Callable[[Any], Any]]] = {
    "id": (column.ids, value.read_id),
    "quantity": (column.quantities, value.read_quantity),
    "integer": (column.positions, value.read_position),
    "price": (column.prices, value.read_price),
    "numeric": (column.numbers, value.read_number),
    "categorical": (column.categories, value.read_category),
}


def arrays(kind: pa.DataType, values: list[Any]) -> list[pa.Array]:
    """The values as a plain, a sliced and a dictionary column."""
    plain = pa.array(values, kind)
    return [plain, pa.array([None, *values, None], kind).slice(1, len(values)), plain.dictionary_encode()]


@pytest.mark.parametrize("name", KINDS)
@given(
    st.one_of(
        st.tuples(st.just(pa.int64()), st.lists(INTEGERS, max_size=6)),
        st.tuples(st.just(pa.float64()), st.lists(FLOATS, max_size=6)),
        st.tuples(st.just(pa.string()), st.lists(TEXTS, max_size=6)),
        st.tuples(st.just(pa.large_string()), st.lists(TEXTS, max_size=6)),
        st.tuples(st.just(pa.bool_()), st.lists(st.one_of(st.none(), st.booleans()), max_size=6)),
        st.tuples(st.just(pa.list_(pa.int64())), st.lists(st.lists(st.integers(0, 3), max_size=2), max_size=6)),
    )
)
def test_columns_equal_values(name: str, typed: tuple[pa.DataType, list[Any]]) -> None:
    kind, values = typed
    whole, single = KINDS[name]
    expected = [single(item) for item in values]
    for array in arrays(kind, values) if not pa.types.is_list(kind) else [pa.array(values, kind)]:
        read, bad = whole(array)
        wrong = np.zeros(len(values), np.bool_) if bad is None else bad
        assert len(read) == len(values)
        for got, is_bad, want in zip(read.to_pylist(), wrong, expected, strict=True):
            assert is_bad == (want is value.BAD)
            assert got == (None if want is value.BAD else want)


@pytest.mark.parametrize("name", KINDS)
@given(st.lists(st.one_of(INTEGERS, FLOATS, TEXTS, st.booleans()), max_size=6))
def test_columns_of_json_values_equal_values(name: str, values: list[Any]) -> None:
    read, bad = read_column(values, name)
    expected = [KINDS[name][1](item) for item in values]
    assert read.to_pylist() == [None if want is value.BAD else want for want in expected]
    assert (np.zeros(len(values)) if bad is None else bad).tolist() == [want is value.BAD for want in expected]


TIMES = st.sampled_from([0, 1, 1774785600, 1774785600123, 1774785600123456, 1774785600123456789, -5, 2**62])


@pytest.mark.parametrize("unit", ["auto", "s", "ms", "us", "ns"])
@given(st.lists(st.one_of(st.none(), TIMES, st.integers(-(2**63), 2**63 - 1)), max_size=6))
def test_integer_times_equal_values(unit: str, values: list[int | None]) -> None:
    got = column.times(pa.array(values, pa.int64()), unit)
    expected = [OUTSIDE if v is None else read_time(v, unit, UTC) for v in values]
    plausible = [(g, w) for g, w in zip(got.to_pylist(), expected, strict=True) if abs(w) < 2**52 or abs(g) < 2**52]
    assert all(g == w for g, w in plausible)


@pytest.mark.parametrize("unit", ["auto", "s", "ms", "us", "ns"])
@given(st.lists(st.one_of(st.none(), TIMES.map(float), st.floats()), max_size=6))
def test_float_times_equal_values(unit: str, values: list[float | None]) -> None:
    got = column.times(pa.array(values, pa.float64()), unit)
    assert got.to_pylist() == [OUTSIDE if v is None else read_time(v, unit, UTC) for v in values]


@given(
    st.lists(st.integers(1_600_000_000, 1_900_000_000), max_size=8),
    st.sampled_from(["America/New_York", "Europe/Berlin"]),
)
def test_naive_columns_equal_naive_text(seconds: list[int], name: str) -> None:
    zone = ZoneInfo(name)
    naive = pa.array(seconds, pa.timestamp("s"))
    got = column.times(naive, zone=zone)
    texts = [moment.isoformat() for moment in naive.to_pylist()]
    assert got.to_pylist() == [read_time(text, "auto", zone) for text in texts]


def test_naive_columns_around_every_change_of_a_year() -> None:
    zone = ZoneInfo("America/New_York")
    naive = pa.array(np.arange(1_767_225_600, 1_798_761_600, 1800), pa.timestamp("s"))
    texts = [moment.isoformat() for moment in naive.to_pylist()]
    expected = [read_time(text, "auto", zone) for text in texts]
    assert column.times(naive, zone=zone).to_pylist() == expected
    assert expected.count(OUTSIDE) == 2  # half past and the full hour that are skipped


def test_types_by_name_and_number() -> None:
    names = pa.array(["click", None, "", "forget", "Click", "item"])
    for array in (names, names.dictionary_encode()):
        assert column.types(array, 6, 4).tolist() == [2, 4, 4, -2, -1, 0]
    assert column.types(pa.array([0, 6, 7, -1, None, 2], pa.int16()), 6, 4).tolist() == [0, 6, -1, -1, 4, 2]
    assert column.types(None, 2, 1).tolist() == [1, 1]
    assert column.types(pa.array([[1], [2]]), 2, 1).tolist() == [-1, -1]
