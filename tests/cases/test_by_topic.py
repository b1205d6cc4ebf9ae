"""The cases by topic: what the file route gives, the Kafka route gives too, on a real broker.

Raw topics of the test's own, ingest, blocks, the four stages on their hosts. Dead letters are found again with topic,
partition and offset; states are compared with those of the file route by digest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import new_kafka
from tests.cases import test_o01, test_o02, test_o07, test_o08, test_o09, test_o11, test_o14, test_o15
from tests.cases.log_files import BASE, Case, Found, days, small
from tests.cases.topics import Raw, Topics, closing
from thalweg.streams.configuration import Configuration
from thalweg.streams.dead_letter import RAW_LIMIT
from thalweg.streams.ingest import IngestError
from thalweg.streams.ingester import Ingester
from thalweg.streams.kafka import internal, make_admin
from thalweg.streams.outbox import Outbox

pytestmark = [pytest.mark.slow, pytest.mark.broker]

Made = Callable[..., Topics]


@pytest.fixture
def topics(brokers: str, tmp_path: Path) -> Made:
    """Makes the topics of an application."""

    def make(configuration: Configuration | None = None, folder: str = "topics") -> Topics:
        return Topics(tmp_path / folder, configuration or small(), new_kafka(brokers))

    return make


def places(letters: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(letter["source"].rsplit(".", 1)[1], letter["row"]) for letter in letters]


def same_state(one: Found, other: Found) -> None:
    """Equal digests, and equal books but for the clock's own rows."""
    assert one.digests == other.digests
    for name, terms in one.books.items():
        if name not in ("progress", "unknown"):
            assert terms == other.books[name], name


def test_o01_empty_null_and_non_object_payloads(topics: Made) -> None:
    made = topics()
    found = made.run(clicks=test_o01.MESSAGES)
    letters = made.letters()
    assert [letter["reason"] for letter in letters] == test_o01.REASONS
    assert places(letters) == [("clicks/0", offset) for offset in range(8)]
    assert letters[0]["raw"] is None and letters[4]["raw"] == "null", "a null stays null"
    assert sum(terms["read"] for terms in found.books.values()) == len(test_o01.MESSAGES)
    assert found.count("click", "dead_lettered") == 8 and found.count("click", "held") == 1


def test_o01_what_comes_later_is_read_and_nothing_twice(topics: Made) -> None:
    """Ingest is opened again behind the last block: positions are those of the blocks, no message arrives meanwhile."""
    made = topics()
    made.send(clicks=test_o01.MESSAGES[:5])
    assert made.ingest() == 5
    assert made.ingest() == 0
    made.send(clicks=test_o01.MESSAGES[5:])
    assert made.ingest() == 4
    found = made.stages()
    assert found.count("click", "read") == 9
    assert [letter["reason"] for letter in made.letters()] == test_o01.REASONS


def test_o02_json_that_parsers_disagree_about(topics: Made) -> None:
    made = topics()
    found = made.run(purchases=list(test_o02.LINES.values()))
    assert [letter["reason"] for letter in made.letters()] == list(test_o02.EXPECTED.values())
    assert found.count("purchase", "held") + found.count("purchase", "applied") == 2


@pytest.mark.parametrize("user", ["17850.5", "true", '["17850"]', '{"id":17850}'])
def test_o04_what_is_no_id(topics: Made, user: str) -> None:
    made = topics()
    made.send(clicks=[f'{{"event_id":"c","ts":{BASE},"user_id":{user},"request_id":"r","item_id":"A"}}'])
    made.ingest()
    assert [letter["reason"] for letter in made.letters()] == ["bad_id:user_id"]


def test_o04_ids_are_names(topics: Made, case: Callable[..., Case]) -> None:
    """0108775015 keeps its zero; the user 17850 is one user, whether sent as text, integer or float."""
    rows = [
        f'{{"event_id":"i{i}","ts":{BASE + i},"user_id":{user},"request_id":"r{i}","item_id":"{item}"}}'
        for i, (user, item) in enumerate([('"17850"', "0108775015"), ("17850", "0108775015"), ("17850.0", "108775015")])
    ]
    beat = {"type": "progress", "ts": BASE + days(1), "event_id": "beat"}
    found = topics().run(**closing({"impressions": rows}, BASE + days(1)))
    assert found.shown() == {"0108775015": 2, "108775015": 1}
    assert found.users == 1
    same_state(found, case().write(impressions=[*rows, beat]).run(close=False))


