"""What was published and is decoded again is the log; an interrupted publish goes on, nothing is lost or repeated."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from confluent_kafka.admin import NewTopic

from tests.live import Live
from thalweg.streams import publish as module
from thalweg.streams.broker_error import BrokerError
from thalweg.streams.configuration import Configuration, Kafka, from_builtins, load
from thalweg.streams.event import TYPES
from thalweg.streams.intake import Intake
from thalweg.streams.kafka import DEAD_LETTERS, create_topics, internal, make_admin, partitions, read_on, tail
from thalweg.streams.log import open_log
from thalweg.streams.log_file import LogError
from thalweg.streams.outbox import Outbox
from thalweg.streams.publish import Published, publish
from thalweg.streams.raw_decoder import RawDecoder
from thalweg.streams.row import Type

pytestmark = pytest.mark.broker
HOUR = 3_600_000
START = 1_774_785_600_000


def on(kafka: Kafka, topic: str, partition: int) -> list[bytes | None]:
    """All messages of a partition."""
    last = tail(kafka, topic, partition)
    return [] if last is None else [value for _, value in read_on(kafka, topic, partition, 0, last[0] + 1)]


def everything(kafka: Kafka) -> dict[tuple[str, int], list[bytes | None]]:
    """All messages of the raw topics, by partition."""
    counts = partitions(kafka, kafka.topics)
    return {(topic, p): on(kafka, topic, p) for topic, count in counts.items() for p in range(count)}


def is_heartbeat(value: bytes | None) -> bool:
    return value is not None and value.startswith(b'{"type":"progress"')


def rows(messages: list[bytes | None]) -> list[bytes | None]:
    """Without the heartbeats."""
    return [value for value in messages if not is_heartbeat(value)]


def lines(path: Path, count: int, *, kind: str | None = "click", ids: bool = True, start: int = START) -> Path:
    """A JSONL log: one event an hour, by six users."""
    said = {"type": kind} if kind else {}
    with path.open("w") as file:
        for i in range(count):
            identity = {"event_id": f"{path.stem}-{i}"} if ids else {}
            event = {**identity, **said, "ts": start + i * HOUR, "user_id": f"u{i % 6}", "item_id": f"i{i}", "more": i}
            file.write(json.dumps(event) + "\n")
    return path


@pytest.fixture
def configuration(kafka: Kafka) -> Configuration:
    """Two topics, clicks and purchases, with two partitions each."""
    some = {name: kind for name, kind in kafka.topics.items() if kind in ("click", "purchase")}
    kafka = msgspec.structs.replace(kafka, topics=some)
    create_topics(kafka, 1, raw=2)
    return Configuration(kafka=kafka)


def decoded(configuration: Configuration, messages: list[bytes | None], source: str, kind: str) -> Any:
    """What ingest makes of a partition's messages."""
    decoder = RawDecoder(configuration, source, int(TYPES[kind]), 0)
    return decoder.decode(messages, np.arange(len(messages)))


def content(array: np.ndarray[Any, Any], codes: np.ndarray[Any, Any]) -> list[bytes]:
    """Rows without where they were read from, and their features."""
    names = [name for name in array.dtype.names or () if name not in ("source", "offset", "clock")]
    return [b"".join(row[name].tobytes() for name in names) + code.tobytes() for row, code in zip(array, codes)]


def test_the_funnel_decoded_again_is_the_log(funnel_log: Path, kafka: Kafka) -> None:
    """20 thousand events: all fields, features and ids; in each partition in the order of the log."""
    configuration = msgspec.structs.replace(load(funnel_log.with_suffix(".toml")), kafka=kafka)
    create_topics(kafka, 1, raw=2)
    result = publish([funnel_log], configuration)
    assert (result.broken, result.dead_letters, result.resumed) == (0, 0, 0)
    (file,) = open_log([funnel_log], configuration).files
    intake, expected = Intake(configuration), []
    for batch in file.batches(0, 5_000):
        array, codes, _ = intake.rows(batch, 0)
        expected += content(array, codes)
    places: dict[bytes, deque[int]] = defaultdict(deque)  # the funnel sends some events twice
    for i, row in enumerate(expected):
        places[row].append(i)
    seen = []
    for (topic, partition), messages in everything(kafka).items():
        found = decoded(configuration, rows(messages), f"{topic}/{partition}", kafka.topics[topic])
        assert not found.rejects and not found.ignored
        got = [places[row].popleft() for row in content(found.rows, found.codes)]
        assert got == sorted(got)
        seen += got
    assert sorted(seen) == list(range(len(expected))) and result.events == len(expected) > 20_000


