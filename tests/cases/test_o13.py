"""O13: weeks late: a purchase and a return count, correct what was settled, or are set aside with their reason.

Policies: a late row is applied as far back as its duplicates can be told (W for impressions, clicks and carts,
`return_window` for purchases and returns), else set aside as `too_late`. A conversion that comes late corrects its
label while the impression is kept (W + `late_conversion`), and is counted as `late_label` beyond.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cases.log_files import Case, Found, look, tick
from thalweg.streams.instant import from_text, zone_of

DEFAULT = {"return_window": "30d", "late_conversion": "1d"}
WIDE = {"return_window": "180d", "late_conversion": "30d"}


def ms(text: str, case: Case) -> int:
    """An instant of the year 2026."""
    return from_text(f"2026-{text}Z", "auto", zone_of(case.configuration.time))


def arrivals(case: Case) -> list[list[dict[str, object]]]:
    """What arrives, day by day; each late row behind one that moves event time on to its arrival."""

    def row(type_: str, name: str, ts: str, **more: object) -> dict[str, object]:
        return {"type": type_, "event_id": name, "ts": ms(ts, case), "user_id": "u1", "item_id": "A", **more}

    return [
        [
            row("impression", "i1", "03-01T12:00:00", request_id="r1"),
            row("click", "c1", "03-01T12:00:30", request_id="r1"),
        ],
        [tick(ms("03-10T12:00:00", case))],
        [
            tick(ms("03-24T12:00:00", case)),
            tick(ms("03-24T12:01:00", case)),
            row("purchase", "p1", "03-03T08:00:00", order_id="o1", quantity=1),
        ],
        [
            tick(ms("07-29T12:00:00", case)),
            tick(ms("07-29T12:01:00", case)),
            row("return", "t1", "03-05T08:00:00", order_id="o1", quantity=1),
        ],
    ]


def steps(made: Case) -> list[Found]:
    """The state after each arrival, with a restart before each."""
    found = []
    for number, rows in enumerate(arrivals(made)):
        made.write(**{f"day-{number}": rows})
        made.replay(f"day-{number}.jsonl")
        found.append(look(made.state))
    return found


def of_the_click(found: Found, epoch: int) -> tuple[int, int]:
    """Trials and positives of the epoch of i1: it holds nothing else."""
    cells = [cell for cell in found.cells if cell[0] == epoch]
    return sum(cell[2] for cell in cells), sum(cell[3] for cell in cells)


def test_wide_windows_correct_the_label_once_and_take_it_back(case: Callable[..., Case]) -> None:
    made = case(attribution=WIDE)
    epoch = ms("03-01T12:00:00", made) // 86_400_000
    _, settled, bought, returned = steps(made)
    assert of_the_click(settled, epoch) == (1, 0)
    assert settled.labels["expiries"] == 1, "the label settled as: no purchase"
    assert (bought.bought, bought.left) == ({"A": 1}, {"A": 1})
    assert of_the_click(bought, epoch) == (1, 1)
    assert (bought.count("purchase", "late"), bought.count("purchase", "late_conversion")) == (1, 1)
    assert (bought.labels["conversions"], bought.labels["late_corrections"]) == (1, 1)
    assert (returned.bought, returned.left) == ({"A": 1}, {"A": 0})
    assert returned.purchases["A"] == 0.0
    assert of_the_click(returned, epoch) == (1, 0), "once, and as what it became"
    assert (returned.count("return", "late"), returned.count("return", "reversal")) == (1, 1)
    assert (returned.labels["reversals"], returned.letters) == (1, [])


def test_windows_as_they_are_say_what_they_could_not_use(case: Callable[..., Case]) -> None:
    made = case(attribution=DEFAULT)
    epoch = ms("03-01T12:00:00", made) // 86_400_000
    _, settled, bought, returned = steps(made)
    assert (bought.bought, bought.purchases["A"]) == ({"A": 1}, pytest.approx(1.0, abs=0.2))
    assert bought.count("purchase", "late") == 1
    assert returned.count("purchase", "late_label") == 1, "too late for its label, which stays 0, and counted"
    assert returned.count("purchase", "unattributed") == 1
    for found in (settled, bought, returned):
        assert of_the_click(found, epoch) == (1, 0)
    assert returned.reasons == ["too_late"], "the return lies 146 days back"
    [letter] = returned.letters
    assert (letter["source"], letter["row"], letter["type"]) == ("day-3.jsonl", 2, "return")
    assert '"order_id":"o1"' in letter["raw"]
    assert (returned.count("return", "set_aside"), returned.count("return", "applied")) == (1, 0)


@pytest.mark.parametrize("windows", [DEFAULT, WIDE])
def test_restarts_change_nothing(case: Callable[..., Case], windows: dict[str, str]) -> None:
    """The same rows in one file, in one go."""
    stepped = steps(case(attribution=windows))[-1]
    made = case(attribution=windows)
    whole = made.write(days=[row for rows in arrivals(made) for row in rows]).run(block_rows=1)
    assert (whole.digests, whole.trails, whole.books) == (stepped.digests, stepped.trails, stepped.books)
