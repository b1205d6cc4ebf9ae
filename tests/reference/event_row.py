"""A slow, obvious way from one canonical event to its row and codes: plain Python integers, one event at a time."""

from __future__ import annotations

import math
import struct
from typing import Any

from thalweg.graph_store.hash import SEED_ID, SEED_ID2, hash_text, mix64, pair64
from thalweg.streams.configuration import Configuration

WORD = 2**64


def hashed(text: str | None, seed: int = int(SEED_ID)) -> int:
    """Hash of an id; 0 for none."""
    return 0 if text is None else hash_text(text, seed)


def pair(a: int, b: int) -> int:
    """`pair64` of Python integers."""
    import numpy as np

    return int(pair64(np.uint64(a), np.uint64(b)))


def mixed(a: int) -> int:
    """`mix64` of a Python integer."""
    import numpy as np

    return int(mix64(np.uint64(a)))


def bin_of(value: float) -> int:
    """Sign and quarter octave: the largest k with 2**(k / 4) at or below the size, counted so that 0 has bin 0."""
    if value == 0:
        return 0
    mantissa, exponent = math.frexp(abs(value))
    quarter = sum(mantissa >= 2.0**-step for step in (0.75, 0.5, 0.25))
    return (1 + 4 * (exponent + 1100) + quarter) * (1 if value > 0 else -1)


def code(name: str, value: str | float | None) -> int:
    """Code of a feature's value."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return 0
    seed = hash_text("feature:" + name)
    full = hash_text(value, seed) if isinstance(value, str) else pair(seed, bin_of(value) % WORD)
    return full % 2**32 or 1


def row(
    event: dict[str, Any], configuration: Configuration, source: int, offset: int
) -> tuple[dict[str, Any], list[int]]:
    """The row of an event as a dict, and its codes."""
    ids = {
        name: hashed(event[name]) for name in ("user_id", "item_id", "impression_id", "request_id", "order_id", "line")
    }
    event_hash = hashed(event["event_id"])
    codes = [code(feature.name, event[feature.name]) for feature in configuration.features]
    price = math.nan if event["price"] is None else event["price"] + 0.0
    bits = struct.unpack("<Q", struct.pack("<d", price))[0]
    quantity = 1 if event["quantity"] is None else event["quantity"]
    position = -1 if event["position"] is None else event["position"]
    words = [event["type"], event["ts"], *ids.values(), position, bits, hashed(event["currency"]), quantity, *codes]
    odd = [mixed(j) | 1 for j in range(len(words))]
    tie = mixed(sum(word % WORD * multiplier for word, multiplier in zip(words, odd, strict=True)) % WORD)
    if event["type"] == 0:
        key = pair(4, ids["item_id"])
    elif ids["user_id"]:
        key = ids["user_id"]
    elif ids["order_id"]:
        key = pair(1, ids["order_id"])
    elif ids["request_id"]:
        key = pair(2, ids["request_id"])
    else:
        key = pair(3, event_hash)
    own = event["type"] == 1 and not ids["impression_id"]
    return {
        "ts": event["ts"],
        "rank": event["type"],
        "id": event_hash,
        "id2": hashed(event["event_id"], int(SEED_ID2)),
        "tie": tie,
        "clock": 0,
        "key": key,
        "user": ids["user_id"],
        "item": ids["item_id"],
        "impression": event_hash if own else ids["impression_id"],
        "request": ids["request_id"],
        "order": ids["order_id"],
        "line": ids["line"],
        "price": price,
        "quantity": quantity,
        "source": source,
        "offset": offset,
    }, codes
