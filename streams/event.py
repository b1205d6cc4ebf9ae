"""The canonical event: its fields, what each type needs, the one Arrow schema and the JSON Schema made from it.

Everything that reads a log or a topic ends in record batches of `event_schema`; nothing downstream sees another form.
The page for people is docs/event_schema.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .configuration import Configuration
from .dead_letter import DeadLetter
from .row import Type

Kind = Literal["id", "type", "time", "text", "integer", "price", "quantity"]

TYPES: dict[str, Type] = {
    "item": Type.ITEM,
    "impression": Type.IMPRESSION,
    "click": Type.CLICK,
    "add_to_cart": Type.ADD_TO_CART,
    "purchase": Type.PURCHASE,
    "return": Type.RETURN,
    "progress": Type.PROGRESS,
}
"""Name of each type as it stands in a log."""

TYPE_NAMES: dict[int, str] = {int(value): name for name, value in TYPES.items()}
RESERVED_TYPES = frozenset({"forget"})

EARLIEST = 946_684_800_000
"""2000-01-01T00:00:00Z in ms: without `time.earliest` no event is older."""
LATEST = 4_102_444_800_000
"""2100-01-01T00:00:00Z in ms: without `time.latest` no event is this young."""
MAX_QUANTITY = 1_000_000
"""Units one line may have; more is `bad_quantity`."""

NOBODY = ("null", "undefined", "None", "NaN", "[object Object]")
"""Words that programs write where there is no id; spelt exactly so, blanks around them apart."""

_EVERY = frozenset(Type)
_ITEMS = _EVERY - {Type.PROGRESS}
_LISTED = frozenset({Type.IMPRESSION, Type.CLICK})
_SALES = frozenset({Type.ADD_TO_CART, Type.PURCHASE, Type.RETURN})


@dataclass(frozen=True)
class Field:
    """One field of the canonical event.

    Parameters
    ----------
    kind : how its values are read (`decode` for JSON, `column` for typed columns)
    arrow : its type in the schema
    used : types that use it; elsewhere a value is ignored, unread
    required : types that cannot do without it
    about : one line for the JSON Schema and for docs/event_schema.md
    """

    name: str
    kind: Kind
    arrow: pa.DataType
    used: frozenset[Type]
    required: frozenset[Type]
    about: str


_NONE: frozenset[Type] = frozenset()
FIELDS: tuple[Field, ...] = (
    Field("event_id", "id", pa.string(), _EVERY, _NONE, "Unique per type; else file and row number."),
    Field("type", "type", pa.int8(), _EVERY, _EVERY, "What happened; else the file or topic says it."),
    Field("ts", "time", pa.int64(), _EVERY, _EVERY, "When it happened."),
    Field("user_id", "id", pa.string(), _ITEMS, _NONE, "Who did it; missing for a guest."),
    Field("item_id", "id", pa.string(), _ITEMS, _ITEMS, "The article."),
    Field("impression_id", "id", pa.string(), _ITEMS, _NONE, "Name of an impression, on it and on its effects."),
    Field("request_id", "id", pa.string(), _ITEMS, _NONE, "The list or page the impression was part of."),
    Field("order_id", "id", pa.string(), _ITEMS, _NONE, "The order of a purchase or return."),
    Field("line", "id", pa.string(), _ITEMS, _NONE, "Line of the order, where the shop numbers them."),
    Field("position", "integer", pa.int32(), _LISTED, _NONE, "Place in the list, from 0 or 1."),
    Field("price", "price", pa.float64(), _SALES | {Type.ITEM}, _NONE, "Price of one unit, 0 or more."),
    Field("currency", "text", pa.string(), _SALES | {Type.ITEM}, _NONE, "Kept as it is."),
    Field("quantity", "quantity", pa.int64(), _SALES, _NONE, f"Units, 1 to {MAX_QUANTITY:,}; 1 where missing."),
)
FIELD: dict[str, Field] = {field.name: field for field in FIELDS}
ID_FIELDS: tuple[str, ...] = tuple(field.name for field in FIELDS if field.kind == "id")


@dataclass(frozen=True)
class CanonicalBatch:
    """What a run of raw rows came to: the good events, and a dead letter for each of the others.

    Parameters
    ----------
    start, end : raw rows [start, end) of the source are covered; `end - start == len(events) + len(rejects)`
    offsets : int64 [n], raw row number of each event, rising
    events : n canonical events (`event_schema`)
    rejects : dead letters, in row order
    ignored : rows that carried a field which is not in the schema, by field
    """

    start: int
    end: int
    offsets: npt.NDArray[np.int64]
    events: pa.RecordBatch
    rejects: list[DeadLetter]
    ignored: dict[str, int] = field(default_factory=dict)


def event_schema(configuration: Configuration) -> pa.Schema:
    """The Arrow schema of canonical events: the fields of `FIELDS`, then one column a declared feature.

    A categorical feature is string, a numeric one float64. Any string column of a batch may be dictionary-encoded
    instead (`dictionary<int32, string>`): the values count, not the encoding.

    >>> event_schema(Configuration()).names[:5]
    ['event_id', 'type', 'ts', 'user_id', 'item_id']
    """
    columns = [pa.field(field.name, field.arrow) for field in FIELDS]
    for feature in configuration.features:
        columns.append(pa.field(feature.name, pa.string() if feature.kind == "categorical" else pa.float64()))
    return pa.schema(columns)


def is_nobody(text: str | None, zero: bool = False) -> bool:
    """Whether an id is none: missing, empty, blank, or one of the words in `NOBODY` (with `zero`, also "0").

    >>> [is_nobody(t) for t in (None, "", "  ", "undefined", "0", "u1")]
    [True, True, True, True, False, False]
    """
    if text is None:
        return True
    bare = text.strip(" \t\r\n")
    return not bare or bare in NOBODY or (zero and bare == "0")


def is_guest(user_id: str | None, configuration: Configuration) -> bool:
    """Whether a user id stands for nobody; "0" does where `attribution.keep_user_zero` is false.

    >>> is_guest("0", Configuration()), is_guest("None", Configuration())
    (False, True)
    """
    return is_nobody(user_id, zero=not configuration.attribution.keep_user_zero)


_JSON: dict[Kind, dict[str, Any]] = {
    "id": {"type": ["string", "integer", "number", "null"]},
    "type": {"enum": list(TYPES)},
    "time": {"type": ["string", "integer", "number"]},
    "text": {"type": ["string", "null"]},
    "integer": {"type": ["integer", "null"], "minimum": 0, "maximum": 2**31 - 1},
    "price": {"type": ["number", "string", "null"], "minimum": 0},
    "quantity": {"type": ["integer", "string", "null"], "minimum": 1, "maximum": MAX_QUANTITY},
}


def json_schema(configuration: Configuration, kind: str | None = None) -> dict[str, Any]:
    """JSON Schema (2020-12) of one event as it is sent, made from `FIELDS` and the declared features.

    With `kind`, the name of a type, it is the schema of that topic, where `type` may be left out.

    >>> json_schema(Configuration(), "click")["required"]
    ['ts', 'item_id']
    >>> json_schema(Configuration())["$schema"]
    'https://json-schema.org/draft/2020-12/schema'
    """
    properties: dict[str, Any] = {field.name: {**_JSON[field.kind], "description": field.about} for field in FIELDS}
    for feature in configuration.features:
        values = ["string", "number", "null"] + (["boolean"] if feature.kind == "categorical" else [])
        about = f"Declared {feature.kind} feature ({feature.source})."
        properties[feature.name] = {"type": values, "description": about}
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Thalweg event" if kind is None else f"Thalweg {kind}",
        "type": "object",
        "properties": properties,
        "additionalProperties": True,
    }
    if kind is not None:
        properties["type"] = {"const": kind, "description": FIELD["type"].about}
        schema["required"] = _required(TYPES[kind])
        return schema
    schema["required"] = ["type", "ts"]
    schema["allOf"] = [
        {"if": {"properties": {"type": {"const": name}}}, "then": {"required": _required(value)}}
        for name, value in TYPES.items()
        if _required(value) != ["ts"]
    ]
    return schema


def _required(kind: Type) -> list[str]:
    return [field.name for field in FIELDS if kind in field.required and field.name != "type"]
