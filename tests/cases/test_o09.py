"""O09: one event id, two payloads: exact copies vanish and are counted, contradictions are visible.

Policies: an event id is unique for one type and one shard key (the user, or a guest's order or request). Other content
under a known id there is dead-lettered as `id_conflict`; under another user it is another event. The memory is W plus
`late_conversion` for impressions, W for clicks and carts, `return_window` for purchases and returns; a late row older
than its memory is set aside as `too_late`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cases.log_files import BASE, Case, days, look, tick

FIRST = '{"event_id":"e1","ts":"2026-03-02T12:00:00Z","user_id":"u1","request_id":"r1","item_id":"A","position":1}'
MOVED = '{"position":1,"item_id":"A","request_id":"r1","user_id":"u1","ts":"2026-03-02T12:00:00.000Z","event_id":"e1"}'
OTHER_USER = '{"event_id":"e1","ts":"2026-03-02T12:00:01Z","user_id":"u9","request_id":"r9","item_id":"B","position":4}'
CONTRADICTION = OTHER_USER.replace("u9", "u1")
CLICK = '{"event_id":"e1","ts":"2026-03-02T12:00:09Z","user_id":"u1","request_id":"r1","item_id":"A"}'


def test_copies_vanish_and_a_contradiction_is_a_dead_letter(case: Callable[..., Case]) -> None:
    found = case().write(impressions=[FIRST, FIRST, MOVED, CONTRADICTION], clicks=[CLICK]).run()
    assert (found.count("impression", "applied"), found.count("impression", "duplicate")) == (1, 2)
    assert (found.count("impression", "conflict"), found.reasons) == (1, ["id_conflict"])
    [letter] = found.letters
    assert (letter["source"], letter["line"], letter["type"]) == ("impressions.jsonl", 4, "impression")
    assert '"item_id":"B"' in letter["raw"]
    assert found.shown() == {"A": 1}
    assert found.clicked() == {"A": 1}, "ids are per type: the click e1 is an event of its own"
    assert (found.trials, found.labels["clicks"]) == (1, 1)


def test_another_user_with_the_same_id_is_another_event(case: Callable[..., Case]) -> None:
    found = case().write(impressions=[FIRST, FIRST, MOVED, OTHER_USER], clicks=[CLICK]).run()
    assert found.shown() == {"A": 1, "B": 1}, "neither dropped in silence, nor written over the first"
    assert (found.count("impression", "duplicate"), found.letters) == (2, [])
    assert found.clicked() == {"A": 1}


@pytest.mark.parametrize("close", [False, True])
def test_a_restart_between_each(case: Callable[..., Case], close: bool) -> None:
    """Each line a file and a replay of its own; closed, each line but the first comes late."""
    made = case()
    for number, line in enumerate([FIRST, FIRST, MOVED, CONTRADICTION]):
        made.write(**{f"impressions-{number}": [line]})
    made.write(clicks=[CLICK])
    for number in range(4):
        made.replay(f"impressions-{number}.jsonl", close=close)
    made.replay("clicks.jsonl")
    found = look(made.state)
    assert (found.count("impression", "duplicate"), found.reasons) == (2, ["id_conflict"])
    assert (found.shown(), found.clicked()) == ({"A": 1}, {"A": 1})


def test_a_copy_after_the_memory_is_set_aside_with_its_reason(case: Callable[..., Case]) -> None:
    late = [tick(BASE + days(6)), {**tick(BASE), "type": "progress"}]
    inside = case().write(events=[*late[:1], FIRST.replace("{", '{"type":"impression",', 1)])
    assert inside.run().shown() == {"A": 1, "elsewhere": 1}, "late, and new: applied"
    rows = [FIRST.replace("{", '{"type":"impression",', 1)]
    made = case().write(events=[rows[0], tick(BASE + days(6)), rows[0], tick(BASE + days(9)), rows[0]])
    found = made.run()
    assert (found.count("impression", "duplicate"), found.count("impression", "set_aside")) == (1, 1)
    assert found.reasons == ["too_late"]
    assert found.trials == 3


def test_a_copy_of_an_old_event_under_a_new_time_is_a_new_event(case: Callable[..., Case]) -> None:
    """An id that is used again after its memory is over is not known any more."""
    again = {"type": "click", "event_id": "e1", "user_id": "u1", "item_id": "A"}
    rows = [{**again, "ts": BASE}, {**again, "ts": BASE + days(3)}, {**again, "ts": BASE + days(8)}]
    found = case().write(events=rows).run()
    assert (found.count("click", "applied"), found.reasons) == (2, ["id_conflict"])
