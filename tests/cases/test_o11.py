"""O11: a click whose impression never came is kept waiting, then counted; rates never pass 1.

Policies: an effect that names an unknown impression or request waits `orphan_wait` (1 day), then is an orphan. A click
that names no request belongs to the latest impression of that user and item inside W. A click under another user than
its impression's is an orphan.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tests.cases.log_files import BASE, Case, Found, days, look, tick

SHOWN = [
    {"event_id": "i1", "ts": BASE, "user_id": "u1", "request_id": "r1", "item_id": "A", "position": 1},
    {"event_id": "i2", "ts": BASE, "user_id": "u1", "request_id": "r1", "item_id": "B", "position": 2},
]
CLICKS = [
    {"event_id": "c1", "ts": BASE + 60_000, "user_id": "u1", "request_id": "r-404", "item_id": "A"},
    {"event_id": "c2", "ts": BASE + 61_000, "user_id": "u1", "request_id": "r1", "item_id": "Z"},
    {"event_id": "c3", "ts": BASE + 62_000, "user_id": "u1", "item_id": "A"},
    {"event_id": "c4", "ts": BASE + 63_000, "user_id": "u2", "request_id": "r1", "item_id": "A"},
    {"event_id": "c5", "ts": BASE + 64_000, "user_id": "u1", "request_id": "r1", "item_id": "B"},
    {"event_id": "c6", "ts": BASE + 65_000, "user_id": "u1", "request_id": "r1", "item_id": "B"},
]


def test_orphans_are_counted_when_their_wait_is_over_and_not_before(case: Callable[..., Case]) -> None:
    made = case().write(impressions=SHOWN, clicks=CLICKS)
    before = made.run()
    assert (before.count("click", "orphan"), before.count("click", "waiting")) == (0, 3)
    assert (before.count("click", "attributed"), before.count("click", "repeat")) == (3, 1)
    assert before.clicked() == {"A": 1, "B": 1}, (
        "c3 belongs to A, for it names no request; c5 to B, and c6 adds nothing"
    )
    made.write(**{"impressions-2": [tick(BASE + days(1))]}).replay("impressions-2.jsonl")
    still = look(made.state)
    assert (still.count("click", "orphan"), still.count("click", "waiting")) == (0, 3)
    made.write(**{"impressions-3": [tick(BASE + days(1) + 70_000)]}).replay("impressions-3.jsonl")
    after = look(made.state)
    assert (after.count("click", "orphan"), after.count("click", "waiting")) == (3, 0)
    assert (after.labels["clicks"], after.clicked()) == (2, {"A": 1, "B": 1})


def test_an_impression_that_comes_while_the_click_waits(case: Callable[..., Case]) -> None:
    """c1's impression is 20 hours late: the click is joined, not lost."""
    late = {
        "type": "impression",
        "event_id": "i404",
        "ts": BASE,
        "user_id": "u1",
        "request_id": "r-404",
        "item_id": "A",
    }
    rows = [{"type": "click", **CLICKS[0]}, tick(BASE + days(0.8)), late, tick(BASE + days(2))]
    found = case().write(events=rows).run()
    assert (found.count("click", "attributed"), found.count("click", "orphan")) == (1, 0)
    assert found.clicked() == {"A": 1}
    assert found.count("impression", "late") == 1


def random_log(draw: random.Random, user: str) -> list[dict[str, Any]]:
    """A few impressions and more effects than fit them, of one user: names that exist, names that do not, no names."""
    rows: list[dict[str, Any]] = []
    for i in range(draw.randrange(1, 5)):
        row = {"type": "impression", "event_id": f"{user}-i{i}", "request_id": f"{user}-r{draw.randrange(3)}"}
        rows.append({**row, "item_id": draw.choice("AB"), "ts": BASE + draw.randrange(days(2))})
    for i in range(draw.randrange(1, 10)):
        row = {"type": draw.choice(["click", "click", "add_to_cart", "purchase"]), "event_id": f"{user}-e{i}"}
        row |= draw.choice(
            [{}, {"request_id": f"{user}-r{draw.randrange(4)}"}, {"impression_id": f"{user}-i{draw.randrange(6)}"}]
        )
        rows.append({**row, "item_id": draw.choice("ABZ"), "ts": BASE + draw.randrange(days(3))})
    draw.shuffle(rows)
    return [{**row, "user_id": user} for row in rows]


def test_no_rate_passes_one_in_a_thousand_random_logs(case: Callable[..., Case]) -> None:
    """A user is a log of its own, for everything is matched inside one: 10 replays of 100 logs, in any order."""
    found: list[Found] = []
    for seed in range(10):
        draw = random.Random(seed)
        logs = [random_log(draw, f"u{n}") for n in range(100)]
        rows = [row for log in logs for row in log]
        if seed % 2:
            rows.sort(key=lambda row: row["ts"])
        found.append(case(time={"lateness": "1h"}).write(events=[*rows, tick(BASE + days(5))]).run())
    for one in found:
        impressions = one.count("impression", "applied")
        assert one.labels["clicks"] + one.labels["carts"] <= 2 * impressions
        assert one.labels["clicks"] == sum(one.clicked().values()) <= impressions == one.trials
        assert one.positives <= one.trials
        assert one.count("click", "orphan") > 0 and one.count("click", "repeat") > 0
