"""A slow, obvious decoder of one JSON event, written from docs/event_schema.md with the standard library only."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
TYPES = ["item", "impression", "click", "add_to_cart", "purchase", "return", "progress"]
IDS = ["event_id", "user_id", "item_id", "impression_id", "request_id", "order_id", "line"]
WORDS = {"", "null", "undefined", "None", "NaN", "[object Object]"}
SALES = {"add_to_cart", "purchase", "return"}
EARLIEST, LATEST = 946684800000, 4070908800000


class Reject(Exception):
    """The message is no event; the argument is the reason."""


def depth(text: str) -> int:
    """Greatest nesting of a JSON text."""
    bare = re.sub(r'"(\\.|[^"\\])*"', "", text, flags=re.DOTALL)
    level = most = 0
    for character in bare:
        level += (character in "[{") - (character in "]}")
        most = max(most, level)
    return most


def parse(message: bytes | None) -> dict[str, Any]:
    """The object in a message."""
    if message is None:
        raise Reject("null_payload")
    twice: list[bool] = []

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice.append(any(count > 1 for count in Counter(key for key, _ in pairs).values()))
        return dict(pairs)

    def constant(name: str) -> float:
        raise ValueError(name)

    def number(text: str) -> float:
        value = float(text)
        if value in (float("inf"), float("-inf")):
            raise ValueError(text)
        return value

    try:
        text = message.decode("utf-8")
        if depth(text) > 100:
            raise Reject("bad_json")
        found = json.loads(text, object_pairs_hook=collect, parse_constant=constant, parse_float=number)
        json.dumps(found, ensure_ascii=False).encode("utf-8")  # a lone surrogate is no text
    except (ValueError, UnicodeDecodeError):
        raise Reject("bad_json") from None
    if not isinstance(found, dict):
        raise Reject("not_an_object")
    if twice[-1]:
        raise Reject("duplicate_key")
    return found


def instant(value: Any) -> int:
    """Milliseconds of `ts`; Reject where it is no time or out of bounds."""
    found = None
    if isinstance(value, str):
        found = iso(value)
        if found is None and NUMBER.fullmatch(value):
            whole = "." not in value and "e" not in value.lower()
            found = sized(Fraction(int(value)) if whole else Fraction(float(value)), whole)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found = sized(Fraction(value), isinstance(value, int))
    if found is None or not EARLIEST <= found <= LATEST:
        raise Reject("bad_timestamp")
    return found


def sized(value: Fraction, whole: bool) -> int | None:
    """By the bands; a float is rounded to the microsecond before it is cut to the millisecond."""
    size = abs(value)
    if size >= 2**63:
        return None
    micros = value * (10**6 if size < 10**11 else 1000 if size < 10**14 else 1 if size < 10**17 else Fraction(1, 1000))
    if not whole:
        micros = Fraction(round(micros))
    return micros // 1000


def iso(text: str) -> int | None:
    """ISO 8601 in UTC or with an offset."""
    form = r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?(?:([Zz])|([+-])(\d\d):?(\d\d)?)?"
    match = re.fullmatch(form, text, re.ASCII)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, _, sign, hours, minutes = match.groups()
    if int(hours or 0) > 23 or int(minutes or 0) > 59:
        return None
    try:
        moment = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second or 0), tzinfo=UTC)
        offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
        moment = moment + offset if sign == "-" else moment - offset
    except (ValueError, OverflowError):
        return None
    seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    return seconds * 1000 + int((fraction or "").ljust(3, "0")[:3])


def name(value: Any, field: str) -> str | None:
    """An id."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Reject(f"bad_id:{field}")
    if isinstance(value, float):
        if value != int(value) or abs(value) >= 2**53:
            raise Reject(f"bad_id:{field}")
        value = int(value)
    text = str(value)
    return None if text.strip(" \t\r\n") in WORDS else text


def figure(value: Any, reason: str) -> Decimal | None:
    """A number, exactly as written or as the double it is."""
    if value is None:
        return None
    if isinstance(value, str) and NUMBER.fullmatch(value):
        return Decimal(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Reject(reason)
    return Decimal(value)


def whole(value: Any, low: int, high: int, reason: str) -> int | None:
    """A whole number in a range."""
    number = figure(value, reason)
    if number is None:
        return None
    if not low <= number <= high or number != int(number):
        raise Reject(reason)
    return int(number)


def canonical(message: bytes | None, topic: str) -> dict[str, Any]:
    """The canonical event of a message on the topic of one type; Reject with the reason otherwise."""
    found = parse(message)
    kind = found.get("type")
    kind = topic if kind is None or kind == "" else kind
    if kind == "forget":
        raise Reject("reserved_type")
    if kind not in TYPES:
        raise Reject("bad_type")
    event: dict[str, Any] = {"type": TYPES.index(kind), "ts": instant(found.get("ts"))}
    for field in IDS:
        event[field] = name(found.get(field), field)
    if event["item_id"] is None and kind != "progress":
        raise Reject("missing_field:item_id")
    quantity = whole(found.get("quantity"), 1, 10**6, "bad_quantity") if kind in SALES else None
    listed = kind in ("impression", "click")
    position = whole(found.get("position"), 0, 2**31 - 1, "bad_number:position") if listed else None
    price = figure(found.get("price"), "bad_number:price") if kind in SALES or kind == "item" else None
    if price is not None and (price < 0 or float(price) == float("inf")):
        raise Reject("bad_number:price")
    return {**event, "quantity": quantity, "position": position, "price": None if price is None else float(price)}
