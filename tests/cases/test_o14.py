"""O14: a partial refund, then one that states the whole: returned never exceeds bought.

Policies: what a return takes beyond what is left counts `over_return`; a line with nothing left is reversed: its pairs
and its purchase are withdrawn. Units go by the return's own time; Thalweg keeps no sums by day.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest

from tests.cases.log_files import Case, days, look

T0 = 1772445600000  # 2026-03-02T10:00:00Z


def bought(name: str, item: str, quantity: int, ts: int = T0, order: str = "o1") -> dict[str, Any]:
    row = {"type": "purchase", "event_id": name, "ts": ts, "user_id": "u1", "order_id": order, "item_id": item}
    return {**row, "quantity": quantity, "price": 10, "currency": "EUR"}


def returned(name: str, day: int, quantity: int) -> dict[str, Any]:
    row = {"type": "return", "event_id": name, "ts": T0 + days(day), "user_id": "u1", "order_id": "o1"}
    return {**row, "item_id": "A", "quantity": quantity}


BOUGHT = [bought("p0", "C", 1, T0 - days(1), "o0"), bought("p1", "A", 5), bought("p2", "B", 1)]
"""With an order of the day before, so that there are edges to take back."""
RETURNS = [returned("t1", 1, 2), returned("t2", 2, 5), returned("t3", 3, 1)]


def step_by_step(made: Case, returns: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """(units of A left, over_return) after the purchases and after each return, each replayed by itself."""
    found = []
    for number, rows in enumerate([BOUGHT, *([row] for row in returns)]):
        made.write(**{f"step-{number}": rows})
        made.replay(f"step-{number}.jsonl")
        seen = look(made.state)
        assert (seen.left["B"], seen.left["C"]) == (1, 1)
        assert seen.edges.get(("C", "B")) == pytest.approx(2 ** (-1 / 7), abs=1e-4)
        assert (("C", "A") in seen.edges) == (seen.left["A"] > 0)
        assert seen.purchases["A"] == (1.0 if seen.left["A"] else 0.0)
        found.append((seen.left["A"], seen.count("return", "over_return")))
    return found


def test_in_the_order_of_the_case(case: Callable[..., Case]) -> None:
    """2 units on 3 March, 3 on 4 March, then nothing; over_return of the second and of the third."""
    assert step_by_step(case(), RETURNS) == [(5, 0), (3, 0), (0, 1), (0, 2)]


@pytest.mark.parametrize(
    "order", list(permutations((0, 1, 2)))[1:], ids=lambda order: "t" + "".join(str(i + 1) for i in order)
)
def test_in_any_order_of_arrival(case: Callable[..., Case], order: tuple[int, ...]) -> None:
    """Late ones are applied as they come: the split differs, what is left does not."""
    left = step_by_step(case(), [RETURNS[i] for i in order])
    assert [units for units, _ in left] == sorted((units for units, _ in left), reverse=True)
    assert left[-1][0] == 0
    taken, over = 0, 0
    for i, (units, count) in zip(order, left[1:], strict=True):
        asked = RETURNS[i]["quantity"]
        over += taken + asked > 5
        taken = min(5, taken + asked)
        assert (units, count) == (5 - taken, over)


def test_within_the_lateness_the_order_of_arrival_is_nothing(case: Callable[..., Case]) -> None:
    found = [
        case(time={"lateness": "10d"}).write(events=[*(RETURNS[i] for i in order), *BOUGHT]).run()
        for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0))
    ]
    assert len({str((one.digests, one.trails, one.books)) for one in found}) == 1
    assert (found[0].left, found[0].count("return", "over_return")) == ({"A": 0, "B": 1, "C": 1}, 2)


def test_a_return_before_its_purchase_waits_for_it(case: Callable[..., Case]) -> None:
    early = {**returned("t0", 0, 2), "ts": T0 - 3_600_000}
    found = case().write(events=[early, *BOUGHT]).run()
    assert found.count("return", "attributed") + found.count("return", "orphan") + found.count("return", "waiting") == 1
    assert found.left["A"] in (3, 5)


def test_returns_of_what_was_never_bought(case: Callable[..., Case]) -> None:
    unknown = [{**row, "order_id": "o404"} for row in RETURNS]
    later = {**bought("p9", "D", 1, T0 + days(9), "o9")}
    found = case().write(events=[*BOUGHT, *unknown, later]).run()
    assert (found.left["A"], found.count("return", "orphan")) == (5, 3)
