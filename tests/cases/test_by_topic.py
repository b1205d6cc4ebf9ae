"""The cases by topic: what the file route gives, the Kafka route gives too, on a real broker.

Raw topics of the test's own, ingest, blocks, the four stages on their hosts. Dead letters are found again with topic,
partition and offset; states are compared with those of the file route by digest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import delete_topic, new_kafka
from tests.cases import (
    test_o01,
    test_o02,
    test_o07,
    test_o08,
    test_o09,
    test_o10,
    test_o11,
    test_o13,
    test_o14,
    test_o15,
)
from tests.cases.log_files import BASE, Case, Found, days, look, small
from tests.cases.topics import Raw, Topics, closing
from thalweg.streams.configuration import Configuration
from thalweg.streams.dead_letter import RAW_LIMIT
from thalweg.streams.ingest import IngestError
from thalweg.streams.ingester import Ingester
from thalweg.streams.kafka import internal, make_producer
from thalweg.streams.outbox import Outbox

pytestmark = [pytest.mark.slow, pytest.mark.broker]

Made = Callable[..., Topics]
Part = Mapping[str, Sequence[Raw]]
"""What is sent to raw topics together, by topic."""


@pytest.fixture
def topics(brokers: str, tmp_path: Path) -> Made:
    """Makes the topics of an application."""

    def make(configuration: Configuration | None = None, folder: str = "topics") -> Topics:
        return Topics(tmp_path / folder, configuration or small(), new_kafka(brokers))

    return make


def places(letters: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(letter["source"].rsplit(".", 1)[1], letter["row"]) for letter in letters]


def same_state(one: Found, other: Found) -> None:
    """Equal digests, audit trails and clocks, and equal books but for the clock's own rows."""
    assert (one.digests, one.trails, one.clock) == (other.digests, other.trails, other.clock)
    for name, terms in one.books.items():
        if name not in ("progress", "unknown"):
            assert terms == other.books[name], name


def in_parts(made: Topics, files: Case, parts: Sequence[Part]) -> list[Found]:
    """The state after each part, which is that of a replay of the same rows up to there.

    A part is sent when all before it is ingested and every raw partition is idle, so the clock stands at the latest
    time minus the lateness, however fast the broker was. Ingest and stages are opened again for each part. The replay
    has a file for each topic of the part, and is resumed as well.
    """
    found = []
    for number, part in enumerate(parts):
        made.send(**part)
        made.ingest()
        found.append(made.stages())
        files.write(**{f"{topic}-{number}": rows for topic, rows in part.items()})
        files.replay(*(f"{topic}-{number}.jsonl" for topic in part), close=False)
        same_state(found[-1], look(files.state))
    return found


def heartbeat(ts: int) -> Part:
    """A part of one heartbeat alone."""
    return closing({"impressions": []}, ts)


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


def test_o02_json_that_parsers_disagree_about(topics: Made, case: Callable[..., Case]) -> None:
    """e and f are sold, and both are item A: `Item_ID` is another field. The others leave their text, NaN and all."""
    lines = [line.replace('"o1"', f'"o{name}"') for name, line in test_o02.LINES.items()]
    made = topics()
    [found] = in_parts(made, case(), [closing({"purchases": lines}, BASE + days(1))])
    letters = made.letters()
    assert [letter["reason"] for letter in letters] == list(test_o02.EXPECTED.values())
    refused = [i for i, name in enumerate(test_o02.LINES) if name in test_o02.EXPECTED]
    assert places(letters) == [("purchases/0", i) for i in refused]
    assert [letter["raw"] for letter in letters] == [lines[i][:RAW_LIMIT] for i in refused]
    assert found.count("purchase", "applied") == 2
    assert found.bought == found.left == {"A": 2}
    assert (found.purchases.keys(), found.edges) == ({"A"}, {})


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


def test_o07_times(topics: Made, case: Callable[..., Case]) -> None:
    """Every spelling of one instant is that instant; what is absurd is a dead letter and moves no clock."""
    rows = [
        f'{{"event_id":"i{i}","ts":{ts},"user_id":"u1","request_id":"r{i}","item_id":"A"}}'
        for i, ts in enumerate([*test_o07.SAME, *test_o07.ABSURD])
    ]
    made = topics()
    sent, found = in_parts(made, case(), [{"impressions": rows}, heartbeat(test_o07.NOON + 60_000)])
    assert sent.clock == test_o07.NOON + 123 - 10_000, "one of them is written with a fraction of a second"
    assert sent.count("impression", "held") == found.count("impression", "applied") == len(test_o07.SAME)
    instants = Counter(one["ts"] for one in found.impressions)
    assert instants == {test_o07.NOON: len(test_o07.SAME) - 1, test_o07.NOON + 123: 1}
    letters = made.letters()
    assert [letter["reason"] for letter in letters] == ["bad_timestamp"] * len(test_o07.ABSURD)
    assert places(letters) == [("impressions/0", len(test_o07.SAME) + i) for i in range(len(test_o07.ABSURD))]


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


