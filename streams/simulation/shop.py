"""A small random shop: raw rows of every type in raw partitions, in the order of their arrival.

Few users, items, orders and names over some minutes of event time, with windows as short, so that every rule of
attribution happens within two hundred rows. A row arrives at most the allowed lateness behind its time, but for shops
that are asked to be late.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

from ..configuration import Configuration, from_builtins

START = 1_700_000_000_000
LATENESS = 2_000
USERS = ("anna", "ben", "cleo", "dora", None)
ITEMS = ("phone", "case", "tea", "cup", "lamp")
KINDS = {"impression": 40, "click": 14, "add_to_cart": 8, "purchase": 24, "return": 8, "item": 6, "progress": 2}
BROKEN = (
    b"", b"oops", b"{}", b"[1, 2]", b'{"type": "click", "ts": 1700000000', b'{"type": "order", "ts": 1700000000000}',
    b'{"type": "purchase", "ts": 7200000000000, "item_id": "phone", "event_id": "absurd"}',
    b'{"type": "click", "ts": "yesterday", "item_id": "tea", "event_id": "words"}',
)  # fmt: skip
"""Raw messages that are no events, the same in a file and in a topic."""


class Raw(NamedTuple):
    """One raw message: when it arrives, in event time (ms), and its bytes."""

    arrival: int
    value: bytes


@dataclass
class Traits:
    """What one shop is like.

    Attributes
    ----------
    rows : events before resends
    partitions : number of raw partitions
    late : share of rows that arrive later than the allowed lateness
    tied : share of events that happen at the very time of the one before
    resent : share of events that are sent again
    changed : share of what is sent again whose content is another, under the same id and time
    echoed : share of clicks, carts and purchases that bear the event id of their impression: ids are unique in a type
    broken : share of messages that are no events
    silence : chance that a while passes before an event in which nothing happens
    shared : users name each other's impressions and orders
    """

    rows: int = 160
    partitions: int = 3
    late: float = 0.0
    tied: float = 0.33
    resent: float = 0.05
    changed: float = 0.2
    echoed: float = 0.0
    broken: float = 0.0
    silence: float = 0.03
    shared: float = 0.0


def settings(shards: int, block_rows: int) -> Configuration:
    """The configuration of a shop: spans of seconds, small tables, versions built in no epochs.

    >>> settings(2, 10).fingerprint() == settings(2, 30).fingerprint() != settings(1, 10).fingerprint()
    True
    """
    return from_builtins(
        {
            "partitions": shards,
            "audit_interval": "40s",
            "features": [{"name": "device"}, {"name": "category", "source": "item"}],
            "time": {
                "lateness": f"{LATENESS}ms", "earliest": "2023-01-01T00:00:00Z", "latest": "2024-06-01T00:00:00Z",
            },
            "attribution": {
                "window": "30s", "skew_tolerance": "1s", "orphan_wait": "15s", "late_conversion": "10s",
                "return_window": "60s", "horizon": "60s", "history": 4, "pair_half_life": "20s",
            },
            "conversion": {"bits": 8},
            "graph": {
                "half_life": "300s", "customer_period": "60s", "refresh": "90s", "refresh_delay": "20s",
                "dimensions": 2, "epochs": 0, "propagation": 0, "max_pairs": 4096,
            },
            "calibration": {"epoch": "40s", "score_bins": 8, "uncertainty_bins": 2, "levels": 2, "half_life": "200s",
                            "epochs_kept": 64, "evidence": 5},
            "kafka": {"application": "simulation", "topics": {"shop": ""}, "block_rows": block_rows},
        }
    )  # fmt: skip


class _Shop:
    """What the shop remembers, to have its rows name one another."""

    def __init__(self, draw: Random, traits: Traits) -> None:
        self.draw = draw
        self.traits = traits
        self.now = START + draw.randrange(60_000)
        self.seen: list[dict[str, Any]] = []
        self.bought: list[dict[str, Any]] = []

    def event(self, number: int) -> dict[str, Any]:
        """The next event."""
        draw = self.draw
        if draw.random() >= self.traits.tied:
            self.now += draw.choice((400, 1_100, 2_300, 3_700))
        if draw.random() < self.traits.silence:
            self.now += draw.randrange(20_000, 90_000)
        kind = draw.choices(list(KINDS), list(KINDS.values()))[0]
        row: dict[str, Any] = {"event_id": f"{kind[:2]}{number}", "type": kind, "ts": self.now}
        if kind == "progress":
            return row
        row["item_id"] = draw.choice(ITEMS)
        if kind == "item":
            return row | {"category": draw.choice(("small", "large"))}
        row["user_id"] = draw.choice(USERS)
        getattr(self, f"_{kind}", self._effect)(row, number)
        return {name: value for name, value in row.items() if value is not None}

    def _impression(self, row: dict[str, Any], number: int) -> None:
        row |= {"impression_id": f"i{number}", "request_id": f"r{number // 3}", "position": number % 3}
        row["device"] = self.draw.choice(("phone", "desk", None))
        self.seen.append(row)

    def _effect(self, row: dict[str, Any], number: int) -> None:
        """A click, cart or purchase: of an impression that it names, mostly, or of none."""
        draw = self.draw
        if self.seen and draw.random() < 0.75:
            cause = draw.choice(self.seen[-8:])
            row["item_id"] = cause["item_id"]
            if draw.random() < self.traits.echoed:
                row |= {"event_id": cause["event_id"], "ts": cause["ts"]}
            if draw.random() >= self.traits.shared:
                row["user_id"] = cause["user_id"]
            if draw.random() < 0.6:
                name = draw.choice(("impression_id", "request_id"))
                row[name] = cause[name]
        elif draw.random() < 0.3:
            row["impression_id"] = f"i{number + draw.randrange(4)}"

    def _purchase(self, row: dict[str, Any], number: int) -> None:
        self._effect(row, number)
        same = self.bought and self.draw.random() < 0.3
        row["order_id"] = self.bought[-1]["order_id"] if same else f"o{number}"
        if same and self.draw.random() >= self.traits.shared:
            row["user_id"] = self.bought[-1]["user_id"]
        row |= {"line": str(number), "quantity": self.draw.randrange(1, 4), "price": 9.5, "currency": "EUR"}
        self.bought.append(row)

    def _return(self, row: dict[str, Any], number: int) -> None:
        if self.bought and self.draw.random() < 0.8:
            line = self.draw.choice(self.bought[-5:])
            row |= {"item_id": line["item_id"], "user_id": line["user_id"], "quantity": self.draw.randrange(1, 4)}
            if self.draw.random() < 0.7:
                row["order_id"] = line["order_id"]
        else:
            row["order_id"] = f"o{number + self.draw.randrange(3)}"


def draw_shop(draw: Random, traits: Traits) -> list[list[Raw]]:
    """The raw partitions of a shop, each in order of arrival; their sizes differ.

    >>> parts = draw_shop(Random(1), Traits(rows=50))
    >>> len(parts), sum(map(len, parts)) >= 50, all(part == sorted(part, key=lambda raw: raw.arrival) for part in parts)
    (3, True, True)
    """
    shop = _Shop(draw, traits)
    parts: list[list[Raw]] = [[] for _ in range(traits.partitions)]
    weights = [draw.choice((1, 2, 5)) for _ in parts]
    drained = [draw.choice((0.4, 0.7, 2.0)) for _ in parts]  # share of the shop's rows after which a part has no more
    drained[draw.randrange(len(parts))] = 2.0
    away = draw.randrange(len(parts)), draw.uniform(0.2, 0.5), draw.uniform(0.5, 0.9)  # a part that pauses

    def arrives(ts: int) -> int:
        if draw.random() < traits.late:
            return ts + draw.randrange(LATENESS, 20 * LATENESS)
        return ts + draw.randrange(LATENESS + 1)

    for number in range(traits.rows):
        row = shop.event(number)
        at = number / traits.rows
        live = [p for p in range(len(parts)) if at < drained[p] and not (p == away[0] and away[1] < at < away[2])]
        live = live or [drained.index(2.0)]
        for again in range(2 if draw.random() < traits.resent else 1):
            if again and draw.random() < traits.changed:
                row = row | {"item_id": draw.choice(ITEMS)}  # the same id with other content, perhaps
            part = draw.choices(live, [weights[p] for p in live])[0]
            parts[part].append(Raw(arrives(row["ts"]), json.dumps(row).encode()))
        if draw.random() < traits.broken:
            parts[draw.choice(live)].append(Raw(arrives(row["ts"]), draw.choice(BROKEN)))
    return [sorted(part, key=lambda raw: raw.arrival) for part in parts]
