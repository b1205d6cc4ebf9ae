"""The canonical schema and what is made from it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.reference.log_reading import decode
from thalweg.streams.configuration import Configuration, from_builtins
from thalweg.streams.dead_letter import Reason
from thalweg.streams.event import FIELDS, NOBODY, TYPES, event_schema, is_guest, is_nobody, json_schema
from thalweg.streams.row import Type

FEATURES = from_builtins({"features": [{"name": "channel"}, {"name": "age", "kind": "numeric", "source": "item"}]})
PAGE = (Path(__file__).parents[2] / "docs" / "event_schema.md").read_text(encoding="utf-8")


def test_the_schema_is_the_fields_and_then_the_features() -> None:
    schema = event_schema(FEATURES)
    assert schema.names == [*(field.name for field in FIELDS), "channel", "age"]
    assert schema.field("channel").type == pa.string()
    assert schema.field("age").type == pa.float64()
    assert schema.field("ts").type == pa.int64()


def test_names_of_types_are_those_of_the_rows() -> None:
    assert {name.upper(): value for name, value in TYPES.items()} == dict(Type.__members__)


def accepts(schema: dict[str, Any], event: dict[str, Any]) -> bool:
    """As much of JSON Schema as the schema uses."""
    names = {"string": str, "integer": int, "number": (int, float), "null": type(None), "boolean": bool}

    def fits(rule: dict[str, Any], value: Any) -> bool:
        if "enum" in rule or "const" in rule:
            return value in rule.get("enum", [rule.get("const")])
        kinds = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
        if not any(isinstance(value, names[kind]) and (kind == "boolean") == isinstance(value, bool) for kind in kinds):
            return False
        if isinstance(value, int | float):
            return bool(rule.get("minimum", value) <= value <= rule.get("maximum", value))
        return True

    if any(name not in event for name in schema["required"]):
        return False
    for clause in schema.get("allOf", []):
        if event["type"] == clause["if"]["properties"]["type"]["const"] and any(
            name not in event for name in clause["then"]["required"]
        ):
            return False
    return all(fits(schema["properties"][name], value) for name, value in event.items() if name in schema["properties"])


GOOD: dict[str, Any] = {
    "type": "purchase",
    "ts": 1772452800,
    "item_id": "A",
    "quantity": 2,
    "price": 3.5,
    "channel": "mail",
}


@pytest.mark.parametrize(
    ("change", "good"),
    [
        ({}, True),
        ({"extra": [1]}, True),
        ({"user_id": 17850}, True),
        ({"user_id": None}, True),
        ({"user_id": True}, False),
        ({"user_id": ["u"]}, False),
        ({"quantity": 0}, False),
        ({"quantity": 10**12}, False),
        ({"price": -5}, False),
        ({"type": "forget"}, False),
        ({"ts": True}, False),
        ({"channel": ["mail"]}, False),
        ({"age": 3}, True),
    ],
)
def test_json_schema_agrees_with_the_decoder(change: dict[str, Any], good: bool) -> None:
    import json

    event = {**GOOD, **change}
    assert accepts(json_schema(FEATURES), event) == good
    assert (decode("click", [json.dumps(event).encode()], FEATURES).rejects == []) == good


@pytest.mark.parametrize("name", TYPES)
def test_required_fields_of_each_type(name: str) -> None:
    required = json_schema(Configuration(), name)["required"]
    assert required == (["ts"] if name == "progress" else ["ts", "item_id"])
    assert decode(name, [b'{"ts":1772452800}']).reasons == ([] if name == "progress" else ["missing_field:item_id"])
    assert not accepts(json_schema(Configuration()), {"type": name, "item_id": "A"})


def test_nobody() -> None:
    assert all(is_nobody(word) and is_nobody(f" {word}\t") for word in NOBODY)
    assert not any(is_nobody(word) for word in ("0", "NULL", "none", "nan", "nullx", "N", "a null"))
    keep, drop = Configuration(), from_builtins({"attribution": {"keep_user_zero": False}})
    assert (is_guest("0", keep), is_guest("0", drop), is_guest("00", drop)) == (False, True, False)


def test_the_page_names_every_field_type_and_reason() -> None:
    words = set(re.findall(r"`([a-z_]+)(?::[A-Za-z]+)?`", PAGE))
    assert {field.name for field in FIELDS} <= words
    assert set(TYPES) <= words
    assert {reason.value for reason in Reason} <= words