def test_o10_one_order_sent_again(topics: Made, case: Callable[..., Case]) -> None:
    """p2 and 5,000 copies of p1 add nothing; p4 and p5, which name no order, are two; p3 comes 97 days later."""
    bought: list[Raw] = [test_o10.P1, *test_o10.AGAIN, test_o10.P2, test_o10.P4, test_o10.P5]
    parts = [
        closing({"impressions": test_o10.SHOWN, "purchases": bought}, BASE),
        closing({"purchases": [test_o10.P3]}, BASE + days(98)),
    ]
    found, later = in_parts(topics(), case(), parts)
    assert (found.bought, found.lines) == ({"SKU-42": 3}, 3)
    assert (found.count("purchase", "duplicate"), found.count("purchase", "duplicate_order_line")) == (5_001, 5_001)
    assert (found.positives, found.labels["conversions"]) == (1, 1), "credit for order 100118 is given once"
    assert later.count("purchase", "applied") == 4, "a guest's order, and long after the memory"
    assert (later.positives, later.labels["conversions"], later.letters) == (1, 1, [])


def test_o10_sent_again_behind_the_latest(topics: Made, case: Callable[..., Case]) -> None:
    """In the order of the case: p3 has moved event time on by 97 days, memory is long enough to tell the copies."""
    parts: list[Part] = [
        {"impressions": test_o10.SHOWN, "purchases": [test_o10.P1, test_o10.P2, test_o10.P3]},
        closing({"purchases": [test_o10.P4, test_o10.P5, *test_o10.AGAIN]}, BASE + days(98)),
    ]
    files = case(attribution={"return_window": "120d"})
    _, found = in_parts(topics(files.configuration), files, parts)
    assert (found.count("purchase", "late"), found.count("purchase", "duplicate_order_line")) == (5_002, 5_001)
    assert (found.bought, found.lines) == ({"SKU-42": 4}, 4)
    assert found.positives == 1


def test_o10_orders_without_a_number_are_never_one(topics: Made, case: Callable[..., Case]) -> None:
    """Nor under one user, nor among guests."""
    users = ["u2", "u2", "u3", None, None, "null"]
    rows: list[Raw] = [{**test_o10.P4, "event_id": f"n{i}", "user_id": user} for i, user in enumerate(users)]
    [found] = in_parts(topics(), case(), [closing({"purchases": rows}, BASE)])
    assert (found.bought, found.lines, found.count("purchase", "duplicate")) == ({"SKU-42": 6}, 6, 0)


def test_o11_orphans_when_wait_and_lateness_are_over(topics: Made, case: Callable[..., Case]) -> None:
    """Not before: the second heartbeat lies behind every wait, the clock 1 ms before the first that ends, c1's."""
    shown: Part = {"impressions": test_o11.SHOWN, "clicks": test_o11.CLICKS}
    parts = [closing(shown, BASE + 80_000), heartbeat(BASE + days(1) + 69_999), heartbeat(BASE + days(1) + 80_000)]
    before, still, after = in_parts(topics(), case(), parts)
    for found, orphans in ((before, 0), (still, 0), (after, 3)):
        assert (found.count("click", "orphan"), found.count("click", "waiting")) == (orphans, 3 - orphans)
        assert (found.count("click", "attributed"), found.count("click", "repeat")) == (3, 1)
        assert found.shown() == found.clicked() == {"A": 1, "B": 1}, "c5 joins B, and c6 adds nothing"
        assert found.labels["clicks"] == 2
    assert still.clock == BASE + days(1) + 59_999


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


def weeks_late(topics: Made, files: Case) -> tuple[Found, Found]:
    """The state after p1, three weeks late, and after t1, 146 days late; i1, c1 and the end of their window before.

    With a restart before each arrival, which changes nothing.
    """
    first, later, bought, returned = test_o13.arrivals(files)
    parts: list[Part] = [
        {"impressions": [first[0], *later], "clicks": first[1:]},
        {"impressions": bought[:-1]},
        closing({"purchases": bought[-1:]}, test_o13.ms("03-24T12:02:00", files)),
        {"impressions": returned[:-1]},
        closing({"returns": returned[-1:]}, test_o13.ms("07-29T12:02:00", files)),
    ]
    made = topics(files.configuration)
    found = in_parts(made, files, parts)
    same_state(made.stages("in one go"), found[-1])
    epoch = test_o13.ms("03-01T12:00:00", files) // days(1)
    for one in found:
        assert one.labels["clicks"] == 1
        assert test_o13.of_the_click(one, epoch)[0] == 1, "at each moment c1 stands once in the calibration table"
    settled, _, sold, _, back = found
    assert (settled.labels["expiries"], test_o13.of_the_click(settled, epoch)) == (1, (1, 0)), "settled: no purchase"
    return sold, back


