"""O02: JSON that parsers disagree about has one outcome, and no number that is not finite gets in."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cases.log_files import Case
from tests.reference.log_reading import Reading, decode, read_log
from thalweg.streams.dead_letter import to_json

HEAD = '{"event_id":"%s","ts":"2026-03-02T12:00:00Z","user_id":"u1","order_id":"o1","item_id":"A","quantity":1,'
LINES = {
    "a": HEAD % "a" + '"price":NaN,"currency":"EUR"}',
    "b": HEAD % "b" + '"price":-Infinity,"currency":"EUR"}',
    "c": HEAD % "c" + '"price":1e999,"currency":"EUR"}',
    "d": HEAD % "d" + '"item_id":"B","price":5,"currency":"EUR"}',
    "e": HEAD % "e" + '"Item_ID":"Z","price":5,"currency":"EUR"}',
    "f": HEAD % "f" + '"price":5,"ctx":{"page":{"tags":["x",null,{"y":1}]}}}',
    "g": HEAD % "g" + '"price":5}{"event_id":"h"}',
    "i": HEAD % "i" + '"price":5,"deep":' + "[" * 5000 + "]" * 5000 + "}",
}
EXPECTED = {"a": "bad_json", "b": "bad_json", "c": "bad_json", "d": "duplicate_key", "g": "bad_json", "i": "bad_json"}


def check(reading: Reading) -> None:
    """The outcome of the case."""
    assert reading.column("event_id") == ["e", "f"]
    assert reading.column("item_id") == ["A", "A"]
    assert reading.reasons == list(EXPECTED.values())
    assert reading.ignored == {"Item_ID": 1, "ctx": 1}
    assert all(math.isfinite(price) for price in reading.column("price"))


def test_as_messages() -> None:
    check(decode("purchase", [line.encode() for line in LINES.values()]))


def test_as_a_file(tmp_path: Path) -> None:
    path = tmp_path / "purchases.jsonl"
    path.write_text("\n".join(LINES.values()))
    check(read_log(path, rows=3))


def test_dead_letters_are_strict_json_themselves() -> None:
    def refuse(name: str) -> None:
        raise ValueError(name)

    for letter in decode("purchase", [line.encode() for line in LINES.values()]).rejects:
        record = json.loads(to_json(letter), parse_constant=refuse)
        assert record["raw"] == LINES[record["raw"][13]][:65536]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "nan", "inf"])
@pytest.mark.parametrize("name", ["price", "quantity", "ts", "anything"])
def test_nothing_that_is_not_finite(name: str, value: str) -> None:
    line = '{"item_id":"A","order_id":"o",' + ("" if name == "ts" else '"ts":1772452800,') + f'"{name}":{value}}}'
    assert decode("purchase", [line.encode()]).reasons == ["bad_json"]


def test_a_number_of_thirty_digits_stays_exact_in_an_id() -> None:
    line = b'{"item_id":123456789012345678901234567890,"ts":1772452800}'
    assert decode("click", [line]).column("item_id") == ["123456789012345678901234567890"]


def test_in_the_state_only_the_two_sound_ones_are_sold(case: Callable[..., Case]) -> None:
    lines = [line.replace('"o1"', f'"o{name}"') for name, line in LINES.items()]
    found = case().write(purchases=lines).run()
    assert found.reasons == list(EXPECTED.values())
    assert found.bought == found.left == {"A": 2}
    assert (found.purchases, found.edges) == ({"A": 2.0}, {})
    letters = (found.letters[0]["raw"], found.letters[0]["reason"])
    assert letters == (lines[0], "bad_json"), "the raw text is kept, NaN and all, as a string"
