"""O05: guests, and the words for "nobody", never become one user; their purchases count for items all the same.

Policies: an id is nobody's where it is missing, empty, blank, or one of `event.NOBODY`; "0" is a user unless
`attribution.keep_user_zero` is false. Lines of one order have no direction among themselves: no pair is made of them,
and none across orders of guests.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

import thalweg
from tests.cases.log_files import BASE, Case, days, small
from thalweg.streams.row import Type

SENT = [
    ("g1", "A", {}),
    ("g1", "B", {}),
    ("g2", "C", {"user_id": None}),
    ("g3", "D", {"user_id": ""}),
    ("g3", "E", {"user_id": "   "}),
    ("g4", "F", {"user_id": "undefined"}),
    ("g5", "G", {"user_id": "None"}),
    ("g6", "H", {"user_id": 0}),
]
ROWS = [
    {"event_id": f"p{i}", "ts": BASE + i * 60_000, "order_id": order, "item_id": item, "quantity": 1, **user}
    for i, (order, item, user) in enumerate(SENT)
]


@pytest.mark.parametrize("keep_user_zero", [True, False])
def test_five_guests_stay_five(case: Callable[..., Case], keep_user_zero: bool) -> None:
    made = case(attribution={"keep_user_zero": keep_user_zero}).write(purchases=ROWS)
    found = made.run()
    assert found.letters == []
    assert found.count("purchase", "applied") == 8
    assert found.bought == dict.fromkeys("ABCDEFGH", 1)
    assert found.purchases == dict.fromkeys("ABCDEFGH", 1.0)
    assert found.edges == {}, "none across orders, and no direction inside one"
    assert (found.users, found.histories) == ((1, 1) if keep_user_zero else (0, 0))
    with thalweg.open(made.state) as view:
        nobody = [view.recommend(user) for user in (None, "undefined", "", "  ", "null", "None")]
        stranger, zero = view.recommend("never-seen"), view.recommend("0")
    for answer in (*nobody, stranger):
        assert (answer.rung, answer.seeds) == ("popularity", [])
        assert [one.item for one in answer.items] == [one.item for one in nobody[0].items]
        assert {one.reason.rung for one in answer.items} == {"popularity"}
    assert {one.item for one in nobody[0].items} == set("ABCDEFGH")
    assert zero.seeds == (["H"] if keep_user_zero else [])


def test_a_guest_order_is_returned_by_its_number(case: Callable[..., Case]) -> None:
    """The order is a guest's shard key: what is matched to it is found, by the order alone."""
    back = [
        {"event_id": "t1", "ts": BASE + days(2), "user_id": "null", "order_id": "g1", "item_id": "A", "quantity": 1}
    ]
    found = case().write(purchases=ROWS, returns=back).run()
    assert (found.left["A"], found.left["B"], found.count("return", "attributed")) == (0, 1, 1)


def test_clicks_of_guests_are_matched_inside_their_request(case: Callable[..., Case]) -> None:
    shown = [{"event_id": f"i{r}", "ts": BASE, "user_id": u, "request_id": r, "item_id": "A"} for r, u in (("r1", None), ("r2", ""))]  # fmt: skip # noqa: E501
    clicks = [{"event_id": "c1", "ts": BASE + 5_000, "user_id": "undefined", "request_id": "r2", "item_id": "A"}]
    found = case().write(impressions=shown, clicks=clicks).run()
    assert [one["clicked"] for one in sorted(found.impressions, key=lambda one: one["clicked"])] == [False, True]
    assert found.count("click", "attributed") == 1


def orders(count: int, words: list[str | None]) -> list[dict[str, object]]:
    """Guest orders, one an hour, of two items each out of fifty."""
    return [
        {
            "event_id": f"p{i}-{line}", "ts": BASE + i * 600_000, "order_id": f"g{i}", "user_id": words[i % len(words)],
            "item_id": f"i{(i * 7 + line * 13) % 50}",
        }
        for i in range(count)
        for line in range(2)
    ]  # fmt: skip


def test_ten_thousand_guests_have_no_history_and_cost_no_more_than_five_thousand(case: Callable[..., Case]) -> None:
    words = [None, "", " ", "null", "undefined", "None", "NaN", "[object Object]"]
    sizes = []
    for count in (7_500, 10_000):
        found = case().write(purchases=orders(count, words)).run(block_rows=500)
        assert (found.users, found.histories, found.edges) == (0, 0, {})
        assert found.count("purchase", "applied") == 2 * count
        sizes.append({(stage, name): size for stage, tables in found.sizes.items() for name, size in tables.items()})
    grown = {table: (sizes[0][table], size) for table, size in sizes[1].items() if size > sizes[0][table]}
    assert set(grown) <= {
        ("attribution", "trail"),
        ("feedback", "trail"),
        ("copurchase", "trail"),
        ("calibration", "trail"),
    }


def test_the_type_of_nobody_is_not_asked_for(case: Callable[..., Case]) -> None:
    """Every type takes a guest."""
    names = [type_.name.lower() for type_ in Type if type_ not in (Type.ITEM, Type.PROGRESS)]
    rows = [{"type": name, "event_id": "e", "ts": BASE, "request_id": "r", "item_id": "A"} for name in names]
    found = case().write(events=rows).run()
    assert (found.letters, found.users) == ([], 0)
    assert all(found.count(name, "applied") == 1 for name in names)
    assert small().attribution.keep_user_zero