def test_o13_wide_windows_correct_the_label_once_and_take_it_back(topics: Made, case: Callable[..., Case]) -> None:
    files = case(attribution=test_o13.WIDE)
    epoch = test_o13.ms("03-01T12:00:00", files) // days(1)
    bought, returned = weeks_late(topics, files)
    assert (bought.bought, bought.left) == ({"A": 1}, {"A": 1})
    assert test_o13.of_the_click(bought, epoch) == (1, 1)
    assert (bought.count("purchase", "late"), bought.count("purchase", "late_conversion")) == (1, 1)
    assert (bought.labels["conversions"], bought.labels["late_corrections"]) == (1, 1)
    assert (returned.bought, returned.left, returned.purchases["A"]) == ({"A": 1}, {"A": 0}, 0.0)
    assert test_o13.of_the_click(returned, epoch) == (1, 0), "once, and as what it became"
    assert (returned.count("return", "late"), returned.count("return", "reversal")) == (1, 1)
    assert (returned.labels["reversals"], returned.letters) == (1, [])


def test_o13_windows_as_they_are_say_what_they_could_not_use(topics: Made, case: Callable[..., Case]) -> None:
    """The label stays 0, which is counted; the return is set aside, named with topic, partition and offset."""
    files = case(attribution=test_o13.DEFAULT)
    epoch = test_o13.ms("03-01T12:00:00", files) // days(1)
    bought, returned = weeks_late(topics, files)
    assert (bought.bought, bought.purchases["A"]) == ({"A": 1}, pytest.approx(1.0, abs=0.2))
    assert (bought.count("purchase", "late"), bought.count("purchase", "applied")) == (1, 1)
    assert (returned.count("purchase", "late_label"), returned.count("purchase", "unattributed")) == (1, 1)
    assert test_o13.of_the_click(bought, epoch) == test_o13.of_the_click(returned, epoch) == (1, 0)
    assert (returned.count("return", "set_aside"), returned.count("return", "applied")) == (1, 0)
    [letter] = returned.letters
    assert (*places([letter]), letter["reason"], letter["type"]) == (("returns/0", 0), "too_late", "return")


@pytest.mark.parametrize(
    ("order", "expected"),
    [((0, 1, 2), [(5, 0), (3, 0), (0, 1), (0, 2)]), ((2, 1, 0), [(5, 0), (4, 0), (0, 1), (0, 2)])],
    ids=["in order", "reversed"],
)
def test_o14_partial_then_full_refund(
    topics: Made, case: Callable[..., Case], order: Sequence[int], expected: list[tuple[int, int]]
) -> None:
    """(units of A left, over_return) after the purchases and after each return; in order 2 go on 3 March, 3 on 4."""
    returns = [test_o14.RETURNS[i] for i in order]
    latest = [max(row["ts"] for row in returns[: i + 1]) for i in range(len(returns))]
    parts = [
        closing({"purchases": test_o14.BOUGHT}, test_o14.T0 + 60_000),
        *(closing({"returns": [row]}, ts + (i + 1) * 60_000) for i, (row, ts) in enumerate(zip(returns, latest))),
    ]
    found = in_parts(topics(), case(), parts)
    assert [(one.left["A"], one.count("return", "over_return")) for one in found] == expected
    for one in found:
        assert (one.left["B"], one.left["C"]) == (1, 1)
        assert one.edges.get(("C", "B")) == pytest.approx(2 ** (-1 / 7), abs=1e-4)
        assert (("C", "A") in one.edges) == (one.left["A"] > 0)
        assert one.purchases["A"] == (1.0 if one.left["A"] else 0.0)


def test_o14_within_the_lateness_the_order_of_arrival_is_nothing(topics: Made, case: Callable[..., Case]) -> None:
    files = case(time={"lateness": "7d"})
    rows = {"returns": test_o14.RETURNS[::-1], "purchases": test_o14.BOUGHT}
    [found] = in_parts(topics(files.configuration), files, [closing(rows, BASE + days(20))])
    assert (found.left, found.count("return", "over_return")) == ({"A": 0, "B": 1, "C": 1}, 2)
    assert found.count("return", "late") == 0


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


def test_o03_a_message_larger_than_a_block_may_be(topics: Made) -> None:
    """A raw topic may take more than those between the stages: 3 MB of a click, and 3 MB that are none, are read."""
    made = topics()
    outbox = Outbox(made.kafka, make_producer(made.kafka, **{"message.max.bytes": 4_000_000}))
    note = b'{"event_id":"c1","ts":%d,"user_id":"u1","request_id":"r1","item_id":"A","note":"%s"}' % (
        BASE,
        b"x" * 3_000_000,
    )
    for value in (note, note[:-1], test_o01.GOOD):
        outbox.send(made.topic("clicks"), 0, value)
    outbox.flush()
    made.ingest()
    found = made.stages()
    [letter] = made.letters()
    assert (letter["reason"], letter["row"], letter["length"]) == ("bad_json", 1, len(note) - 1)
    assert (found.count("click", "read"), found.count("click", "dead_lettered")) == (3, 1)


def test_o19_a_raw_topic_made_again_is_refused(topics: Made) -> None:
    made = topics()
    made.send(clicks=[test_o01.GOOD] * 5)
    made.ingest()
    delete_topic(made.kafka, made.topic("clicks"))
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
