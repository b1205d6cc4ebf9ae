"""O10: one order, sent again under new event ids, is one order.

Policies: an order line is (user, order, line), or without a line (user, order, item, quantity), remembered for
`return_window`; beyond it, or under another user (a guest's order has the order as its key), it is a purchase of its
own. A purchase without an order is never merged with another. Prices are validated and passed over: Thalweg keeps no
revenue.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cases.log_files import Case

HEAD = {"order_id": "100118", "item_id": "SKU-42", "quantity": 1, "price": 175, "currency": "EUR"}
P1 = {**HEAD, "event_id": "p1", "ts": "2026-03-02T09:31:35Z", "user_id": "u1"}
P2 = '{"event_id":"p2","ts":"2026-03-02T09:31:36Z","user_id":"u1","order_id":"100118","item_id":"SKU-42","quantity":1.0000,"price":175.0000,"currency":"EUR"}'  # noqa: E501
P3 = {**HEAD, "event_id": "p3", "ts": "2026-06-07T03:00:00Z", "user_id": None}
P4 = {**HEAD, "event_id": "p4", "ts": "2026-03-02T10:00:00Z", "user_id": "u2", "order_id": None}
P5 = {**HEAD, "event_id": "p5", "ts": "2026-03-02T10:00:01Z", "user_id": "u3", "order_id": None}
AGAIN = [{**P1, "event_id": f"x{i}"} for i in range(1, 5_001)]
SHOWN = [
    {"event_id": f"i{i}", "ts": "2026-03-02T09:00:00Z", "user_id": "u1", "request_id": f"r{i}", "item_id": "SKU-42"}
    for i in range(2)
]


def test_sent_again_in_time_it_is_counted_once(case: Callable[..., Case]) -> None:
    """Arrival in the order of time: p1 and its 5,000 copies, p2, p4, p5, and p3 97 days on."""
    found = case().write(impressions=SHOWN, purchases=[P1, *AGAIN, P2, P4, P5, P3]).run()
    assert found.count("purchase", "duplicate_order_line") == 5_001
    assert found.count("purchase", "duplicate") == 5_001
    assert found.count("purchase", "applied") == 4, "p1, p4, p5, and p3: a guest's order, and long after the memory"
    assert found.purchases["SKU-42"] == pytest.approx(4, abs=1.2), "decayed"
    assert (found.positives, found.labels["conversions"]) == (1, 1), "credit for order 100118 is given once"
    assert found.letters == []


def test_sent_again_in_the_order_of_the_case(case: Callable[..., Case]) -> None:
    """p3 moves event time on by 97 days; what follows is late. With memory that long it is told and counted."""
    wide = case(attribution={"return_window": "120d"})
    found = wide.write(impressions=SHOWN, purchases=[P1, P2, P3, P4, P5, *AGAIN]).run()
    assert found.count("purchase", "duplicate_order_line") == 5_001
    assert (found.bought, found.lines) == ({"SKU-42": 4}, 4)
    assert found.positives == 1


def test_copies_are_not_remembered(case: Callable[..., Case]) -> None:
    one, many = (case().write(purchases=[P1, *AGAIN[:count]]).run().remembered for count in (0, 5_000))
    assert one == many


def test_with_the_memory_as_it_is_what_is_older_is_set_aside(case: Callable[..., Case]) -> None:
    found = case().write(purchases=[P1, P2, P3, P4, P5, *AGAIN[:100]]).run()
    assert found.count("purchase", "duplicate_order_line") == 1
    assert found.count("purchase", "set_aside") == 102
    assert set(found.reasons) == {"too_late"}


def test_two_honest_lines_stay_two(case: Callable[..., Case]) -> None:
    """With line numbers of the shop's own; without, another quantity is another line, an equal one is a copy."""
    lines = [{**P1, "event_id": f"l{i}", "line": str(i)} for i in (1, 2, 2)]
    others = [{**P1, "event_id": f"q{i}", "order_id": "other", "quantity": i} for i in (1, 2, 2)]
    lines[2]["event_id"] = "l3"
    others[2]["event_id"] = "q3"
    found = case().write(purchases=[*lines, *others]).run()
    assert (found.bought, found.count("purchase", "duplicate_order_line")) == ({"SKU-42": 5}, 2)


def test_orders_without_a_number_are_never_one(case: Callable[..., Case]) -> None:
    rows = [{**P4, "event_id": f"n{i}", "user_id": user} for i, user in enumerate(["u2", "u2", None, None, "null"])]
    found = case().write(purchases=rows).run()
    assert (found.bought, found.count("purchase", "duplicate")) == ({"SKU-42": 5}, 0)
