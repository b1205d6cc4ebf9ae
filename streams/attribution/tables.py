"""The tables of attribution: what it remembers of impressions, effects, order lines, pairs and conversions.

Every table is a ring: an entry leaves by event time, at a fixed span after it entered (`effective`: its own time, or
the stage's clock where it came late). Links between entries are absolute entry numbers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...graph_store.hash_index import HashIndex
from ...graph_store.state_store import StateStore
from ...graph_store.table import Ring
from ..configuration import Attribution

IMPRESSION = np.dtype(
    [
        ("label", "<u8"),  # pair64(K, name)
        ("request", "<u8"),  # pair64(pair64(K, request), item); 0: none
        ("content", "<u8"),
        ("key", "<u8"),
        ("item", "<u8"),
        ("user", "<u8"),
        ("ts", "<i8"),
        ("effective", "<i8"),
        ("older", "<i8"),  # next older impression of the same (K, item), -1: none
        ("credit", "<i8"),  # entry of `credits`, -1: never converted
        ("clicked", "u1"),
        ("carted", "u1"),
        ("expired", "u1"),
        ("pad", "u1", (5,)),
    ]
)
SEEN = np.dtype([("key", "<u8"), ("content", "<u8"), ("effective", "<i8")])
WAITING = np.dtype(
    [
        ("cause", "<u8"),
        ("event", "<u8"),
        ("key", "<u8"),
        ("item", "<u8"),
        ("type", "<i8"),
        ("ts", "<i8"),
        ("effective", "<i8"),
        ("purchase", "<i8"),  # entry of `purchases`, -1: not a purchase
        ("quantity", "<i8"),
        ("older", "<i8"),
        ("alive", "<i8"),
    ]
)
PURCHASE = np.dtype(
    [
        ("key", "<u8"),
        ("user", "<u8"),
        ("order", "<u8"),
        ("item", "<u8"),
        ("line", "<u8"),  # key of the order line, 0: the row names no order
        ("event", "<u8"),
        ("ts", "<i8"),
        ("effective", "<i8"),
        ("quantity", "<i8"),
        ("left", "<i8"),
        ("credit", "<i8"),
        ("older_item", "<i8"),  # next older line of the same (K, item)
        ("older_order", "<i8"),  # next older line of the same (K, order, item)
        ("older", "<i8"),  # user's list of distinct items, newest first
        ("newer", "<i8"),
        ("pairs", "<i8"),  # first entry of `pairs` that this line made as the later one
        ("pair_count", "<i8"),
        ("listed", "<i8"),
    ]
)
PAIR = np.dtype(
    [
        ("key", "<u8"),  # pair64(pair64(K, source), target)
        ("source", "<u8"),
        ("target", "<u8"),
        ("weight", "<i8"),
        ("line", "<i8"),  # entry of `purchases` of the earlier line
        ("ts", "<i8"),
        ("effective", "<i8"),
        ("alive", "<i8"),
    ]
)
CREDIT = np.dtype(
    [
        ("label", "<u8"),
        ("key", "<u8"),
        ("item", "<u8"),
        ("user", "<u8"),
        ("ts", "<i8"),  # of the impression
        ("effective", "<i8"),
        ("lines", "<i8"),  # attributed order lines that are not returned
        ("toggles", "<i8"),  # conversions and reversals emitted
    ]
)

RINGS = {
    "impressions": IMPRESSION,
    "seen": SEEN,
    "seen_orders": SEEN,
    "waiting": WAITING,
    "waiting_skew": WAITING,
    "purchases": PURCHASE,
    "pairs": PAIR,
    "credits": CREDIT,
}
INDEXES = (
    "label",
    "request",
    "item",
    "seen",
    "waiting",
    "waiting_skew",
    "line",
    "line_item",
    "line_order",
    "user",
    "pair",
)

BOOKS = (
    "read", "applied", "duplicate", "conflict", "set_aside", "attributed", "unattributed", "orphan", "repeat",
    "late", "duplicate_order_line", "duplicate_impression", "history_capped", "over_return", "late_conversion",
    "late_label", "reversal", "late_click",
)  # fmt: skip
"""Columns of the books, int64[types, columns]; each counted at its own site."""


class Rules(NamedTuple):
    """Spans in ms, and the history's bound, as the kernel reads them."""

    window: int
    skew: int
    orphan_wait: int
    late_conversion: int
    return_window: int
    horizon: int
    history: int
    half_life: float
    credit_life: int


def rules(configuration: Attribution) -> Rules:
    """The kernel's view of the configuration.

    >>> rules(Attribution()).window
    604800000
    """
    c = configuration
    life = int(c.window) + int(c.late_conversion) + int(c.return_window) + int(c.orphan_wait)
    return Rules(
        int(c.window), int(c.skew_tolerance), int(c.orphan_wait), int(c.late_conversion), int(c.return_window),
        int(c.horizon), int(c.history), float(c.pair_half_life), life,
    )  # fmt: skip


class Tables:
    """Rings, their hash indexes (rebuilt on load), the expiry pointer and the books."""

    def __init__(self, store: StateStore) -> None:
        self.rings: dict[str, Ring] = {name: store.ring(name, dtype) for name, dtype in RINGS.items()}
        self.indexes = {name: HashIndex() for name in INDEXES}
        self.pointers = store.array(
            "pointers", np.int64, (2,)
        ).values  # oldest impression not expired; returns that wait
        self.books = store.array("books", np.int64, (7, len(BOOKS))).values
        self._rebuild()

    def _rebuild(self) -> None:
        for index, ring, field in (
            ("label", "impressions", "label"), ("request", "impressions", "request"), ("seen", "seen", "key"),
            ("seen", "seen_orders", "key"), ("waiting", "waiting", "cause"), ("waiting_skew", "waiting_skew", "cause"),
            ("line", "purchases", "line"), ("pair", "pairs", "key"),
        ):  # fmt: skip
            self._put(index, ring, self.rings[ring].entries()[field])
        for index, keys in (("item", "impressions"), ("line_item", "purchases"), ("line_order", "purchases")):
            self._put_newest(index, keys)
        purchases = self.rings["purchases"]
        rows = purchases.entries()
        first = (rows["listed"] == 1) & (rows["newer"] < 0)
        self.indexes["user"].put_many(rows["key"][first], np.flatnonzero(first) + purchases.ends[0])

    def _put(self, index: str, ring: str, keys: np.ndarray[Any, np.dtype[Any]]) -> None:
        numbers = np.arange(len(keys)) + self.rings[ring].ends[0]
        live = keys != 0
        self.indexes[index].put_many(np.ascontiguousarray(keys[live]), numbers[live])

    def _put_newest(self, index: str, ring: str) -> None:
        """Heads of the chains: entries that no other entry names as its older one."""
        rows, tail = self.rings[ring].entries(), self.rings[ring].ends[0]
        older = {"item": "older", "line_item": "older_item", "line_order": "older_order"}[index]
        head = np.ones(len(rows), bool)
        named = rows[older][rows[older] >= tail] - tail
        head[named] = False
        if index == "line_order":
            head &= rows["order"] != 0
        chosen = np.flatnonzero(head)
        keys = chain_keys(index, rows[chosen])
        self.indexes[index].put_many(keys, chosen + tail)


def chain_keys(index: str, rows: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Keys of the chains that `rows` stand in: uint64[n]."""
    from .emit import pair_many

    keys = pair_many(rows["key"], rows["order"]) if index == "line_order" else np.ascontiguousarray(rows["key"])
    return np.asarray(pair_many(keys, rows["item"]))