def test_heartbeats_never_overtake_rows(funnel_log: Path, kafka: Kafka) -> None:
    """Behind a heartbeat no partition has an earlier row (the log is in order); each ends with the greatest time."""
    configuration = msgspec.structs.replace(load(funnel_log.with_suffix(".toml")), kafka=kafka)
    create_topics(kafka, 1, raw=2)
    publish([funnel_log], configuration, close=True)
    ends, beats = set(), 0
    for messages in everything(kafka).values():
        beaten = top = -1
        for value in messages:
            ts = json.loads(value or b"")["ts"]
            if is_heartbeat(value):
                assert ts >= beaten
                beaten, beats = ts, beats + 1
            else:
                assert ts >= beaten
                top = max(top, ts)
        ends.add(beaten - int(configuration.time.lateness) - 1)
    (end,) = ends
    assert end >= top and beats > 12 * 20  # every thousand rows, in twelve partitions
    assert end == max(batch.events.column("ts").to_numpy().max() for batch in log_batches(funnel_log, configuration))


def log_batches(path: Path, configuration: Configuration) -> Iterator[Any]:
    for file in open_log([path], configuration).files:
        yield from file.batches(0, 50_000)


def test_one_key_stays_in_one_partition_and_files_are_merged_by_time(
    tmp_path: Path, configuration: Configuration
) -> None:
    kafka = configuration.kafka
    first, second = lines(tmp_path / "a.jsonl", 30), lines(tmp_path / "b.jsonl", 30, start=START + HOUR // 2)
    publish([first, second], configuration)
    topic = next(name for name, kind in kafka.topics.items() if kind == "click")
    places = defaultdict(set)
    for (name, partition), messages in everything(kafka).items():
        events = [json.loads(value or b"") for value in rows(messages)]
        assert name == topic or not events
        assert [event["ts"] for event in events] == sorted(event["ts"] for event in events)
        for event in events:
            places[event["user_id"]].add(partition)
    assert len(places) == 6 and all(len(each) == 1 for each in places.values())


def test_a_log_without_ids_gets_those_of_a_replay(tmp_path: Path, configuration: Configuration) -> None:
    log = lines(tmp_path / "clicks.jsonl", 40, kind=None, ids=False)
    publish([log], configuration)
    expected = [
        name for batch in log_batches(log, configuration) for name in batch.events.column("event_id").to_pylist()
    ]
    found = [
        json.loads(v or b"")["event_id"]
        for messages in everything(configuration.kafka).values()
        for v in rows(messages)
    ]
    assert sorted(found) == sorted(expected) and len(set(found)) == 40


BROKEN = [b'{"type": "click", "ts": ', b'{"type": "click", "user_id": "u"}', b"\xff\xfe", b"[1, 2]", b'{"no": "type"}']


def test_broken_lines_arrive_as_the_bytes_they_are(tmp_path: Path, configuration: Configuration) -> None:
    """Of a file whose name says the type; the first of them stand before any time is known."""
    kafka = configuration.kafka
    good = lines(tmp_path / "x.jsonl", 20).read_bytes().splitlines()
    log = tmp_path / "clicks.jsonl"
    log.write_bytes(b"\n".join([*BROKEN[:2], *good[:9], *BROKEN[2:], *good[9:]]) + b"\n")
    result = publish([log], configuration)
    topic = next(name for name, kind in kafka.topics.items() if kind == "click")
    found = [value for p in range(2) for value in rows(on(kafka, topic, p)) if b"event_id" not in (value or b"")]
    letters = on(kafka, internal(kafka, DEAD_LETTERS), 0)
    assert result.events == 20 and result.broken + result.dead_letters == 5
    assert sorted(found, key=str) == sorted(BROKEN, key=str) and not letters


def test_rows_that_have_no_topic_are_dead_letters_here(tmp_path: Path, kafka: Kafka) -> None:
    """Their type is unknown, or no topic takes it, or the broker would not: a place and a reason each."""
    only = msgspec.structs.replace(kafka, topics={name: kind for name, kind in kafka.topics.items() if kind == "click"})
    configuration = Configuration(kafka=only)
    create_topics(only, 1)
    large = json.dumps({"type": "click", "ts": START, "user_id": "u", "item_id": "i", "event_id": "x" * 2_000_000})
    log = lines(tmp_path / "log.jsonl", 3)
    with log.open("a") as file:
        file.write('{"type": "purchase", "ts": 1774785600000, "user_id": "u", "item_id": "i", "event_id": "p"}\n')
        file.write("no json\n" + large + "\n")
    result = publish([log], configuration)
    letters = [json.loads(value or b"") for value in on(only, internal(only, DEAD_LETTERS), 0)]
    assert result.events == 3 and result.dead_letters == len(letters) == 3 - result.broken
    assert all(letter["source"] and letter["reason"] for letter in letters)


def test_an_event_larger_than_its_topic_takes_stops_nothing(tmp_path: Path, kafka: Kafka) -> None:
    """A topic of 50 kB a message: small events, together far more, all arrive; the large one is a dead letter."""
    topic = f"{kafka.application}.small"
    configuration = Configuration(kafka=msgspec.structs.replace(kafka, topics={topic: ""}))
    admin = make_admin(kafka)
    admin.create_topics([NewTopic(topic, 1, config={"max.message.bytes": "50000"})])[topic].result(20)
    create_topics(configuration.kafka, 1)
    log = lines(tmp_path / "log.jsonl", 1_500)
    large = {"type": "click", "ts": START, "user_id": "u", "item_id": "i", "event_id": "x" * 60_000}
    log.write_bytes(json.dumps(large).encode() + b"\n" + log.read_bytes() + b"{" * 55_000 + b"\n")
    result = publish([log], configuration)
    letters = [json.loads(value or b"") for value in on(kafka, internal(kafka, DEAD_LETTERS), 0)]
    assert (result.events, result.broken, result.dead_letters) == (1_500, 0, 2)
    assert [(letter["source"], letter["row"], letter["reason"]) for letter in letters] == [
        ("log.jsonl", 0, "bad_row"), ("log.jsonl", 1_501, "bad_json"),
    ]  # fmt: skip
    assert "the raw topics take 50,000 a message (max.message.bytes)" in letters[0]["detail"]
    sent = rows(on(kafka, topic, 0))
    assert len(sent) == 1_500 and sum(len(value or b"") for value in sent) > 2 * 50_000
    assert (publish([log], configuration).resumed, len(rows(on(kafka, topic, 0)))) == (1_502, 1_500)


class Cut(Exception):
    """As good as a kill."""


def cut_after(monkeypatch: pytest.MonkeyPatch, messages: int) -> Callable[[], None]:
    """Let the publisher die when it hands over that many messages; what the broker has by then stays there."""
    send, count = Outbox.send, 0

    def counted(self: Outbox, *arguments: Any) -> None:
        nonlocal count
        count += 1
        if count > messages:
            while self._producer.flush(10):
                pass
            raise Cut
        send(self, *arguments)

    monkeypatch.setattr(Outbox, "send", counted)
    return lambda: monkeypatch.setattr(Outbox, "send", send)


@pytest.mark.parametrize("kills", [(3,), (14, 20), (330, 60), (410,), (60, 40, 200)])
def test_a_killed_publish_goes_on_and_sends_nothing_twice(
    kills: tuple[int, ...], tmp_path: Path, configuration: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed inside heartbeats, marks and rows, once and again: each row is there once, in order."""
    monkeypatch.setattr(module, "MARK_ROWS", 100)
    monkeypatch.setattr(module, "BEAT_ROWS", 10)
    log = lines(tmp_path / "log.jsonl", 300)
    for messages in kills:
        again = cut_after(monkeypatch, messages)
        with pytest.raises(Cut):
            publish([log], configuration)
        again()
    result = publish([log], configuration)
    assert result.resumed + result.events == 300
    found = everything(configuration.kafka)
    events = [json.loads(v or b"") for messages in found.values() for v in rows(messages)]
    assert sorted(int(event["item_id"][1:]) for event in events) == list(range(300))
    for messages in found.values():
        times = [json.loads(value or b"")["ts"] for value in rows(messages)]
        assert times == sorted(times)
    more = publish([log], configuration)
    assert (more.events, more.resumed) == (0, 300)


@pytest.mark.parametrize("messages", [15, 16, 17, 18])
def test_killed_inside_a_mark_it_swallows_no_row_that_is_like_another(
    messages: int, tmp_path: Path, configuration: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second mark is in some partitions only; every second row is the same broken one."""
    monkeypatch.setattr(module, "MARK_ROWS", 10)
    log = lines(tmp_path / "clicks.jsonl", 20)
    log.write_text("{\n".join(log.read_text().splitlines(keepends=True)) + "{\n")
    again = cut_after(monkeypatch, messages)
    with pytest.raises(Cut):
        publish([log], configuration)
    again()
    marks = [sum(b'"published"' in (v or b"") for v in found) for found in everything(configuration.kafka).values()]
    assert (min(marks), max(marks)) in {(1, 2), (2, 2)}, "it died inside the second mark, or right behind it"
    for _ in range(2):
        assert publish([log], configuration).dead_letters == 0
    found = [value for part in everything(configuration.kafka).values() for value in rows(part)]
    assert sum(value == b"{" for value in found) == 20 and len(found) == 40


@pytest.mark.parametrize(
    ("unit", "factor", "start"),
    [
        ("auto", 1, START),
        ("auto", 1, 94_694_400_000),
        ("ms", 1, START),
        ("s", 1e-3, START),
        ("ns", 1e6, 94_694_400_000),
    ],
)
def test_times_are_read_as_they_were_meant(
    unit: str, factor: float, start: int, tmp_path: Path, configuration: Configuration
) -> None:
    """Also where ingest takes a number for seconds or the like, and where milliseconds look like seconds: in 1973."""
    bounds = {"earliest": "1970-01-02T00:00:00Z"} if start < START else {}
    time = {"unit": unit, **bounds}
    configuration = msgspec.structs.replace(configuration, time=from_builtins({"time": time}).time)
    log = tmp_path / "clicks.jsonl"
    stamps = [start + i * HOUR + 500 * (unit != "s") for i in range(6)]
    said = [int(ts * factor) if unit != "auto" or start == START else iso(ts) for ts in stamps]
    rows = [{"ts": ts, "item_id": "A", "user_id": f"u{i}"} for i, ts in enumerate(said)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert publish([log], configuration, close=True).events == 6
    assert publish([log], configuration, close=True).resumed == 6
    got: list[int] = []
    for (topic, partition), messages in everything(configuration.kafka).items():
        found = decoded(configuration, messages, f"{topic}/{partition}", configuration.kafka.topics[topic])
        assert not found.rejects
        beats = found.rows["rank"] == Type.PROGRESS
        assert found.rows["ts"][beats].max() == stamps[-1] + int(configuration.time.lateness) + 1
        got += found.rows["ts"][~beats].tolist()
    assert sorted(got) == stamps


def iso(ts: int) -> str:
    return f"{np.datetime64(ts, 'ms')}Z"


def test_another_file_of_the_same_name_is_not_taken_for_published(tmp_path: Path, configuration: Configuration) -> None:
    logs = []
    for folder, start in (("monday", START), ("tuesday", START + 30 * HOUR)):
        (tmp_path / folder).mkdir()
        logs.append(lines(tmp_path / folder / "log.jsonl", 10, start=start))
    assert publish([logs[0]], configuration).events == 10
    with pytest.raises(LogError, match=r"tuesday/log.jsonl: another file of that name.*rename this one.*--again"):
        publish([logs[1]], configuration)
    with logs[0].open("a") as file:  # one that has grown is the same
        file.write(lines(tmp_path / "more.jsonl", 4, start=START + 10 * HOUR).read_text())
    grown = publish([logs[0]], configuration)
    assert (grown.events, grown.resumed) == (4, 10)


def test_a_heartbeat_of_the_log_goes_to_every_partition(tmp_path: Path, configuration: Configuration) -> None:
    log = lines(tmp_path / "log.jsonl", 3)
    with log.open("a") as file:
        file.write(json.dumps({"type": "progress", "event_id": "b", "ts": START + 99 * HOUR}) + "\n")
    result = publish([log], configuration)
    assert (result.events, result.dead_letters) == (3, 0)
    for messages in everything(configuration.kafka).values():
        assert any(is_heartbeat(v) and json.loads(v or b"")["ts"] == START + 99 * HOUR for v in messages)


def test_an_interrupted_publish_goes_on_and_closes(tmp_path: Path, configuration: Configuration) -> None:
    """stop() at the first look with a speed; then the rest; then only the closing; then all of it again."""
    log = lines(tmp_path / "log.jsonl", 50)
    looks = itertools.chain([False] * 40, itertools.repeat(True))
    first = publish([log], configuration, speed=1e9, stop=lambda: next(looks))
    assert first.interrupted and 0 < first.events < 50
    second = publish([log], configuration)
    assert not second.interrupted and second.resumed == first.events and second.events + first.events == 50
    third = publish([log], configuration, close=True)
    assert (third.events, third.resumed) == (0, 50)
    top = START + 49 * HOUR
    for messages in everything(configuration.kafka).values():
        assert json.loads(messages[-1] or b"")["ts"] == top + int(configuration.time.lateness) + 1
    assert publish([log], configuration, again=True).events == 50


def test_another_log_is_not_hidden_by_the_marks_of_the_first(tmp_path: Path, configuration: Configuration) -> None:
    publish([lines(tmp_path / "a.jsonl", 10)], configuration)
    result = publish([lines(tmp_path / "b.jsonl", 10)], configuration)
    assert (result.events, result.resumed) == (10, 0)


def test_speed_is_kept_also_where_the_first_line_is_broken(tmp_path: Path, configuration: Configuration) -> None:
    """Ten hours at 36,000 times real time are one second."""
    log = lines(tmp_path / "clicks.jsonl", 11)
    log.write_bytes(b"broken\n" + log.read_bytes())
    result = publish([log], configuration, speed=36_000)
    assert result.events == 11 and 0.9 < result.seconds


def test_missing_topics_are_named_with_the_command(tmp_path: Path, kafka: Kafka) -> None:
    with pytest.raises(BrokerError, match="there is no topic .*thalweg topics create --brokers"):
        publish([lines(tmp_path / "log.jsonl", 1)], Configuration(kafka=kafka))


def test_the_command_says_what_it_sent_and_its_status_whether_all_was_understood(tmp_path: Path, kafka: Kafka) -> None:
    only = msgspec.structs.replace(kafka, topics={name: kind for name, kind in kafka.topics.items() if kind == "click"})
    live = Live(tmp_path, Configuration(), only)
    assert f"{kafka.application}.events" in live.run("topics", "create")
    assert "all topics are there" in live.run("topics", "create")
    log = lines(tmp_path / "log.jsonl", 5)
    assert "published 5 events" in live.run("publish", str(log), "--flat-out")
    assert "5 were there already" in live.run("publish", str(log), "--flat-out")
    with log.open("a") as file:
        file.write("no json\n")
    assert "1 dead letters" in live.run("publish", str(log), "--flat-out", status=3)
    live.run("publish", str(log), "--flat-out", "--no-such", status=2)
    live.run("publish", str(tmp_path / "none.jsonl"), status=1)


def test_published_is_empty_at_first() -> None:
    assert Published().events == 0 and not Published().interrupted
