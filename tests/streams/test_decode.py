"""The strict decoder against a slow twin, and the quick proof against the slow scan."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reference import json_event as slow
from tests.reference.log_reading import WIDE, decode
from thalweg.streams.configuration import from_builtins
from thalweg.streams.decode import MAX_DEPTH, Decoder, Refused, parse, repeated_keys, surely_distinct
from thalweg.streams.event import TYPES
from thalweg.streams.time_bounds import configured
from thalweg.streams.validation import Rules

TEXTS = st.sampled_from(
    [
        "",
        " ",
        "u1",
        "0108775015",
        "null",
        "undefined",
        "None",
        "NaN",
        " null ",
        "[object Object]",
        "0",
        "5",
        "1e3",
        "1_000",
        "6,795",
    ]
    + [
        "2026-03-29T12:00:00Z",
        "2026-03-29T12:00:00.123456789+02:00",
        "1774785600",
        "1774785600.5",
        "2026-03-29",
        'a"b',
        "a\\",
        "é",
        ":",
    ]
)
NUMBERS = st.one_of(
    st.integers(-3, 4),
    st.sampled_from([1774785600, 1774785600000, 1774785600000000, 1774785600000000000, 2**63, 10**30, 10**12, 2**53]),
    st.sampled_from([0.0, -0.0, 1.5, 17850.0, 17850.5, 1774785600.123, 1e300, 2.0**53, 3.0, 1774785600123.4567]),
    st.floats(allow_nan=False, allow_infinity=False),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS, st.text(max_size=5))
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2), max_leaves=4
)
NAMES = st.sampled_from(
    [*slow.IDS, "type", "ts", "quantity", "price", "position", "Item_ID", "extra", 'quo"te', "b\\s"]
)
PLAUSIBLE = {"ts": 1772452800, "item_id": "A"}


def render(pairs: list[tuple[str, Any]], spaced: bool) -> bytes:
    """An object that may say a key twice, which no encoder would write."""
    colon, comma = (" : ", " , ") if spaced else (":", ",")
    return (
        "{" + comma.join(json.dumps(k) + colon + json.dumps(v, ensure_ascii=False) for k, v in pairs) + "}"
    ).encode()


OBJECTS = st.builds(
    lambda pairs, base, spaced: render([*(PLAUSIBLE.items() if base else []), *pairs], spaced),
    st.lists(st.tuples(NAMES, VALUES), max_size=5),
    st.booleans(),
    st.booleans(),
)
FREE = st.builds(
    lambda fields: render(list({**PLAUSIBLE, **fields}.items()), False), st.dictionaries(NAMES, SCALARS, max_size=4)
)
RAW = st.sampled_from(
    [
        None,
        b"",
        b"\n",
        b"null",
        b"[]",
        b"1",
        b'"x"',
        b"{}",
        b"{",
        b"}",
        b"{}{}",
        b'{"a":NaN}',
        b'{"a":1e999}',
        b"\xff\xfe\x00A",
    ]
    + [
        b'{"a":"\\ud800"}',
        b'{"a":"\xff"}',
        b"\xef\xbb\xbf{}",
        b'{"a":01}',
        b"{'a':1}",
        b'{"a":1,}',
        b'{"a":1}x',
        b'{"a":-}',
    ]
)
MESSAGES = st.one_of(OBJECTS, FREE, FREE, RAW, st.binary(max_size=12))


def outcome(message: bytes | None, topic: str) -> dict[str, Any] | str:
    try:
        return slow.canonical(message, topic)
    except slow.Reject as error:
        return str(error)


@given(st.lists(MESSAGES, max_size=12), st.sampled_from(["click", "purchase", "item", "impression", "progress"]))
def test_equals_the_slow_decoder_message_by_message(messages: list[bytes | None], topic: str) -> None:
    reading = decode(topic, messages)
    events = iter(reading.events)
    reasons = {letter.row: letter.reason for letter in reading.rejects}
    for row, message in enumerate(messages):
        expected = outcome(message, topic)
        if isinstance(expected, str):
            assert reasons[row] == expected, message
            continue
        assert row not in reasons, (message, reasons[row])
        event = next(events)
        expected["event_id"] = expected["event_id"] or f"{topic}s#{row}"
        assert {name: event[name] for name in expected} == expected, message


@given(st.lists(MESSAGES, max_size=12), st.lists(st.integers(0, 12), max_size=3))
def test_any_cut_into_batches_gives_the_same(messages: list[bytes | None], cuts: list[int]) -> None:
    decoder = Decoder(Rules(WIDE, configured(WIDE), "clicks"), int(TYPES["click"]))
    whole = decoder.decode(messages)
    edges = sorted({0, len(messages), *(cut for cut in cuts if cut < len(messages))})
    parts = [decoder.decode(messages[a:b], a) for a, b in zip(edges, edges[1:], strict=False)]
    assert [row for part in parts for row in part.events.to_pylist()] == whole.events.to_pylist()
    assert [letter for part in parts for letter in part.rejects] == whole.rejects


@given(OBJECTS)
def test_the_quick_proof_is_never_wrong(message: bytes) -> None:
    try:
        found = json.loads(message)
    except ValueError:
        return
    if surely_distinct(message, found):
        assert repeated_keys(message) == []


@given(
    st.dictionaries(st.text("abc_", min_size=1, max_size=3), st.one_of(st.integers(), st.text("xyz:,{ ", max_size=4)))
)
def test_the_quick_proof_holds_for_plain_objects(fields: dict[str, Any]) -> None:
    assert surely_distinct(json.dumps(fields).encode(), fields)


def test_keys_twice_count_only_in_the_event_itself() -> None:
    assert parse(b'{"a":{"b":1,"b":2}}') == {"a": {"b": 2}}
    with pytest.raises(Refused, match="key 'a' is there twice"):
        parse(b'{"a":1,"\\u0061":2}')


@pytest.mark.parametrize(("levels", "good"), [(1, True), (MAX_DEPTH - 1, True), (MAX_DEPTH, False), (5000, False)])
def test_depth_has_one_limit(levels: int, good: bool) -> None:
    message = b'{"a":' + b"[" * levels + b"]" * levels + b"}"
    if good:
        assert "a" in parse(message)
    else:
        with pytest.raises(Refused, match="nested more than 100 levels"):
            parse(message)


def test_brackets_in_text_are_no_depth() -> None:
    assert parse(b'{"a":"' + b"[{" * 500 + b'\\""}')["a"].endswith('"')


def test_a_long_message_is_kept_cut_with_its_length_and_digest() -> None:
    message = b'{"ts":1772452800,"note":"' + b"x" * 1_200_000 + b'"}'
    letter = decode("click", [message]).rejects[0]
    assert letter.reason == "missing_field:item_id"
    assert letter.raw is not None and len(letter.raw) == 65536
    assert letter.length == len(message) and len(letter.digest) == 32
    assert letter.type == "click"


def test_types() -> None:
    kinds = ['"click"', "null", '""', '"Click"', "2", '"forget"', '"progress"']
    reading = decode("purchase", [f'{{"ts":1772452800,"item_id":"A","type":{kind}}}'.encode() for kind in kinds])
    assert reading.column("type") == [2, 4, 4, 6]
    assert reading.reasons == ["bad_type", "bad_type", "reserved_type"]


def test_features_of_both_kinds() -> None:
    declared = [{"name": "channel"}, {"name": "age", "kind": "numeric"}]
    features = from_builtins({"features": declared, "time": {"latest": "2099-01-01T00:00:00Z"}})
    values = [
        '"channel":"mail","age":"40"',
        '"channel":3.0,"age":40',
        '"channel":true',
        '"channel":""',
        '"age":"x"',
        '"channel":[]',
    ]
    reading = decode("click", [f'{{"ts":1772452800,"item_id":"A",{value}}}'.encode() for value in values], features)
    assert reading.column("channel") == ["mail", "3", "true", ""]
    assert reading.column("age") == [40.0, 40.0, None, None]
    assert reading.reasons == ["bad_number:age", "bad_feature:channel"]
