"""Small event streams in which every rule of attribution happens: few users, items, orders and names, short spans.

A stream is drawn as a list of small tuples, so that hypothesis can shrink it; `random_drafts` draws the same shape
from a seed, for volume.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tests.reference.attribution import (
    CART,
    CLICK,
    IMPRESSION,
    ITEM,
    NAMES,
    PROGRESS,
    PURCHASE,
    RETURN,
    pair64,
)  # fmt: skip
from thalweg.streams.block import NO_CLOCK, Block
from thalweg.streams.configuration import Configuration, from_builtins
from thalweg.streams.row import EVENT_ROW

START = 1_000_000
LATENESS = 12
FIELDS = {
    "kind": (0, 19), "step": (0, 4), "lag": (0, 39), "user": (0, 5), "item": (0, 2), "naming": (0, 4), "name": (0, 2),
    "request": (0, 1), "order": (0, 2), "line": (0, 2), "quantity": (1, 3), "identity": (0, 9), "content": (0, 1),
    "again": (0, 19),
}  # fmt: skip
"""Least and greatest value of each part of a draft."""
KINDS = [ITEM] + [IMPRESSION] * 6 + [CLICK] * 3 + [CART] * 2 + [PURCHASE] * 5 + [RETURN] * 2 + [PROGRESS]
LAGS = [0] * 22 + [1, 2, 3, 5, 8, 8, 11, 13, 16, 20, 25, 30, 35, 45, 60, 60, 90, 160, 400]
USERS = [0, 1, 1, 1, 2, 2]
REPEATS = 17
"""From here on `again` repeats an earlier row, content and all; of a greater one the content differs."""

Draft = tuple[int, ...]


@dataclass(frozen=True)
class Stream:
    """Rows in order of arrival, their codes, and the clock after each prefix: int64[n + 1]."""

    rows: np.ndarray
    codes: np.ndarray
    clocks: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def block(self, start: int, end: int) -> Block:
        """Rows start .. end - 1 as one block."""
        return Block(self.rows[start:end], self.codes[start:end], {0: (start, end)}, int(self.clocks[end]))

    def only(self, chosen: np.ndarray) -> Stream:
        """The rows of one shard; offsets and clocks are what its partition would carry."""
        rows = self.rows[chosen].copy()
        rows["offset"] = np.arange(len(rows))
        return Stream(rows, self.codes[chosen], np.append(rows["clock"], self.clocks[-1]))


def configuration(**spans: str | int) -> Configuration:
    """Windows of some ten milliseconds; two features."""
    attribution = {
        "window": "60ms", "skew_tolerance": "5ms", "orphan_wait": "30ms", "late_conversion": "20ms",
        "return_window": "90ms", "horizon": "70ms", "history": 2, "pair_half_life": "25ms", **spans,
    }  # fmt: skip
    return from_builtins(
        {
            "audit_interval": "100ms",
            "time": {"lateness": f"{LATENESS}ms"},
            "features": [{"name": "device"}, {"name": "category", "source": "item"}],
            "attribution": attribution,
        }
    )


CONFIGURATIONS = (
    configuration(),
    configuration(window="15ms", orphan_wait="120ms", late_conversion="0ms", return_window="30ms", history=1),
    configuration(
        window="200ms", skew_tolerance="40ms", late_conversion="100ms", horizon="500ms", return_window="400ms"
    ),
)


def random_drafts(seed: int, n: int) -> list[Draft]:
    """`n` drafts from a seed."""
    draw = np.random.default_rng(seed)
    columns = [draw.integers(low, high + 1, n) for low, high in FIELDS.values()]
    return [tuple(row) for row in np.stack(columns, 1).tolist()]


def stream(drafts: Iterable[Draft], in_order: bool = False, close: bool = True) -> Stream:
    """Make the rows of some drafts. `in_order`: no row arrives below the clock it is stamped with."""
    now, rows, codes = START, [], []
    for number, values in enumerate(drafts):
        draft = dict(zip(FIELDS, values, strict=True))
        now += draft["step"]
        lag = LAGS[draft["lag"]]
        row = event(draft, number, now - (min(lag, LATENESS - 1) if in_order else lag))
        code = (draft["name"] + 1, draft["item"] + 1)
        earlier = max(0, number - 1 - draft["lag"] % 8)
        if draft["again"] >= REPEATS and rows and not (in_order and rows[earlier]["ts"] < now - LATENESS + 1):
            row, code = {**rows[earlier], "offset": number}, codes[earlier]
            if draft["again"] > REPEATS + 1:
                row["tie"] = pair64(int(row["tie"]), 1)
        rows.append(row)
        codes.append(code)
    table = np.zeros(len(rows), EVENT_ROW)
    for number, row in enumerate(rows):
        for name, value in row.items():
            table[name][number] = value
    tops = np.maximum.accumulate(table["ts"]) - LATENESS
    clocks = np.concatenate([[NO_CLOCK], tops])
    table["clock"] = clocks[:-1]
    if close and len(rows):
        clocks[-1] += 1_000
    return Stream(table, np.array(codes, np.uint32).reshape(len(rows), 2), clocks)


def event(draft: dict[str, int], number: int, ts: int) -> dict[str, int | float]:
    """One row's fields, but for its clock."""
    kind = KINDS[draft["kind"]]
    name = draft["identity"] if draft["identity"] < 3 else 100 + number  # three event ids are used again and again
    own = pair64(7, name)
    user = pair64(8, USERS[draft["user"]]) if draft["user"] else 0
    row = {
        "ts": ts, "rank": kind, "id": own, "id2": pair64(own, 1), "user": user, "item": pair64(9, draft["item"]),
        "price": float(draft["content"]), "quantity": draft["quantity"] if kind in (PURCHASE, RETURN) else 1,
        "offset": number, "impression": 0, "request": 0, "order": 0, "line": 0,
    }  # fmt: skip
    if kind == IMPRESSION:
        row["impression"] = pair64(10, draft["name"]) if draft["naming"] == 1 else own
        row["request"] = pair64(11, draft["request"]) if draft["naming"] == 2 else 0
    elif kind in (CLICK, CART, PURCHASE):
        # 1 names an impression, sometimes one without an id of its own; 2 names a request; the others name nothing
        given = pair64(7, draft["name"]) if draft["line"] == 2 else pair64(10, draft["name"])
        row["impression"] = given if draft["naming"] == 1 else 0
        row["request"] = pair64(11, draft["request"]) if draft["naming"] == 2 else 0
    if kind in (PURCHASE, RETURN):
        row["order"] = pair64(12, draft["order"]) if draft["order"] else 0
    if kind == PURCHASE:
        row["line"] = pair64(13, draft["line"]) if draft["line"] else 0
    row["key"] = shard_key(row)
    content = pair64(draft["name"], draft["item"])  # the codes are content, too
    for field in ("ts", "user", "item", "impression", "request", "order", "line", "quantity"):
        content = pair64(content, int(row[field]))
    row["tie"] = pair64(content, draft["content"])
    return row


def shard_key(row: dict[str, int | float]) -> int:
    """K, as DESIGN section 2.2 has it."""
    if row["rank"] == ITEM:
        return pair64(4, int(row["item"]))
    if row["user"]:
        return int(row["user"])
    for place, field in ((1, "order"), (2, "request"), (3, "id")):
        if row[field]:
            return pair64(place, int(row[field]))
    raise AssertionError(f"an {NAMES[int(row['rank'])]} without an id")
