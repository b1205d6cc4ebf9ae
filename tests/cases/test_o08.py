"""O08: an effect stamped before its cause: inside the skew it counts with delay 0, beyond it belongs to nothing.

Policies: `attribution.skew_tolerance` is 5 s by default; an effect at the very time of its impression is after it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from tests.cases.log_files import BASE, Case, tick
from thalweg.streams.row import Op

IMPRESSION = {
    "type": "impression",
    "event_id": "i1",
    "ts": BASE - 60_000,
    "user_id": "u1",
    "request_id": "r1",
    "item_id": "A",
}
CLICK = {"type": "click", "event_id": "c1", "ts": BASE + 5_000, "user_id": "u1", "request_id": "r1", "item_id": "A"}


def purchase(number: int, after: int) -> dict[str, Any]:
    """A purchase of A by u1, `after` ms after the base instant."""
    return {
        "type": "purchase", "event_id": f"p{number}", "ts": BASE + after, "user_id": "u1", "order_id": f"o{number}",
        "item_id": "A", "quantity": 1,
    }  # fmt: skip


ROWS = [IMPRESSION, CLICK, purchase(1, 2_000), purchase(2, -3_595_000), purchase(3, 5_000)]


def delays(labels: list[np.ndarray]) -> list[int]:
    """Delay of each effect that was emitted on a label."""
    rows = np.concatenate(labels)
    effects = rows[np.isin(rows["op"], [Op.CLICK, Op.ADD_TO_CART, Op.CONVERSION])]
    return (effects["effect_ts"] - effects["impression_ts"]).tolist()


def test_two_belong_to_the_impression_and_the_early_one_to_nothing(
    case: Callable[..., Case], labels: list[np.ndarray]
) -> None:
    found = case(time={"lateness": "2h"}).write(events=[*ROWS, tick(BASE + 60_000)]).run()
    assert found.bought == {"A": 3}
    assert (found.count("purchase", "attributed"), found.count("purchase", "unattributed")) == (2, 1)
    assert [(one["clicked"], one["lines"]) for one in found.impressions if one["item"] == "A"] == [(True, 2)]
    assert found.positives == 1
    assert sorted(delays(labels)) == [62_000, 65_000], "of the click, and of the first of the two purchases"


def test_any_order_of_arrival_gives_one_state(case: Callable[..., Case]) -> None:
    orders = list(permutations(ROWS))
    found = [case(time={"lateness": "24h"}).write(events=rows).run() for rows in random.Random(8).sample(orders, 10)]
    assert len({str((one.digests, one.trails)) for one in found}) == 1
    assert {one.count("purchase", "late") for one in found} == {0}
    assert found[0].bought == {"A": 3}


def test_late_or_not_nothing_is_lost_and_no_delay_is_negative(
    case: Callable[..., Case], labels: list[np.ndarray]
) -> None:
    """Lateness of 10 s: p2, an hour back, comes late in most orders."""
    for rows in random.Random(9).sample(list(permutations(ROWS)), 6):
        found = case().write(events=[*rows, tick(BASE + 60_000)]).run()
        assert found.bought == {"A": 3}
        assert (found.count("purchase", "attributed"), found.positives) == (2, 1)
    assert min(delays(labels)) >= 0


@pytest.mark.parametrize("skew", ["0ms", "5s"])
@pytest.mark.parametrize("type_", ["click", "add_to_cart", "purchase"])
def test_an_effect_before_its_impression(
    case: Callable[..., Case], labels: list[np.ndarray], type_: str, skew: str
) -> None:
    """3 s early it is attributed with delay 0 inside a skew of 5 s; 6 s early it is not; at the same instant it is."""
    rows = []
    for user, early in (("three", 3_000), ("six", 6_000), ("same", 0)):
        rows.append({**IMPRESSION, "event_id": f"i-{user}", "user_id": user})
        rows.append(
            {"type": type_, "event_id": f"e-{user}", "ts": IMPRESSION["ts"] - early, "user_id": user, "item_id": "A"}
        )
    found = case(attribution={"skew_tolerance": skew}).write(events=[*rows, tick(BASE + 60_000)]).run()
    expected = 2 if skew == "5s" else 1
    assert (found.count(type_, "attributed"), found.count(type_, "unattributed")) == (expected, 3 - expected)
    assert delays(labels) == [0] * expected


def test_an_early_click_that_names_its_impression(case: Callable[..., Case], labels: list[np.ndarray]) -> None:
    clicks = [{**CLICK, "event_id": f"c{early}", "ts": IMPRESSION["ts"] - early} for early in (3_000, 6_000)]
    found = case().write(events=[clicks[1], clicks[0], IMPRESSION]).run()
    assert (found.count("click", "attributed"), found.count("click", "unattributed")) == (1, 1)
    assert delays(labels) == [0]
