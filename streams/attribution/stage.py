"""The first stage: joins effects to the impressions that earned them, and makes co-purchases.

Reads one partition of thalweg.events; writes label operations (thalweg.labels) and signed co-purchases
(thalweg.copurchases). Owns duplicates, the late path and the books of the events. The rules, case by case, are in
ARCHITECTURE.md.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ...graph_store.state_store import StateStore
from ..block import NO_CLOCK, Block, Codes, Rows
from ..configuration import Configuration
from ..row import COPURCHASE_ROW, EVENT_ROW, LABEL_ROW, Type, pick
from ..stage import Order, Outputs, Stage
from .emit import DONE, GROW_COPURCHASES, GROW_LABELS, GROW_PAIRS, GROW_REJECTS, GROW_SCRATCH
from .kernel import attribute_rows
from .tables import BOOKS, Tables, rules

_RING_FIELDS = {
    "impressions": "impression_ends",
    "seen": "seen_ends",
    "seen_orders": "seen_orders_ends",
    "waiting": "waiting_ends",
    "waiting_skew": "waiting_skew_ends",
    "purchases": "purchase_ends",
    "pairs": "pair_ends",
    "credits": "credit_ends",
}
_INDEX_NAMES = (
    "label", "request", "item", "seen", "waiting", "waiting_skew", "line", "line_item", "line_order", "user", "pair",
)  # fmt: skip
_make: Any = namedtuple  # the fields come from the two lists above
State: Any = _make(
    "State",
    [
        *_RING_FIELDS,
        *_RING_FIELDS.values(),
        *(f"{name}_{part}" for name in _INDEX_NAMES for part in ("keys", "values", "count")),
        "pointers",
        "books",
        "chain",
        "found",
    ],
)
_SEEN, _UNITS = ("clicked", "carted", "expired"), ("quantity", "left", "pair_count")
REASONS = ("id_conflict", "too_late")
"""Reasons for which attribution sets a row aside: other content under a known event id; older than its memory."""


class AttributionStage(Stage):
    """Attribution of one partition of thalweg.events.

    Example
    -------
    >>> from thalweg.streams.configuration import Configuration
    >>> stage = AttributionStage(Configuration(), StateStore.memory(), sources=1)
    >>> stage.digest()
    0
    """

    name: ClassVar[str] = "attribution"
    row_type: ClassVar[np.dtype[Any]] = EVENT_ROW
    one_clock: ClassVar[bool] = True

    def __init__(self, configuration: Configuration, store: StateStore, sources: int) -> None:
        super().__init__(configuration, store, sources)
        self._rules = rules(configuration.attribution)
        self._tables = Tables(store)
        self.registry = store.value("sources", [])
        """What the indexes of sources stand for: a log file [name, bytes, digest] or a raw partition [topic, id, n]."""
        self._handed_over = store.value("handed_over", {"clock": None, "passed": []})
        self._used = np.zeros(4, np.int64)
        self._chain, self._found = np.zeros(64, np.int64), np.zeros(1024, np.int64)
        self._labels = np.zeros(1 << 12, LABEL_ROW)
        self._label_codes = np.zeros((1 << 12, self._width), np.uint32)
        self._copurchases = np.zeros(1 << 12, COPURCHASE_ROW)
        self._copurchase_codes = np.zeros((1 << 12, self._width), np.uint32)
        self._rejects = np.zeros((256, 3), np.int64)
        self._rejected: list[tuple[int, int, str, str]] = []

    # ---- input

    def attach(self, topic: str) -> None:
        """See the base class. What a replay has applied is dropped where a topic brings it again."""
        super().attach(topic)
        if self.clock > NO_CLOCK:
            self._handed_over.value = {"clock": self.clock, "passed": []}

    def _check_marks(self, block: Block) -> tuple[Rows, Codes] | None:
        fresh = super()._check_marks(block)
        if fresh is None or self._handed_over.value["clock"] is None:
            return fresh
        rows, features = fresh
        known = self._already_replayed(rows)
        return (pick(rows, ~known), features[~known]) if known.any() else fresh

    def _already_replayed(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Which rows the replay before the hand-over has applied: those of a source below the clock of the hand-over,
        until the source has passed that clock once; counted."""
        known = np.zeros(len(rows), np.bool_)
        clock, passed = self._handed_over.value["clock"], self._handed_over.value["passed"]
        for source in np.setdiff1d(rows["source"], passed).tolist():
            mine = np.flatnonzero(rows["source"] == source)
            beyond = rows["ts"][mine] >= clock
            if beyond.any():
                mine = mine[: int(np.argmax(beyond))]
                passed.append(source)
            known[mine] = True
        self.store.count("already_replayed", int(known.sum()))
        return known

    def intake(self, block: Block, rows: Rows) -> None:
        """Count what was read: the rows, and what the log's reader dead-lettered before it."""
        read = BOOKS.index("read")
        for type_, count in enumerate(np.bincount(rows["rank"], minlength=len(Type)).tolist()):
            self._tables.books[type_, read] += count
        for (kind, reason), count in block.rejected.items():
            self.store.count(f"dead_lettered.{kind}.{reason}", count)

    def _accept(self, block: Block, rows: Rows, features: Codes) -> None:
        """Rows on time are merged; a row below the clock it is stamped with is applied at once, at that clock."""
        stamps = np.maximum.accumulate(np.maximum(rows["clock"], self.clock)) if len(rows) else rows["clock"]
        late = np.flatnonzero(rows["ts"] < stamps)
        begin = 0
        while len(late):
            first = int(late[0])
            run = int(np.searchsorted(stamps, stamps[first], "right"))
            following = late[(late < run)]
            consecutive = int(np.argmin(np.append(following == first + np.arange(len(following)), False)))
            end = first + consecutive
            self.merge.offer(rows[begin:first], features[begin:first])
            self._advance(0, int(stamps[first]))
            self._start_openings(int(stamps[first]))
            order = np.arange(first, end)
            self._run(rows, features, order, int(stamps[first]), NO_CLOCK)
            begin, late = end, late[consecutive:]
        self.merge.offer(rows[begin:], features[begin:])
        self._advance(0, block.clock if not len(rows) else max(block.clock, int(stamps[-1])))

    def apply(self, rows: Rows, features: Codes, order: Order, before: int) -> None:
        """See the base class."""
        self._run(rows, features, order, NO_CLOCK, before)

    def _run(self, rows: Rows, features: Codes, order: Order, clock: int, before: int) -> None:
        self._reserve(rows, order)
        begin = 0
        while True:
            first_reject = int(self._used[2])
            status, begin = attribute_rows(
                self._state(), self._rules, rows, features, order, begin, clock, before, self._labels,
                self._label_codes, self._copurchases, self._copurchase_codes, self._used, self._rejects,
            )  # fmt: skip
            for row, reason, kind in self._rejects[first_reject : self._used[2]].tolist():
                origin = rows[row]
                self._rejected.append(
                    (int(origin["source"]), int(origin["offset"]), REASONS[reason], Type(kind).name.lower())
                )
            if status == DONE:
                return
            self._grow(status)

    def _reserve(self, rows: Rows, order: Order) -> None:
        """Room for one entry a row of its type in every table; pairs and outputs grow on demand."""
        counts = np.bincount(rows["rank"][order], minlength=len(Type))
        views, buys = int(counts[Type.IMPRESSION]), int(counts[Type.PURCHASE])
        returns = int(counts[Type.RETURN])
        effects = int(counts[Type.CLICK] + counts[Type.ADD_TO_CART]) + buys + returns
        rings, indexes = self._tables.rings, self._tables.indexes
        waiting = len(rings["waiting"]) + len(rings["waiting_skew"])
        for name, more in (
            ("impressions", views), ("seen", len(order)), ("seen_orders", buys + returns), ("waiting", effects),
            ("waiting_skew", effects), ("purchases", buys), ("credits", buys + waiting),
        ):  # fmt: skip
            rings[name].reserve(more)
        for name, more in (
            ("label", views), ("request", views), ("item", views), ("seen", len(order)), ("waiting", effects),
            ("waiting_skew", effects), ("line", buys), ("line_item", buys), ("line_order", buys), ("user", buys),
        ):  # fmt: skip
            indexes[name].reserve(more)
        self._tables.rings["pairs"].reserve(self._rules.history)
        indexes["pair"].reserve(self._rules.history)

    def _grow(self, status: int) -> None:
        if status == GROW_LABELS:
            self._labels = np.resize(self._labels, 2 * len(self._labels))
            self._label_codes = np.resize(self._label_codes, (len(self._labels), self._width))
            self._label_codes[self._used[0] :] = 0
        elif status == GROW_COPURCHASES:
            self._copurchases = np.resize(self._copurchases, 2 * len(self._copurchases))
            self._copurchase_codes = np.resize(self._copurchase_codes, (len(self._copurchases), self._width))
            self._copurchase_codes[self._used[1] :] = 0
        elif status == GROW_PAIRS:
            more = max(self._rules.history, len(self._tables.rings["pairs"]))
            self._tables.rings["pairs"].reserve(more)
            self._tables.indexes["pair"].reserve(more)
        elif status == GROW_REJECTS:
            self._rejects = np.resize(self._rejects, (2 * len(self._rejects), 3))
        elif status == GROW_SCRATCH:
            self._chain, self._found = (
                np.zeros(2 * len(self._chain), np.int64),
                np.zeros(2 * len(self._found), np.int64),
            )

    def _state(self) -> Any:
        rings, indexes = self._tables.rings, self._tables.indexes
        parts = (index_part for name in _INDEX_NAMES for index_part in (
            indexes[name].keys, indexes[name].values, indexes[name].count,
        ))  # fmt: skip
        return State(
            *(rings[name].rows for name in _RING_FIELDS), *(rings[name].ends for name in _RING_FIELDS), *parts,
            self._tables.pointers, self._tables.books, self._chain, self._found,
        )  # fmt: skip

    # ---- output

    def take(self) -> Outputs:
        """Label operations and co-purchases emitted since the last call."""
        labels, copurchases = int(self._used[0]), int(self._used[1])
        out = {
            "labels": (self._labels[:labels], self._label_codes[:labels]),
            "copurchases": (self._copurchases[:copurchases], self._copurchase_codes[:copurchases]),
        }
        if labels:  # what is handed out is not written again
            self._labels = np.empty_like(self._labels)
            self._label_codes = np.zeros_like(self._label_codes)
        if copurchases:
            self._copurchases = np.empty_like(self._copurchases)
            self._copurchase_codes = np.zeros_like(self._copurchase_codes)
        self._used[:] = 0
        return out

    def take_rejected(self) -> list[tuple[int, int, str, str]]:
        """(source, offset, reason, type) of the rows set aside since the last call."""
        out, self._rejected = self._rejected, []
        return out

    def dead_letters(self) -> dict[str, int]:
        """Rows that did not become events, by reason: from the log's reader, and set aside here."""
        out: dict[str, int] = {}
        for counter, count in self.store.counters.items():
            if counter.startswith("dead_lettered."):
                reason = counter.split(".", 2)[2]
                out[reason] = out.get(reason, 0) + count
        for column, reason in (("conflict", REASONS[0]), ("set_aside", REASONS[1])):
            count = int(self._tables.books[:, BOOKS.index(column)].sum())
            if count:
                out[reason] = count
        return out

    def books(self) -> dict[str, dict[str, int]]:
        """The books, by type: each term as counted at its own site, with what is held and what waits right now."""
        rows, _ = self.held_rows()
        held = np.bincount(rows["rank"], minlength=len(Type))
        waiting = np.zeros(len(Type), np.int64)
        for name in ("waiting", "waiting_skew"):
            entries = self._tables.rings[name].entries()
            waiting += np.bincount(entries["type"][entries["alive"] == 1], minlength=len(Type))
        dead: dict[str, int] = {}
        for counter, count in self.store.counters.items():
            if counter.startswith("dead_lettered."):
                kind = counter.split(".")[1]
                dead[kind] = dead.get(kind, 0) + count
        out = {}
        for type_ in Type:
            name = type_.name.lower()
            terms = dict(zip(BOOKS, self._tables.books[type_].tolist(), strict=True))
            terms["dead_lettered"] = dead.get(name, 0) + terms["conflict"]
            terms["read"] += dead.pop(name, 0)
            out[name] = {**terms, "held": int(held[type_]), "waiting": int(waiting[type_])}
        if dead:
            out["unknown"] = {"read": sum(dead.values()), "dead_lettered": sum(dead.values())}
        return out

    # ---- digest

    def entries(self) -> Iterator[tuple[str, Rows]]:
        """See the base class."""
        rings = self._tables.rings
        for name, fields in (
            ("impressions", ("label", "request", "content", "key", "item", "user", "ts", "effective", *_SEEN)),
            ("seen", ("key", "content", "effective")),
            ("seen_orders", ("key", "content", "effective")),
            ("waiting", ("cause", "event", "type", "ts", "effective", "quantity", "alive")),
            ("waiting_skew", ("cause", "event", "type", "ts", "effective", "quantity", "alive")),
            ("purchases", ("key", "user", "order", "item", "line", "event", "ts", "effective", *_UNITS)),
            ("pairs", ("key", "weight", "ts", "effective", "alive")),
            ("credits", ("label", "key", "item", "user", "ts", "effective", "lines", "toggles")),
        ):  # fmt: skip
            for rows in rings[name].slices():
                yield name, rows[list(fields)]

    def held_content(self) -> tuple[Rows, Codes]:
        """See the base class. Progress rows carry a clock and nothing else; from raw topics they never come so far."""
        rows, features = self.held_rows()
        events = rows["rank"] != Type.PROGRESS
        return pick(rows, events), features[events]

    def impressions(self) -> npt.NDArray[Any]:
        """Entries of the impressions remembered, oldest first."""
        return self._tables.rings["impressions"].entries()

    def converted(self, credit: int) -> bool:
        """Whether an impression with this `credit` entry has an order line that was not returned."""
        ring = self._tables.rings["credits"]
        return credit >= int(ring.ends[0]) and int(ring.rows["lines"][credit & (len(ring.rows) - 1)]) > 0

    def purchases(self) -> npt.NDArray[Any]:
        """Entries of the order lines remembered, oldest first."""
        return self._tables.rings["purchases"].entries()
