"""Attribution, slowly: the case table of ARCHITECTURE.md in lists and dicts, one event at a time.

Nothing is indexed and nothing is evicted: what is forgotten is still in its list, and every look-up asks
"is it still remembered at `now`?". Events are plain dicts with the fields of EVENT_ROW and `codes`, a tuple.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

MASK = 2**64 - 1
ITEM, IMPRESSION, CLICK, CART, PURCHASE, RETURN, PROGRESS = range(7)
NAMES = ("item", "impression", "click", "add_to_cart", "purchase", "return", "progress")
OP_ITEM, OP_IMPRESSION, OP_CLICK, OP_CART, OP_CONVERSION, OP_EXPIRY, OP_REVERSAL = range(7)

Event = dict[str, Any]


def mix64(x: int) -> int:
    """SplitMix64's finaliser on Python integers."""
    z = (x + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def pair64(a: int, b: int) -> int:
    """Hash of an ordered pair, never 0."""
    return mix64((mix64(a) * 0x94D049BB133111EB + b) & MASK) or 0x9E3779B97F4A7C15


def events_of(rows: np.ndarray, codes: np.ndarray) -> list[Event]:
    """EVENT_ROW records and their feature codes as plain dicts."""
    names = rows.dtype.names or ()
    return [
        {**dict(zip(names, row, strict=True)), "codes": tuple(features)}
        for row, features in zip(rows.tolist(), codes.tolist(), strict=True)
    ]


class Reference:
    """One shard of attribution. `labels`, `copurchases`: emitted rows as tuples of all fields, then the codes."""

    def __init__(self, attribution: Any, width: int) -> None:
        self.rule = attribution
        self.none = (0,) * width
        self.clock = -(2**62)
        self.now = self.clock
        self.held: list[Event] = []
        self.labels: list[tuple[Any, ...]] = []
        self.copurchases: list[tuple[Any, ...]] = []
        self.rejects: list[tuple[int, int, str, str]] = []
        self.books = {name: Counter() for name in NAMES}
        self.cases: Counter[str] = Counter()
        self.impressions: list[dict[str, Any]] = []
        self.lines: list[dict[str, Any]] = []
        self.pairs: list[dict[str, Any]] = []
        self.remembered: list[dict[str, Any]] = []
        self.waiting: list[dict[str, Any]] = []

    # ---- the frame: held rows, the clock, closing timers

    def arrive(self, event: Event) -> None:
        """One event in order of arrival, stamped with ingest's clock."""
        self.books[NAMES[event["rank"]]]["read"] += 1
        self.advance(event["clock"])
        if event["ts"] < self.clock:
            self.apply_late(event)
        else:
            self.held.append(event)

    def advance(self, clock: int) -> None:
        """Raise the clock: rows below it leave in the total order, then closing timers due below it fire."""
        self.clock = max(self.clock, clock)
        ready = [e for e in self.held if e["ts"] < self.clock]
        self.held = [e for e in self.held if e["ts"] >= self.clock]
        for event in sorted(ready, key=lambda e: (e["ts"], e["rank"], e["id"], e["id2"], e["tie"])):
            self.fire(event["ts"])
            self.now = event["ts"]
            self.apply(event, late=False)
        self.fire(self.clock)

    def fire(self, before: int) -> None:
        """Closing timers due below `before`: expiries, and waits that end."""
        for impression in self.impressions:
            if not impression["expired"] and impression["effective"] + self.rule.window < before:
                impression["expired"] = True
                self.emit_label(
                    impression, impression["effective"] + self.rule.window, OP_EXPIRY, 2**40,
                    impression["ts"] + self.rule.window,
                )  # fmt: skip
                self.cases["expiry"] += 1
        for wait in [w for w in self.waiting if w["until"] < before]:
            self.waiting.remove(wait)
            self.end(wait["event"], wait["ends_as"], wait["late"])
            self.cases[f"{NAMES[wait['event']['rank']]} waited in vain: {wait['ends_as']}"] += 1

    def end(self, event: Event, outcome: str, late: bool) -> None:
        """An effect ends as attributed, unattributed or orphan."""
        book = self.books[NAMES[event["rank"]]]
        book[outcome] += 1
        if event["rank"] == PURCHASE and late and outcome != "attributed":
            book["late_label"] += 1

    # ---- one event

    def apply_late(self, event: Event) -> None:
        """A row below the clock it is stamped with: applied at the clock, or set aside."""
        book = self.books[NAMES[event["rank"]]]
        back = {IMPRESSION: self.rule.window, CLICK: self.rule.window, CART: self.rule.window}
        back |= {PURCHASE: self.rule.return_window, RETURN: self.rule.return_window}
        if event["rank"] in back and event["ts"] < self.clock - back[event["rank"]]:
            book["set_aside"] += 1
            self.reject(event, "too_late")
            return
        book["late"] += event["rank"] != PROGRESS
        self.now = self.clock
        self.cases[f"late {NAMES[event['rank']]}"] += 1
        self.apply(event, late=True)

    def reject(self, event: Event, reason: str) -> None:
        self.rejects.append((event["source"], event["offset"], reason, NAMES[event["rank"]]))

    def apply(self, event: Event, late: bool) -> None:
        """Drop duplicates and conflicts; apply the rest."""
        kind, book = event["rank"], self.books[NAMES[event["rank"]]]
        if kind == PROGRESS:
            book["applied"] += 1
            return
        identity = self.identity(event)
        same = [r for r in self.remembered if r["identity"] == identity and r["until"] >= self.now]
        if same and same[-1]["tie"] == event["tie"]:
            book["duplicate"] += 1
            return
        if same:
            book["conflict"] += 1
            self.reject(event, "id_conflict")
            return
        if kind == IMPRESSION and self.known_label(pair64(event["key"], event["impression"])):
            book["duplicate"] += 1
            book["duplicate_impression"] += 1
            return
        if kind == PURCHASE and self.known_line(event):
            book["duplicate"] += 1
            book["duplicate_order_line"] += 1
            return
        book["applied"] += 1
        self.remember(event)
        if kind == ITEM:
            self.item(event)
        elif kind == IMPRESSION:
            self.impression(event)
        elif kind == PURCHASE:
            self.purchase(event, late)
        elif kind == RETURN:
            self.giveback(event, late)
        else:
            self.effect({"event": event, "late": late, "line": None})

    def identity(self, event: Event) -> tuple[Any, ...]:
        """What tells an event again: type, K and event id; an impression without an id of its own: its label key."""
        if event["rank"] == IMPRESSION and event["impression"] == event["id"]:
            return "name", event["key"], event["impression"]
        return event["rank"], event["key"], event["id"]

    def remember(self, event: Event) -> None:
        rule, kind = self.rule, event["rank"]
        life = rule.return_window if kind in (PURCHASE, RETURN) else rule.window
        self.remembered.append({"identity": self.identity(event), "tie": event["tie"], "until": self.now + life})
        if kind == IMPRESSION:
            until = self.now + rule.window + rule.late_conversion
            name = ("name", event["key"], event["impression"])
            self.remembered.append({"identity": name, "tie": event["tie"], "until": until})

    def known_label(self, label: int) -> dict[str, Any] | None:
        """The impression remembered under a label key."""
        for impression in reversed(self.impressions):
            if impression["label"] == label and self.kept(impression):
                return impression
        return None

    def kept(self, impression: dict[str, Any]) -> bool:
        return bool(impression["effective"] + self.rule.window + self.rule.late_conversion >= self.now)

    def known_line(self, event: Event) -> bool:
        return event["order"] != 0 and any(
            line["name"] == line_name(event) for line in self.lines_of(event["key"]) if line["event"]["order"]
        )

    def lines_of(self, key: int) -> list[dict[str, Any]]:
        """Order lines of K that are remembered, in order of application."""
        return [
            n for n in self.lines if n["event"]["key"] == key and n["effective"] + self.rule.return_window >= self.now
        ]

    # ---- items, impressions

    def item(self, event: Event) -> None:
        ts = event["ts"]
        self.labels.append(
            (
                self.now, 0, event["item"], event["id"], OP_ITEM, ts, OP_ITEM, 0, ts, event["key"], 0, event["item"],
                *event["codes"],
            )
        )  # fmt: skip
        self.emit_copurchase(ts, 0, 1, pair64(event["key"], event["id"]), 0, 0, 0, event["item"], 0, 0, event["codes"])

    def impression(self, event: Event) -> None:
        impression = {
            **event, "label": pair64(event["key"], event["impression"]), "effective": self.now, "clicked": False,
            "carted": False, "expired": False, "lines": 0, "toggles": 0,
        }  # fmt: skip
        self.impressions.append(impression)
        self.emit_label(impression, self.now, OP_IMPRESSION, 0, event["ts"], event["codes"])
        for group in ("label", "request", "nothing"):
            for wait in [w for w in self.waiting if w["group"] == group and self.fits(w, impression)]:
                self.waiting.remove(wait)
                self.cases[f"{NAMES[wait['event']['rank']]} found its impression while waiting by {group}"] += 1
                self.found(wait, impression)

    def fits(self, wait: dict[str, Any], impression: dict[str, Any]) -> bool:
        """Is this the impression that a waiting effect waits for?"""
        event = wait["event"]
        if event["rank"] == RETURN or event["key"] != impression["key"]:
            return False
        if wait["group"] == "label":
            return bool(event["impression"] == impression["impression"])
        if wait["group"] == "request":
            return bool((event["request"], event["item"]) == (impression["request"], impression["item"]))
        inside = event["ts"] - self.rule.window <= impression["ts"] <= event["ts"] + self.rule.skew_tolerance
        return bool(inside and event["item"] == impression["item"])

    # ---- clicks, carts, purchases

    def effect(self, effect: dict[str, Any]) -> None:
        """Look for the impression of an effect; wait where it has not come."""
        event, rule = effect["event"], self.rule
        if event["impression"]:
            group, cause = "label", self.known_label(pair64(event["key"], event["impression"]))
        elif event["request"]:
            group, cause = "request", self.by_request(event)
        else:
            group, cause = "nothing", self.by_item(event)
        if cause is not None:
            self.cases[f"{NAMES[event['rank']]} found its impression at once by {group}"] += 1
            self.found(effect, cause)
            return
        span, ends_as = (rule.skew_tolerance, "unattributed") if group == "nothing" else (rule.orphan_wait, "orphan")
        self.waiting.append({**effect, "group": group, "until": self.now + span, "ends_as": ends_as})

    def by_request(self, event: Event) -> dict[str, Any] | None:
        names = ("key", "request", "item")
        same = [i for i in self.impressions if self.kept(i) and all(i[n] == event[n] for n in names)]
        return same[-1] if same else None

    def by_item(self, event: Event) -> dict[str, Any] | None:
        ts = event["ts"]
        same = [i for i in self.impressions if self.kept(i) and (i["key"], i["item"]) == (event["key"], event["item"])]
        same.sort(key=lambda i: i["ts"])  # stable: of one ts, in order of application
        before = [i for i in same if i["ts"] <= ts]
        if before and ts - before[-1]["ts"] <= self.rule.window:
            return before[-1]
        after = [i for i in same if ts < i["ts"] <= ts + self.rule.skew_tolerance]
        if after:
            self.cases["attributed to an impression a little later"] += 1
        return after[0] if after else None

    def found(self, effect: dict[str, Any], impression: dict[str, Any]) -> None:
        """An effect and its impression met."""
        event = effect["event"]
        kind, book = event["rank"], self.books[NAMES[event["rank"]]]
        if not -self.rule.skew_tolerance <= event["ts"] - impression["ts"] <= self.rule.window:
            self.cases["named impression, out of reach"] += 1
            self.end(event, "unattributed", effect["late"])
            return
        self.end(event, "attributed", effect["late"])
        effect_ts = max(event["ts"], impression["ts"])
        if kind in (CLICK, CART):
            flag = "clicked" if kind == CLICK else "carted"
            again, impression[flag] = impression[flag], True
            if again:
                book["repeat"] += 1
            elif impression["expired"]:
                book["late_click"] += 1
            else:
                self.emit_label(impression, self.now, kind, 1 if kind == CLICK else 2, effect_ts)
            return
        line = effect["line"]
        if line["left"] == 0 or line["effective"] + self.rule.return_window < self.now:
            self.cases["returned or forgotten while it waited"] += 1
            return
        line["impression"] = impression
        impression["lines"] += 1
        if impression["lines"] > 1:
            self.cases["a second line for one impression"] += 1
            return
        if impression["expired"]:
            book["late_conversion"] += 1
        self.toggle(impression, OP_CONVERSION, effect_ts)

    def toggle(self, impression: dict[str, Any], op: int, effect_ts: int) -> None:
        self.emit_label(impression, self.now, op, 3 + impression["toggles"], effect_ts)
        impression["toggles"] += 1
        if impression["toggles"] > 2:
            self.cases["converted again after a reversal"] += 1

    # ---- order lines, pairs, returns

    def purchase(self, event: Event, late: bool) -> None:
        line = {
            "event": event, "name": line_name(event), "effective": self.now, "left": event["quantity"],
            "impression": None,
        }  # fmt: skip
        user = event["user"]
        self.emit_copurchase(
            event["ts"], 1, 1, pair64(event["key"], event["id"]), 0, user, 0, event["item"], 0, event["quantity"]
        )
        if user:
            self.make_pairs(line)
        self.lines.append(line)
        self.effect({"event": event, "late": late, "line": line})
        for group in ("order", "item"):
            for wait in [w for w in self.waiting if w["group"] == group and self.returns(w["event"], line, group)]:
                self.waiting.remove(wait)
                self.cases[f"return found its line while waiting by {group}"] += 1
                self.take_back(wait["event"], [line], wait["late"])

    def returns(self, event: Event, line: dict[str, Any], group: str) -> bool:
        """Is this the line that a waiting return waits for?"""
        bought = line["event"]
        if (event["key"], event["item"]) != (bought["key"], bought["item"]):
            return False
        if group == "order":
            return self.reachable(event, line) and bool(event["order"] == bought["order"])
        return self.reachable(event, line) and bool(bought["ts"] <= event["ts"] + self.rule.skew_tolerance)

    def reachable(self, event: Event, line: dict[str, Any]) -> bool:
        return bool(event["ts"] - line["event"]["ts"] <= self.rule.return_window)

    def make_pairs(self, line: dict[str, Any]) -> None:
        event, rule = line["event"], self.rule
        latest: dict[int, tuple[int, int]] = {}
        candidates: dict[int, dict[str, Any]] = {}
        for number, earlier in enumerate(self.lines_of(event["key"])):
            bought = earlier["event"]
            item, place = bought["item"], (bought["ts"], number)
            latest[item] = max(latest.get(item, place), place)
            one_order = bought["order"] != 0 and bought["order"] == event["order"]
            inside = event["ts"] - rule.horizon <= bought["ts"] < event["ts"]
            if item == event["item"] or one_order or not inside or earlier["left"] == 0:
                continue
            if item not in candidates or candidates[item]["event"]["ts"] <= bought["ts"]:
                candidates[item] = earlier
        visited = sorted(candidates, key=lambda item: latest[item], reverse=True)
        if len(visited) > rule.history:
            self.books["purchase"]["history_capped"] += 1
        made = 0
        for item in visited[: rule.history]:
            standing = [
                p for p in self.pairs
                if (p["key"], p["source"], p["target"]) == (event["key"], item, event["item"])
                and p["standing"] and p["effective"] + rule.return_window >= self.now
            ]  # fmt: skip
            if standing:
                self.cases["a pair still stands"] += 1
                continue
            gap = event["ts"] - candidates[item]["event"]["ts"]
            weight = max(1, math.floor(65536 * math.exp(-math.log(2.0) * gap / rule.pair_half_life) + 0.5))
            made += 1
            self.pairs.append(
                {
                    "key": event["key"], "source": item, "target": event["item"], "standing": True, "weight": weight,
                    "effective": self.now, "later": line, "earlier": candidates[item],
                }
            )  # fmt: skip
            self.cases["pair"] += 1
            cause = pair64(event["key"], event["id"])
            self.emit_copurchase(event["ts"], 2, 1, cause, made, event["user"], item, event["item"], weight, 0)

    def giveback(self, event: Event, late: bool) -> None:
        """A return: the lines it may take from, or a wait."""
        mine = [n for n in self.lines_of(event["key"]) if n["event"]["item"] == event["item"]]
        mine = sorted((n for n in mine if self.reachable(event, n)), key=lambda n: n["event"]["ts"])  # stable
        if event["order"]:
            named = [n for n in mine if n["event"]["order"] == event["order"]]
            if named:
                self.take_back(event, named[::-1], late)
            else:
                self.wait_for_line(event, late, "order", self.rule.orphan_wait, "orphan")
            return
        known = [n for n in mine if n["event"]["ts"] <= event["ts"] + self.rule.skew_tolerance]
        open_ = [n for n in known if n["left"]]
        if known:
            self.take_back(event, open_[-1:] or known[-1:], late)
        else:
            self.wait_for_line(event, late, "item", self.rule.skew_tolerance, "unattributed")

    def wait_for_line(self, event: Event, late: bool, group: str, span: int, ends_as: str) -> None:
        self.waiting.append(
            {"event": event, "late": late, "line": None, "group": group, "until": self.now + span, "ends_as": ends_as}
        )

    def take_back(self, event: Event, lines: list[dict[str, Any]], late: bool) -> None:
        """Take the units of a return from `lines`, the first first."""
        self.end(event, "attributed", late)
        units, sequence = event["quantity"], 0
        for line in lines:
            taken = min(units, line["left"])
            if not taken:
                continue
            units -= taken
            line["left"] -= taken
            if line["left"]:
                self.cases["partial return"] += 1
            else:
                self.reverse(event, line, sequence)
            sequence += 1_000_000
            if sequence > 1_000_000:
                self.cases["a return takes from several lines"] += 1
        if units:
            self.books["return"]["over_return"] += 1

    def reverse(self, event: Event, line: dict[str, Any], sequence: int) -> None:
        """A line has nothing left: withdraw what it made."""
        self.books["return"]["reversal"] += 1
        bought, cause = line["event"], pair64(event["key"], event["id"])
        self.emit_copurchase(
            bought["ts"], 1, -1, cause, sequence, bought["user"], 0, bought["item"], 0, bought["quantity"]
        )
        standing = [p for p in self.pairs if p["standing"] and p["effective"] + self.rule.return_window >= self.now]
        made = [p for p in standing if p["later"] is line]
        begun = self.newest_first([p for p in standing if p["earlier"] is line])
        self.cases["pair withdrawn by its later line"] += len(made)
        self.cases["pair withdrawn by its earlier line"] += len(begun)
        for number, pair in enumerate(made + begun, 1):
            pair["standing"] = False
            self.emit_copurchase(
                pair["later"]["event"]["ts"], 2, -1, cause, sequence + number, bought["user"], pair["source"],
                pair["target"], pair["weight"], 0,
            )  # fmt: skip
        impression = line["impression"]
        if impression is None:
            self.cases["reversed without an impression"] += 1
            return
        impression["lines"] -= 1
        if impression["lines"] == 0:
            self.toggle(impression, OP_REVERSAL, event["ts"])
        else:
            self.cases["a line returned, another stands"] += 1

    def newest_first(self, pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Pairs of one user by the user's latest line of their target, then by the line that made them."""
        place = {id(n): (n["event"]["ts"], number) for number, n in enumerate(self.lines)}
        latest: dict[int, tuple[int, int]] = {}
        for n in self.lines_of(pairs[0]["key"]) if pairs else []:
            latest[n["event"]["item"]] = max(latest.get(n["event"]["item"], place[id(n)]), place[id(n)])
        return sorted(pairs, key=lambda p: (latest[p["target"]], place[id(p["later"])]), reverse=True)

    # ---- output

    def emit_label(
        self, impression: dict[str, Any], ts: int, op: int, sequence: int, effect_ts: int, codes: tuple[int, ...] = ()
    ) -> None:
        i = impression
        self.labels.append(
            (
                ts, 1, i["label"], sequence, op, effect_ts, op, i["label"], i["ts"], i["key"], i["user"], i["item"],
                *(codes or self.none),
            )
        )  # fmt: skip

    def emit_copurchase(
        self, effect_ts: int, kind: int, sign: int, event: int, sequence: int, user: int, source: int, target: int,
        weight: int, quantity: int, codes: tuple[int, ...] = (),
    ) -> None:  # fmt: skip
        rank = 2 * kind + (sign < 0)
        self.copurchases.append(
            (
                self.now, rank, event, sequence, target, effect_ts, kind, sign, user, source, target, weight, quantity,
                *(codes or self.none),
            )
        )  # fmt: skip


def line_name(event: Event) -> tuple[int, ...]:
    """The order line that a purchase names: (order, line), without a line (order, item, quantity)."""
    if event["line"]:
        return event["order"], event["line"]
    return event["order"], event["item"], event["quantity"]
