"""Rows of canonical events: against a slow twin, over plain, dictionary and sliced columns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import event_row as slow
from thalweg.graph_store.hash import hash_text
from thalweg.streams.configuration import Configuration, from_builtins
from thalweg.streams.event import CanonicalBatch, event_schema
from thalweg.streams.intake import Intake, category_code, event_rows, numeric_bin, numeric_code

FEATURES = from_builtins({"features": [{"name": "channel"}, {"name": "age", "kind": "numeric"}, {"name": "brand"}]})
IDS = st.one_of(st.none(), st.sampled_from(["a", "b", "0108775015", "é" * 9, "x" * 40]))
EVENTS = st.fixed_dictionaries(
    {
        "event_id": st.sampled_from(["e1", "e2", "e3", "a long event id of many bytes"]),
        "type": st.integers(0, 6),
        "ts": st.integers(-(2**40), 2**43),
        **dict.fromkeys(("user_id", "item_id", "impression_id", "request_id", "order_id", "line", "currency"), IDS),
        "position": st.one_of(st.none(), st.integers(0, 2**31 - 1)),
        "price": st.one_of(st.none(), st.floats(0, 1e12), st.just(-0.0)),
        "quantity": st.one_of(st.none(), st.integers(1, 10**6)),
        "channel": st.one_of(st.none(), st.sampled_from(["", "mail", "web"])),
        "age": st.one_of(st.none(), st.floats(allow_infinity=False)),
        "brand": st.one_of(st.none(), st.text(max_size=9)),
    }
)


def batch_of(
    events: list[dict[str, Any]], configuration: Configuration, encode: bool = False, pad: int = 0
) -> CanonicalBatch:
    """A batch of the events; `encode`: strings as dictionaries; `pad`: a slice of something longer."""
    schema = event_schema(configuration)
    rows = pa.RecordBatch.from_pylist(events[:1] * pad + events, schema=schema).slice(pad)
    if encode:
        columns = [c.dictionary_encode() if pa.types.is_string(c.type) else c for c in rows.columns]
        rows = pa.RecordBatch.from_arrays(columns, names=schema.names)
    offsets = np.arange(len(events), dtype=np.int64) * 2 + 5
    return CanonicalBatch(0, 5 + 2 * len(events), offsets, rows, [])


@given(st.lists(EVENTS, min_size=1, max_size=20), st.booleans(), st.integers(0, 9))
def test_rows_equal_the_slow_twin(events: list[dict[str, Any]], encode: bool, pad: int) -> None:
    batch = batch_of(events, FEATURES, encode, pad)
    rows, codes, (hashes, names) = event_rows(batch, FEATURES, 3)
    for i, event in enumerate(events):
        expected, expected_codes = slow.row(event, FEATURES, 3, 5 + 2 * i)
        assert codes[i].tolist() == expected_codes
        for name, value in expected.items():
            got = rows[name][i].item()
            assert got == value or (math.isnan(value) and math.isnan(got)), name
    mentioned = list(dict.fromkeys(event["item_id"] for event in events if event["item_id"] is not None))
    assert names.to_pylist() == mentioned
    assert hashes.tolist() == [hash_text(name) for name in mentioned]


@given(st.lists(st.lists(EVENTS, max_size=6), min_size=1, max_size=4), st.booleans())
def test_kept_working_arrays_change_nothing(batches: list[list[dict[str, Any]]], fresh: bool) -> None:
    intake = Intake(FEATURES, fresh)
    for events in batches:
        batch = batch_of(events, FEATURES)
        got, expected = intake.rows(batch, 1), event_rows(batch, FEATURES, 1)
        assert got[0].tobytes() == expected[0].tobytes()
        assert got[1].tolist() == expected[1].tolist()
        assert got[2][1].equals(expected[2][1])


def test_fresh_rows_stay_when_the_next_batch_comes() -> None:
    intake = Intake(Configuration())
    event = {"event_id": "e", "type": 2, "ts": 5, "item_id": "A"}
    first = intake.rows(batch_of([event], Configuration()), 0)[0]
    before = first.tobytes()
    intake.rows(batch_of([{**event, "ts": 6}], Configuration()), 0)
    assert first.tobytes() == before


@given(EVENTS, EVENTS)
def test_the_content_hash_tells_contents_apart(one: dict[str, Any], other: dict[str, Any]) -> None:
    def content(event: dict[str, Any]) -> Any:
        found = slow.row(event, FEATURES, 0, 0)[0]
        codes = slow.row(event, FEATURES, 0, 0)[1]
        ids = (
            event[name]
            for name in ("user_id", "item_id", "impression_id", "request_id", "order_id", "line", "currency")
        )
        return event["type"], event["ts"], *ids, event["position"], str(found["price"]), found["quantity"], *codes

    ties = [event_rows(batch_of([event], FEATURES), FEATURES, 0)[0]["tie"][0] for event in (one, other)]
    assert (ties[0] == ties[1]) == (content(one) == content(other))


def test_one_content_in_two_spellings() -> None:
    event = {"event_id": "e", "type": 4, "ts": 5, "item_id": "A", "price": 0.0, "quantity": None}
    same = {**event, "event_id": "f", "price": -0.0, "quantity": 1}
    rows = event_rows(batch_of([event, same], Configuration()), Configuration(), 0)[0]
    assert rows["tie"][0] == rows["tie"][1]
    assert rows["id"][0] != rows["id"][1]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_bins_equal_the_slow_twin_and_are_odd(value: float) -> None:
    assert numeric_bin(value) == slow.bin_of(value) == -numeric_bin(-value)


@given(st.floats(1e-300, 1e300), st.floats(1e-300, 1e300))
def test_bins_rise_with_the_number(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert numeric_bin(low) <= numeric_bin(high)
    if high > low * 2**0.2500001:
        assert numeric_bin(low) < numeric_bin(high)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_has_no_bin(value: float) -> None:
    with pytest.raises(ValueError, match="has no bin"):
        numeric_bin(value)


@given(st.one_of(st.none(), st.text()), st.one_of(st.none(), st.floats(allow_infinity=False)))
def test_codes_of_single_values(text: str | None, number: float | None) -> None:
    assert category_code("channel", text) == slow.code("channel", text)
    assert numeric_code("age", number) == slow.code("age", number)


def test_no_event_at_all() -> None:
    rows, codes, (hashes, names) = event_rows(batch_of([], FEATURES), FEATURES, 0)
    assert (len(rows), codes.shape, len(hashes), len(names)) == (0, (0, 3), 0, 0)