def test_o07_times(topics: Made) -> None:
    """Every spelling of one instant is that instant; what is absurd is a dead letter and moves no clock."""
    rows = [
        f'{{"event_id":"i{i}","ts":{ts},"user_id":"u1","request_id":"r{i}","item_id":"A"}}'
        for i, ts in enumerate([*test_o07.SAME, *test_o07.ABSURD])
    ]
    made = topics(small(time={"lateness": "0ms"}))
    found = made.run(impressions=rows)
    reasons = [letter["reason"] for letter in made.letters()]
    assert len(reasons) == len(test_o07.ABSURD)
    assert set(reasons) <= {"bad_timestamp", "missing_field:ts"}
    assert found.clock == test_o07.NOON + 123, "one of them is written with a fraction of a second"
    assert found.count("impression", "held") + found.count("impression", "applied") == len(test_o07.SAME)


def test_o07_ahead_of_the_wall_clock(topics: Made) -> None:
    """One device an hour ahead costs its one event, not the clock."""
    import time

    now = int(time.time() * 1000)
    rows: list[Raw] = [
        {"event_id": f"i{i}", "ts": ts, "user_id": "u1", "request_id": f"r{i}", "item_id": "A"}
        for i, ts in enumerate((now - 60_000, now + 3_600_000, now - 50_000))
    ]
    made = topics()
    found = made.run(impressions=rows)
    [letter] = made.letters()
    assert (letter["reason"], letter["row"]) == ("bad_timestamp", 1)
    assert "ahead of the wall clock" in letter["detail"]
    assert found.clock < now


def test_o08_an_effect_before_its_cause(topics: Made, case: Callable[..., Case]) -> None:
    rows: list[Raw] = list(test_o08.ROWS)
    beat = {"type": "progress", "ts": BASE + days(2), "event_id": "beat"}
    found = topics(small(time={"lateness": "1d"})).run(**closing({"impressions": rows}, BASE + days(2)))
    same_state(found, case(time={"lateness": "1d"}).write(impressions=[*rows, beat]).run(close=False))
    assert found.labels["conversions"] >= 1


def test_o09_one_id_two_payloads(topics: Made) -> None:
    """Copies vanish; the contradiction is set aside by attribution and named with topic, partition and offset."""
    made = topics()
    shown: list[Raw] = [test_o09.FIRST, test_o09.FIRST, test_o09.MOVED, test_o09.CONTRADICTION]
    found = made.run(**closing({"impressions": shown, "clicks": [test_o09.CLICK]}, BASE + days(1)))
    assert (found.count("impression", "applied"), found.count("impression", "duplicate")) == (1, 2)
    assert found.count("impression", "conflict") == 1
    assert found.clicked() == {"A": 1}


def test_o10_one_order_sent_again(topics: Made) -> None:
    order = {"ts": BASE, "user_id": "u1", "order_id": "o1", "item_id": "A", "quantity": 1, "price": 175}
    rows: list[Raw] = [{**order, "event_id": f"x{i}", "ts": BASE + i} for i in range(500)]
    found = topics().run(**closing({"purchases": rows}, BASE + days(1)))
    assert found.bought == {"A": 1}
    assert (found.count("purchase", "applied"), found.count("purchase", "duplicate")) == (1, 499)


def test_o11_orphans(topics: Made, case: Callable[..., Case]) -> None:
    files = {"impressions": list(test_o11.SHOWN), "clicks": list(test_o11.CLICKS)}
    found = topics().run(**closing(files, BASE + days(3)))
    assert found.count("click", "orphan") > 0 and found.count("click", "waiting") == 0
    assert sum(found.clicked().values()) <= sum(found.shown().values())


def test_o13_weeks_late(topics: Made) -> None:
    """A purchase three weeks late, in the order of arrival: applied or set aside with its reason, never dropped."""
    shown: list[Raw] = [
        {"event_id": "i1", "ts": BASE, "user_id": "u1", "request_id": "r1", "item_id": "A"},
        {"event_id": "i2", "ts": BASE + days(23), "user_id": "u2", "request_id": "r2", "item_id": "B"},
    ]
    made = topics()
    made.send(impressions=shown)
    made.ingest()
    late = {"event_id": "p1", "ts": BASE + days(1), "user_id": "u1", "order_id": "o1", "item_id": "A", "quantity": 1}
    made.send(purchases=[late, {**late, "event_id": "p2", "ts": BASE - days(60), "order_id": "o2"}])
    made.ingest()
    found = made.stages()
    terms = found.books["purchase"]
    assert (terms["read"], terms["applied"], terms["set_aside"], terms["late"]) == (2, 1, 1, 1)
    assert found.bought == {"A": 1}


def test_o14_partial_then_full_refund(topics: Made) -> None:
    rows = {"purchases": test_o14.BOUGHT, "returns": test_o14.RETURNS}
    found = topics(small(time={"lateness": "7d"})).run(**closing(rows, BASE + days(20)))
    assert found.left == {"A": 0, "B": 1, "C": 1}
    assert found.count("return", "over_return") == 2


def test_o15_quantities_and_prices(topics: Made) -> None:
    """A number or a dead letter, never another number."""
    bad = [("quantity", value) for value in test_o15.BAD_QUANTITIES if not isinstance(value, tuple)]
    bad += [("price", value) for value in test_o15.BAD_PRICES if not isinstance(value, tuple)]
    rows = [
        f'{{"event_id":"p{i}","ts":{BASE},"user_id":"u1","order_id":"o{i}","item_id":"A","{name}":{value}}}'
        for i, (name, value) in enumerate(bad)
    ]
    made = topics()
    found = made.run(**closing({"purchases": rows}, BASE + days(1)))
    assert found.bought == {}
    assert {letter["reason"].split(":")[0] for letter in made.letters()} <= {"bad_quantity", "bad_number", "bad_json"}
    assert len(made.letters()) == len(rows)


def test_o03_a_large_message_leaves_a_small_dead_letter(topics: Made) -> None:
    """A click without item and with a note of 900,000 characters: cut, with its length and digest; the next is read."""
    note = "x" * 900_000
    made = topics()
    good = {"event_id": "c2", "ts": BASE, "user_id": "u1", "request_id": "r1", "item_id": "A"}
    found = made.run(clicks=[{"event_id": "c1", "ts": BASE, "user_id": "u1", "note": note}, good])
    [letter] = made.letters()
    assert letter["reason"] == "missing_field:item_id"
    assert len(letter["raw"]) == RAW_LIMIT and letter["length"] > len(note) and len(letter["digest"]) == 32
    assert found.count("click", "read") == 2


def test_o19_a_raw_topic_made_again_is_refused(topics: Made) -> None:
    made = topics()
    made.send(clicks=[test_o01.GOOD] * 5)
    made.ingest()
    admin = make_admin(made.kafka)
    admin.delete_topics([made.topic("clicks")])[made.topic("clicks")].result(20)
    Topics(made.folder, made.configuration, made.kafka)  # makes what is missing
    made.send(clicks=[test_o01.GOOD] * 10)
    with pytest.raises(IngestError, match="another topic than before"):
        Ingester(made.configuration).run(lambda: False)


def test_rubbish_on_the_events_topic_stops_nothing(topics: Made) -> None:
    """Empty, null and cut-off messages between the blocks: ingest opens behind the last block, attribution passes."""
    made = topics()
    made.send(clicks=[test_o01.GOOD])
    made.ingest()
    outbox = Outbox(made.kafka)
    for value in (None, b"", b"no block", test_o01.GOOD):
        outbox.send(internal(made.kafka, "events"), 0, value)
    outbox.flush()
    made.send(clicks=[test_o01.GOOD.replace(b"c8", b"c9")])
    assert made.ingest() == 1
    found = made.stages()
    assert found.count("click", "read") == 2
    assert made.rubbish == 4
